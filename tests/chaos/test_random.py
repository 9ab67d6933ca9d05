"""Random chaos at the size of a test; `python -m tests.chaos` runs it at any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from .chaos import Chaos

pytestmark = pytest.mark.heavy


@pytest.mark.usefixtures("running_redis")
def test_a_little_chaos_loses_nothing_doubles_nothing_and_stores_nothing_wrong(
    tmp_path: Path,
) -> None:
    chaos = Chaos(tmp_path, texts=1_000, minutes=0.25, seed=11, workers=2)
    try:
        outcome = chaos.run()
    finally:
        chaos.close()
    assert not outcome.faults, outcome
    assert outcome.readings > 20
