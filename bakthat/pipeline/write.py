"""The chain of stages that writes an object, content, gzip members, age, upload, and its index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.index.writer import IndexSpool
from bakthat.crypto.age import EncryptWriter, SharedHeader
from bakthat.format.index.layout import IndexHeader
from bakthat.passwords import EncryptionKeys
from bakthat.system.streams import Sink

PASSPHRASE_WORK_FACTOR = 17
"""log2 of scrypt's cost. The default of age, 18, takes 256 MiB, the memory limit of a whole backup;
17 takes half, and makes guessing a passphrase half as expensive. Any age tool reads both."""


@contextmanager
def object_stages(
    sink: Sink,
    *,
    level: int,
    keys: EncryptionKeys,
    shared: SharedHeader | None = None,
    spool: IndexSpool,
) -> Iterator[Sink]:
    """Yield the top of the chain into *sink*; all that the block writes there becomes the object.

    *level* is gzip's, 0 for no compression. *shared* is the header of :func:`shared_header`.
    *spool* gets the lengths of the gzip members. When the block raises, all stages are aborted, and
    *sink*, which the caller finishes or aborts, holds no complete object.
    """
    with ExitStack() as stages:
        sink = stages.enter_context(encrypted(sink, keys, shared))
        if level:
            sink = stages.enter_context(GzipWriter(sink, level=level, on_member=spool.add_member))
        yield sink


def write_index(
    sink: Sink,
    spool: IndexSpool,
    header: IndexHeader,
    *,
    tar_bytes: int,
    keys: EncryptionKeys,
    shared: SharedHeader | None = None,
) -> None:
    """Write the index in *spool* into *sink*, encrypted as its archive is."""
    with encrypted(sink, keys, shared) as stage:
        spool.write_to(stage, header, tar_bytes=tar_bytes)


def shared_header(keys: EncryptionKeys) -> SharedHeader | None:
    """Return the age header that an archive shares with its index; None when each has its own.

    A passphrase costs a scrypt for each header, to write and to read.
    """
    if keys.passphrase is None:
        return None
    return SharedHeader.make(passphrase=keys.passphrase, work_factor=PASSPHRASE_WORK_FACTOR)


@contextmanager
def encrypted(
    sink: Sink, keys: EncryptionKeys, shared: SharedHeader | None = None
) -> Iterator[Sink]:
    """Yield a sink that encrypts into *sink*; without *keys*, yield *sink* itself.

    *shared* is a header that was made for *keys*. When the block raises, the stage is aborted; the
    caller finishes or aborts *sink*.
    """
    if not keys:
        yield sink
        return
    stage = (
        EncryptWriter(sink, header=shared)
        if shared is not None
        else EncryptWriter(
            sink,
            passphrase=keys.passphrase,
            recipients=keys.recipients,
            work_factor=PASSPHRASE_WORK_FACTOR,
        )
    )
    with stage:
        yield stage
