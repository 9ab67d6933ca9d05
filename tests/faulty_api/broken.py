"""Broken answers: responses that end in ways that HTTP forbids.

They need the connection itself, which ASGI does not give: `BreakingServer` puts it into the scope
as `transport`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Reset(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport(scope)
        line = cast(socket.socket, transport.get_extra_info("socket"))
        # A linger time of zero makes the kernel send RST instead of FIN.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _until_disconnected(receive)


class Truncated(Response):
    """The headers, half of the body, and the end."""

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        half = bytes(self.body[: len(self.body) // 2])
        await send(_start(self))
        await send({"type": "http.response.body", "body": half, "more_body": True})
        _transport(scope).close()
        await _until_disconnected(receive)


class Drip(Response):
    """The whole body, in twenty pieces spread over `seconds`."""

    media_type = "application/json"

    def __init__(self, body: bytes, seconds: float) -> None:
        super().__init__(body)
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        size = max(1, len(self.body) // 20)
        for start in range(0, len(self.body), size):
            await asyncio.sleep(self.seconds / 20)
            piece = bytes(self.body[start : start + size])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start(response: Response) -> dict[str, object]:
    return {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }


def _transport(scope: Scope) -> asyncio.Transport:
    return cast(asyncio.Transport, scope["transport"])


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
