"""Run thousands of histories: ``python -m tests.increment_histories --states 10000``.

Each process makes histories until all have restored so many states, each with bakthat and with GNU
tar alone, and compared them with the tree as it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from hypothesis.stateful import run_state_machine_as_test

from tests.increment_histories.machine import MOST_ARCHIVES, Histories, figures, settings_for

AT_ONCE = 20
"""Histories that a process makes before it reports."""


def main(arguments: list[str]) -> int:
    """Run histories and print the figures; return 1 when one went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.increment_histories")
    parser.add_argument("--states", type=int, default=10_000, help="states to restore and compare")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    total: Counter[str] = Counter()
    problems = []
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_run) for _ in range(options.jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                made, problem = future.result()
                most = max(total[MOST_ARCHIVES], made[MOST_ARCHIVES])
                total.update(made)
                total[MOST_ARCHIVES] = most
                problems += [problem] if problem else []
                print(f"{time.monotonic() - begun:6.0f} s  {total['states']:,} states", flush=True)
                if total["states"] < options.states and not problems:
                    running.add(pool.submit(_run))
    for what, count in sorted(total.items()):
        print(f"{count:8,}  {what}")
    print(f"in {time.monotonic() - begun:.0f} seconds")
    for text in problems:
        print(f"PROBLEM {text}")
    return 1 if problems else 0


def _run() -> tuple[Counter[str], str]:
    """Make some histories; return what was done, and the smallest one that went wrong."""
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    figures.clear()
    problem = ""
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home
        os.environ.pop("XDG_CACHE_HOME", None)
        try:
            run_state_machine_as_test(Histories, settings=settings_for(AT_ONCE, database=None))
        except Exception as exc:  # noqa: BLE001  # the parent prints it
            problem = "".join(traceback.format_exception(exc))
    return figures, problem


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
