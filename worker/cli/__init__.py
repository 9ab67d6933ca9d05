"""The command line: words on the screen, and exit codes.

0: everything that was asked for is done. 1: something is rejected, dead, missing or halted; the
output says so in one line each. 2: wrong usage, or nothing to work on (no Redis, no such file or
collection). 130: Ctrl-C.

Results go to standard output; progress, warnings and errors to standard error. A command imports
what it needs inside itself, so that `--help` answers at once.
"""

import sys

try:
    import click as _click  # noqa: F401
except ModuleNotFoundError:
    print(
        "Error: the commands need more than the client library: "
        "pip install 'vector-embed-cache-client[worker]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

from .commands import vec
from .enqueue import vec_enqueue

__all__ = ["vec", "vec_enqueue"]
