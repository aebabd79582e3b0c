"""The exit codes: ``docs/reference/exit-codes.rst``."""

from __future__ import annotations

from bakthat.cli.exit_codes import EXIT_CODES, ExitCode
from tests.docs.reference import commands, rst

USUAL = {int(ExitCode.DONE): "done", int(ExitCode.FAILED): "failed"}

INCOMPLETE = (
    "*Incomplete* is one decision for all of bakthat: the entry that :func:`bakthat.backup` or "
    ":func:`bakthat.restore` returns has warnings (``warning_count``), so its ``is_complete`` is "
    'False, the exit code is 3, notifications say "incomplete" and never "success" '
    "(:doc:`/how-to/notify`), and ``BakHelper`` keeps its directory (:doc:`/how-to/helpers`)."
)
SIGNALS = (
    "A signal stops a command at once, also while data is sent. It waits only for the last request "
    "of an upload, or for a deletion, and for its record in the catalog, so that both agree. If "
    "that request takes long, bakthat says what it is finishing; a second signal, at least a "
    "second after the first, stops it. The message names the command that then brings storage and "
    "catalog together: ``bakthat sync`` or ``bakthat cleanup``. It is the same while the parts of "
    "an upload are removed.",
    "Otherwise only SIGKILL and a power cut leave something behind: parts of an upload, or "
    "``.bakthat-*.tmp`` in a local store. ``bakthat cleanup`` removes these (:doc:`upkeep`). A "
    "killed restore leaves ``.bakthat-restore-*``, which you may delete.",
)


def page() -> str:
    """Return the page."""
    rows = [(str(int(code)), rst.escaped(meaning)) for code, meaning in EXIT_CODES.items()]
    special = [
        (f":ref:`{each.name} <{commands.label(each)}>`", str(int(code)), rst.escaped(meaning))
        for each in commands.commands()
        for code, meaning in commands.codes(each)
        if USUAL.get(code) != meaning
    ]
    return rst.page(
        rst.NOTICE,
        ".. _exit-codes:",
        rst.title("Exit codes"),
        rst.table(("code", "meaning"), rows, (1, 9)),
        rst.prose(
            "Take any other code than 0 for a failure. Where a command says something more by a "
            "code, it is:"
        ),
        rst.table(("command", "code", "meaning"), special, (4, 1, 7)),
        rst.title("Incomplete", "-"),
        rst.prose(INCOMPLETE),
        rst.title("Signals", "-"),
        *map(rst.prose, SIGNALS),
    )
