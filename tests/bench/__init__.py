"""Benchmarks: the limit, us and the peers, side by side in one run. They assert nothing of time."""

import sys
from pathlib import Path

# `python -m tests.bench` finds the servers of the tests as pytest does.
_TESTS = str(Path(__file__).parents[1])
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
