"""A page with a private key, to be printed: one HTML file that loads nothing else."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple
from urllib.parse import urlsplit

from bakthat.conf import Profile
from bakthat.policy.settings import HOST_PLACEHOLDER
from bakthat.system.paths import expanded
from bakthat.system.text import from_native, printable

_GROUP = 4
"""Characters that the eye takes in at once."""


@dataclass(frozen=True, slots=True)
class KeyPage:
    """What the page says."""

    identity: str = field(repr=False)
    """The private key."""
    recipient: str
    """Its public key."""
    created: float
    """When the page is made, in epoch seconds."""
    profile_name: str
    profile: Profile
    """Says where the backups are."""

    def html(self) -> str:
        """Return the page. It fits on one sheet of A4 or Letter paper."""
        suffix = "tgz" if self.profile.compress else "tar"
        storage = _storage(self.profile, f"NAME.{suffix}.age")
        facts = {
            "Backups": escape(printable(storage.where)),
            "Profile": escape(printable(self.profile_name)),
            "Public key": f"<code>{escape(self.recipient)}</code>",
            "Date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.created)),
        }
        return _PAGE.format(
            facts="\n".join(f"<tr><th>{key}<td>{value}" for key, value in facts.items()),
            key="".join(f"<span>{escape(each)}</span>" for each in _groups(self.identity)),
            code=_qr_code(self.identity),
            note=storage.note,
            listing=_lines(storage.listing),
            fetching=_lines(storage.fetching),
            suffix=suffix,
            gzip="z" if self.profile.compress else "",
        )


def _groups(identity: str) -> Iterator[str]:
    """Yield the pieces of a private key: what all of them begin with, then groups."""
    start, one, rest = identity.partition("1")
    yield start + one
    for place in range(0, len(rest), _GROUP):
        yield rest[place : place + _GROUP]


def _qr_code(text: str) -> str:
    """Return the code as SVG; "" without the extra ``qr``."""
    try:
        import segno
    except ImportError:
        return ""
    return segno.make_qr(text, error="m").svg_inline(scale=4, border=2, title="The private key")


class _Storage(NamedTuple):
    """Where the backups are, and the commands that list them and fetch one without bakthat."""

    where: str
    listing: str
    fetching: str
    note: str = ""


def _storage(profile: Profile, file: str) -> _Storage:
    """Return where the backups of a profile are; *file* stands for the stored name of one."""
    prefix = profile.prefix.replace(HOST_PLACEHOLDER, "HOST")
    if profile.default_destination == "local":
        directory = from_native(str(expanded(profile.local_path)))
        path = shlex.quote(f"{directory}/{prefix}")
        # What follows the last slash of a prefix is the beginning of names.
        pattern = path if prefix.endswith("/") or not prefix else f"{path}*"
        return _Storage(directory, f"ls {pattern}", f"cp {path}{file} {file}")
    if profile.default_destination == "glacier":
        return _vault(profile, file)
    bucket = profile.s3_bucket or "BUCKET"
    url = shlex.quote(f"s3://{bucket}/{prefix}")
    at = _options(profile.region_name, profile.endpoint_url)
    service = _without_password(profile.endpoint_url) if profile.endpoint_url else "Amazon S3"
    return _Storage(
        f"bucket {bucket} of {service}, region {profile.region_name}",
        f"aws s3 ls {url}{at}",
        f"aws s3 cp {url}{file} {file}{at}",
    )


def _vault(profile: Profile, archive: str) -> _Storage:
    vault = profile.glacier_vault or "VAULT"
    options = f"--account-id - --vault-name {shlex.quote(vault)}"
    options += _options(profile.region_name, profile.glacier_endpoint_url)

    def fetching(job: Mapping[str, str], file: str) -> str:
        parameters = shlex.quote(json.dumps(job))
        return (
            f"aws glacier initiate-job {options} \\\n    --job-parameters {parameters}\n"
            f"aws glacier get-job-output {options} \\\n    --job-id JOB {file}"
        )

    return _Storage(
        f"vault {vault} of Amazon Glacier, region {profile.region_name}",
        fetching({"Type": "inventory-retrieval"}, "names.json"),
        fetching({"Type": "archive-retrieval", "ArchiveId": "ID"}, archive),
        "The first command of a pair prints the id of a JOB, and the second one works when the "
        "job is done, hours later. names.json has the ID of each archive. ",
    )


def _options(region: str, endpoint_url: str | None) -> str:
    """Return options of ``aws``; those that make a command long are on a line of their own."""
    options = f" --region {shlex.quote(region)}"
    if endpoint_url:
        options += f" \\\n    --endpoint-url {shlex.quote(_without_password(endpoint_url))}"
    return options


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _lines(text: str) -> str:
    """Return lines of text as HTML."""
    return escape("\n".join(map(printable, text.split("\n"))))


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'">
<title>Private key of backups</title>
<style>
@page {{ margin: 13mm }}
body {{ max-width: 180mm; margin: 1em auto; padding: 0 1em; background: #fff; color: #000;
  font: 10pt/1.3 sans-serif }}
@media print {{ body {{ margin: 0; padding: 0 }} }}
h1 {{ font-size: 17pt; margin: 0 0 .4em }}
h2 {{ font-size: 12pt; margin: 1em 0 .3em }}
p, ol, table {{ margin: .4em 0 }}
th {{ text-align: left; padding-right: 1em; vertical-align: top; white-space: nowrap }}
code, pre, #key {{ font-family: "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace }}
code, pre {{ font-size: 9pt; overflow-wrap: anywhere }}
pre {{ margin: .2em 0; white-space: pre-wrap }}
#frame {{ display: flex; align-items: center; gap: 1.5em; border: 1.5pt solid #000;
  padding: .4em 1em }}
#key {{ flex: 1; font-size: 17pt; line-height: 1.5 }}
#key span {{ display: inline-block; margin-right: .7em }}
svg {{ width: 36mm; height: 36mm; flex: none }}
</style>
<h1>Private key of backups</h1>
<p><strong>Whoever has this page and can read the storage can read the backups. Without this key,
nobody can.</strong> Keep it as you keep a passport, and away from the machine that is backed
up.</p>
<table>
{facts}
</table>
<h2>Private key</h2>
<div id="frame"><div id="key">{key}</div>{code}</div>
<p>It is one word without spaces, in capitals. After <code>AGE-SECRET-KEY-1</code> it has no letter
B, I or O, and no figure 1: what looks like O is zero.</p>
<h2>Restore with bakthat</h2>
<pre>bakthat restore NAME --identity-file key.txt</pre>
<h2>Restore without bakthat</h2>
<p>This needs age (age-encryption.org), tar and, unless the storage is a directory, the
<code>aws</code> command with the keys of the storage. NAME is that of a backup, such as
<code>mydir.20130604191055</code>. {note}The names are listed by</p>
<pre>{listing}</pre>
<ol>
<li>Write the private key into a file <code>key.txt</code>, as its only line.
<code>age-keygen -y key.txt</code> prints the public key above, unless there is a typing error.
<li>Fetch a backup: <pre>{fetching}</pre>
<li>Decrypt it: <pre>age -d -i key.txt NAME.{suffix}.age &gt; NAME.{suffix}</pre>
<li>Unpack it, in an empty directory, and as root where owners are to be restored:
<pre>tar x{gzip}pf NAME.{suffix}</pre>
</ol>
<p>A name with <code>.inc</code> is that of a backup which has only what had changed. First unpack
those that it needs, in the order of their dates, then the backup itself, each <code>.inc</code>
with GNU tar and <code>tar x{gzip}pGf</code>. <code>bakthat show --by-hand NAME</code> prints all of
these commands; without bakthat, <code>age -d -i key.txt NAME.inc.{suffix}.age.index | zcat | head
-n 1</code> shows what it <code>needs</code>.</p>
"""
