"""A run of chaos from the command line: in a directory of its own, kept if anything was wrong."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Conducted(Protocol):
    """What is run: once, and closed always; then it has its faults."""

    faults: list[str]

    def run(self) -> str | None: ...

    def close(self) -> None: ...


def conduct(
    name: str, make: Callable[[Path, argparse.Namespace], Conducted], asked: argparse.Namespace
) -> int:
    """Run what `make` makes, and say what was wrong; returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended
    if asked.directory is not None:
        asked.directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=asked.directory))
    one = make(directory, asked)
    try:
        line = one.run()
    finally:
        one.close()
    if line:
        print(line)
    for fault in one.faults:
        print(f"  {fault}")
    if one.faults:
        print(f"FAIL; logs: {directory}")
        return 1
    print("PASS")
    shutil.rmtree(directory, ignore_errors=True)
    return 0
