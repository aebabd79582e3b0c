"""Somebody with the access keys of a bucket that keeps versions, and with boto3."""

from __future__ import annotations

from typing import Any

from tests.support.profiles import Conf
from tests.support.servers import plain


class Attacker:
    """Deletes and overwrites objects; *conf* is the profile whose keys were stolen."""

    def __init__(self, conf: Conf) -> None:
        self.client = plain(conf)
        self.bucket = conf["s3_bucket"]

    def make_bucket(self, *, object_lock: bool = False) -> None:
        """Make the bucket, which keeps versions."""
        self.client.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=object_lock)
        self.keep_versions()

    def keep_versions(self, status: str = "Enabled") -> None:
        """Let the bucket keep versions from now on, or no more where that is "Suspended"."""
        self.client.put_bucket_versioning(
            Bucket=self.bucket, VersioningConfiguration={"Status": status}
        )

    def stored(self) -> list[str]:
        """Return the keys that are there, those of indexes included."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def delete(self, *keys: str) -> None:
        """Delete *keys* as anybody does, which leaves delete markers."""
        for key in keys:
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def overwrite(self, key: str, content: bytes = b"garbage", *, forged: bool = False) -> None:
        """Write other content; if it is *forged*, with the self-description of what is there."""
        metadata = self.head(key)["Metadata"] if forged else {}
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, Metadata=metadata)

    def purge(self, key: str) -> None:
        """Delete every version and marker of a key."""
        for each in self.versions(key):
            self.client.delete_object(Bucket=self.bucket, Key=key, VersionId=each["VersionId"])

    def head(self, key: str, **which: Any) -> dict[str, Any]:
        """Return the headers of a key."""
        found: dict[str, Any] = self.client.head_object(Bucket=self.bucket, Key=key, **which)
        return found

    def content(self, key: str) -> bytes:
        """Return the content of a key."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def versions(self, key: str) -> list[dict[str, Any]]:
        """Return the versions and the delete markers of a key."""
        pages = self.client.get_paginator("list_object_versions").paginate(
            Bucket=self.bucket, Prefix=key
        )
        return [
            each
            for page in pages
            for kind in ("Versions", "DeleteMarkers")
            for each in page.get(kind, ())
            if each["Key"] == key
        ]

    def now(self) -> float:
        """Return a time of the storage's clock after all that was written, and before the rest."""

        def written() -> float:
            self.client.put_object(Bucket=self.bucket, Key="clock", Body=b"")
            return float(self.head("clock")["LastModified"].timestamp())

        # Its times have whole seconds, so the next one is waited for.
        first = last = written()
        while last == first:
            last = written()
        return first
