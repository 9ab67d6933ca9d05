"""One worker process with several API keys, and with several endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from faulty_api.vectors import expected_vector
from prometheus_client import CollectorRegistry, generate_latest
from servers import API, WorkerProcess, wait_until
from shell import Shell
from stored import Store

from worker import Status, enqueue
from worker.engine.query import ThrottledClient
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Worker, announce_worker
from worker.monitor.metrics import FleetCollector
from worker.monitor.service import is_open_under
from worker.settings import Settings
from worker.store.connection import connect
from worker.throttle import Permit, Throttle, resume, throttle_name

A, B, C = "vec_a", "vec_b", "vec_c"


class Keys:
    """A file with keys, and workers that read it."""

    def __init__(self, file: Path, start: StartWorker, api: API) -> None:
        self.file = file
        self._start = start
        self._api = api

    def write(self, *lines: str) -> None:
        """Replace the file, as a rename does."""
        new = self.file.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self.file)

    def worker(self, *lines: str, concurrency: int = 8, **environ: str) -> WorkerProcess:
        """A worker process with these keys."""
        self.write(*lines)
        return self._start(concurrency=concurrency, **self.environ, **environ)

    @property
    def environ(self) -> dict[str, str]:
        file = str(self.file)
        return {"VECTOR_EMBED_API_KEY": "", "VECTOR_EMBED_KEYS_FILE": file}

    def name(self, key: str) -> str:
        """The name of its throttle."""
        return throttle_name(self._api.base_url, key)

    def passed(self, key: str, status: int = 200) -> int:
        """How many requests with it were answered with a status."""
        return self._api.log().by_key.get(key, {}).get(status, 0)


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def keys(worker_process: StartWorker, api: API, tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys", worker_process, api)


@pytest.fixture
def other_api(tmp_path: Path) -> Iterator[API]:
    """A second endpoint."""
    with ExitStack() as ending:
        api = API(tmp_path / "other.log")
        ending.callback(api.stop)
        yield api


def queue(settings: Settings, texts: int, name: str = "wiki", text: str = "text") -> Store:
    enqueue([(f"id-{n}", f"{text} {n}") for n in range(texts)], name, settings=settings)
    return Store(name, settings=settings)


def wait_done(store: Store, seconds: float = 60) -> None:
    wait_until(lambda: not store.status().backlog, seconds, f"{store} done")


def check(store: Store, texts: int, text: str = "text") -> None:
    """All are embedded, each with its own vector."""
    status = store.status()
    assert (status.embedded, status.dead) == (texts, 0), status
    wanted = {f"id-{n}": expected_vector(f"{text} {n}") for n in range(texts)}
    assert {record.id: list(record.vector) for record in store} == wanted


def test_a_key_that_is_revoked_takes_itself_out_and_nothing_else(
    keys: Keys, settings: Settings, api: API
) -> None:
    # Given a worker with two keys, of which one is revoked after three requests
    revoked = {"answer": "revoked", "key": B, "skip": 3}
    api.faults(latency=0.05, rules=[revoked])
    worker = keys.worker(A, B)
    # Then the other one does the rest
    store = queue(settings, 1500)
    wait_done(store)
    check(store, 1500)
    assert keys.passed(B) == 3
    # How many more were in flight with it when the first was refused is the machine's pace. None of
    # the 8 threads asks a second time.
    assert 1 <= keys.passed(B, 401) <= 8
    b = keys.name(B)
    wait_until(lambda: f"key {b} is halted, 1 of 2 are not: the API refuses the key" in worker.log)
    _check_secret(worker, settings)
    # When it is valid again and resumed, Then it works on
    api.faults(latency=0.05)
    assert resume(connect(settings), "vec", b)
    before = keys.passed(B)
    wait_done(queue(settings, 500, "next"))
    assert keys.passed(B) > before


def test_a_collection_is_served_as_the_best_key_can_serve_it(settings: Settings) -> None:
    store, client = queue(settings, 1), connect(settings)
    names = [throttle_name("http://a", key) for key in (A, B)]
    throttles = [
        Throttle(replace(settings, api_key=key, base_url="http://a"), "m") for key in (A, B)
    ]
    worker = Worker("a:1:x", 8, throttle=names[0], throttles=names, queue=settings.queue)
    info = store.reader.info()

    def look() -> Status:
        announce_worker(client, "vec", worker)
        return store.status()

    def halt(place: int) -> None:
        permit = throttles[place].ask()
        assert isinstance(permit, Permit)
        throttles[place].halted(permit, f"401 of {place}", of_key=True)

    assert [key.state for key in look().keys] == ["running"] * 2
    # When one key is halted, Then the other serves it
    halt(0)
    status = look()
    assert (status.state, status.able) == ("running", 1)
    assert {key.name: key.state for key in status.keys} == dict(zip(names, ["halted", "running"]))
    assert is_open_under(client, store.keys, info, names)
    assert not is_open_under(client, store.keys, info, names[:1])
    # When it alone is halted for the other, or both keys are, Then nothing does
    store.backlog.halt(names[1], "another length")
    halted = look()
    assert (halted.state, halted.able) == ("halted", 0)
    assert not is_open_under(client, store.keys, store.reader.info(), names)
    store.backlog.resume()
    halt(1)
    assert look().state == "halted"


@pytest.mark.heavy
def test_each_key_is_shown_by_its_fingerprint_with_its_state(
    keys: Keys, settings: Settings, api: API, shell: Shell
) -> None:
    # Given a worker with two keys, of which one is refused
    api.faults(keys=[A])
    worker = keys.worker(A, B)
    wait_done(queue(settings, 1000))
    a, b = keys.name(A), keys.name(B)
    wait_until(lambda: f"key {b} is halted" in worker.log)
    said = [shell("vec", *words).stdout for words in (["status"], ["status", "wiki"], ["workers"])]
    short, page, workers = said
    assert "2 API keys: 1 running, 1 halted" in short
    assert "2 API keys: 1 running, 1 halted" in page
    for shown in (page, workers):
        assert f"{a}: running" in shown and f"{b}: halted: the API refuses the key" in shown
    (told,) = json.loads(shell("vec", "workers", "--json").stdout)
    assert told["state"] == "working"
    states = {a: "running", b: "halted"}
    assert {one["name"]: one["state"] for one in told["keys"]} == states
    (status,) = json.loads(shell("vec", "status", "--json").stdout)
    assert {one["name"]: one["state"] for one in status["keys"]} == states
    doctor = shell("vec", "doctor", **keys.environ, VECTOR_EMBED_BASE_URL=api.base_url).stdout
    assert f"the API takes the key {a}" in doctor
    assert f"warning  nothing is sent with the key {b}: the API refuses" in doctor
    assert not [one for one in (*said, doctor) if A in one or B in one]
    metrics = dict(_metrics(settings))
    assert (
        metrics[f'vec_throttle_halted{{throttle="{a}"}}'],
        metrics[f'vec_throttle_halted{{throttle="{b}"}}'],
    ) == (0, 1)


def _metrics(settings: Settings) -> Iterator[tuple[str, float]]:
    registry = CollectorRegistry()
    registry.register(FleetCollector(settings))
    for line in generate_latest(registry).decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            yield name, float(value)


def _check_secret(worker: WorkerProcess, settings: Settings, *said: str) -> None:
    seen = [worker.log, *said, Path(f"/proc/{worker.pid}/cmdline").read_bytes().decode()]
    with redis.Redis.from_url(settings.redis_url) as client:
        for name in client.scan_iter():
            seen.append(repr((name, client.dump(name))))
    assert not [one for one in seen if A in one or B in one]


@pytest.mark.heavy
def test_keys_come_and_go_without_a_restart(keys: Keys, settings: Settings, api: API) -> None:
    # Given a worker with one key
    api.faults(latency=0.02)
    worker = keys.worker(A)
    wait_done(queue(settings, 300, "first"))
    # When the file names another, Then that one alone is used
    keys.write(B, "# vec_a was here")
    wait_until(lambda: "holds another API key" in worker.log, 10)
    before = keys.passed(A)
    wait_done(queue(settings, 300, "second"))
    assert keys.passed(A) == before and keys.passed(B) >= 3
    # When it is gone, Then the key stays, and it is said
    keys.file.unlink()
    wait_until(lambda: "the API key that was read before stays in use" in worker.log, 10)
    store = queue(settings, 300, "third")
    wait_done(store)
    assert str(store.status().key_fault).startswith(f"cannot read {keys.file}")


@pytest.mark.parametrize("answer", ["account", "forbidden", "error", "dimension", "reset"])
@pytest.mark.heavy
def test_what_one_key_alone_is_answered_kills_no_text(
    answer: str, keys: Keys, settings: Settings, api: API
) -> None:
    """If texts that fail with one key passed beside others with another, they would look guilty."""
    api.faults(latency=0.01, rules=[{"answer": answer, "key": B}])
    keys.worker(A, B, concurrency=1)  # one thread: the keys take turns
    store = queue(settings, 1500)
    wait_done(store, 120)
    check(store, 1500)
    assert not store.client.exists(store.keys.attempts)


@pytest.mark.heavy
def test_a_bad_text_is_found_with_several_keys_and_costs_only_itself(
    keys: Keys, settings: Settings, api: API
) -> None:
    rules = [{"answer": "unnamed", "marker": "poison-unnamed"}]
    limit = {"limiter": "bucket", "rate": 20, "per": 1.0}
    api.faults(latency=0.01, rules=rules, limits={A: limit, B: limit}, retry_after="none")
    keys.worker(A, B, C)
    bad = queue(settings, 3, "bad", "poison-unnamed")
    good = queue(settings, 1000, "good")
    for store in (bad, good):
        wait_done(store, 120)
    check(good, 1000)
    assert (bad.status().dead, bad.status().embedded) == (3, 0)


@pytest.mark.heavy
def test_three_keys_with_limits_of_their_own_work_side_by_side_and_none_is_over_its_own(
    keys: Keys, settings: Settings, api: API
) -> None:
    window = {"limiter": "window", "rate": 30, "per": 5.0}
    bucket = {"limiter": "bucket", "rate": 10, "per": 1.0, "capacity": 10}
    api.faults(latency=0.2, limits={A: window, B: bucket}, retry_after="none")
    keys.worker(A, B, C, concurrency=16)
    store = queue(settings, 10_000)
    wait_done(store)
    check(store, 10_000)
    assert min(keys.passed(key) for key in (A, B, C)) >= 10
    refused = [keys.passed(key, 429) for key in (A, B, C)]
    assert max(refused) <= 16 and refused[2] == 0, refused


@pytest.mark.heavy
def test_two_endpoints_with_a_few_places_each_are_both_used(
    keys: Keys, settings: Settings, api: API, other_api: API
) -> None:
    apis = (api, other_api)
    for one in apis:
        one.faults(latency=0.2)
    keys.worker(A, f"{B}  {other_api.base_url}", concurrency=12, VECTOR_EMBED_MAX_IN_FLIGHT="2")
    store = queue(settings, 4000)
    wait_done(store)
    check(store, 4000)
    logs = [one.log() for one in apis]
    # An answer may be here before its server counts it as ended.
    assert all(2 <= log.most_in_flight <= 3 for log in logs)
    assert set(logs[0].by_key) == {A} and set(logs[1].by_key) == {B}
    assert min(log.requests for log in logs) > 15


@pytest.mark.heavy
def test_an_endpoint_that_goes_away_does_not_hold_up_the_other(
    keys: Keys, settings: Settings, api: API, other_api: API
) -> None:
    api.faults(latency=0.05)
    keys.worker(A, f"{B}  {other_api.base_url}")
    store = queue(settings, 5000)
    wait_until(lambda: other_api.log().by_key, 30, "both at work", every=0.01)
    other_api.stop()
    wait_done(store)
    check(store, 5000)


def test_a_query_goes_with_whatever_key_has_room(
    keys: Keys, settings: Settings, api: API, tmp_path: Path
) -> None:
    keys.write(A, f"{B} {api.base_url}")
    api.faults(keys=[B])
    client = ThrottledClient(
        Settings(redis_url=settings.redis_url, base_url=api.base_url, keys_file=str(keys.file))
    )
    for number in range(3):
        text = f"query {number}"
        assert client.embed(text).vector == expected_vector(text)
    assert (keys.passed(A, 401), keys.passed(B)) == (1, 3)
