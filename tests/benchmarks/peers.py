"""What a user would pick instead, as the commands that they would type.

The scripts find in their environment: SOURCE (what to back up), PARENT and NAME (its two halves),
TARGET (where to restore to, the working directory then), FILE (one file, below PARENT), BUCKET,
ENDPOINT (and HOST_PORT of it), REPOSITORY (a local directory), RECIPIENT and IDENTITY (age keys),
PASSWORD_FILE, and the settings by which rclone's remote ``store:``, the AWS clients
and the tools that encrypt by themselves know their storage.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A tool, or a pipeline of tools."""

    name: str
    """Short, for the command line."""
    label: str
    """For the tables."""
    tools: tuple[str, ...]
    backup: str
    restore: str
    one_file: str
    stream: str = ""
    """Stores what comes from a program, here the one file of the set; "" where it is left out."""
    again: str = ""
    """Backs up once more, and stores what has changed; "" where it would store everything."""
    newest: str = ""
    """Restores the newest of several backups, where ``restore`` does not."""
    prepare: str = ""
    """Makes an empty repository; not measured."""
    version: str = "--version"
    """The argument that makes the tools tell their versions."""
    apart: bool = False
    """Its files open with other tools than bakthat's: shown, but not compared with."""
    on_s3: bool = True


def _pipeline(
    name: str,
    compress: str,
    decompress: str,
    ending: str,
    encrypt: str,
    decrypt: str,
    send: str = 'rclone rcat "store:$BUCKET/$NAME.{ending}"',
    *,
    apart: bool = False,
) -> Peer:
    send = send.replace("{ending}", ending)
    fetch = f'rclone cat "store:$BUCKET/$NAME.{ending}" | {decrypt} | {decompress}'
    used = (command.split()[0] for command in ("tar", compress, encrypt, send, fetch))
    words = (compress, encrypt.split()[0], " ".join(send.split()[: 3 if "aws" in send else 2]))
    return Peer(
        name=name,
        label=", ".join(("tar", *words)),
        tools=tuple(dict.fromkeys(used)),
        backup=f'tar -C "$PARENT" -cf - "$NAME" | {compress} | {encrypt} | {send}',
        restore=f"{fetch} | tar -xf -",
        one_file=f'{fetch} | tar -xf - "$FILE"',
        stream=f'{compress} <"$PARENT/$FILE" | {encrypt} | {send}',
        apart=apart,
    )


AGE = ('age -r "$RECIPIENT"', 'age -d -i "$IDENTITY"')
GPG_OPTIONS = '--batch --quiet --pinentry-mode loopback --passphrase-file "$PASSWORD_FILE"'

BAKTHAT = Peer(
    name="bakthat",
    label="bakthat",
    tools=("bakthat",),
    backup='bakthat backup "$SOURCE"',
    again='bakthat backup "$SOURCE"',
    restore='bakthat restore "$NAME" -o "$TARGET"',
    one_file='bakthat restore "$NAME" -o "$TARGET" --only "$FILE"',
    stream='bakthat backup --command \'cat "$PARENT/$FILE"\' --name "$NAME"',
)
PEERS = (
    Peer(
        name="bakthat-local",
        label="bakthat, local, no network",
        tools=("bakthat",),
        on_s3=False,
        backup='bakthat backup -d local "$SOURCE"',
        again='bakthat backup -d local "$SOURCE"',
        restore='bakthat restore -d local "$NAME" -o "$TARGET"',
        one_file='bakthat restore -d local "$NAME" -o "$TARGET" --only "$FILE"',
    ),
    _pipeline("pigz", "pigz -1", "pigz -dc", "tgz.age", *AGE),
    _pipeline("zstd", "zstd -1 -T0", "zstd -dc", "tar.zst.age", *AGE, apart=True),
    _pipeline(
        "gzip",
        "gzip -6",
        "gzip -dc",
        "tgz.gpg",
        f"gpg {GPG_OPTIONS} --symmetric",
        f"gpg {GPG_OPTIONS} --decrypt",
        'aws s3 cp --quiet --endpoint-url "$ENDPOINT" - "s3://$BUCKET/$NAME.{ending}"',
    ),
    Peer(
        name="restic",
        label="restic to S3",
        tools=("restic",),
        version="version",
        prepare="restic init",
        backup='restic backup --quiet "$SOURCE"',
        again='restic backup --quiet "$SOURCE"',
        restore='restic restore --quiet latest --target "$TARGET"',
        one_file='restic restore --quiet latest --target "$TARGET" --include "$PARENT/$FILE"',
    ),
    Peer(
        name="borg",
        label="borg, local, no network",
        tools=("borg",),
        on_s3=False,
        prepare='borg init --encryption=repokey-blake2 "$REPOSITORY"',
        backup='cd "$PARENT" && borg create "$REPOSITORY::first" "$NAME"',
        again='cd "$PARENT" && borg create "$REPOSITORY::{now:%Y%m%d%H%M%S%f}" "$NAME"',
        newest='borg extract "$REPOSITORY::$(borg list --last 1 --short "$REPOSITORY")"',
        restore='borg extract "$REPOSITORY::first"',
        one_file='borg extract "$REPOSITORY::first" "$FILE"',
    ),
    Peer(
        name="duplicity",
        label="duplicity to S3",
        tools=("duplicity",),
        backup='duplicity full --s3-endpoint-url "$ENDPOINT" "$SOURCE" "boto3+s3://$BUCKET/d"',
        again='duplicity incremental --s3-endpoint-url "$ENDPOINT" "$SOURCE"'
        ' "boto3+s3://$BUCKET/d"',
        restore='duplicity restore --s3-endpoint-url "$ENDPOINT" "boto3+s3://$BUCKET/d"'
        ' "$TARGET/$NAME"',
        one_file='duplicity restore --s3-endpoint-url "$ENDPOINT" --path-to-restore "${FILE#*/}"'
        ' "boto3+s3://$BUCKET/d" "$TARGET/${FILE##*/}"',
    ),
    Peer(
        name="kopia",
        label="kopia to S3",
        tools=("kopia",),
        prepare='kopia repository create s3 --bucket "$BUCKET" --endpoint "$HOST_PORT"'
        ' --disable-tls --access-key "$AWS_ACCESS_KEY_ID"'
        ' --secret-access-key "$AWS_SECRET_ACCESS_KEY"',
        backup='kopia snapshot create --no-progress "$SOURCE"',
        again='kopia snapshot create --no-progress "$SOURCE"',
        restore='kopia restore "$SOURCE" "$TARGET/$NAME"',
        one_file='kopia restore "$PARENT/$FILE" "$TARGET/${FILE##*/}"',
    ),
)


def missing_tools(peer: Peer, environment: Mapping[str, str]) -> list[str]:
    """Return the programs of *peer* that the PATH of *environment* does not have."""
    return [tool for tool in peer.tools if not shutil.which(tool, path=environment["PATH"])]


def versions(peer: Peer, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the tools of *peer* say of their versions, the first line of each."""
    found = {}
    for tool in peer.tools:
        path = shutil.which(tool, path=environment["PATH"])
        argument = "version" if tool == "rclone" else peer.version
        if path:
            done = subprocess.run(
                [path, argument],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
            lines = (done.stdout or done.stderr).strip().splitlines()
            found[tool] = f"{tool} {_number(lines[0] if lines else '?')}"
    return found


def _number(line: str) -> str:
    """Return the word of *line* that looks like a version, or all of it."""
    for word in line.replace("/", " ").split():
        if word.lstrip("v")[:1].isdigit():
            return word.strip("v,()")
    return line
