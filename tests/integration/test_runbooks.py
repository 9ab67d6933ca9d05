"""The pages of `deploy/runbooks`: their commands are run as they stand there, on real servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from servers import API, WorkerProcess, wait_until
from shell import Shell
from stored import Store

from worker import enqueue
from worker.local.redis_server import RedisServer, free_port
from worker.settings import Settings

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]
RUNBOOKS = Path(__file__).parents[2] / "deploy" / "runbooks"


def follow(page: str, block: int = 0, **environ: str) -> str:
    """Run one block of a page's commands to a good end; what it printed."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (RUNBOOKS / f"{page}.md").read_text(), re.M | re.S)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-eu", "-c", blocks[block]],
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def texts(number: int) -> list[dict[str, str]]:
    return [{"id": f"doc-{index}", "text": f"text {index}"} for index in range(number)]


class Machine:
    """A Redis with an append-only file, as its machine's administrator has it."""

    def __init__(self, directory: Path) -> None:
        for program in ("redis-server", "redis-cli", "bash"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        directory.mkdir()
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.conf = directory / "redis.conf"
        self.conf.write_text(
            f'port {self.port}\nbind 127.0.0.1\ndir {directory}\nappendonly yes\nsave ""\n'
            f"pidfile {directory}/redis.pid\nlogfile {directory}/redis.log\n"
        )

    def start(self) -> None:
        """As a service would."""
        subprocess.run(["redis-server", str(self.conf), "--daemonize", "yes"], check=True)
        wait_until(self.answers, 20, "redis-server")

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def keys(self) -> int:
        with redis.Redis.from_url(self.url) as client:
            return int(client.dbsize())

    def stop(self) -> None:
        if self.answers():
            with redis.Redis.from_url(self.url) as client:
                client.shutdown(nosave=True)
            wait_until(lambda: not self.answers(), 20, "the end of redis-server")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    one = Machine(tmp_path / "redis")
    one.start()
    yield one
    one.stop()


def test_a_backup_is_restored_under_appendonly_and_the_corpus_repairs_the_rest(
    machine: Machine, tmp_path: Path
) -> None:
    backup = str(tmp_path / "backup.rdb")
    shell = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": machine.url})
    corpus = shell.write("wiki.jsonl", *texts(100))
    assert shell("vec-enqueue", str(corpus)).returncode == 0
    follow("backup", REDIS_URL=machine.url, BACKUP=backup)
    shell.write("wiki.jsonl", *texts(150))
    assert shell("vec-enqueue", str(corpus)).stdout.startswith("wiki: 50 new, 100 unchanged")

    # What the page warns of: the snapshot beside a Redis with an append-only file.
    machine.stop()
    (machine.directory / "aside").mkdir()
    for path in machine.directory.glob("appendonly*"):  # one file, before Redis 7
        path.rename(machine.directory / "aside" / path.name)
    shutil.copy(backup, machine.directory / "dump.rdb")
    machine.start()
    assert machine.keys() == 0

    follow(
        "restore",
        BACKUP=backup,
        REDIS_DIR=str(machine.directory),
        REDIS_CONF=str(machine.conf),
        REDIS_URL=machine.url,
    )

    wiki = Store("wiki", settings=Settings(redis_url=machine.url, broker_url=machine.url))
    assert wiki.reader.ledger().pending == 100
    told = shell("vec", "doctor").stdout
    assert f"vec verify {corpus} --collection wiki" in told
    repaired = follow("restore", block=1, CORPUS=str(corpus), VECTOR_EMBED_REDIS_URL=machine.url)
    assert "0 of 150 texts embedded, 100 pending, 0 dead, 50 missing" in repaired
    assert "wiki: 50 new, 100 unchanged" in repaired
    machine.stop()
    machine.start()  # it is the append-only file that is read now
    assert wiki.reader.ledger().pending == 150


def test_workers_go_on_with_a_promoted_replica_at_the_address_of_the_primary(
    machine: Machine, api: API, worker_process: StartWorker, tmp_path: Path
) -> None:
    replica = Machine(tmp_path / "replica")
    replica.start()
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", machine.port)
    settings = Settings(redis_url=machine.url, broker_url=machine.url)
    worker_process(VECTOR_EMBED_REDIS_URL=machine.url)
    wiki = Store("wiki", settings=settings)
    try:
        enqueue([(f"a-{n}", f"text {n}") for n in range(100)], "wiki", settings=settings)
        assert wiki.wait(60).embedded == 100
        with redis.Redis.from_url(replica.url) as client:
            key = wiki.reader.ledger().embedded_ever
            wait_until(lambda: client.hget("vec:{wiki}:info", "commits") == str(key).encode(), 20)
        machine.stop()

        follow("failover", REPLICA_URL=replica.url)
        with redis.Redis.from_url(replica.url) as client:
            client.config_set("port", machine.port)  # its address is the primary's from now on

        enqueue([(f"b-{n}", f"other {n}") for n in range(100)], "wiki", settings=settings)
        assert wiki.wait(60).embedded == 200
    finally:
        replica.url = machine.url
        replica.stop()


def test_a_key_is_rotated_without_a_halt(
    redis_server: RedisServer, api: API, worker_process: StartWorker
) -> None:
    settings = Settings(redis_url=redis_server.url, broker_url=redis_server.url)
    wiki = Store("wiki", settings=settings)
    old = worker_process(VECTOR_EMBED_API_KEY="vec_old")
    enqueue([("a", "text")], "wiki", settings=settings)
    assert wiki.wait(60).embedded == 1

    worker_process(VECTOR_EMBED_API_KEY="vec_new")
    old.stop()
    shown = follow("rotate-key", VECTOR_EMBED_REDIS_URL=redis_server.url)
    api.faults(keys=["vec_new"])
    enqueue([("b", "another text")], "wiki", settings=settings)
    status = wiki.wait(60)

    assert "1 worker alive" in shown and "halted" not in shown
    assert (status.embedded, status.state) == (2, "idle")


def test_a_worker_and_a_queue_are_drained(
    redis_server: RedisServer, api: API, worker_process: StartWorker
) -> None:
    settings = Settings(redis_url=redis_server.url, broker_url=redis_server.url)
    wiki = Store("wiki", settings=settings)
    api.faults(latency=1)
    worker = worker_process(concurrency=2)
    enqueue([(str(n), f"text {n}") for n in range(2000)], "wiki", settings=settings)
    wait_until(lambda: wiki.reader.ledger().leased, 30, "work under way")

    follow("drain", WORKER_PID=str(worker.pid))

    worker.stop(patience=60)  # waits for its end
    assert wiki.reader.ledger().leased == 0
    api.faults()
    worker_process()
    drained = follow("drain", block=1, COLLECTION="wiki", VECTOR_EMBED_REDIS_URL=redis_server.url)
    assert "wiki: 2,000 of 2,000 embedded" in drained


def test_every_page_is_linked_from_the_guide() -> None:
    guide = (RUNBOOKS.parent / "README.md").read_text()
    for page in RUNBOOKS.glob("*.md"):
        assert f"runbooks/{page.name}" in guide, page
