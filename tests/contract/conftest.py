"""The server and the callers of the tests on the wire."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from .loopback import Caller, Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as the API does until it is told otherwise."""
    # The server's threads share this process with the client: by default each of their turns is 5
    # ms.
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    running = Server()
    yield running
    running.stop()
    sys.setswitchinterval(before)


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest, server: Server) -> Iterator[Caller]:
    """A caller of `server`, once with each client."""
    made = Caller(request.param, server.url)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, address or proxy of the developer's own."""
    for name in list(os.environ):
        is_proxy = name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
        if is_proxy or name.startswith(("VECTOR_EMBED_", "SSL_CERT_")):
            monkeypatch.delenv(name)
