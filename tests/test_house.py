"""The house (docs/architecture.rst): which module may know which, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bakthat"

FLOORS = [
    # Lowest first. A module imports only what stands on a lower line.
    {"errors", "streams", "interrupts", "own_process"},
    {"hooks", "week_days"},
    {"naming", "paths", "intervals", "rotation", "storage_classes"},
    {"descriptions"},
    {"terminal"},
    {"conf", "models", "secrets", "archive", "crypto", "backends"},
    {"vault_records", "plugin", "legacy", "sources"},
    {"session", "notify", "contents"},
    {"selection", "pipeline", "thawing", "costs", "entries", "sync_report"},
    {"inventory"},
    {"storing"},
    {"restoring"},
    {"core", "retention", "configuring", "key_values", "syncing", "checking", "cleaning"},
    {"helper"},
    {"cli"},
    {"commands"},
    {"__main__"},
]

EXCEPTIONS = {
    # The root module holds names only, and loads a home when one of them is used.
    "storing": {"bakthat"},  # __version__, which stands in every self-description
    "key_values": {"bakthat"},
    "cli": {"bakthat"},
    "hooks": {"models"},  # in annotations
}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "bakthat":
                room = name.split(".")[1]
                exists = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()
                rooms.add(room if exists else "bakthat")
    return rooms


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    room = room_of(path)
    floor = next((n for n, rooms in enumerate(FLOORS) if room in rooms), None)
    assert floor is not None, f"{room} has no floor"
    below = set().union(*FLOORS[:floor]) | {room} | EXCEPTIONS.get(room, set())
    assert imported_rooms(path) <= below


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import bakthat",
        "import bakthat.core, bakthat.cli, bakthat.models, bakthat.crypto.age",
        "import bakthat.backends.s3, bakthat.backends.local, bakthat.backends.glacier",
        "from bakthat import backup, restore, ls, delete, events",
        "from bakthat import delete_older_than, rotate_backups",
        "from bakthat.helper import BakHelper, KeyValue",
        "import bakthat.crypto.beefish",
    ],
)
def test_importing_loads_no_heavy_library(statement: str) -> None:
    assert not loaded_after(statement) & {"boto3", "botocore", "cryptography", "rich"}


def test_a_backup_begins_to_count_before_the_catalog_is_loaded() -> None:
    statement = "import bakthat.core, bakthat.crypto.age, bakthat.backends.s3"
    assert not loaded_after(statement) & {"peewee", "sqlite3", "isal", "botocore"}


def test_importing_the_root_loads_no_room() -> None:
    assert not loaded_after("import bakthat") & {"peewee", "yaml", "sqlite3", "isal"}


def test_importing_touches_no_file_of_the_user(tmp_path: Path) -> None:
    code = (
        "import sys, os\n"
        "home = os.environ['HOME']\n"
        "touched = []\n"
        "def watch(event, args):\n"
        "    if event in ('open', 'socket.connect', 'sqlite3.connect', 'os.mkdir'):\n"
        "        if event != 'open' or str(args[0]).startswith(home):\n"
        "            touched.append((event, args))\n"
        "sys.addaudithook(watch)\n"
        "import bakthat\n"
        "from bakthat import backup, restore, ls, show, delete, events\n"
        "print(touched)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_can_be_had() -> None:
    import bakthat

    for name in bakthat.__all__:
        assert getattr(bakthat, name) is not None
        assert name in dir(bakthat)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bakthat.nonsense
