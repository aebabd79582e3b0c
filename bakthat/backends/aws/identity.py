"""Say where the access keys come from, and whose they are."""

from __future__ import annotations

from bakthat.backends.aws.answers import one_line
from bakthat.backends.aws.client import AwsClient, foreign_errors
from bakthat.policy.finding import Finding, good

TIMEOUT = 3.0
"""Seconds to wait for the answer whose the keys are, which is only nice to know."""

_SOURCES = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the file of credentials of AWS (~/.aws/credentials)",
    "config-file": "the configuration file of AWS (~/.aws/config)",
    "custom-process": "credential_process of the configuration of AWS",
    "assume-role": "a role that was assumed",
    "assume-role-with-web-identity": "a role that was assumed by web identity",
    "container-role": "the role of the container",
    "iam-role": "the role of the instance",
    "sso": "single sign-on of AWS",
}
"""Where botocore has found the keys, by its own names."""


def identity_finding(client: AwsClient) -> Finding:
    """Return where the keys of *client* come from, and whose they are where AWS says so.

    With a role, it is the one that they have assumed. Call it after a request that the service has
    not refused because of the keys.
    """
    source, caller, role_arn = _source(client), _caller(client), client.settings.role_arn
    if role_arn is not None:
        source = f"{source}, which have assumed {role_arn}"
    return good("credentials", f"{source}, of {caller}" if caller else source)


def _source(client: AwsClient) -> str:
    access_key = client.settings.access_key
    if access_key:
        return f"from access_key of the profile, which ends in {access_key[-4:]}"
    session = client.opened_session()
    found = session.own_keys() if session is not None else None
    method = str(found.method) if found else "nowhere"
    return f"from {_SOURCES.get(method, method)}"


def _caller(client: AwsClient) -> str:
    """Return the ARN of the user or role that has the keys; "" where that is not known.

    Only AWS is asked, where each key may ask. The network may not let the request through.
    """
    session = client.opened_session()
    if client.settings.role_arn is not None:
        return one_line(session.identity if session is not None else "")
    if client.settings.endpoint_url is not None:
        return ""
    try:
        sts = client.client_of("sts", min(client.settings.connect_timeout, TIMEOUT))
        return one_line(sts.get_caller_identity().get("Arn", ""))
    except foreign_errors():
        return ""
