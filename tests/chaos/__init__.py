"""Faults for real: processes killed and frozen, lines cut, Redis restarted, an API that lies."""

import sys
from pathlib import Path

# `python -m tests.chaos` finds the servers of the tests as pytest does.
_TESTS = str(Path(__file__).parents[1])
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
