"""What a change of the configuration file keeps: all that it does not change."""

from __future__ import annotations

import codecs
import difflib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bakthat.conf import load_profile, read_raw_profile, save_profile
from bakthat.errors import ConfigError

pytestmark = pytest.mark.permissions

FILE = """\
# The backups of this machine.
---
default:              # the usual one
    s3_bucket:   my-bucket    # aligned
    region_name: "eu-west-1"

    recipients:
    - age1x   # laptop
    - age1y
    # the key of that is in the safe
    timeout: 1_000
    compress: yes
    always_read: [ "*.db",
       "*.sqlite" ]   # these
    rotation: { days: 7, weeks: 4 }
    prefix: 'it''s {host}'
    attempts:
    # the last comment of default

# The shop.
work:
  plugin_settings: &shared   # for both
    day: 2001-12-14t21:59:43.10-05:00
    octal: 0640
    ratio: 1:20
  local_path: "a\\u00e4b"
  plugins:
      - a.B
other: {s3_bucket: x, healthchecks: {url: "https://hc.example/"}}
third:
  <<: {plugin_settings: *shared}
  password: ""
# end
"""


def changed_lines(before: str, after: str) -> list[str]:
    """Return the lines that differ, those removed after "-", those added after "+"."""
    compared = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[0] + line[2:] for line in compared if line[0] in "+-"]


