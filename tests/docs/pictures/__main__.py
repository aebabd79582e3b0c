"""Draw the pictures of the documentation: ``python -m tests.docs.pictures``."""

from __future__ import annotations

from tests.docs.pictures import DIRECTORY, DRAWN, sessions
from tests.docs.pictures.terminal import changeless


def main() -> None:
    """Write all pictures.

    That of a terminal stays as it is where only dates, times and sizes are others.
    """
    DIRECTORY.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        (DIRECTORY / f"{name}.svg").write_text(draw())
    for name, session in sessions.SESSIONS.items():
        picture = DIRECTORY / f"{name}.svg"
        drawn = sessions.draw(session)
        if not picture.exists() or changeless(picture.read_text()) != changeless(drawn):
            picture.write_text(drawn)


if __name__ == "__main__":
    main()
