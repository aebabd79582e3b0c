"""The script that completes command lines in a shell, made by shtab."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from typing import Any

from bakthat.cli.app import described_commands
from bakthat.policy.defaults import DESTINATIONS


def script(shell: str) -> str:
    """Return the script that completes the command lines of bakthat in *shell*."""
    import shtab  # only this command needs it

    program = argparse.ArgumentParser("bakthat")
    commands = program.add_subparsers()
    for each in described_commands():  # the parser of aaargh has their aliases too
        for action in itertools.chain.from_iterable(each.sections.values()):
            completer = _completer_of(action, shtab)
            if completer is not None:
                action.complete = completer  # type: ignore[attr-defined]  # where shtab looks
        commands.add_parser(each.name, help=each.sentence, parents=[each.parser], add_help=False)
    return str(shtab.complete(program, shell))


def _completer_of(action: argparse.Action, shtab: Any) -> Mapping[str, Any] | None:
    if action.metavar == "DIR":
        return dict(shtab.DIRECTORY)
    if action.metavar in ("FILE", "PATH"):
        return dict(shtab.FILE)
    if action.dest == "destination":
        return _words(f"printf '%s\\n' {' '.join(DESTINATIONS)}", "destinations")
    if action.metavar in ("BACKUP", "SET"):
        kind = {"BACKUP": "backups", "SET": "sets"}[action.metavar]
        return _words(f"bakthat completion --names {kind} 2>/dev/null", kind)
    return None


def _words(command: str, name: str) -> Mapping[str, Any]:
    """Return shtab's description of what *command* prints, a word a line.

    shtab.cmd would let bash expand the words.
    """
    function = f"_bakthat_{name}"
    return {
        "bash": function,
        "zsh": f"($({command}))",
        "fish": f"({command})",
        "preamble": {
            "bash": f"{function}() {{\n  {command} | while IFS= read -r word; do\n"
            '    [[ $word == "$1"* ]] && printf \'%s\\n\' "$word"\n  done\n}\n'
        },
    }
