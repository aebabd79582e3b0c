"""SeaweedFS as an account at AWS: a proxy before it enforces the policies of users and buckets."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.policy_proxy import PolicyProxy
from tests.support.servers import ROLES, S3Server, plain_client

_STRUCTURES = frozenset({"LifecycleConfiguration", "VersioningConfiguration"})
"""Options of the program ``aws`` that are no text."""


class GuardedAccount:
    """An account whose users are made as on a page; its root has every right."""

    def __init__(self, server: S3Server, proxy: PolicyProxy) -> None:
        self.proxy = proxy
        self.root = {"access_key": server.access_key, "secret_key": server.secret_key}
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        proxy.users[server.access_key] = {"Version": "2012-10-17", "Statement": [everything]}
        self._users: dict[str, dict[str, str]] = {}

    @property
    def endpoint_url(self) -> str:
        """The address of its S3."""
        return self.proxy.endpoint_url

    def keys_of(self, user: str) -> dict[str, str]:
        """Return the access keys of a user, who has no right before there is a policy."""
        if user not in self._users:
            self._users[user] = S3Server.keys_of(ROLES[len(self._users)])
        return self._users[user]

    def client(self, keys: dict[str, str]) -> Any:
        """Return a client of boto3 with the keys of somebody, through the proxy."""
        return plain_client(self.endpoint_url, keys["access_key"], keys["secret_key"])

    def call(self, typed: str, path: Callable[[str], Path]) -> None:
        """Do what the program ``aws`` would do; *path* finds its files.

        *typed* is one command, or a loop ``for NAME in WORDS; do COMMANDS; done``.
        """
        typed = typed.replace("\\\n", "")
        loop = re.fullmatch(r"for (\w+) in ([^;]+); do (.+); done", typed.strip())
        if loop is None:
            self._call(typed, path)
            return
        for word in loop[2].split():
            for command in loop[3].split(";"):
                self._call(re.sub(rf"\${loop[1]}\b", word, command), path)

    def _call(self, command: str, path: Callable[[str], Path]) -> None:
        program, service, operation, *arguments = shlex.split(command)
        assert program == "aws"
        options = _options_of(arguments)
        for name, value in options.items():
            if isinstance(value, str) and value.startswith("file://"):
                options[name] = path(value.removeprefix("file://")).read_text()
        if service == "iam":
            keys = self.keys_of(options["UserName"])
            if operation == "put-user-policy":
                self.proxy.allow(keys["access_key"], json.loads(options["PolicyDocument"]))
            return
        client = self.client(self.root)
        if operation == "put-bucket-policy":
            self.proxy.protect(options["Bucket"], json.loads(options["Policy"]))
            return
        given: dict[str, Any] = dict(options)
        for name in _STRUCTURES & given.keys():
            given[name] = _structure(given[name])
        getattr(client, operation.replace("-", "_"))(**given)


def _options_of(arguments: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while arguments:
        name = "".join(map(str.capitalize, arguments.pop(0).removeprefix("--").split("-")))
        has_value = arguments and not arguments[0].startswith("--")
        found[name] = arguments.pop(0) if has_value else True
    return found


def _structure(text: str) -> Any:
    """Return a structure that is given as JSON or as ``Name=value``."""
    return json.loads(text) if text.startswith("{") else dict([text.split("=", 1)])
