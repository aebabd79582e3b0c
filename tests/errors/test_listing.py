"""Every error of the code is listed, with the test that causes it, and reads well."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator

import bakthat
from bakthat.cli.app import described_commands, program_parser
from bakthat.conf import Profile
from bakthat.helper import KeyValue
from tests.errors.listing import MISSING, NO_HINT, Entry, functions_in, listed, made, updated
from tests.errors.places import error_classes

importlib.import_module("bakthat.cli.run")  # it registers the commands

WRITE = "run python -m tests.errors --write TEST…, with the files of the tests that cause them"

KEYS = {field.name for field in dataclasses.fields(Profile)}
PYTHON = {
    "my_module",
    *vars(KeyValue),
    *(
        name
        for function in (getattr(bakthat, each) for each in bakthat.__all__)
        if inspect.isfunction(function)
        for name in inspect.signature(function).parameters
    ),
}
"""What hints name for callers in Python."""

OTHERS = {"pg_dump", "pg_isready", "max_locks_per_transaction", "shop_copy", "ssl_ca"}
"""What hints name of other programs, and examples."""

SUBJECTS = {"Apprise", "BAKTHAT_PASSWORD", "TLS", "OpenSSL"}
"""Words in upper case that a message may begin with."""

BELOW_NAMES = tuple(
    f"bakthat/{name}" for name in ("archive/", "crypto/", "format/", "pipeline/", "passwords.py")
)
"""Packages that read an object without its name, which bakthat.pipeline.read.naming adds."""

IMPERATIVES = set(
    re.findall(
        r"\w+",
        """
        add align allow back begin change check choose close connect create decrypt delete enable
        end fetch free give increase indent inspect install keep leave let log look make mount move
        name pass press put raise remount remove request restore rotate run save set shorten
        transfer try type unset upgrade use wait write
        """,
    )
)
"""How a hint that says what to do begins."""
TYPED = re.compile(
    r"\bbakthat [a-z_<]+|--[a-z-]+|\b[A-Z]{2,}_?[A-Z_]+\b|\b[a-z]+_[a-z_]+"
    r"|\b(apt|ulimit|age-keygen|lsattr|chattr|chmod|mkdir|pip|aws|tar|did you mean)\b"
)
"""What can be typed: a command, an option, a variable of the environment, a key of the profile."""


def check(problem_of: Callable[[Entry], str]) -> None:
    """Fail with all entries of which *problem_of* says something."""
    found = [
        f"{entry.module}: {entry.message}\n    {problem}"
        for entry in listed()
        if (problem := problem_of(entry))
    ]
    assert not found, "\n".join(["", *found])


def test_each_error_of_the_code_is_listed() -> None:
    wanted, found = updated(listed(), made()), listed()
    missing = [entry for entry in wanted if entry not in found]
    assert missing == [], WRITE
    gone = [entry.identity for entry in found if entry not in wanted]
    assert gone == [], WRITE
    assert len(found) > 400


def test_each_error_has_a_test_that_causes_it() -> None:
    def problem(entry: Entry) -> str:
        if entry.test == MISSING:
            return f"no test causes it; {WRITE}"
        path, _, name = entry.test.partition("::")
        return "" if name.rpartition("::")[2] in functions_in(path) else f"there is no {entry.test}"

    check(problem)


def test_an_error_without_a_hint_says_why() -> None:
    def problem(entry: Entry) -> str:
        return "" if entry.hints or entry.no_hint in NO_HINT else f"one of {', '.join(NO_HINT)}?"

    check(problem)


def test_a_message_is_one_line_in_lower_case_without_a_full_stop() -> None:
    def problem(entry: Entry) -> str:
        text = entry.message
        if text[:1].isupper() and text.split()[0] not in SUBJECTS:
            return "it begins in upper case"
        if re.search(r"\w[.!?]$", text) or "\n" in text or "  " in text or text != text.strip():
            return "it is no sentence without its end, on one line"
        return ""

    check(problem)


def test_a_message_has_no_words_of_the_code() -> None:
    words = "|".join([*error_classes(), "None", "True", "False", "dict", "NoneType", "exception"])
    code = re.compile(rf"\b({words})\b")

    def problem(entry: Entry) -> str:
        found = code.search(entry.message)
        return found[0] if found else ""

    check(problem)


def test_a_message_says_why_something_is_wrong() -> None:
    def problem(entry: Entry) -> str:
        has_reason = re.search(r"(invalid|not valid|malformed).*[:,]", entry.message)
        is_vague = re.search(r"\b(invalid|not valid|malformed)\b", entry.message)
        return "it says only that it is wrong" if is_vague and not has_reason else ""

    check(problem)


def test_a_message_names_what_it_is_about() -> None:
    named = re.compile(r"[<'\"]|--|\b[a-z]+_[a-z]+|\b[A-Z]{2,}\w|\bthe (password|answer)\b")
    missing = re.compile(r"\b(no|empty|neither|ended|differ|nothing|needed|needs)\b")

    def problem(entry: Entry) -> str:
        is_named_later = entry.is_part or entry.no_hint or entry.module.startswith(BELOW_NAMES)
        if named.search(entry.message) or missing.search(entry.message) or is_named_later:
            return ""
        return "which one?"

    check(problem)


def test_a_hint_says_what_to_do() -> None:
    def problem(entry: Entry) -> str:
        for hint in entry.hints:
            if hint.endswith((".", "!")) or (hint[:1].isupper() and not TYPED.match(hint)):
                return f"{hint}: it begins in upper case, or ends as a sentence"
            if hint.endswith("?") and not hint.startswith("did you mean"):
                return f"{hint}: a question"
            begins = {re.split(r"[^\w-]", clause)[0] for clause in re.split(r"[:;,] ", hint)}
            if not (begins & (IMPERATIVES | {""}) or TYPED.search(hint)):
                return f"{hint}: nothing to do or to type"
        return ""

    check(problem)


def options() -> Iterator[str]:
    parsers = [program_parser(), *(each.parser for each in described_commands())]
    for parser in parsers:
        for action in parser._actions:
            yield from action.option_strings


def test_a_hint_names_options_and_keys_that_exist() -> None:
    known = set(options())

    def problem(entry: Entry) -> str:
        for hint in entry.hints:
            typed = re.sub(r"(aws|pip|tar|age\S*|chattr|sh) [^;,]*", "", hint)
            unknown = [word for word in re.findall(r"--[a-z][a-z-]+", typed) if word not in known]
            keys = re.findall(r"(?<![\w.<-])[a-z]+(?:_[a-z]+)+(?![\w(>])", typed)
            commands = {each.name for each in described_commands()}
            unknown += [word for word in keys if word not in KEYS | PYTHON | OTHERS | commands]
            if unknown:
                return f"{hint}: there is no {', '.join(unknown)}"
        return ""

    check(problem)


def test_an_entry_keeps_its_test_when_its_message_is_changed() -> None:
    old = Entry("bakthat/a.py", "f", "UsageError", "a text", test="tests/a.py::test_a")
    other = Entry("bakthat/a.py", "f", "UsageError", "other", test="tests/a.py::test_b")
    changed = dataclasses.replace(old, message="a better text", test=MISSING)
    added = dataclasses.replace(old, function="g", test=MISSING)
    found = updated([old, other], [other, changed, added])
    assert [entry.test for entry in found] == [other.test, old.test, MISSING]
