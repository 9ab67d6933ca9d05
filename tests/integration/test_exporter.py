"""`vec exporter`: a process of its own, asked over HTTP as Prometheus asks it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from servers import API, API_KEY, TcpProxy, WorkerProcess, wait_until

from worker import Collection, enqueue
from worker.local.child import Child
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Worker, announce_worker
from worker.settings import Settings
from worker.store.connection import connect
from worker.throttle import pause, resume, throttle_name

StartWorker = Callable[..., WorkerProcess]
Samples = Mapping[tuple[str, tuple[str, ...]], float]


class ExporterProcess:
    """A `vec exporter` on a free port."""

    def __init__(self, redis_url: str, log: Path) -> None:
        command = [sys.executable, "-c", "from worker.cli import vec; vec()", "exporter"]
        env = {name: value for name, value in os.environ.items() if "REDIS_URL" not in name}
        self.child = Child(
            "the exporter", [*command, "--port", "0", "--redis-url", redis_url], log, env=env
        )
        self.url = self.child.wait_for(r"serving (http://\S+)/metrics", 30)[1]

    def families(self) -> list[Metric]:
        answer = httpx.get(f"{self.url}/metrics", timeout=10)
        assert answer.status_code == 200
        return list(text_string_to_metric_families(answer.text))

    def samples(self) -> Samples:
        """(name, label values in the order of the labels' names): value."""
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in self.families()
            for sample in family.samples
        }


@pytest.fixture
def exporter(redis_server: RedisServer, tmp_path: Path) -> Iterator[ExporterProcess]:
    process = ExporterProcess(redis_server.url, tmp_path / "exporter.log")
    yield process
    process.child.stop()


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


def test_the_metrics_tell_what_the_fleet_has_done(
    exporter: ExporterProcess, settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(rules=[{"answer": "named", "marker": "poison"}, {"answer": "error", "times": 1}])
    worker_process()
    texts = {**{f"id-{n}": f"text {n}" for n in range(250)}, "bad": "poison"}
    enqueue(texts.items(), "wiki", settings=settings)
    status = Collection("wiki", settings=settings).wait(30)
    assert (status.embedded, status.dead, status.backlog) == (250, 1, 0)
    sent = api.log().requests
    throttle = throttle_name(api.base_url, API_KEY)

    def told() -> bool:
        return exporter.samples().get(("vec_request_seconds_count", (throttle,)), 0) >= sent

    wait_until(told, 10, "the heartbeat to tell of every request")
    samples = exporter.samples()
    assert samples["vec_up", ()] == 1
    assert samples["vec_workers", ("alive",)] == 1 and samples["vec_workers", ("lost",)] == 0
    assert samples["vec_worker_slots", ()] == 8
    assert samples["vec_enqueued_texts", ("wiki",)] == 251
    states = ("embedded", "evicted", "dead", "pending", "leased")
    assert [samples["vec_texts", ("wiki", state)] for state in states] == [250, 0, 1, 0, 0]
    assert samples["vec_embedded_total", ("wiki",)] == 250
    assert samples["vec_dead_total", ("invalid_request", "wiki")] == 1
    assert samples["vec_oldest_pending_age_seconds", ("wiki",)] == 0
    outcomes = {
        labels[0]: value
        for (name, labels), value in samples.items()
        if name == "vec_requests_total"
    }
    assert sum(outcomes.values()) == sent
    statuses = api.log().statuses
    assert outcomes["invalid_request"] == statuses.get(400, 0) + statuses.get(422, 0) > 0
    assert outcomes["server_error"] == statuses[500] > 0
    assert samples["vec_request_seconds_bucket", ("+Inf", throttle)] == sent
    assert samples["vec_request_seconds_sum", (throttle,)] > 0
    assert samples["vec_throttle_halted", (throttle,)] == 0


def test_a_halt_and_a_pause_are_seen(
    exporter: ExporterProcess, settings: Settings, worker_process: StartWorker, api: API
) -> None:
    api.faults(rules=[{"answer": "account"}])
    worker_process()
    enqueue([("a", "text")], "wiki", settings=settings)
    collection = Collection("wiki", settings=settings)
    assert collection.wait(20).state == "halted"
    throttle = throttle_name(api.base_url, API_KEY)
    samples = exporter.samples()
    assert samples["vec_collection_waiting", ("wiki",)] == 0
    assert samples["vec_throttle_halted", (throttle,)] == 1
    assert samples["vec_throttle_paused", (throttle,)] == 0
    assert samples["vec_oldest_pending_age_seconds", ("wiki",)] > 0
    client = connect(settings)
    resume(client, settings.prefix, throttle)
    pause(client, settings.prefix, throttle)
    samples = exporter.samples()
    assert samples["vec_throttle_halted", (throttle,)] == 0
    assert samples["vec_throttle_paused", (throttle,)] == 1
    assert ("vec_throttle_pause_remaining_seconds", (throttle,)) not in samples


def test_a_backlog_without_a_worker_is_seen(exporter: ExporterProcess, settings: Settings) -> None:
    enqueue([("a", "text")], "wiki", settings=settings)
    assert exporter.samples()["vec_collection_waiting", ("wiki",)] == 1
    announce_worker(connect(settings), settings.prefix, Worker("host:1:a", 8))
    assert exporter.samples()["vec_collection_waiting", ("wiki",)] == 0


def test_while_redis_is_away_vec_up_is_0_and_nothing_old_is_told(
    redis_server: RedisServer, proxy: Callable[[str], TcpProxy], tmp_path: Path
) -> None:
    line = proxy(redis_server.url)
    line.refuse()
    process = ExporterProcess(line.url, tmp_path / "exporter.log")
    try:
        assert process.samples() == {("vec_up", ()): 0}
        line.refuse(False)
        assert process.samples()["vec_workers", ("alive",)] == 0
        line.refuse()
        assert process.samples() == {("vec_up", ()): 0}
        assert process.child.running
    finally:
        process.child.stop()
        line.close()
    log = (tmp_path / "exporter.log").read_text()
    assert "cannot read Redis" in log and "Redis is back" in log and "Traceback" not in log


def test_it_answers_a_probe_and_ends_cleanly_on_sigterm(exporter: ExporterProcess) -> None:
    assert httpx.get(f"{exporter.url}/healthz").text == "ok\n"
    assert httpx.get(f"{exporter.url}/other").status_code == 404
    exporter.child.stop()
    assert exporter.child.ended().startswith("the exporter ended with status 0")
