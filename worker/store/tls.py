"""TLS: a connection to Redis that does not wait long for a handshake.

redis-py waits for the handshake as long as for a reply: half a minute at a port without TLS,
which takes the first message for a command that is not complete.
"""

from __future__ import annotations

import socket

import redis


class TLSConnection(redis.SSLConnection):
    """A connection whose handshake may take as long as its connect."""

    def _connect(self) -> socket.socket:
        timeout = self.socket_timeout
        self.socket_timeout = self.socket_connect_timeout  # of what follows the connect
        try:
            connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.socket_timeout = timeout
        connected.settimeout(timeout)
        return connected
