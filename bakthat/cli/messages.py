"""The contract of ``--json``: what a program finds on standard output.

A key is never renamed, and its meaning never changes, while :data:`JSON_VERSION` stays the same.
New keys and new types of messages may come, so a program ignores those that it does not know. Times
are epoch seconds UTC, sizes bytes. The reference and its test are made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

JSON_VERSION = 1
"""Each ``summary`` names it."""


class Message(NamedTuple):
    """One kind of line."""

    type: str
    """Its ``message_type``."""
    commands: tuple[str, ...]
    """The commands that print it; none for those that every command may print."""
    meaning: str
    keys: Mapping[str, str]
    """What each key means. A key in brackets is not always there."""


_BACKUP = {
    "stored_filename": "the key of the object, by which restore and delete find it",
    "filename": "the name of the set",
    "backup_date": "when it was made",
    "backend": "s3, glacier or local",
    "backend_hash": "which container it is in, as a hash",
    "size": "bytes that are stored; -1 where that is not known",
    "tags": "the tags, separated by spaces",
    "is_deleted": "whether it was deleted",
    "last_updated": "when the catalog's entry last changed",
    "metadata": "what else is known: client (the host), source, files, bytes, warning_count, "
    "suspicious (true where the size of a stream is), lock (mode, and until when it was last known "
    "to be locked), hold (reason and date) and so on",
}
_LEFT = {
    "outcome": "locked, held or failed: why it is not deleted, though no rule keeps it",
    "locked_until": "when its lock ends, or that of a backup which needs it; or null",
    "detail": "why it stays, for people",
}
_ENTRY = {
    "path": "the path in the backup",
    "type": "file, directory, symlink, hardlink, fifo, character or block",
    "size": "bytes of its content",
    "mode": "the permissions, as a number",
    "uid": "the number of the owner",
    "gid": "the number of the group",
    "owner": "the name of the owner",
    "group": "the name of the group",
    "mtime": "when it was last modified",
    "sha256": "of its content, in hexadecimal; empty where there is none",
    "target": "of a link",
    "[stale]": "true for an entry that a later one replaces",
}
_THAW = {
    "stored_filename": "the object",
    "storage_class": "GLACIER, DEEP_ARCHIVE and so on; empty for an object that is not cold",
    "state": "warm, frozen, thawing or ready",
    "readable": "whether it can be read now",
    "tier": "expedited, standard or bulk; empty where the storage does not say",
    "requested_at": "when the thaw was requested, or null",
    "ready_until": "until when the thawed copy is kept, or null",
    "job_id": "the storage's id of the request, or empty",
}

MESSAGES = (
    Message(
        "backup",
        (
            *("backup", "run", "restore", "drill", "hold", "release"),
            *("delete", "delete_older_than", "rotate_backups"),
        ),
        "a backup that was stored, restored, drilled, put on hold, released or deleted. A dry run "
        "of delete_older_than or rotate_backups has one for each backup of the set.",
        {
            **_BACKUP,
            "[keep]": "in a dry run: whether it would be kept",
            "[reasons]": "in a dry run: why",
            "[outcome]": "in a dry run: locked, held or failed, where no rule keeps it and it "
            "would not be deleted all the same",
            "[locked_until]": "in a dry run: until when its lock would be extended, or is why it "
            "would not be deleted; or null",
            "[detail]": "in a dry run: why it stays, for people",
        },
    ),
    Message(
        "kept",
        ("delete_older_than", "rotate_backups"),
        "a backup that no rule keeps, and that stays all the same. A later run deletes it.",
        {**_BACKUP, **_LEFT},
    ),
    Message(
        "backup",
        ("sync --as-of",),
        "a backup that the bucket had at the time. Of one that is intact, only what its name says "
        "is known.",
        {
            **_BACKUP,
            "state": "intact, deleted, overwritten or gone (no version is left)",
            "index_state": "the same of its index; null where it had none",
            "changed_at": "when the archive or its index was deleted or overwritten, or null",
            "version": "the id of the version that undelete brings back, or null",
            "detail": "what else is known, for people",
        },
    ),
    Message(
        "backup",
        ("show",),
        "a backup in the catalog",
        {
            **_BACKUP,
            "increment": "whether it is an increment",
            "needs": "the stored filenames that a restore reads besides it, the full first",
            "needed_by": "the stored filenames of the increments that need it",
            "frees": "bytes that its deletion would free; 0 while others need it",
            "held_by": "the stored filenames of those of them that are on hold",
        },
    ),
    Message(
        "job",
        ("run",),
        "a job that has ended, or in a dry run what it would do. Its backups and errors are before "
        "it.",
        {
            "job": "its name",
            "outcome": "done, incomplete, locked or failed",
            "seconds": "how long it took",
            "sources": "its sources: paths, URLs without a password, names of commands",
            "failed": "the sources that have failed, also in part or since the job was stopped",
            "locked": "the sources that were left to another run, which was still going",
            "stored": "the stored filenames of its backups",
            "rotated": "the stored filenames that rotation has deleted, or would delete",
            "protected": "the stored filenames that rotation does not keep, and that stay, since "
            "they are locked or on hold",
            "not_locked": "the stored filenames whose lock rotation could not extend",
            "checked": "how many backups were checked",
            "wrong": "how many of them failed the check",
            "drilled": "the stored filenames of the backups whose drill has passed",
            "error": "the first error, for people; or empty",
            "check_due": "the names of the sets whose check was due",
            "drill_due": "the names of the sets whose drill was due",
            "commands": "how many commands it has: before, after and on_error",
        },
    ),
    Message("entry", ("contents",), "a file or directory in the backup", _ENTRY),
    Message(
        "match",
        ("find",),
        "one version of a file, and the backups that have it",
        {
            **_ENTRY,
            "set": "the name of the set",
            "host": "the host that made the backups",
            "source": "the path that was backed up",
            "backend": "s3, glacier or local",
            "count": "how many backups have this version",
            "newest": "the newest of them: stored_filename and backup_date",
            "oldest": "the oldest of them: stored_filename and backup_date",
            "backups": "their stored filenames, the newest first",
        },
    ),
    Message(
        "change",
        ("diff",),
        "what differs",
        {
            "path": "the path in the backup",
            "change": "added, removed or changed",
            "aspects": "what changed: content, mode, owner, times, target and so on",
            "before": "the entry in the older tree, as in contents, or null",
            "after": "the entry in the newer tree, as in contents, or null",
        },
    ),
    Message(
        "change",
        ("backup --dry-run",),
        "a path that an increment would store or record as removed",
        {
            "path": "the path in the archive",
            "change": "stored or removed",
            "reason": "why",
        },
    ),
    Message(
        "change",
        ("sync",),
        "an entry of the catalog, or an index, that sync changed",
        {
            **_BACKUP,
            "part": "catalog or index",
            "action": "adopted, revived, updated, gone or name taken; "
            "of an index good, made, replaced, cold or failed",
            "[detail]": "of an index: the problem",
        },
    ),
    Message(
        "change",
        ("undelete",),
        "a backup that was brought back, or in a dry run would be, in that order",
        {
            **_BACKUP,
            "action": "there, shown (its delete markers were removed), copied (over what was "
            "there) or failed",
            "index_action": "the same of its index; null where it has none",
            "needed": "whether it comes back only since another one needs it",
            "detail": "the problem, for people",
        },
    ),
    Message(
        "change",
        ("cleanup",),
        "a leftover that was removed, or in a dry run would be",
        {
            "where": "s3, glacier, local or catalog",
            "container": "the bucket, vault, directory or file",
            "kind": "what it is",
            "name": "its name",
            "begun_at": "when it was begun, or null",
            "size": "bytes; -1 where that is not known",
        },
    ),
    Message(
        "check",
        ("check",),
        "a backup that was checked",
        {
            **_BACKUP,
            "good": "whether nothing is wrong with it",
            "verdict": "stored, sampled, read or cold; or missing, wrong size, damaged, broken, "
            "no key or unknown",
            "detail": "the problem, for people",
            "index_problem": "the problem of its index, for people",
        },
    ),
    Message(
        "check",
        ("doctor", "configure", "config check"),
        "one thing that was tried",
        {
            "topic": "what it is about: writing, catalog, lifecycle rules and so on; of config "
            "check the profile, file or environment",
            "verdict": "good, advice or problem",
            "detail": "what was found, for people",
            "hint": "what to do about it, for people; or empty",
        },
    ),
    Message(
        "report",
        ("report",),
        "a set, and what became of it in the period",
        {
            "filename": "the name of the set",
            "host": "the host that made the backups; empty where it is not known",
            "source": "the path or URL that was backed up; empty for a set that was given a name",
            "backend": "s3, glacier or local",
            "container": "the bucket, vault or directory",
            "jobs": "the names of the jobs that make it",
            "max_age": "seconds that a backup may be old, or null: then gaps are not judged",
            "rotation": "what the profile's rotation keeps, for people; empty for none",
            "rotated_by_job": "whether a job rotates the set",
            "good": "whether nothing is wrong with it",
            "problems": "what is wrong, the worst first: never backed up, overdue, missed, drill "
            "failed, check failed, gone, incomplete, suspicious size, not drilled, not checked, in "
            "the future",
            "newest": "the date of the newest backup at the end of the period, or null",
            "stored_backups": "how many backups are stored at the end of the period",
            "stored": "bytes that they take",
            "backups": "the backups of the period, the oldest first: stored_filename, backup_date, "
            "size, files, bytes, seconds, increment, encryption, warning_count, warnings (the "
            "first ones), suspicious, and null or what is known of its deletion, last check and "
            "last drill: deleted (date, why), check (date, verdict, detail, share, read, good), "
            "drill (date, passed, problem)",
            "missed": "the gaps longer than max_age: begin and end, the dates of the backups "
            "before and after (or null), and overdue, from when on one was overdue",
            "deleted": "the backups that were deleted in the period, as in backups",
            "checked": "those that were last checked in the period, as in backups",
            "drilled": "those that were last drilled in the period, as in backups",
        },
    ),
    Message(
        "setting",
        ("config show",),
        "a key of the profile",
        {
            "key": "its name",
            "value": "its value, with *** for what may be secret; or null",
            "source": "file, variable or default",
            "[variable]": "the variable that sets it",
            "[file]": "the configuration file, or the file that the variable names",
            "[line]": "the line of the configuration file",
        },
    ),
    Message(
        "status",
        ("status",),
        "a set, and how it is. Of --all-hosts, the storage does not know jobs, checks and drills.",
        {
            "filename": "the name of the set; of a server without any backup, the URL of the job",
            "host": "the host that made the backups; empty where it is not known",
            "backend": "s3, glacier or local",
            "source": "the path or URL that was backed up, or the id of it; empty for a set that "
            "was given a name",
            "profile": "the profile by which it was found",
            "jobs": "the names of the jobs that make it",
            "good": "whether nothing is wrong with it",
            "findings": "what is wrong, what matters most first: topic (age, date, size, warnings, "
            "check, drill or host), verdict (problem or advice), and for people detail and hint",
            "stored_filename": "the newest backup, or empty",
            "backup_date": "when it was made, or null",
            "last_success": "when the newest backup without warnings was made, or null",
            "age": "seconds since backup_date, or null",
            "max_age": "seconds from which on it is too old, or null",
            "size": "bytes that are stored of the newest backup, or null",
            "usual_size": "the median of earlier ones of its kind, or null",
            "trend": "by how many percent size differs from usual_size, or null",
            "sizes": "of up to twelve backups of its kind, full or increment, the newest last",
            "files": "how many files the newest backup has, or null",
            "bytes": "the content of these files, or null",
            "estimate": "whether files and bytes were counted before the backup began",
            "seconds": "how long the newest backup took, or null",
            "warning_count": "how many of its files are missing or not as they were, or null",
            "suspicious": "whether its size is far from usual",
            "increment": "whether it is an increment",
            "backups": "how many backups the set has",
            "next_to_go": "what rotation deletes first after the next backup, or empty",
            "check": "the last check of one of its backups, or null: date, verdict, detail, share "
            "and read, as in metadata",
            "drill": "the last drill of one of its backups, or null: date, passed, problem",
        },
    ),
    Message("status", ("restore --job-check",), "the state of a thaw", _THAW),
    Message(
        "status",
        ("thaws",),
        "an object that is thawing or thawed",
        {"backend": "s3 or glacier", "container": "the bucket or vault", **_THAW},
    ),
    Message(
        "archive",
        ("show_glacier_inventory", "show_local_glacier_inventory"),
        "an archive of a vault",
        {
            "archive_id": "its id in the vault",
            "key": "the stored filename; empty for an archive that is not bakthat's",
            "[size]": "in the vault's own list: bytes",
            "[date]": "in the vault's own list: when it was stored, or null",
            "[description]": "in the vault's own list: its description",
            "[tree_hash]": "in the vault's own list: its tree hash, in hexadecimal",
        },
    ),
    Message(
        "schedule",
        ("schedule",),
        "a file of systemd, or the lines of a crontab",
        {
            "kind": "service, timer or crontab",
            "path": "where it is installed; null for a crontab",
            "text": "its content",
        },
    ),
    Message(
        "warning",
        (),
        "a warning of the log",
        {"message": "what is wrong, for people"},
    ),
    Message(
        "error",
        (),
        "why the exit code is not 0. A command that has done something prints its summary too.",
        {
            "message": "what is wrong, for people",
            "hint": "what to try, for people, or empty",
            "type": "the name of the exception, those of bakthat are in bakthat.errors; or empty",
        },
    ),
    Message(
        "summary",
        (),
        "what the command has done, after all results",
        {
            "json_version": "the version of this contract",
            "command": "the name of the command",
            "seconds": "how long it took",
            "warnings": "how many files could not be handled as they should",
            "[files]": "how many files were stored, restored or listed",
            "[bytes]": "the content of these files",
            "[stored]": "bytes in the storage",
            "[unchanged]": "backup: the files of an increment that earlier archives have",
            "[skipped]": "backup: whether none was made, since nothing has changed",
            "[backups]": "show, check, rotate_backups, delete_older_than, undelete, sync --as-of: "
            "how many backups",
            "[extended]": "rotate_backups: of how many the lock was extended",
            "[deleted]": "rotate_backups, delete_older_than: how many of them were deleted",
            "[held]": "rotate_backups, delete_older_than: how many stay since they are on hold",
            "[staying]": "rotate_backups, delete_older_than: bytes of those that no rule keeps but "
            "that stay",
            "[checks]": "drill: how many checks passed",
            "[wrong]": "check: how many failed; status: how many sets have a problem",
            "[sources]": "run: how many sources the jobs have",
            "[failed]": "run: how many of these sources failed, also in part; rotate_backups, "
            "delete_older_than: how many backups could not be deleted; undelete: how many "
            "backups cannot be restored as before",
            "[locked]": "run: how many of these sources were left to another run; rotate_backups, "
            "delete_older_than: how many backups stay since they are locked",
            "[rotated]": "run: how many backups rotation has deleted, or would delete",
            "[protected]": "run: how many it does not keep, and stay since they are locked or held",
            "[leftovers]": "cleanup: how many",
            "[good]": "doctor: how many things work; report: how many sets have no problem",
            "[advice]": "doctor, config check: how many could be better, or could not be looked at",
            "[problems]": "doctor, config check: how many make a backup or a restore fail",
            "[thaws]": "thaws: how many",
            "[jobs]": "run, config check: how many jobs",
            "[jobs_failed]": "run: how many of them have failed",
            "[archives]": "the commands about inventories: how many archives",
            "[pending]": "whether a thaw, or the list of a vault, is not ready",
            "[dry_run]": "sync, undelete: whether nothing was changed",
            "[as_of]": "sync --as-of: the time",
            "[intact]": "sync --as-of: how many backups of then are as they were",
            "[hidden]": "sync --as-of: how many undelete brings back",
            "[gone]": "sync --as-of: of how many no version is left",
            "[containers]": "sync: what was found in each container",
            "[stored_filename]": "contents, backup --dry-run: the backup",
            "[directories]": "contents: how many directories",
            "[matches]": "find: how many versions",
            "[searched]": "find: how many backups were searched",
            "[unsearched]": "find: the backups that were left out, and why",
            "[before]": "diff: the older tree",
            "[after]": "diff: the newer tree",
            "[added]": "diff: entries that only the newer tree has",
            "[removed]": "diff: entries that only the older tree has; "
            "backup --dry-run: paths that are gone",
            "[changed]": "diff: entries that differ; undelete: how many backups came back",
            "[unknown]": "diff: entries that could not be compared",
            "[bytes_added]": "diff: the content that only the newer tree has",
            "[bytes_removed]": "diff: the content that only the older tree has",
            "[is_increment]": "backup --dry-run: whether it would be an increment",
            "[parent]": "backup --dry-run: the backup that it would be made from",
            "[why_full]": "backup --dry-run: why it would be a full backup",
            "[is_skipped]": "backup --dry-run: whether none would be made",
            "[newest]": "backup --dry-run: the newest backup of the set",
            "[explanation]": "backup --why: what was decided about the path",
            "[profiles]": "config check: how many profiles; report: the names of the profiles",
            "[sets]": "status, report: how many sets",
            "[since]": "report: the beginning of the period",
            "[until]": "report: the end of the period",
            "[made_at]": "report: when it was made",
            "[version]": "report: the version of bakthat",
            "[host]": "report: the host that made it",
            "[catalogs]": "report: the catalogs that were read",
            "[output]": "report: the file that was written, or null",
            "[profile]": "config show: the name of the profile",
            "[file]": "configure: the file that was written",
            "[recipient]": "configure: the public key of a new pair",
            "[identity_file]": "configure: the file with the private key of a new pair",
            "[key_page]": "configure: the page with a private key",
            "[installed]": "schedule: whether it is installed now",
        },
    ),
)
"""Every kind of line. Several kinds of one type differ by their command."""


def documented_keys(command: str, message_type: str) -> tuple[set[str], set[str]]:
    """Return the keys of a line that are always there, and those that may be there.

    *command* is a name of :attr:`Message.commands`. Raises KeyError for a line that it never
    prints.
    """
    for each in MESSAGES:
        if each.type == message_type and (command in each.commands or not each.commands):
            optional = {key.strip("[]") for key in each.keys if key.startswith("[")}
            return {key for key in each.keys if not key.startswith("[")}, optional
    raise KeyError(f"{command} prints no {message_type}")
