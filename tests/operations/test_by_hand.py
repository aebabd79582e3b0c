"""The script of ``bakthat show --by-hand`` restores a backup with tar, gzip, age and aws alone."""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.crypto import age
from bakthat.errors import NotFoundError, UsageError
from bakthat.format.description import ARCHIVE, describe
from bakthat.format.names import parse_stored_name, stored_name
from bakthat.helper import KeyValue
from bakthat.operations.by_hand.script import Storage
from bakthat.passwords import EncryptionKeys
from bakthat.pipeline.write import encrypted
from bakthat.session.entries import entry_of
from bakthat.session.session import Session
from tests.support.commandline import CommandLine
from tests.support.entries import entries_of
from tests.support.glacier_server import GlacierServer
from tests.support.increments import Chain as IndexedChain
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.legacy import Legacy, beefish, tarball
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, plain
from tests.support.trees import fingerprint, make_every_kind
from tests.support.typed import typed

pytestmark = [pytest.mark.permissions, pytest.mark.slow, pytest.mark.needs("age", "GNU tar")]

PASSPHRASE = "correct horse"
IDENTITY = age.generate_identity()
PLAIN = EncryptionKeys()
TO_KEY = EncryptionKeys(recipients=(age.parse_recipient(age.recipient_of(IDENTITY)),))
BY_PASSPHRASE = EncryptionKeys(passphrase=PASSPHRASE)
DATE = 1370373055
ODD = ["-rf", "new\nline", "$HOME", "it's", "`id`", 'quo"te', "back\\slash%d", "ünï", "*"]
AWS = f"""#!{sys.executable}
import os, shutil, sys
sys.path[:] = {sys.path!r}
import boto3
from botocore.exceptions import ClientError
command, verb, url, target, *options = sys.argv[1:]
assert (command, verb, target) == ("s3", "cp", "-") and url.startswith("s3://")
given = dict(zip(options[::2], options[1::2], strict=True))
assert set(given) == {{"--endpoint-url", "--region"}}
client = boto3.client(
    "s3", endpoint_url=given["--endpoint-url"], region_name=given["--region"],
    aws_access_key_id=os.environ["KEY"], aws_secret_access_key=os.environ["SECRET"],
)
bucket, key = url.removeprefix("s3://").split("/", 1)
try:
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
except ClientError as exc:
    sys.exit(f"fatal error: {{exc}}")
sys.stdout.buffer.write(body[: int(os.environ.get("CUT", len(body)))])
sys.exit("the connection was closed" if "CUT" in os.environ else 0)
"""
"""Stands in for the command line of AWS: it copies an object to standard output, and no more."""


