"""The exceptions that bakthat raises.

::

    BakthatError
    ├── UsageError                  an argument that cannot be meant
    ├── NoMatchError                no backup has that name
    ├── AmbiguousNameError          several sets or hosts have it
    ├── ConfigError                 the configuration file, a profile, a key of it
    ├── CatalogError                the SQLite catalog cannot be opened, read or written
    ├── SourceError                 what should be backed up cannot be read
    ├── DestinationError            what is restored cannot be written
    ├── ArchiveError
    │   ├── CorruptArchiveError     truncated or altered: not what was stored
    │   └── UnsafeMemberError       a member that would leave the destination
    ├── CryptoError
    │   ├── KeyFormatError          a recipient or an identity that is none
    │   ├── AgeFormatError          not an age file, or one that breaks the specification
    │   ├── DecryptionError         authentication failed: altered, truncated or reordered
    │   ├── WrongKeyError           no identity, or not this passphrase, opens it
    │   └── PasswordError           none given where one is needed, or two that differ
    └── StorageError                the storage refused, failed or could not be reached
        ├── NotFoundError           no object has that key
        ├── ContainerNotFoundError  no such bucket, vault or directory
        ├── KeyExistsError          the key is taken; nothing was overwritten
        ├── NotReadyError           in cold storage, must be thawed first
        ├── CredentialsError        keys missing, wrong or without the right
        └── UnreachableError        no connection, or the storage stopped answering

Every one carries a message in one line and, perhaps, a hint that says what to try.
"""

from __future__ import annotations


class BakthatError(Exception):
    """Whatever goes wrong in bakthat.

    ``hint`` says what to try next, or is empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(BakthatError):
    """An argument cannot be meant as it was given."""


class NoMatchError(BakthatError):
    """No backup has that name."""


class AmbiguousNameError(BakthatError):
    """Several sets or hosts have that name."""


class ConfigError(BakthatError):
    """The configuration cannot be read, or says something that cannot be."""


class CatalogError(BakthatError):
    """The catalog cannot be opened, read or written."""


class SourceError(BakthatError):
    """What should be backed up is not there or cannot be read."""


class DestinationError(BakthatError):
    """What is restored cannot be written to its destination."""


class ArchiveError(BakthatError):
    """An archive cannot be written or read."""


class CorruptArchiveError(ArchiveError):
    """The archive was truncated or altered, or is none."""


class UnsafeMemberError(ArchiveError):
    """A member of the archive would write, link or change something outside the destination."""


class CryptoError(BakthatError):
    """Encryption or decryption failed."""


class KeyFormatError(CryptoError):
    """A recipient or an identity is not written as one."""


class AgeFormatError(CryptoError):
    """The input is not an age file, or breaks the age specification."""


class DecryptionError(CryptoError):
    """A part of the input does not authenticate: it was altered, truncated or reordered."""


class WrongKeyError(CryptoError):
    """None of the identities, or not this passphrase, opens the file."""


class PasswordError(CryptoError):
    """A password is needed and none was given, or two that should be equal differ."""


class StorageError(BakthatError):
    """The storage refused, failed or could not be reached."""


class NotFoundError(StorageError):
    """No object has that key."""


class ContainerNotFoundError(StorageError):
    """The bucket, vault or directory does not exist."""


class KeyExistsError(StorageError):
    """An object has that key already; nothing was overwritten."""


class NotReadyError(StorageError):
    """The object is in cold storage and must be thawed before it can be read."""


class CredentialsError(StorageError):
    """The keys are missing or wrong, or lack the right."""


class UnreachableError(StorageError):
    """The storage cannot be reached, or stopped answering."""
