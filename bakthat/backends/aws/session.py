"""The settings of a service of AWS, and the session of botocore that has its keys.

With a role, these are the keys that STS gives out for it. They are renewed before they expire, also
during a transfer.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Self

from bakthat.backends.aws.network import host_of
from bakthat.backends.base import required
from bakthat.errors import ConfigError
from bakthat.policy.defaults import DEFAULT_ATTEMPTS, DEFAULT_REGION, DEFAULT_TIMEOUT
from bakthat.system.bandwidth import bytes_per_second

MAX_CONNECT_TIMEOUT = 10.0
"""Seconds; a storage that takes longer to accept a connection is hardly ever just slow."""

UPLOAD_WORKERS = 4
READ_AHEAD = 3
CONNECTION_BANDWIDTH = 2 * 1024 * 1024
"""Bytes per second for which one connection is enough.

When more connections share a low limit, each part takes longer: the server may give up on it, and
the progress comes in bursts."""

MAX_SESSION_NAME = 64
"""The most characters of the name of a role's session, and below what it must not have:
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html."""
_NOT_IN_SESSION_NAME = re.compile(r"[^A-Za-z0-9_+=,.@-]")
_KEYS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
_AMAZONS_HOST = re.compile(r"(^|\.)(amazonaws\.com|amazonaws\.com\.cn|api\.aws)(:\d+)?$")


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """How to reach one container of a service, and how to transfer objects."""

    container: str
    access_key: str | None = None
    """None: botocore looks for the keys, as usual."""
    secret_key: str | None = field(default=None, repr=False)
    role_arn: str | None = None
    """The role that the keys assume; None: they are used themselves."""
    role_session_name: str = "bakthat"
    """The name by which the log of the account tells who has assumed the role."""
    region: str = DEFAULT_REGION
    endpoint_url: str | None = None
    max_attempts: int = DEFAULT_ATTEMPTS
    """Attempts of each request, the first one included."""
    connect_timeout: float = MAX_CONNECT_TIMEOUT
    """Seconds."""
    read_timeout: float = DEFAULT_TIMEOUT
    """Seconds."""
    part_size: int | None = None
    """Bytes of the smallest part of an upload; None: the service's default."""
    upload_workers: int = UPLOAD_WORKERS
    range_size: int = 8 * 1024 * 1024
    """Bytes of each request of a download."""
    read_ahead: int = READ_AHEAD
    """The number of ranges that are fetched before they are read."""
    page_size: int = 1000
    """Entries of a page of a listing, where the service accepts a number."""
    bandwidth: int | None = None
    """Bytes per second, of all uploads together, and as many of all downloads; None: no limit."""

    @classmethod
    def from_profile(
        cls, conf: Mapping[str, Any], *, container: str, endpoint_url: str, **more: Any
    ) -> Self:
        """Return the settings in the flat profile *conf*.

        *container* and *endpoint_url* are the names of the profile's keys for these two; *more* are
        settings of the service alone. Raises ConfigError when the container, or one of the two
        access keys, is missing.
        """
        name = required(conf, container)
        access_key, secret_key = conf.get("access_key"), conf.get("secret_key")
        if bool(access_key) != bool(secret_key):
            given, missing = (
                ("access_key", "secret_key") if access_key else ("secret_key", "access_key")
            )
            raise ConfigError(
                f"'{missing}' is not set, but '{given}' is",
                hint="set both access_key and secret_key in the profile; with neither, boto3 looks "
                "for keys",
            )
        timeout = conf.get("timeout") or DEFAULT_TIMEOUT
        bandwidth = bytes_per_second(conf["bandwidth"]) if conf.get("bandwidth") else None
        most = max(1, bandwidth // CONNECTION_BANDWIDTH) if bandwidth else UPLOAD_WORKERS
        return cls(
            container=name,
            access_key=access_key or None,
            secret_key=secret_key or None,
            role_arn=conf.get("role_arn") or None,
            role_session_name=_session_name(conf.get("host") or socket.gethostname()),
            region=conf.get("region_name") or DEFAULT_REGION,
            endpoint_url=conf.get(endpoint_url) or None,
            max_attempts=conf.get("attempts") or DEFAULT_ATTEMPTS,
            connect_timeout=min(timeout, MAX_CONNECT_TIMEOUT),
            read_timeout=timeout,
            upload_workers=min(UPLOAD_WORKERS, most),
            read_ahead=min(READ_AHEAD, most),
            bandwidth=bandwidth,
            **more,
        )


class Session:
    """A session of botocore with the keys of *settings*; one thread at a time makes clients of it.

    Nothing is sent before a client sends something.
    """

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        self.identity = ""
        """The ARN of the role's session; "" before a request, and without a role."""
        self._own = self._new()
        if settings.access_key is not None:
            self._own.set_credentials(settings.access_key, settings.secret_key)
        self._used = self._own if settings.role_arn is None else self._with_role()

    def create_client(self, service: str, **options: Any) -> Any:
        """Return botocore's client of a service."""
        return self._used.create_client(service, region_name=self._settings.region, **options)

    def own_keys(self) -> Any:
        """Return botocore's credentials, which may assume a role; None where there are none."""
        return self._own.get_credentials()

    def _new(self) -> Any:
        # botocore without boto3: nothing that boto3 adds is needed, and loading it takes 20 ms.
        import botocore.session

        session = botocore.session.Session()
        loader = _loader_of(session.get_config_variable("data_path"))
        session.register_component("data_loader", loader)
        # Of the services that give out keys; without it they have none.
        session.set_config_variable("region", self._settings.region)
        return session

    def _with_role(self) -> Any:
        from botocore.credentials import (
            CredentialProvider,
            CredentialResolver,
            DeferredRefreshableCredentials,
        )

        keys = DeferredRefreshableCredentials(self._assumer(), "assume-role")

        class RoleProvider(CredentialProvider):
            METHOD = "assume-role"

            def load(self) -> Any:
                return keys

        session = self._new()
        session.register_component("credential_provider", CredentialResolver([RoleProvider()]))
        return session

    def _assumer(self) -> Any:
        """Return what requests new keys of the role, in the form that botocore needs them."""
        from botocore.exceptions import CredentialRetrievalError

        settings, sts = self._settings, self._sts_client()

        def assume() -> dict[str, Any]:
            try:
                answer = sts.assume_role(
                    RoleArn=settings.role_arn, RoleSessionName=settings.role_session_name
                )
                found = answer["Credentials"]
                access_key, secret_key, token = (found[name] for name in _KEYS)
                expires = found["Expiration"]
            except LookupError as exc:  # botocore's parser raises it, too
                reason = f"the answer to {settings.role_arn} has no keys"
                raise CredentialRetrievalError(provider="role_arn", error_msg=reason) from exc
            if expires <= datetime.now(UTC):
                reason = (
                    f"those of {settings.role_arn} have expired already by this machine's clock"
                )
                raise CredentialRetrievalError(provider="role_arn", error_msg=reason)
            self.identity = str((answer.get("AssumedRoleUser") or {}).get("Arn") or "")
            return {
                "access_key": access_key,
                "secret_key": secret_key,
                "token": token,
                "expiry_time": expires.isoformat(),
            }

        return assume

    def _sts_client(self) -> Any:
        """Return botocore's client of STS: of the one that it is configured for, or the storage's.

        Storages with the API of S3 give out keys at their own address.
        """
        from botocore.config import Config

        settings = self._settings
        config = Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
            user_agent_extra="bakthat",
        )
        create = partial(self._own.create_client, "sts", region_name=settings.region, config=config)
        client, endpoint_url = create(), settings.endpoint_url
        if endpoint_url and _is_amazons(client.meta.endpoint_url) and not _is_amazons(endpoint_url):
            return create(endpoint_url=endpoint_url)
        return client


@cache
def _loader_of(path: str | None) -> Any:
    """Return what loads botocore's models of the services, for all sessions of the process.

    To parse them takes longer than a request, and a command may make many sessions.
    """
    from botocore.loaders import create_loader

    return create_loader(path)


def _session_name(host: str) -> str:
    return _NOT_IN_SESSION_NAME.sub("-", f"bakthat-{host}")[:MAX_SESSION_NAME]


def _is_amazons(url: str) -> bool:
    return _AMAZONS_HOST.search(host_of(url).lower()) is not None
