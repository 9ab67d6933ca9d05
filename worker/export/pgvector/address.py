"""The address of a PostgreSQL, a session there, and what its errors mean.

libpq reads the address, so its variables and files work too: PGPASSWORD, ~/.pgpass, PGSSLMODE. What
libpq says of an address that it cannot read may quote the password, so it is not repeated.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ...logs import plain
from ..rows import ExportError
from ..sink import SinkAway

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_LIKE = "it is like postgresql://USER@HOST/NAME?table=articles, special characters as %XX"
NAME_BYTES = 63  # PostgreSQL cuts longer names in silence
_OURS = ("table", "schema", "column", "key")
_SECRETS = ("password", "sslpassword", "sslkeylogfile", "oauth_client_secret")
# A server that is away is noticed, by us and by the server of us.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SETTINGS = {
    "lock_timeout": "30s",
    "statement_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_SET = """
SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS asked(name, value)
UNION ALL
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
"""
# Connection lost, no resources, rolled back by the server, waited too long, read-only during a
# failover, ended by an administrator or by a timeout.
_AWAY = re.compile("08|53|40|55P03|25006|25P03|57014|57P")
_REFUSED = re.compile(
    "authentication|no password|does not exist|pg_hba|not permitted|permission denied|SSL|ssl|"
    "certificate"
)
_ADVICE = {
    "42501": "the page on pgvector lists what the role needs",
    "42P07": "rename what has this name, or name another table",
}


@dataclass(frozen=True)
class Address:
    """Where a table is. Without a password in `str` or `repr`.

    `schema`, `table`, `column`, `key`: None if they are not said.
    """

    server: str
    schema: str | None
    table: str | None
    column: str | None
    key: str | None
    _options: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, url: str) -> Address:
        """The parts of an address. Raises ExportError if it cannot be read."""
        scheme, _, rest = url.partition("://")
        place, _, query = rest.partition("?")
        host, _, database = place.partition("/")
        # A password with one of @ / ? in it would be taken for the name of a host, and shown.
        if "@" in database or host.count("@") > 1 or "@" in query and "@" not in host:
            raise ExportError(f"the address of the database cannot be read: {_LIKE}")
        ours, theirs = {}, []
        known = {one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults()} | {"ssl"}
        for option in filter(None, query.split("&")):
            name, _, value = option.partition("=")
            if name in _OURS:
                ours[name] = _checked(name, unquote(value))
            elif name in known:
                theirs.append(option)
            else:
                near = difflib.get_close_matches(name, (*_OURS, *known), n=1)
                meant = f"did you mean {near[0]}?" if near else "leave it out"
                raise ExportError(  # without the option, which may be the end of a password
                    f"the address of the database has an option that libpq does not know: {meant} "
                    "In a password, write & as %26"
                )
        schema, table = ours.get("schema"), ours.get("table")
        if schema is None and table is not None and "." in table:
            schema, _, table = table.partition(".")
        try:
            url = f"{scheme.lower()}://{place}?{'&'.join(theirs)}"
            options = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        except (psycopg.Error, ValueError):
            raise ExportError(f"the address of the database cannot be read: {_LIKE}") from None
        server = f"postgresql://{host.rpartition('@')[2]}/{options.get('dbname', '')}"
        return cls(server, schema, table, ours.get("column"), ours.get("key"), options)

    def connect(self) -> Connection[TupleRow]:
        """A session. Raises psycopg.Error."""
        options = {**_PATIENCE, "fallback_application_name": "vec export", **self._options}
        if "PGCONNECT_TIMEOUT" in os.environ and "connect_timeout" not in self._options:
            del options["connect_timeout"]
        options["client_encoding"] = "utf8"
        conninfo = make_conninfo("", **options)
        # Prepared statements would not live behind a pooler.
        connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
        try:
            connection.execute(_SET, [list(_SETTINGS), list(_SETTINGS.values())])
            # The server notices in a long statement that we were killed. From version 14 on.
            with suppress(psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
                connection.execute("SET client_connection_check_interval = '2s'")
        except BaseException:
            connection.close()
            raise
        return connection

    def told(self, error: psycopg.Error, sink: str, *, is_new: bool) -> ExportError:
        """The line for an error of psycopg: a SinkAway if trying again may help.

        `is_new`: there was no session before.
        """
        said, state = self._reason(error), error.sqlstate or ""
        if not state and isinstance(error, psycopg.OperationalError):
            if not is_new or _REFUSED.search(said) is None:
                return SinkAway(f"{sink} does not answer: {said}")
            return ExportError(f"{sink} refuses the connection: {said}")
        if _AWAY.match(state):
            return SinkAway(f"{sink} takes nothing now: {said}")
        advice = f": {_ADVICE[state]}" if state in _ADVICE else ""
        return ExportError(f"{sink} cannot be written: {said}{advice}")

    def _reason(self, error: psycopg.Error) -> str:
        """What the server or libpq says, in one line without a password, and without a row."""
        said = " ".join((error.diag.message_primary or str(error)).split())
        secrets = [self._options.get(name, "") for name in _SECRETS]
        secrets.append(os.environ.get("PGPASSWORD", ""))
        for secret in filter(None, secrets):
            for written in (secret, quote(secret, safe=""), quote_plus(secret)):
                said = said.replace(written, "***")
        return plain(said or type(error).__name__)[:300]


def _checked(what: str, name: str) -> str:
    """A name that PostgreSQL can have. Raises ExportError."""
    if not name or "\0" in name or len(name.encode(errors="replace")) > NAME_BYTES:
        raise ExportError(
            f"the address of the database has a {what} that PostgreSQL cannot have: its name has "
            f"1 to {NAME_BYTES} bytes"
        )
    return name
