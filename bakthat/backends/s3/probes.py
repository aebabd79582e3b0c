"""Find out whether a bucket can be used, and how it is set up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.backends.aws.identity import identity_finding
from bakthat.backends.s3.backend import S3Backend
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.examination.bucket import look_at_bucket
from bakthat.backends.s3.examination.usage import Usage
from bakthat.backends.s3.proof import BucketProof
from bakthat.errors import UnreachableError
from bakthat.policy.finding import Finding, Verdict, failed
from bakthat.policy.settings import HOST_PLACEHOLDER


class S3Prober:
    """Tries the bucket of the flat profile *conf*; see :class:`~bakthat.backends.base.Prober`.

    Raises ConfigError as :class:`.S3Backend` does.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._conf = conf
        self._client = S3Client(S3Backend.settings_of(conf))
        self.container = self._client.container

    def prove(self, key: str, *, create: bool = False) -> list[Finding]:
        """Write, read and delete an object; see :class:`~bakthat.backends.base.Prober`."""
        proof = BucketProof(
            self._client,
            key,
            make_bucket=lambda: S3Backend(self._conf).create_container(),
            listed_prefix=str(self._conf.get("prefix") or "").partition(HOST_PLACEHOLDER)[0],
            storage_class=self._conf.get("storage_class"),
            deletes=bool(self._conf.get("rotation")),
        )
        return proof.run(create=create)

    def examine(self, prefix: str, *, kept_days: int) -> list[Finding]:
        """Look at the bucket's settings; see :class:`~bakthat.backends.base.Prober`."""
        findings = [identity_finding(self._client)]
        try:
            findings += look_at_bucket(
                self._client, Usage.of(self._conf, prefix, kept_days=kept_days)
            )
        except UnreachableError as exc:
            findings.append(failed("connection", exc, Verdict.ADVICE))
        return findings
