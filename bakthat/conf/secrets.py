"""Secrets of a profile: each is read where it is needed, from its key, from a file or of a program.

A file is read each time, since its content may have changed. The output of a program is remembered
until the process ends, since the program may ask somebody, or a server.
"""

from __future__ import annotations

import copy
import os
import selectors
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.conf.checks import is_path, value_of
from bakthat.conf.files.content import MOST_BYTES, content_of
from bakthat.conf.profile import KEYS, SECRETS
from bakthat.errors import ConfigError
from bakthat.system.paths import expanded
from bakthat.system.signals import child_status
from bakthat.system.text import printable, reason_of, to_native

_SHELL_SYNTAX = frozenset(("|", "||", "&&", ";", ">", "<", "2>/dev/null", "2>&1"))
_BYTE_ORDER_MARK = "\ufeff"

_outputs: dict[tuple[str, ...], str] = {}
"""What programs have printed, by their arguments."""
_running = threading.Lock()
"""Held while a program runs, so that another thread that needs the same secret starts none."""


@dataclass(frozen=True, slots=True)
class SecretText:
    """The text of a secret that a file or a program gives."""

    text: str = field(repr=False)
    """It is not empty, and has no line end at its end."""
    origin: str
    """Where it comes from, for messages: "the password file '/a'"."""


def way_of(profile: Mapping[str, Any], key: str) -> str | None:
    """Return the key that gives the secret *key* in a profile, such as "secret_key_file".

    It is None where none of the three keys is set, and the secret has its default.
    """
    ways = SECRETS[key]
    if profile.get(key) not in (None, KEYS[key].default):
        return key
    return next((each for each in ways[1:] if profile.get(each) is not None), None)


def read_secret(profile: Mapping[str, Any], key: str, *, timeout: float | None = None) -> Any:
    """Return the value of the secret *key* of a profile: one that was given, or its default.

    *timeout* is how many seconds a program may take; None is for ever. Raises ConfigError when the
    file cannot be read, the program fails, or what they give is empty or no valid value.
    """
    given = secret_text(profile, key, timeout=timeout)
    if given is None:
        value = profile.get(key)
        return copy.deepcopy(KEYS[key].default) if value is None else value
    if _BYTE_ORDER_MARK in given.text:
        raise ConfigError(
            f"{given.origin} holds a byte order mark",
            hint="save it as UTF-8 without a byte order mark (BOM)",
        )
    text = to_native(given.text) if is_path(key) else given.text
    return value_of(key, text, given.origin)


def secret_text(
    profile: Mapping[str, Any], key: str, *, timeout: float | None = None
) -> SecretText | None:
    """Return the text that a file or a program gives for the secret *key*, unchecked.

    It is None where neither does, or where the profile holds the secret itself. *timeout* and
    errors are those of :func:`read_secret`.
    """
    ways, way = SECRETS[key], way_of(profile, key)
    if way == ways.file:
        what = f"{key.replace('_', ' ')} file"
        path = expanded(profile[way])
        text = read_secret_file(path, what).rstrip("\r\n")
        origin = f"the {what} '{printable(path)}'"
        text = _not_empty(text, origin, key)
    elif way == ways.command:
        text, origin = _printed(profile[way], key, way, timeout), f"the output of {way}"
    else:
        return None
    return SecretText(text, f"the location in {origin}" if is_path(key) else origin)


