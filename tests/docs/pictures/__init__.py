"""The pictures of the documentation, drawn from what they show.

``python -m tests.docs.pictures`` draws them into ``docs/pictures``.
"""

from __future__ import annotations

from tests.docs.pictures import increments, pipeline, retention
from tests.support.commandline import PROJECT

DIRECTORY = PROJECT / "docs" / "pictures"
DRAWN = {
    "pipeline": pipeline.draw,
    "retention": retention.draw,
    "increments": increments.draw,
}
"""The pictures that are drawn from the code alone, by their names."""
