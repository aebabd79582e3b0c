"""What is backed up: sets of files, and large ones, made from a seed."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 20130604
MEBIBYTE = 1024 * 1024
BLOCK = MEBIBYTE
"""Bytes of what compresses, then as many of what does not, in the set B."""
TINY_BYTES = 100
TINY_FILES_A_DIRECTORY = 500


@dataclass(frozen=True)
class Sizes:
    """How large the sets are; see :data:`FULL` and :data:`QUICK`."""

    small_files: int
    small_bytes: int
    large_file: int
    dump: int
    memory: tuple[int, ...]
    """Bytes whose backup and restore are watched for the memory they take; in rising order."""
    memory_file: int
    rows: int
    """Backups in the catalog that ``show`` lists."""
    tiny_files: int
    history: int = 30
    """Backups of which the newest is restored."""


FULL = Sizes(
    small_files=30_000,
    small_bytes=450_000_000,
    large_file=256 * MEBIBYTE,
    dump=1024 * MEBIBYTE,
    memory=(1024 * MEBIBYTE, 4 * 1024 * MEBIBYTE, 16 * 1024 * MEBIBYTE),
    memory_file=1024 * MEBIBYTE,
    rows=10_000,
    tiny_files=500_000,
)
QUICK = Sizes(
    small_files=200,
    small_bytes=3_000_000,
    large_file=2 * MEBIBYTE,
    dump=8 * MEBIBYTE,
    memory=(8 * MEBIBYTE, 16 * MEBIBYTE),
    memory_file=8 * MEBIBYTE,
    rows=200,
    tiny_files=700,
    history=4,
)


@dataclass(frozen=True)
class Tree:
    """A directory to back up."""

    name: str
    """One of :data:`MAKERS`."""
    path: Path
    label: str
    one_file: str
    """A file of it, below the directory that holds the tree; it is near the middle."""
    files: int
    bytes: int


def make(name: str, directory: Path, sizes: Sizes) -> Tree:
    """Make the set *name* in *directory*, or take it as an earlier run left it there."""
    path = directory / name
    done = directory / f"{name}.{sizes.small_files}.{sizes.dump}.done"
    if not done.exists():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        MAKERS[name](path, sizes)
        done.touch()
    return described(name, path)


def described(name: str, path: Path) -> Tree:
    """Return the tree at *path*, with what it holds counted."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    return Tree(
        name,
        path,
        f"{len(files):,} files, {size / 1e6:,.0f} MB",
        str(files[len(files) // 2].relative_to(path.parent)),
        len(files),
        size,
    )


def warm(tree: Tree) -> None:
    """Read all of *tree*, so that a run finds it in the page cache."""
    for file in tree.path.rglob("*"):
        if file.is_file():
            with file.open("rb", buffering=0) as stream:
                while stream.read(MEBIBYTE):
                    pass


def make_small_files(path: Path, sizes: Sizes) -> None:
    """Copy files of this Python's own library, each once, then again with a line put before it.

    The line differs in every file: no tool that stores equal content once gains by the copies.
    """
    source = random.Random(SEED)
    found = python_library()
    source.shuffle(found)
    count = total = copy = 0
    while count < sizes.small_files:
        before = count
        for root, file, size in found:
            if count == sizes.small_files:
                break
            # Keeps the average where it should be: too large a file waits for small ones.
            if total + size > sizes.small_bytes * (count / sizes.small_files + 0.02):
                continue
            content = file.read_bytes()
            if copy:
                content = b"# %032x\n" % source.getrandbits(128) + content
            target = path / f"python{copy}" / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            count += 1
            total += len(content)
        copy += 1
        if count == before:
            raise RuntimeError("Python's library is too small, or its files are too large")


def python_library() -> list[tuple[Path, Path, int]]:
    """Return the files of the standard library and of what is installed: root, path, bytes."""
    found: dict[Path, tuple[Path, Path, int]] = {}
    for root in {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib")}:
        for directory, _, names in os.walk(root):
            for name in names:
                file = Path(directory, name)
                if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK):
                    found[file] = (root, file, file.stat().st_size)
    return [found[file] for file in sorted(found)]


def make_large_files(path: Path, sizes: Sizes) -> None:
    """Write four files of which every second block does not compress."""
    for number in range(4):
        write_half_compressible(path / f"image{number}.raw", sizes.large_file, SEED + number)


def make_dump(path: Path, sizes: Sizes) -> None:
    """Write one file like a dump of a database."""
    with (path / "shop.sql").open("wb") as stream:
        for piece in sql_dump(random.Random(SEED)):
            stream.write(piece[: sizes.dump - stream.tell()])
            if stream.tell() >= sizes.dump:
                return


def make_stream(path: Path, sizes: Sizes) -> None:
    """Write one file of which every second block does not compress."""
    write_half_compressible(path / "stream.raw", sizes.dump, SEED)


def make_tiny_files(path: Path, sizes: Sizes) -> None:
    """Write files of 100 bytes, some hundred in a directory."""
    source = random.Random(SEED)
    for number in range(sizes.tiny_files):
        directory, name = divmod(number, TINY_FILES_A_DIRECTORY)
        if not name:
            (path / f"{directory:04}").mkdir()
        (path / f"{directory:04}" / f"{name:03}.tiny").write_bytes(source.randbytes(TINY_BYTES))


def write_half_compressible(path: Path, size: int, seed: int) -> None:
    """Write *size* bytes: a block of random bytes, a block of SQL, and so on."""
    source = random.Random(seed)
    text = sql_dump(source)
    rest = b""
    with path.open("wb") as stream:
        while stream.tell() < size:
            while len(rest) < BLOCK:
                rest += next(text)
            block = source.randbytes(BLOCK) + rest[:BLOCK]
            rest = rest[BLOCK:]
            stream.write(block[: size - stream.tell()])


def write_fast(path: Path, size: int, seed: int) -> None:
    """Write the like of :func:`write_half_compressible`, with the same block of SQL each time."""
    text = b"".join(itertools.islice(sql_dump(random.Random(seed)), 10))[:BLOCK]
    with path.open("wb") as stream:
        while stream.tell() < size:
            stream.write((os.urandom(BLOCK) + text)[: size - stream.tell()])


def make_for_memory(directory: Path, sizes: Sizes) -> list[tuple[int, Path]]:
    """Make the trees whose memory is watched; each holds the one before it, to save disk.

    Returns the bytes and the path of each.
    """
    trees: list[tuple[int, Path]] = []
    path = directory / "memory"
    shutil.rmtree(path, ignore_errors=True)
    for _ in sizes.memory[1:]:
        path /= "more"
    held = 0
    for size in sizes.memory:
        path.mkdir(parents=True, exist_ok=True)
        while held < size:
            piece = min(sizes.memory_file, size - held)
            write_fast(path / f"at{held}.raw", piece, SEED + held)
            held += piece
        trees.append((size, path))
        path = path.parent
    return trees


WORDS = """
account address amount archive balance basket beach black blue book bottle box bread
bridge camera card chair city class cloud coat coffee company copper country course cream
customer delivery desk door dress engine evening fabric field finger fire floor flower
garden glass green hammer harbour heart house island jacket journey kitchen ladder lamp
leather letter light linen machine market metal mirror money morning mountain music night
north number ocean office orange order paper parcel pencil picture plastic plate pocket
porcelain price quality queue rain record red return river road roof room rope salt school
season sheet ship silver small smoke south spring station steel stone street sugar summer
table thread ticket timber tower train tree valley village wall water weather west wheel
white window winter wood
""".split()  # noqa: SIM905 # a list of them is four times as long


def sql_dump(source: random.Random) -> Iterator[bytes]:
    """Yield a dump of a shop's orders without end, some hundred kilobytes at a time.

    As with dumps of real shops, gzip -6 leaves between a fourth and a third of it. Customers and
    notes come again, but hardly within the window of any of the compressors.
    """
    chosen = random.Random(source.getrandbits(64))
    customers = [_customer(number, chosen) for number in range(16_384)]
    notes = [" ".join(chosen.choices(WORDS, k=chosen.randrange(4, 14))) for _ in range(16_384)]
    moments = [_moment(chosen.getrandbits(64)) for _ in range(16_384)]
    key = 0
    while True:
        rows = []
        for _ in range(1000):
            number = chosen.getrandbits(128)
            key += 1 + (number & 3)
            rows.append(
                f"({key},{customers[number >> 8 & 16_383]},'{moments[number >> 24 & 16_383]}',"
                f"{(number >> 40 & 65_535) / 100:.2f},'{notes[number >> 56 & 16_383]}',"
                f"'{number >> 96:08x}','paid',1)"
            )
        yield ("INSERT INTO `orders` VALUES " + ",".join(rows) + ";\n").encode()


def _customer(number: int, chosen: random.Random) -> str:
    first, second = chosen.choice(WORDS), chosen.choice(WORDS)
    name = f"{first.title()} {second.title()}"
    return f"{number},'{first}.{second}{number % 90}@example.com','{name}'"


def _moment(number: int) -> str:
    day = f"2026-{number % 12 + 1:02}-{(number >> 8) % 28 + 1:02}"
    return f"{day} {(number >> 20) % 24:02}:{(number >> 26) % 60:02}:{(number >> 33) % 60:02}"


MAKERS = {
    "A": make_small_files,
    "B": make_large_files,
    "C": make_dump,
    "D": make_tiny_files,
    "E": make_stream,
}
