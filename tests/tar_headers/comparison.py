"""Compare what readers find in an archive with what was written, and explain differences."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.tar_headers.readers import READERS, UnreadableError
from tests.tar_headers.values import NS, Fields, Values
from tests.tar_headers.writers import WRITERS

_FIELDS = (
    *("kind", "name", "link", "mode", "uid", "gid", "uname", "gname", "size", "mtime_ns"),
    *("device", "xattrs"),
)

SIGN_OF_FRACTION = "GNU tar adds the fraction of a time before 1970 with the wrong sign"
PLACEHOLDER = "tarfile takes the name that GNU tar gives a sparse file for readers without them"


@dataclass
class Findings:
    """The result of many comparisons."""

    headers: int = 0
    """Headers that were written; each was read by every reader."""
    archives: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    """The number of differences by their explanation."""
    unexplained: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Add the findings of another comparison."""
        self.headers += other.headers
        self.archives += other.archives
        self.explained += other.explained
        self.unexplained += other.unexplained


def compare(writer: str, count: int, seed: int, findings: Findings) -> None:
    """Let *writer* write *count* headers, and add what the readers make of them to *findings*."""
    with tempfile.TemporaryDirectory(prefix="tar_headers_") as directory:
        archive = Path(directory) / "archive.tar"
        written = WRITERS[writer](Values(seed), archive, count)
        findings.archives += 1
        findings.headers += len(written)
        for reader, read in READERS.items():
            where = f"{writer} to {reader}, seed {seed}"
            try:
                found = read(archive, len(written))
            except UnreadableError as exc:
                findings.unexplained.append(f"{where}: {exc}")
                continue
            if len(found) != len(written):
                findings.unexplained.append(f"{where}: {len(found)} of {len(written)} members")
                continue
            for wanted, got in zip(written, found, strict=True):
                _compare(where, (writer, reader), wanted, got, findings)


def _compare(
    where: str, pair: tuple[str, str], wanted: Fields, got: Fields, findings: Findings
) -> None:
    expected = _as_shown_by_gnu_tar(wanted) if pair[1] == "GNU tar" else wanted
    for name in _differing(expected, got):
        reason = _explanation(*pair, name, wanted, got)
        if reason:
            findings.explained[reason] += 1
        else:
            values = f"{getattr(got, name)!r} for {getattr(expected, name)!r}"
            findings.unexplained.append(f"{where}: {name} {values} of {wanted}")


def _differing(wanted: Fields, got: Fields) -> Iterator[str]:
    return (name for name in _FIELDS if getattr(wanted, name) != getattr(got, name))


def _as_shown_by_gnu_tar(fields: Fields) -> Fields:
    """Return *fields* as a listing shows them: numbers for owners without a name, and of extended
    attributes the length."""
    return replace(
        fields,
        uname=fields.uname or b"%d" % fields.uid,
        gname=fields.gname or b"%d" % fields.gid,
        xattrs={key: bytes(len(value)) for key, value in fields.xattrs.items()},
    )


def _explanation(writer: str, reader: str, name: str, wanted: Fields, got: Fields) -> str:
    """Return why a field differs, or "" where nothing explains it."""
    if reader == "GNU tar" and name == "mtime_ns" and wanted.mtime_ns < 0:
        whole, fraction = divmod(-wanted.mtime_ns, NS)
        if fraction and got.mtime_ns == fraction - whole * NS:
            return SIGN_OF_FRACTION
    is_sparse = writer.startswith("GNU tar posix") and wanted.extents is not None
    if reader == "tarfile" and name == "name" and is_sparse:
        # Both names are in the pax header, and the last one wins.
        return PLACEHOLDER
    return ""
