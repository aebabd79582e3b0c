"""The script that completes command lines in a shell, made by shtab."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from typing import Any

from bakthat.cli.app import PROGRAM_OPTIONS, described_commands
from bakthat.policy.defaults import DESTINATIONS

_KINDS = {"BACKUP": "backups", "SET": "sets", "PROFILE": "profiles", "JOB": "jobs"}
"""What ``bakthat completion --names`` prints for an argument, by how the help calls its value."""


def script(shell: str) -> str:
    """Return the script that completes the command lines of bakthat in *shell*."""
    import shtab  # only this command needs it

    program = argparse.ArgumentParser("bakthat", add_help=False, parents=[PROGRAM_OPTIONS])
    commands = program.add_subparsers()
    for each in described_commands():  # the parser of aaargh has their aliases too
        for action in itertools.chain.from_iterable(each.sections.values()):
            completer = _completer_of(action, shtab)
            if completer is not None:
                action.complete = completer  # type: ignore[attr-defined]  # where shtab looks
        commands.add_parser(each.name, help=each.sentence, parents=[each.parser], add_help=False)
    return f"{shtab.complete(program, shell).rstrip()}\n"


def _completer_of(action: argparse.Action, shtab: Any) -> Mapping[str, Any] | None:
    if action.metavar in ("DIR", "DIRECTORY"):
        return dict(shtab.DIRECTORY)
    if action.metavar in ("FILE", "PATH"):
        return dict(shtab.FILE)
    if action.dest in ("destination", "default_destination"):
        words = " ".join(DESTINATIONS)
        function = "_bakthat_destinations"
        preamble = {"bash": f'{function}() {{\n  compgen -W "{words}" -- "$1"\n}}\n'}
        return {"bash": function, "zsh": f"({words})", "fish": words, "preamble": preamble}
    if action.metavar in _KINDS:
        return _names(_KINDS[str(action.metavar)])
    return None


def _names(kind: str) -> Mapping[str, Any]:
    """Return shtab's description of the names of *kind*, which any user of a bucket may have made.

    zsh and fish quote a name when they insert it, and bash inserts it as it is. shtab.cmd would
    let bash expand the names, and would let zsh ask for them when it starts. An alias must not
    turn the question for the names into another one, such as sudo's for a password.
    """
    function = f"_bakthat_{kind}"
    command = f"command bakthat completion --names {kind}"
    quiet = "2>/dev/null </dev/null"
    bash = f"""{function}() {{
  local name
  {command} "$1" "${{COMP_WORDS[@]:1}}" {quiet} | while IFS= read -r name; do
    printf -v name %q "$name"
    [[ $name == "$1"* ]] && printf '%s\\n' "$name"
  done
}}
"""
    zsh = f"""{function}() {{
  local -a names
  names=(${{(f)"$({command} "${{(Q)PREFIX}}" "${{words[@]}}" {quiet})"}})
  compadd "$@" -a names
}}
"""
    fish = f"""function {function}
  {command} (commandline -ct) (commandline -opc) {quiet}
end
"""
    preamble = {"bash": bash, "zsh": zsh, "fish": fish}
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": preamble}