@pytest.fixture
def config(isolated_environment: Path) -> Path:
    path = isolated_environment / ".bakthat.yml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("profile", "changes", "lines"),
    [
        ("default", {}, []),
        ("default", {"s3_bucket": "my-bucket", "compress": True, "glacier_vault": None}, []),
        (
            "default",
            {"s3_bucket": "new"},
            [
                "-    s3_bucket:   my-bucket    # aligned",
                "+    s3_bucket:   new    # aligned",
            ],
        ),
        ("default", {"s3_bucket": None}, ["-    s3_bucket:   my-bucket    # aligned"]),
        ("default", {"attempts": 4}, ["-    attempts:", "+    attempts: 4"]),
        ("default", {"glacier_vault": "v"}, ["+    glacier_vault: v"]),
        ("default", {"recipients": ["age1x"]}, ["-    - age1y"]),
        (
            "default",
            {"recipients": ["age1y", "age1z"]},
            ["-    - age1x   # laptop", "+    - age1z"],
        ),
        (
            "default",
            {"recipients": ["age1z"]},
            ["-    - age1x   # laptop", "-    - age1y", "+    - age1z"],
        ),
        (
            "default",
            {"recipients": None},
            ["-    recipients:", "-    - age1x   # laptop", "-    - age1y"],
        ),
        (
            "default",
            {"always_read": ["a, b"]},
            [
                "+    always_read: ['a, b']   # these",
                '-    always_read: [ "*.db",',
                '-       "*.sqlite" ]   # these',
            ],
        ),
        (
            "default",
            {"rotation": {"days": 7, "weeks": 5, "months": 6}},
            [
                "-    rotation: { days: 7, weeks: 4 }",
                "+    rotation: { days: 7, weeks: 5, months: 6 }",
            ],
        ),
        (
            "default",
            {"rotation": {"weeks": 4}},
            ["-    rotation: { days: 7, weeks: 4 }", "+    rotation: { weeks: 4 }"],
        ),
        ("work", {"local_path": "/new"}, ['-  local_path: "a\\u00e4b"', "+  local_path: /new"]),
        (
            "work",
            {"plugin_settings": {"octal": "0640", "ratio": 81}, "plugins": ["a.B", "c.D"]},
            [
                "-    day: 2001-12-14t21:59:43.10-05:00",
                "-    octal: 0640",
                "+    octal: '0640'",
                "-    ratio: 1:20",
                "+    ratio: 81",
                "+      - c.D",
            ],
        ),
        (
            "other",
            {"healthchecks": None, "prefix": "a:b"},
            [
                '-other: {s3_bucket: x, healthchecks: {url: "https://hc.example/"}}',
                "+other: {s3_bucket: x, prefix: 'a:b'}",
            ],
        ),
        ("third", {"password": "no"}, ['-  password: ""', "+  password: 'no'"]),
        ("third", {"plugin_settings": None}, ["+  plugin_settings: null"]),
        ("third", {"incremental": True}, ["+  incremental: true"]),
        ("yes", {"prefix": "1:20"}, ["+'yes':", "+  prefix: '1:20'"]),
    ],
)
def test_only_the_lines_of_what_changes_differ(
    config: Path, profile: str, changes: dict[str, Any], lines: list[str]
) -> None:
    if profile == "work" and "plugin_settings" in changes:  # without the profile that shares them
        config.write_text(FILE[: FILE.index("third:")])
    before = config.read_text()
    wanted = {**read_raw_profile(profile), **changes}
    save_profile(changes, name=profile)
    assert changed_lines(before, config.read_text()) == lines
    saved = {key: value for key, value in read_raw_profile(profile).items() if value is not None}
    assert saved == {key: value for key, value in wanted.items() if value is not None}


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("", {"prefix": "a"}, "default:\n  prefix: a\n"),
        ("# mine", {"prefix": "a"}, "# mine\ndefault:\n  prefix: a\n"),
        ("# mine\n\n", {"prefix": "a"}, "# mine\n\ndefault:\n  prefix: a\n"),
        ("---\n", {"prefix": "a"}, "---\ndefault:\n  prefix: a\n"),
        ("default:", {"prefix": "a"}, "default:\n  prefix: a"),
        ("default: # x\nb: {}\n", {"prefix": "a"}, "default: # x\n  prefix: a\nb: {}\n"),
        ("default: ~\n", {"prefix": "a"}, "default:\n  prefix: a\n"),
        ("default: {}\n", {"prefix": "a"}, "default:\n  prefix: a\n"),
        ("{}\n", {"prefix": "a"}, "{default: {prefix: a}}\n"),
        ("{a: {},}\n", {"prefix": "b"}, "{a: {}, default: {prefix: b},}\n"),
        ("{default: }\n", {"prefix": "b"}, "{default: {prefix: b} }\n"),
        ("a:\n  prefix: b", {"prefix": "c"}, "a:\n  prefix: b\ndefault:\n  prefix: c\n"),
        (
            "  a:\n    prefix: b\n",
            {"prefix": "c"},
            "  a:\n    prefix: b\n  default:\n    prefix: c\n",
        ),
        ("a: {}\n...\n", {"prefix": "c"}, "a: {}\ndefault:\n  prefix: c\n...\n"),
        ("default:\n  prefix: a", {"host": "b"}, "default:\n  prefix: a\n  host: b"),
        ("default:\n  prefix: a", {"prefix": None}, "default:\n"),
        ("default:\n  prefix: a\n", {"prefix": None, "host": "b"}, "default:\n  host: b\n"),
        (
            "a: &a\n  prefix: b\ndefault: *a  # the same\n",
            {"host": "c"},
            "a: &a\n  prefix: b\ndefault:  # the same\n  <<: *a\n  host: c\n",
        ),
        (
            "default:\n  password: |\n    secret\n\n# end\n",
            {"host": "b"},
            "default:\n  password: |\n    secret\n\n  host: b\n# end\n",
        ),
        (
            "default:\n  password: |\n    secret\n  # the host\n  host: a\n",
            {"password": "b"},
            "default:\n  password: b\n  # the host\n  host: a\n",
        ),
        (
            "default:\n  recipients: # two\n    # of them\n    - a\n    - b\n  host: c\n",
            {"recipients": "d"},
            "default:\n  recipients: d # two\n    # of them\n  host: c\n",
        ),
        (
            "default:\n  recipients: # two\n  - a\n",
            {"recipients": ["c", "d"]},
            "default:\n  recipients: # two\n  - c\n  - d\n",
        ),
        (
            "default: {prefix: a, # one\n  host: b # two\n  }\n",
            {"host": "c", "detect": "hash"},
            "default: {prefix: a, # one\n  host: c, detect: hash # two\n  }\n",
        ),
        (
            "default: {prefix: a, host: b, detect: hash,}\n",
            {"host": None, "detect": None, "recheck": 1},
            "default: {prefix: a, recheck: 1}\n",
        ),
        ("default: {prefix: a}\n", {"prefix": None}, "default: {}\n"),
        (
            "default: {rotation: {days: 7}}\n",
            {"rotation": {"weeks": 4, "months": 2}},
            "default: {rotation: {weeks: 4, months: 2}}\n",
        ),
        ("default: {prefix: a}\n", {"prefix": None, "host": "b"}, "default: {host: b}\n"),
        (
            "default:\n  rotation:\n    days: 7  # a week\n    weeks: 4\n",
            {"rotation": {"days": 8, "months": 2}},
            "default:\n  rotation:\n    days: 8  # a week\n    months: 2\n",
        ),
        (
            "default:\n  rotation:\n    days: 7\n  host: a\n",
            {"rotation": {}},
            "default:\n  rotation: {}\n  host: a\n",
        ),
        (
            "default:\n  ? prefix\n  : a\n  host: b\n",
            {"prefix": None},
            "default:\n  host: b\n",
        ),
        (
            "default:\n  ? prefix\n  : a\n",
            {"prefix": "b", "host": "c"},
            "default:\n  ? prefix\n  : b\n  host: c\n",
        ),
        (
            "default: &d\n  s3_bucket: a  # bucket\n",
            {"prefix": "b"},
            "default: &d\n  s3_bucket: a  # bucket\n  prefix: b\n",
        ),
        (
            "--- &all\na: {}\n",
            {"prefix": "b"},
            "--- &all\na: {}\ndefault:\n  prefix: b\n",
        ),
        (
            "default:\n  rotation: &r  # the rule\n    days: 7  # a week\n",
            {"rotation": {"days": 7, "weeks": 4}},
            "default:\n  rotation: &r  # the rule\n    days: 7  # a week\n    weeks: 4\n",
        ),
        (
            "default:\n  recipients: &r  # the keys\n  # mine\n  - a  # me\n  - b\n",
            {"recipients": ["a", "c"]},
            "default:\n  recipients: &r  # the keys\n  # mine\n  - a  # me\n  - c\n",
        ),
    ],
)
def test_every_shape_of_a_file_is_changed_in_place(
    config: Path, text: str, changes: dict[str, Any], expected: str
) -> None:
    config.write_text(text)
    save_profile(changes)
    assert config.read_text() == expected
    dos = text.replace("\n", "\r\n")
    config.write_bytes(dos.encode())
    save_profile(changes)
    ends = "\r\n" if "\n" in text else "\n"
    assert config.read_bytes() == expected.replace("\n", ends).encode()


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("a:\n  recipients: &keys [x]\ndefault:\n  recipients: *keys\n", {"recipients": ["y"]}),
        ("default: {prefix: a, # one\n  host: b}\n", {"host": None}),
        ("default: &a\nb: *a\n", {"prefix": "x"}),
        ("default:\n  recipients: [a, # me\n    b]\n", {"recipients": ["a"]}),
        ("default:\n  recipients:\n    [a, # me\n    b]\n", {"recipients": ["a"]}),
        ("default: {recipients: [a, # me\n  b]}\n", {"recipients": ["a"]}),
        ("default:\n  recipients: &r  # the keys\n  - a\n", {"recipients": ["b"]}),
    ],
)
def test_a_change_that_would_change_more_is_refused(
    config: Path, text: str, changes: dict[str, Any]
) -> None:
    name = "a" if text.startswith("a:") else "default"
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        save_profile(changes, name=name)
    assert f"{config}: profile '{name}': " in str(caught.value)
    assert "by hand" in caught.value.hint
    assert config.read_text() == text


