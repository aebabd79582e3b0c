"""The style sheet of a report: light and dark as the reader's system is, and for paper.

Text has a contrast of at least 4.5 to its background, and shapes of at least 3.
"""

from __future__ import annotations

from collections.abc import Mapping

_LIGHT = {
    "page": "#fff",
    "text": "#1d2125",
    "faint": "#59636e",
    "panel": "#f4f6f8",
    "line": "#d5dade",
    "link": "#0b5cad",
    "good": "#1a7f4b",
    "warn": "#8f5f00",
    "bad": "#bf2a2a",
    "on-bad": "#fff",
    "level": "#1f6f8b",
    "area": "#d9e9f0",
}
_DARK = {
    "page": "#16181b",
    "text": "#e6e9ec",
    "faint": "#a3adb7",
    "panel": "#20242a",
    "line": "#3a4148",
    "link": "#74b3f5",
    "good": "#43b97c",
    "warn": "#e0a83a",
    "bad": "#ff8077",
    "on-bad": "#16181b",
    "level": "#5db3d0",
    "area": "#203a45",
}

_COLUMNS = {
    # Numbers, times, and wide names.
    "n": "text-align:right;white-space:nowrap;padding-right:1.1rem",
    "t": "white-space:nowrap",
    "w": "overflow-wrap:anywhere;min-width:12rem",
}
_PAPER_COLUMNS = {"n": "padding-right:.7rem", "w": "min-width:0"}
_MOST_COLUMNS = 12

_RULES = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem;max-width:76rem;background:var(--page);color:var(--text);
font:15px/1.45 system-ui,-apple-system,"Segoe UI","DejaVu Sans",Helvetica,Arial,sans-serif}
h1{font-size:1.7rem;margin:0 0 .8rem}
h2{font-size:1.3rem;margin:2.2rem 0 .6rem;padding-top:.8rem;border-top:2px solid var(--line);
overflow-wrap:anywhere}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.4rem 0}
a{color:var(--link)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;margin:.4rem 0}
dt{color:var(--faint)}
dd{margin:0;overflow-wrap:anywhere}
.totals{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;margin:.8rem 0;list-style:none}
.totals li{background:var(--panel);border:1px solid var(--line);border-radius:6px;
padding:.45rem .9rem;min-width:7rem}
.totals b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.9rem 0 .3rem}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid var(--line)}
th{color:var(--faint);font-weight:600}
tbody th{color:inherit;font-weight:inherit}
.narrow{width:auto}
@columns
.good{color:var(--good)}
.warn{color:var(--warn)}
.bad{color:var(--bad)}
.verdict{font-weight:600}
ul.problems{margin:.4rem 0;padding-left:1.2rem}
.faint{color:var(--faint)}
.pictures{overflow-x:auto}
.key span{display:inline-flex;align-items:center;gap:.35rem;margin-right:1.1rem}
.shapes{position:absolute}
svg text{font-size:11px;fill:var(--faint)}
.curve{display:block;width:100%;max-width:55rem;margin-top:.6rem}
.day.g{fill:var(--good)}
.day.i{fill:var(--warn)}
.day.m,.day.f{fill:var(--bad)}
.day.n{fill:var(--faint)}
.day .frame{fill:none;stroke:currentColor;stroke-width:1.5}
.day .line{fill:none;stroke:currentColor;stroke-width:1.8}
.day .mark{fill:var(--on-bad)}
.day.i{color:var(--warn)}
.day.m{color:var(--bad)}
.grid{stroke:var(--line);fill:none}
.level{stroke:var(--level);stroke-width:1.6;fill:none}
.area{fill:var(--area)}
@media print{
@page{size:landscape;margin:12mm}
body{padding:0;max-width:none;font-size:9pt;-webkit-print-color-adjust:exact;
print-color-adjust:exact}
a{color:inherit;text-decoration:none}
h2,h3,caption{break-after:avoid}
.head,tr,li,svg{break-inside:avoid}
.table,.pictures{overflow:visible}
thead{display:table-header-group}
.set{break-before:page}
.set h2{border-top:0;margin-top:0;padding-top:0}
table{font-size:7.5pt}
th,td{padding:.1rem .45rem .1rem 0}
@paper_columns
}
"""


def style_sheet() -> str:
    """Return the style sheet. What is printed is light."""
    light, dark = (
        ":root{" + ";".join(f"--{name}:{colour}" for name, colour in colours.items()) + "}"
        for colours in (_LIGHT, _DARK)
    )
    schemes = f"{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}"
    rules = _RULES.replace("@columns", _columns(_COLUMNS))
    rules = rules.replace("@paper_columns", _columns(_PAPER_COLUMNS))
    return f":root{{color-scheme:light dark}}\n{schemes}{rules}"


def _columns(kinds: Mapping[str, str]) -> str:
    """Return the rules for each kind of column, wherever it is in a table."""
    return "\n".join(
        ",".join(
            f".{kind}{number} {cell}:nth-child({number})"
            for number in range(1, _MOST_COLUMNS + 1)
            for cell in ("th", "td")
        )
        + f"{{{rules}}}"
        for kind, rules in kinds.items()
    )
