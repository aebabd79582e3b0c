"""The profile: its keys with their defaults, descriptions and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from bakthat.policy import settings
from bakthat.policy.defaults import (
    DEFAULT_ATTEMPTS,
    DEFAULT_DESTINATION,
    DEFAULT_LOCAL_PATH,
    DEFAULT_REGION,
    DEFAULT_TIMEOUT,
)

DEFAULT_CONFIG = "~/.bakthat.yml"
DEFAULT_DATABASE = "~/.bakthat.sqlite"
DEFAULT_PROFILE = "default"
PATHS = {
    "local_path": None,
    "password_file": None,
    "identity_file": None,
    "database_password_file": None,
    "plugins_dir": None,
    "prometheus": "textfile",
    "database": None,
}
"""The keys that hold a path. For a key that holds a mapping, the setting in it that is a path."""
ENCRYPTION_KEYS = ("recipients", "password", "password_file", "password_command")
"""The keys that say how a backup is encrypted; the first one that is set is used."""


def _key(check: settings.Check, default: object = None, *, about: str, secret: bool = False) -> Any:
    """Return the dataclass field for a key of the profile.

    *about* describes it in one sentence, without a full stop. The value of a *secret* key is not
    shown anywhere.
    """
    metadata = {"check": check, "about": about, "secret": secret}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Profile:
    """A checked profile with its defaults. The fields are the keys of the YAML file."""

    access_key: str | None = _key(
        settings.word,
        about="The AWS access key; without it, boto3's own chain is used: the environment, ~/.aws, "
        "web identity, the role of the container or of the instance",
    )
    secret_key: str | None = _key(
        settings.word, secret=True, about="The AWS secret key, which belongs to access_key"
    )
    region_name: str = _key(settings.word, DEFAULT_REGION, about="The region of the storage")
    s3_bucket: str | None = _key(
        settings.bucket,
        about="The bucket; a backup makes it when it is missing, a restore does not",
    )
    glacier_vault: str | None = _key(
        settings.word, about="The vault; a backup makes it when it is missing, a restore does not"
    )
    default_destination: str = _key(
        settings.destination,
        DEFAULT_DESTINATION,
        about="Where backups go unless -d names another destination",
    )
    endpoint_url: str | None = _key(
        settings.address,
        about="The URL of S3-compatible storage that is not Amazon's; it begins with https:// or "
        "http://",
    )
    glacier_endpoint_url: str | None = _key(
        settings.address, about="The URL of a storage with Glacier's vaults that is not Amazon's"
    )
    storage_class: str | None = _key(
        settings.storage_class,
        about="The storage class of uploads to S3: STANDARD, STANDARD_IA, GLACIER_IR, GLACIER, "
        "DEEP_ARCHIVE and so on",
    )
    timeout: int | float = _key(
        settings.timeout,
        DEFAULT_TIMEOUT,
        about="The seconds without an answer from S3 or Glacier after which an attempt fails; an "
        "attempt to connect takes at most 10 seconds",
    )
    attempts: int = _key(
        settings.attempts,
        DEFAULT_ATTEMPTS,
        about="How many times a request is sent before it fails; the pauses between attempts grow "
        "to 20 seconds",
    )
    bandwidth: str | None = _key(
        settings.bandwidth,
        about="The most bytes per second that one operation sends to S3 or Glacier, and as many "
        "that it receives, such as 5MiB/s or 500kB/s; the destination local has no limit",
    )
    host: str | None = _key(
        settings.host,
        about="The name of this host in its backups, by default the machine's name; set it where "
        "that changes (a container, DHCP) or is not its own (localhost)",
    )
    prefix: str = _key(
        settings.prefix,
        "",
        about="What every key begins with; {host} is filled in, and nothing else is",
    )
    local_path: str = _key(
        settings.text, DEFAULT_LOCAL_PATH, about="The directory of the destination local"
    )
    compress: bool | int = _key(
        settings.compress,
        True,
        about="Whether to compress, or gzip's level from 1 to 9; true and 3 choose the level of "
        "each MiB, the fast 2 or 3 where it pays, and store data that does not compress",
    )
    password: str | None = _key(
        settings.any_text,
        secret=True,
        about="The password that encrypts backups; bakthat then asks for none",
    )
    password_file: str | None = _key(
        settings.text, about="The path of a file that holds only the password"
    )
    password_command: str | list[str] | None = _key(
        settings.text_or_texts,
        about="A program that prints the password, with its arguments; it runs without a shell",
    )
    recipients: list[str] = _key(
        settings.text_or_texts,
        [],
        about="The age public keys to encrypt to; they need no secret on this machine",
    )
    identity_file: str | None = _key(
        settings.text,
        about="The path of the file of the age private key, which only a restore needs",
    )
    rotation: dict[str, Any] = _key(
        settings.rotation,
        {},
        about="How many backups rotation keeps: days, weeks, months, years, hours, minutes and "
        "last; first_week_day says when a week begins, from 0 (Monday) to 6",
    )
    incremental: bool = _key(
        settings.boolean,
        False,
        about="Whether to store what has changed since an earlier backup, instead of all",
    )
    full_every: str | None = _key(
        settings.interval,
        about="The age of the last full backup at which a new one is made, such as 90D; never by "
        "default",
    )
    max_archives: int | None = _key(
        settings.archives,
        about="The most archives that a restore reads, from 2 to 64: 16 by default, and 12 in a "
        "cold storage class or a vault",
    )
    detect: str = _key(
        settings.detect,
        "ctime",
        about="How changes are found: ctime; mtime, which ignores ctime and inode numbers; or "
        "hash, which reads every file",
    )
    ignore_inode: bool = _key(
        settings.boolean, False, about="Whether inode numbers change with each mount"
    )
    always_read: list[str] = _key(
        settings.texts,
        [],
        about="Patterns as in .gitignore of files that are read each time, whatever their times "
        "say",
    )
    recheck: int = _key(
        settings.percent,
        0,
        about="The percentage of the unchanged files that is read too, other ones each time",
    )
    skip_unchanged: bool = _key(
        settings.boolean, False, about="Whether no increment is made when nothing has changed"
    )
    plugins: list[str] = _key(
        settings.texts,
        [],
        about="The dotted names of plugins, which are activated in this order",
    )
    plugins_dir: str = _key(
        settings.text, "~/.bakthat_plugins", about="The directory of your own plugins"
    )
    healthchecks: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret=True,
        about="The settings of the plugin bakthat.notify.Healthchecks: url",
    )
    webhook: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret=True,
        about="The settings of the plugin bakthat.notify.Webhook: url, format, when and headers",
    )
    apprise: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret=True,
        about="The settings of the plugin bakthat.notify.Apprise: urls and when",
    )
    prometheus: dict[str, Any] = _key(
        settings.mapping,
        {},
        about="The settings of the plugin bakthat.notify.Prometheus: textfile, a path",
    )
    plugin_settings: dict[str, Any] = _key(
        settings.mapping, {}, secret=True, about="The settings of your own plugins"
    )
    database_password: str | None = _key(
        settings.any_text,
        secret=True,
        about="The password of the database servers that are backed up by their URLs; without one, "
        "their programs look for it where they always do, such as ~/.pgpass or ~/.my.cnf",
    )
    database_password_file: str | None = _key(
        settings.text, about="The path of a file that holds only the password of the databases"
    )
    database_password_command: str | list[str] | None = _key(
        settings.text_or_texts,
        about="A program that prints the password of the databases, with its arguments; it runs "
        "without a shell",
    )
    database: str = _key(settings.text, DEFAULT_DATABASE, about="The path of the catalog")

    def as_mapping(self) -> dict[str, Any]:
        """Return the profile as the flat dict that ``conf=`` takes."""
        return {key.name: getattr(self, key.name) for key in fields(self)}


class Key(NamedTuple):
    """A key of the profile, as messages, the reference and the schema describe it."""

    check: settings.Check
    about: str
    """What it means, in one sentence without a full stop."""
    default: Any
    is_secret: bool
    """Whether its value, or any value in it, may be a secret."""


def _described() -> dict[str, Key]:
    defaults = Profile().as_mapping()
    return {
        each.name: Key(
            each.metadata["check"],
            each.metadata["about"],
            defaults[each.name],
            each.metadata["secret"],
        )
        for each in fields(Profile)
    }


KEYS: Mapping[str, Key] = _described()
"""The keys of the profile, in the order of the reference."""
