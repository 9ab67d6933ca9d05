"""A query: the rows that a database gives for one SELECT, through SQLAlchemy.

All rows are of one state of the database, read in one transaction that is rolled back. Nothing can
be written: the transaction only reads where the database has such (PostgreSQL, MySQL, SQLite), and
what does not begin like a SELECT is refused before anything is sent.

The address of a database has a password. No error shows it, and no `repr`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from ..errors import CorpusError, NotInstalled
from ..path import shown
from .base import File

if TYPE_CHECKING:
    from sqlalchemy import URL

_SELECT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:SELECT|WITH|VALUES|TABLE)\b", re.I | re.S)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$", re.S)
_SECRETS = re.compile("pass|secret|token|key", re.I)  # names of options
_LIKE = "a database is like postgresql://USER:PASSWORD@HOST/NAME, special characters as %XX"
_DRIVERS = {  # packages that are not called as their modules are
    "psycopg": '"vector-embed-cache-client[sql]"',
    "MySQLdb": "mysqlclient",
}
# A server that is away is noticed, also in the middle of a row.
_PATIENCE = {
    "connect_timeout": "30",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


@dataclass(frozen=True)
class Query:
    """One SELECT and the address of its database. Raises CorpusError if these cannot be used.

    `postgresql://` and `postgres://` always mean psycopg 3.
    """

    sql: str
    database: str = field(repr=False)
    url: URL = field(init=False, repr=False, compare=False)

    path = "the query"
    many = documents = named = False
    once = True

    def __post_init__(self) -> None:
        if _SELECT.match(self.sql) is None:
            raise CorpusError("--sql is no SELECT: write one that gives the rows of the corpus")
        if ";" in _QUOTED.sub("", self.sql).rstrip("; \t\r\n"):
            raise CorpusError("--sql is more than one statement: write one SELECT")
        object.__setattr__(self, "url", _read_url(self.database))

    @property
    def name(self) -> str:
        """Where the database is, and the digest of the query."""
        url = self.url
        hosts = url.host or url.query.get("host") or ""
        host = hosts if isinstance(hosts, str) else ",".join(hosts)
        port = f":{url.port}" if url.port else ""
        database = url.database or ""
        if not host and database not in ("", ":memory:") and self.kind == "sqlite":
            database = os.path.realpath(database)
        digest = hashlib.sha256(self.sql.strip().encode()).hexdigest()[:12]
        return f"{self.kind}://{host}{port}/{database}, query {digest}"

    @property
    def kind(self) -> str:
        """The kind of the database, such as `postgresql`."""
        return self.url.get_backend_name()

    def files(self) -> Iterator[File]:
        """None: a query has rows."""
        return iter(())

    def reason(self, error: Exception) -> str:
        """The error of a library, in one line without the password."""
        lines = str(getattr(error, "orig", None) or error).splitlines()
        said = next((line.strip() for line in lines if line.strip()), type(error).__name__)
        for secret in sorted(self._secrets(), key=len, reverse=True):
            said = said.replace(secret, "***")
        return said[:300]

    def _secrets(self) -> set[str]:
        found = {self.database, self.url.password or ""}
        for name, value in self.url.query.items():
            if _SECRETS.search(name):
                found.update([value] if isinstance(value, str) else value)
        ways = (str, quote, quote_plus, lambda secret: repr(secret)[1:-1])
        return {way(secret) for secret in found if secret for way in ways}


def _read_url(database: str) -> URL:
    """The address, with its driver, which is there. Raises CorpusError."""
    try:
        from sqlalchemy import make_url  # SQLAlchemy 1 has none
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise NotInstalled(
            'a query needs SQLAlchemy 2: pip install "vector-embed-cache-client[sql]"'
        ) from None
    # Not an error of the library: it may show a part of the password.
    try:
        database.encode()
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise CorpusError(f"the address of the database cannot be read: {_LIKE}") from None
    if url.password is not None and "@" in database.partition("@")[2]:
        raise CorpusError(f"the address of the database has more than one @: {_LIKE}")
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg":
        url = url.update_query_dict({**_PATIENCE, **_said(url.query)})
    _check_driver(url)
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file not in (None, "", ":memory:") and "uri" not in url.query and not os.path.exists(file):
        # SQLite would make it.
        raise CorpusError(f"the database {shown(file)} does not exist: check the name")
    return url


def _said(query: Mapping[str, str | Sequence[str]]) -> dict[str, str | Sequence[str]]:
    """The options of an address, and those that libpq's variables give."""
    if "PGCONNECT_TIMEOUT" in os.environ:
        return {"connect_timeout": os.environ["PGCONNECT_TIMEOUT"], **query}
    return dict(query)


def _check_driver(url: URL) -> None:
    import sqlalchemy

    try:
        url.get_dialect().import_dbapi()
    except sqlalchemy.exc.NoSuchModuleError:
        raise NotInstalled(
            f"SQLAlchemy knows no database {url.drivername!r}: check the name, or install what "
            "brings it to SQLAlchemy"
        ) from None
    except ImportError as error:
        missing = (error.name or url.get_driver_name()).partition(".")[0]
        package = _DRIVERS.get(missing, missing)
        raise NotInstalled(
            f"{url.drivername}:// needs {missing}, which is missing: pip install {package}"
        ) from None
