"""Find out what a backup would store, and why, without storing anything."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from bakthat.archive.create.increment.archive import Basis
from bakthat.archive.create.increment.compare import KEPT, UNCHANGED, Comparison
from bakthat.archive.create.increment.later import NewerContentError
from bakthat.archive.create.increment.plan import (
    DIRECTORY,
    LEAVE_OUT,
    LINK,
    ONLY_MEMBER,
    REMOVE,
    STORE,
    WARN,
    ChangedTargetError,
    Plan,
)
from bakthat.archive.create.walk import scan
from bakthat.archive.report import ArchiveReport, FileNames
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import CorruptIndexError, UsageError
from bakthat.format import names
from bakthat.operations.backup.parent import (
    ASKED_FOR,
    IncrementSettings,
    NoParentError,
    Parent,
    find_parent,
)
from bakthat.operations.backup.request import BackupRequest, refuse_source_in_store
from bakthat.operations.sources.files import BackupSource
from bakthat.session.session import Session
from bakthat.system.paths import PathLike
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


class PreviewedEntry(NamedTuple):
    """One path that an increment would store, or record as removed."""

    path: str
    """As in the archive."""
    change: str
    """``stored`` or ``removed``."""
    reason: str
    """Why, as "its size changed"."""

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of it."""
        return self._asdict()


@dataclass
class PreviewReport:
    """What a backup would store."""

    stored_filename: str
    """The name that it would have now."""
    is_increment: bool
    parent: str = ""
    """The stored filename of the backup that an increment would be made from."""
    why_full: str = ""
    """Why a full would be made; "" where nobody asked for increments."""
    is_skipped: bool = False
    """Whether no backup would be made, since nothing has changed since the newest one."""
    newest: str = ""
    """The stored filename of the newest backup of the set."""
    warning_count: int = 0
    """How many files cannot be read, or not be stored."""
    files: int = 0
    """Files that would be stored."""
    bytes: int = 0
    """Bytes of their content, without holes."""
    unchanged: int = 0
    removed: int = 0
    """Topmost paths that are gone."""
    explanation: str = ""
    """What was decided about the path of ``why``."""

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints as the summary."""
        facts = vars(self).copy()
        warnings = facts.pop("warning_count")
        return {**facts, "warnings": warnings}


class BackupPreview(Iterator[PreviewedEntry]):
    """The paths that an increment would store or remove; none for a full, which stores all."""

    def __init__(self, report: PreviewReport, plan: Plan | None, arcname: str) -> None:
        self.report = report
        self._plan = plan
        self._entries = _entries(plan, arcname) if plan is not None else iter(())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PreviewedEntry:
        return next(self._entries)

    def close(self) -> None:
        """Remove the temporary files, as the end of the iteration does."""
        if self._plan is not None:
            self._plan.close()


def preview_backup(
    filename: PathLike | None = None,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    prompt: str | bool = "yes",
    exclude_file: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    recipients: str | Sequence[str] = (),
    custom_filename: str | None = None,
    host: str | None = None,
    root_name: str | None = None,
    ignore_files: bool = True,
    exclude_caches: bool = False,
    one_file_system: bool = False,
    incremental: bool | None = None,
    full: bool = False,
    full_every: str | None = None,
    max_archives: int | None = None,
    detect: str | None = None,
    ignore_inode: bool | None = None,
    always_read: str | Sequence[str] | None = None,
    recheck: int | None = None,
    skip_unchanged: bool | None = None,
    why: str | None = None,
) -> BackupPreview:
    """Return what :func:`bakthat.backup` with these arguments would store; store nothing.

    The result is an iterator over what an increment would store and remove, with the reasons; its
    ``report`` has the counts, the name and why a full would be made. No event fires. *why* is a
    path below *filename*, or one that leads there: ``report.explanation`` then says what was
    decided about it.

    Files whose times do not decide are read. Raises what :func:`bakthat.backup` raises before it
    stores anything.
    """
    session = Session(profile, config, conf, destination, host=host)
    source = BackupSource.find(
        filename, custom_filename, compress=session.profile.compress, root_name=root_name
    )
    refuse_source_in_store(session, source.path)
    request = BackupRequest.make(
        session,
        source,
        backend=session.backend(session.destination),
        exclude_file=exclude_file,
        ignore_files=ignore_files,
        exclude_caches=exclude_caches,
        one_file_system=one_file_system,
        password=password,
        recipients=recipients,
        prompt=prompt,
        make_store=False,
    )
    increments = IncrementSettings.choose(
        session.profile,
        session.destination,
        incremental=incremental,
        full_every=full_every,
        max_archives=max_archives,
        detect=detect,
        ignore_inode=ignore_inode,
        always_read=always_read,
        recheck=recheck,
        skip_unchanged=skip_unchanged,
    )
    explain = _path_below(source, why) if why is not None else None
    reason = ""
    if increments.incremental and source.is_archive:
        try:
            if full:
                raise NoParentError(ASKED_FOR)
            try:
                return _preview_increment(request, increments, explain, from_newest=False)
            except NewerContentError:
                return _preview_increment(request, increments, explain, from_newest=True)
        except (NoParentError, ChangedTargetError) as exc:
            reason = str(exc)
        except CorruptIndexError as exc:
            reason = f"the index of an earlier backup cannot be used: {exc}"
    return _preview_full(request, reason, explain)


def _preview_increment(
    request: BackupRequest,
    increments: IncrementSettings,
    explain: str | None,
    *,
    from_newest: bool,
) -> BackupPreview:
    """Compare the tree with the parent's state. Raises NoParentError where a full is made."""
    source = request.source
    with ExitStack() as stack:
        found = find_parent(
            request.session, source, request.keys, increments, from_newest=from_newest
        )
        parent = stack.enter_context(found)
        name = printable(parent.backups[-1].stored_filename)
        skipped = _skipped(request, parent, explain) if increments.skip_unchanged else None
        if skipped is not None:
            return skipped
        problem = parent.problem(request.session) or parent.key_problem(
            request.session, request.keys
        )
        if problem:
            raise NoParentError(problem)
        comparison = _comparison(request, parent.basis, explain)
        plan = comparison.run()
        stack.callback(plan.close)
        totals = plan.totals
        reason = parent.why_full(totals)
        if reason:
            raise NoParentError(reason)
        report = PreviewReport(
            _name(request, parent),
            is_increment=True,
            parent=parent.backups[-1].stored_filename,
            newest=parent.newest.stored_filename,
            warning_count=totals.warnings,
            files=totals.stored,
            bytes=totals.stored_bytes,
            unchanged=totals.unchanged,
            removed=totals.removed,
            explanation=_explained(comparison.explanation, name) if explain is not None else "",
        )
        stack.pop_all()
    return BackupPreview(report, plan, source.arcname)


