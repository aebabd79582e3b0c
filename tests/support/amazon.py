"""moto as an account at AWS: its users have the rights that their policies give them."""

from __future__ import annotations

import json
import shlex
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Amazon:
    """An account at AWS, which asks for the rights of its users; its root has every right."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        made = self.client("iam", "any-key", "any-secret")
        made.create_user(UserName="root")
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        self._allow(made, "root", {"Version": "2012-10-17", "Statement": [everything]})
        self.keys = self._keys_of(made, "root")
        request = urllib.request.Request(
            f"{endpoint_url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()

    def client(self, service: str, access_key: str, secret_key: str) -> Any:
        """Return a client of boto3 for one of its services, with the keys of a user."""
        import boto3

        sessions: Any = boto3.session  # its stubs have an overload for each service
        return sessions.Session().client(
            service,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name="us-east-1",
        )

    @staticmethod
    def _allow(iam: Any, user: str, policy: dict[str, Any]) -> None:
        iam.put_user_policy(UserName=user, PolicyName="backups", PolicyDocument=json.dumps(policy))

    @staticmethod
    def _keys_of(iam: Any, user: str) -> tuple[str, str]:
        made = iam.create_access_key(UserName=user)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def call(self, command: str, path: Callable[[str], Path]) -> None:
        """Send what the program ``aws`` would send for *command*; *path* finds its files."""
        service, operation, *arguments = shlex.split(command.replace("\\\n", ""))[1:]
        if (service, operation) == ("s3", "mb"):
            bucket = arguments[0].removeprefix("s3://")
            self.client("s3", *self.keys).create_bucket(Bucket=bucket)
            return
        client = self.client(service, *self.keys)
        options = {
            "".join(map(str.capitalize, name.removeprefix("--").split("-"))): value
            for name, value in zip(arguments[::2], arguments[1::2], strict=True)
        }
        for name, value in options.items():
            if value.startswith("file://"):
                options[name] = path(value.removeprefix("file://")).read_text()
        getattr(client, operation.replace("-", "_"))(**options)

    def user(self, name: str, policy: str) -> tuple[str, str]:
        """Make a user with *policy*, and return its keys."""
        iam = self.client("iam", *self.keys)
        iam.create_user(UserName=name)
        self._allow(iam, name, json.loads(policy))
        return self._keys_of(iam, name)
