"""Print what a backup would store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bakthat.cli import output
from bakthat.system import terminal
from bakthat.system.text import counted, human_size, printable

if TYPE_CHECKING:
    from bakthat.operations.backup.preview import BackupPreview, PreviewReport


def print_preview(preview: BackupPreview, *, explain: bool) -> None:
    """Print *preview* to standard output: its entries, or with *explain* only the one asked for.

    The last line says what would be stored in all, and where; with ``--json``, it is the summary.
    Raises OutputError.
    """
    report = preview.report
    if output.is_json():
        if not explain:
            output.print_lines("change", (each.as_dict() for each in preview))
        output.print_listing(None, (), **report.as_dict())
    elif explain:
        terminal.print_line(report.explanation)
    else:
        for each in preview:
            sign = "-" if each.change == "removed" else "+"
            terminal.print_line(f"{sign} {printable(each.path)}: {each.reason}")
        terminal.print_line(_summary(report))
    preview.close()


def _summary(report: PreviewReport) -> str:
    name = printable(report.stored_filename)
    content = f"{counted(report.files, 'file')} ({human_size(report.bytes)})"
    if report.is_skipped:
        return f"Nothing has changed since {printable(report.newest)}: no backup would be made"
    if report.is_increment:
        return (
            f"Would store {content} as {name}, from {printable(report.parent)}: "
            f"{report.unchanged} unchanged, {report.removed} removed"
        )
    why = f", a full backup since {report.why_full}" if report.why_full else ""
    return f"Would store {content} as {name}{why}"
