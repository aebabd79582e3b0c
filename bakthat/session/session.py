"""The profile, backends and catalog of an operation, and the events that it fires."""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from bakthat.backends import make_backend
from bakthat.backends.base import Backend, container_identity
from bakthat.conf import LoadedProfile, load_profile, machine_name
from bakthat.conf.secrets import read_secret
from bakthat.database.address import Location, location_of
from bakthat.errors import BakthatError, UsageError
from bakthat.hooks import Events, EventSlot, events
from bakthat.plugin import activate_plugins
from bakthat.policy import settings
from bakthat.policy.defaults import DESTINATIONS
from bakthat.system.paths import cache_directory, expanded
from bakthat.system.text import shortage_error

log = logging.getLogger("bakthat")
result_log = logging.getLogger("bakthat.results")
"""One line about the result of each operation. The command line prints a summary instead."""

Result = TypeVar("Result")


class Session:
    """The profile, the backends and the catalog of one operation. Holds nothing open."""

    def __init__(
        self,
        profile: str,
        config: str | os.PathLike[str] | None,
        conf: Mapping[str, Any] | None,
        destination: str | None = None,
        *,
        host: str | None = None,
        loaded: LoadedProfile | None = None,
        patience: float | None = None,
    ) -> None:
        """Load the profile, unless it is *loaded*, and activate its plugins.

        *destination* None or "" means the profile's default. *host* overrides the name of this
        host. *patience* is how many seconds a program of the profile that prints a secret may
        take; None is for ever. Raises ConfigError, UsageError.
        """
        problem = settings.host(host) if host is not None else None
        if problem is not None:
            raise UsageError(f"the name of the host {problem.text}", hint=problem.hint)
        self.loaded = loaded or load_profile(profile, config=config, conf=conf)
        self.profile = self.loaded.profile
        if destination and destination not in DESTINATIONS:
            raise UsageError(
                f"there is no destination '{destination}'",
                hint=f"use one of: {', '.join(DESTINATIONS)}",
            )
        self.named_destination = destination or None
        self.destination = destination or self.profile.default_destination
        self._host = host or self.profile.host
        self._patience = patience
        self.plugins = activate_plugins(self.loaded, patience=patience)
        self._backends: dict[tuple[Any, ...], Backend] = {}

    @cached_property
    def host(self) -> str:
        """The name of this host, by default the machine's. Each host has sets of its own."""
        return self._host or machine_name()

    @property
    def prefix(self) -> str:
        """What every new key begins with."""
        return self.prefix_of(None)

    def prefix_of(self, host: str | None) -> str:
        """Return what every new key of a host begins with, by default of this one."""
        return self.profile.prefix.replace(settings.HOST_PLACEHOLDER, host or self.host)

    @property
    def shared_prefix(self) -> str:
        """What the keys of all hosts begin with. Other objects of the container are ignored."""
        return self.profile.prefix.partition(settings.HOST_PLACEHOLDER)[0]

    def secret(self, key: str) -> Any:
        """Return the value of a key of the profile that may be a secret. Raises ConfigError."""
        return read_secret(self.loaded, key, timeout=self._patience)

    @cached_property
    def catalog(self) -> Location:
        """The path of the catalog, or the address of its server. Raises ConfigError when it cannot
        be read."""
        return location_of(self.secret("database"))

    def beside_catalog(self, name: str) -> Path:
        """Return the path, on this machine, of what belongs to the catalog, such as "locks"."""
        if isinstance(self.catalog, Path):
            return Path(f"{self.catalog}.{name}")
        return expanded(f"~/.bakthat-{self.catalog.digest}.{name}")

    @property
    def catalog_directory(self) -> Path:
        """The directory, on this machine, of the catalog and of what belongs to it."""
        return self.beside_catalog("").parent

    @property
    def may_have_catalog(self) -> bool:
        """Whether there is a catalog, as far as can be told without opening it."""
        return not isinstance(self.catalog, Path) or os.path.lexists(self.catalog)

    def unvisited(self, destination: str, source: Path) -> dict[tuple[int, int], str]:
        """Return device and inode of each directory below *source* whose content a walk skips, and
        what it is.

        They are the local store, for that destination, and the cache of indexes: each increment
        changes the times of those that it needs, and would store them. The cache is visited where
        it is *source* itself. Raises ConfigError.
        """
        cache = cache_directory()
        directories = [(cache, "bakthat's own cache")] if cache is not None else []
        if destination == "local":
            directories.append((expanded(self.profile.local_path), "the store itself"))
        found = {}
        for each, what in directories:
            with contextlib.suppress(OSError):  # an upload reports a store that is missing
                if each is not cache or not each.samefile(source):
                    status = each.stat()
                    found[status.st_dev, status.st_ino] = what
        return found

    def backend(self, destination: str, **overrides: Any) -> Backend:
        """Return the backend of a destination; *overrides* replace keys of the profile.

        A second call returns the same backend, since botocore takes a tenth of a second to make a
        client. Raises ConfigError.
        """
        key = (destination, *sorted(overrides.items()))
        if key not in self._backends:
            records = None
            if destination == "glacier":
                from bakthat.session.records import vault_records

                records = vault_records(self.catalog)
            conf = self.storage_conf(destination, **overrides)
            backend = self._backends[key] = make_backend(destination, conf, records)
            backend.host = self._host_of_stores if destination == "local" else ""
        return self._backends[key]

    def storage_conf(self, destination: str, **overrides: Any) -> dict[str, Any]:
        """Return the profile with the secret that the storage needs; *overrides* replace keys.

        Raises ConfigError.
        """
        conf = self.profile.as_mapping()
        if destination != "local":
            conf["secret_key"] = self.secret("secret_key")
        return conf | overrides

    def containers(self, *destinations: str) -> list[tuple[str, str]]:
        """Return the pairs of backend and backend_hash that rows of the profile's containers have.

        The hashes are this version's and 0.6.0's. By default all destinations are included.
        """
        from bakthat import models  # a backup loads it after it started the worker process

        pairs = []
        for destination in destinations or DESTINATIONS:
            container = self._container(destination)
            if container is None:
                continue
            pairs.append((destination, models.backend_hash(container)))
            if self.profile.access_key and destination != "local":
                legacy = models.legacy_backend_hash(self.profile.access_key, container)
                pairs.append((destination, legacy))
        return pairs

    def _container(self, destination: str) -> str | None:
        if destination == "s3":
            return self.profile.s3_bucket
        if destination == "glacier":
            return self.profile.glacier_vault
        return container_identity(str(expanded(self.profile.local_path)), self._host_of_stores)

    @property
    def _host_of_stores(self) -> str:
        """The host that its local stores belong to; "" where only this one has the catalog."""
        return "" if isinstance(self.catalog, Path) else self.profile.host or machine_name()


