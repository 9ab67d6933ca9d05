"""A shared or exclusive lock on a file. The kernel releases it when its last holder ends.

It belongs to the open file, so a child that inherits the file holds the same lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_FIRST_FD = 10  # shells use the lower ones for themselves


class Lock:
    """A lock on the file `path`, which is made if it is not there. Not held until taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
        os.close(fd)

    def share(self, *, wait: bool = True) -> bool:
        """Hold it together with others. If another holds it alone: wait, or return False."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH if wait else fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def take(self, timeout: float = 0.0) -> bool:
        """Hold it alone. Returns False if another still holds it after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.02)

    def release(self) -> None:
        """Release it, also for children that inherited the file."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. A child that inherited it still holds the lock."""
        os.close(self.fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
