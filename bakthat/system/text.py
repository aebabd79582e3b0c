"""Text for people: names that are safe for a terminal, hints, times and sizes."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date

from bakthat.errors import ResourceError


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return *name* as one line that is safe for a terminal and a log.

    A name comes from a file system or from a bucket, and others may write to both. A byte that is
    not UTF-8 becomes ``\xff``; a character that is not printable (a control character, a mark that
    changes the direction of writing) becomes its Python escape.
    """
    text = os.fspath(name)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as Python decodes it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def from_native(name: str) -> str:
    """Return *name*, which Python decoded as the locale says, with its bytes decoded as UTF-8.

    File names, arguments and environment variables are bytes. Under a locale that is not UTF-8,
    Python decodes them differently, but what is stored must not depend on the locale. Bytes that
    are not UTF-8 become surrogates, as Python decodes them under a UTF-8 locale.
    """
    if name.isascii() or sys.getfilesystemencoding() == "utf-8":
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def to_native(name: str) -> str:
    """Return Unicode text as the name of a file whose bytes are UTF-8, whatever the locale.

    The reverse of :func:`from_native`.
    """
    if name.isascii() or sys.getfilesystemencoding() == "utf-8":
        return name
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def is_text(name: str) -> bool:
    """Return whether *name* is Unicode text; bytes that are not UTF-8 are not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_queryable(text: str) -> bool:
    """Return whether a database takes *text* in a query: Unicode text without a NUL."""
    return is_text(text) and "\0" not in text


_FIRST_WORD = re.compile(r"[\w.-]*")


def shown_key(key: object) -> str:
    """Return a key that is not known, for a message: only its first word.

    The rest may be a secret, as in ``password=…``.
    """
    text = printable(str(key))
    found = _FIRST_WORD.match(text)
    word = found[0] if found is not None else ""
    return text if word == text else f"{word}…"


_MAX_QUOTED = 200


def quoted(name: bytes) -> str:
    """Return *name* in quotes and on one line, with unprintable characters escaped.

    Long names are cut in the middle.
    """
    shown = printable(os.fsdecode(name))
    if len(shown) > _MAX_QUOTED:
        shown = f"{shown[: _MAX_QUOTED // 2]}…{shown[-_MAX_QUOTED // 2 :]}"
    return f"'{shown}'"


def reason_of(error: Exception) -> str:
    """Return the text of *error* for the end of a message; that of an OSError without its path."""
    text = error.strerror if isinstance(error, OSError) else ""
    text = text or str(error)
    if not text:
        return type(error).__name__
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return a hint with up to *most* words of *known* that resemble *word*, or ""."""
    import difflib  # here, or every command would take a millisecond longer

    close = difflib.get_close_matches(word, list(known), n=most, cutoff=0.5)
    return f"did you mean {' or '.join(map(printable, close))}?" if close else ""


def enumerate_some(items: Sequence[str], *, most: int = 10) -> str:
    """Return *items* as a list for a message: up to *most* of them, and the number of the rest."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def utc_time(seconds: float) -> str:
    """Return epoch seconds as a date and a time in UTC: ``2013-06-04 19:10:55``.

    Where the year is beyond what a calendar can show, return the seconds, as tar does.
    """
    return _date("%Y-%m-%d %H:%M:%S", time.gmtime, seconds)


_zone = time.gmtime
"""Makes the parts of a date of epoch seconds, for :func:`shown_time`."""


def show_local_time(is_wanted: bool) -> None:
    """Let :func:`shown_time` and :func:`shown_minute` return local times, or UTC again."""
    global _zone
    _zone = time.localtime if is_wanted else time.gmtime


def shown_zone() -> str:
    """Return the zone of :func:`shown_time` for the head of a column: ``UTC`` or ``local``."""
    return "UTC" if _zone is time.gmtime else "local"


def shown_time(seconds: float) -> str:
    """Return epoch seconds as a date and a time in the zone that was chosen, UTC by default."""
    return _date("%Y-%m-%d %H:%M:%S", _zone, seconds)


def shown_day(seconds: float) -> date:
    """Return the day of epoch seconds in the zone that was chosen, UTC by default.

    Raises OverflowError, ValueError or OSError where a calendar cannot show the year.
    """
    return date(*_zone(seconds)[:3])


def shown_minute(seconds: float | None) -> str:
    """Return epoch seconds as a date, a minute and the zone; "" for None.

    ``2013-06-04 19:10 UTC``, or ``2013-06-04 21:10 +0200`` where local times were chosen.
    """
    if seconds is None:
        return ""
    zone = "UTC" if _zone is time.gmtime else "%z"
    return _date(f"%Y-%m-%d %H:%M {zone}", _zone, seconds)


def _date(pattern: str, zone: Callable[[float], time.struct_time], seconds: float) -> str:
    """Return the date; where the year is beyond what a calendar can show, the seconds, as tar."""
    try:
        return time.strftime(pattern, zone(seconds))
    except (OverflowError, ValueError, OSError):
        return str(int(seconds))


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, ``1 file`` or ``3 files``; *noun* takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def human_seconds(seconds: float) -> str:
    """Return a duration for people: ``0.4 s``, ``3 min 12 s``, ``2 h 5 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min {whole % 60} s"
    return f"{minutes // 60} h {minutes % 60} min"


def human_rate(size: int, seconds: float) -> str:
    """Return bytes by seconds for people: ``82.6 MB/s``."""
    return f"{human_size(round(size / max(seconds, 0.001)))}/s"


_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def human_size(size: int) -> str:
    """Return a size in bytes for people, in powers of 1,000: ``1.2 MB``."""
    value = float(size)
    for unit in _UNITS:
        if value < 999.95 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


_MEMORY = (
    "there is not enough memory",
    "end other programs, or raise the limit of this process (ulimit -v, or the container's)",
)
_THREADS = (
    "no more threads can be started",
    "raise the limit of processes (ulimit -u, or the container's pids), or end other programs",
)
_DESCRIPTORS = "too many open files", "raise the limit of open files (ulimit -n)"
_ALL_DESCRIPTORS = (
    "this machine has too many open files",
    "end other programs, or raise fs.file-max",
)
_ERRNOS = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _ALL_DESCRIPTORS,
}
_LOST = "without exception set", "without setting an exception"
"""How SystemError ends where CPython met no memory and lost the exception that says so."""
_MOST_CAUSES = 20


def shortage_error(exc: BaseException) -> ResourceError | None:
    """Return the error to raise for *exc*, or None if it or its causes show no shortage.

    The caller raises it ``from exc``.
    """
    cause: BaseException | None = exc
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        found = _shortage(cause)
        if found is not None:
            message, hint = found
            return ResourceError(message, hint=hint)
        # What was handled before the error was raised "from" another one is no cause of it.
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _shortage(exc: BaseException) -> tuple[str, str] | None:
    if isinstance(exc, MemoryError) or (isinstance(exc, SystemError) and str(exc).endswith(_LOST)):
        return _MEMORY
    if isinstance(exc, OSError):
        return _ERRNOS.get(exc.errno or 0)
    text = str(exc)
    if isinstance(exc, RuntimeError) and text.startswith("can't start new thread"):
        return _THREADS
    # What the loader of libraries says when mmap is refused.
    if isinstance(exc, ImportError) and (
        "failed to map segment" in text or "cannot allocate memory" in text.lower()
    ):
        return _MEMORY
    return None
