"""The catalog and the objects of bakthat 0.6.0, made by hand for the tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from bakthat.format.names import is_index_key
from tests.test_models import SCHEMA_060

PASSWORD = "mypassword"


def beefish(plain: bytes, password: str = PASSWORD) -> bytes:
    """Encrypt as beefish 0.1 did: random padding whose last byte is its length modulo 8."""
    missing = 8 - len(plain) % 8
    last = os.urandom(1)[0] // 8 * 8 + missing % 8
    vector = os.urandom(8)
    encryptor = Cipher(Blowfish(password.encode()), modes.CBC(vector)).encryptor()
    return vector + encryptor.update(plain + os.urandom(missing - 1) + bytes([last]))


def tarball(name: str, files: Mapping[str, bytes]) -> bytes:
    """Make a .tgz of the directory *name* as Python 2's tarfile did."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        root = tarfile.TarInfo(name)
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(root)
        for path, content in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mode, member.mtime = len(content), 0o640, 1370373055
            archive.addfile(member, io.BytesIO(content))
    return stored.getvalue()


def value(content: object, *, compress: bool = True, password: str = "") -> bytes:
    """Make an object of 0.6.0's KeyValue."""
    text = json.dumps(content).encode()
    if compress:
        text = gzip.compress(text)
    return beefish(text, password) if password else text


class Legacy:
    """The catalog and the bucket of a host that has run bakthat 0.6.0."""

    def __init__(self, conf: dict[str, Any], catalog: Path) -> None:
        self.conf = {**conf, "database": str(catalog)}
        self._client = client_of(conf)
        self._client.create_bucket(Bucket=conf["s3_bucket"])
        self._catalog = catalog
        with sqlite3.connect(catalog) as database:
            database.executescript(SCHEMA_060)
        database.close()

    def store(self, stored: str, name: str, body: bytes, metadata: object, date: int) -> None:
        """Put an object into the bucket, and its row into the catalog."""
        self._client.put_object(Bucket=self.conf["s3_bucket"], Key=stored, Body=body)
        place = self.conf["access_key"] + self.conf["s3_bucket"]
        row = {
            "backend": "s3",
            "backend_hash": hashlib.sha512(place.encode()).hexdigest(),
            "backup_date": date,
            "filename": name,
            "is_deleted": 0,
            "last_updated": date,
            "metadata": json.dumps(metadata),
            "size": len(body),
            "stored_filename": stored,
            "tags": "",
        }
        columns, places = ", ".join(row), ", ".join("?" * len(row))
        with sqlite3.connect(self._catalog) as database:
            database.execute(f"INSERT INTO backups ({columns}) VALUES ({places})", [*row.values()])
        database.close()

    def stored(self) -> list[str]:
        """Return the keys in the bucket, without those of indexes."""
        listed = self._client.list_objects_v2(Bucket=self.conf["s3_bucket"])
        keys = sorted(each["Key"] for each in listed.get("Contents", ()))
        return [each for each in keys if not is_index_key(each)]

    def alive(self) -> list[str]:
        """Return the stored names that the catalog does not mark as deleted, by plain SQL."""
        with sqlite3.connect(self._catalog) as database:
            rows = database.execute("SELECT stored_filename FROM backups WHERE is_deleted = 0")
            found = sorted(row[0] for row in rows)
        database.close()
        return found


def client_of(conf: dict[str, Any]) -> Any:
    """Return a client of boto3, independent of bakthat."""
    from tests.support.servers import plain_client

    return plain_client(conf["endpoint_url"], conf["access_key"], conf["secret_key"])
