"""Find out whether a local store can be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import StorageError, UsageError
from bakthat.policy.finding import CONTAINER, Finding, Verdict, advice, failed, good, problem
from bakthat.system import disks
from bakthat.system.signals import held_back
from bakthat.system.text import printable, to_native

CONTENT = b"bakthat doctor tries whether it can write here; this may be deleted\n"
_MEND = "bakthat cleanup removes what is left behind, when it is a day old"


class LocalProber:
    """Tries the directory of the flat profile *conf*; see :class:`~bakthat.backends.base.Prober`.

    Raises ConfigError as :class:`.LocalBackend` does.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._backend = LocalBackend(conf)
        self.container = self._backend.container

    def prove(self, key: str, *, create: bool = False) -> list[Finding]:
        """Write, read and delete a file; see :class:`~bakthat.backends.base.Prober`."""
        shown = printable(self.container)
        made: list[Finding] = []
        if not os.path.lexists(self.container):
            future = self._future()
            if future.verdict is not Verdict.GOOD or not create:
                return [future]
            try:
                self._backend.create_container()
            except StorageError as exc:
                return [failed(CONTAINER, exc)]
            made.append(good(CONTAINER, f"directory {shown} was made"))
        found = disks.problem_of_directory(self.container)
        if found is not None:
            hint = f"{found.hint}, or set another local_path" if found.hint else ""
            return [*made, problem("writing", f"cannot write to {shown}: {found.reason}", hint)]
        return [*made, *self._write_and_remove(key)]

    def examine(self, prefix: str, *, kept_days: int) -> list[Finding]:
        """Look at the file system; see :class:`~bakthat.backends.base.Prober`."""
        if not os.path.isdir(self.container) or disks.has_locks(self.container):
            return []
        return [
            advice(
                "locks",
                f"the file system of {printable(self.container)} has no locks: bakthat cleanup "
                "tells what killed backups have left by its age only",
                "let no cleanup run with a short --older-than while a backup runs",
            )
        ]

    def _future(self) -> Finding:
        """Return whether a first backup could make the missing directory."""
        shown, parent = printable(self.container), os.path.dirname(self.container)
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        found = disks.problem_of_directory(parent)
        if found is None:
            return good(CONTAINER, f"directory {shown} does not exist; the first backup makes it")
        detail = f"directory {shown} does not exist, and cannot be made: {found.reason}"
        return problem(CONTAINER, detail, f"{found.hint}, or set another local_path")

    def _write_and_remove(self, key: str) -> list[Finding]:
        missing = self._missing_parents(key)
        topic = "writing"
        findings = []
        try:
            self._write(key)
            findings.append(good(topic, f"a file was written to {printable(self.container)}"))
            topic = "reading"
            with self._backend.download(key) as stream:
                content = stream.read()
            described = self._backend.stat(key).metadata
            if content == CONTENT and described:
                findings.append(good(topic, "the file came back as it was written"))
            else:
                findings.append(problem(topic, "the file came back altered", "check the disk"))
        except (StorageError, UsageError) as exc:
            findings.append(failed(topic, exc))
        finally:
            removed = self._remove(key, missing)
        # What could not be written needs no deletion.
        is_written = topic != "writing"
        return [*findings, removed] if is_written or removed.hint else findings

    def _write(self, key: str) -> None:
        with held_back(f"finishing {printable(key)}", mend=_MEND):
            upload = self._backend.upload(key, metadata={"probe": True})
            try:
                upload.write(CONTENT)
                upload.commit()
            finally:
                upload.abort()

    def _remove(self, key: str, directories: list[str]) -> Finding:
        """Remove the file, and the directories that were made for it, the innermost first."""
        with held_back(f"removing {printable(key)}", mend=_MEND):
            try:
                self._backend.delete(key)
            except (StorageError, UsageError) as exc:
                return failed("deleting", exc)
            for each in directories:
                with suppress(OSError):  # another writer may have put its object there meanwhile
                    os.rmdir(each)
        return good("deleting", "the file was deleted")

    def _missing_parents(self, key: str) -> list[str]:
        directory = os.path.dirname(os.path.join(self.container, to_native(key)))
        missing = []
        while directory != self.container and not os.path.lexists(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        return missing
