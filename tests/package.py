"""Build the sdist and the wheel into ``dist/``, check both, and use the wheel as a user does.

``tox -e package`` runs it, and ``tox -e release`` with ``--release``, which also asks for a version
that is no development version and for its dated entry in the changelog.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import bakthat
from tests.support.containerfile import FILES, stages

PROJECT = Path(__file__).parents[1]
IN_SDIST = [
    "CHANGELOG.rst",
    "CONTRIBUTING.rst",
    "LICENSE",
    "README.rst",
    "SECURITY.rst",
    "setup.py",
    "tox.ini",
    "docs/index.rst",
    "docs/man/bakthat.1",
    "tests/conftest.py",
    "tests/support/servers.py",
]
IMPORT = """
import sys
before = set(sys.modules)
import bakthat
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not loaded & {"boto3", "cryptography", "peewee", "yaml"}, loaded
print(bakthat.__version__)
"""


def run(*command: str | Path, **more: str) -> str:
    """Run a command away from the clone, and return what it prints."""
    print("$", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            command, cwd=empty, env={**environment, **more}, text=True, stdout=subprocess.PIPE
        )
    if done.returncode:
        raise SystemExit(f"{done.stdout}exit code {done.returncode}")
    return done.stdout


def build(dist: Path) -> tuple[Path, Path]:
    """Build and check both files; return the sdist and the wheel."""
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", dist, PROJECT)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    run(sys.executable, "-m", "check_wheel_contents", wheel)
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    absent = [name for name in IN_SDIST if name not in names]
    if absent:
        raise SystemExit(f"{sdist.name} lacks {', '.join(absent)}; see MANIFEST.in")
    return sdist, wheel


def use(wheel: Path) -> None:
    """Back a tree up and restore it with the wheel in an environment that has nothing else."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        run(sys.executable, "-m", "venv", base / "venv")
        run(base / "venv/bin/pip", "install", "-q", wheel)
        python, command = base / "venv/bin/python", base / "venv/bin/bakthat"
        version = run(python, "-c", IMPORT).strip()
        assert version == bakthat.__version__, version
        # Where man looks for a command in venv/bin, and pipx for what it links.
        installed = {page.name for page in (base / "venv/share/man/man1").glob("*.1")}
        written = {page.name for page in (PROJECT / "docs/man").glob("*.1")}
        assert installed == written, installed ^ written
        tree, home = base / "mydir", base / "home"
        (tree / "sub").mkdir(parents=True)
        home.mkdir()
        (tree / "a.txt").write_text("hello")
        (tree / "sub/random").write_bytes(os.urandom(100_000))
        run(command, "backup", tree, "--prompt", "no", HOME=str(home))
        assert "mydir." in run(command, "show", HOME=str(home))
        run(command, "restore", "mydir", "--output", base / "out", HOME=str(home))
        run("diff", "-r", tree, base / "out/mydir")


def install() -> None:
    """Install the clone as a tool, as the README says, with pipx and with uv; run both."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        places = {
            "HOME": str(home),
            "PIPX_HOME": str(home / "pipx"),
            "PIPX_BIN_DIR": str(home / "pipx-bin"),
            "PIPX_MAN_DIR": str(home / "pipx-man"),
            "UV_TOOL_DIR": str(home / "uv"),
            "UV_TOOL_BIN_DIR": str(home / "uv-bin"),
        }
        run(sys.executable, "-m", "pipx", "install", "--quiet", PROJECT, **places)
        run(sys.executable, "-m", "uv", "tool", "install", "--quiet", PROJECT, **places)
        for directory in ("pipx-bin", "uv-bin"):
            version = run(home / directory / "bakthat", "--version", **places).strip()
            assert version == f"bakthat {bakthat.__version__}", version
        assert (home / "pipx-man" / "man1" / "bakthat.1").exists()


def check_containers() -> None:
    """Run the build of the image as far as no engine is needed, and check its files."""
    run("hadolint", FILES / "Containerfile")
    run(sys.executable, "-m", "kubernetes_validate", "--strict", FILES / "cronjob.yaml")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for word, rest in stages()[0]:
            *sources, target = rest.split()
            if word == "COPY":
                for source in sources:
                    _copy(PROJECT / source, base / target)
            elif word == "RUN":
                command = rest.replace("/opt/bakthat", f"{base}/opt/bakthat")
                run("sh", "-ec", f"cd {base}\n{command}")
        version = run(base / "opt/bakthat/bin/bakthat", "--version").strip()
        assert version == f"bakthat {bakthat.__version__}", version
        run(base / "opt/bakthat/bin/python", "-c", "import apprise")


def _copy(source: Path, target: Path) -> None:
    """Copy as COPY does: a directory's content, or a file into a directory."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def check_release() -> None:
    """Exit with an error unless the version and its entry in the changelog are for a release."""
    version = bakthat.__version__
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        raise SystemExit(f"{version} is no release: set __version__ in bakthat/__init__.py")
    entry = rf"^{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n-+\n\n\S"
    if not re.search(entry, (PROJECT / "CHANGELOG.rst").read_text(), re.MULTILINE):
        raise SystemExit(f"CHANGELOG.rst has no entry '{version} (YYYY-MM-DD)'")


def main() -> None:
    """Build, check and use both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true", help="check the changelog too")
    if parser.parse_args().release:
        check_release()
    sdist, wheel = build(PROJECT / "dist")
    use(wheel)
    install()
    check_containers()
    print(f"{sdist.name} and {wheel.name} are good")


if __name__ == "__main__":
    main()
