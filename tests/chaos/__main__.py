"""Random chaos at any size: `python -m tests.chaos --texts 20000 --minutes 5 --seed 1`.

One line says what came out; below it, what was wrong. The exit code is 0 if nothing was.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from .chaos import Chaos


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults; then it heals")
    parser.add_argument("--seed", type=int, default=None, help="the same chaos again")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    chaos = Chaos(
        directory, texts=asked.texts, minutes=asked.minutes, seed=seed, workers=asked.workers
    )
    try:
        outcome = chaos.run()
    finally:
        chaos.close()
    print(f"seed {seed}: {outcome.line}", flush=True)
    for fault in outcome.faults:
        print(f"  {fault}")
    if outcome.faults:
        print(f"  logs: {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
