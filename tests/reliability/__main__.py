"""Make disasters happen: ``python -m tests.reliability``; ``--help`` lists how many of which."""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from bakthat.backends.aws import part_plan
from tests.reliability import disks, dumps, inputs, kills, networks
from tests.reliability.world import World, in_child, replace
from tests.support.servers import S3_PART, moto_server, plain

PAGE = Path(__file__).parent.parent.parent / "docs" / "explanation" / "reliability.rst"
BEGIN, END = ".. figures: begin\n", ".. figures: end\n"
S3_LARGE = S3_PART + 200_000
"""Bytes that take two parts."""
LOCAL_LARGE = 1024 * 1024


def main() -> int:
    """Run what the arguments say; return 1 when anything did not hold."""
    options = _options()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        if not disks.is_preloaded() and options.disk_every:
            library = disks.build(root)
            if library is None:
                print("no C compiler to build the failing disk; --disk-every=0 does without it")
                return 2
            _run_again_on(library)
        return _run(options, root, random.Random(seed))


def _run(options: argparse.Namespace, root: Path, rng: random.Random) -> int:
    began = time.monotonic()
    figures: list[tuple[str, int]] = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    (root / "moto").mkdir()
    with moto_server(root / "moto") as server:
        local_conf = {"default_destination": "local", "local_path": str(root / "local/store")}
        s3_conf = {**server.conf(), "default_destination": "s3"}
        # Parsed once, here, and not in each child; the first client connects to nothing.
        plain(s3_conf)
        replace(part_plan, "MIN_PART_SIZE", S3_PART)
        local = World.make(root / "local", local_conf, rng, large=LOCAL_LARGE)
        s3 = World.make(root / "s3", s3_conf, rng, large=S3_LARGE)
        worlds = [local, s3]
        for name, world in (("a local directory", local), ("S3", s3)):
            killed = kills.kill(world, options.kills // 2)
            figures += [(f"kills of ``{each}``, {name}", count) for each, count in killed.items()]
            _say(began, f"{sum(killed.values())} kills over {name}")
            if options.steps_every:
                offset = rng.randrange(options.steps_every)
                killed = kills.kill_at_steps(world, every=options.steps_every, offset=offset)
                figures.append((f"kills at a step, {name}", sum(killed.values())))
                _say(began, f"{killed} kills at steps over {name}")
        if options.disk_every:
            offset = rng.randrange(options.disk_every)
            faults = disks.fail(local, every=options.disk_every, offset=offset)
            figures.append(("disk faults", faults))
            _say(began, f"{faults} disk faults")
        if options.network_every:
            offset = rng.randrange(options.network_every)
            faults = networks.fail(s3, every=options.network_every, offset=offset)
            figures.append(("network and service faults", faults))
            _say(began, f"{faults} network faults")
        if options.dumps:
            with dumps.dump_world(root / "dumps", server, rng) as databases:
                cut = dumps.cut(databases, options.dumps, lambda what: _say(began, what))
            figures += [(f"dumps cut ({way})", count) for way, count in cut.items()]
            worlds.append(databases)
    tried, finds = in_child(lambda: inputs.attempt(options.inputs, rng)).result
    lost = sum(world.lost for world in worlds)
    problems = [problem for world in worlds for problem in world.problems] + finds
    figures += [("hostile inputs", tried), ("backups lost", lost)]
    figures.append(("anything else that did not hold", len(problems) - lost))
    for what, count in figures:
        print(f"{count:8,}  {what}")
    print(f"in {time.monotonic() - began:.0f} seconds")
    for problem in problems:
        print(f"PROBLEM {problem}")
    if options.write:
        _write(figures)
    return 1 if problems else 0


def _say(began: float, what: str) -> None:
    print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="half local, half S3")
    parser.add_argument("--steps-every", type=int, default=1, help="of the steps; 0: none")
    parser.add_argument(
        "--disk-every", type=int, default=1, help="of the changes to a disk; 0: none"
    )
    parser.add_argument("--network-every", type=int, default=1, help="of the requests; 0: none")
    parser.add_argument("--dumps", type=int, default=100, help="that are cut")
    parser.add_argument("--inputs", type=int, default=50_000, help="mutated inputs")
    parser.add_argument("--seed", type=int, help="repeats a run, as far as time can be repeated")
    parser.add_argument("--write", action="store_true", help="write the figures into the docs")
    return parser.parse_args()


def _run_again_on(library: Path) -> None:
    """Run this in a process that has *library* preloaded, and exit as it does."""
    import subprocess

    command = [sys.executable, "-m", "tests.reliability", *sys.argv[1:]]
    done = subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(library)}, check=False)
    sys.exit(done.returncode)


def _write(figures: list[tuple[str, int]]) -> None:
    text = PAGE.read_text()
    width = max(len(what) for what, _ in figures)
    rule = f"{'=' * width}  {'=' * 8}"
    rows = "\n".join(f"{what:{width}}  {count:>8,}" for what, count in figures)
    table = f"{BEGIN}\n{rule}\n{rows}\n{rule}\n\n{END}"
    PAGE.write_text(text[: text.index(BEGIN)] + table + text[text.index(END) + len(END) :])


if __name__ == "__main__":
    sys.exit(main())
