"""What a storage with the API of S3 may refuse: headers that requests can do without, and parts.

A storage refuses a header with the status 501, or with 400 and one of a few codes. Some name the
header in their answer. The others leave it open, so one header after the other is left out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from bakthat.backends.aws.answers import details_of
from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.network import host_of
from bakthat.errors import StorageError


class Feature(enum.Enum):
    """An optional feature: the headers that use it, in lower case."""

    OBJECT_SIZE = ("x-amz-mp-object-size",)
    """The size of an object in parts. The object is looked at afterwards too."""
    ALGORITHM = ("x-amz-sdk-checksum-algorithm",)
    """The name of the checksum, which a bucket with object lock requires."""
    CHECKSUM = ("x-amz-checksum-crc32", "x-amz-checksum-algorithm", "x-amz-sdk-checksum-algorithm")
    """The checksum of the body. TLS, or the signature of the body, protects it too."""
    NEW_ONLY = ("if-none-match",)
    """The condition that the key is free. Before the request, the key is looked up too."""
    UNCHANGED_ONLY = ("if-match",)
    """The condition that the object was not replaced."""

    @property
    def is_condition(self) -> bool:
        """Whether the request is another one without it, so that the caller looks again."""
        return self in (Feature.NEW_ONLY, Feature.UNCHANGED_ONLY)


HEADERS = frozenset(header for feature in Feature for header in feature.value)

_CODES = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "UnsupportedHeader"})
_SINGLE_GUESSES = (Feature.OBJECT_SIZE, Feature.CHECKSUM, Feature.NEW_ONLY, Feature.UNCHANGED_ONLY)
"""In the order in which they are left out when an answer names no header: conditions last."""


_EQUAL_PARTS_HOSTS = (".r2.cloudflarestorage.com", ".s4.mega.io")
"""Of Cloudflare R2 and MEGA S4. They refuse unequal parts only when all of them were sent, so their
answer comes too late: https://developers.cloudflare.com/r2/objects/multipart-objects/."""


def has_equal_parts(endpoint_url: str | None) -> bool:
    """Return whether the storage insists that all parts but the last have the same size."""
    host = host_of(endpoint_url or "").partition(":")[0].lower().rstrip(".")
    return host.endswith(_EQUAL_PARTS_HOSTS)


def is_refusal(error: StorageError) -> bool:
    """Return whether *error* may be the refusal of a header, named or not."""
    status, code = answer_of(error)
    if status != 501 and code not in _CODES:
        return False
    words = details_of(error).lower()
    for header in HEADERS:
        words = words.replace(header, "")
    # "does not match" is about the body, which is not what the header announced; "required" and
    # "missing" ask for a header. An encryption that was asked for is never left out.
    return not any(word in words for word in ("match", "required", "missing", "encrypt", "kms"))


def named_features(error: StorageError, carried: frozenset[str]) -> frozenset[Feature]:
    """Return the features that *error* refuses by the name of one of the *carried* headers.

    *carried* are the names of the request's headers, in lower case.
    """
    if not is_refusal(error):
        return frozenset()
    text = details_of(error).lower()
    named = {header for header in HEADERS & carried if header in text}
    if named == set(Feature.ALGORITHM.value):
        return frozenset({Feature.ALGORITHM})
    return frozenset(each for each in _SINGLE_GUESSES if named.intersection(each.value))


def guesses(error: StorageError, carried: frozenset[str]) -> Iterator[frozenset[Feature]]:
    """Yield what to leave out, one set after the other, when *error* names no header."""
    if not is_refusal(error):
        return
    possible = [each for each in _SINGLE_GUESSES if carried.intersection(each.value)]
    # S3 answers this when the size differs.
    if answer_of(error)[1] == "InvalidRequest" and Feature.OBJECT_SIZE in possible:
        possible.remove(Feature.OBJECT_SIZE)
    yield from (frozenset({each}) for each in possible)
    if len(possible) > 1:
        yield frozenset(possible)


def demands_md5(error: StorageError) -> bool:
    """Return whether *error* says that the request must have a Content-MD5."""
    status, code = answer_of(error)
    return code == "MissingContentMD5" or (
        status == 400 and "content-md5" in details_of(error).lower()
    )
