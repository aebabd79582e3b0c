"""Where the index of an archive is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bakthat.session.indexes.home import home_of_index
from bakthat.session.session import Session

KEY = "hosts/one/mydir.20260901030000.tgz.age"


def home(conf: dict[str, Any], destination: str) -> tuple[str, str, str]:
    session = Session("default", None, conf, destination)
    backend, key = home_of_index(session, session.backend(destination), KEY)
    return backend.name, backend.container, key


def test_an_index_is_beside_its_archive(local: dict[str, Any]) -> None:
    assert home(local, "local") == ("local", local["local_path"], f"{KEY}.index")
    conf = {**local, "access_key": "a", "secret_key": "s", "s3_bucket": "bucket"}
    assert home(conf, "s3") == ("s3", "bucket", f"{KEY}.index")


def test_that_of_a_vault_is_in_the_bucket_of_the_profile(local: dict[str, Any]) -> None:
    conf = {**local, "access_key": "a", "secret_key": "s", "glacier_vault": "vault"}
    cold = {**conf, "s3_bucket": "bucket", "storage_class": "DEEP_ARCHIVE"}
    session = Session("default", None, cold, "glacier")
    backend, key = home_of_index(session, session.backend("glacier"), KEY)
    assert (backend.name, backend.container) == ("s3", "bucket")
    assert key == f"bakthat_glacier_indexes/vault/{KEY}.index"
    assert backend is session.backend("s3")


def test_without_a_bucket_it_is_beside_the_catalog(local: dict[str, Any]) -> None:
    conf = {**local, "access_key": "a", "secret_key": "s", "glacier_vault": "vault"}
    directory = f"{local['database']}.indexes"
    assert home(conf, "glacier") == ("local", directory, f"vault/{KEY}.index")
    assert not Path(directory).exists()
