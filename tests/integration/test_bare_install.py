"""The client library with httpx alone: the same tests, without what the extras bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

TESTS = Path(__file__).parent.parent
# Those that decode. The fixtures above tests/contract are the worker's, which needs orjson.
FILES = [
    "unit/test_decoding.py",
    "unit/test_http.py",
    "contract/test_client_calls.py",
    "contract/test_client_faults.py",
]
OPTIONS = ["-q", "-k", "not async", "-n0", "-p", "no:cacheprovider", "--hypothesis-profile=ci"]
# Not `sys.modules["numpy"] = None`: Hypothesis takes a name in there for a module that is loaded.
SCRIPT = """
import sys
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("orjson", "numpy", "simdjson"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_the_client_is_the_same_without_orjson_and_numpy() -> None:
    options = [*OPTIONS, f"--confcutdir={TESTS / 'contract'}"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *options, *(str(TESTS / name) for name in FILES)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
