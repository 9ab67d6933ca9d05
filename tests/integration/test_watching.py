"""Watching a fleet at work, as a person does: real processes, a real Redis, a real worker."""

from __future__ import annotations

import json
from collections.abc import Callable

from servers import API, WorkerProcess, wait_until
from shell import Shell

StartWorker = Callable[..., WorkerProcess]


def texts(number: int) -> list[dict[str, str]]:
    return [{"id": f"doc-{index}", "text": f"text {index}"} for index in range(number)]


# Workers


def test_workers_are_listed_with_what_they_are_at_and_as_lost_when_killed(
    shell: Shell, api: API, worker_process: StartWorker
) -> None:
    assert shell("vec", "workers").stdout.startswith("no worker is alive: start one with celery")
    worker = worker_process(concurrency=2)
    api.faults(latency=3)
    shell.write("wiki.jsonl", *texts(400))
    shell("vec-enqueue", "wiki.jsonl")

    def at_work() -> bool:
        [one] = json.loads(shell("vec", "workers", "--json").stdout)
        return bool(one["work"] and one["work"][0]["texts"] == 100)

    wait_until(at_work)
    header, row, doing, total = shell("vec", "workers").stdout.splitlines()
    assert header.split() == ["HOST", "PID", "STATE", "UP", "THREADS", "VERSION"]
    assert row.split()[1:3] == [str(worker.pid), "alive"]
    assert doing.startswith("  wiki: 2 threads, ")
    assert doing.endswith(" in hand")
    assert total == "1 worker alive, 2 threads"

    worker.kill()
    wait_until(lambda: "lost" in shell("vec", "workers").stdout, timeout=20)
    assert "  last seen " in shell("vec", "workers").stdout
