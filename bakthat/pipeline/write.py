"""The chain of stages that writes an object: content, gzip members, age, upload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bakthat.archive.create.content import BackupContent
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.report import ArchiveReport
from bakthat.crypto.age import EncryptWriter
from bakthat.passwords import EncryptionKeys
from bakthat.system.streams import ByteCounter, Sink

PASSPHRASE_WORK_FACTOR = 17
"""log2 of scrypt's cost. The default of age, 18, takes 256 MiB, the memory limit of a whole backup;
17 takes half, and makes guessing a passphrase half as expensive. Any age tool reads both."""


def write_object(
    sink: Sink,
    content: BackupContent,
    *,
    identity: str,
    level: int,
    keys: EncryptionKeys,
    report: ArchiveReport,
    on_bytes: ByteCounter,
) -> None:
    """Push all of *content* through the chain into *sink*, which the caller finishes or aborts.

    *identity* becomes the comment of an archive; *level* is gzip's, 0 for no compression. After an
    exception all stages are aborted, and *sink* holds no complete object.
    """
    with ExitStack() as stages:
        sink = stages.enter_context(encrypted(sink, keys))
        if level:
            sink = stages.enter_context(GzipWriter(sink, level=level))
        content.write(sink, identity=identity, report=report, on_bytes=on_bytes)


@contextmanager
def encrypted(sink: Sink, keys: EncryptionKeys) -> Iterator[Sink]:
    """Yield a sink that encrypts into *sink*; without *keys*, yield *sink* itself.

    When the block raises, the stage is aborted; the caller finishes or aborts *sink*.
    """
    if not keys:
        yield sink
        return
    with EncryptWriter(
        sink,
        passphrase=keys.passphrase,
        recipients=keys.recipients,
        work_factor=PASSPHRASE_WORK_FACTOR,
    ) as stage:
        yield stage