class Operation:
    """A running operation. It calls the callbacks of its events."""

    def __init__(self, name: str, listeners: Sequence[Events]) -> None:
        self.name = name
        self.process = os.getpid()
        self.session_id = str(uuid.uuid4())
        self.has_begun = False
        self.result: object = None
        self.done = ""
        self._listeners = listeners

    def begin(self) -> None:
        """Call the ``before_`` callbacks. Call this before the operation does anything."""
        self.has_begun = True
        for callback in self._callbacks(f"before_{self.name}"):
            callback(self.session_id)

    def finish(self, result: Result, *, done: str) -> Result:
        """Set the result and return it; ``on_`` fires when the operation's block ends.

        Call this as soon as the result is recorded. *done* says what was done: a note of any
        exception that follows, such as that of a callback, has it.
        """
        self.result, self.done = result, done
        return result

    def add_note(self, exc: BaseException) -> None:
        """Add to an exception what was done before it was raised, if anything was."""
        if self.done:
            exc.add_note(f"{self.done} before this happened")

    def fire_result(self) -> None:
        """Call every ``on_`` callback, then raise the first exception, if any."""
        failures: list[Exception] = []
        for callback in self._callbacks(f"on_{self.name}"):
            try:
                callback(self.session_id, self.result)
            except Exception as exc:  # noqa: BLE001  # the other callbacks need the result too
                failures.append(exc)
        for other in failures[1:]:
            _warn("another callback failed", other)
        if failures:
            raise failures[0]

    def fire_error(self, exc: BaseException) -> None:
        """Call every ``on_error`` callback; log their exceptions."""
        for callback in self._callbacks("on_error"):
            try:
                callback(self.session_id, self.name, exc)
            except Exception as other:  # noqa: BLE001  # see above
                _warn("an on_error callback failed", other)

    def _callbacks(self, event: str) -> Iterator[Callable[..., object]]:
        for listener in self._listeners:
            slot: EventSlot[...] = getattr(listener, event)
            for callback in slot:
                yield _with_origin(callback, event)


@contextlib.contextmanager
def operation(session: Session, name: str, *, deferred: bool = False) -> Iterator[Operation]:
    """Fire ``before_`` *name*, run the block, then fire ``on_`` *name* with its result.

    The callbacks of :data:`bakthat.events` come first, then those of the profile's plugins in
    their order. With *deferred*, ``before_`` fires only when the block calls
    :meth:`Operation.begin`; if it never does, neither event fires.

    A ``before_`` callback that raises stops the operation before anything happens; no later
    callback is called. When it or the block raises, ``on_error`` fires and the exception
    propagates. When an ``on_`` callback raises, nothing is undone: the other callbacks are called,
    then the exception propagates.
    """
    current = Operation(name, (events, *session.plugins))
    try:
        if not deferred:
            current.begin()
        yield current
    except BaseException as exc:
        if os.getpid() != current.process:
            raise  # a child that was forked in the block, which goes on in its parent
        error = _plain(exc)
        current.add_note(error)
        current.fire_error(error)
        if error is exc:
            raise
        raise error from exc
    if current.has_begun:
        try:
            current.fire_result()
        except BaseException as exc:
            current.add_note(exc)
            raise


def _plain(exc: BaseException) -> BaseException:
    """Return ResourceError for an exception that shows a shortage, else *exc*."""
    if not isinstance(exc, Exception) or isinstance(exc, BakthatError):
        return exc
    return shortage_error(exc) or exc


def _warn(what: str, exc: Exception) -> None:
    detail = f"{type(exc).__name__}: {exc} ({'; '.join(getattr(exc, '__notes__', ()))})"
    log.warning("%s: %s", what, detail, exc_info=exc if log.isEnabledFor(logging.DEBUG) else None)


def _with_origin(callback: Callable[..., object], event: str) -> Callable[..., object]:
    """Return a function that calls *callback* and adds its name to an exception as a note."""

    def call(*arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as exc:
            name = getattr(callback, "__qualname__", type(callback).__qualname__)
            exc.add_note(f"raised by {name}, a callback of {event}")
            raise

    return call
