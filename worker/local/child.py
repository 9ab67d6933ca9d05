"""A child: a process whose output goes to a log file, and that never outlives its parent.

It has its own session, so a Ctrl-C on the terminal reaches only the parent, which decides the order
in which children end. If the parent is killed, a pipe closes, and a watcher stops the child. The
watcher is a line of sh: unlike Linux's parent-death signal, it works on every POSIX system and for
every program.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .lock import Lock

# The shell starts the watcher and becomes the program ("$$" stays its process id). On end of file
# the watcher asks the program to stop, and kills it after ten seconds.
_WATCHED = """
exec 3<&0
{ read -r _ <&3
  for signal in TERM 0 0 0 0 0 0 0 0 0 KILL; do kill -$signal $$ || exit; sleep 1; done
} >/dev/null 2>&1 &
exec "$@" 3<&- </dev/null
"""
_TAIL = 2_000  # bytes of a log worth showing


class ChildError(Exception):
    """A process did not start, or ended when it should not. The message has the end of its log."""


class Child:
    """A running process.

    `name` is its name in errors. `log` is overwritten. `env` replaces the environment, `cwd` is its
    working directory. `lock` is a lock that the child holds for as long as it lives.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        lock: Lock | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, "sh", *command],
                stdin=subprocess.PIPE,  # held open while we live
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                pass_fds=[lock.fd] if lock else [],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """The first match of `pattern` in the log. Raises ChildError if it never comes."""
        deadline = time.monotonic() + timeout
        while True:
            running = self.running  # asked first: what it logged before its end counts
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found:
                return found
            if not running:
                raise ChildError(self.ended())
            if time.monotonic() > deadline:
                raise ChildError(f"{self.name} is not ready after {timeout:.0f} s\n{self.tail()}")
            time.sleep(0.01)

    def ended(self) -> str:
        """How it ended, with the end of its log, for an error."""
        return f"{self.name} ended with status {self._process.returncode}\n{self.tail()}".rstrip()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-_TAIL:].decode(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            self._process.send_signal(number)

    def stop(self, patience: float = 5.0) -> None:
        """Ask it to end, and kill it after `patience` seconds. No process of it is left."""
        self.send(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """Kill it, and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
