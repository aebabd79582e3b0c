"""moto's S3 with the keys of users whose rights it checks, as AWS does."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.profiles import Conf
from tests.support.servers import S3Server, moto_server


@dataclass(frozen=True)
class CheckedServer:
    """A server that checks signatures and rights, but those of the tests' own requests."""

    server: S3Server

    def conf(self, *statements: dict[str, Any], region: str = "us-east-1", **more: Any) -> Conf:
        """Return a flat profile with a new bucket, and a new user whose policy has *statements*.

        ``{bucket}`` in their resources is filled in.
        """
        conf = self.server.conf(**more)
        where = {} if region == "us-east-1" else {"LocationConstraint": region}
        more_of_bucket: dict[str, Any] = {"CreateBucketConfiguration": where} if where else {}
        name = f"user-{uuid.uuid4().hex[:8]}"
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        with self.unchecked():
            self.s3().create_bucket(Bucket=conf["s3_bucket"], **more_of_bucket)
            iam = self._iam()
            iam.create_user(UserName=name)
            text = json.dumps(policy).replace("{bucket}", conf["s3_bucket"])
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=text)
            key = iam.create_access_key(UserName=name)["AccessKey"]
        return {**conf, "access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}

    def allowing(self, actions: Sequence[str], **more: Any) -> Conf:
        """Return a flat profile with a new bucket, and a user who may do *actions* with it."""
        resources = ["arn:aws:s3:::{bucket}", "arn:aws:s3:::{bucket}/*"]
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": resources}
        return self.conf(statement, **more)

    def s3(self) -> Any:
        """Return a client of boto3, for requests within :meth:`unchecked`."""
        import boto3

        return boto3.client("s3", **self._options())

    def _iam(self) -> Any:
        import boto3

        return boto3.client("iam", **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "endpoint_url": self.server.endpoint_url,
            "aws_access_key_id": self.server.access_key,
            "aws_secret_access_key": self.server.secret_key,
            "region_name": "us-east-1",
        }

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """Check nothing during the block."""
        self._check_after("inf")
        try:
            yield
        finally:
            self._check_after("0")

    def _check_after(self, requests: str) -> None:
        url = f"{self.server.endpoint_url}/moto-api/reset-auth"
        request = urllib.request.Request(url, requests.encode(), {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request):
            return


@contextmanager
def checked_server(home: Path) -> Iterator[CheckedServer]:
    """Run moto's server, which checks every request, until the block ends."""
    with moto_server(home) as server:
        yield CheckedServer(server)
