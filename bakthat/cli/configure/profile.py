"""Write what ``configure`` was told: the files of keys first, then the profile that names them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bakthat import conf
from bakthat.cli.configure.answers import Answers
from bakthat.cli.configure.asking import all_or_nothing
from bakthat.cli.configure.encryption import KeyPair, notes_on
from bakthat.cli.configure.files import NewFile
from bakthat.cli.configure.key_page import KeyPage
from bakthat.cli.configure.options import Options
from bakthat.cli.configure.questions import Questions
from bakthat.errors import ConfigError
from bakthat.system.text import printable


@dataclass(frozen=True, slots=True)
class Configured:
    """A profile that was written."""

    profile: str
    config: Path
    """The configuration file."""
    new_key: KeyPair | None
    notes: tuple[str, ...]
    """What follows for the backups that are there; each is a warning."""
    page: Path | None
    """The file of the page with a private key, which :meth:`write_page` makes."""
    page_key: KeyPair | None

    def write_page(self) -> None:
        """Make the page, if one was wanted. Raises ConfigError."""
        if self.page is None or self.page_key is None:
            return
        try:
            loaded = conf.load_profile(self.profile, config=self.config)
            page = KeyPage(
                self.page_key.identity,
                self.page_key.recipient,
                time.time(),
                self.profile,
                loaded.profile,
            )
            NewFile(self.page, page.html()).write()
        except ConfigError as exc:
            exc.add_note(f"the profile was written; the private key is in {self.page_key.file}")
            raise


def configure(profile: str, config: str | os.PathLike[str] | None, options: Options) -> Configured:
    """Set up a profile by options, or by questions where there are none, and write it.

    A file of a key or a password is on the disk before the profile names it, and stays there when
    the profile cannot be written. Nothing is changed before the last answer. Raises UsageError for
    invalid options and answers, ConfigError, and CryptoError for invalid keys and passwords.
    """
    path = conf.path_with(profile, config)
    current = conf.read_raw_profile(profile, config=config)
    _check_writable(path)
    if options:
        answers = options.answers(current, path)
    else:
        with all_or_nothing():
            answers = Questions(profile, path, current).ask_all()
    _write(answers, profile, config)
    return Configured(
        profile,
        path,
        answers.encryption.new_key,
        tuple(notes_on(current, answers.changes)),
        answers.page,
        answers.page_key,
    )


def _check_writable(path: Path) -> None:
    """Raise ConfigError when the file cannot be made: better now than after the last answer."""
    directory = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(directory):
        raise ConfigError(
            f"there is no directory '{printable(directory)}'",
            hint=f"mkdir -p '{printable(directory)}'",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(
            f"'{printable(directory)}' cannot be written to",
            hint="name a file elsewhere: bakthat configure --config FILE",
        )


def _write(answers: Answers, profile: str, config: str | os.PathLike[str] | None) -> None:
    made: list[NewFile] = []
    try:
        for file in answers.encryption.files:
            file.write()
            made.append(file)
        conf.save_profile(answers.changes, name=profile, config=config)
    except BaseException as exc:  # a signal too
        for file in made:
            exc.add_note(f"'{printable(file.path)}' was made and stays, but no profile names it")
        raise
