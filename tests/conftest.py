"""Fixtures of every test: an environment of its own, and S3 servers on loopback ports."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import catalogs
from tests.support.catalogs import MariadbCatalogs, NewCatalog, PostgresqlCatalogs
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.file_systems import KINDS, FileSystem, mounted_file_system
from tests.support.glacier_server import GlacierServer, glacier_server
from tests.support.needs import gnu_tar, program
from tests.support.profiles import Conf
from tests.support.servers import S3Server, moto_server, plain, rclone_server, seaweedfs_server

_CLOCK = time.time


def pytest_configure() -> None:
    """Stop commands by their signals also where pytest itself was started to ignore them.

    A shell starts what runs in the background, and ``nohup`` what it runs, with signals ignored; a
    process inherits that, and bakthat then ignores them too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, by ``-n auto``
def pytest_xdist_auto_num_workers() -> int:
    """Use one worker more than there are cores: tests wait for servers and processes."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which may use the programs
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the programs that the test's marker names."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if name == "GNU tar":
                gnu_tar()
            else:
                program(name)


@pytest.fixture(autouse=True)
def isolated_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give the test a home directory of its own, and none of the caller's settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in os.environ:
        if name.startswith(("AWS_", "BAKTHAT_", "CREDENTIALS_", "PG", "XDG_")):
            monkeypatch.delenv(name)
    # Otherwise boto3 asks the network for the keys of a machine in EC2.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return home


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """Undo what a command that runs in this process does to the loggers of bakthat."""
    loggers = [
        logging.getLogger(name)
        for name in ("bakthat", "bakthat.results", "bakthat.backends", "bakthat.files")
    ]
    before = [(each.level, each.propagate, each.disabled, each.handlers[:]) for each in loggers]
    yield
    for each, (level, propagate, disabled, handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.propagate, each.disabled, each.handlers = propagate, disabled, handlers


@pytest.fixture(autouse=True)
def forgotten_inputs() -> Iterator[None]:
    """Forget what programs printed for the test, and pipes held, which a process remembers.

    A command remembers pipes, and another test's pipe may have the same number.
    """
    yield
    if "bakthat.conf.secrets" in sys.modules:
        sys.modules["bakthat.conf.secrets"].forget_outputs()
    if "bakthat.conf.files.content" in sys.modules:
        sys.modules["bakthat.conf.files.content"].forget_pipes()


@pytest.fixture(autouse=True)
def unchanged_signals() -> Iterator[None]:
    """Fail when the test has left another handler of a signal, which would change later tests."""
    before = _signal_handlers()
    yield
    left = _signal_handlers()
    for number, handler in before.items():
        signal.signal(number, handler)
    assert left == before


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the environment "lowest"."""
    parser.addoption(
        "--once",
        action="store_true",
        help="run each test with the first of its parameters only, on each storage that it names",
    )


@pytest.hookimpl(tryfirst=True)  # before the marks select
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what uses a catalog on a server, which needs a driver, and what repeats a test.

    A test of all servers of S3 runs on moto in the README's suite, and on the others among the
    slow tests; there is also all that uses SeaweedFS, which starts slowly.
    """
    for item in items:
        parameters = _parameters(item)
        used = parameters.union(getattr(item, "fixturenames", ()))
        if used & {"postgresql_catalogs", "mariadb_catalogs"}:
            item.add_marker("drivers")
        is_on_seaweedfs = any("seaweedfs" in each for each in used)
        if is_on_seaweedfs or parameters & {"rclone", "s3 on rclone"}:
            item.add_marker("slow")
    if config.getoption("once"):
        chosen: dict[tuple[str, frozenset[str], bool], pytest.Item] = {}
        for item in items:
            storages = _parameters(item) & {"glacier", "local", "moto", "s3", "s3 on moto"}
            is_slow = item.get_closest_marker("slow") is not None
            test = item.nodeid.partition("[")[0]
            chosen.setdefault((test, frozenset(storages), is_slow), item)
        kept = list(chosen.values())
        config.hook.pytest_deselected(items=list(set(items).difference(kept)))
        items[:] = kept


def _parameters(item: pytest.Item) -> set[str]:
    call = getattr(item, "callspec", None)
    return {each for each in call.params.values() if isinstance(each, str)} if call else set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Fail when the test has left another clock, which would change later tests."""
    result = yield
    left, time.time = time.time, _CLOCK
    assert left is _CLOCK, "the test has left another clock"
    return result


