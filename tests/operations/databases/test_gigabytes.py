"""Streams and tables of a gibibyte: what they take, and that all of them comes back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bakthat.crypto import age
from tests.benchmarks.datasets import write_fast
from tests.benchmarks.measuring import Measurement, measure
from tests.support.commandline import CommandLine
from tests.support.databases import mariadb_server, output_of, postgresql_server
from tests.support.profiles import write_config
from tests.support.servers import free_port

pytestmark = pytest.mark.heavy

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE
MEMORY_PROMISE = 256 * MEBIBYTE
PASSWORD = "mypassword"
ROWS = 1024 * 1024


def encrypted(user: CommandLine, **conf: Any) -> None:
    identity = age.generate_identity()
    (user.home / "key").write_text(identity)
    write_config(
        user.home / ".bakthat.yml",
        default={
            **conf,
            "recipients": [age.recipient_of(identity)],
            "identity_file": str(user.home / "key"),
        },
    )


def measured(user: CommandLine, script: str) -> Measurement:
    """Run *script*, which must succeed, with a TMPDIR that is watched."""
    temporary = user.directory / "temporary"
    temporary.mkdir(exist_ok=True)
    return measure(
        script,
        environment={**user.environment, "TMPDIR": str(temporary)},
        directory=user.directory,
        log=user.directory / "log",
        scratch=(temporary, user.home),
    )


def test_a_command_takes_little_memory_and_no_disk(
    user: CommandLine, rclone_conf: dict[str, Any]
) -> None:
    encrypted(user, **rclone_conf)
    big = user.directory / "big"
    write_fast(big, GIBIBYTE, seed=1)
    with big.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    made = measured(user, "python -m bakthat backup --command 'cat big' --name copy")
    big.unlink()
    back = measured(user, "python -m bakthat restore copy --to-command 'sha256sum >digest'")
    assert (user.directory / "digest").read_text().split()[0] == digest
    assert max(made.memory, back.memory) < MEMORY_PROMISE
    assert made.scratch < MEBIBYTE  # the catalog
    assert back.scratch < MEBIBYTE


def test_a_table_of_postgresql(user: CommandLine) -> None:
    rows = f"SELECT g AS id, repeat(md5(g::text), 31) AS what FROM generate_series(1, {ROWS}) AS g"
    sums = "SELECT count(*), sum(hashtextextended(id || what, 0)) FROM orders"
    with postgresql_server(PASSWORD) as environment:
        psql = ["env", *(f"{name}={value}" for name, value in environment.items()), "psql", "-qAt"]
        output_of(*psql, "-c", "CREATE DATABASE shop")
        output_of(*psql, "-d", "shop", "-c", f"CREATE TABLE orders AS {rows}")
        assert (
            int(output_of(*psql, "-d", "shop", "-c", "SELECT pg_table_size('orders')")) > GIBIBYTE
        )
        come_back(user, f"postgresql://postgres@127.0.0.1:{environment['PGPORT']}")
        original, copy = (
            output_of(*psql, "-d", name, "-c", sums) for name in ("shop", "shop_copy")
        )
    assert original.startswith(f"{ROWS}|")
    assert copy == original


def test_a_table_of_mariadb(user: CommandLine, tmp_path: Path) -> None:
    rows = f"SELECT seq AS id, REPEAT(MD5(seq), 31) AS what FROM seq_1_to_{ROWS}"
    table = "CREATE TABLE orders (id INT PRIMARY KEY, what TEXT)"
    size = "SELECT data_length FROM information_schema.tables WHERE table_schema = 'shop'"
    sums = "SELECT COUNT(*), BIT_XOR(CONV(LEFT(MD5(CONCAT(id, what)), 15), 16, 10)) FROM orders"
    home, port = tmp_path / "server", free_port()
    home.mkdir()
    with mariadb_server(home, port=port) as client:
        output_of(
            *client,
            "-e",
            f"CREATE USER keeper@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO keeper@'%'",
        )
        output_of(*client, "-D", "shop", "-e", f"DROP TABLE orders; {table} AS {rows}")
        output_of(*client, "-D", "shop", "-e", "ANALYZE TABLE orders")
        assert int(output_of(*client, "-e", size)) > GIBIBYTE
        come_back(user, f"mariadb://keeper@127.0.0.1:{port}")
        original, copy = (
            output_of(*client, "-D", name, "-e", sums) for name in ("shop", "shop_copy")
        )
    assert original.startswith(f"{ROWS}\t")
    assert copy == original


def come_back(user: CommandLine, url: str) -> None:
    """Back up the database ``shop``, and load it as ``shop_copy``, within the promises."""
    store = user.directory / "store"
    encrypted(user, default_destination="local", local_path=str(store), database_password=PASSWORD)
    made = measured(user, f"python -m bakthat backup {url}/shop")
    back = measured(user, f"python -m bakthat restore shop --into {url}/shop_copy")
    assert max(made.memory, back.memory) < MEMORY_PROMISE
    assert made.scratch < MEBIBYTE
    assert back.scratch < MEBIBYTE
