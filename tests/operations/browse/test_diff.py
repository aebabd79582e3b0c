"""Comparing a backup with another one, and with the disk."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.create import walk as walk_module
from bakthat.crypto import age
from bakthat.errors import NoMatchError, SourceError, UsageError
from bakthat.helper import KeyValue
from bakthat.operations.browse.diff import DiffReport
from tests.support.commandline import CommandLine, untimed
from tests.support.legacy import Legacy, tarball
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.trees import make_every_kind

pytestmark = pytest.mark.permissions


@pytest.fixture
def mydir(tmp_path: Path) -> Path:
    root = tmp_path / "mydir"
    for name in ("a.txt", "b.txt", "etc/hosts"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "link").symlink_to("a.txt")
    return root


def stored(root: Path, conf: Conf, **options: Any) -> str:
    return str(bakthat.backup(root, conf=conf, password="", **options).stored_filename)


def found(*names: str, conf: Conf, **options: Any) -> dict[str, str]:
    """Return what changed, by path."""
    return {
        each.path: " ".join(each.aspects) or each.kind.value
        for each in bakthat.diff(*names, conf=conf, **options)
    }


def report_of(*names: str, conf: Conf, **options: Any) -> DiffReport:
    changes = bakthat.diff(*names, conf=conf, **options)
    assert all(changes)
    return changes.report


def keep_times(path: Path, change: Callable[[], object]) -> None:
    """Change something, and put the times of *path* and its directory back."""
    before = {each: os.lstat(each).st_mtime_ns for each in (path, path.parent)}
    change()
    for each, when in before.items():
        os.utime(each, ns=(when, when), follow_symlinks=False)


class TestTwoBackups:
    def test_changes_are_found_on_every_storage(self, conf: Conf, mydir: Path) -> None:
        first = stored(mydir, conf)
        (mydir / "a.txt").write_text("another text")
        (mydir / "b.txt").chmod(0o600)
        (mydir / "etc/hosts").unlink()
        (mydir / "etc/new").write_text("new")
        (mydir / "link").unlink()
        (mydir / "link").symlink_to("b.txt")
        second = stored(mydir, conf)
        expected = {
            "mydir": "times",
            "mydir/a.txt": "content times",
            "mydir/b.txt": "mode",
            "mydir/etc": "times",
            "mydir/etc/hosts": "removed",
            "mydir/etc/new": "added",
            "mydir/link": "times target",
        }
        assert found(first, second, conf=conf) == expected
        assert report_of(first, second, conf=conf).as_dict() == {
            "before": first,
            "after": second,
            "added": 1,
            "removed": 1,
            "changed": 5,
            "unchanged": 0,
            "bytes_added": len("another text") + len("new"),
            "bytes_removed": len("a.txt") + len("etc/hosts"),
            "unknown": 0,
        }
        assert found(second, second, conf=conf) == {}
        assert found(second, first, conf=conf)["mydir/etc/hosts"] == "added"

    def test_sets_of_other_names_can_be_compared(self, local: Conf, mydir: Path) -> None:
        other = mydir.with_name("copy")
        shutil.copytree(mydir, other, symlinks=True)
        os.utime(other / "link", ns=(5, 5), follow_symlinks=False)
        first, second = stored(mydir, local), stored(other, local, custom_filename="named")
        assert found(first, second, conf=local) == {"copy/link": "times"}

    def test_another_name_of_a_file_changes_none_of_the_others(
        self, local: Conf, mydir: Path
    ) -> None:
        os.link(mydir / "b.txt", mydir / "z")
        first = stored(mydir, local)
        before = os.stat(mydir).st_mtime_ns
        (mydir / "a.txt").unlink()
        os.link(mydir / "b.txt", mydir / "a first name")
        os.utime(mydir, ns=(before, before))
        second = stored(mydir, local)
        changed = {"mydir/a first name": "added", "mydir/a.txt": "removed"}
        assert found(first, second, conf=local) == changed
        assert found(first, conf=local) == changed
        (mydir / "z").unlink()
        shutil.copy2(mydir / "b.txt", mydir / "z")
        os.utime(mydir, ns=(before, before))
        assert found(second, conf=local, read_files=True) == {"mydir/z": "target"}

    def test_encrypted_ones_are_compared_by_their_keys(
        self, local: Conf, mydir: Path, tmp_path: Path
    ) -> None:
        identity = age.generate_identity()
        (tmp_path / "key.txt").write_text(identity)
        names = []
        for content in ("one", "two"):
            (mydir / "a.txt").write_text(content)
            entry = bakthat.backup(mydir, conf=local, recipients=age.recipient_of(identity))
            names.append(str(entry.stored_filename))
        changed = {"mydir/a.txt": "content times"}
        # The cache of this machine needs no key.
        assert found(*names, conf=local) == changed
        shutil.rmtree(Path.home() / ".cache")
        assert found(*names, conf=local, identity_file=tmp_path / "key.txt") == changed

    def test_what_is_for_the_disk_is_refused(self, local: Conf, mydir: Path) -> None:
        name = stored(mydir, local)
        for options in ({"path": mydir}, {"read_files": True}, {"ignore_files": False}):
            with pytest.raises(UsageError, match="for a comparison with the disk"):
                found(name, name, conf=local, **options)

    def test_a_value_holds_no_files(self, local: Conf, mydir: Path) -> None:
        name = stored(mydir, local)
        KeyValue(conf=local).set_key("mykey", 1)
        with pytest.raises(UsageError, match="is a value of KeyValue"):
            found(name, "mykey", conf=local)

    def test_a_name_that_means_no_backup_is_an_error(self, local: Conf, mydir: Path) -> None:
        name = stored(mydir, local)
        with pytest.raises(NoMatchError, match="no backup matches 'nothing'"):
            found(name, "nothing", conf=local)


class TestDisk:
    @pytest.mark.parametrize("read_files", [False, True])
    def test_an_unchanged_tree_of_every_kind_has_no_changes(
        self, local: Conf, tmp_path: Path, read_files: bool
    ) -> None:
        root = make_every_kind(tmp_path / "mydir")
        name = stored(root, local)
        assert found(name, conf=local, read_files=read_files) == {}
        # A copy that keeps everything is as good.
        bakthat.restore(name, conf=local, output=tmp_path / "out")
        path = tmp_path / "out/mydir"
        assert found(name, conf=local, path=path, read_files=read_files) == {}
        renamed = path.rename(tmp_path / "out/other name")
        assert found(name, conf=local, path=renamed, read_files=read_files) == {}

    def test_changes_are_found_where_the_backup_was_made(self, conf: Conf, mydir: Path) -> None:
        name = stored(mydir, conf)
        assert found(name, conf=conf) == {}
        keep_times(mydir / "a.txt", lambda: (mydir / "a.txt").chmod(0o600))
        keep_times(mydir / "etc/hosts", lambda: (mydir / "etc/hosts").write_text("longer text"))
        assert found(name, conf=conf) == {"mydir/a.txt": "mode", "mydir/etc/hosts": "content"}

    def test_only_the_hash_shows_a_change_that_kept_size_and_time(
        self, local: Conf, mydir: Path
    ) -> None:
        name = stored(mydir, local)
        keep_times(mydir / "a.txt", lambda: (mydir / "a.txt").write_text("A.TXT"))
        os.utime(mydir / "b.txt", ns=(7, 7))
        assert found(name, conf=local) == {"mydir/b.txt": "content times"}
        changed = {"mydir/a.txt": "content", "mydir/b.txt": "times"}
        assert found(name, conf=local, read_files=True) == changed

    def test_what_a_backup_leaves_out_is_left_out(self, local: Conf, mydir: Path) -> None:
        (mydir / ".bakthatexclude").write_text("*.o\n")
        name = stored(mydir, local)
        before = os.stat(mydir).st_mtime_ns
        (mydir / "x.o").write_text("x")
        os.utime(mydir, ns=(before, before))
        assert found(name, conf=local) == {}
        assert found(name, conf=local, ignore_files=False) == {"mydir/x.o": "added"}

    def test_the_store_inside_of_the_tree_is_left_out(self, local: Conf, mydir: Path) -> None:
        inside = {**local, "local_path": str(mydir / "store")}
        (mydir / "store").mkdir()
        name = stored(mydir, inside)
        assert set(found(name, conf=inside)) <= {"mydir/store"}

    def test_a_file_is_compared_in_each_form(self, local: Conf, tmp_path: Path) -> None:
        source = tmp_path / "notes.txt"
        source.write_text("text")
        for conf in (local, {**local, "compress": False}):
            name = stored(source, conf)
            assert found(name, conf=conf, read_files=True) == {}
            source.chmod(0o600)
            assert found(name, conf=conf) == {"notes.txt": "mode"}
            source.chmod(0o644)

    def test_a_backup_of_another_host_needs_a_path(self, local: Conf, mydir: Path) -> None:
        name = stored(mydir, local, host="elsewhere")
        with pytest.raises(UsageError, match="was made on another host, elsewhere") as caught:
            found(name, conf=local)
        assert "--path" in caught.value.hint
        assert found(name, conf=local, path=mydir) == {}

    def test_a_catalog_that_was_rebuilt_knows_the_place_by_the_index(
        self, local: Conf, mydir: Path
    ) -> None:
        name = stored(mydir, local)
        os.unlink(local["database"])
        bakthat.sync(conf=local)
        (synced,) = bakthat.ls(conf=local)
        assert synced.source == ""
        assert found(name, conf=local) == {}

    def test_a_place_that_is_gone_is_an_error(self, local: Conf, mydir: Path) -> None:
        name = stored(mydir, local)
        shutil.rmtree(mydir)
        with pytest.raises(SourceError, match=r"cannot compare with .*mydir: no such file"):
            found(name, conf=local)

    def test_an_empty_path_and_a_fifo_are_no_places(self, local: Conf, mydir: Path) -> None:
        name = stored(mydir, local)
        with pytest.raises(UsageError, match="the path to compare with is empty"):
            found(name, conf=local, path="")
        os.mkfifo(mydir / "fifo")
        with pytest.raises(SourceError, match="it is neither a file nor a directory"):
            found(name, conf=local, path=mydir / "fifo")

    def test_what_cannot_be_read_is_a_warning_and_no_change(
        self, local: Conf, mydir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = stored(mydir, local)
        real = walk_module._open_directory

        def refusing(path: str) -> int:
            if path == str(mydir / "etc"):
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(walk_module, "_open_directory", refusing)
        assert found(name, conf=local) == {}
        report = report_of(name, conf=local)
        assert report.totals.unknown == 1
        assert report.disk.warnings == [
            f"{mydir}/etc: cannot list this directory: permission denied; "
            "its contents are not compared"
        ]


class TestOldBackups:
    """Those of bakthat 0.6.0 have another order, whole seconds, and perhaps no top directory."""

    @pytest.fixture
    def old(self, moto_endpoint: S3Server, tmp_path: Path) -> Legacy:
        return Legacy(moto_endpoint.conf(), tmp_path / "bakthat.sqlite")

    def test_they_are_compared_in_order_and_by_whole_seconds(
        self, old: Legacy, mydir: Path
    ) -> None:
        shutil.rmtree(mydir / "etc")
        os.utime(mydir / "a.txt", ns=(1, 1_700_000_000_123_456_789))
        stored = io.BytesIO()
        with tarfile.open(fileobj=stored, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
            archive.add(mydir, "mydir", recursive=False)
            for name in ("link", "b.txt", "a.txt"):
                archive.add(mydir / name, f"mydir/{name}")
        metadata = {"is_enc": False}
        name = "mydir.20130604191055.tgz"
        old.store(name, "mydir", stored.getvalue(), metadata, 1370373055)
        assert found(name, conf=old.conf, path=mydir, read_files=True) == {}
        (mydir / "b.txt").write_text("other")
        os.utime(mydir / "a.txt", ns=(1, 1_700_000_001_000_000_000))
        changed = found(name, conf=old.conf, path=mydir, read_files=True)
        assert changed["mydir/a.txt"] == "times"
        assert changed["mydir/b.txt"].startswith("content")
        assert set(changed) == {"mydir/a.txt", "mydir/b.txt"}

    def test_one_without_a_top_directory_is_compared_by_what_is_in_it(
        self, old: Legacy, mydir: Path
    ) -> None:
        stored = io.BytesIO()
        with tarfile.open(fileobj=stored, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
            archive.add(mydir, ".")
        name = "here.20130604191055.tgz"
        old.store(name, "here", stored.getvalue(), {"is_enc": False}, 1370373055)
        assert found(name, conf=old.conf, path=mydir, read_files=True) == {}
        (mydir / "b.txt").chmod(0)
        (mydir / "new").write_text("")
        assert found(name, conf=old.conf, path=mydir) == {"b.txt": "mode", "new": "added"}

    def test_where_they_were_made_is_not_known(self, old: Legacy, mydir: Path) -> None:
        name = "mydir.20130604191055.tgz"
        stored = tarball("mydir", {"a.txt": b"a"})
        old.store(name, "mydir", stored, {"is_enc": False}, 1370373055)
        with pytest.raises(UsageError, match="it is not known which file or directory"):
            found(name, conf=old.conf)


def test_an_iteration_may_end_early(local: Conf, mydir: Path) -> None:
    name = stored(mydir, local)
    changes = bakthat.diff(name, conf=local, path=mydir / "etc")
    next(changes)
    changes.close()
    assert list(changes) == []


class TestCommand:
    @pytest.fixture
    def name(self, user: CommandLine, mydir: Path) -> str:
        """Back mydir up, and return the stored filename."""
        done = user.run("backup", "mydir", "--prompt", "no", "--json")
        assert done.code == 0, done.stderr
        return str(done.lines("backup")[0]["stored_filename"])

    def change(self, mydir: Path) -> None:
        keep_times(mydir / "a.txt", lambda: (mydir / "a.txt").write_text("longer text"))
        (mydir / "b.txt").chmod(0o600)
        before = os.stat(mydir).st_mtime_ns
        (mydir / "etc/hosts").unlink()
        (mydir / "etc").rmdir()
        (mydir / "new\nline").write_text("x")
        os.utime(mydir, ns=(before, before))

    def test_it_prints_a_line_for_each_change(
        self, user: CommandLine, mydir: Path, name: str
    ) -> None:
        (mydir / "b.txt").chmod(0o644)
        self.change(mydir)
        done = user.run("diff", name)
        assert (done.code, done.stdout) == (
            0,
            "M mydir/a.txt: content 5 B -> 11 B\n"
            "M mydir/b.txt: mode 0644 -> 0600\n"
            "- mydir/etc/\n"
            "- mydir/etc/hosts\n"
            "+ mydir/new\\nline\n",
        ), done.stderr
        assert (
            untimed(done.stderr)
            .splitlines()[-1]
            .startswith(
                f"Compared {name} with {mydir}: 1 added, 2 removed, 2 changed (+12 B, -14 B)"
            )
        )

    def test_the_exit_code_says_whether_there_are_changes_on_request(
        self, user: CommandLine, mydir: Path, name: str
    ) -> None:
        assert user.run("diff", "mydir", "--exit-code").code == 0
        self.change(mydir)
        assert user.run("diff", "mydir").code == 0
        assert user.run("diff", "mydir", "--exit-code").code == 1
        assert user.run("diff", "mydir", "mydir", "--exit-code").code == 0

    def test_json_has_one_object_a_line(self, user: CommandLine, mydir: Path, name: str) -> None:
        self.change(mydir)
        done = user.run("--quiet", "diff", name, "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["message_type"] for each in lines] == ["change"] * 5 + ["summary"]
        assert lines[0]["path"] == "mydir/a.txt"
        assert lines[0]["change"] == "changed"
        assert lines[0]["aspects"] == ["content"]
        assert lines[0]["before"]["size"] == 5
        assert lines[0]["after"]["size"] == 11
        assert lines[-1]["before"] == name
        assert lines[-1]["after"] == str(mydir)
        assert lines[-1]["removed"] == 2
        assert done.stderr == ""

    def test_what_cannot_be_compared_is_exit_code_3(
        self, user: CommandLine, mydir: Path, name: str
    ) -> None:
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        (mydir / "etc").chmod(0)
        done = user.run("diff", name)
        (mydir / "etc").chmod(0o755)
        assert done.code == 3
        assert "mydir/etc: cannot list this directory" in done.stderr
        assert done.stderr.splitlines()[-1].endswith("1 warning")

    def test_wrong_arguments_are_usage_errors(
        self, user: CommandLine, mydir: Path, name: str
    ) -> None:
        done = user.run("diff", name, name, "--hash")
        assert (done.code, done.stdout) == (2, "")
        assert "for a comparison with the disk" in done.stderr
