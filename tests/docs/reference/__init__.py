"""The pages of the reference, and the manual pages, written from the code.

``python -m tests.docs.reference`` writes them.
"""

from __future__ import annotations

from tests.docs.reference import commands, exits, keys, messages
from tests.support.commandline import PROJECT

REFERENCE = PROJECT / "docs" / "reference"
MANUAL = PROJECT / "docs" / "man"
PAGES = {
    "commands.rst": commands.page,
    "configuration-keys.rst": keys.page,
    "job-keys.rst": keys.jobs_page,
    "exit-codes.rst": exits.page,
    "json.rst": messages.page,
}
"""What writes each page of the reference, by the names of their files."""
