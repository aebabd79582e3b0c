"""The layers of the code (docs/development/architecture.rst), and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import layers
from tests.support.commandline import unmeasured

PROJECT = layers.ROOT


def test_imports_keep_the_rules() -> None:
    assert layers.violations() == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("bakthat.system.text", "from bakthat import backup"),
        ("bakthat.crypto.age", "import bakthat"),
        ("bakthat.backends.s3.upload", "from bakthat.backends import make_backend"),
        ("bakthat.backends.base", "from bakthat.backends import S3Backend"),
        ("bakthat.backends.s3.upload", "from bakthat.hooks import events"),
        (
            "bakthat.operations.check.operation",
            "from bakthat.operations.backup.store import NewBackup",
        ),
        (
            "bakthat.operations.check.operation",
            "from bakthat.backends.local.files import Temporary",
        ),
        ("bakthat.notify.base", "from bakthat.backends.s3.backend import S3Backend"),
        ("bakthat.cli.commands.cold", "from bakthat.crypto._bech32 import decode"),
        ("bakthat.cli.commands.cold", "import boto3"),
        ("bakthat.cli.commands.cold", "from bakthat.cli.run import run"),
        ("bakthat.cli.app", "import_module('bakthat.cli.commands.cold')"),
        ("bakthat.pipeline.read", "from bakthat.crypto._bech32 import decode"),
    ],
)
def test_a_forbidden_import_is_reported(module: str, line: str) -> None:
    source = layers.modules()[module].read_text()
    assert layers.violations_of(module, f"{source}\n{line}\n") != []


def test_no_rule_allows_what_no_module_imports() -> None:
    used = {
        (source or package, destination or package)
        for module, path in layers.modules().items()
        for name in layers.imports_of(path.read_text())
        if (module, name) not in layers.EXCEPTIONS and (target := layers.target_of(name))
        for package, source, destination in [layers.meeting(module, target)]
        if package == "bakthat" and module != target
    }
    allowed = {(name, each) for name, row in layers.MAY_IMPORT.items() for each in row.split()}
    assert allowed == used


def test_no_module_is_opened_to_one_that_does_not_import_it() -> None:
    used = {
        (rule, importer)
        for module, path in layers.modules().items()
        for name in layers.imports_of(path.read_text())
        if (target := layers.target_of(name)) and (rule := layers.rule_of(target))
        for importer in layers.ONLY_FROM[rule].split()
        if layers.is_one_of(module, importer)
    }
    allowed = {(rule, each) for rule, row in layers.ONLY_FROM.items() for each in row.split()}
    assert allowed == used


def test_every_module_has_exactly_one_layer() -> None:
    known = set(layers.modules())
    placed = [
        f"{package}.{name}"
        for package, rows in layers.LAYERS.items()
        for name in " ".join(rows).split()
    ]
    assert sorted(placed) == sorted(known - {"bakthat"})


def test_the_picture_is_current() -> None:
    assert layers.PICTURE.read_text() == layers.picture(), "run python -m tests.docs.layers"


def test_no_module_is_long_and_no_package_is_crowded() -> None:
    for path in layers.modules().values():
        assert len(path.read_text().splitlines()) <= 500, path
    for package, rows in layers.LAYERS.items():
        modules = [
            name for name in " ".join(rows).split() if f"{package}.{name}" not in layers.LAYERS
        ]
        assert len(modules) <= 12, package


DRIVERS = ("psycopg", "psycopg2", "pymysql", "MySQLdb")


def loaded_after(statement: str) -> set[str]:
    """Return what a statement loads, without what peewee loads wherever it is installed."""
    code = f"import sys\nsys.modules |= dict.fromkeys({DRIVERS})\n{statement}\n"
    code += "print(' '.join(name for name, module in sys.modules.items() if module))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        env=unmeasured(),
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import bakthat",
        "import bakthat.operations.listing, bakthat.cli.run, bakthat.models, bakthat.crypto.age",
        "from bakthat.backends import S3Backend, LocalBackend, GlacierBackend, BakthatBackend",
        "from bakthat import backup, restore, ls, delete, events",
        "from bakthat import delete_older_than, rotate_backups",
        "from bakthat.helper import BakHelper, KeyValue",
        "import bakthat.crypto.beefish",
    ],
)
def test_importing_loads_no_heavy_library(statement: str) -> None:
    assert not loaded_after(statement) & {"boto3", "botocore", "cryptography"}


def test_a_catalog_in_a_file_loads_nothing_for_servers(tmp_path: Path) -> None:
    statement = (
        "from bakthat import models\n"
        f"with models.catalog({str(tmp_path / 'catalog.sqlite')!r}, write=True): pass\n"
        "assert 'bakthat.database.sqlite' in sys.modules\n"
        "assert 'bakthat.database.server' not in sys.modules"
    )
    assert not loaded_after(statement) & {"playhouse", *DRIVERS}


def test_a_backup_begins_to_count_before_the_catalog_is_loaded() -> None:
    statement = (
        "import bakthat.operations.backup.operation, bakthat.crypto.age, "
        "bakthat.backends.s3.backend"
    )
    assert not loaded_after(statement) & {"peewee", "sqlite3", "isal", "botocore"}


def test_importing_the_root_loads_no_module_of_its_own() -> None:
    assert not loaded_after("import bakthat") & {"peewee", "yaml", "sqlite3", "isal"}


def test_importing_the_backends_loads_none_of_them() -> None:
    code = "import sys, bakthat.backends\nprint([n for n in sys.modules if 'backends.' in n])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout.strip() == "[]"


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
        cwd=PROJECT,
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
