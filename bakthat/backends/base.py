"""The contract between bakthat and the storages it writes to.

A backend stores immutable objects under keys in one *container*: a bucket, a vault or a
directory. It knows bytes, keys and self-descriptions, but neither the catalog nor the
configuration file. Errors of the storage and of its client library leave a backend only as
:class:`~bakthat.errors.StorageError` and its subclasses, raised ``from`` the original.
"""

from __future__ import annotations

import enum
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

from bakthat.backends.lock import Lock
from bakthat.errors import (
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CredentialsError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.policy.finding import Finding

Metadata = Mapping[str, Any]
"""The self-description of an object: a mapping that JSON can hold, under 1,000 bytes as ASCII JSON,
so that every storage can keep it with the object."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the storage reports it."""

    key: str
    size: int
    """In bytes, as stored; -1 where it is not known before the vault's inventory is read."""
    last_modified: float | None = None
    """Epoch seconds UTC; None where the storage does not say."""
    metadata: Metadata | None = None
    """The self-description; None where it was not requested (listings of S3), and an empty
    mapping where the object has none that can be read."""
    storage_class: str = ""
    """The storage's name of its storage class, "" where it has none."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further attributes that the storage returns, such as ``etag``."""
    lock: Lock | None = None
    """Its lock; None where that was not looked at, or the storage does not say."""


VERIFIED_BY = "verified_by"
"""What :attr:`StoredObject.extra` of a new object has where the access keys may not read it:
"listing", or "answer" where they may not list it either."""


class UnreadableError(CredentialsError):
    """The object is there: the access keys may list it, and may not read it."""

    stored: StoredObject
    """The object as it is listed, without its self-description."""


UNKNOWN_PROGRESS = "unknown"
"""The progress of an upload whose parts the storage does not list."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """An unfinished upload or file of a writer; :meth:`Backend.ls` does not list it."""

    kind: str
    """"upload", "temporary file" or "claim"."""
    key: str
    """The key that was being written; where it is not known, the path below the container."""
    begun_at: float
    """Epoch seconds UTC: when its last part was written, or else when the upload began."""
    age: float
    """Seconds since :attr:`begun_at`, by the clock of the storage where it tells the time."""
    size: int = -1
    """In bytes; -1 where the storage does not say."""
    handle: str = ""
    """The storage's id of the upload, or the name of the file."""
    progress: str = ""
    """What changes with each part, where the storage does not say when a part was written;
    :attr:`begun_at` is then when the upload began, and it may still be running."""


class Upload(Protocol):
    """An object being written, invisible to everyone until :meth:`commit`.

    Deliberately no ``io.IOBase``, whose destructor would close, and so publish, half an object.
    Its methods are called from one thread at a time, not always the same one.
    """

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Write all of *data*; block while the storage is slower than the caller.

        The caller may reuse the buffer afterwards. Raises StorageError, also for an earlier
        part that failed in the background.
        """

    def flush(self) -> None:
        """Send what was written, which may take long; :meth:`commit` then makes the last request.

        Nothing may be written afterwards. May be interrupted; :meth:`commit` calls it first, unless
        the caller has. Raises StorageError.
        """

    def commit(self) -> StoredObject:
        """Publish the object and return it; before, it does not exist.

        Returns only after the storage has confirmed all of it. Raises KeyExistsError when another
        writer has stored the key meanwhile, and this upload may not replace it. After an error
        nothing is visible, and the caller still calls :meth:`abort`.
        """

    def abort(self) -> None:
        """Discard the upload and leave nothing behind: no object, no parts, no temporary file.

        May be called again, and after :meth:`commit`, where it does nothing; so it is safe in
        ``finally``. Never raises; what could not be removed is logged.
        """


class Backend(Protocol):
    """One container of one storage."""

    name: str
    """"s3", "glacier" or "local"."""
    container: str
    """The bucket, the vault, or the absolute path of the directory."""
    host: str
    """The host of a directory, where the catalog has those of several hosts; otherwise ""."""
    batch_size: int
    """How many keys :meth:`delete_many` deletes in one request. A caller that records deletions
    passes that many at once."""
    page_size: int
    """How many objects :meth:`ls` lists in one request; 0 where other objects cost no request."""

    @property
    def identity(self) -> str:
        """What tells the container apart from the others in the catalog."""

    def check_container(self, keys: Collection[str] = ()) -> None:
        """Raise ContainerNotFoundError when the container does not exist.

        *keys* are objects that the caller knows to be in it. A directory without any of them may be
        the mount point of a disk that is not mounted, so it does not count as the container.
        """

    def create_container(self) -> None:
        """Create the container; one that exists is no error. Only the first backup calls this."""

    def upload(
        self,
        key: str,
        *,
        metadata: Metadata,
        size_hint: int | None = None,
        replace: bool = False,
        content_type: str | None = None,
        content_encoding: str | None = None,
        lock: Lock | None = None,
    ) -> Upload:
        """Begin to write *key*.

        *size_hint* is the caller's estimate of the size in bytes; an estimate that is too low must
        not make the upload fail. Unless *replace* is true, an existing object is never overwritten:
        this method or ``commit`` raises KeyExistsError. The content headers are for storages that
        serve HTTP; the others ignore them. *lock* is for a container with locks
        (:class:`~.protection.LockingStorage`): the object is locked as soon as it is published.
        """

    def download(self, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """Open bytes *start* (included) to *end* (excluded; None: to the last) of *key*.

        The caller closes the returned stream, and may do so before its end. Reading raises
        StorageError when fewer bytes arrive than the storage announced. Raises NotFoundError,
        NotReadyError.
        """

    def stat(self, key: str) -> StoredObject:
        """Return *key* with its self-description. Raises NotFoundError, UnreadableError."""

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        """Yield every object whose key begins with *prefix*, in any order.

        Indexes are left out; with *indexes*, only they are listed. Files of the backend itself
        (sidecars, temporary files) are left out always.
        """

    def is_unknown(self, key: str) -> bool:
        """Return whether *key* may be stored, but cannot be found from this machine.

        Such a key cannot be deleted: the object would stay, and cost money. Only a storage that
        needs records of this machine, as a vault does, has such keys. Sends no request.
        """

    def delete(self, key: str) -> None:
        """Remove *key* and its self-description. A missing key is not an error."""

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, BakthatError]:
        """Remove *keys*, any number of them; return the error of each that was not removed.

        A key that cannot be removed does not stop the others. Raises UnreachableError and
        ContainerNotFoundError; after that, it is not known which keys are removed.
        """

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield the leftovers below *prefix*, and the unfinished uploads of running writers.

        A leftover without a key is yielded whatever the prefix.
        """

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove *leftover*; return False when it is already gone, or in use."""


class Prober(Protocol):
    """Finds out whether one container of one storage can be used. No method raises BakthatError."""

    container: str
    """As in :class:`Backend`."""

    def prove(self, key: str, *, create: bool = False) -> list[Finding]:
        """Try to write an object, read it, and delete it; return the findings.

        *key* is random, and ends with :func:`bakthat.format.names.probe_name`. Nothing stays behind
        but the container, which is made where it is missing and *create* is true. The first signal
        is handled when what was begun is removed again.
        """

    def examine(self, prefix: str, *, kept_days: int) -> list[Finding]:
        """Look at how the container is set up, as far as that is allowed; return the findings.

        Keys of backups begin with *prefix*, and rotation keeps a backup for up to *kept_days*, 0
        without rotation. Call it after :meth:`prove` has found the container.
        """


class ThawState(enum.StrEnum):
    """Whether an object can be read, or must be thawed first."""

    WARM = "warm"
    """It can be read at once, always."""
    FROZEN = "frozen"
    """It cannot be read, and no thaw was requested."""
    ASKED = "asked"
    """A thaw was requested; it cannot be read yet."""
    READY = "ready"
    """It is thawed, and can be read for a while."""


@dataclass(frozen=True, slots=True)
class ThawStatus:
    """The thaw state of an object, and its last thaw. Times are epoch seconds UTC."""

    key: str
    state: ThawState
    storage_class: str = ""
    """As in :mod:`bakthat.policy.storage_classes`; "" if the object is not cold."""
    tier: str = ""
    """"expedited", "standard" or "bulk"; "" where the storage does not say."""
    requested_at: float | None = None
    """None where the storage does not say."""
    ready_until: float | None = None
    """When the thaw expires; None where it does not, or where that is not known."""
    job_id: str = ""
    """The storage's id of the request; "" where it has none."""

    @property
    def is_readable(self) -> bool:
        """Whether the object can be read now."""
        return self.state in (ThawState.WARM, ThawState.READY)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, the key as ``stored_filename``."""
        fields = asdict(self)
        return {
            "stored_filename": fields.pop("key"),
            **fields,
            "state": self.state.value,
            "readable": self.is_readable,
        }


@runtime_checkable
class ColdStorage(Backend, Protocol):
    """A backend that may hold objects which must be thawed before they can be read."""

    def thaw_status(self, key: str) -> ThawStatus:
        """Return the thaw status of *key*; request nothing. Raises NotFoundError."""

    def thaw(self, key: str, *, tier: str, days: int) -> ThawStatus:
        """Request the thaw of *key*, unless it is readable or was requested already.

        *tier* is one of :data:`bakthat.policy.storage_classes.TIERS`; *days* is how long it stays
        readable, where that can be chosen. Returns the status afterwards. A request that
        may be charged is sent once: when its answer is lost, this looks the status up instead of
        requesting again. Raises NotFoundError; UsageError for a tier that the storage class lacks.
        """

    def thaws(self, prefix: str = "") -> Iterator[ThawStatus]:
        """Yield every object below *prefix* that is being thawed or is thawed.

        Those that another machine requested are included, as far as the storage lists them.
        """

    def forget_expired_jobs(self, keys: Collection[str], *, dry_run: bool = False) -> list[str]:
        """Remove this machine's records of expired thaws of *keys*; return the keys of those.

        With *dry_run*, nothing is removed.
        """


class BakthatBackend(ABC):
    """The base class of the backends, with their flat profile, name and container.

    The constructor reads no file and makes no connection.
    """

    name = ""
    container = ""
    host = ""
    batch_size = 1
    page_size = 0

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self.conf = conf

    @property
    def identity(self) -> str:
        """What tells the container apart; see :class:`Backend`."""
        return container_identity(self.container, self.host)

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

    def is_unknown(self, key: str) -> bool:
        """Return False; see :class:`Backend`."""
        return False

    def forget_expired_jobs(self, keys: Collection[str], *, dry_run: bool = False) -> list[str]:
        """Remove nothing; see :class:`ColdStorage`."""
        return []

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield nothing; see :class:`Backend`."""
        return iter(())

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove nothing; see :class:`Backend`."""
        return False

    def __repr__(self) -> str:
        # Never the profile, which holds secrets.
        return f"<{type(self).__name__} {self.container!r}>"


def container_identity(container: str, host: str) -> str:
    """Return what tells a container apart from those of the same name on other hosts."""
    return f"{host}:{container}" if host else container


def required(conf: Mapping[str, Any], key: str) -> str:
    """Return the text that a profile has under *key*. Raises ConfigError when there is none."""
    value = conf.get(key)
    if not value or not isinstance(value, str):
        raise ConfigError(
            f"'{key}' is not set", hint=f"add {key} to the profile, or run bakthat configure"
        )
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
    # DEL is ASCII, but not printable. The signature of a request folds runs of spaces in a header,
    # and servers differ in that. In this JSON, both occur in strings only.
    text = text.replace("\x7f", "\\u007f").replace("  ", " \\u0020")
    if len(text) > limit:
        raise StorageError(
            f"the self-description takes {len(text)} bytes, more than {limit}",
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
