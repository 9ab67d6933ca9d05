"""Workers of the version before there were smaller vectors, beside new ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import redis
from conftest import StartWorker
from earlier import unpack
from faulty_api.vectors import Hashed
from servers import API, wait_until
from shell import Shell

from worker import Collection, Settings
from worker.layout import Layout, decode

pytestmark = pytest.mark.heavy

BEFORE = "a15f473"  # the last commit without layouts
LAYOUT = Layout("nomic-v1.5", 256, "float16")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A directory with the earlier version."""
    return unpack(BEFORE, tmp_path)


def test_workers_of_an_earlier_version_store_nothing_wrong_in_a_collection_of_smaller_vectors(
    earlier: Path,
    api: API,
    worker_process: StartWorker,
    shell: Shell,
    settings: Settings,
    redis_client: redis.Redis,
) -> None:
    # Given a collection of float16 vectors, which an earlier and a new worker feed at once
    api.faults(latency=0.05)
    texts = {f"id-{number}": f"text {number}" for number in range(3000)}
    shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in texts.items()))
    path = os.pathsep.join([str(earlier), os.environ.get("PYTHONPATH", "")])
    worker_process(concurrency=2, PYTHONPATH=path)
    worker_process(concurrency=2)
    small = ["--dimensions", "256", "--dtype", "float16"]
    assert shell("vec-enqueue", "wiki.jsonl", *small).returncode == 0
    wiki = Collection("wiki", settings=settings)
    assert wait_until(lambda: wiki.status().backlog == 0, 90, "the work is done")
    # Then each has done some, and every vector is read as that of its text
    forms = [redis_client.hkeys(f"vec:{{wiki}}:doc:{id}") for id in texts]
    whole, cut = (sum(field in keys for keys in forms) for field in (b"vector", b"float16"))
    assert whole > 0 and cut > 0 and whole + cut == len(texts)
    engine = Hashed(768)
    expected = {
        id: LAYOUT.encode(np.array([engine.numbers(packed)], np.float32))[0]
        for id, packed in zip(texts, engine.pack(list(texts.values())))
    }
    found = {record.id: LAYOUT.encode(decode(record.tobytes(), "float32"))[0] for record in wiki}
    assert found.keys() == expected.keys()
    for id, data in found.items():
        assert abs(decode(data, "float16") - decode(expected[id], "float16")).max() < 0.002
    status = wiki.status()
    assert (status.embedded, status.dead, status.dimensions) == (len(texts), 0, 256)
    assert shell("vec", "verify", "wiki.jsonl").returncode == 0
    answer = shell("vec", "export", "wiki", "-o", "wiki.npy")
    assert answer.returncode == 0, answer
