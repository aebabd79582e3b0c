"""Restoring increments from cold storage: everything that is read is asked for at once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyrage import x25519  # type: ignore[import-untyped]  # it has no types

import bakthat
from bakthat import models
from bakthat.backends.base import ThawState
from bakthat.errors import NoMatchError, UsageError
from bakthat.policy.storage_classes import thaw_price
from bakthat.session.session import Session
from tests.support.glacier_server import GlacierServer
from tests.support.increments import Chain
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.thaw_proxy import ThawProxy, thaw_proxy

pytestmark = pytest.mark.slow


@dataclass
class Cold:
    """A cold storage under test."""

    conf: Conf
    advance: Callable[[float], None]
    """Moves the storage's clock, in hours."""
    paid: Callable[[], int]
    """How many thaws were begun."""


@pytest.fixture
def frozen_s3(moto_endpoint: S3Server) -> Iterator[ThawProxy]:
    with thaw_proxy(moto_endpoint.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(params=["VAULT", "GLACIER", "DEEP_ARCHIVE"])
def cold(request: pytest.FixtureRequest) -> Cold:
    if request.param == "VAULT":
        vault: GlacierServer = request.getfixturevalue("glacier")
        return Cold(
            {**vault.conf(), "default_destination": "glacier"},
            lambda hours: vault.advance(hours=hours),
            lambda: len(vault.asked),
        )
    proxy: ThawProxy = request.getfixturevalue("frozen_s3")
    server: S3Server = request.getfixturevalue("moto_endpoint")
    return Cold(
        server.conf(endpoint_url=proxy.endpoint_url, storage_class=request.param),
        lambda hours: proxy.advance(hours=hours),
        lambda: len(proxy.asked),
    )


@pytest.fixture
def chain(cold: Cold, tree: Path) -> Chain:
    """Store three archives: of the second one, the third one leaves only a file ``second``."""
    (tree / "first").write_bytes(random.Random(1).randbytes(100_000))
    chain = Chain(tree, cold.conf)
    chain.full()
    (tree / "second").write_text("second")
    (tree / "a.txt").write_text("changed")
    chain.increment()
    (tree / "a.txt").write_text("changed again")
    chain.increment()
    return chain


def restore(chain: Chain, out: Path, **options: object) -> models.Backups | None:
    return bakthat.restore(chain.names[-1], conf=chain.conf, output=out, **options)  # type: ignore[arg-type]  # passed on


def test_all_archives_are_asked_for_at_once_and_only_once(
    cold: Cold, chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    assert restore(chain, out) is None
    assert cold.paid() == 3
    assert "Requesting the thaw of 3 archives, 10" in caplog.text
    assert "in all: some $0.01 by the list price of AWS" in caplog.text
    assert "Requested the thaw of 3 archives (" in caplog.text
    assert f"bakthat restore {chain.names[-1]} -d " in caplog.text
    caplog.clear()
    assert restore(chain, out) is None
    assert cold.paid() == 3
    assert "0 of 3 archives can be read" in caplog.text
    assert not out.exists()
    cold.advance(12)
    restored = restore(chain, out)
    assert restored is not None
    assert restored.is_complete
    assert cold.paid() == 3
    for name in ("a.txt", "first", "second"):
        assert (out / "mydir" / name).read_bytes() == (chain.tree / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "tier", "price"),
    [
        ("DEEP_ARCHIVE", "standard", 2.0001),
        ("DEEP_ARCHIVE", "bulk", 0.250025),
        ("GLACIER", "expedited", 3.01),
        ("GLACIER", "bulk", 0),
        ("VAULT", "bulk", None),
        ("STANDARD", "standard", None),
    ],
)
def test_a_thaw_has_its_price(name: str, tier: str, price: float | None) -> None:
    assert thaw_price(name, tier, 100 * 2**30) == (price and pytest.approx(price))


def test_a_thaw_that_costs_nothing_is_said_to_be_free(
    cold: Cold, chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    assert restore(chain, out, tier="bulk") is None
    expected = {
        "GLACIER": ": free by the list price",
        "DEEP_ARCHIVE": ": some $0.01 by the list price",
        "VAULT": " in all\n",
    }
    assert expected[chain.conf.get("storage_class", "VAULT")] in caplog.text


def test_an_archive_that_is_not_read_is_not_thawed(
    cold: Cold, chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    assert restore(chain, out, only=["a.txt", "first"]) is None
    assert cold.paid() == 2
    assert "Requesting the thaw of 2 archives, " in caplog.text
    assert restore(chain, out, only=["second"]) is None
    assert cold.paid() == 3
    assert "Requesting the thaw of 1 archive, " in caplog.text
    cold.advance(12)
    assert restore(chain, out, only=["a.txt", "first"]) is not None


def test_what_expired_meanwhile_is_asked_for_again_and_nothing_else(
    cold: Cold, chain: Chain, out: Path
) -> None:
    assert restore(chain, out, only=["first"], days=1) is None
    assert cold.paid() == 1
    cold.advance(12)
    assert restore(chain, out, only=["second"]) is None
    assert cold.paid() == 2
    cold.advance(26)
    assert restore(chain, out, only=["first", "second"]) is None
    assert cold.paid() == 3
    assert restore(chain, out, only=["first", "second"]) is None
    assert cold.paid() == 3


def test_waiting_goes_on_until_all_can_be_read(cold: Cold, chain: Chain, out: Path) -> None:
    assert restore(chain, out, only=["first"]) is None
    cold.advance(2)
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        cold.advance(seconds / 3600)

    assert restore(chain, out, wait=wait) is not None
    assert cold.paid() == 3
    assert 3 * 3600 <= sum(pauses) <= 13 * 3600


def test_what_expires_while_the_others_are_waited_for_is_asked_for_again(
    cold: Cold, chain: Chain, out: Path
) -> None:
    assert restore(chain, out, only=["first"], days=1) is None
    cold.advance(27)

    def wait(seconds: float) -> None:
        cold.advance(seconds / 3600)

    assert restore(chain, out, wait=wait) is not None
    assert cold.paid() == 4
    assert (out / "mydir" / "first").read_bytes() == (chain.tree / "first").read_bytes()


def test_what_expires_at_different_times_is_asked_for_again(
    cold: Cold, chain: Chain, out: Path
) -> None:
    assert restore(chain, out, only=["first"], days=1) is None
    cold.advance(6)
    assert restore(chain, out, only=["second"], days=1) is None
    cold.advance(20.5)
    assert restore(chain, out, wait=lambda seconds: cold.advance(seconds / 3600)) is not None
    assert (out / "mydir" / "second").read_text() == "second"


def test_what_is_ready_and_expires_during_the_wait_is_asked_for_again(
    cold: Cold, chain: Chain, out: Path
) -> None:
    """A thaw of the class DEEP_ARCHIVE takes up to two days by bulk, and half a day otherwise."""
    assert restore(chain, out, only=["first"], days=1) is None
    assert cold.paid() == 1

    def wait(seconds: float) -> None:
        cold.advance(seconds / 3600)

    assert restore(chain, out, tier="bulk", wait=wait) is not None


@pytest.mark.parametrize("is_there", [False, True])
def test_without_the_keys_the_status_is_that_of_all_needed_archives(
    is_there: bool, cold: Cold, tree: Path, tmp_path: Path
) -> None:
    recipient = str(x25519.Identity.generate().to_public())
    keys = tmp_path / "keys"
    if is_there:
        keys.mkdir()
    conf = {**cold.conf, "recipients": [recipient], "identity_file": str(keys)}
    chain = Chain(tree, conf)
    chain.full()
    (tree / "second").write_text("second")
    chain.increment()
    forget_cache()
    assert bakthat.thaw_status(chain.names[-1], conf=conf).state is ThawState.FROZEN


def test_the_status_is_that_of_the_archive_that_is_the_least_ready(
    cold: Cold, chain: Chain, out: Path
) -> None:
    def state(*only: str) -> ThawState:
        return bakthat.thaw_status(chain.names[-1], conf=chain.conf, only=only).state

    assert restore(chain, out, only=["first"]) is None
    assert state() is ThawState.FROZEN
    assert state("first") is ThawState.ASKED
    cold.advance(12)
    assert state("first") is ThawState.READY
    assert restore(chain, out) is None
    assert state() is ThawState.ASKED
    cold.advance(12)
    assert state() is ThawState.READY
    assert cold.paid() == 3


def test_nothing_is_paid_for_what_is_not_there(cold: Cold, chain: Chain, out: Path) -> None:
    with pytest.raises(NoMatchError):
        restore(chain, out, only=["nowhere"])
    with pytest.raises(UsageError):
        restore(chain, out, use_index=False)
    assert cold.paid() == 0


def test_a_tier_that_a_class_lacks_is_refused_before_anything_is_paid(
    cold: Cold, chain: Chain, out: Path
) -> None:
    if chain.conf.get("storage_class") != "DEEP_ARCHIVE":
        pytest.skip("it has all tiers")
    with pytest.raises(UsageError, match="no tier 'expedited'"):
        restore(chain, out, tier="expedited")
    assert cold.paid() == 0


def test_a_tier_that_only_one_class_lacks_is_refused_before_anything_is_paid(
    frozen_s3: ThawProxy, moto_endpoint: S3Server, tree: Path, out: Path
) -> None:
    conf = moto_endpoint.conf(endpoint_url=frozen_s3.endpoint_url)
    chain = Chain(tree, {**conf, "storage_class": "GLACIER"})
    chain.full()
    (tree / "second").write_text("second")
    chain.conf = {**conf, "storage_class": "DEEP_ARCHIVE"}
    chain.increment()
    with pytest.raises(UsageError, match="no tier 'expedited' for DEEP_ARCHIVE"):
        restore(chain, out, tier="expedited")
    assert frozen_s3.asked == []
    assert restore(chain, out) is None
    assert len(frozen_s3.asked) == 2


def test_what_a_link_is_a_name_of_is_thawed_though_it_is_not_chosen(
    cold: Cold, tree: Path, out: Path
) -> None:
    chain = Chain(tree, cold.conf)
    chain.full()
    os.link(tree / "a.txt", tree / "link")
    chain.increment()
    assert restore(chain, out, only=["link"]) is None
    assert cold.paid() == 2
    cold.advance(12)
    assert restore(chain, out, only=["link"]) is not None
    assert (out / "mydir" / "link").read_text() == "hello"
    assert not (out / "mydir" / "a.txt").exists()


def test_for_a_lost_index_all_needed_archives_are_thawed(
    cold: Cold, chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lose_indexes(cold.conf, chain.names[0])
    assert restore(chain, out, only=["first"]) is None
    assert cold.paid() == 3
    cold.advance(12)
    assert restore(chain, out, only=["first"]) is not None
    assert (out / "mydir" / "first").read_bytes() == (chain.tree / "first").read_bytes()


def test_for_lost_indexes_all_are_thawed_though_the_catalog_lists_none(
    cold: Cold, chain: Chain, out: Path
) -> None:
    lose_indexes(cold.conf, *chain.names)
    if cold.conf.get("default_destination") == "glacier":
        while bakthat.show_glacier_inventory(conf=cold.conf) is None:
            cold.advance(12)
    with models.catalog(Session("default", None, cold.conf).catalog, write=True):
        models.Backups.delete().execute()
    before = cold.paid()
    assert restore(chain, out) is None
    assert cold.paid() == before + 3
    cold.advance(12)
    assert restore(chain, out) is not None
    assert (out / "mydir" / "second").read_text() == "second"