def test_a_key_of_encryption_that_was_merged_is_not_removed(config: Path) -> None:
    text = "a: &a\n  password: x\ndefault:\n  <<: *a\n  prefix: b\n"
    config.write_text(text)
    with pytest.raises(ConfigError, match="'password' comes from a mapping that is merged"):
        save_profile({"password": None})
    assert config.read_text() == text
    save_profile({"password": ""})
    assert load_profile().profile.password == ""


def test_a_key_of_encryption_is_not_saved_without_a_value(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"default': 'recipients' has no value"):
        save_profile({"recipients": []})
    assert config.read_text() == FILE


@pytest.mark.parametrize(
    ("line", "message"), [("password:", "'password' has no value"), ("pasword:", "unknown key")]
)
def test_what_is_saved_can_be_loaded(config: Path, line: str, message: str) -> None:
    config.write_text(f"default:\n  {line}\n")
    with pytest.raises(ConfigError) as caught:
        save_profile({"prefix": "a"})
    assert f"{config}:2: profile 'default': " in str(caught.value)
    assert message in str(caught.value)
    save_profile({"prefix": "a", line.rstrip(":"): None})
    assert load_profile().profile.prefix == "a"


def test_a_wrong_value_is_named_without_a_line_that_the_file_does_not_have(config: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        save_profile({"timeout": 0})
    assert str(caught.value).startswith(f"{config}: profile 'default': 'timeout' must be more")
    config.write_text("default:\n  timeout: 0\n")
    with pytest.raises(ConfigError) as caught:
        save_profile({"prefix": "a"})
    assert str(caught.value).startswith(f"{config}:2: profile 'default': 'timeout' must be more")


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_the_encoding_of_the_file_is_kept(config: Path, mark: bytes, encoding: str) -> None:
    config.write_bytes(mark + "default:\n  prefix: é\n".encode(encoding))
    save_profile({"host": "ü"})
    assert config.read_bytes() == mark + "default:\n  prefix: é\n  host: ü\n".encode(encoding)
    assert load_profile().profile.host == "ü"


def test_a_value_that_yaml_does_not_have_is_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be changed automatically"):
        save_profile({"plugin_settings": {"path": Path("/a")}})
    assert config.read_text() == FILE


@pytest.mark.parametrize("name", ["a\nb", "\x1b[1m", "\udcff", "\u202ea"])
def test_a_name_that_cannot_be_shown_is_refused(config: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a profile cannot have the name") as caught:
        save_profile({"prefix": "a"}, name=name)
    assert str(caught.value).isprintable()
    assert config.read_text() == FILE


def test_a_repeated_key_is_refused(config: Path) -> None:
    config.write_text("default:\n  prefix: a\n  prefix: b\n")
    with pytest.raises(ConfigError, match=r":3: a key that occurs twice"):
        save_profile({"host": "b"})


def test_a_change_that_another_profile_would_get_too_is_refused(config: Path) -> None:
    text = "default: &mine\n  prefix: a\nother: *mine\n"
    config.write_text(text)
    with pytest.raises(ConfigError, match="other profiles would change with it") as caught:
        save_profile({"prefix": "b"})
    assert "by hand" in caught.value.hint
    assert config.read_text() == text


def test_a_profile_that_is_no_mapping_is_not_replaced(config: Path) -> None:
    config.write_text("default: [a]\n")
    with pytest.raises(ConfigError, match="must hold keys, not a list"):
        save_profile({"host": "b"})
    assert config.read_text() == "default: [a]\n"


def test_the_target_of_a_link_is_replaced_as_a_whole_and_private(
    config: Path, tmp_path: Path
) -> None:
    target = tmp_path / "dotfiles.yml"
    config.rename(target)
    config.symlink_to(target)
    target.chmod(0o644)
    inode = target.stat().st_ino
    with target.open() as reader:  # such as a backup that begins now
        save_profile({"host": "b"})
        assert reader.read() == FILE
    assert config.is_symlink()
    assert target.stat().st_ino != inode
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [target.name]


# Any file, and any change.

WORDS = st.sampled_from(
    [
        *(
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "true",
            "null",
            "~",
            "Null",
            "1:20",
            "0640",
            "0o17",
            "1e3",
        ),
        *("1.0", ".5", ".inf", ".nan", "+1", "-", "- a", "?", "? a", ":", "a: b", "a #b", "#a"),
        *("2001-12-14", "2001-12-14t21:59:43.10-05:00", "0x1F", "1_000", "0b1", "=", "<<", "%a"),
        *("@a", "`a", "!a", "&a", "*a", "|", ">", "{a", "[a]", "a, b", "'", '"', "it's", "\\"),
        *(
            " a",
            "a ",
            "a\nb",
            "a\n\n b\n",
            "\ta",
            "é",
            "日本",
            "\U0001f511",
            "\x85",
            "\u2028",
            "\ufeff",
        ),
        *(
            "---",
            "...",
            "--- a",
            "a:",
            ":a",
            "http://h:1/",
            "{host}/",
            "a\\n",
            "\x7f",
            "\r",
            "a\r\n",
        ),
    ]
)
TEXTS = WORDS | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
LISTS = st.lists(TEXTS, min_size=1, max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "password": TEXTS,
    "password_command": TEXTS | LISTS,
    "recipients": TEXTS | LISTS,
    "always_read": LISTS,
    "incremental": st.booleans(),
    "recheck": st.integers(0, 100),
    "timeout": st.floats(0.1, 1000) | st.integers(1, 1000),
    "rotation": st.dictionaries(st.sampled_from(["days", "weeks"]), st.integers(0, 9)),
    "plugin_settings": st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=2), max_size=3),
}
COMMENTS = st.sampled_from(["", "", "# a comment", "#", "# key: 'x", "# é: {[&*!"])
NAMES = ("default", "work", "yes", "0640")


