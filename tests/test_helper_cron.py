"""Backup scripts as cron runs them: no terminal, no environment, and many at the same minute."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.format.names import index_key
from tests.support.commandline import PATIENCE, PROJECT
from tests.support.examples import rest_heavy
from tests.support.legacy import client_of
from tests.support.profiles import write_config

AT_ONCE = 20

SCRIPT = """
import sys
sys.path.insert(0, {project!r})
from bakthat.helper import BakHelper

with BakHelper({name!r}, tags=["cron"]) as bh:
    with open("dump.txt", "w") as f:
        f.write(sys.argv[1])
    bh.backup()
    bh.rotate()
"""


def start_cron_job(script: Path, home: Path, number: int) -> subprocess.Popen[str]:
    """Run a script with PATH, HOME and TMPDIR only, in a session without a terminal."""
    return subprocess.Popen(
        ["env", "-i", f"PATH={os.environ['PATH']}", f"HOME={home}",
         f"TMPDIR={tempfile.gettempdir()}", sys.executable, script, str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("s3_conf", rest_heavy(["moto", "rclone", "seaweedfs"]), indirect=True)
def test_twenty_jobs_of_one_minute_all_succeed_and_none_collides(
    s3_conf: dict[str, Any], isolated_environment: Path, tmp_path: Path
) -> None:
    home = isolated_environment
    config = home / ".bakthat.yml"
    # Keeps all: a job that rotates must not take what another has just made.
    write_config(config, default={**s3_conf, "rotation": {"last": AT_ONCE}})
    name = f"cron-{uuid.uuid4().hex[:8]}"
    script = tmp_path / "mybackupscript.py"
    script.write_text(SCRIPT.format(project=str(PROJECT), name=name))

    jobs = [start_cron_job(script, home, number) for number in range(AT_ONCE)]
    output = [job.communicate(timeout=PATIENCE)[0] for job in jobs]
    assert [(job.returncode, text) for job, text in zip(jobs, output, strict=True)] == [
        (0, "")
    ] * AT_ONCE

    made = [each.stored_filename for each in bakthat.ls()]
    assert len(made) == len(set(made)) == AT_ONCE
    stored = client_of(s3_conf).list_objects_v2(Bucket=s3_conf["s3_bucket"])["Contents"]
    assert sorted(each["Key"] for each in stored) == sorted([*made, *map(index_key, made)])
    contents = set()
    for stored_name in made:
        bakthat.restore(stored_name, output=tmp_path / stored_name)
        contents.add((tmp_path / stored_name / name / "dump.txt").read_text())
    assert contents == {str(number) for number in range(AT_ONCE)}
    assert list(Path(tempfile.gettempdir()).glob(f"{name}_*")) == []


@pytest.mark.parametrize("broken", ["script", "storage"])
def test_a_job_that_fails_says_so_and_loses_nothing(
    isolated_environment: Path, tmp_path: Path, broken: str
) -> None:
    home = isolated_environment
    name = f"cron-{uuid.uuid4().hex[:8]}"
    text = SCRIPT.format(project=str(PROJECT), name=name)
    if broken == "script":
        text = text.replace("bh.backup()", "raise SystemExit('mysqldump failed')")
    else:
        (home / ".bakthat_store").write_text("a file stands where the store belongs")
    script = tmp_path / "mybackupscript.py"
    script.write_text(text)
    job = start_cron_job(script, home, 7)
    output = job.communicate(timeout=PATIENCE)[0]
    assert job.returncode == 1
    kept = list(Path(tempfile.gettempdir()).glob(f"{name}_*"))
    if broken == "script":
        assert "mysqldump failed" in output
        assert kept == []
        return
    (directory,) = kept
    try:
        assert f"its files are still in {directory}" in output
        assert (directory / "dump.txt").read_text() == "7"
    finally:
        (directory / "dump.txt").unlink(missing_ok=True)
        directory.rmdir()
