"""Run a command and write the most memory it held, in bytes, to a file: FILE COMMAND [ARG …].

It is a process of its own because Linux counts the memory of the parent at the fork as the child's,
and pytest may hold much.
"""

from __future__ import annotations

import os
import sys


def main(report: str, command: list[str]) -> int:
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    with open(report, "w") as stream:
        stream.write(str(usage.ru_maxrss * 1024))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
