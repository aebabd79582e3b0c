"""The exceptions that bakthat raises.

::

    BakthatError
    ├── UsageError                  an invalid argument
    ├── NoMatchError                no backup has that name
    ├── AmbiguousNameError          several sets have that name: of hosts, sources or containers
    ├── ConfigError                 an invalid configuration file, profile or key
    ├── CatalogError                the SQLite catalog cannot be opened, read or written
    ├── ResourceError               no memory, thread or file descriptor is left
    ├── SourceError                 the source of a backup cannot be read
    │   └── ProducerError           a program that produces what is backed up has failed
    ├── DestinationError            the destination of a restore cannot be written
    │   └── ConsumerError           a program that takes what is restored has failed
    ├── DatabaseError               a database cannot be reached, dumped or loaded
    ├── DrillError                  a backup does not restore as it should
    ├── ScheduleError               a timer or a crontab cannot be written, or is not bakthat's
    ├── HookError                   a command before or after a job has failed
    ├── LockedError                 another run is still going
    ├── ArchiveError
    │   ├── CorruptArchiveError     an archive that was truncated or altered
    │   │   └── CorruptIndexError   an index that was altered, or is of another archive
    │   └── UnsafeMemberError       a member that would leave the destination
    ├── CryptoError
    │   ├── KeyFormatError          an invalid recipient or identity
    │   ├── AgeFormatError          not an age file, or one that breaks the specification
    │   ├── DecryptionError         authentication failed: altered, truncated or reordered
    │   ├── WrongKeyError           none of the identities, nor the passphrase, opens the file
    │   └── PasswordError           a password is missing, or differs from its confirmation
    └── StorageError                the storage refused, failed or could not be reached
        ├── NotFoundError           no object has that key
        ├── ContainerNotFoundError  no such bucket, vault or directory
        ├── KeyExistsError          the key exists; nothing was overwritten
        ├── NotReadyError           an object in cold storage must be thawed first
        ├── CredentialsError        credentials are missing or wrong, or lack a permission
        └── UnreachableError        no connection, or the storage stopped answering

Each has a message of one line and may have a hint that says what to try.
"""

from __future__ import annotations


class BakthatError(Exception):
    """The base of all errors of bakthat.

    ``hint`` says what to try next, or is empty.
    """

    is_named = False
    """Whether the message names the backup that it is about, or its index."""

    is_unexpected = False
    """Whether it stands for an exception that is not bakthat's, its cause, whose text may quote a
    secret."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(BakthatError):
    """An argument is invalid."""


class NoMatchError(BakthatError):
    """No backup has that name."""


class AmbiguousNameError(BakthatError):
    """Several sets have that name: those of several hosts, sources or containers."""


class ConfigError(BakthatError):
    """The configuration cannot be read, or is invalid."""


class CatalogError(BakthatError):
    """The catalog cannot be opened, read or written."""


class ResourceError(BakthatError):
    """This process or machine has no memory, thread, file descriptor or temporary file left."""


class SourceError(BakthatError):
    """The source of a backup does not exist or cannot be read."""


class ProducerError(SourceError):
    """The program whose output is backed up has failed; nothing was stored."""


class DestinationError(BakthatError):
    """The destination of a restore or of a report cannot be written."""


class ConsumerError(DestinationError):
    """The program that takes what is restored has failed."""


class DatabaseError(BakthatError):
    """A database, or a tool of it, cannot be reached, or refuses what it was asked for."""


class DrillError(BakthatError):
    """A drill has found that a backup does not restore as it should."""


class ScheduleError(BakthatError):
    """A timer of systemd or a crontab cannot be written, or what is there is not bakthat's."""


class HookError(BakthatError):
    """A command that a job runs before it, after it or on an error has failed."""


class LockedError(BakthatError):
    """Another run is still going."""


class ArchiveError(BakthatError):
    """An archive cannot be written or read."""


class CorruptArchiveError(ArchiveError):
    """The archive is truncated or altered, or is no archive."""


class CorruptIndexError(CorruptArchiveError):
    """An index was truncated or altered, or it describes another archive."""


class UnsafeMemberError(ArchiveError):
    """A member of the archive would write, link or change something outside the destination."""


class CryptoError(BakthatError):
    """Encryption or decryption failed."""


class KeyFormatError(CryptoError):
    """A recipient or an identity is invalid."""


class AgeFormatError(CryptoError):
    """The input is not an age file, or breaks the age specification."""


class DecryptionError(CryptoError):
    """A part of the input fails authentication: it was altered, truncated or reordered."""


class WrongKeyError(CryptoError):
    """None of the identities, nor the passphrase, opens the file."""


class PasswordError(CryptoError):
    """A password is missing, or differs from its confirmation."""


class StorageError(BakthatError):
    """The storage refused, failed or could not be reached."""

    may_pass = False
    """Whether the request may succeed later as it is: no connection, or a failure of the service
    that outlasted the attempts."""


class NotFoundError(StorageError):
    """No object has that key."""


class ContainerNotFoundError(StorageError):
    """The bucket, vault or directory does not exist."""


class KeyExistsError(StorageError):
    """An object with that key exists; nothing was overwritten."""


class LockedObjectError(StorageError):
    """The object cannot be deleted, whoever asks: it is locked, or on hold."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        until: float | None = None,
        is_held: bool = False,
        why: str = "locked",
    ) -> None:
        super().__init__(message, hint=hint)
        self.until = until
        """When the lock ends, in epoch seconds UTC; None when that is not known, or without one."""
        self.is_held = is_held
        """Whether it is on hold, which ends only when it is released."""
        self.why = why
        """What keeps it, such as "locked until 2026-12-24 18:00:00 UTC" or "on hold (lawsuit)"."""


class NotReadyError(StorageError):
    """The object is in cold storage and must be thawed before it can be read."""


class CredentialsError(StorageError):
    """The credentials are missing or wrong, or lack a permission."""


class UnreachableError(StorageError):
    """The storage cannot be reached, or has stopped answering."""

    may_pass = True
