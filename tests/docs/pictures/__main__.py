"""Draw the pictures of the documentation: ``python -m tests.docs.pictures``."""

from __future__ import annotations

from tests.docs.pictures import DIRECTORY, DRAWN


def main() -> None:
    """Write all pictures."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        (DIRECTORY / f"{name}.svg").write_text(draw())


if __name__ == "__main__":
    main()
