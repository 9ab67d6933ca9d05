"""The exporter: an HTTP server for `/metrics` and, with the extra `web`, for the page.

Without the extra, `/` says in one line what to install, and all else is the same.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from ..settings import Settings
from .metrics import FleetCollector
from .obstacle import CommandLine
from .page.shared import LOOK_SECONDS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .page.app import Page
    from .page.serving import WebServer

MODULES = ("jinja2", "markupsafe", "starlette", "uvicorn")  # of the `web` extra
INSTALL = "pip install 'vector-embed-cache-client[web]'"


class _Server(Protocol):
    server_port: int

    def serve_forever(self) -> None: ...
    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: there is a request every few seconds."""


class Exporter:
    """Serves `/metrics`, `/healthz` and the page of one Redis.

    `command` makes the command lines that the page shows; `show_text`: it shows texts too;
    `seconds`: how old what it shows may be. `url` is where. Raises OSError if the port is not free.
    """

    def __init__(
        self,
        settings: Settings,
        host: str,
        port: int,
        command: CommandLine,
        *,
        show_text: bool = False,
        seconds: float = LOOK_SECONDS,
    ) -> None:
        registry = CollectorRegistry()
        registry.register(FleetCollector(settings))
        metrics: WSGIApplication = make_wsgi_app(registry)
        found, family = _address(host, port)
        its_class = _page()
        self.has_page = its_class is not None
        self._server: _Server
        if its_class is None:
            self._server = _without_page(metrics, found, family)
        else:
            page = its_class(settings, metrics, command, show_text=show_text, seconds=seconds)
            self._server = _web(page, found, family)
        port = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}"
        self._ended = threading.Event()

    def serve(self) -> None:
        """Serve until SIGTERM, or an exception such as Ctrl-C's."""

        def end(number: int, frame: FrameType | None) -> None:
            self._ended.set()

        signal.signal(signal.SIGTERM, end)
        with self:
            self._ended.wait()

    def __enter__(self) -> Exporter:
        threading.Thread(target=self._serve, name="exporter", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self) -> None:
        try:
            self._server.serve_forever()
        finally:
            self._ended.set()  # also if it failed: a process that serves nothing must end


def _page() -> type[Page] | None:
    """The class of the page; None if the extra is not installed."""
    try:
        from .page.app import Page
    except ModuleNotFoundError as error:
        if error.name not in MODULES:
            raise
        return None
    return Page


def _address(host: str, port: int) -> tuple[tuple[str, int], socket.AddressFamily]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return (str(address[0]), port), family


def _web(page: Page, address: tuple[str, int], family: socket.AddressFamily) -> WebServer:
    from .page.serving import WebServer

    return WebServer(page, address, family)


def _without_page(
    metrics: WSGIApplication, address: tuple[str, int], its_family: socket.AddressFamily
) -> WSGIServer:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start)
        missing = f"the page needs more packages: {INSTALL}; the metrics are at /metrics\n"
        found = {"/healthz": b"ok\n", "/": missing.encode()}.get(path)
        start(
            "404 Not Found" if found is None else "200 OK",
            [("Content-Type", "text/plain; charset=utf-8")],
        )
        return [b"not here: see /metrics\n" if found is None else found]

    class Server(ThreadingWSGIServer):
        address_family = its_family

    return make_server(*address, answer, Server, _Silent)
