"""The last resort where no redis-server can be found: fakeredis, served over TCP.

python -m worker.local.fake_redis PORT
"""

from __future__ import annotations

import signal
import sys
import threading

from fakeredis import TcpFakeServer


def main(port: int) -> None:
    """Serve on the loopback until SIGTERM."""
    server = TcpFakeServer(("127.0.0.1", port), server_version=(7, 0))
    server.daemon_threads = True  # a connection left open does not hold up the end
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
