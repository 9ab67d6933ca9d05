"""A hostile API at the size of a test; `python -m tests.chaos.hostile` runs it at any other."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from .hostile import Hostile

pytestmark = pytest.mark.heavy


@pytest.mark.usefixtures("running_redis")
def test_a_hostile_api_costs_no_text_no_memory_and_no_worker(tmp_path: Path) -> None:
    one = Hostile(tmp_path, Namespace(minutes=0.2, threads=8, share=0.5, seed=3))
    try:
        line = one.run()
    finally:
        one.close()
    assert not one.faults, line
    assert one.vectors > 100
