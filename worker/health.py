"""The probe: does the worker beside us live? `python -m worker.health`, for a container.

The heartbeat touches the file in VECTOR_EMBED_HEARTBEAT_FILE once a second, also while Redis is
away. A probe that asked Redis would restart the whole fleet together with Redis.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .settings import SettingsError, read_settings

MAX_AGE = 90.0  # seconds; a Redis that hangs holds a beat up for 30


def beat(file: str) -> None:
    """Touch the file: this process lives. Raises OSError."""
    Path(file).touch(mode=0o644)


def trouble(file: str | None) -> str | None:
    """What is wrong with the worker of this heartbeat file; None if it lives."""
    if file is None:
        return "VECTOR_EMBED_HEARTBEAT_FILE is not set: name the same file to worker and probe"
    try:
        age = time.time() - Path(file).stat().st_mtime
    except OSError as error:
        return f"no heartbeat in {file}: {error.strerror or error}"
    return f"no heartbeat for {age:.0f} s: see the worker's log" if age > MAX_AGE else None


def _main() -> None:
    try:
        wrong = trouble(read_settings(keys=False).heartbeat_file)
    except SettingsError as error:
        wrong = str(error)
    if wrong is not None:
        print(f"Error: {wrong}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    _main()
