"""File systems to test on: new and empty, mounted from a file where they need a disk."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.needs import PROGRAMS, missing, program

MIB = 1024 * 1024
IMAGE_BYTES = 320 * MIB
"""The size of a file system on a disk, which is a sparse file; XFS needs 300 MiB."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted file system, and what it keeps."""

    kind: str
    path: Path
    keeps_modes: bool = True
    """Modes, owners and extended attributes."""
    keeps_all_kinds: bool = True
    """Links, FIFOs, devices, holes, and every name."""


_Maker = Callable[[ExitStack, int], FileSystem]


def _tmpfs(stack: ExitStack, _image_bytes: int) -> FileSystem:
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    if not any(line.split()[1:3] == ["/dev/shm", "tmpfs"] for line in mounts):
        missing("/dev/shm is not a tmpfs")
    path = Path(tempfile.mkdtemp(prefix="bakthat-test-", dir="/dev/shm"))
    stack.callback(shutil.rmtree, path)
    path.chmod(0o755)
    return FileSystem("tmpfs", path)


def _on_a_disk(kind: str, mkfs: str, *options: str) -> _Maker:
    def make(stack: ExitStack, image_bytes: int) -> FileSystem:
        _check_kernel(kind)
        image, place = _image(stack, image_bytes)
        _run(program(mkfs), *options, str(image))
        _check_free_loop_device()
        _mount(stack, place, "-o", "loop", str(image))
        return FileSystem(kind, place)

    return make


def _exfat(stack: ExitStack, image_bytes: int) -> FileSystem:
    _check_fuse()
    helper = program("mount.exfat-fuse")
    image, place = _image(stack, image_bytes)
    _run(program("mkfs.exfat"), str(image))
    _check_free_loop_device()
    device = _run("losetup", "--find", "--show", str(image)).strip()
    stack.callback(_run, "losetup", "--detach", device)
    _mount_by(stack, place, [helper, device, str(place)])
    return FileSystem("exfat", place, keeps_modes=False, keeps_all_kinds=False)


def _overlay(lower_kind: str, fill: Callable[[Path], None] | None = None) -> _Maker:
    def make(stack: ExitStack, image_bytes: int) -> FileSystem:
        _check_kernel("overlay")
        # Not on the machine's own file system: that may be an overlay, which cannot be a layer.
        base = _MAKERS[lower_kind](stack, image_bytes).path
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        if fill is not None:
            fill(base / "lower")
        layers = ",".join(f"{name}dir={base / name}" for name in ("lower", "upper", "work"))
        _mount(stack, base / "merged", "-t", "overlay", "overlay", "-o", layers)
        return FileSystem(f"overlay on {lower_kind}", base / "merged")

    return make


def _bindfs(kind: str, *options: str) -> _Maker:
    """A directory seen through FUSE, which changes what it refuses; it needs no disk."""

    def make(stack: ExitStack, _image_bytes: int) -> FileSystem:
        _check_fuse()
        helper = program("bindfs")
        below, place = _directory(stack), _directory(stack)
        _mount_by(stack, place, [helper, *options, str(below), str(place)])
        return FileSystem(kind, place, keeps_modes=False)

    return make


_MAKERS: dict[str, _Maker] = {
    "tmpfs": _tmpfs,
    "ext4": _on_a_disk("ext4", "mkfs.ext4", "-q"),
    "btrfs": _on_a_disk("btrfs", "mkfs.btrfs", "-q"),
    "xfs": _on_a_disk("xfs", "mkfs.xfs", "-q"),
    "exfat": _exfat,
    "overlay on tmpfs": _overlay("tmpfs"),
    "overlay on btrfs": _overlay("btrfs"),
    "modes refused": _bindfs(
        "modes refused", "--chmod-deny", "--chown-deny", "--chgrp-deny", "--xattr-none"
    ),
    "modes ignored": _bindfs(
        "modes ignored", "--chmod-ignore", "--chown-ignore", "--chgrp-ignore", "--xattr-none"
    ),
}
KINDS = tuple(_MAKERS)


@contextmanager
def mounted_file_system(
    kind: str,
    *,
    image_bytes: int = IMAGE_BYTES,
    fill: Callable[[Path], None] | None = None,
) -> Iterator[FileSystem]:
    """Yield a new file system, where every user can reach it; skip where none can be mounted.

    In CI, the test fails where a program is missing or the kernel refuses what it knows. At the
    end, also of a test that failed, it is unmounted, and its loop device is free. *fill* is called
    with the directory that becomes the lower layer of an overlay.
    """
    if kind != "tmpfs" and os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    with ExitStack() as stack:
        make = _MAKERS[kind]
        if fill is not None:
            make = _overlay(kind.removeprefix("overlay on "), fill)
        yield make(stack, image_bytes)


def _directory(stack: ExitStack) -> Path:
    path = Path(tempfile.mkdtemp(prefix="bakthat-test-"))
    stack.callback(shutil.rmtree, path)
    path.chmod(0o755)
    return path


def _image(stack: ExitStack, size: int) -> tuple[Path, Path]:
    """Return a sparse file for a file system, and where to mount it."""
    base = _directory(stack)
    image, place = base / "image", base / "mounted"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(size)
    return image, place


def _mount(stack: ExitStack, place: Path, *options: str) -> None:
    _mount_by(stack, place, [program("mount"), *options, str(place)])


def _mount_by(stack: ExitStack, place: Path, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if not place.is_mount():
        reason = (done.stderr or done.stdout).strip()
        if _may_mount():
            missing(f"{' '.join(command)}: {reason}")
        pytest.skip(f"this machine forbids to mount: {reason}")
    stack.callback(_unmount, place)


def _unmount(place: Path) -> None:
    gc.collect()  # an exception that the test has caught may hold a file open
    if subprocess.run(["umount", place], capture_output=True).returncode:
        # A test that failed keeps what it opened; the mount ends with the last of these files.
        _run("umount", "--lazy", str(place))


def _may_mount() -> bool:
    """Return whether this user may mount at all; in a container, root may not."""
    with tempfile.TemporaryDirectory(prefix="bakthat-test-") as place:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True).returncode:
            return False
        _run("umount", place)
    return True


def _check_kernel(kind: str) -> None:
    modprobe = shutil.which("modprobe", path=PROGRAMS)
    if modprobe is not None:
        subprocess.run([modprobe, "--quiet", kind], check=False)
    names = [line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()]
    if kind not in names:
        pytest.skip(f"this kernel has no {kind}")


def _check_fuse() -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("this machine has no /dev/fuse")


def _check_free_loop_device() -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    done = subprocess.run(["losetup", "--find"], capture_output=True, text=True)
    if done.returncode:
        missing(f"no loop device is free: {done.stderr.strip()}")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout
