"""URLs of databases."""

from __future__ import annotations

import pytest

from bakthat.errors import UsageError
from bakthat.operations.sources.databases import url
from bakthat.operations.sources.databases.base import Access
from bakthat.operations.sources.databases.url_parts import DatabaseUrl


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgresql://bob@db.example:5433/shop",
            DatabaseUrl("postgresql", "bob", "db.example", 5433, "", "shop"),
        ),
        ("postgres://DB/shop", DatabaseUrl("postgresql", host="db", name="shop")),
        ("PostgreSQL://db", DatabaseUrl("postgresql", host="db")),
        ("postgresql://db/", DatabaseUrl("postgresql", host="db")),
        ("postgresql://db/*", DatabaseUrl("postgresql", host="db")),
        ("postgresql://db/%2A", DatabaseUrl("postgresql", host="db", name="*")),
        ("postgresql:///shop", DatabaseUrl("postgresql", name="shop")),
        ("postgresql://[::1]:5432/shop", DatabaseUrl("postgresql", "", "::1", 5432, "", "shop")),
        (
            "postgresql://[FE80::1%25eth0]/a",
            DatabaseUrl("postgresql", host="fe80::1%eth0", name="a"),
        ),
        (
            "postgresql://bob:s3%3Acr%2Fet@db/caf%C3%A9%20%25%2F%40",
            DatabaseUrl("postgresql", "bob", "db", name="café %/@"),
        ),
        ("postgresql://a%40b:p@ss@db/shop", DatabaseUrl("postgresql", "a@b", "db", name="shop")),
        ("postgresql://db/-Fp dbname=x", DatabaseUrl("postgresql", host="db", name="-Fp dbname=x")),
        (
            "postgresql:///shop?host=/run/postgresql",
            DatabaseUrl("postgresql", socket="/run/postgresql", name="shop"),
        ),
        (
            "postgresql://bob@%2Frun%2FPG:5433/shop",
            DatabaseUrl("postgresql", "bob", "", 5433, "/run/PG", "shop"),
        ),
    ],
)
def test_a_url_has_parts_and_is_shown_as_one_that_has_the_same(
    text: str, expected: DatabaseUrl
) -> None:
    parts = url.parts(text)
    assert parts == expected
    assert parts.shown.isprintable()
    assert url.parts(parts.shown) == expected


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("postgresql://db/shop", None),
        ("postgresql://bob@db/shop", None),
        ("postgresql://bob:@db/shop", ""),
        ("postgresql://bob:hunter2@db/shop", "hunter2"),
        ("postgresql://:a%3Ab%2Fc%25@db/shop", "a:b/c%"),
        ("postgresql://bob:p:q@r@db/shop", "p:q@r"),
    ],
)
def test_the_password_is_apart_from_the_other_parts(text: str, password: str | None) -> None:
    assert url.url_password(text) == password
    assert "hunter2" not in repr(url.parts(text))
    assert "hunter2" not in url.parts(text).shown


def test_a_password_in_the_url_is_taken_and_never_shown() -> None:
    server, name = url.parse("postgresql://bob:hunter2@db/shop", Access(password="other"))
    assert name == "shop"
    assert server.database("shop").url == "postgresql://bob@db/shop"
    assert server.database("shop").dump().secret == "*:*:*:*:hunter2\n"
    assert "hunter2" not in repr(server)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("shop", "not the URL of a database", "postgresql://user@host"),
        (
            "postgresq://db/hunter2",
            "unknown kind of database: postgresq://",
            "did you mean postgre",
        ),
        ("xyzzy://db/hunter2", "unknown kind of database: xyzzy://", "use one of: "),
        ("postgresql://bob:hunter2/@db/shop", "'@' behind the host", "%2F"),
        ("postgresql://bob:hunter2#@db/shop", "no '#'", "%23"),
        ("postgresql://bob:hunter2?@db/shop", "unknown option", "%3F"),
        ("postgresql://db/shop?sslmode=hunter2", "unknown option", "?host=/path"),
        (
            "postgresql://db/shop?host=/run",
            "?host= in a database's URL is no absolute path",
            "postgresql:///name?host=/path",
        ),
        (
            "postgresql:///shop?host=run",
            "?host= in a database's URL is no absolute path",
            "postgresql:///name?host=/path",
        ),
        ("postgresql://db:hunter2/shop", "no number from 1 to 65535", "a number up to 65535"),
        ("postgresql://db:0/shop", "no number from 1 to 65535", "a number up to 65535"),
        ("postgresql://db:65536/shop", "no number from 1 to 65535", "a number up to 65535"),
        ("postgresql://db:٣/shop", "no number from 1 to 65535", "a number up to 65535"),
        ("postgresql://::1/shop", "several colons", "[::1]"),
        ("postgresql://one,two/shop", "neither a name nor an address", "name one host"),
        ("postgresql://-oProxy/shop", "neither a name nor an address", "name one host"),
        ("postgresql://d b/shop", "neither a name nor an address", "name one host"),
        ("postgresql://db/100%", "the database of a database's URL has a '%'", "%25"),
        ("postgresql://bob:hunter2%@db/a", "the password of a database's URL has a '%'", "%25"),
        ("postgresql://db/%FF", "not UTF-8", ""),
        ("postgresql://db/a%00b", "NUL", ""),
        ("postgresql://d%b/shop", "the host of a database's URL has a '%'", "%25"),
        ("postgresql://100%@db/a", "the user of a database's URL has a '%'", "%25"),
        ("postgresql:///shop?host=/100%", "the host of a database's URL has a '%'", "%25"),
        ("mysql:///shop?socket=/100%", "the socket of a database's URL has a '%'", "%25"),
        ("postgresql://%FF/shop", "the host of a database's URL is not UTF-8", ""),
        ("mysql:///shop?socket=/%FF", "the socket of a database's URL is not UTF-8", ""),
        ("postgresql://bob:hunter2%FF@db/a", "the password of a database's URL is not UTF-8", ""),
        ("postgresql://%FF@db/a", "the user of a database's URL is not UTF-8", ""),
        ("postgresql://d%00b/shop", "the host of a database's URL has a NUL", ""),
        ("mysql:///shop?socket=/%00", "the socket of a database's URL has a NUL", ""),
        ("postgresql://bob:hunter2%00@db/a", "the password of a database's URL has a NUL", ""),
        ("postgresql://b%00b@db/a", "the user of a database's URL has a NUL", ""),
        (
            "mysql://db/shop?socket=/run/socket",
            "?socket= in a database's URL is no absolute path",
            "mysql:///name?socket=/path",
        ),
        ("rediss://%2Frun%2Fredis", "a URL of rediss has no socket", ""),
        ("sqlite://app.db", "the URL of an SQLite file has no host", "sqlite:////var/lib/app.db"),
    ],
)
def test_an_invalid_url_is_refused_without_being_quoted(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        url.parse(text, Access())
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
