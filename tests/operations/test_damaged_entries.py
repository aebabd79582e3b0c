"""A catalog entry whose metadata are damaged: the stored name and the object say what it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.crypto import age
from bakthat.helper import KeyValue
from tests.support.examples import rest_slow
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

pytestmark = pytest.mark.usefixtures("cheap_passphrases")

IDENTITY = age.generate_identity()
KEYS: dict[str, dict[str, Any]] = {
    "clear": {"password": ""},
    "passphrase": {"password": "secret"},
    "recipients": {"recipients": [age.recipient_of(IDENTITY)]},
}
DAMAGED = ["", "not JSON", "[]", '{"client": "box", "is_e']


@pytest.fixture
def opening(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Return the arguments that open what each of KEYS encrypted."""
    path = tmp_path / "identity.txt"
    path.write_text(f"{IDENTITY}\n")
    return {
        "clear": {},
        "passphrase": {"password": "secret"},
        "recipients": {"identity_file": path},
    }


@pytest.fixture
def sources(tree: Path, tmp_path: Path) -> dict[str, Path]:
    tarball = tmp_path / "site.tar.gz"
    tarball.write_bytes(b"\x1f\x8b, as it is")
    return {"directory": tree, "file": tree / "a.txt", "tarball": tarball}


def damage(conf: Conf, text: str) -> None:
    """Write *text* as the metadata of every entry."""
    with closing(sqlite3.connect(conf["database"])) as catalog, catalog:
        catalog.execute("UPDATE backups SET metadata = ?", (text,))


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("encryption", KEYS)
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", rest_slow(["directory", "file", "tarball"]))
def test_a_backup_comes_back_without_its_metadata(
    kind: str,
    compress: bool,
    encryption: str,
    text: str,
    local: Conf,
    sources: dict[str, Path],
    opening: dict[str, dict[str, Any]],
    out: Path,
) -> None:
    source = sources[kind]
    made = bakthat.backup(source, conf={**local, "compress": compress}, **KEYS[encryption])
    damage(local, text)
    (listed,) = bakthat.ls(conf=local)
    assert listed.is_encrypted == (encryption != "clear")

    (checked,) = bakthat.check(conf=local, read_data=True, **opening[encryption])
    assert checked.is_good, checked
    bakthat.restore(made.filename, conf=local, output=out, **opening[encryption])
    if kind == "directory":
        assert fingerprint(out / source.name) == fingerprint(source)
    else:
        assert (out / source.name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("text", DAMAGED)
def test_a_value_comes_back_without_its_metadata(text: str, local: Conf, out: Path) -> None:
    KeyValue(conf=local).set_key("mykey", {"some": "data"}, password="secret")
    damage(local, text)
    (listed,) = bakthat.ls(conf=local)
    assert listed.is_key_value
    assert KeyValue(conf=local).get_key("mykey", password="secret") == {"some": "data"}
    damage(local, text)
    bakthat.restore("mykey", conf=local, output=out, password="secret")
    assert (out / "mykey.json").read_text() == '{"some": "data"}'


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("kind", ["directory", "file", "tarball", "value"])
def test_sync_repairs_damaged_metadata(
    kind: str, text: str, local: Conf, sources: dict[str, Path]
) -> None:
    if kind == "value":
        KeyValue(conf=local).set_key("mykey", 1)
    else:
        bakthat.backup(sources[kind], conf=local, password="secret")
    (before,) = bakthat.ls(conf=local)
    damage(local, text)
    bakthat.sync(conf=local)
    (after,) = bakthat.ls(conf=local)
    for key in ("client", "is_enc", "kind", "encryption", "compression", "format"):
        assert after.metadata.get(key) == before.metadata.get(key), key
    assert (after.is_encrypted, after.is_key_value) == (before.is_encrypted, before.is_key_value)
    assert bakthat.sync(conf=local).containers[0].unchanged == 1
