"""A dry run of a corpus of any size fits into memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.heavy


def test_memory_stays_flat_over_a_corpus_of_any_size() -> None:
    count = (
        "import resource\n"
        "from worker.corpus.spill import Distinct\n"
        "distinct = Distinct(held_bytes=800_000)\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for number in range(200_000): distinct.add(number)\n"
        "before = used()\n"
        "for number in range(1_000_000): distinct.add(number * 1.5)\n"
        "print(used() - before, distinct.count())"
    )

    answer = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True)

    grown, different = map(int, answer.stdout.split())
    assert grown < 8_000  # kB: a set of a million is ten times that
    assert different == 1_133_333
