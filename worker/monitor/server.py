"""The exporter: an HTTP server for `metrics`, until SIGTERM."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from ..settings import Settings
from .metrics import FleetCollector

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: there is a request every few seconds."""


class Exporter:
    """Serves `/metrics` and `/healthz` of one Redis. Raises OSError if the port is not free."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(FleetCollector(settings))
        self._metrics: WSGIApplication = make_wsgi_app(registry)
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

        class Server(ThreadingWSGIServer):
            address_family = family

        self._server = make_server(str(address[0]), port, self._answer, Server, _Silent)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def serve(self) -> None:
        """Serve until SIGTERM, or an exception such as Ctrl-C's."""
        ended = threading.Event()

        def end(number: int, frame: FrameType | None) -> None:
            ended.set()

        def serve() -> None:
            try:
                self._server.serve_forever()
            finally:
                ended.set()  # also if it failed: a process that serves nothing must end

        signal.signal(signal.SIGTERM, end)
        threading.Thread(target=serve, daemon=True).start()
        try:
            ended.wait()
        finally:
            self._server.shutdown()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return self._metrics(environ, start)
        found = {"/healthz": b"ok\n", "/": b"vec exporter: see /metrics\n"}.get(path)
        start(
            "404 Not Found" if found is None else "200 OK",
            [("Content-Type", "text/plain; charset=utf-8")],
        )
        return [b"not here: see /metrics\n" if found is None else found]
