"""Store backups in a directory: each is a plain file, and its self-description is a second one.

``<key>`` holds the object and ``<key>.bakthat.json``, its sidecar, the self-description as ASCII
JSON. While an object is written, it is ``.bakthat-<random>.tmp`` in the directory of the object; a
killed writer leaves such a file.

**Never overwrite.** A writer claims the key by creating the sidecar, exclusively; that works on
every file system, even if nothing else is atomic there. The writer with the claim links the
finished file to its name, which fails when a file of that name exists. Of two writers, one fails at
the claim, and the sidecar is the other's. The sidecar is complete before the object appears. A
sidecar without an object is the claim of a writer that is at work or was killed. No other writer
takes it over; only :meth:`LocalBackend.delete` and :meth:`LocalBackend.remove_leftover` remove it.
At worst, a key cannot be used again; an object is never lost.

On file systems without hard links (vfat, exfat, some of FUSE), the file is renamed instead, after a
check that the name is free. That is safe against every other bakthat, which needs the claim too.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from bakthat.backends.base import (
    BakthatBackend,
    Leftover,
    Metadata,
    StoredObject,
    check_key,
    decode_metadata,
    encode_metadata,
)
from bakthat.backends.local.files import (
    METADATA_LIMIT,
    SIDECAR_SUFFIX,
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    FileRange,
    check_file_names,
    claim,
    create,
    is_private,
    key_exists_error,
    lock,
    make_directories,
    move_without_replacing,
    read_sidecar,
    remove,
    remove_abandoned,
    translated_errors,
    write_durably,
)
from bakthat.backends.lock import Lock
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.format.names import is_index_key
from bakthat.policy.defaults import DEFAULT_LOCAL_PATH
from bakthat.system.files import sync_directory, write_all
from bakthat.system.paths import expanded
from bakthat.system.text import from_native, to_native

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.bakthat-[0-9a-f]{32}(?:-meta)?\.tmp")
BUFFER_SIZE = 256 * 1024
MOST_RACES = 10
"""The times that a directory may be removed under a writer before that is an error."""


class LocalBackend(BakthatBackend):
    """The directory that the flat profile ``conf`` has as local_path, else ~/.bakthat_store.

    Slashes in a key make subdirectories. Directories are made with mode 0700, files with 0600.
    Files that another program put there are objects without a self-description. Only
    regular files are objects, and symbolic links are not followed below the container.
    """

    name = "local"
    batch_size = 50
    """Recording a deletion waits for the disk as removing a file does, so batches are small."""

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        path = str(expanded(str(conf.get("local_path") or DEFAULT_LOCAL_PATH)))
        self.container = os.path.abspath(path)

    def check_container(self, keys: Collection[str] = ()) -> None:
        """Raise ContainerNotFoundError when the directory is missing, or has none of *keys*."""
        with translated_errors("access", self.container):
            if not os.path.isdir(self.container):
                raise ContainerNotFoundError(
                    f"directory {self.container} does not exist",
                    hint="check local_path, and that the disk is mounted; "
                    "the first backup makes the directory",
                )
            if keys and not any(os.path.lexists(self._file(key)) for key in keys):
                raise ContainerNotFoundError(
                    f"directory {self.container} has none of its newest backups",
                    hint="check local_path, and that the disk is mounted",
                )

    def create_container(self) -> None:
        """Create the directory and its parents, if they are missing."""
        with translated_errors("create", self.container):
            for made in make_directories(self.container):
                sync_directory(os.path.dirname(made))

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
    ) -> LocalUpload:
        """Begin to write *key*; see :class:`~bakthat.backends.base.Backend`."""
        path = self._path(key)
        self.check_container()
        self._check_parents(key)
        description = encode_metadata(metadata, limit=METADATA_LIMIT)
        if not replace and (os.path.lexists(path) or os.path.lexists(path + SIDECAR_SUFFIX)):
            raise key_exists_error(path)
        return LocalUpload(self.container, key, description, replace=replace)

    def download(self, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """Open bytes *start* to *end* of *key*; see :class:`~bakthat.backends.base.Backend`."""
        if start < 0:
            raise UsageError(f"a download cannot start at byte {start}")
        path = self._path(key)
        self._describe(key)
        with translated_errors("open", path):
            # O_NONBLOCK: opening a FIFO that has replaced the file would block for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        return io.BufferedReader(FileRange(descriptor, path, start, end), BUFFER_SIZE)

    def stat(self, key: str) -> StoredObject:
        """Return *key* with its self-description. Raises NotFoundError."""
        return self._describe(key)

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        """Yield regular files, one directory at a time; see :class:`.base.Backend`."""
        self.check_container()
        yield from self._ls("", prefix, indexes=indexes)

    def delete(self, key: str) -> None:
        """Remove *key*, then its self-description. A missing key is not an error."""
        self._remove(key)
        self._sync_directory_of(key)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, BakthatError]:
        """Remove *keys*; wait for the disk once per directory; see :class:`.base.Backend`."""
        failures: dict[str, BakthatError] = {}
        removed: dict[str, list[str]] = {}
        for key in keys:
            try:
                self._remove(key)
            except ContainerNotFoundError:
                raise
            except (StorageError, UsageError) as exc:
                failures[key] = exc
            else:
                removed.setdefault(os.path.dirname(key), []).append(key)
        for within in removed.values():
            try:
                self._sync_directory_of(within[0])
            except StorageError as exc:
                failures |= dict.fromkeys(within, exc)
        return failures

    def _remove(self, key: str) -> None:
        path = self._path(key)
        self.check_container()
        self._check_parents(key)
        with translated_errors("delete", path):
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    raise StorageError(
                        f"{path} is not a regular file and was left as it is",
                        hint="move it away: another program put it there",
                    )
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                pass
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path + SIDECAR_SUFFIX)

    def _sync_directory_of(self, key: str) -> None:
        directory = os.path.dirname(self._path(key))
        with (
            translated_errors("delete", directory),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            sync_directory(directory)

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield all temporary files, and the claims below *prefix*: sidecars without an object."""
        self.check_container()
        now = time.time()
        for below, names in self._directories(""):
            for name in names:
                key = below + name.removesuffix(SIDECAR_SUFFIX)
                is_claim = name.endswith(SIDECAR_SUFFIX) and key.startswith(prefix)
                if is_claim and key.rpartition("/")[2] not in names:
                    kind = "claim"
                elif _TEMPORARY.fullmatch(name):
                    kind, key = "temporary file", below + name
                else:
                    continue
                path = self._file(below + name)
                with translated_errors("access", path), suppress(FileNotFoundError):
                    found = os.lstat(path)
                    if stat.S_ISREG(found.st_mode):
                        written = found.st_mtime
                        yield Leftover(kind, key, written, now - written, found.st_size, name)

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove a temporary file without a writer, or a claim without an object."""
        directory = os.path.dirname(self._file(leftover.key))
        path = os.path.join(directory, to_native(leftover.handle))
        claimed = path.removesuffix(SIDECAR_SUFFIX) if leftover.kind == "claim" else ""
        with translated_errors("delete", path):
            return remove_abandoned(path, unless=claimed)

    def _directories(self, below: str) -> Iterator[tuple[str, set[str]]]:
        """Yield the directories from *below* on, each with the names of its files.

        *below* and the yielded paths are relative to the container, and "" or with a slash at the
        end.
        """
        directory = self._file(below)
        names, deeper = set(), []
        with translated_errors("list", directory):
            try:
                with os.scandir(directory) as found:
                    for entry in found:
                        name = from_native(entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            deeper.append(f"{below}{name}/")
                        else:
                            names.add(name)
            except FileNotFoundError:
                return
        yield below, names
        for each in sorted(deeper):
            yield from self._directories(each)

    def _path(self, key: str) -> str:
        check_key(key)
        check_file_names(key)
        return self._file(key)

    def _file(self, key: str) -> str:
        """Return the path of *key*, whose bytes are UTF-8 whatever the locale."""
        return os.path.join(self.container, to_native(key))

    def _check_parents(self, key: str) -> None:
        """Raise StorageError when a parent of *key* exists and is not a directory."""
        path = self.container
        for part in key.split("/")[:-1]:
            path = os.path.join(path, to_native(part))
            with translated_errors("access", path):
                try:
                    mode = os.lstat(path).st_mode
                except FileNotFoundError:
                    return
            if not stat.S_ISDIR(mode):
                raise StorageError(
                    f"cannot use the key {key!r}: {path} is not a directory",
                    hint="move it away, or set another prefix or local_path in the profile",
                )

    def _describe(self, key: str) -> StoredObject:
        path = self._path(key)
        self.check_container()
        self._check_parents(key)
        with translated_errors("access", path):
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            raise NotFoundError(f"directory {self.container} has no {key!r}")
        return self._object(key, found)

    def _object(self, key: str, found: os.stat_result) -> StoredObject:
        return StoredObject(
            key,
            found.st_size,
            last_modified=found.st_mtime,
            metadata=read_sidecar(self._file(key) + SIDECAR_SUFFIX),
        )

    def _ls(self, below: str, prefix: str, *, indexes: bool) -> Iterator[StoredObject]:
        directory = self._file(below)
        with translated_errors("list", directory):
            try:
                with os.scandir(directory) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except FileNotFoundError:
                # The directory was removed after its parent was listed; the container exists.
                return
        for entry in entries:
            key = below + from_native(entry.name)
            with translated_errors("access", self._file(key)):
                try:
                    details = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
            if stat.S_ISDIR(details.st_mode):
                if (key + "/").startswith(prefix) or prefix.startswith(key + "/"):
                    yield from self._ls(key + "/", prefix, indexes=indexes)
            elif stat.S_ISREG(details.st_mode) and key.startswith(prefix):
                if is_private(entry.name) or is_index_key(key) is not indexes:
                    continue
                try:
                    check_key(key)
                except UsageError:
                    log.debug("%r in %s cannot be a key", key, self.container)
                    continue
                yield self._object(key, details)


class LocalUpload:
    """An upload into the container; see :class:`~bakthat.backends.base.Upload`."""

    def __init__(self, container: str, key: str, description: str, *, replace: bool) -> None:
        self._key = key
        self._container = container
        self._path = os.path.join(container, to_native(key))
        self._directory = os.path.dirname(self._path)
        self._description = description
        self._replace = replace
        self._size = 0
        self._is_flushed = False
        self._ended = False
        self._descriptor = -1
        name = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        self._temporary = os.path.join(self._directory, name)
        self._made: list[str] = []
        with self._abort_on_error("write to"):
            self._descriptor = self._create_temporary()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append all of *data* to the temporary file."""
        self._check_usable()
        with self._abort_on_error("write to"):
            self._size += write_all(self._descriptor, data)

    def flush(self) -> None:
        """Make the file durable."""
        self._check_usable()
        if not self._is_flushed:
            with self._abort_on_error("finish"):
                os.fsync(self._descriptor)
            self._is_flushed = True

    def commit(self) -> StoredObject:
        """Make the file durable, then visible under its key."""
        self.flush()
        with self._abort_on_error("finish"):
            found = os.fstat(self._descriptor)
            if found.st_size != self._size:
                raise StorageError(
                    f"{self._temporary} holds {found.st_size} bytes instead of {self._size}",
                    hint="another program writes to local_path: keep it out, and back up again",
                )
            os.close(self._take_descriptor())
            if self._replace:
                self._publish_replacing()
            else:
                self._publish_new(found)
        self._ended = True
        return StoredObject(
            self._key,
            self._size,
            last_modified=found.st_mtime,
            metadata=decode_metadata(self._description),
        )

    def abort(self) -> None:
        """Remove the temporary file, and the directories that were created for it."""
        if self._ended:
            return
        self._ended = True
        try:
            if self._descriptor >= 0:
                os.close(self._take_descriptor())
        except OSError as exc:
            log.debug("closing %s: %s", self._temporary, exc)
        remove(self._temporary)
        for directory in reversed(self._made):
            # Another writer may have put its object there meanwhile.
            with suppress(OSError):
                os.rmdir(directory)

    def _create_temporary(self) -> int:
        for _ in range(MOST_RACES):
            self._made += make_directories(self._directory, below=self._container)
            try:
                descriptor = create(self._temporary)
                lock(descriptor)
                return descriptor
            except FileNotFoundError:
                # Another writer aborted, and removed the directories that it had created.
                if not os.path.isdir(self._container):
                    raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._directory)

    def _check_usable(self) -> None:
        if self._ended:
            raise StorageError(f"the upload of {self._path} has ended already")

    def _take_descriptor(self) -> int:
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    @contextmanager
    def _abort_on_error(self, doing: str) -> Iterator[None]:
        # Abort at once, so that a full disk has space again before the caller aborts.
        try:
            with translated_errors(doing, self._path):
                yield
        except BaseException:
            self.abort()
            raise

    def _publish_new(self, written: os.stat_result) -> None:
        sidecar = self._path + SIDECAR_SUFFIX
        if os.path.lexists(self._path):
            raise key_exists_error(self._path)
        try:
            descriptor = claim(sidecar)
        except FileExistsError as exc:
            raise key_exists_error(self._path) from exc
        published = False
        try:
            write_all(descriptor, self._description.encode("ascii"))
            os.fsync(descriptor)
            move_without_replacing(self._temporary, self._path)
            published = True
            self._sync_directories()
        except BaseException:
            # Remove the object first: it must not exist without its self-description. A second
            # signal may have arrived between its publication and the next statement.
            if published or _is_file(self._path, written):
                remove(self._path)
            remove(sidecar)
            raise
        finally:
            os.close(descriptor)  # which ends the lock

    def _publish_replacing(self) -> None:
        # Not atomic: between the two renames the old object has the new self-description.
        sidecar = self._path + SIDECAR_SUFFIX
        new_sidecar = self._temporary.removesuffix(TEMPORARY_SUFFIX) + "-meta" + TEMPORARY_SUFFIX
        try:
            write_durably(create(new_sidecar), self._description)
            os.replace(new_sidecar, sidecar)
        except BaseException:
            remove(new_sidecar)
            raise
        os.replace(self._temporary, self._path)
        self._sync_directories()

    def _sync_directories(self) -> None:
        # Up to the container: another writer may have created a directory and not synchronised it.
        directory = self._directory
        while directory != self._container:
            sync_directory(directory)
            directory = os.path.dirname(directory)
        sync_directory(directory)


def _is_file(path: str, status: os.stat_result) -> bool:
    """Return whether *path* is the file that has *status*."""
    try:
        return os.path.samestat(os.lstat(path), status)
    except OSError:
        return False
