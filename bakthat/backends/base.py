"""The contract between bakthat and the storages it writes to.

A backend stores immutable objects under keys in one *container*: a bucket, a vault or a
directory. It knows bytes, keys and self-descriptions, and neither the catalog nor the
configuration file. Errors of the storage and of its client library leave a backend only as
:class:`~bakthat.errors.StorageError` and its subclasses, raised ``from`` the original.
"""

from __future__ import annotations

import enum
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

from bakthat.errors import (
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)

Metadata = Mapping[str, Any]
"""The self-description of an object: a mapping that JSON can hold, small (under 1,000 bytes
as ASCII JSON), so that every storage can keep it beside the object."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the storage reports it."""

    key: str
    size: int
    """In bytes, as stored; -1 where only the inventory of a vault could tell."""
    last_modified: float | None = None
    """Epoch seconds UTC; None where the storage does not say."""
    metadata: Metadata | None = None
    """The self-description; None where it was not asked for (listings of S3), and an empty
    mapping where the object has none that can be read."""
    storage_class: str = ""
    """The storage's own name of it, "" where there is none."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """What else the storage says and an upper floor may want, such as ``etag``."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a writer that was killed left in a container, invisible to listings of objects."""

    kind: str
    """"upload", "temporary file" or "claim"."""
    key: str
    """Of the object that was to be; the path below the container where nobody knows."""
    begun_at: float
    """Epoch seconds UTC, or when it was last written to, where the storage tells that."""
    age: float
    """Seconds since then, by the clock of the storage where it tells the time."""
    size: int = -1
    """In bytes; -1 where the storage does not say."""
    handle: str = ""
    """The storage's own name of it."""


class Upload(Protocol):
    """An object being written, invisible to everyone until :meth:`commit`.

    Deliberately no ``io.IOBase``, whose destructor would close, and so publish, half an object.
    Its methods are called from one thread at a time, not always the same one.
    """

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take all of *data*, blocking while the storage is slower than the writer.

        The caller may reuse the buffer afterwards. Raises StorageError, also for an earlier
        part that failed in the background.
        """

    def commit(self) -> StoredObject:
        """Publish the object and return it; only now does it exist.

        Returns after the storage has confirmed all of it. Raises KeyExistsError when the key
        was taken meanwhile and the upload may not replace. On any error nothing is visible, and
        the caller still calls :meth:`abort`.
        """

    def abort(self) -> None:
        """Give up and leave nothing behind: no object, no parts to pay for, no temporary file.

        May be called again and after :meth:`commit` (then it does nothing), so it is safe in
        ``finally``. Never raises; what could not be removed is logged.
        """


class Backend(Protocol):
    """One container of one storage."""

    name: str
    """"s3", "glacier" or "local"."""
    container: str
    """The bucket, the vault, or the absolute path of the directory."""
    batch_size: int
    """How many keys to hand to :meth:`delete_many` at once, when what is gone is to be recorded
    after each such call: as many as one request takes."""

    def create_container(self) -> None:
        """Make the container if it is missing. Only the first backup calls this."""

    def upload(
        self,
        key: str,
        *,
        metadata: Metadata,
        size_hint: int | None = None,
        replace: bool = False,
        content_type: str | None = None,
        content_encoding: str | None = None,
    ) -> Upload:
        """Begin to write *key*.

        *size_hint* is the caller's estimate of the bytes to come; an estimate that is too low
        must not make the upload fail. Unless *replace*, an object that has the key already is
        never overwritten: KeyExistsError, here or from ``commit``. The content headers are for
        storages that serve HTTP; the others ignore them.
        """

    def download(self, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """Open bytes *start* (included) to *end* (excluded; None: the last) of *key*.

        The caller closes what is returned, also before its end. Reading raises StorageError when
        fewer bytes arrive than the storage announced. Raises NotFoundError, NotReadyError.
        """

    def stat(self, key: str) -> StoredObject:
        """Describe *key*, with its self-description. Raises NotFoundError."""

    def ls(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key begins with *prefix*, in no promised order, all pages.

        Files that a backend keeps for itself (sidecars, temporary files) are left out.
        """

    def delete(self, key: str) -> None:
        """Remove *key* and its self-description. What is gone already is no error."""

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, BakthatError]:
        """Remove *keys*, any number of them; return the error of each that was not removed.

        One that cannot be removed does not stop the others. Raises UnreachableError and
        ContainerNotFoundError, after which nobody knows which ones are gone.
        """

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Everything below *prefix* that writers left behind, or still work on.

        What has no key is there whatever the prefix.
        """

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove what a writer left; return False when it is gone, or in use after all."""


