"""What the beginning of a dump of PostgreSQL says of its database."""

from __future__ import annotations

import base64
import zlib

import pytest

from bakthat.operations.sources.databases.postgresql.archive import DatabaseProperties

# Written by pg_dump of each version, as bakthat runs it; cut, compressed and encoded.
HEADS = {
    "15": """
        eNqtlF1v0zAUhlMYYqpU0BgMJCRk9SYdjNK03VRp2oWbmDYiX3LMJq6iJPXaQptUTaaJG34219hOv5al1TQR6bix
        fXL6vDmv4/Q00ym9kPb2S5K4PvKhzocyH96v7v5Iy2uPRTKKZ9IHdqOc1pUOqGk0GPsRELPPjU8DGijNG+X4ISkV
        XvOgsqzOORqLcZ+NyFJtTbd6dydPeCpg4SICwsmYRqlHozAejKMhuACyAYluKfJ5ucQrbR2kZyyu/UlCxfTpSuOr
        Qh7+IlyiuQQzBjc/FUy1BVOS+tHAnw+8MI6u4/mUcXlJOmc/CeeLo8ezHW5nQxCrfQeSfn4q2DpizUAqAbOhF/qp
        P4mH9YSmAnI8rMkJ9efhyJv56Ug+ATILAXD8aNbXlU3XKM2zpkhVzlqd9tpIvLUaJLALXZSh/mShYgQJAssNUOW5
        VXClkz4gyHQMvnsBUjqdTfyUNsDSHRsGAIatQgN5DrYvdQ1htjUZB+FimSeqrBHSEQfAtpP/s2LdQl8QB1tVvyns
        0MsNlYv60nOu0zZNZBGRJX1ZLwDbuided4G8WktGf2e7bHSfU7zyVqvdyQEfPRiYPwNVI4MdssDo0v6GgGpbFjPW
        CW+MjSH+UUT/FdsmcL53DV09L/cwZBp35hN7lf0fRL4tFLky4eGmWuYXB2Gio8Wx/s1lG4QZKM/ID3t149wIahmC
        gB+g2U0wGYesR9mz2GaeqzJY1kiruNJtPP/lTek0K3Nqdrk9pQdrz0l+t7WvrtpHJgTVjLDAiJ27RszlCyMuv3Eg
        WwRJOKJTf6cjD1iwb8+AfXsCP6FefBvR+UbreFJ7LeIftRkSpA==
    """,
    "15 icu": """
        eNqdkt9r2zAQx521Y1m6H+xhT4Vx5MXpfoQ43UKg9MG11cYQx8ZWt0ej2KpjcGxjKWxP+9snqbFLQ1JGBTrpTl9O
        H+nOv7Fdv/NOO+52NDU+SzOUpifNabv7qzXjSMws3mifxGr8GBpTGNh0mZEClPdt9CWhS2O8Mc7+R/JSpuy+bZJL
        jNHWdoVFC8uzncXNY+eFlMrkIcIQ5xkteESLuEyyIoVL0G/x9VS/6HVknoNGXX1HckaVe9Q+8PVeGvkLIbZDHAiC
        cNdVRIMtEeOkSEidRHFZ3JX1WlBFjNdiYZKuLJ7P1jvMhszAmvkmnu26im2qYnNkYajSKCac5GU6ZJQryCwd6IyS
        Ol5FFeEr/SvoYiqAs2eznrSsx7IPxpOxkhqT8+mk7SJZV9vE5pUZonvSP2JaATIxguYA+kLah18OngFGrj+Xh5fA
        6brKCacjaDqjLT7MPcuco8gPvJ+OjQJxIFJso1Jl6eBYt9FDIKGiKtpHiRN4/s7V+/9AwVcl42lN2cFveLO3ZO9l
        PawZck3oV5tlnsV97ZV8uee6aIGVShVtGwBvATt6cELQm16D+yCweEXX5KkG0z5I6jRKRA8sCaNR+bug9QO+uvr7
        40f8Awp/qdU=
    """,
    "16": """
        eNqtlNtr2zAUxp2tY21glDHYy15EYLiDkjVZ2gZKHxRHS8x8Q9Y69mRsx02yObaxPcpe9jfv2r3uyHYS13VCKTMc
        WZdj5fflfJIxGqpGY1/Y2W0IwksBnjZvmrx5sep9E5bPDkQyCyPhEXQ6J+1Or9R7wjO+7y1zYUfhqGh3oSWapA9l
        bXRz8ICnIgiTMOT6cy9ILS9ww8k8mKJzJCqYyVpHPGs2+E4bmwzj0vYTLxs+XBH/qOXhskw2NBkFBrM6zJgOCqYk
        tYOJHU8sNwwuw3gBXFaSxvBKOF8Y3J/t52Y2gqk0NjAbV4cZWz+bU4jEUDS1XDu1/XDaTrw0g5xPD8TEs2N3ZkV2
        OhMPkQiRAby6N+uvvbIHOt2TblH5N/3e2ha8tEPM8ACbJEf9BCFRghlBywXU4rkt9EFmY8SIaih89Ryl3iLy7dQ7
        Qkt3lAyAFF3CCrEMql/IQ0JhyZ87bjHNEyUohPCcA1DdqP5Yve5MnxM6G1X/rq3Qfkllsb/wmOvUVZVoLMsSXq8n
        kK7dEi+bSFzNJbPraJuNbnNmf3n3uHdaAf5zZ2D+DZaUHHYKQcmF/o4gSdc0MNYhL4xOMf1YR/+W6ioy3g8UWTpr
        jigGjVvzmb7K/g8ir2tFrkz4rKwW/GIQymRSHOuvXLbCwEBVRn7YW6Vzk1GLGDn8AEVfHH/uQo3yb6kOnmsBLBRS
        q9/pKow/WwtvkW9zrA64PYU7a69I/ruxrqY0JipGrZywxoj9m0as5GdGXN5xKJ9EiTvzFvZWRz6FgLtnAnePYyee
        FV4FXlwqHU/qrUX8A0qjDCY=
    """,
    "18": """
        eNqtVM9v0zAUTmGIqTC2CYkLF9NLhjSVtetGpWkHNzVtRH7JMUOcoiTN2kKaREnQxIU/mzPPTn9kWcpAw9J7sZ9f
        7O/z+2xrNNStxoG0s9uQpDcStDZ3Te5er3s/pVXbActmcSI6nX67t+nsifTmKhPWk06Wfhc8MRRzqBqj24NHPBWB
        2YQhP5wHUe4EkR9P5tEUXSJZw0w1OvJFs8FXqnPFZqL3BOzaDbNADB+vQT+rBcWDNhvajAIQuzoUwI6WwLLcjSZu
        OnH8OLqO0wWAc7I8hU/GQcbRAwE+3w6QYKqMLczG1aEA2BcxjSgMJVPHd3M3jKftLMgF0vn0SM4CN/VnTuLmM/kY
        yWACwNuHAd5rlgXR6Z53RWrn/LTf22iEV3qIGR5gmxR4v4IplGBG0GoCtXhuC31W2Rgxolsan71EebBIQjcPTtBK
        LCU9IM1UsEYci5pX6pBQmArnnr8M80QFSiK94gCoaVU3qydfNE7Si72t1F/U1mq/RHW5ifSUkzV1nRhMZEnvNgFk
        GndOQLWRvI5ls1/Jvaq6C1Ycfvfs/WkF9f5fo+b/YEUrEE/BKLkyPxKkmIYBOjvmJTIppl/qKHygpo6sTwNNVS6a
        I4qB6B/zmbnO/l9MD2qZrjX5skwZ5GMRylSyvO8/OHeNgZ6qQPkr0CrdJQFdxsjjlyr57oVzH6pV/EtNkGALwEJJ
        jfqVbuL0m7MIFsUyZ/qAq1X6twOo8D7cWmFbGRMdo1YBs0aX/du6rOQLXa5eQFQEUebPgoV7v0APweBlmsDL5LlZ
        4MQ3UZCWisgze78B+9UElA==
    """,
    "18 builtin": """
        eNqlks1r2zAUwJUmZSWXdYedBuPhiztYQ9uVEBg9uLbWGPyFrXZHoziqY3BsYyn0ttv+70lK7K4hpYcK3pPeB08/
        6b3ozvGjwSkanQwQMpBcE6XGSn3pT39Qt4ZSimyDRnK/nE2unw/HKjwYd4myHLrY6ROpcWCHjhvcvTSOVOpXKQkm
        kJUFq0TKqqxeFlUON2Dek18z8+d4oOocUtur9End/0hLzrQ57ImPDiIpZ0KchMQSI9k3NdbZDosLWi1pu0yzunqs
        27VES7lo5cYVYl29E3D4OiC2YnseWWS+b2rAmfZ52CbQ5GlGBS3rfMKZ0KRFfmZyRttslTZUrMzvYErRAN/eBzzq
        gXXzr6ZXOvVy+mM27QdEtdmxiHVrJXiL+1eKHWOLYOgCYMhUA367ZA4E+5Gngjcg2LopqWAX0A1KPwvghbbl4TSK
        wwfXwbEMLDZFKYpqF1GZtgm3965H3CD9zzmRBc7VNKHPii0Ooz2Ow7+yXeo5Tc1F3jL+6sccH+zkR9Ume459C4xm
        syiLzEAf1F+Evo8DorN0L3cOCAPYywc3AbObQ9g6gWcrtqZvDh/6pNDzdCnnY0E5S+unirXPb9D3X798yT/YJ5/g
    """,
}
SHOP = DatabaseProperties(
    {"ENCODING": "LATIN1", "LOCALE_PROVIDER": "libc", "LC_COLLATE": "C", "LC_CTYPE": "C"},
    "bob",
    '"shop"',
    (
        "COMMENT ON DATABASE \"shop\" IS 'DATABASE shöp';\n",
        'REVOKE CONNECT,TEMPORARY ON DATABASE "shop" FROM PUBLIC;\n'
        'GRANT TEMPORARY ON DATABASE "shop" TO PUBLIC;\n',
        "ALTER DATABASE \"shop\" SET \"search_path\" TO 'A b', 'public';\n"
        'ALTER ROLE "bob" IN DATABASE "shop" SET "work_mem" TO \'5MB\';\n',
    ),
)


