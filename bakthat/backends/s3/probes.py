"""Find out whether a bucket can be used, and how it is set up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.backends.s3.backend import S3Backend
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.proof import BucketProof
from bakthat.policy.finding import Finding


class S3Prober:
    """Tries the bucket of the flat profile *conf*; see :class:`~bakthat.backends.base.Prober`.

    Raises ConfigError as :class:`.S3Backend` does.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._conf = conf
        self._backend = S3Backend(conf)
        self._client = S3Client(S3Backend.settings_of(conf))
        self.container = self._backend.container

    def prove(self, key: str, *, create: bool = False) -> list[Finding]:
        """Write, read and delete an object; see :class:`~bakthat.backends.base.Prober`."""
        proof = BucketProof(
            self._backend,
            self._client,
            key,
            storage_class=self._conf.get("storage_class"),
            deletes=bool(self._conf.get("rotation")),
        )
        return proof.run(create=create)