@pytest.fixture(autouse=True)
def at_a_known_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: float(DATE))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Make the directory to restore into; it has a name that a shell would take apart."""
    made = tmp_path / "an odd $name\n"
    made.mkdir()
    return made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "the key.txt"
    path.write_text(IDENTITY + "\n")
    return path


def arguments_of(keys: EncryptionKeys) -> dict[str, Any]:
    """Return the arguments of a backup that is encrypted with *keys*."""
    if keys.recipients:
        return {"recipients": [age.recipient_of(IDENTITY)]}
    return {"password": keys.passphrase or ""}


def run(script: str, here: Path, **env: str | Path) -> subprocess.CompletedProcess[str]:
    """Run *script* in *here*, without a terminal."""
    return subprocess.run(
        ["sh", "-c", script],
        cwd=here,
        env={"PATH": os.environ["PATH"], **{name: str(text) for name, text in env.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,  # no terminal
    )


def check_run(script: str, here: Path, **env: str | Path) -> None:
    done = run(script, here, **env)
    said = [each for each in done.stderr.splitlines() if "implausibly old" not in each]
    assert (done.returncode, said) == (0, []), done.stderr
    assert done.stdout.startswith("Restored ")


class Chain:
    """A full, made by bakthat, and increments of it, made by GNU tar."""

    def __init__(self, conf: Conf, tree: Path, keys: EncryptionKeys) -> None:
        self.conf = conf
        self.tree = tree
        self._keys = keys
        self._session = Session("default", None, conf)
        self._snapshot = tree.parent / "snapshot"
        self.entries = [bakthat.backup(tree, conf=conf, **arguments_of(keys))]
        assert self.entries[0].is_encrypted is bool(keys)
        self._tar()

    @property
    def names(self) -> list[str]:
        return [each.stored_filename for each in self.entries]

    def _tar(self) -> bytes:
        options = ["--format=pax", "--xattrs", "--acls", f"--listed-incremental={self._snapshot}"]
        place = ["-C", str(self.tree.parent), self.tree.name]
        command = ["tar", *options, "-c", "-f", "-", *place]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    def add(self) -> str:
        """Store what changed since the last backup as an increment, without an index."""
        tar = self._tar()
        full = self.entries[0]
        compressed = full.metadata["compression"] == "gzip"
        date = self.entries[-1].backup_date + 86400
        prefix, slash, _ = full.stored_filename.rpartition("/")
        name = stored_name(
            full.filename,
            date,
            ".tgz" if compressed else ".tar",
            encrypted=bool(self._keys),
            increment=True,
        )
        key = prefix + slash + name
        description = describe(
            ARCHIVE,
            full.filename,
            date,
            full.host,
            encryption=full.metadata["encryption"],
            compressed=compressed,
            source_id=full.source_id,
            archive_id="0123456789abcdef",
            needs=[each.backup_date for each in self.entries],
            level=1,
        )
        backend = self._session.backend(self._session.destination)
        upload = backend.upload(key, metadata={**description, "files": 9, "directories": 9})
        with encrypted(upload, self._keys) as sink:
            sink.write(gzip.compress(tar) if compressed else tar)
        upload.commit()
        parsed = parse_stored_name(name)
        assert parsed is not None
        entry = entry_of(backend, backend.stat(key), parsed)
        with models.catalog(self._session.catalog, write=True):
            entry.save()
        self.entries.append(entry)
        return key


def change_once(tree: Path) -> None:
    """Remove, replace and add what an archive alone would not remove."""
    # A directory with the inode of one that is gone would be a renamed one to tar.
    new = [tree.parent / "new 1", tree.parent / "new 2"]
    for each in new:
        each.mkdir()
    (tree / "gone").unlink()
    shutil.rmtree(tree / "gone directory")
    shutil.rmtree(tree / "becomes a file")
    (tree / "becomes a file").write_text("a file")
    (tree / "becomes a directory").unlink()
    new[0].rename(tree / "becomes a directory")
    (tree / "becomes a directory" / "inside").write_text("inside")
    (tree / "link").unlink()
    new[1].rename(tree / "link")
    for name in ODD[::2]:
        (tree / "odd" / name).unlink()
    os.link(tree / "text", tree / "another name")


def change_again(tree: Path) -> None:
    for name in ODD[1::2]:
        (tree / "odd" / name).write_text("new")
    for name in ODD[::2]:
        (tree / "odd" / name).mkdir()
    (tree / "becomes a file").unlink()
    shutil.copytree(tree / "becomes a directory", tree / "moved")
    shutil.rmtree(tree / "becomes a directory")


def make_changing(tree: Path) -> Path:
    make_every_kind(tree)
    (tree / "gone").write_text("gone")
    (tree / "gone directory" / "deep").mkdir(parents=True)
    (tree / "gone directory" / "deep" / "file").write_text("file")
    (tree / "becomes a file" / "inside").mkdir(parents=True)
    (tree / "becomes a directory").write_text("a file")
    (tree / "odd").mkdir()
    for name in ODD:
        (tree / "odd" / name).write_text(name)
    return tree


def make_chain(conf: Conf, tree: Path, keys: EncryptionKeys = PLAIN) -> Chain:
    chain = Chain(conf, make_changing(tree), keys)
    change_once(tree)
    chain.add()
    change_again(tree)
    chain.add()
    return chain


def same(tree: Path, here: Path) -> bool:
    return fingerprint(here / tree.name) == fingerprint(tree)


@pytest.fixture
def odd_local(local: Conf) -> Conf:
    """Return a profile whose store is at a path that a shell would take apart."""
    return {**local, "local_path": f"{local['local_path']} of $HOME; it's\todd"}


@pytest.mark.parametrize("compress", [True, False])
def test_a_full_is_restored(odd_local: Conf, tmp_path: Path, here: Path, compress: bool) -> None:
    tree = make_every_kind(tmp_path / "my dir's $tree")
    conf = {**odd_local, "compress": compress}
    bakthat.backup(tree, conf=conf, password="")
    script = bakthat.restore_script(tree.name, conf=conf)
    assert script.startswith("#!/bin/sh\n")
    assert script.isascii()
    assert all(line.isprintable() for line in script.split("\n"))
    check_run(script, here)
    assert os.listdir(here) == [tree.name]
    assert same(tree, here)


@pytest.mark.parametrize("compress", [True, False])
def test_an_increment_is_restored_with_what_it_needs(
    odd_local: Conf, tmp_path: Path, here: Path, compress: bool
) -> None:
    tree = tmp_path / "mydir"
    chain = make_chain({**odd_local, "compress": compress}, tree)
    lose_indexes(chain.conf, *chain.names)
    check_run(bakthat.restore_script(chain.names[-1], conf=chain.conf), here)
    assert same(tree, here)


def test_an_older_increment_is_restored_as_it_was(local: Conf, tmp_path: Path, here: Path) -> None:
    tree = tmp_path / "mydir"
    chain = Chain(local, make_changing(tree), PLAIN)
    change_once(tree)
    name = chain.add()
    expected = fingerprint(tree)
    change_again(tree)
    chain.add()
    check_run(bakthat.restore_script(name, conf=local), here)
    assert fingerprint(here / "mydir") == expected


def test_a_private_key_opens_each_archive_and_none_is_needed_before(
    local: Conf, tmp_path: Path, here: Path, key_file: Path
) -> None:
    tree = tmp_path / "mydir"
    chain = make_chain(local, tree, TO_KEY)
    forget_cache()
    script = bakthat.restore_script(chain.names[-1], conf=local)
    done = run(script, here)
    assert (done.returncode, os.listdir(here)) == (1, [])
    assert done.stderr == "set IDENTITY to the file with the private key\n"
    check_run(script, here, IDENTITY=key_file)
    assert same(tree, here)


def test_the_identity_file_of_the_profile_is_the_default(
    local: Conf, tree: Path, here: Path, key_file: Path
) -> None:
    bakthat.backup(tree, conf=local, recipients=[age.recipient_of(IDENTITY)])
    named = bakthat.restore_script("mydir", conf={**local, "identity_file": str(key_file)})
    check_run(named, here)
    assert same(tree, here)
    assert IDENTITY not in named


def test_age_asks_for_the_passphrase_of_each_archive(
    local: Conf, tmp_path: Path, here: Path
) -> None:
    tree = tmp_path / "mydir"
    chain = make_chain(local, tree, BY_PASSPHRASE)
    script = bakthat.restore_script(chain.names[-1], conf=local)
    code, seen = typed(script, here, PASSPHRASE, shell=("sh", "-c"))
    assert code == 0, seen
    assert seen.count("assphrase for") + seen.count("nter passphrase") >= 3
    assert same(tree, here)


def test_a_wrong_passphrase_stops_the_script(local: Conf, tree: Path, here: Path) -> None:
    bakthat.backup(tree, conf=local, password=PASSPHRASE)
    code, seen = typed(
        bakthat.restore_script("mydir", conf=local), here, "wrong", shell=("sh", "-c")
    )
    assert (code, os.listdir(here)) == (1, [])
    assert "was not restored: what is in this directory is not complete" in seen


def test_either_key_opens_what_has_lost_its_description(
    local: Conf, tree: Path, here: Path, key_file: Path
) -> None:
    name = bakthat.backup(tree, conf=local, recipients=[age.recipient_of(IDENTITY)]).stored_filename
    Path(local["local_path"], f"{name}.bakthat.json").unlink()
    Path(local["database"]).unlink()
    script = bakthat.restore_script(name, conf=local)
    check_run(script, here, IDENTITY=key_file)
    assert same(tree, here)


@pytest.fixture
def aws(tmp_path: Path, moto_endpoint: S3Server) -> dict[str, str]:
    """Put the stand-in for aws on the PATH; return the environment that it takes."""
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(AWS)
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "KEY": moto_endpoint.access_key,
        "SECRET": moto_endpoint.secret_key,
    }


@pytest.fixture
def bucket(moto_conf: Conf, local: Conf) -> Conf:
    return {**moto_conf, "database": local["database"], "prefix": "of $HOME; it's/"}


@pytest.mark.parametrize("keys", [PLAIN, TO_KEY])
@pytest.mark.parametrize("compress", [True, False])
def test_archives_are_fetched_from_s3(
    bucket: Conf,
    tmp_path: Path,
    here: Path,
    aws: dict[str, str],
    key_file: Path,
    keys: EncryptionKeys,
    compress: bool,
) -> None:
    tree = tmp_path / "mydir"
    chain = make_chain({**bucket, "compress": compress}, tree, keys)
    script = bakthat.restore_script(chain.names[-1], conf=chain.conf)
    check_run(script, here, IDENTITY=key_file, **aws)
    assert same(tree, here)
    assert chain.conf["secret_key"] not in script


def test_a_download_that_ends_early_stops_the_script(
    bucket: Conf, tmp_path: Path, here: Path, aws: dict[str, str]
) -> None:
    chain = make_chain({**bucket, "compress": False}, tmp_path / "mydir")
    script = bakthat.restore_script(chain.names[-1], conf=chain.conf)
    body = plain(bucket).get_object(Bucket=bucket["s3_bucket"], Key=chain.names[0])["Body"]
    # Right before a header, tar takes it for the end of the archive.
    done = run(script, here, **aws, CUT=str(entries_of(body.read())[5].position))
    assert (done.returncode, done.stdout) == (1, "")
    assert "tar: Unexpected EOF" not in done.stderr
    assert f"{chain.names[0]} was not restored" in done.stderr


def test_the_password_of_an_endpoint_is_no_part_of_a_script() -> None:
    storage = Storage("s3", "mybucket", "https://me:secret@s3.example.com:9000/path", "eu-west-1")
    assert storage.aws_options == (
        " --endpoint-url https://s3.example.com:9000/path --region eu-west-1"
    )


def test_an_object_that_is_missing_on_s3_stops_the_script(
    bucket: Conf, tmp_path: Path, here: Path, aws: dict[str, str]
) -> None:
    chain = make_chain(bucket, tmp_path / "mydir")
    script = bakthat.restore_script(chain.names[-1], conf=bucket)
    plain(bucket).delete_object(Bucket=bucket["s3_bucket"], Key=chain.names[1])
    done = run(script, here, **aws)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{chain.names[1]} was not restored" in done.stderr


@pytest.mark.parametrize(("change", "said"), [("remove", "is missing"), ("cut", "does not have")])
def test_nothing_is_restored_when_an_archive_is_not_as_it_was_stored(
    local: Conf, tmp_path: Path, here: Path, change: str, said: str
) -> None:
    chain = make_chain(local, tmp_path / "mydir")
    script = bakthat.restore_script(chain.names[-1], conf=local)
    file = Path(local["local_path"], chain.names[1])
    if change == "remove":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
    done = run(script, here)
    assert (done.returncode, os.listdir(here)) == (1, [])
    assert said in done.stderr


def test_a_damaged_archive_stops_the_script(local: Conf, tmp_path: Path, here: Path) -> None:
    chain = make_chain(local, tmp_path / "mydir")
    file = Path(local["local_path"], chain.names[1])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    done = run(bakthat.restore_script(chain.names[-1], conf=local), here)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{chain.names[1]} was not restored" in done.stderr


@pytest.mark.parametrize("name", [".hidden", "file", "mydir/a.txt"])
def test_a_directory_that_is_not_empty_stays_as_it_is(
    local: Conf, tree: Path, here: Path, name: str
) -> None:
    bakthat.backup(tree, conf=local, password="")
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_text("mine")
    done = run(bakthat.restore_script("mydir", conf=local), here)
    assert (done.returncode, done.stderr) == (1, "this directory is not empty\n")
    assert [path.read_text() for path in here.rglob("*") if path.is_file()] == ["mine"]


def test_another_tar_is_refused(local: Conf, tree: Path, here: Path, tmp_path: Path) -> None:
    bakthat.backup(tree, conf=local, password="")
    program = tmp_path / "bsdtar"
    program.write_text("#!/bin/sh\necho 'bsdtar 3.5.3 - libarchive 3.5.3'\n")
    program.chmod(0o755)
    script = bakthat.restore_script("mydir", conf=local)
    done = run(script, here, TAR=program)
    assert (done.returncode, os.listdir(here)) == (1, [])
    assert "is not GNU tar" in done.stderr


def test_a_tar_without_some_options_restores_without_them(
    local: Conf, tree: Path, here: Path, tmp_path: Path
) -> None:
    bakthat.backup(tree, conf=local, password="")
    program = tmp_path / "old tar"
    program.write_text(
        "#!/bin/sh\nfor each; do case $each in --xattrs*|--acls) exit 64 ;; esac; done\n"
        'exec tar "$@"\n'
    )
    program.chmod(0o755)
    check_run(bakthat.restore_script("mydir", conf=local), here, TAR=program)
    assert same(tree, here)


@pytest.mark.parametrize("keys", [PLAIN, TO_KEY])
def test_a_file_comes_back_with_its_mode_and_time(
    local: Conf, tmp_path: Path, here: Path, key_file: Path, keys: EncryptionKeys
) -> None:
    file = tmp_path / "-it's a $file.txt"
    file.write_text("content")
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_370_373_055_123_456_789))
    conf = {**local, "compress": False}
    entry = bakthat.backup(file, conf=conf, **arguments_of(keys))
    assert entry.is_encrypted is bool(keys)
    script = bakthat.restore_script(file.name, conf=conf)
    check_run(script, here, IDENTITY=key_file)
    assert os.listdir(here) == [file.name]
    assert (
        fingerprint(here)[os.fsencode(file.name)] == fingerprint(tmp_path)[os.fsencode(file.name)]
    )


def test_a_file_is_fetched_from_s3(
    bucket: Conf, tmp_path: Path, here: Path, aws: dict[str, str], key_file: Path
) -> None:
    conf = {**bucket, "compress": False}
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    for name, keys in (("plain", PLAIN), ("encrypted", TO_KEY)):
        entry = bakthat.backup(file, conf=conf, custom_filename=name, **arguments_of(keys))
        script = bakthat.restore_script(entry.stored_filename, conf=conf)
        target = here / name
        target.mkdir()
        check_run(script, target, IDENTITY=key_file, **aws)
        assert (target / "notes.txt").read_text() == "notes"


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("password", ["", PASSPHRASE])
def test_a_value_of_key_value_comes_back_as_its_json(
    local: Conf, here: Path, compress: bool, password: str
) -> None:
    values = KeyValue(conf=local)
    values.set_key("colours", ["blue"], compress=compress, password=password)
    script = bakthat.restore_script("colours", conf=local)
    code, seen = typed(script, here, PASSPHRASE, shell=("sh", "-c"))
    assert code == 0, seen
    assert (here / "colours.json").read_text() == '["blue"]'


def test_a_vault_needs_two_commands_for_each_archive(
    glacier: GlacierServer, local: Conf, tmp_path: Path, here: Path
) -> None:
    conf = {**glacier.conf(), "database": local["database"]}
    tree = tmp_path / "mydir"
    chain = make_chain(conf, tree)
    asked = len(glacier.asked)
    script = bakthat.restore_script(chain.names[-1], conf=conf)
    assert len(glacier.asked) == asked
    found = dict(bakthat.show_local_glacier_inventory(conf=conf))
    requests = re.findall(r'^#  .* initiate-job .*"ArchiveId": "(.*)"', script, re.M)
    outputs = re.findall(r"^#  .* get-job-output .* --job-id JOB-ID (\S+)$", script, re.M)
    assert (requests, outputs) == ([found[each] for each in chain.names], chain.names)
    done = run(script, here)
    assert (done.returncode, os.listdir(here)) == (1, [])
    assert done.stderr == "set ARCHIVES to the directory with the archives\n"
    fetched = tmp_path / "fetched files"
    fetched.mkdir()
    for name in chain.names:
        archive = glacier.archives(conf["glacier_vault"])[found[name]]
        shutil.copy(archive.path, fetched / name)
    check_run(script, here, ARCHIVES=fetched)
    assert same(tree, here)


def test_an_archive_of_a_vault_whose_id_is_unknown_is_an_error(
    glacier: GlacierServer, local: Conf, tree: Path
) -> None:
    conf = {**glacier.conf(), "database": local["database"]}
    bakthat.backup(tree, conf=conf, password="")
    with models.catalog(local["database"], write=True):
        models.Inventory.delete().execute()
    with pytest.raises(NotFoundError, match="is not known here") as raised:
        bakthat.restore_script("mydir", conf=conf)
    assert "show_glacier_inventory" in raised.value.hint


def test_what_060_encrypted_needs_bakthat(
    moto_conf: Conf, tmp_path: Path, here: Path, aws: dict[str, str]
) -> None:
    legacy = Legacy(moto_conf, tmp_path / "catalog.sqlite")
    body = tarball("mydir", {"a.txt": b"hello"})
    about = {"is_enc": True, "client": "web1"}
    legacy.store("mydir20130604191055.tgz.enc", "mydir", beefish(body), about, DATE)
    legacy.store("other20130604191055.tgz", "other", body, {**about, "is_enc": False}, DATE)
    with pytest.raises(UsageError, match=r"that only bakthat reads") as raised:
        bakthat.restore_script("mydir", conf=legacy.conf)
    assert raised.value.hint == "restore it with bakthat restore"
    check_run(bakthat.restore_script("other", conf=legacy.conf), here, **aws)
    assert (here / "mydir" / "a.txt").read_text() == "hello"


def test_a_needed_archive_that_is_gone_is_an_error(local: Conf, tmp_path: Path) -> None:
    chain = make_chain(local, tmp_path / "mydir")
    Path(local["local_path"], chain.names[0]).unlink()
    with models.catalog(local["database"], write=True):
        models.Backups.delete().where(models.Backups.stored_filename == chain.names[0]).execute()
    with pytest.raises(NotFoundError, match="2013-06-04 19:10:55 UTC, which the catalog") as raised:
        bakthat.restore_script(chain.names[-1], conf=local)
    assert raised.value.hint == "bakthat sync lists what is stored"


def test_an_increment_whose_needs_are_unknown_is_an_error(local: Conf, tmp_path: Path) -> None:
    chain = make_chain(local, tmp_path / "mydir")
    with models.catalog(local["database"], write=True):
        models.Backups.update(metadata={"format": 2, "client": chain.entries[0].host}).where(
            models.Backups.stored_filename == chain.names[-1]
        ).execute()
    with pytest.raises(UsageError, match="needs is not known") as raised:
        bakthat.restore_script(chain.names[-1], conf=local)
    assert "bakthat sync" in raised.value.hint


def make_long(conf: Conf, tree: Path) -> IndexedChain:
    """Store a full of a directory with thousands of long names, and an increment with an index.

    The increment removes a file and a directory there, and puts a file in the place of another
    directory. It has no record of the directory, as none is written of more than 512 KiB.
    """
    big = tree / "big"
    big.mkdir(parents=True)
    for number in range(2100):
        (big / f"{number:04}{'n' * 246}").touch()
    (big / ODD[1]).write_text("gone")
    (big / "gone" / "deep").mkdir(parents=True)
    (big / "becomes a file" / "deep").mkdir(parents=True)
    chain = IndexedChain(tree, conf)
    chain.full()
    (big / ODD[1]).unlink()
    shutil.rmtree(big / "gone")
    shutil.rmtree(big / "becomes a file")
    (big / "becomes a file").write_text("a file")
    chain.increment()
    return chain


def test_what_tar_does_not_remove_is_removed_before(
    local: Conf, tmp_path: Path, here: Path
) -> None:
    chain = make_long(local, tmp_path / "mydir")
    script = bakthat.restore_script(chain.names[-1], conf=chain.conf)
    assert len(re.findall("^remove ", script, re.M)) == 3
    assert all(line.isprintable() for line in script.split("\n"))
    check_run(script, here)
    assert same(chain.tree, here)


def test_the_memory_does_not_grow_with_the_number_of_changes(local: Conf, tmp_path: Path) -> None:
    peaks = []
    for name, directories in (("few", 30), ("many", 90)):
        tree = tmp_path / name
        for number in range(directories):
            inner = tree / f"{number:03}"
            inner.mkdir(parents=True)
            (inner / "0").touch()
            for at in range(1, 200):  # links are made sooner than files
                (inner / f"{at}").hardlink_to(inner / "0")
        chain = IndexedChain(tree, local)
        chain.full()
        for path in list(tree.glob("*/*")):
            path.unlink()
        chain.increment()
        tracemalloc.start()
        try:
            script = bakthat.restore_script(chain.names[-1], conf=chain.conf)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert "\nremove " not in script
    assert peaks[1] - peaks[0] < 512 * 1024, peaks


def test_nothing_is_removed_through_a_link(local: Conf, tmp_path: Path, here: Path) -> None:
    chain = make_long(local, tmp_path / "mydir")
    script = bakthat.restore_script(chain.names[-1], conf=chain.conf)
    outside = tmp_path / "outside"
    (outside / "gone").mkdir(parents=True)
    # As if the full had the link: an index that lies must not remove anything elsewhere.
    changed = script.replace(
        "\nremove ", f"\nrm -r mydir/big; ln -s '{outside}' mydir/big\nremove ", 1
    )
    done = run(changed, here)
    assert done.returncode == 1
    assert "was not removed" in done.stderr
    assert (outside / "gone").is_dir()


def test_an_index_that_is_not_in_the_cache_is_opened_with_the_key(
    local: Conf,
    tmp_path: Path,
    here: Path,
    key_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**local, "recipients": [age.recipient_of(IDENTITY)]}
    chain = make_long(conf, tmp_path / "mydir")
    caplog.set_level(logging.INFO, "bakthat")
    forget_cache()
    without = bakthat.restore_script(chain.names[-1], conf=chain.conf)
    assert "the script may lack commands" in caplog.text
    assert "\nremove " not in without
    caplog.clear()
    opened = bakthat.restore_script(chain.names[-1], conf=chain.conf, identity_file=key_file)
    assert f"reading the index of {chain.names[-1]}, which needs the key" in caplog.text
    check_run(opened, here, IDENTITY=key_file)
    assert same(chain.tree, here)
    caplog.clear()
    # It is in the cache now.
    cached = bakthat.restore_script(chain.names[-1], conf=chain.conf)
    assert (caplog.text, "\nremove " in cached) == ("", True)


def test_a_small_tree_needs_no_index(
    local: Conf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = make_chain(local, tmp_path / "mydir", TO_KEY)
    forget_cache()
    bakthat.restore_script(chain.names[-1], conf=local)
    assert caplog.text == ""


def test_the_command_prints_the_script_alone(
    user: CommandLine, local: Conf, tmp_path: Path, here: Path
) -> None:
    write_config(user.home / ".bakthat.yml", default=local)
    tree = make_every_kind(tmp_path / "mydir")
    assert user.run("backup", tree, "--prompt", "no").code == 0
    done = user.run("show", "mydir", "--by-hand", env={"LC_ALL": "C"})
    assert (done.code, done.stderr) == (0, "")
    check_run(done.stdout, here)
    assert same(tree, here)
    assert user.run("show", "--by-hand").code == 2
    assert user.run("show", "--by-hand", "mydir", "--json").code == 2
    assert user.run("show", "mydir", "--source", tree).code == 2
    assert user.run("show", "--by-hand", "nothing").code == 1