def read_secret_file(path: Path, what: str) -> str:
    """Return the text of a file. Raises ConfigError, which calls the file *what*."""
    try:
        data = content_of(path)
    except OSError as exc:
        raise ConfigError(
            f"cannot read the {what} '{printable(path)}': {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from exc
    text = _decoded(data)
    if text is None:
        raise ConfigError(
            f"the {what} '{printable(path)}' is not UTF-8 text", hint="save it as UTF-8"
        )
    # Each line end counts as \n, also in a passphrase of several lines that earlier versions took.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def forget_outputs() -> None:
    """Run each program again that gives a secret, when it is needed next."""
    with _running:
        _outputs.clear()


def _not_empty(text: str, origin: str, key: str) -> str:
    """Return *text*. Raises ConfigError when it is empty: a broken script must change nothing."""
    if text:
        return text
    if key == "password":
        hint = "to store unencrypted, set password: '' in the profile"
    else:
        hint = f"let it give the value of {key}, or remove its line"
    raise ConfigError(f"{origin} is empty", hint=hint)


def _decoded(data: bytes) -> str | None:
    """Return a text; None when it is not UTF-8. The exception would hold the secret."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _printed(command: str | list[str], key: str, way: str, timeout: float | None) -> str:
    """Return what a program prints, without line ends at its end. Raises ConfigError."""
    arguments = _arguments_of(command, way)
    with _running:
        if arguments not in _outputs:
            text = _output_of(arguments, way, timeout).rstrip("\r\n")
            _outputs[arguments] = _not_empty(text, f"the output of {way}", key)
        return _outputs[arguments]


def _arguments_of(command: str | list[str], way: str) -> tuple[str, ...]:
    """Return the program and its arguments, which are not given to a shell."""
    try:
        arguments = shlex.split(command) if isinstance(command, str) else command
    except ValueError as exc:
        raise ConfigError(
            f"{way} cannot be read: {reason_of(exc)}",
            hint="write it as a list, an entry for each argument",
        ) from exc
    if not arguments:
        raise ConfigError(f"{way} is empty", hint="name a program, or remove the line")
    if isinstance(command, str) and not _SHELL_SYNTAX.isdisjoint(arguments):
        raise ConfigError(
            f"{way} runs without a shell, and holds what only a shell understands",
            hint="write sh -c '…', or a list of arguments if it is meant",
        )
    return tuple(to_native(each) for each in arguments)


def _output_of(arguments: tuple[str, ...], way: str, timeout: float | None) -> str:
    """Run the program of the key *way*; return its output. It is ended after *timeout* seconds."""
    try:
        with child_status():
            status, output = _run(arguments, timeout)
    except OSError as exc:
        hint = ""
        if isinstance(exc, FileNotFoundError) and "/" not in arguments[0]:
            hint = "write the whole path of the program; under cron, PATH is short"
        program = printable(arguments[0])
        raise ConfigError(f"cannot run '{program}' for {way}: {reason_of(exc)}", hint=hint) from exc
    except ValueError as exc:
        raise ConfigError(
            f"cannot run {way}: {reason_of(exc)}", hint="remove the NUL character"
        ) from exc
    if len(output) >= MOST_BYTES:
        raise ConfigError(f"the output of {way} is too large", hint="let it print the secret alone")
    if status is None:
        raise ConfigError(
            f"{way} did not end within {timeout:g} seconds",
            hint="run it in a shell: it may wait for an answer, or for a server",
        )
    if status:
        by_signal = f"was ended by signal {-status}"
        how = by_signal if status < 0 else f"failed with status {status}"
        raise ConfigError(f"{way} {how}", hint="run it in a shell to see why")
    text = _decoded(output)
    if text is None:
        raise ConfigError(
            f"the output of {way} is not UTF-8 text", hint="let it print the secret as UTF-8"
        )
    return text


def _run(arguments: tuple[str, ...], timeout: float | None) -> tuple[int | None, bytes]:
    """Return the exit status and the output of a program, which is ended when that is too large.

    The status is None where the program was ended after *timeout* seconds.
    """
    until = None if timeout is None else time.monotonic() + timeout
    # What bakthat gets from a pipe or a file is its own, such as the stream of `bakthat backup -`.
    stdin = None if os.isatty(0) else subprocess.DEVNULL
    with subprocess.Popen(arguments, stdin=stdin, stdout=subprocess.PIPE) as process:
        try:
            output = b"".join(_printed_by(process, until))
            if len(output) >= MOST_BYTES:
                process.kill()
            process.wait(_left(until))
        except BaseException as exc:
            # Unlike subprocess.run, this does not wait for what the program has started.
            process.kill()
            if isinstance(exc, subprocess.TimeoutExpired):  # which may hold the secret
                return None, b""
            raise
        return process.returncode, output


def _printed_by(process: subprocess.Popen[bytes], until: float | None) -> Iterator[bytes]:
    """Yield the parts of what a program prints, up to :data:`MOST_BYTES` or more.

    Raises subprocess.TimeoutExpired when it has not ended *until* then.
    """
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        size = 0
        while size < MOST_BYTES:
            if not selector.select(_left(until)):
                raise subprocess.TimeoutExpired(process.args, 0)
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                break
            size += len(part)
            yield part


def _left(until: float | None) -> float | None:
    """Return the seconds until then; None for ever."""
    return None if until is None else max(until - time.monotonic(), 0)
