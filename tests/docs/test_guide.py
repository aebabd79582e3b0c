"""The guide's examples, run from its text: this version's page, and 0.6.0's as they stood there.

Only places are put in: the endpoints of storages on loopback, and directories for those that the
examples name. A block with a caption is the file that it names; other blocks of Python are run
one after the other in one process, as somebody does who follows the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.sessions import DOCS, Block, blocks_of, is_same
from tests.support.commandline import PROJECT, CommandLine, Done
from tests.support.glacier_server import GlacierServer
from tests.support.needs import package
from tests.support.profiles import write_config
from tests.support.servers import S3Server

pytestmark = pytest.mark.slow

PAGES = {
    "this version": DOCS / "developer_guide.rst",
    "0.6.0": PROJECT / "tests" / "docs" / "guide_of_060.rst",
}
NOTIFY = DOCS / "how-to" / "notify.rst"


class Follower:
    """Somebody who follows a page, with storages and a home directory of their own."""

    def __init__(self, page: Path, home: Path, s3: S3Server, glacier: GlacierServer) -> None:
        self.page = page
        self.home = home
        self.blocks = blocks_of(page)
        self.directory = home / "thomas"
        self.user = CommandLine(home, self.directory)
        self._s3, self._glacier = s3, glacier
        glacier.access_key = "YOURACCESSKEY"
        for name in ("thomas/mydir", "dir/i/wanto/bak", "bin", ".bakthat_plugins"):
            (home / name).mkdir(parents=True)
        (self.directory / "mydir" / "file").write_text("hello")
        (home / "dir/i/wanto/bak" / "file").write_text("hello")
        self._install_mysqldump()
        for block in self.blocks:
            if block.caption.startswith("~/"):
                (home / block.caption[2:]).write_text(block.text)
        self.configure({})

    def _install_mysqldump(self) -> None:
        """Put a stand-in on the path; the real one has a test of its own."""
        program = self.home / "bin" / "mysqldump"
        program.write_text('#!/bin/sh\necho "-- $*"\n')
        program.chmod(0o755)

    def places(self, text: str) -> str:
        """Put the places in that the page cannot know."""
        endpoints = (
            f"'endpoint_url': '{self._s3.endpoint_url}', "
            f"'glacier_endpoint_url': '{self._glacier.endpoint_url}', 'region_name'"
        )
        return (
            text.replace("'region_name'", endpoints)
            .replace("/dir/i/wanto", str(self.home / "dir/i/wanto"))
            .replace("/home/thomas/.bakthat_plugins", str(self.home / ".bakthat_plugins"))
            .replace("/home/thomas", str(self.directory))
        )

    def configure(self, profile: dict[str, Any]) -> None:
        """Write the configuration of somebody who has run ``bakthat configure``."""
        usual = {
            **self._s3.conf(s3_bucket="yours3bucket"),
            "rotation": {"days": 7, "weeks": 6, "months": 6, "first_week_day": 5},
        }
        config = self.home / ".bakthat.yml"
        write_config(config, default={**usual, **profile})

    def environment(self) -> dict[str, str]:
        return {
            **self.user.environment,
            "PATH": f"{self.home / 'bin'}:{self.user.environment['PATH']}",
            "BAKTHAT_PASSWORD": "from the environment",
        }

    def run_python(self, *blocks: Block) -> Done:
        """Run blocks in one process; the lines of what fails are those of the page."""
        script = self.home / "follow.py"
        pieces = [(self.places(block.text), block.line) for block in blocks]
        script.write_text(
            f"pieces = {pieces!r}\n"
            "from bakthat.pipeline import write\n"
            "write.PASSPHRASE_WORK_FACTOR = 8  # spend no second on each\n"
            "space = {'__name__': '__main__'}\n"
            "for text, line in pieces:\n"
            f"    code = compile('\\n' * (line - 1) + text, {str(self.page)!r}, 'exec')\n"
            "    exec(code, space)\n"
            "if 'mydata_restored' in space:\n"
            "    assert space['mydata_restored'] == space['mydata']\n"
            "    assert space['data_url'].startswith('http')\n"
        )
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=self.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # no terminal
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def bakthat(self, *arguments: str) -> Done:
        return self.user.run(*arguments, env=self.environment())


@pytest.fixture(params=PAGES)
def reader(
    request: pytest.FixtureRequest,
    isolated_environment: Path,
    moto_endpoint: S3Server,
    glacier: GlacierServer,
) -> Follower:
    return Follower(PAGES[request.param], isolated_environment, moto_endpoint, glacier)


def test_the_pages_have_the_examples_that_are_run() -> None:
    for page in PAGES.values():
        text = "\n".join(block.text for block in blocks_of(page))
        for word in (
            'bakthat.restore("bak", conf=bakthat_conf)',
            "events.on_backup += on_backup_callback",
            "class TestPlugin(Plugin)",
            "Backups = MyBackups",
            'with BakHelper("mybackup", tags=["mybackup"]) as bh',
            "bh = BakHelper(conf=bakthat_conf)",
            "sh.mysqldump(",
            'kv.set_key("mykey", mydata)',
        ):
            assert word in text, f"{page}: {word}"


def test_every_script_of_the_page_runs(reader: Follower) -> None:
    reader.configure({"plugins": ["change_model.ChangeModelPlugin"]})
    scripts = [
        block
        for block in reader.blocks
        if block.language == "python" and not block.caption.startswith("~/")
    ]
    done = reader.run_python(*scripts)
    assert done.code == 0, done.stderr
    printed = re.findall(r"^(\S{36}) (before_backup|on_backup <Backup: mydir\.\d{14}\.tgz\.age>)$",
                         done.stdout, re.MULTILINE)  # fmt: skip
    assert len(printed) >= 2
    assert printed[0][0] == printed[1][0]
    assert (reader.directory / "bak" / "file").read_text() == "hello"
    listed = reader.bakthat("show", "--json").lines("backup")
    sets = {each["filename"] for each in listed}
    assert sets == {
        "bak",
        "mydir",
        "mybackup",
        "myfile.txt",
        "myhost_mysql",
        "my_encrypted_key",
        "my_non_compressed_key",
        *(["myhost_mysql.sql"] if reader.page == PAGES["this version"] else []),
    }
    assert os.listdir(reader.directory / "mydir") == ["file"]


def test_every_profile_of_the_page_can_be_used(reader: Follower) -> None:
    profiles = [block for block in reader.blocks if block.language == "yaml"]
    assert len(profiles) >= 4
    for block in profiles:
        reader.configure(yaml.safe_load(reader.places(block.text))["default"])
        done = reader.bakthat("show")
        assert done.code == 0, f"{reader.page}:{block.line}: {done.stderr}"
        assert ("Replace Backups" in done.stderr) == ("change_model" in block.text)
        assert ("hello" in done.stderr) == ("greeting" in block.text or "MyPlugin" in block.text)


def test_every_transcript_of_the_page_is_what_happens(reader: Follower) -> None:
    reader.configure({"plugins": ["test_plugin.TestPlugin"]})
    transcripts = [block for block in reader.blocks if block.language == "console"]
    assert len(transcripts) == ("developer_guide" in reader.page.name)
    for block in transcripts:
        command, *expected = reader.places(block.text).splitlines()
        assert command.startswith("$ bakthat ")
        # Without the password of the other tests: the transcript has its own answer to that.
        done = reader.user.run(*command.split()[2:])
        # A reader's S3 is Amazon's.
        printed = re.sub(r" --endpoint-url \S+", "", done.stderr).splitlines()
        assert len(printed) == len(expected)
        for line, page in zip(printed, expected, strict=True):
            assert is_same(page, line)
        ids = re.findall(r"[0-9a-f-]{36}", done.stderr)
        assert len(ids) == 2
        assert len(set(ids)) == 1


def test_the_model_of_the_monkey_patching_is_what_backup_returns_and_ls_lists(
    reader: Follower,
) -> None:
    reader.configure({"plugins": ["change_model.ChangeModelPlugin"]})
    text = (
        "import bakthat\n"
        "made = bakthat.backup('/home/thomas/mydir')\n"
        "assert made.my_custom_method()\n"
        "assert [each.my_custom_method() for each in bakthat.ls('mydir')].count(True) >= 1\n"
        "print(type(made).__name__)\n"
    )
    done = reader.run_python(Block("python", "", 1, text))
    assert (done.code, done.stdout) == (0, "MyBackups\n"), done.stderr


def test_the_profiles_of_the_page_on_notifications_can_be_used(
    isolated_environment: Path, moto_endpoint: S3Server, glacier: GlacierServer
) -> None:
    reader = Follower(NOTIFY, isolated_environment, moto_endpoint, glacier)
    plugins = set()
    for block in reader.blocks:
        if block.language != "yaml":
            continue
        profile = yaml.safe_load(block.text)["default"]
        plugins.update(profile.get("plugins", ()))
        if "bakthat.notify.Apprise" in plugins:
            package("apprise")
        reader.configure(profile)
        done = reader.bakthat("show")
        assert done.code == 0, f"{NOTIFY}:{block.line}: {done.stderr}"
    assert len(plugins) == 5
