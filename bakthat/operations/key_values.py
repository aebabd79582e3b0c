"""KeyValue: small JSON values under keys, in the container of the backups.

A value is one object, ``<prefix><key>.keyvalue``: JSON, by default compressed with gzip, and
encrypted with age where a password or recipients are set. The object describes itself, so that it
can be read without a catalog. Its catalog entry lets ``bakthat show`` list it and ``bakthat
restore`` find it. Rotation ignores values.

bakthat 0.6.0 stored a value under the key itself. Only its catalog says how the value is encoded.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from bakthat import models
from bakthat.archive.gzip.members import GZIP_MAGIC
from bakthat.backends.base import Backend, StoredObject
from bakthat.backends.s3.backend import S3Backend
from bakthat.conf import DEFAULT_PROFILE
from bakthat.crypto.age import parse_recipient
from bakthat.errors import CatalogError, LockedObjectError, NotFoundError, UsageError
from bakthat.format.description import KEY_VALUE, describe
from bakthat.format.names import KEY_VALUE_EXTENSION, check_set_name, parse_stored_name
from bakthat.passwords import encryption_keys
from bakthat.pipeline import read, write
from bakthat.policy.outcome import BY_NAME, REPLACED
from bakthat.session.container import check_mounted, make_container, remember
from bakthat.session.deletion import UNMARKED
from bakthat.session.entries import is_value, value_entry
from bakthat.session.reading import MAX_VALUE_BYTES, expected_of, find_keys
from bakthat.session.session import Session
from bakthat.system.signals import held_back
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


class KeyValue:
    """A store of JSON values in the profile's bucket or local directory.

    *conf* is one profile as a flat dict. Without it, *profile* names a profile of the configuration
    file *config*. *destination* is "s3" or "local", by default the profile's. A vault cannot hold
    values: for a profile with the destination "glacier" the default is "s3". Several threads may
    use one store. Raises ConfigError, UsageError.
    """

    def __init__(
        self,
        conf: Mapping[str, Any] | None = None,
        profile: str = DEFAULT_PROFILE,
        destination: str | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        self._session = Session(profile, config, conf, destination)
        if destination == "glacier":
            raise UsageError(
                "the destination 'glacier' cannot hold values of KeyValue",
                hint="use destination='s3' or 'local'",
            )
        default = self._session.destination
        self._destination = "s3" if default == "glacier" else default

    def set_key(
        self,
        keyname: str,
        value: Any,
        *,
        password: str | None = None,
        compress: bool = True,
        create: bool = False,
    ) -> models.Backups:
        """Store *value* under *keyname*, replacing an earlier value; return its catalog entry.

        *value* is anything that JSON can hold: None, booleans, numbers, strings, lists and dicts
        with strings as keys. *password* "" means unencrypted. With None, BAKTHAT_PASSWORD is used,
        then the profile's recipients or password; a password is never asked for. *compress* False
        stores the value without gzip. *create* makes a missing container anew though the catalog
        lists backups in it. Raises UsageError for an invalid key or value, before
        anything is stored; StorageError; and CatalogError when the value was stored but not
        recorded.
        """
        name = self._name_of(_check_keyname(keyname))
        text = _json_of(keyname, value)
        keys = encryption_keys(self._session.profile.as_mapping(), password=password, prompt=False)
        for recipient in keys.recipients:
            parse_recipient(recipient)  # before anything is made on the storage
        make_container(self._session, self._backend, create=create)
        body = gzip.compress(text, mtime=0) if compress else text
        upload = self._backend.upload(
            name,
            metadata=describe(
                KEY_VALUE,
                keyname,
                int(time.time()),
                self._session.host,
                encryption=keys.kind,
                compressed=compress,
            ),
            size_hint=len(body) + 1024,
            replace=True,
            content_type="application/octet-stream" if keys else "application/json",
            content_encoding="gzip" if compress and not keys else None,
        )
        # An interrupt must not leave it stored but not recorded.
        last_step = held_back(
            f"finishing the upload of {printable(name)}",
            mend="if it was stored, bakthat sync lists it; bakthat cleanup removes other remains",
        )
        try:
            with write.encrypted(upload, keys) as sink:
                sink.write(body)
            upload.flush()
            with last_step:
                return self._record(upload.commit())
        finally:
            if not last_step.is_stopped:
                with held_back(
                    f"removing what was sent of {printable(name)}",
                    mend="bakthat cleanup removes what is left",
                ):
                    upload.abort()

    def get_key(self, keyname: str, *, password: str | None = None, default: Any = None) -> Any:
        """Return the value under *keyname*, or *default* if there is none.

        *password* decrypts the value; by default it is the password that is set for backups. A
        bucket or directory that does not exist is an error, not a missing value. Raises
        WrongKeyError, PasswordError, CorruptArchiveError and StorageError.
        """
        try:
            entry = self._find(keyname)
        except NotFoundError:
            return default
        expected = expected_of(entry)
        keys = find_keys(
            self._session, self._backend, entry, expected, password=password, prompt=False
        )
        stream = self._backend.download(entry.stored_filename)
        with read.naming(entry.stored_filename, damage_hint="store it anew with set_key"):
            text = read.read_value(stream, expected, keys=keys)
        return json.loads(text)

    def delete_key(self, keyname: str) -> bool:
        """Delete the value under *keyname* and mark its entry; return whether there was one.

        In a bucket that keeps versions, its earlier values are removed too. A value of 0.6.0 is
        deleted only if the catalog lists it, since its object does not show that it is a value.
        Raises StorageError, CatalogError.
        """
        name = self._name_of(keyname)
        keys = set()
        with contextlib.suppress(NotFoundError):
            keys.add(self._stat_value(name).key)
        with models.catalog(self._session.catalog):
            listed = self._listed(name, keyname)
        if not keys:
            check_mounted(self._session, self._backend, len(listed))
        keys |= {each.stored_filename for each in listed}
        with held_back(f"finishing the deletion of {printable(name)}", mend=UNMARKED):
            for key in keys:
                self._backend.delete(key)
            self._mark_deleted(listed, BY_NAME)
        return bool(keys)

    def get_key_url(self, keyname: str, expires_in: int) -> str:
        """Return a URL by which anyone can read the value under *keyname*.

        It expires after *expires_in* seconds, at most a week. Unless the value is encrypted, a
        browser or ``requests`` gets JSON. Raises NotFoundError when there is no such value, and
        UsageError when the destination is not S3.
        """
        if not isinstance(self._backend, S3Backend):
            raise UsageError(
                f"{self._destination} serves no URLs", hint="use the destination s3, or get_key"
            )
        return self._backend.url(self._find(keyname).stored_filename, expires_in)

    @cached_property
    def _backend(self) -> Backend:
        # Always the standard class: values must be readable at once, and are too small for others.
        return self._session.backend(self._destination, storage_class=None)

    def _name_of(self, keyname: str) -> str:
        if keyname.endswith(KEY_VALUE_EXTENSION):
            raise UsageError(
                f"a key cannot end in {KEY_VALUE_EXTENSION}: '{printable(keyname)}'",
                hint="leave the ending out, or choose another key",
            )
        return f"{self._session.prefix}{keyname}{KEY_VALUE_EXTENSION}"

    def _stat_value(self, name: str) -> StoredObject:
        stored = self._backend.stat(name)
        if not is_value(stored):
            raise NotFoundError(f"{printable(name)} is not an object of KeyValue")
        return stored

    def _find(self, keyname: str) -> models.Backups:
        """Return the entry of a value as the storage describes it, or as a value of 0.6.0."""
        try:
            return value_entry(self._backend, self._stat_value(self._name_of(keyname)))
        except NotFoundError:
            return self._find_legacy(keyname)

    def _find_legacy(self, keyname: str) -> models.Backups:
        stored = self._backend.stat(keyname)
        with models.catalog(self._session.catalog):
            listed = self._listed(keyname)
        if listed:
            return listed[0]
        # Values of 0.6.0 have no self-description and no date in their names; backups do.
        if stored.metadata or parse_stored_name(keyname) is not None:
            raise NotFoundError(f"{printable(keyname)} is a backup, not a value of KeyValue")
        if stored.size > MAX_VALUE_BYTES:
            raise NotFoundError(f"{printable(keyname)} is too large to be a value")
        with self._backend.download(keyname) as stream:
            body = stream.read()
        # Without an entry, gzip and JSON can be recognised, and anything else must be encrypted.
        # 0.6.0 compressed nearly every value that it encrypted.
        is_gzip, is_json = body.startswith(GZIP_MAGIC), _is_json(body)
        entry = value_entry(self._backend, stored)
        entry.metadata = {
            "KeyValue": True,
            "is_enc": not (is_gzip or is_json),
            "is_gzipped": not is_json,
        }
        return entry

    def _record(self, stored: StoredObject) -> models.Backups:
        """Record the value in the catalog, and delete 0.6.0's value of the same key."""
        entry = value_entry(self._backend, stored)
        name = printable(stored.key)
        try:
            with models.catalog(self._session.catalog, write=True):
                remember(self._backend)
                entry = self._replace_entry(entry)
                replaced = self._listed(entry.filename)
        except CatalogError as exc:
            raise CatalogError(
                f"stored as {name} on {self._destination}, but not recorded: {exc}",
                hint="the stored value is complete, and get_key reads it",
            ) from exc
        self._mark_deleted([each for each in replaced if self._is_removed(each)], REPLACED)
        log.info("Stored the key %s as %s", printable(entry.filename), name)
        return entry

    def _is_removed(self, replaced: models.Backups) -> bool:
        """Remove 0.6.0's value of a key that has a new one; return False where it is locked."""
        try:
            self._backend.delete(replaced.stored_filename)
        except LockedObjectError as exc:
            log.warning("the value of 0.6.0 stays: %s; delete_key removes it later", exc)
            return False
        return True

    def _replace_entry(self, entry: models.Backups) -> models.Backups:
        row = entry.as_dict()
        found = models.Backups.get_or_none(models.Backups.stored_filename == entry.stored_filename)
        if found is None:
            return models.Backups.create(**row)
        if not found.is_deleted and not self._is_own(found):
            # Stored names are unique in the catalog, and the other value is stored too.
            log.warning(
                "%s is not listed: the catalog has a key of that name in another container",
                printable(entry.stored_filename),
            )
            return entry
        for column, value in row.items():
            setattr(found, column, value)
        found.save()
        return found

    def _listed(self, *stored_filenames: str) -> list[models.Backups]:
        """Return the values of this container that the catalog lists under these names."""
        containers = self._session.containers(self._destination)
        beginning = models.Backups.beginning_with(stored_filenames, containers)
        return [
            each
            for each in beginning
            if each.is_key_value and each.stored_filename in stored_filenames
        ]

    def _is_own(self, entry: models.Backups) -> bool:
        containers = self._session.containers(self._destination)
        return (entry.backend, entry.backend_hash) in containers

    def _mark_deleted(self, entries: list[models.Backups], why: str) -> None:
        if entries:
            with models.catalog(self._session.catalog, write=True):
                for each in entries:
                    models.mark_deleted(each, why)


def _check_keyname(keyname: str) -> str:
    try:
        return check_set_name(keyname)
    except UsageError as exc:
        raise UsageError(f"this cannot be a key: {exc}", hint="choose another key") from exc


def _json_of(keyname: str, value: Any) -> bytes:
    """Return *value* as JSON in ASCII. Raises UsageError when JSON cannot hold it."""
    try:
        text = json.dumps(value, allow_nan=False)
        json.loads(text, object_pairs_hook=_without_duplicates)
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(
            f"the value of '{printable(keyname)}' is not JSON: {exc}",
            hint="JSON holds None, booleans, finite numbers, strings, lists and dicts of these",
        ) from exc
    if len(text) > MAX_VALUE_BYTES:
        raise UsageError(
            f"the value of '{printable(keyname)}' is too large: {len(text)} bytes, "
            f"at most {MAX_VALUE_BYTES}",
            hint="write it to a file and back that up",
        )
    return text.encode()


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON turns keys into strings, which may then be equal: {1: "a", "1": "b"}.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two of its keys are the same string")
    return found
