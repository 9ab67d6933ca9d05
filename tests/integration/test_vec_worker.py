"""`vec worker`: how a worker is started, and what ends it before it starts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import API, API_KEY, wait_until
from shell import Shell

from worker import Collection, enqueue
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import read_fleet
from worker.settings import Settings
from worker.store.connection import connect

OTHERS = {  # each would change a Celery worker, or end it
    "APP": "other",
    "BROKER_URL": "redis://127.0.0.1:1",
    "C_STRICT_APP": "1",
    "CELERY_BROKER_READ_URL": "redis://127.0.0.1:1",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1",
    "CELERY_BROKER_WRITE_URL": "redis://127.0.0.1:1",
    "CELERY_CONFIG_MODULE": "nowhere",
    "CELERY_CUSTOM_WORKER_POOL": "nowhere:Pool",
    "CELERY_LOADER": "nowhere:Loader",
    "CELERY_RESULT_BACKEND": "nowhere://",
    "CELERY_TRACE_APP": "1",
    "CELERY_WORKER_QUEUES": "celery",
    "DJANGO_SETTINGS_MODULE": "nowhere.settings",
    "FORKED_BY_MULTIPROCESSING": "1",
    "LOADER": "nowhere",
    "PICKLE_PROTOCOL": "none",
    "RESULT_BACKEND": "nowhere://",
}


class Started:
    """A `vec worker` that was started at a prompt, and its log."""

    def __init__(self, shell: Shell, log: Path, *options: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                shell.command("vec", "worker", *options),
                cwd=shell.directory,
                env=shell.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: " ready." in self.log, 60, "a worker that is ready")

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def start(shell: Shell, api: API, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts `vec worker` with options, and with variables beside ours."""
    started: list[Started] = []

    def begin(*options: str, **environ: str) -> Started:
        key = {} if "VECTOR_EMBED_API_KEY_FILE" in environ else {"VECTOR_EMBED_API_KEY": API_KEY}
        shell.environ.update({"VECTOR_EMBED_BASE_URL": api.base_url, **key, **environ})
        started.append(Started(shell, tmp_path / f"{len(started)}.log", *options))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


def test_nothing_around_it_has_a_part_in_a_worker(
    start: Callable[..., Started], shell: Shell, settings: Settings
) -> None:
    # Given a stranger's modules where it starts, and variables that Celery obeys
    for name in ("worker", "celery", "redis", "celeryconfig"):
        (shell.directory / f"{name}.py").write_text("raise SystemExit('a stranger')")
    worker = start("--threads", "2", **OTHERS)
    enqueue(["one", "two"], "wiki", settings=settings)
    assert Collection("wiki", settings=settings).wait(30).embedded == 2
    process = Path("/proc", str(worker.process.pid))
    assert list((process / "cwd").iterdir()) == []
    assert b"MALLOC_ARENA_MAX=2" in (process / "environ").read_bytes().split(b"\0")
    # And Ctrl-C is a good end
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(30) == 0


def test_a_producer_obeys_our_settings_alone(shell: Shell, settings: Settings) -> None:
    shell.environ.update(OTHERS)
    shell.write("wiki.jsonl", {"id": "1", "text": "one"})
    done = shell("vec-enqueue", "wiki.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert connect(settings).exists(settings.queue)


def test_a_worker_logs_an_object_a_line_and_none_for_a_request(
    start: Callable[..., Started], settings: Settings
) -> None:
    worker = start("--threads", "2", VECTOR_EMBED_LOG_FORMAT="json")
    enqueue([f"text {number}" for number in range(250)], "wiki", settings=settings)
    Collection("wiki", settings=settings).wait(30)
    wait_until(lambda: '"outcome"' in worker.log, 20, "a slice's line")
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    slices = [line for line in lines if "outcome" in line]
    assert sum(line["batch"] for line in slices) <= 250
    assert {(line["collection"], line["outcome"], line["level"]) for line in slices} == {
        ("wiki", "done", "INFO")
    }
    assert all(line["seconds"] >= 0 and line["time"].endswith("Z") for line in slices)
    assert not re.search("HTTP Request|received|succeeded", worker.log)


def test_a_key_is_changed_without_a_restart(
    start: Callable[..., Started], settings: Settings, tmp_path: Path
) -> None:
    # Given a key that lies where Kubernetes mounts it: behind a link that is replaced
    old, new, key, other = (tmp_path / name for name in ("old", "new", "key", "other"))
    old.write_text("vec_old\n")
    new.write_text("vec_new\n")
    key.symlink_to(old)
    other.symlink_to(new)
    start("--threads", "2", VECTOR_EMBED_API_KEY_FILE="key")
    collection = Collection("wiki", settings=settings)
    enqueue(["one"], "wiki", settings=settings)
    wait_until(lambda: collection.status().embedded == 1, 30, "the first vector")

    def throttle() -> str | None:
        return read_fleet(connect(settings), settings.prefix)[0].throttle

    before = throttle()
    # When the link is replaced, Then the next text goes out under the new key
    other.replace(key)
    enqueue(["two"], "wiki", settings=settings)
    wait_until(lambda: collection.status().embedded == 2, 30, "the second vector")
    wait_until(lambda: throttle() != before, 10, "the new key's throttle")


@pytest.mark.heavy
def test_there_are_threads_for_each_endpoint_of_the_keys(
    start: Callable[..., Started], settings: Settings, tmp_path: Path
) -> None:
    # A relative path is found where the worker starts, though it works elsewhere
    (tmp_path / "keys").write_text("vec_a\nvec_b\nvec_c http://127.0.0.1:9\n")
    start(VECTOR_EMBED_API_KEY="", VECTOR_EMBED_KEYS_FILE="keys")
    client = connect(settings)
    (worker,) = wait_until(lambda: read_fleet(client, settings.prefix), 10, "the worker")
    assert (worker.threads, len(worker.keys)) == (16, 3)


UNFIT = {
    "no key": ({"VECTOR_EMBED_API_KEY": ""}, "VECTOR_EMBED_API_KEY is not set"),
    "two keys": ({"VECTOR_EMBED_API_KEY_FILE": "key"}, "not both"),
    "no key file": (
        {"VECTOR_EMBED_API_KEY": "", "VECTOR_EMBED_API_KEY_FILE": "missing"},
        "VECTOR_EMBED_API_KEY_FILE: cannot read",
    ),
    "an empty key file": (
        {"VECTOR_EMBED_API_KEY": "", "VECTOR_EMBED_API_KEY_FILE": "/dev/null"},
        "is empty",
    ),
    "no file with keys": (
        {"VECTOR_EMBED_API_KEY": "", "VECTOR_EMBED_KEYS_FILE": "missing"},
        "VECTOR_EMBED_KEYS_FILE: cannot read",
    ),
    "an address": ({"VECTOR_EMBED_BASE_URL": "ftp://x"}, "base_url must be an address"),
    "a heartbeat file": (
        {"VECTOR_EMBED_HEARTBEAT_FILE": "/proc/none"},
        "VECTOR_EMBED_HEARTBEAT_FILE: cannot write",
    ),
    "a log format": ({"VECTOR_EMBED_LOG_FORMAT": "xml"}, "must be text or json"),
}


@pytest.mark.parametrize(("environ", "line"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    shell: Shell, environ: dict[str, str], line: str
) -> None:
    shell.environ.update({"VECTOR_EMBED_API_KEY": API_KEY, **environ})
    ended = shell("vec", "worker")
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == "" and ended.stderr.count("\n") == 1
    assert line in ended.stderr
