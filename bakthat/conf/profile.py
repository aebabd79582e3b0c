"""The profile: its keys with their defaults, descriptions and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from bakthat.policy import settings
from bakthat.policy.defaults import (
    DEFAULT_ATTEMPTS,
    DEFAULT_DESTINATION,
    DEFAULT_LOCAL_PATH,
    DEFAULT_REGION,
    DEFAULT_TIMEOUT,
    DELETE_VERSIONS,
)

DEFAULT_CONFIG = "~/.bakthat.yml"
DEFAULT_DATABASE = "~/.bakthat.sqlite"
DEFAULT_PROFILE = "default"

_Class = TypeVar("_Class")


class Ways(NamedTuple):
    """The keys of a profile that give one secret. The first one that is set is used."""

    value: str
    """The key that holds the secret itself."""
    file: str
    """The key that holds the path of a file with the secret."""
    command: str
    """The key that holds a program that prints the secret."""


def _key(
    check: settings.Check,
    default: object = None,
    *,
    about: str,
    secret: str = "",
    has_repr: bool = True,
) -> Any:
    """Return the dataclass field for a key of the profile.

    *about* describes it in one sentence, without a full stop. *secret* describes the value of a key
    that may be a secret, such as "the password". It is not shown anywhere, and can also be given by
    a file and by a program (:class:`Ways`).
    """
    metadata = {"check": check, "about": about, "secret": secret}
    has_repr = has_repr and not secret
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, repr=has_repr, metadata=metadata)
    return field(default=default, repr=has_repr, metadata=metadata)


def _with_ways(cls: type[_Class]) -> type[_Class]:
    """Add to the class the other two fields of each secret, behind the first one."""
    annotations: dict[str, Any] = {}
    for name, annotation in cls.__annotations__.items():
        annotations[name] = annotation
        secret = vars(cls)[name].metadata["secret"]
        if secret:
            ways = _ways(name)
            about = f"The path of a file that holds only {secret}"
            setattr(cls, ways.file, _key(settings.text, about=about))
            about = f"A program that prints {secret}, with its arguments; it runs without a shell"
            command = _key(settings.text_or_texts, about=about, has_repr=False)  # see its arguments
            setattr(cls, ways.command, command)
            annotations |= {ways.file: "str | None", ways.command: "str | list[str] | None"}
    cls.__annotations__ = annotations
    return cls


def _ways(name: str) -> Ways:
    return Ways(name, f"{name}_file", f"{name}_command")


@dataclass(frozen=True)
@_with_ways
class Profile:
    """A checked profile with its defaults. The fields are the keys of the YAML file.

    The keys of files and programs that give a secret are added: ``secret_key_file`` and
    ``secret_key_command`` come behind ``secret_key``.
    """

    access_key: str | None = _key(
        settings.word,
        about="The AWS access key; without it, boto3's own chain is used: the environment, ~/.aws, "
        "web identity, the role of the container or of the instance",
    )
    secret_key: str | None = _key(
        settings.word,
        secret="the AWS secret key",
        about="The AWS secret key, which belongs to access_key",
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
    role_arn: str | None = _key(
        settings.role_arn,
        about="The ARN of a role that the keys assume, which is then used for S3 and Glacier; its "
        "keys are renewed before they expire",
    )
    expected_bucket_owner: str | None = _key(
        settings.account,
        about="The account that owns the bucket, in quotes since it is 12 digits; S3 refuses each "
        "request when the bucket is another account's",
    )
    sse: str | None = _key(
        settings.sse,
        about="The encryption that S3 is asked for with each upload, besides bakthat's own: "
        "AES256, aws:kms or aws:kms:dsse; by default what the bucket does",
    )
    sse_kms_key_id: str | None = _key(
        settings.word,
        about="The id or the ARN of the key of KMS for sse: aws:kms and aws:kms:dsse; by default "
        "the account's key for S3",
    )
    storage_class: str | None = _key(
        settings.storage_class,
        about="The storage class of uploads to S3: STANDARD, STANDARD_IA, GLACIER_IR, GLACIER, "
        "DEEP_ARCHIVE and so on",
    )
    object_lock: dict[str, Any] = _key(
        settings.object_lock,
        {},
        about="How long nobody can delete a backup in a bucket with object lock: mode, governance "
        "or compliance, and days, a number or retention, which is as long as rotation keeps it",
    )
    versions: str = _key(
        settings.versions,
        DELETE_VERSIONS,
        about="What a deletion does in a bucket that keeps versions: delete removes them, keep "
        "only hides them behind a delete marker, where they still cost money",
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
        secret="the password",
        about="The password that encrypts backups; bakthat then asks for none",
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
        secret="the settings of bakthat.notify.Healthchecks, as YAML",
        about="The settings of the plugin bakthat.notify.Healthchecks: url and details",
    )
    uptime_kuma: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret="the settings of bakthat.notify.UptimeKuma, as YAML",
        about="The settings of the plugin bakthat.notify.UptimeKuma: url and details",
    )
    webhook: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret="the settings of bakthat.notify.Webhook, as YAML",
        about="The settings of the plugin bakthat.notify.Webhook: url, format, when, headers "
        "and details",
    )
    apprise: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret="the settings of bakthat.notify.Apprise, as YAML",
        about="The settings of the plugin bakthat.notify.Apprise: urls, when and details",
    )
    prometheus: dict[str, Any] = _key(
        settings.mapping,
        {},
        about="The settings of the plugin bakthat.notify.Prometheus: textfile, a path",
    )
    plugin_settings: dict[str, Any] = _key(
        settings.mapping,
        {},
        secret="the settings of your own plugins, as YAML",
        about="The settings of your own plugins",
    )
    database_password: str | None = _key(
        settings.any_text,
        secret="the password of the databases",
        about="The password of the database servers that are backed up by their URLs; without one, "
        "their programs look for it where they always do, such as ~/.pgpass or ~/.my.cnf",
    )
    database: str = _key(
        settings.catalog,
        DEFAULT_DATABASE,
        secret="the path or the address of the catalog",
        about="The path of the catalog, or the address of a server that several hosts share, such "
        "as postgresql://bakthat@db.example.com/bakthat",
    )

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
            bool(each.metadata["secret"]),
        )
        for each in fields(Profile)
    }


KEYS: Mapping[str, Key] = _described()
"""The keys of the profile, in the order of the reference."""
SECRETS: Mapping[str, Ways] = {name: _ways(name) for name, key in KEYS.items() if key.is_secret}
"""The keys that may hold a secret, with all keys that give it."""
SECRET_FILES = tuple(ways.file for ways in SECRETS.values())
SECRET_COMMANDS = tuple(ways.command for ways in SECRETS.values())
ENCRYPTION_KEYS = ("recipients", *SECRETS["password"])
"""The keys that say how a backup is encrypted; the first one that is set is used."""
NEVER_EMPTY = frozenset((*ENCRYPTION_KEYS, *SECRET_FILES, *SECRET_COMMANDS))
"""The keys that have a value where they are given: a template that failed to fill one in must not
switch encryption off. An explicit ``password: ""`` is a value, and means unencrypted."""
PATHS: Mapping[str, str | None] = {
    "local_path": None,
    "identity_file": None,
    "plugins_dir": None,
    "prometheus": "textfile",
    "database": None,
    **dict.fromkeys(SECRET_FILES),
}
"""The keys that hold a path. For a key that holds a mapping, the setting in it that is a path."""
