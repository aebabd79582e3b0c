"""A bucket whose users have the rights that ``bakthat policy`` prints, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bakthat
from tests.support.policy_proxy import PolicyProxy, policy_proxy
from tests.support.profiles import Conf
from tests.support.servers import ROLES, S3Server, plain_client


@dataclass(frozen=True)
class Guarded:
    """A bucket behind the proxy. All profiles but :attr:`admin` go through it."""

    proxy: PolicyProxy
    admin: Conf
    """A flat profile with all rights."""
    more: Conf
    """What the profiles of all roles have besides."""

    def conf(self, role: str, **more: Any) -> Conf:
        """Return the flat profile of a role."""
        keys = S3Server.keys_of(role)
        own = {"endpoint_url": self.proxy.endpoint_url, **keys}
        return {**self.admin, **own, **self.more, **more}

    def print_policies(self, **more: Any) -> None:
        """Enforce the policies that are printed for the profile of this host and *more* from now.

        The profile is one for AWS, so that they demand TLS too.
        """
        conf = {**self.conf("writer"), **more}
        del conf["endpoint_url"]
        for role in ROLES:
            printed = bakthat.access_policy(role, conf=conf)
            self.proxy.allow(S3Server.keys_of(role)["access_key"], printed["iam"])
            self.proxy.protect(conf["s3_bucket"], printed["bucket"])

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return str(self.admin["s3_bucket"])

    @property
    def s3(self) -> Any:
        """A client of boto3 with all rights, independent of bakthat."""
        return _client(self.admin)

    def s3_of(self, role: str) -> Any:
        """Return a client of boto3 with the keys of a role, through the proxy."""
        return _client(self.conf(role))

    def stored(self) -> list[str]:
        """Return the keys of all objects."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return sorted(each["Key"] for each in listed)

    def versions(self) -> list[tuple[str, str]]:
        """Return key and id of all versions and markers."""
        page = self.s3.list_object_versions(Bucket=self.bucket)
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        return sorted((each["Key"], each["VersionId"]) for each in found)


def _client(conf: Conf) -> Any:
    return plain_client(conf["endpoint_url"], conf["access_key"], conf["secret_key"])


@contextmanager
def guarded_bucket(conf: Conf, *, locks: bool = False, **more: Any) -> Iterator[Guarded]:
    """Make the bucket of *conf*, which keeps versions, and guard it until the block ends.

    With *locks*, it has object lock. The profiles of the roles have *more* besides.
    """
    client = _client(conf)
    client.create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=locks)
    if not locks:
        client.put_bucket_versioning(
            Bucket=conf["s3_bucket"], VersioningConfiguration={"Status": "Enabled"}
        )
    with policy_proxy(conf["endpoint_url"]) as proxy:
        guarded = Guarded(proxy, conf, more)
        guarded.print_policies()
        yield guarded
