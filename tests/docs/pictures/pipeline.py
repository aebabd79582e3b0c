"""The pipeline: how a backup goes from the disk to the storage in one pass."""

from __future__ import annotations

from tests.docs import svg

WIDTH, HEIGHT = 1000, 330
STYLE = (
    ".name{font-size:15px;font-weight:bold}\n"
    ".what{font-size:12px;fill:@faint}\n"
    ".stage{fill:@soft;stroke:@edge}\n"
    ".place{fill:@page;stroke:@edge}\n"
    ".object{fill:@strong;stroke:none}\n"
    ".object-name{font-size:13px;font-weight:bold;fill:@on-strong}\n"
    ".note{font-size:13px}\n"
    ".around{fill:none;stroke:@line;stroke-width:1.5;stroke-dasharray:5 4}\n"
) + svg.ARROW_STYLE

STAGES = {
    # What happens to the bytes, in the order in which it does.
    "walk": ("reads the tree,", "leaves out what", "is excluded"),
    "tar": ("PAX, as GNU tar", "writes and", "reads it"),
    "gzip": ("1 MiB at a time,", "on every core", ""),
    "age": ("a passphrase or", "public keys;", "or nothing"),
    "parts": ("sent at once,", "each with a", "checksum"),
}
STAGE_WIDTH, STAGE_HEIGHT, GAP = 140, 96, 28


def draw() -> str:
    """Return the picture."""
    top, left = 62, 150
    body = [svg.ARROW_HEAD]
    last = left + len(STAGES) * (STAGE_WIDTH + GAP) - GAP
    body += [
        svg.box(left - 18, top - 40, last - left + 36, STAGE_HEIGHT + 58, "around", rx=8),
        svg.text(left - 6, top - 18, "one pass, bounded memory, no temporary copy", "what"),
        svg.box(20, top, 86, STAGE_HEIGHT, "place"),
        svg.text(63, top + 42, "your", "name", anchor="middle"),
        svg.text(63, top + 62, "files", "name", anchor="middle"),
        svg.arrow(f"M106,{top + 48} H{left - 2}"),
    ]
    x = left
    for name, lines in STAGES.items():
        body += [
            svg.box(x, top, STAGE_WIDTH, STAGE_HEIGHT, "stage"),
            svg.text(x + STAGE_WIDTH / 2, top + 26, name, "name", anchor="middle"),
        ]
        body += [
            svg.text(x + STAGE_WIDTH / 2, top + 48 + 17 * number, line, "what", anchor="middle")
            for number, line in enumerate(lines)
            if line
        ]
        if x + STAGE_WIDTH < last:
            body.append(svg.arrow(f"M{x + STAGE_WIDTH},{top + 48} h{GAP - 2}"))
        x += STAGE_WIDTH + GAP
    return svg.document(
        WIDTH,
        HEIGHT,
        "How a backup is made",
        "Your files go through walk, tar, gzip, age and parts to the storage in one pass. There "
        "they are one plain file, mydir.20130604191055.tgz.age, which age and tar open. Beside it "
        "is a small index with the names, times and SHA-256 of the files and their places.",
        STYLE,
        body + _storage(last, top, left),
    )


def _storage(last: float, top: float, left: float) -> list[str]:
    """Return the objects below the pipeline, and the arrows to them."""
    y, height = 196, 108
    archive, index = left + 260, left - 18
    tar = left + STAGE_WIDTH * 1.5 + GAP
    middle = (last + left + STAGE_WIDTH * 4 + GAP * 4) / 2
    return [
        svg.box(20, y, WIDTH - 40, height, "place"),
        svg.text(34, y + 26, "storage", "name"),
        svg.text(34, y + 48, "S3, a vault, or", "what"),
        svg.text(34, y + 65, "a directory", "what"),
        svg.arrow(f"M{middle:g},{top + STAGE_HEIGHT} V{y + 14}"),
        svg.box(archive, y + 16, last - archive, 34, "object"),
        svg.text(archive + 14, y + 38, "mydir.20130604191055.tgz.age", "object-name"),
        svg.text(archive + 2, y + 72, "one plain file: age -d … | tar xz restores it", "note"),
        svg.text(archive + 2, y + 91, "recorded only when the storage has confirmed all", "what"),
        svg.arrow(f"M{tar:g},{top + STAGE_HEIGHT} V{y + 14}"),
        svg.box(index, y + 16, 252, 34, "object"),
        svg.text(index + 14, y + 38, "its index, encrypted likewise", "object-name"),
        svg.text(index + 2, y + 72, "names, times, SHA-256, and where", "note"),
        svg.text(index + 2, y + 91, "for one file out of a terabyte", "what"),
    ]
