"""The reference and the manual pages say what the code does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bakthat.conf.profile import KEYS
from tests.docs.reference import MANUAL, PAGES, REFERENCE, commands, keys, manual
from tests.docs.sessions import DOCS, Reader, sessions_of
from tests.support.needs import program

AGAIN = "run python -m tests.docs.reference"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text() == PAGES[name](), AGAIN


def test_the_manual_is_up_to_date() -> None:
    written = {page.name: page.read_text() for page in MANUAL.glob("*.1")}
    assert written == manual.pages(), AGAIN


def test_every_command_has_an_example_that_is_one_of_it() -> None:
    for described in commands.commands():
        words = described.example.split()
        assert words[:2] == ["bakthat", described.name] or words[1] in described.aliases


def test_every_key_says_more_on_a_page_that_exists() -> None:
    assert keys.MORE.keys() <= KEYS.keys()
    for page in keys.MORE.values():
        place = REFERENCE / f"{page}.rst" if page[0] != "/" else DOCS / f"{page[1:]}.rst"
        assert place.exists(), page


@pytest.mark.needs("jq")
def test_the_session_with_json_is_what_happens(tmp_path: Path) -> None:
    sessions = sessions_of(REFERENCE / "json.rst")
    assert len(sessions) == 1
    Reader(tmp_path).follow(sessions)


@pytest.mark.needs("man")
def test_man_shows_the_manual_without_a_warning() -> None:
    pages = sorted(MANUAL.glob("*.1"))
    assert len(pages) > 20
    for page in pages:
        done = subprocess.run(
            [program("man"), "--local-file", "--warnings", str(page)],
            capture_output=True,
            text=True,
            env={"LC_ALL": "C.UTF-8", "MANWIDTH": "200", "PATH": "/usr/bin:/bin"},
        )
        assert (done.returncode, done.stderr) == (0, ""), page.name
        assert f"{page.stem} - " in done.stdout
        assert "EXIT STATUS" in done.stdout


@pytest.mark.needs("man")
def test_man_finds_the_manual_beside_the_program(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in an environment: bin/bakthat and share/man/man1/bakthat.1."""
    root = tmp_path_factory.mktemp("environment")
    (root / "bin").mkdir()
    (root / "share" / "man").mkdir(parents=True)
    (root / "share" / "man" / "man1").symlink_to(MANUAL)
    done = subprocess.run(
        [program("man"), "--where", "bakthat", "bakthat-restore"],
        capture_output=True,
        text=True,
        env={"PATH": f"{root / 'bin'}:/usr/bin:/bin"},
    )
    found = [f"{root}/share/man/man1/{name}.1" for name in ("bakthat", "bakthat-restore")]
    assert (done.returncode, done.stdout.split()) == (0, found)
