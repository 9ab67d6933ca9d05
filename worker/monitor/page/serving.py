"""The page's server: uvicorn in a thread, on a socket that is bound at once."""

from __future__ import annotations

import socket
import threading

import uvicorn

from .app import Page

MOST_CONNECTIONS = 500  # more get a 503 at once: each takes memory
_GRACE_SECONDS = 2


class WebServer:
    """Serves a page until `shutdown`. Raises OSError if the port is not free."""

    def __init__(self, page: Page, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self._page = page
        self._socket = socket.create_server(address, family=family, backlog=256)
        self.server_port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            page.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        self._done = threading.Event()

    def serve_forever(self) -> None:
        """Serve, in a thread that is not the main one: signals are the caller's."""
        self._page.shared.start()
        try:
            self._server.run([self._socket])
        finally:
            self._page.shared.stop()
            self._done.set()

    def shutdown(self) -> None:
        """End it, and wait until it has ended."""
        self._server.should_exit = True
        self._done.wait(_GRACE_SECONDS + 3)

    def server_close(self) -> None:
        """Free the port."""
        self._socket.close()
