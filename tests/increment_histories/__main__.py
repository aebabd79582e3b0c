"""Run thousands of histories: ``python -m tests.increment_histories --states 10000``.

Each process makes histories until all have restored so many states, each with bakthat and with GNU
tar alone, and compared them with the tree as it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from tests.increment_histories.machine import MOST_ARCHIVES
from tests.increment_histories.process import make_some


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
        running = {pool.submit(make_some) for _ in range(options.jobs)}
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
                    running.add(pool.submit(make_some))
    for what, count in sorted(total.items()):
        print(f"{count:8,}  {what}")
    print(f"in {time.monotonic() - begun:.0f} seconds")
    for text in problems:
        print(f"PROBLEM {text}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
