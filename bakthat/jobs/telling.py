"""What the operations of a job tell by events, and what must be told besides that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bakthat import models
from bakthat.errors import BakthatError
from bakthat.hooks import Events, events
from bakthat.session.session import Operation
from bakthat.system.text import printable, shortage_error

log = logging.getLogger("bakthat")


@contextmanager
def telling(
    name: str, plugins: Sequence[Events], made: list[models.Backups] | None = None
) -> Iterator[None]:
    """Let an exception of the block be told by ``on_error``, unless an operation in it has done so.

    *name* is the operation that is told of, and *plugins* are told besides
    :data:`bakthat.events`. *made* gets the backups that operations in the block make: also one that
    is stored, and then fails by the exception of a callback.
    """
    me = threading.get_ident()
    told: list[BaseException] = []

    def on_backup(_session_id: str, backup: models.Backups) -> None:
        if threading.get_ident() == me and made is not None:
            made.append(backup)

    def on_error(_session_id: str, _name: str, exc: BaseException) -> None:
        if threading.get_ident() == me:
            told.append(exc)

    events.on_backup += on_backup
    events.on_error += on_error
    try:
        yield
    except BaseException as exc:
        if not told:
            tell_error(name, plugins, exc)
        raise
    finally:
        events.on_backup -= on_backup
        events.on_error -= on_error


def tell_error(name: str, plugins: Sequence[Events], exc: BaseException) -> None:
    """Call the callbacks of ``on_error``: an exception has ended the operation *name*."""
    Operation(name, (events, *plugins)).fire_error(exc)


def tell(event: str, plugins: Sequence[Events], *arguments: object) -> None:
    """Call the callbacks of an event of a job. Raises what the first one raises that fails."""
    failures: list[Exception] = []
    for listener in (events, *plugins):
        for callback in getattr(listener, event):
            try:
                callback(*arguments)
            except Exception as exc:  # noqa: BLE001  # the other callbacks are told too
                exc.add_note(f"raised by a callback of {event}")
                failures.append(exc)
    for failure in failures:
        raise failure


def error_of(exc: Exception) -> BakthatError:
    """Return *exc* as an error of bakthat: the same, or what names an unexpected one."""
    if isinstance(exc, BakthatError):
        return exc
    log.debug("an unexpected exception", exc_info=exc)
    notes = "; ".join(getattr(exc, "__notes__", ()))
    error: BakthatError | None = shortage_error(exc)
    if error is None:
        error = BakthatError(
            f"unexpected {type(exc).__name__}: {exc}",
            hint="" if notes else "this is a defect in bakthat; --debug shows where",
        )
        error.is_unexpected = True
    error.__cause__ = exc
    if notes:
        error.add_note(notes)
    return error


def named(error: BakthatError, job: str, about: str = "") -> BakthatError:
    """Return *error* with a message that begins with the job.

    After that, it says what the error is *about*, unless the message names it.
    """
    said = str(error)
    if about and about not in said:
        said = f"{about}: {said}"
    beginning = f"{printable(job)}: "
    error.args = (said if said.startswith(beginning) else f"{beginning}{said}",)
    return error
