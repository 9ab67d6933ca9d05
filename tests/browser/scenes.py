"""Scenes: what the page may have to show, each made with a real Redis, a real API and real workers.

A scene is a function that brings a `Stage` into a state and returns the paths that show it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
from servers import API, API_KEY, TcpProxy, WorkerProcess, wait_until

from worker import Collection, enqueue
from worker.local.child import Child
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.connection import connect
from worker.throttle.holds import hold
from worker.types import Status

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "'\"&amp;{{7*7}}\u202egnp.exe\u0000\x1b[31m"
)


class Stage:
    """A private Redis behind a proxy, an API, workers, and an exporter with its page."""

    def __init__(self, directory: Path, *, show_text: bool = False) -> None:
        self._directory = directory
        self._exits = ExitStack()
        self._workers: list[WorkerProcess] = []
        try:
            self.redis = RedisServer(directory / "redis")
            self._exits.callback(self.redis.stop)
            self.api = API(directory / "api.log")
            self._exits.callback(self.api.stop)
            self.line = TcpProxy(self.redis.url)
            self._exits.callback(self.line.close)
            self.settings = Settings(redis_url=self.redis.url, broker_url=self.redis.url)
            words = ["exporter", "--port", "0", "--redis-url", self.line.url]
            words += ["--show-text"] if show_text else []
            command = [sys.executable, "-c", "from worker.cli import vec; vec()", *words]
            log = directory / "exporter.log"
            self.exporter = Child("the exporter", command, log)
            self._exits.callback(self.exporter.stop)
            self.url = self.exporter.wait_for(r"the page: (http://\S+/)", 60)[1]
        except BaseException:
            self._exits.close()
            raise

    def close(self) -> None:
        """End all that it started."""
        for worker in self._workers:
            worker.thaw()
            worker.kill()
        self._exits.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def worker(self, **environ: str) -> WorkerProcess:
        """A worker process, ready."""
        place = self._directory / f"worker-{len(self._workers)}"
        its = {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_BASE_URL": self.api.base_url,
            "VECTOR_EMBED_REDIS_URL": self.redis.url,
        }
        self._workers.append(WorkerProcess(place, {**its, **environ}))
        return self._workers[-1]

    def add(self, name: str, texts: int, bad: int = 0) -> Collection:
        """A collection with this many texts, the last of them bad."""
        words = ["poison" if n >= texts - bad else "text" for n in range(texts)]
        jobs = [(f"article-{n:05}", f"{word} {name} {n}") for n, word in enumerate(words)]
        enqueue(jobs, name, settings=self.settings)
        return Collection(name, settings=self.settings)

    def run(self, *words: str) -> str:
        """What `vec` with these words writes."""
        command = [sys.executable, "-c", "from worker.cli import vec; vec()", *words]
        command += ["--redis-url", self.redis.url]
        env = {name: value for name, value in os.environ.items() if "VECTOR_EMBED" not in name}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        return ended.stdout

    def until(self, name: str, is_so: Callable[[Status], bool], timeout: float = 60) -> None:
        """Wait until the status of a collection is so."""
        collection = Collection(name, settings=self.settings)
        wait_until(lambda: is_so(collection.status()), timeout, f"the status of {name}", 0.1)

    def shown(self, text: str, path: str = "", timeout: float = 40) -> str:
        """The page once it has this in its HTML."""

        def found() -> str:
            html = httpx.get(self.url + path, timeout=20).text
            return html if text in html else ""

        return wait_until(found, timeout, f"{text!r} on the page {path!r}", 0.2)


Scene = Callable[[Stage], Sequence[str]]
BAD = {"answer": "named", "marker": "poison"}


def empty(stage: Stage) -> Sequence[str]:
    """The very first start: nothing there."""
    stage.shown("Nothing here yet")
    return [""]


def waiting(stage: Stage) -> Sequence[str]:
    """A backlog without a worker."""
    stage.add("wiki", 1200)
    stage.shown("No worker: ")
    return ["", "collections/wiki"]


def working(stage: Stage) -> Sequence[str]:
    """Several collections in work, some done, some texts dead."""
    stage.api.faults(rules=[BAD], latency=0.4, jitter=0.4)
    stage.worker()
    stage.worker()
    stage.add("products", 4000, bad=7)
    stage.until("products", lambda it: not it.backlog)
    for name, texts in (("wiki", 60_000), ("news-2026", 24_000), ("tickets", 9000)):
        stage.add(name, texts)
    stage.until("wiki", lambda it: it.embedded > 4000)
    stage.shown("Working: ")
    return ["", "collections/wiki", "collections/products"]


def paused(stage: Stage) -> Sequence[str]:
    """Paused by hand in the middle."""
    stage.api.faults(latency=0.3)
    stage.worker()
    stage.add("wiki", 20_000)
    stage.until("wiki", lambda it: it.embedded > 1000)
    hold(connect(stage.settings), "vec", "wiki", "the night's backup")
    stage.shown("Paused: ")
    return ["", "collections/wiki"]


def halted(stage: Stage) -> Sequence[str]:
    """The API refuses the key."""
    stage.worker()
    stage.add("products", 500)
    stage.until("products", lambda it: not it.backlog)
    stage.api.faults(rules=[{"answer": "revoked"}])
    stage.add("wiki", 2500)
    stage.until("wiki", lambda it: it.state == "halted")
    stage.shown("Halted: ")
    return ["", "collections/wiki"]


def starved(stage: Stage) -> Sequence[str]:
    """The quota of the day is used up."""
    stage.api.faults(quota=3000)
    stage.worker()
    stage.add("wiki", 20_000)
    stage.until("wiki", lambda it: it.state == "paused" and it.paused_until is not None)
    stage.shown("Paused: ")
    return ["", "collections/wiki"]


def done(stage: Stage) -> Sequence[str]:
    """All done, none dead."""
    stage.worker()
    stage.add("wiki", 3000)
    stage.until("wiki", lambda it: not it.backlog)
    stage.shown("All done")
    return [""]


def many(stage: Stage) -> Sequence[str]:
    """A thousand collections, most of them done."""
    worker = stage.worker()
    for number in range(1000):
        enqueue([(f"a-{number}", f"text {number}")], f"tenant-{number:04}", settings=stage.settings)

    def left() -> bool:
        last = [f"tenant-{n:04}" for n in (0, 499, 998, 999)]
        return not any(Collection(n, settings=stage.settings).status().backlog for n in last)

    wait_until(left, 120, "all tenants to be done", 0.5)
    worker.stop()
    stage.add("tenant-0500", 40)
    stage.shown("No worker: ")
    return ["", "?from=100"]


def away(stage: Stage) -> Sequence[str]:
    """Redis went away after something was read."""
    stage.worker()
    stage.add("wiki", 3000)
    stage.until("wiki", lambda it: not it.backlog)
    stage.shown("All done")
    stage.line.refuse()
    stage.shown("As it was at")
    return ["", "collections/wiki"]


def dropped(stage: Stage) -> Sequence[str]:
    """A collection that is not there."""
    stage.shown("There is no collection", "collections/wiki")
    return ["collections/wiki"]


def hostile(stage: Stage) -> Sequence[str]:
    """Ids, texts and reasons that try to be more than text."""
    stage.api.faults(rules=[BAD])
    stage.worker()
    ids = [HOSTILE, "x" * 1000, "\u202e" + "left-to-right " * 40, "日本語 العربية עברית " * 20]
    jobs = [(f"{n} {id}"[:300], f"poison {HOSTILE} {n}") for n, id in enumerate(ids)]
    enqueue(jobs, "hostile", settings=stage.settings)
    stage.until("hostile", lambda it: not it.backlog)
    stage.shown("that cannot be embedded")
    return ["", "collections/hostile"]


def mapped(stage: Stage) -> Sequence[str]:
    """The map of a collection, with texts that try to be more, and two that are almost the same."""
    stage.worker()
    jobs = [(f"{n % 7} {HOSTILE}"[: 20 + n], f"text {n // 2 * 2} {HOSTILE}") for n in range(90)]
    enqueue(jobs, "wiki", settings=stage.settings, keep_text=True)
    stage.until("wiki", lambda it: not it.backlog)
    return ["maps/wiki"]


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        empty,
        waiting,
        working,
        paused,
        halted,
        starved,
        done,
        many,
        away,
        dropped,
        hostile,
        mapped,
    )
}
WITH_TEXT = {"hostile", "mapped"}


def staged(name: str, directory: Path) -> Iterator[tuple[Stage, Sequence[str]]]:
    """A stage in this scene, and the paths that show it."""
    with Stage(directory, show_text=name in WITH_TEXT) as stage:
        yield stage, SCENES[name](stage)