def test_processes_that_save_at_once_lose_no_profile(config: Path) -> None:
    script = (
        "import sys; from bakthat.conf import save_profile; sys.stdin.read();"
        "[save_profile({'s3_bucket': 'a'}, name=f'{sys.argv[2]}-{each}', config=sys.argv[1])"
        " for each in range(5)]"
    )
    before = sorted(config.parent.iterdir())
    begin, end = os.pipe()
    processes = [
        subprocess.Popen([sys.executable, "-c", script, config, f"p{number}"], stdin=begin)
        for number in range(4)
    ]
    os.close(begin)
    os.close(end)  # all of them begin

    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]
    for number in range(4):
        for each in range(5):
            assert read_raw_profile(f"p{number}-{each}", config=config) == {"s3_bucket": "a"}
    assert sorted(config.parent.iterdir()) == before


class Line(NamedTuple):
    """A line of a file, and the profile and the key that it belongs to."""

    text: str
    profile: str = ""
    key: str = ""


@st.composite
def entries(draw: st.DrawFn, profile: str, indent: str) -> list[Line]:
    """Write some keys of a profile, each in one of several styles."""
    found = []
    for key in draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=4)):
        value = draw(VALUES[key])
        as_block = draw(st.booleans())
        quote = draw(st.sampled_from([None, '"', "'"])) if isinstance(value, str) else None
        text = yaml.safe_dump(
            {key: value} if as_block else value,
            default_flow_style=not as_block,
            default_style=None if as_block else quote,
            allow_unicode=draw(st.booleans()),
            width=draw(st.sampled_from([20, 1000])),
        )
        if not as_block:
            text = f"{key}: {text.removesuffix('...' + chr(10))}"
        comment = draw(COMMENTS)
        if comment:
            found.append(Line(indent + comment))
        found += [Line(indent + line, profile, key) for line in text.splitlines()]
        if "\n" not in text[:-1] and draw(st.booleans()):
            found[-1] = Line(f"{found[-1].text}   # beside", profile, key)
    return found


