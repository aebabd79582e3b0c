"""Run mysqldump or mariadb-dump; write a dump that is whole and fits a database of any name.

The module is a program of its own, which imports nothing of bakthat::

    python -I -S mysql_dump.py HEADER NAME PROGRAM ARGUMENT...

It writes *HEADER*, then what the program writes, with two things that no option of the program
does. A dump of one database does not say the database's character set: *HEADER* does. For a
trigger, an event or a routine that is older than the database's character set, the programs write
``ALTER DATABASE `NAME` …``, which would change the database of that name while the dump is loaded
into another one: the name is left out, so that it means the database that is loaded.

It ends as the program ended, by its exit code or its signal, and with exit code 1 if the dump does
not end with the line that the programs write last.
"""

import contextlib
import fcntl
import os
import signal
import sys

_END = b"-- Dump completed"
_CHUNK = 1 << 20


def _main(header: str, name: str, program: str, arguments: list[str]) -> int:
    """Run the program; return the exit code for this process."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end when nobody reads, as the programs do
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # For speed only: an ordinary user may have used up what the system grants.
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _CHUNK)
    try:
        # Everything else that is open here stays open there: the file with the password.
        pid = os.posix_spawnp(
            program,
            [program, *arguments],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
        )
    except OSError as exc:
        sys.stderr.write(f"cannot start {program}: {exc.strerror}\n")
        return 127
    os.close(writer)
    _write(os.fsencode(header))
    quoted = os.fsencode(name).replace(b"`", b"``")
    end = _copy(reader, b"\nALTER DATABASE `%s` CHARACTER SET " % quoted)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        os.kill(os.getpid(), -code)
        return 1  # the signal did not end this process
    if code == 0 and not end.rstrip().rpartition(b"\n")[2].startswith(_END):
        sys.stderr.write(f'the dump is cut: its last line is not "{_END.decode()}"\n')
        return 1
    return code


def _copy(reader: int, named: bytes) -> bytes:
    """Copy the dump, with *named* replaced by the statement without a name; return its end."""
    unnamed = b"\nALTER DATABASE CHARACTER SET "
    held = end = b""
    while chunk := os.read(reader, _CHUNK):
        data = (held + chunk).replace(named, unnamed)
        # What may be the beginning of *named* waits for the next chunk. In the data of tables
        # there is no line feed: the programs write it as \n.
        edge = data.find(b"\n", max(0, len(data) - len(named) + 1))
        held = data[edge:] if edge >= 0 else b""
        data = data[:edge] if edge >= 0 else data
        _write(data)
        end = (end + data[-200:])[-200:]
    _write(held)
    return end + held


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
