"""A user with a configuration of jobs, and what its hooks have seen."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bakthat
from bakthat.jobs.report import JobReport
from tests.support.profiles import Conf, write_config

VARIABLES = "BAKTHAT_"
PYTHON = shlex.quote(sys.executable)
"""What runs bakthat in a command of a job."""


@dataclass
class Night:
    """A configuration with one profile, sources to back up, and a file for each hook."""

    home: Path
    directory: Path
    conf: Conf
    """The profile ``default``."""

    def source(self, name: str, content: str = "hello") -> str:
        """Make a directory with a file; return its path."""
        path = self.directory / name
        path.mkdir()
        (path / "file").write_text(content)
        return str(path)

    def write(self, **jobs: dict[str, Any]) -> Path:
        """Write the configuration with these jobs."""
        path = self.home / ".bakthat.yml"
        profiles: dict[str, Any] = {"default": self.conf, "jobs": jobs}
        return write_config(path, **profiles)

    def hook(self, name: str, exit_code: int = 0) -> str:
        """Return a line for the shell that writes its environment down, and then ends so."""
        return f"env -0 | grep -z ^{VARIABLES} >> {self.seen_file(name)}; exit {exit_code}"

    def hooks(self, **exit_codes: int) -> dict[str, list[str]]:
        """Return a hook of each moment of a job, which ends with an exit code, by default 0."""
        moments = ("before", "after", "on_error")
        return {each: [self.hook(each, exit_codes.get(each, 0))] for each in moments}

    def seen_file(self, name: str) -> Path:
        """Return the file in which a hook writes down what it sees."""
        return self.directory / f"seen-{name}"

    def seen(self, name: str) -> list[dict[str, str]]:
        """Return what each run of a hook has seen, without the beginning of the variables."""
        path = self.seen_file(name)
        runs: list[dict[str, str]] = []
        for each in path.read_text().split("\0")[:-1] if path.exists() else ():
            variable, _, value = each.removeprefix(VARIABLES).partition("=")
            if not runs or variable in runs[-1]:
                runs.append({})
            runs[-1][variable] = value
        return runs

    def moments(self) -> list[str]:
        """Return which hooks have run, each as often as it did."""
        moments = ("before", "after", "on_error")
        return [each for each in moments for _ in self.seen(each)]

    def run(self, *names: str, **options: Any) -> JobReport:
        """Run the jobs, of which there is one, and return its report."""
        (report,) = bakthat.run_jobs(names, **options)
        return report


def sets(report: JobReport) -> list[str]:
    """Return the names of the sets of which a job has stored backups."""
    return [each.filename for each in report.backups]


def messages(report: JobReport) -> list[str]:
    """Return what a job says of its errors."""
    return [str(each) for each in report.all_problems]