@st.composite
def files(draw: st.DrawFn) -> list[Line]:
    """Write a file with some profiles, comments and blank lines."""
    found = [Line("# The head."), Line("---")] if draw(st.booleans()) else []
    for profile in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3)):
        found += [Line(comment) for comment in draw(st.lists(COMMENTS, max_size=2))]
        found.append(Line(f"{profile}:", profile))
        found += draw(entries(profile, " " * draw(st.integers(1, 5))))
    return [*found, *(Line(comment) for comment in draw(st.lists(COMMENTS, max_size=2)))]


CHANGES = st.fixed_dictionaries(
    {}, optional={key: st.none() | value for key, value in VALUES.items()}
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=files(),
    name=st.sampled_from(NAMES),
    changes=CHANGES,
    newline=st.sampled_from(["\n", "\r\n"]),
    ends=st.booleans(),
)
@example([], "default", {"password": "yes"}, "\n", True)
@pytest.mark.slow
def test_whatever_is_changed_the_rest_stays(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[Line],
    name: str,
    changes: dict[str, Any],
    newline: str,
    ends: bool,
) -> None:
    path = tmp_path_factory.mktemp("any") / "bakthat.yml"
    text = newline.join(line.text for line in lines) + (newline if ends and lines else "")
    path.write_bytes(text.encode())
    path.chmod(0o600)
    names = {line.profile for line in lines} - {""}
    before = {each: read_raw_profile(each, config=path) for each in names}
    wanted = {**before.get(name, {}), **changes}
    wanted = {key: value for key, value in wanted.items() if value is not None}

    save_profile(changes, name=name, config=path)

    assert dumped(read_raw_profile(name, config=path)) == dumped(wanted)
    assert load_profile(name, config=path).profile is not None
    for other in names - {name}:
        assert dumped(read_raw_profile(other, config=path)) == dumped(before[other])
    after = path.read_bytes().decode()
    assert "\n" not in after.replace("\r\n", "") or "\r" not in text
    kept = [
        line.text
        for line in lines
        if line.profile != name
        or dumped(wanted.get(line.key)) == dumped(before[name].get(line.key))
    ]
    rest = iter(after.split(newline if newline in text else "\n"))
    assert all(line in rest for line in kept), after
    for line in lines:
        if line.profile == name and "# beside" in line.text and line.key in wanted:
            assert "# beside" in after


def dumped(value: object) -> str:
    return yaml.safe_dump(value)
