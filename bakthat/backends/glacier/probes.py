"""Find out whether a vault can be used.

A vault charges for every archive, and for its early deletion, and it would answer a request to read
one after hours. So only an upload that is aborted is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.backends.aws.findings import MEND, Tried, clock_of, refused, try_request, unusable
from bakthat.backends.aws.identity import identity_finding
from bakthat.backends.aws.part_plan import MIB
from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.backends.glacier.client import Description, GlacierClient
from bakthat.errors import BakthatError, ContainerNotFoundError, UnreachableError
from bakthat.policy.finding import CONTAINER, Finding, Verdict, advice, failed, good
from bakthat.system.signals import held_back

_NO_UPLOAD = "0" * 92
"""The id of an upload that does not exist, of the length that all have."""


class GlacierProber:
    """Tries the vault of the flat profile *conf*; see :class:`~bakthat.backends.base.Prober`.

    Raises ConfigError as :class:`.GlacierBackend` does.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._conf = conf
        self._client = GlacierClient(GlacierBackend.settings_of(conf))
        self.container = self._client.container

    def prove(self, key: str, *, create: bool = False) -> list[Finding]:
        """Begin and abort an upload; see :class:`~bakthat.backends.base.Prober`."""
        findings: list[Finding] = []
        try:
            self._prove(findings, key, create)
        except UnreachableError as exc:
            findings.append(failed("connection", exc))
        return findings

    def examine(self, prefix: str, *, kept_days: int) -> list[Finding]:
        """Say whose the keys are; see :class:`~bakthat.backends.base.Prober`."""
        return [identity_finding(self._client)]

    def _prove(self, findings: list[Finding], key: str, create: bool) -> None:
        shown = self._client.shown
        described = self._try("describe_vault")
        clock = clock_of(described)
        findings += [] if clock is None else [clock]
        error = described.error
        if isinstance(error, ContainerNotFoundError) and create:
            try:
                GlacierBackend(self._conf).create_container()
            except UnreachableError:
                raise
            except BakthatError as exc:
                findings.append(refused(self._client, CONTAINER, exc))
                return
            findings.append(good(CONTAINER, f"{shown} was made"))
        elif error is None:
            findings.append(good(CONTAINER, f"{shown} exists"))
        elif self._client.missing_action(error):
            findings.append(refused(self._client, CONTAINER, error, Verdict.ADVICE))
        else:
            findings += [] if described.is_about_clock else [unusable(error)]
            return
        findings += self._try_upload(key)
        error = self._try("list_jobs", limit="1").error
        if error is not None:
            findings.append(refused(self._client, "reading", error))
        findings.append(
            advice(
                "reading",
                "reading and deleting are not tried, since a vault charges for each archive; they "
                "need glacier:InitiateJob, glacier:GetJobOutput and glacier:DeleteArchive",
            )
        )

    def _try_upload(self, key: str) -> list[Finding]:
        aborted = self._try("abort_multipart_upload", uploadId=_NO_UPLOAD).error
        if aborted is not None and (action := self._client.missing_action(aborted)):
            detail = f"not tried: {action} is not allowed, so that an upload would be left behind"
            return [advice("writing", detail, aborted.hint)]
        upload_id = ""
        try:
            with held_back(f"finishing a request to {self._client.shown}", mend=MEND):
                begun = self._try(
                    "initiate_multipart_upload",
                    partSize=str(MIB),
                    archiveDescription=Description(key, {}).encode(),
                )
                upload_id = str(begun.answer.get("uploadId") or "")
        finally:
            left = self._abort(upload_id) if upload_id else None
        if begun.error is not None:
            return [refused(self._client, "writing", begun.error)]
        if left is not None:
            return [refused(self._client, "writing", left, Verdict.ADVICE)]
        return [good("writing", "an upload was begun and aborted")]

    def _abort(self, upload_id: str) -> BakthatError | None:
        with held_back(f"aborting an upload to {self._client.shown}", mend=MEND):
            return self._try("abort_multipart_upload", uploadId=upload_id).error

    def _try(self, operation: str, **parameters: Any) -> Tried:
        return try_request(self._client, operation, **parameters)
