"""Write a POSIX shell script that restores archives with tar, gzip, age and aws."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bakthat import models
from bakthat.errors import UsageError
from bakthat.pipeline.read import Expected
from bakthat.system.text import from_native, printable, utc_time

_UNPRINTABLE = re.compile(rb"[^ -~]|[\\%']")
"""What printf does not print as it is, and what ends a word in quotes."""
_MAYBE_IDENTITY = ' ${IDENTITY:+-i "$IDENTITY"}'
_LAST_SECOND = 253402300799
"""That of the year 9999."""

_START = r"""
set -e
stop() { printf '%s\n' "$*" >&2; exit 1; }
failed() { stop "$1 was not restored: what is in this directory is not complete"; }
[ -z "$(ls -A)" ] || stop 'this directory is not empty'
"""
_CHECK = r"""
check() {
    [ -f "$1" ] || stop "$1 is missing"
    [ -z "$2" ] || [ "$(wc -c <"$1")" -eq "$2" ] || stop "$1 does not have $2 bytes"
}
"""
_TAR = r"""
[ -n "$TAR" ] || TAR=$(command -v gtar || echo tar)
case $("$TAR" --version) in *'GNU tar'*) ;; *) stop "$TAR is not GNU tar: set TAR" ;; esac
set -- -p
for option in --xattrs --acls --numeric-owner '--xattrs-include=*'; do
    case $option in --xattrs-*) [ "$(id -u)" -eq 0 ] || continue ;; esac
    if "$TAR" "$option" --version >/dev/null 2>&1; then set -- "$@" "$option"; fi
done
unpack() { LC_ALL=C "$TAR" -x "$@"; }
"""
_STEP = r"""
# A pipe hides the failure of all but its last command, so each says here that it did not fail.
step() { "$@" && printf . >&3; }
"""
_REMOVE = r"""
# Removes what tar does not, from a directory that is too long for its record; follows no link.
cd -P . && top=$PWD
remove() {
    [ ! -d "$1" ] || (cd -P "./$1" && [ "$PWD" = "$top/$1" ] && rm -rf -- "./$2") ||
        stop "$1/$2 was not removed"
}
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One archive or file that the script restores."""

    backup: models.Backups
    expected: Expected
    removals: Sequence[str] = ()
    """Paths in the backup to remove before."""
    archive_id: str = ""
    """That in a vault."""

    @property
    def encryption(self) -> str:
        """How it is encrypted: "", "passphrase", "recipients", or "unknown"."""
        if not self.expected.encrypted:
            return ""
        found = self.backup.metadata.get("encryption")
        return found if found in ("passphrase", "recipients") else "unknown"

    @property
    def name(self) -> str:
        """Its stored filename, as a word for the shell and a person."""
        return shlex.quote(printable(self.backup.stored_filename))

    @property
    def file_name(self) -> str:
        """The last component of its key."""
        return self.backup.stored_filename.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the archives are."""

    kind: str
    """The name of the backend."""
    container: str
    endpoint_url: str | None = None
    region: str = ""

    @property
    def aws_options(self) -> str:
        """The options for ``aws`` that say where the service is."""
        options = ""
        if self.endpoint_url is not None:
            parts = urlsplit(self.endpoint_url)
            # A password is no part of a script.
            plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            options += f" --endpoint-url {shlex.quote(plain)}"
        return f"{options} --region {shlex.quote(self.region)}" if self.region else options


def write_script(parts: Sequence[Part], storage: Storage, *, identity: str) -> str:
    """Return a script that applies *parts*, the full first, in an empty directory.

    *identity* is the path of the file of private keys, "" if it is not known. The script consists
    of printable characters and line ends, so that it is safe to show. Raises UsageError for what
    only bakthat reads.
    """
    for each in parts:
        if each.expected.is_legacy:
            raise UsageError(
                f"{printable(each.backup.stored_filename)} was written by bakthat 0.6.0 in a form "
                "that only bakthat reads",
                hint="restore it with bakthat restore",
            )
    return _Writer(parts, storage, identity).script()


def write_line(part: Part, storage: Storage, *, identity: str) -> str:
    """Return one command line that restores *part* with tar, gzip, age and aws.

    It is "" where that takes more: for an increment, in a vault, for names that a line cannot
    show, and for what only bakthat reads. *identity* is as for :func:`write_script`.
    """
    paths = from_native(f"{storage.container}{identity}{part.expected.name}")
    if (
        part.expected.is_legacy
        or part.backup.is_increment
        or storage.kind == "glacier"
        or not f"{part.backup.stored_filename}{paths}".isprintable()
    ):
        return ""
    return _Writer([part], storage, identity).line()


