"""The addresses of catalogs: what they say, what is refused, and that no password is shown."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from bakthat.conf import load_profile
from bakthat.database.address import DatabaseAddress, location_of, parse_address
from bakthat.errors import ConfigError
from bakthat.policy import settings

SECRET = "s3:cr/et@#1"
QUOTED = "s3%3Acr%2Fet%40%231"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://bakthat@db.example.com/bakthat", None),
        ("postgres://bakthat@db/bakthat", "postgresql://bakthat@db/bakthat"),
        (f"POSTGRESQL://u:{QUOTED}@DB:5433/c?sslmode=require", "postgresql://u@db:5433/c"),
        ("mariadb://u@db:3307/c", "mysql://u@db:3307/c"),
        ("mysql://u@[::1]:3307/c", None),
        ("postgresql:///c?host=/run/postgresql", "postgresql:///c"),
        ("postgresql://a%40b@db/c%2Fd", None),
    ],
)
def test_an_address_is_shown_without_password_and_options(text: str, shown: str | None) -> None:
    address = parse_address(text)
    assert str(address) == (shown or text)
    assert parse_address(str(address)) == parse_address(str(parse_address(str(address))))


def test_the_parts_of_an_address_are_decoded() -> None:
    address = parse_address(f"mysql://a%40b:{QUOTED}@DB.example.com:3307/my%2Fcat?ssl_ca=/ca.pem")
    assert (address.kind, address.user, address.password) == ("mysql", "a@b", SECRET)
    assert (address.host, address.port, address.name) == ("db.example.com", 3307, "my/cat")


def test_nothing_shows_the_password() -> None:
    address = parse_address(f"postgresql://u:{QUOTED}@db/c?password=other-secret")
    for shown in (str(address), repr(address), f"{address}", f"{[address]}"):
        assert SECRET not in shown
        assert QUOTED not in shown
        assert "other-secret" not in shown
    assert pickle.loads(pickle.dumps(address)) == address


def test_a_catalog_is_the_same_one_whatever_its_password_is() -> None:
    one, other = (parse_address(f"postgresql://u:{word}@db/c") for word in ("one", "other"))
    assert one.digest == other.digest
    assert len(one.digest) == 12
    assert parse_address("postgresql://u@db/d").digest != one.digest


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            f"postgrsql://u:{SECRET}@db/c",
            "postgrsql:// is no server of a catalog",
            "postgresql://?",
        ),
        ("redis://db/0", "redis:// is no server", "mariadb://"),
        ("oracle://db/0", "oracle:// is no server", "use one of: postgresql://, "),
        ("sqlite:////var/lib/c.sqlite", "sqlite:// is no server", "the path of the file alone"),
        (f"postgresql://u:{SECRET}@db/c", "it holds a '#'", "%23"),
        ("postgresql://u:se/cret@db/c", "its host is no name, or its port", "%2F"),
        ("postgresql://u:1/2@db/c", "it has '@' behind the host", "%2F"),
        ("postgresql://u:1/2?x@db/c", "it has '@' behind the host", "%3F"),
        ("postgresql://db:99999/c", "its host is no name, or its port", "%40"),
        ("postgresql://u:se[cret@db/c", "its host is no name, or its port", "%5B"),
        ("postgresql://[::1/c", "its host is no name, or its port", "%40"),
        ("postgresql://u:50%@db/c", "it holds a '%' without two digits", "%25"),
        ("postgresql://u:se%00cret@db/c", "it holds a NUL character", "%00"),
        ("postgresql://u@db", "it names no database", "bakthat@db.example.com/bakthat"),
        ("postgresql://u@db/", "it names no database", "bakthat@db.example.com/bakthat"),
        ("postgresql://u@db/a/b", "it names no database", "bakthat@db.example.com/bakthat"),
        ("postgresql://u@db/a b", "an address has no white space", "%20"),
        ("postgresql://u@db/a\n", "an address has no white space", "%20"),
        ("catalog.sqlite", "it does not begin with a scheme", "postgresql://"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_it(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert str(caught.value).startswith(message)
    assert hint in caught.value.hint
    assert SECRET not in str(caught.value) + caught.value.hint
    assert "cret" not in str(caught.value) + caught.value.hint


def test_an_error_keeps_no_part_of_the_password_for_a_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address("postgresql://u:se/cret@db/c")
    assert "se'" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text", ["postgresql:/u@db/c", "postgresql:u@db/c", "postgresql//u@db/c", "MySQL:/u:p@db/c"]
)
def test_what_was_meant_as_an_address_is_no_path(text: str) -> None:
    with pytest.raises(ConfigError, match=r"'database' is no whole address$") as caught:
        load_profile(conf={"database": text})
    assert "postgresql://bakthat@db.example.com/bakthat" in caught.value.hint
    for path in ("postgresql", "mysql.sqlite", "postgres:catalog.sqlite", "~/a@b.sqlite"):
        assert settings.catalog(path) is None


def test_a_location_is_a_path_or_an_address(isolated_environment: Path) -> None:
    assert location_of("~/catalog.sqlite") == isolated_environment / "catalog.sqlite"
    assert location_of(Path("/a/b")) == Path("/a/b")
    address = location_of("postgresql://db/c")
    assert isinstance(address, DatabaseAddress)
    assert location_of(address) is address
