"""SVG for the documentation: light and dark, with a title and a description.

A picture is shown as an image. There, ``prefers-color-scheme`` is the scheme of the page around it
(``docs/_static/pictures.css`` says it) or of the reader's system. A picture has a background of its
own, so that it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
MONOSPACE = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"

COLOURS = {
    # What each is for: its colour on a light page, and on a dark one.
    "page": ("#ffffff", "#1a1c1e"),
    "text": ("#222222", "#e8eaed"),
    "faint": ("#5a6570", "#a3adb7"),
    "panel": ("#f4f6fa", "#23272b"),
    "line": ("#dfe3e8", "#3a3f45"),
    "edge": ("#7f8ea0", "#8a97a5"),
    "strong": ("#1f6f8b", "#3f9dbd"),
    "on-strong": ("#ffffff", "#0d1417"),
    "soft": ("#dbe7f3", "#29394a"),
    "warm": ("#f3ead0", "#4a3f22"),
    "warm-edge": ("#aa8833", "#c9a84c"),
    "peer": ("#9aa5b1", "#79848f"),
    "apart": ("#d5dbe1", "#454c54"),
}


BASE = (
    f"text{{font-family:{SANS};font-size:12px}}\n"
    "text{fill:@text}\n"
    ".page{fill:@page;stroke:@line}\n"
)


def document(
    width: float, height: float, title: str, description: str, style: str, body: list[str]
) -> str:
    """Return a whole picture.

    *style* is CSS in which ``@name`` is a colour of ``COLOURS``. A screen reader says *title* and
    *description*.
    """
    size = f"{width:g} {height:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {size}" role="img" aria-labelledby="title description">\n'
        f'<title id="title">{escape(title)}</title>\n'
        f'<desc id="description">{escape(description)}</desc>\n'
        f"<style>\n{_in_both_schemes(BASE)}{_in_both_schemes(style)}</style>\n"
        f'<rect class="page" x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" '
        'rx="8"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _in_both_schemes(style: str) -> str:
    """Return the rules of *style* for light pages, then those with a colour for dark ones."""
    dark = "".join(f"{rule}\n" for rule in style.splitlines() if "@" in rule)
    both = _with_colours(style, 0)
    if dark:
        both += f"@media (prefers-color-scheme: dark) {{\n{_with_colours(dark, 1)}}}\n"
    return both


def _with_colours(style: str, scheme: int) -> str:
    for name in sorted(COLOURS, key=len, reverse=True):
        style = style.replace(f"@{name}", COLOURS[name][scheme])
    return style


def element(name: str, content: str = "", **attributes: str | float) -> str:
    """Return an element.

    In the name of an attribute ``__`` is a colon, ``_`` is a dash, and one at its end is left out.
    """
    given = "".join(
        f" {_attribute(key)}={quoteattr(_number(value))}"
        for key, value in attributes.items()
        if value != ""
    )
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def text(x: float, y: float, content: str, class_: str = "", *, anchor: str = "") -> str:
    """Return a line of text; *anchor* is ``middle`` or ``end``, the beginning unless given."""
    return element("text", escape(content), x=x, y=y, class_=class_, text_anchor=anchor)


def box(x: float, y: float, width: float, height: float, class_: str, *, rx: float = 4) -> str:
    """Return a rectangle with round corners."""
    return element("rect", x=x, y=y, width=width, height=height, rx=rx, class_=class_)


def arrow(path: str, class_: str = "arrow", **attributes: str) -> str:
    """Return a line with a head at its end; *path* is that of the element ``path``."""
    return element("path", class_=class_, d=path, marker_end="url(#head)", **attributes)


ARROW_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" '
    'markerWidth="10" markerHeight="10" orient="auto"><path class="head" d="M0,0 L8,4 L0,8 z"/>'
    "</marker></defs>"
)
ARROW_STYLE = ".arrow{fill:none;stroke:@edge;stroke-width:1.4}\n.head{fill:@edge;stroke:none}\n"


def key(x: float, y: float, entries: Mapping[str, str]) -> list[str]:
    """Return the key of a picture: for each class of boxes, what it means; from left to right."""
    parts = []
    for class_, meaning in entries.items():
        parts += [box(x, y - 12, 20, 15, class_, rx=3), text(x + 27, y, meaning)]
        x += 27 + len(meaning) * 7 + 24
    return parts


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("__", ":").replace("_", "-")


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
