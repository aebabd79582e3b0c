"""What the databases of a catalog have in common: how they are opened, prepared and locked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any, Protocol

import peewee

from bakthat.database.address import Location
from bakthat.errors import CatalogError
from bakthat.system.text import printable


class CatalogDatabase(Protocol):
    """A connection to a catalog, a peewee database that raises CatalogError."""

    location: Location
    is_read_only: bool
    reads_json: bool
    """Whether its SQL reads values in JSON, and takes damaged text for nothing."""

    def schema_version(self) -> int:
        """Return the version of its tables; 0 where there are none."""

    def upgrade(self, tables: Collection[type[peewee.Model]], version: int) -> None:
        """Create or upgrade its tables to *version*, unless another process just did."""

    def writing(self) -> contextlib.AbstractContextManager[Any]:
        """Return a transaction, during which no other process writes to the catalog."""

    def holds(self, column: peewee.Field, text: str) -> Any:
        """Return the condition that *column* contains *text*, compared by bytes."""


Prepare = Callable[[Any], None]
"""Takes a database that was just opened; checks, creates or upgrades its tables."""


class ServerAwayError(CatalogError):
    """The server of the catalog cannot be reached, or the connection was lost."""


def is_away(error: CatalogError) -> bool:
    """Return whether *error* says that the server of the catalog does not answer."""
    return isinstance(error, ServerAwayError)


def locked_error(location: Location) -> CatalogError:
    """Return the error for a catalog that another process did not unlock in time."""
    return CatalogError(
        f"the catalog {printable(str(location))} is locked by another process",
        hint="try again when that process has ended",
    )
