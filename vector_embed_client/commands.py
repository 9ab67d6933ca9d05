"""The start of the commands `vec` and `vec-enqueue`: is `worker` ours?

The name is a common one. If PYTHONPATH has a directory with another `worker.py`, Python imports
that one, which then runs or fails with a traceback. So both commands start here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType


def vec() -> None:
    """Show, read and manage collections."""
    _commands_of_worker().vec()


def vec_enqueue() -> None:
    """Put a corpus into a collection."""
    _commands_of_worker().vec_enqueue()


def _commands_of_worker() -> ModuleType:
    """`worker.cli`. Ends with one line if Python would import another `worker` than ours."""
    ours = os.path.join(os.path.dirname(os.path.dirname(__file__)), "worker", "__init__.py")
    spec = importlib.util.find_spec("worker")
    found = None if spec is None else spec.origin
    if found is None or os.path.realpath(found) != os.path.realpath(ours):
        print(
            f"Error: Python finds the module 'worker' in {found}, not in {ours}: take the "
            "directory of the first out of PYTHONPATH, or rename it",
            file=sys.stderr,
        )
        raise SystemExit(2)
    try:
        return importlib.import_module("worker.cli")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
