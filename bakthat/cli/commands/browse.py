"""Look into backups: list what they hold, search and compare them, and write out a file of one."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli import output
from bakthat.cli.app import LOOKING, SELECTION, command, option
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import with_destination, with_host, with_keys, with_profile, with_source
from bakthat.cli.output import Summary, print_error, print_result
from bakthat.cli.progress import progress_bar
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.format.entry import Entry
    from bakthat.operations.browse.comparison import EntryChange
    from bakthat.operations.browse.diff import DiffReport
    from bakthat.operations.browse.find import FindReport, Match
    from bakthat.system.streams import Buffer

_ENTRIES_AT_ONCE = 1000


@command(
    "contents",
    "list what is in a backup, as tar tv does",
    group=LOOKING,
    example="bakthat contents etc '*.conf'",
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or beginning")
@option(
    "patterns",
    nargs="*",
    default=[],
    metavar="PATTERN",
    help="only this file or directory of the backup, or what this .gitignore pattern matches",
)
@with_keys
@with_destination
@with_host
@with_source
@with_profile
def contents(
    *,
    filename: str,
    patterns: list[str],
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat contents``."""
    started = time.monotonic()
    with progress_bar("Reading") as progress:
        found = bakthat.contents(
            filename,
            patterns,
            destination,
            profile,
            config,
            host=host,
            source=source,
            identity_file=identity_file,
            prompt=prompt,
            progress=progress,
        )
        first = list(itertools.islice(found, 1))  # after it, the bar is not needed any more
    count = _Count()
    batches = _batches(itertools.chain(first, found), count)
    name = found.backup.stored_filename
    if output.is_json():
        for batch in batches:
            output.print_lines("entry", (entry.as_dict() for entry in batch))
    else:
        _print_entries(batches)
    print_result(
        Summary(
            f"Listed {name}",
            time.monotonic() - started,
            files=count.files,
            bytes=count.bytes,
            facts={"stored_filename": name, "directories": count.directories},
        )
    )


class _Count:
    """The number of entries that were listed, and the bytes of the files."""

    def __init__(self) -> None:
        self.files = self.directories = self.bytes = 0


def _batches(entries: Iterable[Entry], count: _Count) -> Iterator[list[Entry]]:
    """Yield *entries* in batches, and count them."""
    remaining = iter(entries)
    while batch := list(itertools.islice(remaining, _ENTRIES_AT_ONCE)):
        directories = sum(entry.type == "directory" for entry in batch)
        count.directories += directories
        count.files += len(batch) - directories
        count.bytes += sum(entry.size for entry in batch)
        yield batch


def _print_entries(batches: Iterable[list[Entry]]) -> None:
    """Print the lines of tar; on a terminal, what it cannot show is escaped."""
    from bakthat.cli.commands.tar_listing import TarListing

    listing = TarListing()
    for batch in batches:
        lines = listing.lines(batch)
        if terminal.shows_output():
            terminal.print_line("\n".join(map(text.printable, lines)))
        else:
            terminal.write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))


