"""bakthat without what only Linux has, as on macOS. It is simulated: the kernel is still Linux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.trees import make_every_kind

AS_ON_MACOS = """
import errno, fcntl, os, re, select, signal, socket, sys
import urllib.request  # which needs a module of macOS there

LINUX_ONLY = {
    os: "O_NOATIME|O_PATH|O_TMPFILE|O_DIRECT|O_LARGEFILE|O_RSYNC|XATTR_.*|.*xattr|sched_.*|SCHED_.*"
    "|pidfd_open|PIDFD_.*|P_PIDFD|waitid|waitid_result|posix_fadvise|POSIX_FADV_.*|posix_fallocate"
    "|copy_file_range|splice|SPLICE_.*|memfd_create|MFD_.*|eventfd.*|EFD_.*|getrandom|GRND_.*"
    "|fdatasync|pipe2|preadv|pwritev|RWF_.*|[gs]etresuid|[gs]etresgid|unshare|setns|CLONE_.*"
    "|timerfd_.*|TFD_.*",
    signal: "pidfd_send_signal|sigtimedwait|sigwaitinfo|SIGCLD|SIGPOLL|SIGPWR|SIGRTM.*|SIGSTKFLT",
    fcntl: "F_ADD_SEALS|F_GET_SEALS|F_SEAL_.*|F_OFD_.*|F_[GS]ETPIPE_SZ|F_NOTIFY|DN_.*|F_[GS]ETSIG"
    "|F_[GS]ETLEASE|LOCK_MAND|LOCK_RW|F_EXLCK|F_SHLCK",
    socket: "SOCK_CLOEXEC|SOCK_NONBLOCK|AF_PACKET|AF_NETLINK|AF_VSOCK|AF_ALG|SO_PEERCRED|SO_MARK"
    "|TCP_USER_TIMEOUT|TCP_KEEPIDLE|MSG_CONFIRM|MSG_MORE",
    select: "epoll|EPOLL.*",
    errno: "EBADFD|ECHRNG|ECOMM|EDOTDOT|EISNAM|EKEYEXPIRED|EMEDIUMTYPE|ENOMEDIUM|ENOKEY|ENONET"
    "|ENOTNAM|ENOTUNIQ|EREMCHG|EREMOTEIO|ERESTART|ESTRPIPE|EUCLEAN|EXFULL",
}
for module, names in LINUX_ONLY.items():
    for name in list(vars(module)):
        if re.fullmatch(names, name):
            delattr(module, name)
sys.platform = "darwin"

real_open = os.open

def open_outside_proc(path, *arguments, **keywords):
    assert not os.fsdecode(path).startswith("/proc"), path
    return real_open(path, *arguments, **keywords)

os.open = open_outside_proc
from bakthat.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


class OnMacos:
    """A user whose Python has only what it has on macOS."""

    def __init__(self, user: CommandLine) -> None:
        self.user = user

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", AS_ON_MACOS, *map(str, arguments)],
            cwd=self.user.directory,
            env={**self.user.environment, "PYTHONWARNINGS": "error::ResourceWarning"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "unexpected" not in done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def backups(self) -> list[dict[str, Any]]:
        lines = map(json.loads, self.run("show", "--json").splitlines())
        return [line for line in lines if line["message_type"] == "backup"]


@pytest.fixture(params=["local", "s3"])
def profile(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "local":
        return {"default_destination": "local"}
    conf: Conf = request.getfixturevalue("moto_conf")
    return conf


def state(root: Path) -> dict[str, object]:
    """Return what macOS keeps too: no extended attributes."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        link = os.readlink(path) if path.is_symlink() else None
        name = os.fsdecode(path.relative_to(root))
        found[name] = (status.st_mode, status.st_mtime_ns, status.st_nlink, content, link)
    return found


@pytest.mark.permissions
@pytest.mark.slow
def test_a_backup_and_a_restore_work_without_what_only_linux_has(
    user: CommandLine, profile: dict[str, Any]
) -> None:
    write_config(user.home / ".bakthat.yml", default=profile)
    source = make_every_kind(user.directory / "source")
    on_macos = OnMacos(user)
    for _ in range(3):
        on_macos.run("backup", source, "--prompt", "no")
    listed = on_macos.backups()
    assert len(listed) == 3
    on_macos.run("restore", "source", "-o", "out")
    assert state(user.directory / "out" / "source") == state(source)
    on_macos.run("check", "--read-data")
    on_macos.run("rotate_backups", "source", "--last", "1")
    assert len(on_macos.backups()) == 1
    on_macos.run("sync")
    on_macos.run("cleanup")
    on_macos.run("delete", "source")


def test_an_archive_of_linux_is_restored_without_its_attributes_and_says_so(
    user: CommandLine,
) -> None:
    write_config(user.home / ".bakthat.yml", default={"default_destination": "local"})
    (user.directory / "source").mkdir()
    (user.directory / "source" / "file").write_text("content")
    os.setxattr(user.directory / "source" / "file", "user.note", b"kept on Linux")
    assert user.run("backup", "source", "--prompt", "no").code == 0
    OnMacos(user).run("restore", "source", "-o", "out", code=3)
    restored = user.directory / "out" / "source" / "file"
    assert restored.read_text() == "content"
    assert os.listxattr(restored) == []


@pytest.mark.slow
def test_an_encrypted_backup_comes_back_without_what_only_linux_has(user: CommandLine) -> None:
    write_config(
        user.home / ".bakthat.yml",
        default={"default_destination": "local", "password": "correct horse"},
    )
    (user.directory / "file").write_text("content")
    on_macos = OnMacos(user)
    on_macos.run("backup", "file")
    on_macos.run("restore", "file", "-o", "out")
    assert (user.directory / "out" / "file").read_text() == "content"
