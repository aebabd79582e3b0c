"""Random values for every field of a tar header, most of them near the limits of its forms."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FILE, HARD_LINK, SYMBOLIC_LINK = b"0", b"1", b"2"
CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"
KINDS = [FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO]

NS = 10**9
_IDS = (0, 1, 1000, 0o7777777, 2**24, 2**31, 2**32 - 2)
_SIZES = (0, 512, 10_240, 8**11, 2**40, 2**62, 2**63 - 1)
_SECONDS = (
    *(-(2**63), -(2**55), -(8**11), -(2**31), -1, 0, 1_700_000_000, 2**31, 2**32),
    *(8**11, 10**10, 2**34, 10**11, 2**55, 2**62, 2**63 - 1),
)
_FRACTIONS = (0, 1, 10, 500_000_000, 123_456_780, 854_775_807, 999_999_999)
_LENGTHS = (1, 8, 31, 98, 100, 136, 154, 156, 200, 254, 256, 258, 300, 512, 1000, 4090)
_OWNER_LENGTHS = (0, 1, 8, 30, 31, 32, 33, 60)
_VALUE_LENGTHS = (0, 1, 9, 60, 66, 95, 100, 480, 512, 970, 1000, 2000)
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_MANY_LETTERS = bytes(random.Random(0).choices(_LETTERS, k=1 << 18))
_ODD = b" \t\n\r\\\"'%=*?[]>:,;!$`~#@\x01\x1b\x7f"
_SEQUENCES = ["é", "ü", "日", "😀", "\u202e"]


@dataclass(slots=True)
class Fields:
    """The values of one header; where a kind has no such field, it is empty."""

    kind: bytes
    name: bytes
    """Without the slash that ends the name of a directory."""
    link: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    uname: bytes = b""
    gname: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    extents: list[tuple[int, int]] | None = None
    """Of a sparse file: offset and length of its data."""


class Values:
    """A source of random fields."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def fields(self, *, most_devices: int = 2**21 - 1) -> Fields:
        """Return the fields of a member whose content, if it has any, is small."""
        pick = self.random
        kind = FILE if pick.random() < 0.5 else pick.choice(KINDS)
        found = Fields(kind, self.path(), mode=pick.randrange(0o10000))
        found.uid, found.gid = self.number(_IDS), self.number(_IDS)
        found.uname, found.gname = self.owner(), self.owner()
        found.mtime_ns = self.time()
        if kind in (HARD_LINK, SYMBOLIC_LINK):
            found.link = self.path()
        elif kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
            limits = (0, 1, 255, 4095, 2**18, 2**20 - 1, most_devices)
            found.device = self.number(limits), self.number(limits)
        elif kind == FILE:
            found.size = pick.choice((0, 0, 1, 511, 512, 513, 1500))
        return found

    def sparse(self, found: Fields) -> None:
        """Make a sparse file of *found*, of any size and with little data."""
        found.size = max(self.number(_SIZES), 1)
        ends = sorted({self.random.randrange(found.size + 1) for _ in range(6)})
        pairs = zip(ends[::2], ends[1::2], strict=False)
        found.extents = [(low, min(high - low, 700)) for low, high in pairs]

    def size(self) -> int:
        """Return any size of a file."""
        return self.number(_SIZES)

    def time(self) -> int:
        """Return any time that a file system with 64 bits of seconds keeps, in nanoseconds."""
        fraction = self.random.choice((*_FRACTIONS, self.random.randrange(NS)))
        return self.number(_SECONDS) * NS + fraction

    def number(self, limits: tuple[int, ...]) -> int:
        """Return a number between the first and the last of *limits*, mostly near one of them."""
        pick, least, most = self.random, limits[0], limits[-1]
        way = pick.random()
        if way < 0.6:
            return min(max(pick.choice(limits) + pick.randint(-2, 2), least), most)
        if way < 0.8:
            return pick.randint(least, most)
        number = pick.getrandbits(pick.randint(1, most.bit_length()))
        return min(max(-number if least < 0 and pick.random() < 0.4 else number, least), most)

    def path(self) -> bytes:
        """Return a relative path of any bytes."""
        pick = self.random
        length = max(pick.choice(_LENGTHS) + pick.randint(-2, 2), 1)
        if pick.random() < 0.5:
            length = pick.randint(1, 60)
        text = self.text(length, odd=pick.random() < 0.3)
        if length > 2 and pick.random() < 0.8:
            places = [pick.randrange(1, length - 1) for _ in range(pick.randint(1, 4))]
            places += [min(max(place, 1), length - 2) for place in pick.sample((99, 155, 154), 1)]
            for place in places:
                if b"/" not in text[place - 1 : place + 2]:
                    text[place : place + 1] = b"/"
        parts = bytes(text).strip(b"/").split(b"/")
        # GNU tar complains about "..", which would lead out, in a listing too.
        return b"/".join(b"._" if part == b".." else part for part in parts) or b"n"

    def text(self, length: int, *, odd: bool) -> bytearray:
        """Return letters or, if *odd*, any bytes but NUL and slash, of *length* in all."""
        pick = self.random
        if not odd:
            begin = pick.randrange(len(_MANY_LETTERS) - length)
            return bytearray(_MANY_LETTERS[begin : begin + length])
        text = bytearray()
        while len(text) < length:
            way = pick.random()
            if way < 0.5:
                text += self.text(8, odd=False)
            elif way < 0.7:
                text += pick.choice(_SEQUENCES).encode()
            elif way < 0.85:
                text.append(pick.choice(_ODD))
            else:
                text.append(pick.randrange(0x80, 0x100))
        return text[:length]

    def owner(self) -> bytes:
        """Return the name of a user or a group: no white space, and no slash."""
        pick = self.random
        length = max(pick.choice(_OWNER_LENGTHS) + pick.randint(-1, 1), 0)
        text = bytes(self.text(length, odd=pick.random() < 0.2))
        return text.translate(None, b" \t\n\r/")

    def xattrs(self) -> dict[bytes, bytes]:
        """Return some extended attributes; GNU tar lists their names one a line."""
        pick = self.random
        found = {}
        for _ in range(pick.randint(1, 3)):
            name = bytes(self.text(pick.randint(1, 60), odd=pick.random() < 0.3))
            length = max(pick.choice(_VALUE_LENGTHS) + pick.randint(-4, 4), 0)
            found[b"user." + name.translate(None, b"\n\r")] = pick.randbytes(length)
        return found
