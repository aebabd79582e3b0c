"""The lines of ``--json``: ``docs/reference/json.rst``."""

from __future__ import annotations

from itertools import groupby

from bakthat.cli.messages import JSON_VERSION, MESSAGES, Message
from tests.docs.reference import rst

INTRODUCTION = (
    "With ``--json`` a command prints JSON lines to standard output: each line is an object with a "
    "``message_type``. The log stays on standard error. ``cat``, ``completion`` and ``show "
    "--by-hand`` have no ``--json``, since their output is a file.",
    "The last line is ``summary``, or ``error`` when not all could be done. The exit code says the "
    "same (:ref:`exit-codes`). Times are epoch seconds UTC, and sizes are bytes. Keys do not "
    f"change while ``json_version`` in the summary is {JSON_VERSION}. New keys and new types of "
    "messages may come, so ignore what you do not know. With jq, for example:",
)
EXAMPLE = """$ mkdir mydir && echo hello > mydir/notes.txt
$ bakthat --quiet backup mydir --prompt no
$ bakthat show --json | jq -r 'select(.message_type == "backup").stored_filename'
mydir.20261126083846.tgz
"""
ABSENT = "*may be absent*; "


def page() -> str:
    """Return the page."""
    parts = [
        rst.NOTICE,
        ".. _json:",
        rst.title("JSON"),
        *map(rst.prose, INTRODUCTION),
        rst.block(EXAMPLE, "console"),
    ]
    for message_type, group in groupby(MESSAGES, key=lambda each: each.type):
        parts.append(rst.title(message_type, "-"))
        for message in group:
            parts += _message(message)
    return rst.page(*parts)


def _message(message: Message) -> list[str]:
    where = ", ".join(map(rst.literal, message.commands)) or "Every command"
    meaning = rst.escaped(message.meaning).rstrip(".")
    rows = [
        (rst.literal(key.strip("[]")), _meaning(key, text)) for key, text in message.keys.items()
    ]
    return [rst.prose(f"{where}: {meaning}."), rst.table(("key", "meaning"), rows, (3, 7))]


def _meaning(key: str, text: str) -> str:
    return f"{ABSENT if key.startswith('[') else ''}{rst.escaped(text)}"
