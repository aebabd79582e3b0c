"""The page with a private key: whoever has only this paper can restore."""

from __future__ import annotations

import re
import subprocess
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bakthat.cli.configure.key_page import KeyPage
from bakthat.conf import Profile
from bakthat.crypto import age
from tests.support.commandline import CommandLine, stored_names
from tests.support.profiles import write_config

IDENTITY = age.generate_identity()
RECIPIENT = age.recipient_of(IDENTITY)


def page_for(**profile: Any) -> str:
    page = KeyPage(IDENTITY, RECIPIENT, 1370373055, "shop", Profile(**profile))
    return page.html()


class Text(HTMLParser):
    """The text of a page, as it is shown."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self._is_hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_hidden = tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._is_hidden = False

    def handle_data(self, data: str) -> None:
        if not self._is_hidden:
            self.text += data


def commands_on(page: str) -> list[str]:
    return [unescape(each) for each in re.findall("<pre>(.*?)</pre>", page, re.DOTALL)]


def test_the_key_is_in_groups_that_are_copied_as_one_word() -> None:
    page = page_for()
    assert IDENTITY in Text(page).text
    groups = re.findall(r"<span>([^<]*)</span>", page)
    assert groups[0] == "AGE-SECRET-KEY-1"
    assert [len(each) for each in groups[1:]] == [4] * 14 + [2]
    assert "".join(groups) == IDENTITY
    assert not set("BIO1") & set("".join(groups[1:]))  # as the page says


def test_the_page_says_whose_key_it_is() -> None:
    text = Text(page_for(s3_bucket="my-backups", region_name="eu-west-1")).text
    for fact in (RECIPIENT, "bucket my-backups of Amazon S3, region eu-west-1", "shop"):
        assert fact in text
    assert "2013-06-04 19:10 UTC" in text


def test_the_page_loads_nothing() -> None:
    page = page_for()
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=|url\(|<script", page.replace("default-src", ""))


def test_what_a_profile_holds_cannot_change_the_page() -> None:
    page = page_for(
        s3_bucket="b",
        endpoint_url="http://some-user:some-password@host:1/<script>",
        prefix="a&b <i>/{host}/",
    )
    assert "<script" not in page
    assert "<i>" not in page
    assert "some-user" not in page
    assert "some-password" not in page
    assert commands_on(page)[1] == (
        "aws s3 ls 's3://b/a&b <i>/HOST/' --region us-east-1 \\\n"
        "    --endpoint-url 'http://host:1/<script>'"
    )
    strange = KeyPage(IDENTITY, RECIPIENT, 0, "a\x1b<b>\n{0}", Profile()).html()
    assert "a\\x1b&lt;b&gt;\\n{0}" in strange


def test_the_code_is_the_key_and_the_page_works_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segno = pytest.importorskip("segno")
    with_code = page_for()
    made = segno.make_qr(IDENTITY, error="m").svg_inline(scale=4, border=2, title="The private key")
    assert made in with_code
    monkeypatch.setitem(__import__("sys").modules, "segno", None)  # as where it is not installed
    assert page_for() == with_code.replace(made, "")


def test_the_commands_for_a_vault_are_those_of_its_jobs() -> None:
    page = page_for(
        default_destination="glacier", glacier_vault="my-vault", region_name="eu-west-1"
    )
    listing, fetching = commands_on(page)[1:3]
    where = "--account-id - --vault-name my-vault --region eu-west-1"
    assert listing.splitlines()[0] == f"aws glacier initiate-job {where} \\"
    assert '{"Type": "archive-retrieval", "ArchiveId": "ID"}' in fetching
    assert fetching.endswith("--job-id JOB NAME.tgz.age")


@pytest.mark.needs("age", "age-keygen", "tar")
@pytest.mark.parametrize(
    ("changes", "prefix", "suffix"),
    [
        ({}, "", "tgz"),
        ({"compress": False}, "", "tar"),
        ({"compress": 0}, "sets/", "tar"),
        ({"compress": 9}, "sets/web ", "tgz"),
    ],
)
def test_the_paper_alone_restores_a_backup(
    user: CommandLine, tmp_path: Path, changes: dict[str, Any], prefix: str, suffix: str
) -> None:
    write_config(
        user.home / ".bakthat.yml",
        default={"default_destination": "local", "prefix": prefix, **changes},
    )
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    words = ["--local-path", "my store", "--new-key", "key", "--key-page", "page.html"]
    assert user.run("configure", *words, "--no-proof").code == 0
    (name,) = stored_names(user.run("backup", "mydir").stderr.splitlines()[-2])
    paper = (user.directory / "page.html").read_text()
    (user.directory / "key").unlink()

    key = "".join(re.findall(r"<span>([^<]*)</span>", paper))
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "key.txt").write_text(f"{key}\n")
    _, listing, *restoring = commands_on(paper)
    name = name.removeprefix(prefix)
    assert name.endswith(f".{suffix}.age")
    typed = [each.replace("NAME", name.removesuffix(f".{suffix}.age")) for each in restoring]
    done = subprocess.run(
        ["bash", "-ec", "\n".join([listing, *typed, "age-keygen -y key.txt"])],
        cwd=desk,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert any(line.endswith(name) for line in lines)
    assert lines[-1] in Text(paper).text  # the public key
    assert (desk / "mydir" / "file").read_text() == "hello"


def test_the_date_is_that_of_the_page(user: CommandLine) -> None:
    before = time.time()
    words = ["--new-key", "key", "--key-page", "page.html", "--no-proof"]
    assert user.run("configure", *words).code == 0
    shown = re.search(
        r"(\d{4}-\d\d-\d\d \d\d:\d\d) UTC", (user.directory / "page.html").read_text()
    )
    assert shown is not None
    limits = [
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) for seconds in (before, time.time())
    ]
    assert limits[0] <= shown[1] <= limits[1]
