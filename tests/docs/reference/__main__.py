"""Write the reference and the manual pages: ``python -m tests.docs.reference``."""

from __future__ import annotations

from tests.docs.reference import MANUAL, PAGES, REFERENCE, manual


def main() -> None:
    """Write all pages; those of commands that are gone are removed."""
    for name, write in PAGES.items():
        (REFERENCE / name).write_text(write())
    MANUAL.mkdir(exist_ok=True)
    pages = manual.pages()
    for old in MANUAL.glob("*.1"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (MANUAL / name).write_text(text)


if __name__ == "__main__":
    main()
