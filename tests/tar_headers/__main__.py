"""Compare a million headers: ``python -m tests.tar_headers --count 1000000``.

Half of the headers are written by bakthat, the others by tarfile and GNU tar in all of their
formats. Every archive is read by bakthat, tarfile and GNU tar, and every field is compared. Files
for GNU tar are made in the temporary directory (TMPDIR): on tmpfs, as root, they have times, owners
and devices over the whole range.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from tests.tar_headers.comparison import Findings, compare
from tests.tar_headers.writers import WRITERS

HEADERS_OF_AN_ARCHIVE = 2_000


def main(arguments: list[str]) -> int:
    """Compare headers and print the findings; return 1 when one is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.tar_headers")
    parser.add_argument("--count", type=int, default=1_000_000, help="headers to write")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    others = [name for name in WRITERS if name != "bakthat"]
    turns = itertools.cycle([name for other in others for name in ("bakthat", other)])
    findings = Findings()
    begun = time.monotonic()
    seed = options.seed
    while findings.headers < options.count:
        left = options.count - findings.headers
        compare(next(turns), min(left, HEADERS_OF_AN_ARCHIVE), seed, findings)
        seed += 1
        if findings.archives % 50 == 0:
            print(
                f"{findings.headers} headers, {len(findings.unexplained)} unexplained", flush=True
            )
    seconds = time.monotonic() - begun
    print(f"{findings.headers} headers in {findings.archives} archives, {seconds:.0f} seconds")
    for reason, number in findings.explained.most_common():
        print(f"{number} times: {reason}")
    print(f"{len(findings.unexplained)} differences without an explanation")
    for text in findings.unexplained[:50]:
        print(f"- {text[:2000]}")
    return 1 if findings.unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
