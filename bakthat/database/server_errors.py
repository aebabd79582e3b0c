"""The errors of a catalog's server: what is wrong, and what to try.

PostgreSQL tells the kind of an error by SQLSTATE, MySQL and MariaDB by a number. A client of
PostgreSQL that cannot connect has its words only.
"""

from __future__ import annotations

import re
import shlex

from bakthat.database.address import POSTGRESQL, DatabaseAddress
from bakthat.database.base import ServerAwayError, locked_error
from bakthat.errors import CatalogError
from bakthat.system.text import printable

_NO_TABLE = ("42P01", "1146")
_LOCK_TIMEOUT = ("55P03", "1205")
_DENIED = ("42501", "25006", "1142", "1143", "1227", "1290", "1792", "1836")
"""Who may read only, and a server that only reads."""
_NO_LOGIN = ("28000", "28P01", "1045", "1698")
_NO_ENTRY = "1044"
_NO_DATABASE = ("3D000", "1049")
_AWAY = (
    *("57P01", "57P02", "57P03", "25P03", "53300"),
    *("0", "1040", "1053", "1203", "1226", "1927", "2002", "2003", "2006", "2013", "2055", "4031"),
)
"""The server stops, starts, has too many clients, in all or of this user, or has ended the
connection."""

_NO_LOGIN_WORDS = ("authentication", "no password supplied", "pg_hba.conf", "is not permitted")
_NO_ENTRY_WORDS = ("permission denied for database",)
_NO_ROLE_WORDS = ('role "', "does not exist")
_NO_DATABASE_WORDS = ('database "', "does not exist")
_PLACE = re.compile(
    r"^(connection (failed|is bad): )?(connection to server (at|on) .* failed: )?(FATAL: +)?"
)
"""What libpq says before the reason."""
_PLAIN = re.compile(r"USER|[a-z_][a-z0-9_]*")
"""What SQL takes for a name without quotes, and the word for a user who is not known."""
_OPTION_ERRORS = (TypeError, ValueError, FileNotFoundError, PermissionError)
"""Of a value that the driver cannot use, and of a file that an option names."""
_OPTION_WORDS = ("invalid connection option", "bad value for")
_NO_TLS = "2026"
_NO_TLS_WORDS = ("does not support SSL", "certificate", "invalid sslmode", "root.crt")


def server_error(address: DatabaseAddress, exc: Exception) -> CatalogError:
    """Return the CatalogError for an error of a driver."""
    cause = _of_driver(exc)
    code, reason = _code_of(cause), _reason_of(cause)
    name = printable(address.shown)
    if code in _LOCK_TIMEOUT:
        return locked_error(address)
    if code in _DENIED:
        return CatalogError(
            f"cannot write the catalog {name}: {reason}",
            hint="use a role that may write it, or grant it SELECT, INSERT, UPDATE and DELETE",
        )
    if code in _NO_DATABASE or (not code and _has_all(reason, _NO_DATABASE_WORDS)):
        return CatalogError(f"there is no catalog {name}: {reason}", hint=_how_to_create(address))
    may_not_enter = code == _NO_ENTRY or (not code and _has_any(reason, _NO_ENTRY_WORDS))
    if may_not_enter or code in _NO_LOGIN or (not code and _is_no_login(reason)):
        return CatalogError(
            f"the server of the catalog {name} refuses this user: {reason}",
            hint=_how_to_let_in(address) if may_not_enter else _how_to_log_in(address),
        )
    if code == _NO_TLS or (not code and _has_any(reason, _NO_TLS_WORDS)):
        options = "sslmode and sslrootcert" if address.kind == POSTGRESQL else "ssl_ca"
        return CatalogError(
            f"cannot connect to the catalog {name} by TLS: {reason}",
            hint=f"check {options} in the address",
        )
    if code in _AWAY or code[:2] == "08" or (not code and _is_about_connection(cause)):
        return ServerAwayError(
            f"the server of the catalog {name} does not answer: {reason}",
            hint=f"check that it runs and can be reached: {_how_to_ping(address)}",
        )
    return CatalogError(f"cannot use the catalog {name}: {reason}", hint=_hint_of(cause))


def lacks_table(exc: BaseException) -> bool:
    """Return whether an error says that there is no such table."""
    return _code_of(_of_driver(exc)) in _NO_TABLE


def _of_driver(exc: BaseException) -> BaseException:
    """Return the error of the driver that *exc* was raised for."""
    cause: BaseException | None = exc
    while cause is not None:
        if type(cause).__module__.partition(".")[0] in ("psycopg", "pymysql"):
            return cause
        cause = cause.__cause__ or cause.__context__
    return exc


def _code_of(exc: BaseException) -> str:
    """Return the SQLSTATE of PostgreSQL, the number of MySQL, or ""."""
    if type(exc).__module__.startswith("pymysql"):
        return str(exc.args[0]) if exc.args else ""
    return getattr(exc, "sqlstate", None) or ""


def _reason_of(exc: BaseException) -> str:
    """Return the words of a driver on one line. They never have the password."""
    text = next((each for each in exc.args if isinstance(each, str)), str(exc))
    text = _PLACE.sub("", text.strip().partition("\n")[0])
    return printable(text) or type(exc).__name__


def _is_about_connection(exc: BaseException) -> bool:
    names = {each.__name__ for each in type(exc).__mro__}
    return bool(names & {"OperationalError", "ConnectionError", "TimeoutError"})


def _is_no_login(reason: str) -> bool:
    return _has_any(reason, _NO_LOGIN_WORDS) or _has_all(reason, _NO_ROLE_WORDS)


def _has_any(text: str, words: tuple[str, ...]) -> bool:
    return any(each in text for each in words)


def _has_all(text: str, words: tuple[str, ...]) -> bool:
    return all(each in text for each in words)


def _hint_of(exc: BaseException) -> str:
    is_refused = isinstance(exc, _OPTION_ERRORS) or _has_any(str(exc), _OPTION_WORDS)
    return "check what follows '?' in the address" if is_refused else ""


def _how_to_log_in(address: DatabaseAddress) -> str:
    elsewhere = ", in ~/.pgpass or in PGPASSWORD" if address.kind == POSTGRESQL else ""
    return f"check the user and the password, which may be in the address{elsewhere}"


def _how_to_let_in(address: DatabaseAddress) -> str:
    quote = '"' if address.kind == POSTGRESQL else "`"
    name, user = (_identifier(each, quote) for each in (address.name, address.user or "USER"))
    if address.kind == POSTGRESQL:
        return f"grant it, in SQL: GRANT CONNECT ON DATABASE {name} TO {user}"
    return f"grant it, in SQL: GRANT ALL ON {name}.* TO {user}"


def _identifier(name: str, quote: str) -> str:
    """Return a name as SQL has it."""
    shown = printable(name)
    is_plain = _PLAIN.fullmatch(shown) is not None
    return shown if is_plain else quote + shown.replace(quote, quote * 2) + quote


def _how_to_create(address: DatabaseAddress) -> str:
    name = shlex.quote(printable(address.name))
    if address.kind == POSTGRESQL:
        owner = f" -O {shlex.quote(printable(address.user))}" if address.user else ""
        return f"create it: createdb{owner} {name}"
    return f"create it: mariadb-admin create {name}"


def _how_to_ping(address: DatabaseAddress) -> str:
    host = f" -h {shlex.quote(printable(address.host))}" if address.host else ""
    port = address.port
    if address.kind == POSTGRESQL:
        return f"pg_isready{host}{f' -p {port}' if port is not None else ''}"
    return f"mariadb-admin{host}{f' -P {port}' if port is not None else ''} ping"
