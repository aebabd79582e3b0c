"""Prove containers, and look at the findings of doctor."""

from __future__ import annotations

from typing import Any

from bakthat.operations.doctor.proof import prove_container
from bakthat.policy.finding import Finding, Verdict
from bakthat.session.session import Session
from tests.support.profiles import Conf


def prove(conf: Conf, **options: Any) -> list[Finding]:
    """Prove the container of a profile."""
    return prove_container(Session("default", None, conf), **options)


def topics(findings: list[Finding], verdict: Verdict) -> list[str]:
    return [each.topic for each in findings if each.verdict is verdict]


def problems(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.verdict is Verdict.PROBLEM]


def finding(findings: list[Finding], topic: str) -> Finding:
    (found,) = [each for each in findings if each.topic == topic]
    return found
