"""The last resort where there is no redis-server: fakeredis behind a socket.

    python -m worker.local.fake_redis PORT

fakeredis has a TCP server of its own, but that one hangs up after every error reply, such as the
NOSCRIPT that is the first answer to every script, and knows no INFO. This one does no more than our
worker and Celery ask for. It takes any password, and keeps nothing when it ends.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

import fakeredis
import redis

_INFO = b"redis_version:7.0.0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nused_memory:0\r\n"

_CODES: dict[type[Exception], str] = {
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.ExecAbortError: "EXECABORT",
}


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Line)
        self.data = fakeredis.FakeServer(version=(7,))


class _Line(StreamRequestHandler):
    """One client's connection."""

    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self._speak(2)
        with suppress(ConnectionError):
            while True:
                command = self._read_command()
                if not command:
                    return
                try:
                    answer = self._answer(command)
                except redis.RedisError as error:
                    answer = error
                self.wfile.write(_encode(answer, self._protocol))

    def _speak(self, protocol: int) -> None:
        self._protocol = protocol
        self._data = fakeredis.FakeRedisConnection(server=self.server.data, protocol=protocol)
        self._data.connect()

    def _answer(self, command: list[bytes]) -> object:
        name = command[0].upper()
        if name == b"INFO":
            return _INFO
        if name == b"AUTH":
            return b"OK"
        if name == b"HELLO":
            if len(command) > 1:
                self._speak(int(command[1]))
            return {b"server": b"redis", b"version": b"7.0.0", b"proto": self._protocol}
        self._data.send_command(*command)  # type: ignore[no-untyped-call]  # it has no types
        return self._data.read_response()

    def _read_command(self) -> list[bytes]:
        """The next command; nothing at the end of the line."""
        head = self.rfile.readline()
        if not head.startswith(b"*"):
            return head.split()
        words = []
        for _ in range(int(head[1:])):
            size = int(self.rfile.readline()[1:])
            words.append(self.rfile.read(size + 2)[:-2])
        return words


def _encode(answer: object, protocol: int) -> bytes:
    """`answer` on the wire, as RESP2 or RESP3."""
    if answer is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if isinstance(answer, Exception):
        said = str(answer)
        if not said.split(" ", 1)[0].isupper():
            said = f"{_CODES.get(type(answer), 'ERR')} {said}"
        return b"-%b\r\n" % said.encode()
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, str):
        answer = answer.encode()
    if answer in (b"OK", b"PONG", b"QUEUED"):
        return b"+%b\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%b\r\n" % (len(answer), answer)
    if isinstance(answer, float):
        return _encode(repr(answer), protocol)
    if isinstance(answer, dict):
        items = [item for pair in answer.items() for item in pair]
        if protocol == 2:
            return _encode(items, protocol)
        return b"%%%d\r\n" % len(answer) + b"".join(_encode(item, protocol) for item in items)
    assert isinstance(answer, (list, tuple, set))
    return b"*%d\r\n" % len(answer) + b"".join(_encode(item, protocol) for item in answer)


def main(port: int) -> None:
    """Serve until SIGTERM."""
    server = _Server(port)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]))
