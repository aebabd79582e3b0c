"""Access a service of AWS: settings, the client, and its errors translated to bakthat's."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from bakthat.backends.aws.answers import details_of, one_line, refusal_of
from bakthat.backends.aws.limited_body import LimitedBody
from bakthat.backends.aws.network import (
    ENDPOINT_KEY,
    foreign_answer,
    host_of,
    is_of_parser,
    not_the_service,
    reason_of_failure,
)
from bakthat.backends.aws.permissions import (
    action_of,
    arn,
    is_about_permission,
    key_hint,
)
from bakthat.backends.aws.session import AwsSettings, Session
from bakthat.errors import (
    BakthatError,
    ConfigError,
    CredentialsError,
    StorageError,
    UnreachableError,
)
from bakthat.system.bandwidth import Bandwidth
from bakthat.system.text import reason_of, shortage_error

_KEYS_HINT = (
    "set access_key and secret_key in the profile, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY in the environment, or what else boto3 looks for"
)
_LOGIN_HINT = "log in again with: aws sso login"
_ROLE_HINT = (
    "allow the keys sts:AssumeRole on {}, and name them in the trust policy of the role; check "
    "role_arn"
)
_ROLE_KEYS_HINT = (
    "the storage does not accept the keys of the role: check role_arn, and that "
    "AWS_ENDPOINT_URL_STS, where it is set, is the service that gives out keys for the storage"
)
_STS_HINT = (
    "check role_arn; AWS_ENDPOINT_URL_STS is the address of the service that gives out keys, if it "
    "is not the storage's own"
)
_KEY_OPERATIONS = frozenset(
    {
        "AssumeRole",
        "AssumeRoleWithWebIdentity",
        "AssumeRoleWithSAML",
        "GetRoleCredentials",
        "CreateToken",
    }
)
"""The requests by which botocore gets keys from other services."""

_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {"RequestTimeout", "RequestTimeoutException", "SlowDown", "InternalError", "Throttling"}
    | {"ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable", "OperationAborted"}
)
"""Failures of a service that pass by themselves, by their status or by their code."""


class TransferCancelledError(StorageError):
    """The transfer that this request belongs to was aborted."""


class AwsClient(ABC):
    """One container of one service, reached through botocore; safe to share between threads.

    botocore is imported, and the storage contacted, by the first request. Subclasses define the
    service, the parameters that name container and key, and the meaning of its errors.
    """

    service = ""
    container_word = ""
    """What the service calls the container: "bucket" or "vault"."""
    endpoint_key = ENDPOINT_KEY
    """The profile's key of the endpoint."""
    profile_keys = ""
    """The profile's keys that may be wrong when the container is not found, for a hint."""

    def __init__(self, settings: AwsSettings) -> None:
        self.settings = settings
        self.container = settings.container
        self._clients: dict[int, Any] = {}
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._thread = threading.local()
        limit = settings.bandwidth
        self.uploads = None if limit is None else Bandwidth(limit)
        """The limit of the bodies that are sent; None: there is none."""
        self.downloads = None if limit is None else Bandwidth(limit)
        """The limit of the objects that are read."""

    @property
    def place(self) -> str:
        """Where the container is, for messages: the endpoint without a password, or the region."""
        if self.settings.endpoint_url is None:
            return f"in {self.settings.region}"
        try:
            parts = urlsplit(self.settings.endpoint_url)
            if parts.scheme and parts.hostname:
                return f"at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        except ValueError:
            pass
        return "at the endpoint_url of the profile"

    @property
    def shown(self) -> str:
        """The container and where it is, for messages."""
        return f"{self.container_word} {self.container!r} {self.place}"

    def call(
        self,
        operation: str,
        *,
        key: str | None = None,
        cancelled: threading.Event | None = None,
        once: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Make one request on the container, or about *key* in it, and return botocore's answer.

        Once *cancelled* is set, nothing more is sent, retries included. With *once*, the request is
        never repeated: a second one would be charged again. Raises TransferCancelledError,
        StorageError and its other subclasses, and ConfigError when a setting is invalid.
        """
        self._thread.cancelled = cancelled
        try:
            method = getattr(self._client(1 if once else None), operation)
            answer: dict[str, Any] = method(**self._in_container(key), **parameters)
        except foreign_errors() as exc:
            raise self.translated_error(exc, key) from exc
        finally:
            self._thread.cancelled = None
        return answer

    def pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield every page of a listing, one request each. Raises as :meth:`call` does."""
        try:
            paginator = self._client().get_paginator(operation)
            pages = iter(paginator.paginate(**self._in_container(None), **parameters))
        except foreign_errors() as exc:
            raise self.translated_error(exc, None) from exc
        while True:
            try:
                page = next(pages, None)
            except foreign_errors() as exc:
                raise self.translated_error(exc, None) from exc
            if page is None:
                return
            yield page

    def translated_error(self, exc: Exception, key: str | None) -> BakthatError:
        """Return the error of bakthat for *exc*, an exception of botocore or the network.

        *key* is the key of the request, None for one on the container. The caller raises the error
        ``from exc``.
        """
        from botocore import exceptions as boto

        shortage = shortage_error(exc)
        if shortage is not None:
            return shortage
        if isinstance(exc, boto.ClientError):
            if exc.operation_name in _KEY_OPERATIONS:
                return self._refused_keys_error(exc)
            error = self._answer_error(exc, key)
            if isinstance(error, StorageError):
                answer = exc.response
                status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                code = answer.get("Error", {}).get("Code", "")
                error.may_pass |= status in _PASSING_STATUSES or code in _PASSING_CODES
            return error
        if isinstance(
            exc,
            boto.NoCredentialsError
            | boto.PartialCredentialsError
            | boto.CredentialRetrievalError
            | boto.MetadataRetrievalError
            | boto.NoAuthTokenError
            | boto.SSOError
            | boto.ProfileNotFound
            | boto.TokenRetrievalError
            | boto.InvalidConfigError
            | boto.ConfigParseError
            | boto.ConfigNotFound,
        ):
            is_login = isinstance(exc, boto.NoAuthTokenError | boto.SSOError)
            return self._keys_error(one_line(exc), hint=_LOGIN_HINT if is_login else _KEYS_HINT)
        if isinstance(exc, OSError) and exc.filename is not None:  # such as a web identity token
            return self._keys_error(f"cannot read '{exc.filename}': {reason_of(exc)}")
        if is_of_parser(exc):
            return self._not_the_service("one that cannot be read")
        if isinstance(exc, boto.ParamValidationError | ValueError):
            return ConfigError(
                f"invalid setting for {self.shown}: {one_line(exc)}",
                hint=f"check {self.profile_keys}",
            )
        if isinstance(exc, boto.HTTPClientError | boto.ConnectionError) or not isinstance(
            exc, boto.BotoCoreError
        ):
            # botocore's message may contain the whole URL, and so a password.
            reason = reason_of_failure(exc)
            return UnreachableError(
                f"{self._unreachable(exc)} cannot be reached: {self._own_key(reason.text)}",
                hint=self._own_key(reason.hint),
            )
        return StorageError(
            f"{self.shown} failed: {one_line(exc)}",
            hint=f"check {self.profile_keys}, and try again",
        )

    def _keys_error(self, reason: str, *, hint: str = "") -> CredentialsError:
        return CredentialsError(
            f"no usable keys for {self.shown}: {reason}", hint=hint or _KEYS_HINT
        )

    def _refused_keys_error(self, exc: Any) -> CredentialsError:
        """Return the error for a service that refuses to give out keys."""
        role_arn, refusal = self.settings.role_arn, refusal_of(exc)
        if role_arn is None or exc.operation_name != "AssumeRole":
            return self._keys_error(f"{exc.operation_name}: {refusal}")
        code = str(exc.response.get("Error", {}).get("Code", ""))
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        hint = _ROLE_HINT.format(role_arn) if status == HTTPStatus.FORBIDDEN else _STS_HINT
        own_hint = key_hint(code, in_profile=self.settings.access_key is not None)
        return self._keys_error(
            f"role_arn {role_arn} cannot be assumed: {refusal}", hint=own_hint or hint
        )

    def _unreachable(self, exc: Exception) -> str:
        """Return what cannot be reached: the container, or the service that gives out its keys."""
        url = str(getattr(exc, "kwargs", {}).get("endpoint_url") or "")
        host = host_of(url)
        own = host_of(self.settings.endpoint_url or "")
        is_own = not host or host == own or (not own and self.service in host)
        role_arn = self.settings.role_arn
        what = f"the keys of role_arn {role_arn}" if role_arn else "the keys"
        return self.shown if is_own else f"{host}, which gives out {what} for {self.shown},"

    def _refusal_hint(self, exc: Any, key: str | None) -> str:
        """Return what to do when the service refuses a request with botocore's ClientError."""
        detail = exc.response.get("Error", {})
        hint = key_hint(
            str(detail.get("Code", "")), in_profile=self.settings.access_key is not None
        )
        if hint:
            return hint if self.settings.role_arn is None else _ROLE_KEYS_HINT
        action = action_of(self.service, exc.operation_name, str(detail.get("Message", "")))
        within = ""
        if self.service == "s3" and (key is not None or exc.operation_name == "DeleteObjects"):
            within = f"/{_directory_of(key or '')}*"
        where = arn(self.service, self.settings.region, f"{self.container}{within}")
        if action.startswith("kms:"):
            where = "the key of sse_kms_key_id, or of the bucket"
        whose = "the access keys" if self.settings.role_arn is None else "the role"
        return f"allow {action} on {where}, in the policy of {whose}"

    def missing_action(self, error: BakthatError) -> str:
        """Return the action that *error* says is not allowed; "" when it says something else.

        A refusal because of wrong keys is something else.
        """
        status, code = answer_of(error)
        words = details_of(error)
        is_refusal = isinstance(error, CredentialsError) and status
        if not (is_refusal and is_about_permission(code, words)):
            return ""
        return action_of(self.service, getattr(error.__cause__, "operation_name", ""), words)

    @abstractmethod
    def _in_container(self, key: str | None) -> dict[str, Any]:
        """Return botocore's parameters that name the container and *key*."""

    @abstractmethod
    def _answer_error(self, exc: Any, key: str | None) -> BakthatError:
        """Return the error of bakthat for an error answer of the service."""

    def _client_config(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration of botocore's client; *shared* is that of every service."""
        return shared

    def _prepare(self, client: Any) -> None:  # noqa: B027  # a hook that few services need
        """Register what the service needs with botocore's client."""

    def _client(self, max_attempts: int | None = None) -> Any:
        attempts = max_attempts or self.settings.max_attempts
        with self._lock:
            if attempts not in self._clients:
                self._clients[attempts] = self._make_client(attempts)
            return self._clients[attempts]

    def _make_client(self, attempts: int) -> Any:
        _load_hidden()
        from botocore.config import Config

        settings = self.settings
        shared: dict[str, Any] = {
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": settings.connect_timeout,
            "read_timeout": settings.read_timeout,
            "max_pool_connections": settings.upload_workers + settings.read_ahead + 2,
            "tcp_keepalive": True,
            "user_agent_extra": "bakthat",
        }
        client = self._create_client(
            self.service,
            endpoint_url=settings.endpoint_url,
            config=Config(**self._client_config(shared)),
        )
        events = client.meta.events
        events.register(f"before-send.{self.service}", self._refuse_cancelled)
        if self.uploads is not None:
            events.register(f"before-send.{self.service}", self._limit_body)
        events.register_first(f"before-parse.{self.service}", self._check_answer)
        events.register_first(f"needs-retry.{self.service}", self._refuse_final_failure)
        self._prepare(client)
        return client

    def _create_client(self, service: str, **options: Any) -> Any:
        if self._session is None:
            self._session = Session(self.settings)
        return self._session.create_client(service, **options)

    def opened_session(self) -> Session | None:
        """Return the session of its requests; None before one."""
        with self._lock:
            return self._session

    def client_of(self, service: str, seconds: float) -> Any:
        """Return botocore's client of another service, which sends each request once.

        It waits *seconds* for an answer.
        """
        _load_hidden()
        from botocore.config import Config

        once: Any = {"mode": "standard", "total_max_attempts": 1}
        config = Config(connect_timeout=seconds, read_timeout=seconds, retries=once)
        with self._lock:
            return self._create_client(service, config=config)

    def _check_answer(self, response_dict: dict[str, Any], **_: Any) -> None:
        """Raise StorageError for an answer that is not of the service."""
        body = response_dict.get("body")  # a stream, if the operation reads an object
        error = foreign_answer(
            self.shown,
            int(response_dict["status_code"]),
            response_dict["headers"],
            body if isinstance(body, bytes) else b"",
        )
        if error is not None:
            error.hint = self._own_key(error.hint)
            raise error

    def _not_the_service(self, what: str) -> StorageError:
        error = not_the_service(self.shown, what)
        error.hint = self._own_key(error.hint)
        return error

    def _own_key(self, text: str) -> str:
        """Return *text* of the module network with the key that this service's endpoint has."""
        return text.replace(ENDPOINT_KEY, self.endpoint_key)

    def _refuse_final_failure(self, caught_exception: Any = None, **_: Any) -> None:
        if caught_exception is None:
            return
        self._refuse_cancelled()  # otherwise botocore would first pause
        # Otherwise botocore would try an invalid certificate eight times.
        if reason_of_failure(caught_exception).is_final:
            raise caught_exception

    def answer_member(self, answer: Mapping[str, Any], name: str) -> str:
        """Return a member that an answer of the service always has. Raises StorageError."""
        if not answer.get(name):
            raise self._not_the_service(f"one without {name}")
        return str(answer[name])

    def _refuse_cancelled(self, **_: Any) -> None:
        # botocore calls this in the thread of the request, before each attempt. Without it, an
        # aborted transfer would be retried for minutes while the caller waits.
        cancelled = getattr(self._thread, "cancelled", None)
        if cancelled is not None and cancelled.is_set():
            raise TransferCancelledError("the transfer was aborted")

    def _limit_body(self, request: Any, **_: Any) -> None:
        # Here, since botocore has read the whole body before, to sign it. Each attempt counts.
        limit, cancelled = self.uploads, getattr(self._thread, "cancelled", None)
        if limit is None or not request.body:
            return

        def wait(count: int) -> None:
            limit.wait(count, cancelled)
            self._refuse_cancelled()  # the body is sent in the thread of the request, too

        request.body = LimitedBody(request.body, limit.piece, wait)


def _load_hidden() -> None:
    """Load what urllib3 needs, since it hides that memory or a descriptor is lacking for it."""
    for name in ("ssl", "encodings.idna"):
        import_module(name)


def foreign_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of botocore and the layers below it.

    Call it only in the ``except`` clause of a request, which has imported botocore already.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    # ValueError: botocore's "Invalid endpoint", host names that IDNA refuses, and numbers in an
    # answer that are none.
    return (ClientError, BotoCoreError, ResponseParserError, HTTPError, OSError, ValueError)


def answer_of(error: BaseException) -> tuple[int, str]:
    """Return the HTTP status and the service's code of *error*; 0 and "" without an answer."""
    answer = getattr(error.__cause__, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, str(answer.get("Error", {}).get("Code", ""))


def _directory_of(key: str) -> str:
    """Return *key* up to its last slash, this included."""
    return key[: key.rfind("/") + 1]
