"""Tables of the catalog as mappings: the records of a vault that the Glacier backend uses."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, MutableMapping, ValuesView
from typing import Any, TypeVar

from bakthat import models
from bakthat.backends.glacier.inventory import VaultRecords
from bakthat.database.address import Location

Value = TypeVar("Value")

_ARCHIVE_PREFIX = "archive "
"""What the keys of facts about archives in the table ``config`` begin with."""


class CatalogMapping(MutableMapping[str, Value]):
    """Two columns of a table as a mapping. Each access is a transaction of its own.

    *prefix* is prepended to every key in the table, so that one table may hold several mappings.
    Methods raise CatalogError.
    """

    def __init__(
        self, catalog: Location, table: str, key: str, value: str, *, prefix: str = ""
    ) -> None:
        self._catalog = catalog
        self._table = table
        self._key = key
        self._value = value
        self._prefix = prefix

    def __getitem__(self, key: str) -> Value:
        with models.catalog(self._catalog):
            return self._read(key)

    def __setitem__(self, key: str, value: Value) -> None:
        with models.catalog(self._catalog, write=True):
            self._write(key, value)

    def __delitem__(self, key: str) -> None:
        with models.catalog(self._catalog, write=True):
            if not self._model.delete().where(self._column == self._prefix + key).execute():
                raise KeyError(key)

    def setdefault(self, key: str, default: Value, /) -> Value:
        """Return the value of *key*; set it to *default* first if it has none. Atomic."""
        with models.catalog(self._catalog, write=True):
            try:
                return self._read(key)
            except KeyError:
                self._write(key, default)
                return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[str, Value]:
        """Return all pairs, read in one transaction."""
        return self._all().items()

    def values(self) -> ValuesView[Value]:
        """Return all values, read in one transaction."""
        return self._all().values()

    @property
    def _model(self) -> Any:
        return getattr(models, self._table)

    @property
    def _column(self) -> Any:
        return getattr(self._model, self._key)

    def _read(self, key: str) -> Value:
        row = self._model.get_or_none(self._column == self._prefix + key)
        if row is None:
            raise KeyError(key)
        value: Value = getattr(row, self._value)
        return value

    def _write(self, key: str, value: Value) -> None:
        models.put(self._model, **{self._key: self._prefix + key, self._value: value})

    def _all(self) -> dict[str, Value]:
        with models.catalog(self._catalog):
            rows = self._model.select()
            pairs = [(getattr(row, self._key), getattr(row, self._value)) for row in rows]
        length = len(self._prefix)
        return {key[length:]: value for key, value in pairs if key.startswith(self._prefix)}


def vault_records(catalog: Location) -> VaultRecords:
    """Return the records of vaults in the catalog at *catalog*, which each access opens."""
    archives: CatalogMapping[Mapping[str, Any]] = CatalogMapping(
        catalog, "Config", "key", "value", prefix=_ARCHIVE_PREFIX
    )
    return VaultRecords(
        CatalogMapping(catalog, "Inventory", "filename", "archive_id"),
        CatalogMapping(catalog, "Jobs", "filename", "job_id"),
        archives,
    )
