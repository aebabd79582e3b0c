"""The page of a report: valid HTML of one file, whatever the names in it are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.operations.report.facts import Report
from bakthat.operations.report.page import page
from bakthat.operations.report.style import style_sheet
from bakthat.system import text
from tests.support.filled_catalog import DAY, NOW, FilledCatalog, using_catalog

VOID = {"meta", "br"}
MAY_STAY_OPEN = {"td": {"tr", "thead", "tbody"}, "th": {"tr", "thead"}, "tr": {"thead", "tbody"}}
"""Elements without an end, and the elements whose end or beginning ends them."""
HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style><script>",
    "</title></svg>&lt;b&gt;&amp;",
    "\u202egpj.exe\u2066",
    "a\x00b\x1b[31m",
    "\udcff",
    "x" * 900,
]


class Outline(HTMLParser):
    """Reads a page strictly: each element is closed by its own end, and none is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        while self.open and self.open[-1] in MAY_STAY_OPEN and tag in ("td", "th", "tr", "tbody"):
            if tag in ("td", "th") and self.open[-1] == "tr":
                break
            self.open.pop()
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element of SVG without content."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        while self.open[-1] != tag:
            assert tag in MAY_STAY_OPEN.get(self.open[-1], ()), (tag, self.open)
            self.open.pop()
        self.open.pop()

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text.append(data)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledCatalog]:
    made = FilledCatalog(tmp_path / "catalog.sqlite", rotation={"days": 7})
    with using_catalog(made):
        yield made


def outline_of(content: str) -> Outline:
    outline = Outline()
    outline.feed(content)
    outline.close()
    assert outline.open == []
    return outline


def written(report: Report) -> str:
    content = "".join(page(report))
    content.encode()  # no surrogates
    return content


def fill(filled: FilledCatalog, name: str = "my", **facts: Any) -> None:
    metadata = {
        "client": facts.pop("host", "box"),
        "source_id": "named",
        "files": 3,
        "bytes": 10_000,
        "seconds": 61.5,
        **facts,
    }
    for number in range(1, 40):
        if number in (5, 6):
            continue
        more: dict[str, Any] = {}
        if number == 9:
            more = {"warning_count": 1, "warnings": [f"cannot read {name}"]}
        if number == 12:
            more = {"check": {"date": NOW - 12 * DAY, "verdict": "damaged", "detail": name}}
        if number == 15:
            more = {"drill": {"date": NOW - 14 * DAY, "passed": False, "problem": name}}
        filled.add(
            NOW - number * DAY,
            name,
            stored=f"{name}.{number}.tgz",
            metadata={**metadata, **more},
            size=1000,
        )
    bakthat.delete(f"{name}.30.tgz", conf=filled.conf)


def report_of(filled: FilledCatalog, **options: Any) -> Report:
    return bakthat.report(conf=filled.conf, max_age="26h", **options)


def test_the_page_is_one_file_without_scripts(filled: FilledCatalog) -> None:
    fill(filled)
    content = written(report_of(filled))
    outline = outline_of(content)
    assert content.startswith("<!DOCTYPE html>\n")
    assert set(outline.tags).isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    names = {name for _, name, _ in outline.attributes}
    assert not any(name.startswith("on") for name in names)
    assert not names & {"src", "action", "xlink:href"}
    links = {value for _, name, value in outline.attributes if name == "href"}
    ids = {value for _, name, value in outline.attributes if name == "id"}
    assert {each.removeprefix("#") for each in links} <= ids
    assert not re.search(r"url\(|@import|https?:", content)
    assert "default-src 'none'" in content


def test_the_page_has_what_an_auditor_asks_for(filled: FilledCatalog) -> None:
    fill(filled)
    content = written(report_of(filled, since="35D"))
    shown = " ".join(outline_of(content).text)
    for each in (
        "2026-11-11 12:00:00 to 2026-12-16 12:00:00",
        f"by bakthat {bakthat.__version__} on box",
        str(filled.path),
        "keeps 7 daily; when somebody runs it",
        "1 gap longer than a backup may be old",
        "2026-12-09 12:00:00",
        "3 days",
        "by name",
        "cannot read my",
        "\u2717 damaged",
        "\u2717 failed",
        "1.0 KB",
        "10.0 KB",
        "1 min 2 s",
        "s3 bucket",
    ):
        assert each in shown, each
    assert shown.count("my.36.tgz") == 0
    assert shown.count("my.34.tgz") == 1


def test_the_pictures_are_well_formed_and_described(filled: FilledCatalog) -> None:
    fill(filled)
    content = written(report_of(filled))
    pictures = re.findall(r"<svg.*?</svg>", content, re.DOTALL)
    trees = [ElementTree.fromstring(each) for each in pictures]
    named = [each for each in trees if each.get("role") == "img"]
    assert [each.findtext("title") for each in named] == ["Calendar of my", "Stored bytes of my"]
    assert [each.findtext("desc") for each in named] == [
        "From 2026-09-17 to 2026-12-16. failed check or drill: 2 days; missed: 2 days; "
        "incomplete: 1 day; backed up: 34 days; no backup: 52 days.",
        "At 2026-09-17 12:00:00 0 B, at 2026-12-16 12:00:00 36.0 KB, at most 37.0 KB.",
    ]
    assert all(each.get("aria-hidden") == "true" for each in trees if each not in named)
    cells = [each.findtext("title") for each in named[0].iter("use")]
    assert len(cells) == 91
    assert {"2026-12-10 missed", "2026-12-11 missed", "2026-12-15 backed up"} <= set(cells)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(filled: FilledCatalog, name: str) -> None:
    is_text = text.is_text(name)
    stored = name if is_text else "bytes"
    filled.add(NOW - DAY, "good")
    rules = {"host": name, "source": name, "encryption": name}
    if is_text and "\x00" not in name:
        fill(filled, stored, **rules)
    else:
        filled.add(NOW - DAY, "other", metadata={"client": name, "warnings": [name]})
    usual = {"script", "img", "b"}
    content = written(report_of(filled))
    outline = outline_of(content)
    assert usual & set(outline.tags) <= {"b"}
    assert outline.tags.count("b") == 10  # the totals
    assert not any(each.startswith("on") for _, each, _ in outline.attributes)
    assert all(each.isprintable() or each == "\n" for each in content)
    for picture in re.findall(r"<svg.*?</svg>", content, re.DOTALL):
        ElementTree.fromstring(picture)


def test_a_page_without_backups_says_so(filled: FilledCatalog) -> None:
    filled.add(NOW - 400 * DAY)
    content = written(report_of(filled))
    outline_of(content)
    assert "2025-11-11 12:00:00" in content
    assert "overdue" in content


def test_local_times_say_how_far_they_are_from_utc(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.add(NOW - DAY)
    text.show_local_time(True)
    try:
        content = written(report_of(filled))
    finally:
        text.show_local_time(False)
    assert re.search(r"2026-12-15 \d\d:\d\d [+-]\d{4}", content)
    assert "local times of box" in content


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    full = digits if len(digits) == 6 else "".join(2 * each for each in digits)
    parts = [int(full[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_can_be_read_in_both_schemes(scheme: int) -> None:
    blocks = re.findall(r":root\{(--.*?)\}", style_sheet())
    colours = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", blocks[scheme]))
    for name in ("text", "faint", "link", "good", "warn", "bad"):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
    assert contrast(colours["faint"], colours["panel"]) >= 4.5
    assert contrast(colours["on-bad"], colours["bad"]) >= 3
    assert contrast(colours["level"], colours["area"]) >= 3