class ThawState(enum.StrEnum):
    """How far an object is from being readable."""

    WARM = "warm"
    """It can be read at once, always."""
    FROZEN = "frozen"
    """It cannot be read, and nobody has asked for it."""
    ASKED = "asked"
    """It cannot be read yet."""
    READY = "ready"
    """It can be read for a while."""


@dataclass(frozen=True, slots=True)
class ThawStatus:
    """An object in cold storage on its way to being readable. Times are epoch seconds UTC."""

    key: str
    state: ThawState
    storage_class: str = ""
    """As in :mod:`bakthat.policy.storage_classes`; "" for what is not cold."""
    tier: str = ""
    """"expedited", "standard" or "bulk"; "" where the storage does not say."""
    requested_at: float | None = None
    """None where the storage does not say."""
    ready_until: float | None = None
    """When it freezes again; None where it does not, or nobody knows."""
    job_id: str = ""
    """The storage's name of the request, "" where it has none."""

    @property
    def is_readable(self) -> bool:
        """Whether the object can be read now."""
        return self.state in (ThawState.WARM, ThawState.READY)


@runtime_checkable
class ColdStorage(Backend, Protocol):
    """A backend that may hold objects which must be thawed before they can be read."""

    def thaw_status(self, key: str) -> ThawStatus:
        """Look how far *key* is; asks for nothing. Raises NotFoundError."""

    def thaw(self, key: str, *, tier: str, days: int) -> ThawStatus:
        """Ask for *key* to be thawed, unless it is readable or was asked for already.

        *tier* is one of :data:`bakthat.policy.storage_classes.TIERS`; *days* is how long it stays
        readable, where the storage lets one choose. Returns the state afterwards. What may be
        charged is sent once only: when its answer is lost, this looks instead of asking again.
        Raises NotFoundError; UsageError for a tier that the storage class lacks.
        """

    def thaws(self, prefix: str = "") -> Iterator[ThawStatus]:
        """Every object whose key begins with *prefix* that is being thawed or is thawed, also
        those that another machine asked for, as far as the storage lists them.
        """


class BakthatBackend(ABC):
    """What the backends share: the flat profile they were made from, their name and container.

    Making one reads nothing and connects to nothing.
    """

    name = ""
    container = ""
    batch_size = 1

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self.conf = conf

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove *key*; see :class:`Backend`."""

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, BakthatError]:
        """Remove *keys* one after the other; see :class:`Backend`."""
        failures: dict[str, BakthatError] = {}
        for key in keys:
            try:
                self.delete(key)
            except (UnreachableError, ContainerNotFoundError):
                raise
            except (StorageError, UsageError) as exc:
                failures[key] = exc
        return failures

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Find nothing: see :class:`Backend`."""
        return iter(())

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove nothing: see :class:`Backend`."""
        return False

    def __repr__(self) -> str:
        # Never the profile, which holds secrets.
        return f"<{type(self).__name__} {self.container!r}>"


def required(conf: Mapping[str, Any], key: str) -> str:
    """Return the text that a profile has under *key*. Raises ConfigError when it has none."""
    value = conf.get(key)
    if not value or not isinstance(value, str):
        raise ConfigError(f"{key} is not set", hint=f"add {key} to the profile")
    return value


def check_key(key: str) -> None:
    """Raise UsageError unless *key* can be a key in every storage.

    A key is relative, its components are separated by single slashes and none is "." or "..",
    so that it is a path below the container of the local storage too.
    """
    if not isinstance(key, str) or not key:
        raise UsageError(f"{key!r} cannot be a key: it is empty")
    if "\0" in key:
        raise UsageError(f"{key!r} cannot be a key: it contains a NUL")
    if not set(key.split("/")).isdisjoint({"", ".", ".."}):
        raise UsageError(
            f"{key!r} cannot be a key: a component between slashes is empty, '.' or '..'"
        )
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise UsageError(f"{key!r} cannot be a key: it has no UTF-8 form") from exc


def encode_metadata(metadata: Metadata, *, limit: int) -> str:
    """Return *metadata* as JSON in printable ASCII of at most *limit* bytes.

    Raises StorageError when it is longer, and UsageError when JSON cannot hold it.
    """
    try:
        text = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as exc:
        raise UsageError(f"the self-description cannot be written as JSON: {exc}") from exc
    # DEL is ASCII, but not printable; the signature of a request folds runs of spaces in a
    # header, which not every server undoes alike. Neither stands outside a string in this JSON.
    text = text.replace("\x7f", "\\u007f").replace("  ", " \\u0020")
    if len(text) > limit:
        raise StorageError(
            f"the self-description takes {len(text)} bytes, there is room for {limit}",
            hint="use fewer or shorter tags, or a shorter name",
        )
    return text


def decode_metadata(text: str | bytes) -> Metadata:
    """Return the mapping that *text* holds as JSON; an empty one when it is damaged."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
