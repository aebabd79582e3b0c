"""Compare a million headers: ``python -m tests.tar_headers --count 1000000``.

Half of the headers are written by bakthat, the others by tarfile and GNU tar in all of their
formats. Every archive is read by bakthat, tarfile and GNU tar, and every field is compared. Files
for GNU tar are made in the temporary directory (TMPDIR): on tmpfs, as root, they have times, owners
and devices over the whole range.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.tar_headers.comparison import Findings, compare
from tests.tar_headers.writers import WRITERS

HEADERS_OF_AN_ARCHIVE = 2_000


def main(arguments: list[str]) -> int:
    """Compare headers and print the findings; return 1 when one is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.tar_headers")
    parser.add_argument("--count", type=int, default=1_000_000, help="headers to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    findings = _compare_many(options.count, options.seed, options.jobs)
    seconds = time.monotonic() - begun
    print(f"{findings.headers} headers in {findings.archives} archives, {seconds:.0f} seconds")
    for reason, number in findings.explained.most_common():
        print(f"{number} times: {reason}")
    print(f"{len(findings.unexplained)} differences without an explanation")
    for text in findings.unexplained[:50]:
        print(f"- {text[:2000]}")
    return 1 if findings.unexplained else 0


def _compare_many(count: int, seed: int, jobs: int) -> Findings:
    others = [name for name in WRITERS if name != "bakthat"]
    turns = itertools.cycle([name for other in others for name in ("bakthat", other)])
    total = Findings()
    with ProcessPoolExecutor(jobs) as pool:
        while total.headers < count:  # a file system may refuse some files
            sizes = [HEADERS_OF_AN_ARCHIVE] * ((count - total.headers) // HEADERS_OF_AN_ARCHIVE)
            sizes += [(count - total.headers) % HEADERS_OF_AN_ARCHIVE] if not sizes else []
            for findings in pool.map(
                _compare_one, [next(turns) for _ in sizes], sizes, itertools.count(seed)
            ):
                total.add(findings)
                if total.archives % 50 == 0:
                    print(
                        f"{total.headers} headers, {len(total.unexplained)} unexplained", flush=True
                    )
            seed += len(sizes)
    return total


def _compare_one(writer: str, count: int, seed: int) -> Findings:
    findings = Findings()
    compare(writer, count, seed, findings)
    return findings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