def _skipped(request: BackupRequest, parent: Parent, explain: str | None) -> BackupPreview | None:
    """Return that no backup is made, since nothing has changed since the newest; None if one is."""
    session, keys = request.session, request.keys
    if parent.problem_of_newest(session) or parent.key_problem_of_newest(session, keys):
        return None
    newest = Basis(parent.basis.newest or parent.basis.state, parent.basis.rule)
    comparison = _comparison(request, newest, explain)
    plan = comparison.run()
    if not plan.totals.is_nothing:
        plan.close()
        return None
    name = parent.newest.stored_filename
    report = PreviewReport(
        _name(request, parent),
        is_increment=True,
        parent=parent.backups[-1].stored_filename,
        is_skipped=True,
        newest=name,
        unchanged=plan.totals.unchanged,
        explanation=_explained(comparison.explanation, printable(name))
        if explain is not None
        else "",
    )
    return BackupPreview(report, plan, request.source.arcname)


def _comparison(request: BackupRequest, basis: Basis, explain: str | None) -> Comparison:
    return Comparison(
        request.source.path,
        request.source.arcname,
        request.options,
        basis.state,
        basis.rule,
        newest=basis.newest,
        explain=explain,
    )


def _preview_full(request: BackupRequest, reason: str, explain: str | None) -> BackupPreview:
    source = request.source
    if source.is_archive:
        file_names = FileNames(ArchiveReport(), source.arcname)
        on_left_out = file_names.left_out if file_names.are_wanted else None
        counted = scan(source.path, request.options, on_left_out=on_left_out)
        files, size = counted.files, counted.bytes
    else:
        files, size = 1, source.path.stat().st_size
    report = PreviewReport(
        _name(request, None), is_increment=False, why_full=reason, files=files, bytes=size
    )
    because = f", since {reason}" if reason else ""
    report.explanation = f"a full backup stores all that is not left out{because}"
    if explain and not os.path.lexists(source.path / explain):
        where = printable(source.path)
        report.explanation = f"it is not stored: there is no '{printable(explain)}' in '{where}'"
    return BackupPreview(report, None, "")


def _name(request: BackupRequest, parent: Parent | None) -> str:
    now = int(time.time())
    date = now if parent is None else max(now, parent.earliest_date)
    return request.session.prefix + names.stored_name(
        request.source.stem,
        date,
        request.source.extension,
        encrypted=bool(request.keys),
        increment=parent is not None,
    )


def _path_below(source: BackupSource, path: str) -> str:
    """Return *path* below the source. Raises UsageError for one that is elsewhere."""
    root = os.path.realpath(source.path)
    for base in (root, os.getcwd()):
        whole = os.path.normpath(os.path.join(base, path))
        parent = os.path.realpath(os.path.dirname(whole))
        whole = os.path.join(parent, os.path.basename(whole)) if whole != root else root
        if os.path.lexists(whole) and (whole == root or whole.startswith(f"{root}/")):
            return os.path.relpath(whole, root) if whole != root else ""
    # It may have been removed, or be in a directory that cannot be entered.
    if not os.path.isabs(path):
        return os.path.normpath(path)
    if whole.startswith(f"{root}/"):
        return os.path.relpath(whole, root)
    raise UsageError(
        f"'{printable(path)}' is not below '{printable(source.path)}', which is backed up",
        hint="give a path in what is backed up to --why",
    )


def _explained(explanation: str, parent: str) -> str:
    if explanation == UNCHANGED:
        return f"it is not stored: it is unchanged since {parent}"
    if explanation == KEPT:
        return f"it cannot be read: its earlier content in {parent} stays in the backup"
    if explanation == "removed":
        return f"it is recorded as removed: {parent} has it"
    if not explanation:
        return "it is not stored: it is neither in the tree nor in the backup before, or left out"
    return f"it is stored: {explanation}"


def _entries(plan: Plan, arcname: str) -> Iterator[PreviewedEntry]:
    file_names = FileNames(ArchiveReport(), arcname)
    try:
        for step in plan.steps():
            path = file_names.path(step.name)
            if step.kind == LEAVE_OUT:
                file_names.left_out(step.name, step.reason)
            elif step.kind in (STORE, LINK):
                yield PreviewedEntry(path, "stored", step.reason)
            elif step.kind == WARN:
                log.warning("%s", step.reason)
            elif step.kind == REMOVE:
                yield PreviewedEntry(path, "removed", "it is gone")
            elif step.kind == DIRECTORY:
                content = plan.directory(step.number)
                if content is not None and content[0] not in ("", ONLY_MEMBER):
                    yield PreviewedEntry(path, "stored", content[0])
    finally:
        plan.close()
