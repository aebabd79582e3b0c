"""A thread starts, or says that it cannot; nothing waits for one that never began."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bakthat.system.threads import ThreadPool

NEAR_THE_LIMIT = """
import os, resource, signal
from bakthat.system.threads import ThreadPool

def limit(more):
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
outcomes = set()
stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
for more in (*range(0, 1 << 20, 4096), *range(1 << 20, 8 << 20, 1 << 20)):
    read, write = os.pipe()
    if not os.fork():
        signal.alarm(10)  # ends a child that waits
        pool = ThreadPool(1)
        kept = []
        limit(0)
        for size in range(512, 0, -16):  # what Python holds free is in classes of these sizes
            try:
                while True:
                    kept.append(bytes(size))
            except MemoryError:
                pass
        limit(stack + more)
        try:
            pool.submit(len, "x").result()
        except (MemoryError, RuntimeError):
            os.write(write, b"f")
        else:
            os.write(write, b"s")
        os._exit(0)
    os.close(write)
    outcomes.add(os.read(read, 1))
    os.close(read)
    os.wait()
print(sorted(outcomes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from Linux's /proc")
@pytest.mark.parametrize("stack_mib", [1, 8, 64])
def test_a_thread_without_memory_to_begin_is_an_error_and_never_waited_for(stack_mib: int) -> None:
    # The C library reads the limit when a process begins.
    script = f'ulimit -S -s {stack_mib * 1024} && exec "$0" -c "$1"'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, NEAR_THE_LIMIT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "[b'f', b's']\n", done.stderr


WITHOUT_ROOM = """
import resource
from bakthat.system.threads import ThreadPool

pool = ThreadPool(1)
pool.submit(len, "").result()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
print(pool.submit(len, "ab").result())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from Linux's /proc")
def test_a_pool_whose_threads_all_run_needs_no_room_for_another() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "2\n", done.stderr


def test_results_and_exceptions_come_from_the_thread() -> None:
    with ThreadPool(1) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 7, 0).result()
        assert list(pool.map(str, range(3))) == ["0", "1", "2"]