@command(
    "find",
    "search all backups for files",
    group=LOOKING,
    example="bakthat find '*.conf' --since 4W",
    exits={
        ExitCode.DONE: "found",
        ExitCode.FAILED: "nothing was found, or failed",
        ExitCode.INCOMPLETE: "a backup could not be searched",
    },
)
@option(
    "patterns",
    nargs="+",
    metavar="PATTERN",
    help="path of a file or directory in a backup, or a .gitignore pattern",
)
@option("-t", "--tags", section=SELECTION, default="", help="with one of these tags")
@option("--set", section=SELECTION, dest="set_name", metavar="SET", help="of this name")
@option("--since", section=SELECTION, metavar="WHEN", help="made since then: 2W, 2026-09-01 (UTC)")
@option("--read-archives", action="store_true", help="read backups that have no index")
@with_keys
@with_destination
@with_host
@with_profile
def find(
    *,
    patterns: list[str],
    tags: str,
    set_name: str | None,
    since: str | None,
    read_archives: bool,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat find``."""
    started = time.monotonic()
    with progress_bar("Searching", counts_bytes=False) as progress:
        report = bakthat.find(
            patterns,
            destination,
            tags,
            profile,
            config,
            host=host,
            set_name=set_name,
            since=since,
            read_archives=read_archives,
            identity_file=identity_file,
            prompt=prompt,
            progress=progress,
        )
    versions = text.counted(len(report), "version")
    searched = text.counted(report.searched, "backup")
    code = _exit_code(report, patterns)
    print_result(
        Summary(
            f"Found {versions} in {searched}",
            time.monotonic() - started,
            facts=report.as_dict(),
        ),
        (lambda: _print_matches(report.matches)) if report.matches else None,
        (("match", match.as_dict()) for match in report),
    )
    return code


def _exit_code(report: FindReport, patterns: list[str]) -> int | None:
    """Return the exit code, and print why it is not 0."""
    if not report.is_complete:
        count = len(report.unsearched)
        print_error(f"{text.counted(count, 'backup')} {'was' if count == 1 else 'were'} left out")
        return ExitCode.INCOMPLETE
    if not report.matches:
        wanted = " or ".join(f"'{each}'" for each in patterns)
        print_error(f"no backup holds {wanted}")
        return ExitCode.FAILED
    return None


def _print_matches(matches: list[Match]) -> None:
    hosts = {each.newest.host for each in matches}
    rows = [
        (
            text.shown_time(each.entry.mtime),
            _size_or_type(each.entry),
            each.entry.sha256[:12],
            str(len(each.backups)),
            text.shown_time(each.oldest.date),
            *((each.newest.host,) if len(hosts) > 1 else ()),
            each.newest.stored_filename,
            each.entry.path,
        )
        for each in matches
    ]
    host = ("HOST",) if len(hosts) > 1 else ()
    header = (
        f"MODIFIED ({text.shown_zone()})",
        "SIZE",
        "SHA-256",
        "IN",
        f"FROM ({text.shown_zone()})",
        *host,
        "NEWEST",
        "PATH",
    )
    terminal.print_table(header, rows, right=frozenset({1, 3}))


def _size_or_type(entry: Entry) -> str:
    """Return the size of what has content, and the type of everything else."""
    has_content = entry.type == "file" or entry.digest or entry.size
    return text.human_size(entry.size) if has_content else entry.type


@command(
    "cat",
    "write one file of a backup, or a stream, to standard output",
    group=LOOKING,
    example="bakthat cat etc hosts",
    is_file=True,
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or beginning")
@option(
    "path",
    metavar="ENTRY",
    nargs="?",
    help="path in the backup, or a .gitignore pattern that one file matches; none for all of a "
    "stream",
)
@with_keys
@with_destination
@with_host
@with_source
@with_profile
def cat(
    *,
    filename: str,
    path: str | None,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat cat``."""
    # Imported here, as only this command needs it.
    from bakthat.operations.browse.open_file import cat as write_file

    try:
        write_file(
            filename,
            path,
            _Output(),
            destination,
            profile,
            config,
            host=host,
            source=source,
            identity_file=identity_file,
            prompt=prompt,
        )
        terminal.flush()
    except terminal.OutputError as exc:
        if not isinstance(exc.__cause__, BrokenPipeError):
            raise
        # The reader wants no more, as head does after its lines: that is no failure.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends


class _Output:
    """Standard output as a sink."""

    def write(self, data: Buffer, /) -> None:
        """Write all of *data*. Raises OutputError."""
        if sys.__stdout__ is None:
            raise terminal.OutputError("cannot write the output: standard output is closed")
        terminal.write_bytes(data)


@command(
    "diff",
    "compare a backup with another one, or with the disk",
    group=LOOKING,
    example="bakthat diff etc",
    exits={
        ExitCode.FAILED: "failed, or with --exit-code: there are differences",
        ExitCode.INCOMPLETE: "a file of the disk could not be compared",
    },
)
@option(
    "filename",
    metavar="BACKUP",
    help="the older backup, as restore takes it",
)
@option(
    "other", metavar="BACKUP", nargs="?", help="the newer backup (default: what is on the disk)"
)
@option("--path", metavar="DIR", help="compare with this file or directory of the disk")
@option("--hash", action="store_true", help="read the files of the disk; do not trust their times")
@option(
    "--exclude-file", metavar="FILE", help="leave out what the .gitignore patterns in FILE match"
)
@option("--no-ignore", action="store_true", help="use neither .bakthatexclude nor .gitignore")
@option("--exclude-caches", action="store_true", help="leave out caches marked by CACHEDIR.TAG")
@option("--one-file-system", action="store_true", help="leave out other mounted file systems")
@option("--exit-code", action="store_true", help="exit with 1 when there are differences")
@with_keys
@with_destination
@with_host
@with_source
@with_profile
def diff(
    *,
    filename: str,
    other: str | None,
    path: str | None,
    hash: bool,
    exclude_file: str | None,
    no_ignore: bool,
    exclude_caches: bool,
    one_file_system: bool,
    exit_code: bool,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat diff``."""
    started = time.monotonic()
    with progress_bar("Reading") as progress:
        changes = bakthat.diff(
            filename,
            other,
            destination,
            profile,
            config,
            host=host,
            source=source,
            path=path,
            read_files=hash,
            exclude_file=exclude_file,
            ignore_files=not no_ignore,
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            identity_file=identity_file,
            prompt=prompt,
            progress=progress,
        )
        first = list(itertools.islice(changes, 1))  # after it, the bar is not needed any more
    for change in itertools.chain(first, changes):
        if output.is_json():
            output.print_lines("change", [change.as_dict()])
        else:
            terminal.print_line(_change_line(change))
    report = changes.report
    seconds = time.monotonic() - started
    print_result(
        Summary(
            _describe_diff(report),
            seconds,
            warnings=report.warning_count,
            facts=report.as_dict(),
        )
    )
    if exit_code and report.totals.differs:
        return ExitCode.DIFFERENT
    return ExitCode.INCOMPLETE if report.warning_count else None


_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


def _change_line(change: EntryChange) -> str:
    """Return one line for people: a sign, the path, and what changed from what into what."""
    entry = change.after or change.before
    assert entry is not None
    slash = "/" if entry.type == "directory" else ""
    line = f"{_SIGNS[change.kind]} {text.printable(change.path)}{slash}"
    if change.before is None or change.after is None or not change.aspects:
        return line
    both = change.before, change.after
    return f"{line}: {', '.join(_aspect(each.value, *both) for each in change.aspects)}"


def _aspect(aspect: str, before: Entry, after: Entry) -> str:
    old, new = (_value(aspect, each) for each in (before, after))
    if aspect == "times" and old == new:
        old, new = (f"{old}.{each.mtime_ns % 10**9:09}" for each in (before, after))
    return aspect if old == new or not (old and new) else f"{aspect} {old} -> {new}"


def _value(aspect: str, entry: Entry) -> str:
    """Return what an entry has, for people; "" for what has no short form."""
    if aspect == "type":
        return entry.type.value
    if aspect == "content":
        return text.human_size(entry.size) if entry.type == "file" else ""
    if aspect == "mode":
        return f"{entry.mode:04o}"
    if aspect == "owner":
        return text.printable(f"{entry.owner or entry.uid}:{entry.group or entry.gid}")
    if aspect == "times":
        return text.shown_time(entry.mtime)
    if aspect == "target":
        return text.printable(entry.target)
    if aspect == "device" and entry.device is not None:
        return f"{entry.device[0]},{entry.device[1]}"
    return ""


def _describe_diff(report: DiffReport) -> str:
    totals = report.totals
    counts = [f"{totals.added} added, {totals.removed} removed, {totals.changed} changed"]
    if totals.unknown:
        counts.append(f"{totals.unknown} not compared")
    sizes = f"+{text.human_size(totals.bytes_added)}, -{text.human_size(totals.bytes_removed)}"
    return f"Compared {report.before} with {report.after}: {', '.join(counts)} ({sizes})"