@pytest.fixture
def restored_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command that runs in this process does to the handlers of signals."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = _signal_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _signal_handlers() -> dict[signal.Signals, Any]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD)
    return {number: signal.getsignal(number) for number in numbers}


@pytest.fixture
def no_thread_stays() -> Iterator[None]:
    """Fail when a thread that the test has started still runs at its end."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def plugins_dir(isolated_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the directory of plugins; whatever they do ends with the test."""
    from bakthat import models
    from bakthat.plugin import deactivate_plugins

    directory = isolated_environment / ".bakthat_plugins"
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(models, "Backups", models.Backups)  # a plugin may replace it
    yield directory
    deactivate_plugins()


@pytest.fixture
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a low scrypt work factor; tests of the command line use the real one."""
    from bakthat.pipeline import write

    monkeypatch.setattr(write, "PASSPHRASE_WORK_FACTOR", 8)


@pytest.fixture
def local(isolated_environment: Path) -> Conf:
    """Return a flat profile for a store in a directory, which is not made yet."""
    return {
        "default_destination": "local",
        "local_path": str(isolated_environment / "store"),
        "database": str(isolated_environment / "catalog.sqlite"),
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small directory to back up."""
    root = tmp_path / "mydir"
    root.mkdir()
    (root / "a.txt").write_text("hello")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return where to restore to; it is not made yet."""
    return tmp_path / "out"


@pytest.fixture
def user(isolated_environment: Path, tmp_path: Path) -> CommandLine:
    """Return a user of the command line, in the test's directory."""
    return CommandLine(isolated_environment, tmp_path)


@pytest.fixture(scope="module", params=KINDS)
def file_system(request: pytest.FixtureRequest) -> Iterator[FileSystem]:
    """Mount a file system of each kind in turn; the tests of a module share it."""
    with mounted_file_system(request.param) as made:
        yield made


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Serve moto's AWS, for the whole session."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Serve a directory as S3 with rclone, for the whole session."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Serve S3 with SeaweedFS for the whole session."""
    with seaweedfs_server(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_catalogs() -> Iterator[PostgresqlCatalogs]:
    """Serve PostgreSQL for the whole session."""
    with catalogs.postgresql_catalogs() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_catalogs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbCatalogs]:
    """Serve MariaDB for the whole session."""
    with catalogs.mariadb_catalogs(tmp_path_factory.mktemp("mariadb")) as running:
        yield running


@pytest.fixture(params=catalogs.EVERYWHERE)
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a new catalog can be made: a path, and the address of each kind of server."""
    if request.param == "sqlite":
        return str(tmp_path / "catalog.sqlite")
    make: NewCatalog = request.getfixturevalue(f"{request.param}_catalogs")
    return make()


@pytest.fixture
def glacier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlacierServer]:
    """Serve Glacier, with a clock that stands still until the test moves it."""
    with glacier_server(tmp_path_factory.mktemp("glacier")) as server:
        yield server


@pytest.fixture
def moto_proxy(moto_endpoint: S3Server) -> Iterator[FaultProxy]:
    """Put a proxy before moto that breaks the requests the test names."""
    with fault_proxy(moto_endpoint.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def proxied_conf(moto_proxy: FaultProxy, moto_endpoint: S3Server) -> Conf:
    """Return a flat profile whose requests go to moto through the proxy; its bucket exists."""
    conf = moto_endpoint.conf()
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    return {**conf, "endpoint_url": moto_proxy.endpoint_url}


@pytest.fixture
def moto_conf(moto_endpoint: S3Server) -> Conf:
    """Return a flat profile for moto's S3; its bucket is not made yet."""
    return moto_endpoint.conf()


@pytest.fixture
def rclone_conf(rclone_endpoint: S3Server) -> Conf:
    """Return a flat profile for rclone's S3; its bucket is not made yet."""
    return rclone_endpoint.conf()


@pytest.fixture
def seaweedfs_conf(seaweedfs_endpoint: S3Server) -> Conf:
    """Return a flat profile for SeaweedFS; its bucket is not made yet."""
    return seaweedfs_endpoint.conf()


@pytest.fixture(params=["moto", "rclone", "seaweedfs"])
def s3_conf(request: pytest.FixtureRequest) -> Conf:
    """Return a flat profile for each of the S3 servers in turn; its bucket is not made yet."""
    conf: Conf = request.getfixturevalue(f"{request.param}_conf")
    return conf