class _Writer:
    def __init__(self, parts: Sequence[Part], storage: Storage, identity: str) -> None:
        self._parts = parts
        self._storage = storage
        self._identity = identity
        self._encryptions = {each.encryption for each in parts}
        self._is_archive = any(each.expected.is_archive for each in parts)
        self._names: dict[str, str] = {}
        """The variables that hold names with characters that are not printable."""
        self._has_pipe = False

    def script(self) -> str:
        body = [line for each in self._parts for line in ("", *self._restoring(each))]
        checks = list(self._checks())
        functions = [
            text.strip("\n")
            for text, is_used in (
                (_TAR, self._is_archive),
                (_STEP, self._has_pipe),
                (_REMOVE, any(each.removals for each in self._parts)),
            )
            if is_used
        ]
        done = shlex.quote(f"Restored {printable(self._parts[-1].backup.stored_filename)}")
        lines = [
            *self._comments(),
            _START.strip("\n"),
            *self._variables(),
            *checks,
            *functions,
            *body,
            "",
            f"printf '%s\\n' {done}",
        ]
        return "\n".join(lines) + "\n"

    def line(self) -> str:
        """Return the only part as one pipe, which tar or a file ends."""
        (part,) = self._parts
        stages = list(self._stages(part))
        if not part.expected.is_archive:
            target = self._word(f"./{from_native(part.expected.name)}")
            end = f" >{target}" if stages else f"cp {self._path(part)} {target}"
            stages = [*stages[:-1], f"{stages[-1]}{end}"] if stages else [end]
        elif stages:
            is_compressed = part.expected.compressed  # tar then does what gzip would do
            stages = [*stages[:-1], "tar xzp"] if is_compressed else [*stages, "tar xp"]
        else:
            letters = "xzpf" if part.expected.compressed else "xpf"
            stages = [f"tar {letters} {self._path(part)}"]
        key = self._word(self._identity) if self._identity else "KEY-FILE"
        return " | ".join(stages).replace(_MAYBE_IDENTITY, "").replace('"$IDENTITY"', key)

    def _comments(self) -> Iterator[str]:
        backup = self._parts[-1].backup
        host = f" of {printable(backup.host)}" if backup.host else ""
        yield "#!/bin/sh"
        yield f"# Restores {printable(backup.stored_filename)}{host} without bakthat."
        yield f"# Made {utc_time(backup.date)} UTC."
        yield "# Run it in an empty directory, and as root: only root restores owners and devices."
        programs = [*(["GNU tar (or TAR names it)"] if self._is_archive else []), *self._programs()]
        if programs:
            yield f"# Needs {', '.join(programs)}."
        if len(self._parts) > 1:
            yield f"# It is an increment: {len(self._parts)} archives are applied in their order."
        if "passphrase" in self._encryptions:
            yield "# age asks for the passphrase of each archive."
        if "recipients" in self._encryptions:
            yield "# The variable IDENTITY names the file with the private key."
        if "unknown" in self._encryptions:
            yield "# age asks for a passphrase, unless IDENTITY names a file with a private key."
        if self._storage.kind == "s3":
            yield "# aws uses its own credentials (aws configure). What is in a cold storage class"
            yield "# must be thawed before: aws s3api restore-object."
        if self._storage.kind == "glacier":
            yield from self._jobs()
        digest = self._parts[-1].expected.sha256
        if digest:
            yield f"# The SHA-256 of the file is {printable(digest)}."

    def _jobs(self) -> Iterator[str]:
        """Yield comments that say how to fetch the archives from a vault."""
        vault = f"--account-id - --vault-name {shlex.quote(self._storage.container)}"
        vault += self._storage.aws_options
        yield "# The archives are in a vault. The first of these commands requests an archive, and"
        yield "# prints the id of a job. When the job is done, hours later, the second one fetches"
        yield "# the archive. ARCHIVES names the directory with the fetched files."
        for each in self._parts:
            job = f'{{"Type": "archive-retrieval", "ArchiveId": "{printable(each.archive_id)}"}}'
            file = shlex.quote(printable(each.file_name))
            yield f"#     aws glacier initiate-job {vault} --job-parameters {shlex.quote(job)}"
            yield f"#     aws glacier get-job-output {vault} --job-id JOB-ID {file}"

    def _programs(self) -> Iterator[str]:
        if self._storage.kind == "s3":
            yield "aws"
        if self._encryptions != {""}:
            yield "age"
        if any(each.expected.compressed for each in self._parts):
            yield "gzip"

    def _checks(self) -> Iterator[str]:
        """Yield commands that stop the script before it has done anything."""
        programs = " ".join(self._programs())
        if programs:
            yield f"for program in {programs}; do"
            yield '    command -v "$program" >/dev/null || stop "$program is not installed"'
            yield "done"
        if "recipients" in self._encryptions:
            if self._identity:
                yield f'[ -n "$IDENTITY" ] || IDENTITY={self._word(self._identity)}'
            yield '[ -r "$IDENTITY" ] || stop "set IDENTITY to the file with the private key"'
        if self._storage.kind == "glacier":
            yield '[ -n "$ARCHIVES" ] || stop "set ARCHIVES to the directory with the archives"'
        if self._storage.kind != "s3":
            yield _CHECK.strip("\n")
            for each in self._parts:
                # What 0.6.0 recorded may be another size.
                is_known = "format" in each.backup.metadata and each.backup.size >= 0
                size = str(each.backup.size) if is_known else "''"
                yield f"check {self._path(each)} {size}"

    def _restoring(self, part: Part) -> Iterator[str]:
        for path in part.removals:
            directory, _, name = path.rpartition("/")
            yield f"remove {self._word(directory)} {self._word(name)}"
        stages = list(self._stages(part))
        if part.expected.is_archive:
            yield from self._unpacking(part, stages)
        else:
            yield from self._writing(part, stages)

    def _stages(self, part: Part) -> Iterator[str]:
        """Yield the commands of a pipe; none if tar or cp reads the object itself."""
        source = f" {self._path(part)}"
        if self._storage.kind == "s3":
            url = self._word(f"s3://{self._storage.container}/{part.backup.stored_filename}")
            yield f"aws s3 cp {url} -{self._storage.aws_options}"
            source = ""
        if part.encryption:
            option = {
                "passphrase": "",
                "recipients": ' -i "$IDENTITY"',
                "unknown": _MAYBE_IDENTITY,
            }[part.encryption]
            yield f"age -d{option}{source}"
            source = ""
        if part.expected.compressed and not (part.expected.is_archive and source):
            yield f"gzip -d{source and f' <{source.strip()}'}"

    def _unpacking(self, part: Part, stages: list[str]) -> Iterator[str]:
        option = " -G" if part.backup.is_increment else ""
        if stages:
            yield from self._pipe([*stages, f'unpack{option} -f - "$@"'], part)
        else:
            option += " -z" if part.expected.compressed else ""
            yield f'unpack{option} -f {self._path(part)} "$@" || failed {part.name}'

    def _writing(self, part: Part, stages: list[str]) -> Iterator[str]:
        expected = part.expected
        target = self._word(f"./{from_native(expected.name)}")
        if stages:
            yield from self._pipe([*stages[:-1], f"{stages[-1]} >{target}"], part)
        else:
            yield f"cp {self._path(part)} {target} || failed {part.name}"
        if expected.owner is not None:
            owner = f"{expected.owner.uid}:{expected.owner.gid}"
            yield f'[ "$(id -u)" -ne 0 ] || chown {owner} {target}'
        if expected.mode is not None:
            yield f"chmod {expected.mode:04o} {target}"
        seconds, nanoseconds = divmod(expected.mtime_ns or 0, 10**9)
        if 0 < seconds <= _LAST_SECOND:
            date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            yield f"touch -m -d {date}.{nanoseconds:09d}Z {target}"

    def _pipe(self, stages: Sequence[str], part: Part) -> Iterator[str]:
        if len(stages) == 1:
            yield f"{stages[0]} || failed {part.name}"
            return
        self._has_pipe = True
        yield "ended=$({"
        yield " |\n".join(f"    step {each}" for each in stages)
        yield "} 3>&1 >&2) || :"
        yield f'[ "$ended" = {"." * len(stages)} ] || failed {part.name}'

    def _path(self, part: Part) -> str:
        """Return the word for the file with an archive of a directory or of a vault."""
        if self._storage.kind == "glacier":
            return f'"$ARCHIVES"/{self._word(part.file_name)}'
        return self._word(f"{from_native(self._storage.container)}/{part.backup.stored_filename}")

    def _word(self, text: str) -> str:
        """Return *text* as a word for the shell."""
        if text.isprintable():
            return shlex.quote(text)
        variable = self._names.setdefault(text, f"name{len(self._names) + 1}")
        return f'"${variable}"'

    def _variables(self) -> Iterator[str]:
        for text, variable in self._names.items():
            data = text.encode("utf-8", "surrogateescape")
            octal = _UNPRINTABLE.sub(lambda found: b"\\%03o" % found[0][0], data).decode()
            # Without the full stop, the shell would take line ends off the end.
            yield f"{variable}=$(printf '{octal}.') && {variable}=${{{variable}%.}}"