def head(version: str) -> bytes:
    return zlib.decompress(base64.b64decode(HEADS[version]))


@pytest.mark.parametrize("version", ["15", "16", "18"])
def test_each_version_says_encoding_owner_rights_and_settings(version: str) -> None:
    assert DatabaseProperties.of(head(version)) == SHOP


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("15 icu", {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": "de"}),
        ("18 builtin", {"LOCALE_PROVIDER": "builtin", "BUILTIN_LOCALE": "C.UTF-8"}),
    ],
)
def test_a_locale_of_another_provider_is_known(version: str, options: dict[str, str]) -> None:
    found = DatabaseProperties.of(head(version))
    assert found is not None
    assert found.options == {"ENCODING": "UTF8", "LC_COLLATE": "C", "LC_CTYPE": "C", **options}
    assert (found.owner, found.name, found.changes) == ("postgres", '"icu"', ())


def test_the_statements_are_for_any_database() -> None:
    found = DatabaseProperties.of(head("18"))
    assert found is not None
    assert found.changes_of('"a \\1 b"') == [
        "COMMENT ON DATABASE \"a \\1 b\" IS 'DATABASE shöp';\n",
        'REVOKE CONNECT,TEMPORARY ON DATABASE "a \\1 b" FROM PUBLIC;\n'
        'GRANT TEMPORARY ON DATABASE "a \\1 b" TO PUBLIC;\n',
        "ALTER DATABASE \"a \\1 b\" SET \"search_path\" TO 'A b', 'public';\n"
        'ALTER ROLE "bob" IN DATABASE "a \\1 b" SET "work_mem" TO \'5MB\';\n',
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER ROLE \"o'brien\" IN DATABASE \"shop\" SET a TO 'b'", None),
        ('ALTER ROLE "a\nb" IN DATABASE "shop" SET a TO b', None),
        ("COMMENT ON DATABASE \"shop\" IS 'it''s\nGRANT x ON DATABASE \"shop\" TO y'",
         "COMMENT ON DATABASE \"new\" IS 'it''s\nGRANT x ON DATABASE \"shop\" TO y'"),
        ("COMMENT ON DATABASE \"shop\" IS E'\\\\\\' DATABASE \"shop\"'",
         "COMMENT ON DATABASE \"new\" IS E'\\\\\\' DATABASE \"shop\"'"),
        ('GRANT x ON DATABASE "shop" TO "a DATABASE ""shop"" b"',
         'GRANT x ON DATABASE "new" TO "a DATABASE ""shop"" b"'),
        ('GRANT x ON DATABASE "shop""2" TO y', 'GRANT x ON DATABASE "shop""2" TO y'),
    ],
)  # fmt: skip
def test_only_the_name_of_the_database_is_another(change: str, expected: str | None) -> None:
    found = DatabaseProperties({}, "bob", '"shop"', (change,))
    assert found.changes_of('"new"') == [expected or change.replace('"shop"', '"new"')]


@pytest.mark.parametrize("version", HEADS)
def test_a_head_that_is_cut_or_altered_is_no_error(version: str) -> None:
    whole = head(version)
    for size in range(len(whole)):
        DatabaseProperties.of(whole[:size])
        for byte in (0, 1, 0x7F, 0xFF):
            DatabaseProperties.of(whole[:size] + bytes([byte]) + whole[size + 1 :])
    assert DatabaseProperties.of(whole[:100]) is None
    assert DatabaseProperties.of(b"-- PostgreSQL database dump\n") is None
    assert DatabaseProperties.of(b"PGDMP\x01\x63" + whole[7:]) is None
