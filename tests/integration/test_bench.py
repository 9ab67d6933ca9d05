"""The benchmarks run, at a size that measures nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.local.redis_server import RedisServer

ROOT = Path(__file__).parents[2]


def test_every_benchmark_runs_and_prints_its_table(running_redis: RedisServer) -> None:
    pytest.importorskip("numpy")
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = ["raw Lua XADD", "the bare loop", "a bare fenced Lua", "a pipelined read", "one request"]
    rows += ["idle collections"]
    assert [row for row in rows if row not in run.stdout] == []
