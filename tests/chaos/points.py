"""Something goes wrong at one chosen point in the life of a batch.

`python -m tests.chaos.points` is a process that has imported the worker and forks a child for each
errand it reads from standard input, a line of JSON. A child works as a slice of a worker does, or a
producer, `vec retry` or `vec delete`. It counts its points: before each request that it sends to
Redis or to the API, and after each answer (with `lines`, each line of ours that it runs). At the
point it was told of it kills itself (SIGKILL), stops (SIGSTOP), or loses its line, and with it the
request or the answer.

`Points` is the other end: it sends a child on an errand, and learns how that ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_SLOW = ("worker.tasks", "kombu.transport.redis", "celery.app.task", "celery.app.amqp", "numpy")

KILL, FREEZE, CUT, NOTHING = "kill", "freeze", "cut", "nothing"


class Errand(NamedTuple):
    """What a child does, and what happens to it at its point number `at`."""

    work: str  # drain, add (as a producer does, in its own thread), chunk, retry, delete, prune,
    # export (to a folder, and evict), files (as vec-enqueue does), or shrink (as vec shrink does)
    what: str = NOTHING
    at: int = 0
    lines: bool = False
    texts: Mapping[str, str] = {}  # to be added
    token: str = ""  # of the wake-up that sends it to drain; the folder of an export or of files
    words: Sequence[str] = ()  # of the command; the collection that is drained, if not wiki


class End(NamedTuple):
    """How a child ended: the points it passed, or None where it could not say; the signal that
    ended or stopped it; what it raised.
    """

    points: int | None
    signal: int = 0
    error: str = ""
    pid: int = 0  # of one that is stopped, and waits to go on


class Points:
    """The process that forks. It is ready when this returns."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "points.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.points"],
                cwd=Path(__file__).parents[2],
                env={**os.environ, **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def run(self, errand: Errand) -> End:
        """Send a child on an errand, until it ends or stops."""
        return self._ask({"errand": errand._asdict()})

    def go_on(self, end: End) -> End:
        """Let one that stopped go on."""
        return self._ask({"go_on": end.pid})

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)

    def _ask(self, question: Mapping[str, object]) -> End:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()[-3000:]
        return End(**json.loads(answer))


class _Counter:
    """Counts the points of the thread that made it; at one of them something happens."""

    def __init__(self, errand: Errand) -> None:
        self.points = 0
        self._errand = errand
        self._thread = threading.get_ident()

    def passes(self) -> bool:
        """Take note of a point; whether its line is lost there."""
        if threading.get_ident() != self._thread:
            return False
        self.points += 1
        if self.points != self._errand.at:
            return False
        if self._errand.what == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._errand.what == FREEZE:
            os.kill(os.getpid(), signal.SIGSTOP)
        return self._errand.what == CUT


def _watch_requests(counter: _Counter) -> None:
    import httpx
    from redis import exceptions
    from redis.connection import AbstractConnection

    send: Any = AbstractConnection.send_packed_command
    read: Any = AbstractConnection.read_response
    handle = httpx.HTTPTransport.handle_request

    def send_packed_command(self: Any, *args: Any, **options: Any) -> Any:
        if counter.passes():
            self.disconnect()
            raise exceptions.ConnectionError("the line is cut before the request")
        return send(self, *args, **options)

    def read_response(self: Any, *args: Any, **options: Any) -> Any:
        answer = read(self, *args, **options)
        if counter.passes():
            self.disconnect()
            raise exceptions.ConnectionError("the line is cut before the answer")
        return answer

    def handle_request(self: Any, request: httpx.Request) -> httpx.Response:
        if counter.passes():
            raise httpx.ConnectError("the line is cut before the request")
        response = handle(self, request)
        response.read()
        if counter.passes():
            raise httpx.ReadError("the line is cut before the answer")
        return response

    for owner, replacement in (
        (AbstractConnection, send_packed_command),
        (AbstractConnection, read_response),
        (httpx.HTTPTransport, handle_request),
    ):
        setattr(owner, replacement.__name__, replacement)


def _watch_lines(counter: _Counter) -> None:
    ours = str(Path(__file__).parents[2] / "worker")

    def line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            counter.passes()
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        return line if frame.f_code.co_filename.startswith(ours) else None

    sys.settrace(call)


def _child(errand: Errand, tell: int) -> None:
    from worker import Collection, Job, enqueue, producer
    from worker.celery import settings
    from worker.cli import vec, vec_enqueue
    from worker.engine.heartbeat import heartbeat
    from worker.export.folder import Folder
    from worker.export.follow import Options, SinkExport
    from worker.export.sink import Rotation
    from worker.export.surplus import Surplus
    from worker.producer import source
    from worker.store import shrinking
    from worker.store.adder import Adder
    from worker.store.connection import connect
    from worker.store.keys import CollectionKeys
    from worker.tasks import drain

    def add() -> None:
        producer.FEW = 0  # type: ignore[attr-defined]  # as of many texts, in this thread
        source.CHUNK_SIZE = 3  # type: ignore[attr-defined]
        enqueue(errand.texts.items(), "wiki", settings=settings)

    def files() -> None:
        source.CHUNK_SIZE = 3  # type: ignore[attr-defined]
        os.chdir(errand.token)
        with suppress(SystemExit):
            vec_enqueue.main(["docs", "--collection", "wiki", *errand.words])

    def shrink() -> None:
        shrinking.LOOK_SIZE, shrinking.PAGE_SIZE = 40, 7
        with suppress(SystemExit):
            vec.main(["shrink", *errand.words])

    def prune() -> None:
        surplus = Surplus(connect(settings), CollectionKeys(settings.prefix, "wiki"))
        list(surplus.watch([Job(*text) for text in errand.texts.items()]))
        list(surplus.remove(surplus.find()))

    def export() -> None:
        folder = Folder(errand.token, "wiki", rotation=Rotation(2))
        options = Options(evict=True)
        list(SinkExport(folder, settings, options, tell=lambda read: None).run())

    work: Mapping[str, Callable[[], object]] = {
        "drain": lambda: drain.run(*(errand.words or ["wiki"]), errand.token),
        "add": add,
        "chunk": lambda: Adder(
            connect(settings), CollectionKeys(settings.prefix, "wiki"), settings.model
        ).add([Job(*text) for text in errand.texts.items()]),
        "retry": lambda: Collection("wiki", settings=settings).retry(),
        "prune": prune,
        "export": export,
        "files": files,
        "shrink": shrink,
        "delete": lambda: Collection("wiki", settings=settings).delete(errand.texts),
    }
    counter = _Counter(errand)
    error = ""
    if errand.lines:
        _watch_lines(counter)
    else:
        _watch_requests(counter)
    try:
        work[errand.work]()
        sys.settrace(None)
        if errand.work == "drain":
            heartbeat(settings).end()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    os.write(tell, json.dumps({"points": counter.points, "error": error}).encode())


def _serve() -> None:
    from worker.engine import process

    for name in _SLOW:  # a child would need long to import them
        with suppress(ImportError):
            importlib.import_module(name)
    process.GRACE_SECONDS = 0  # a child that has just been born may take over from a dead one
    pipes: dict[int, int] = {}

    def wait(pid: int) -> End:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return End(None, signal=os.WSTOPSIG(status), pid=pid)
        said = os.read(pipes[pid], 10_000)
        os.close(pipes.pop(pid))
        if os.WIFSIGNALED(status):
            return End(None, signal=os.WTERMSIG(status))
        return End(**json.loads(said)) if said else End(None, error=f"exit {status}")

    for line in sys.stdin:
        question = json.loads(line)
        if "go_on" in question:
            pid = question["go_on"]
            os.kill(pid, signal.SIGCONT)
        else:
            mine, its = os.pipe()
            pid = os.fork()
            if not pid:
                try:
                    sys.stdin.close()
                    os.dup2(2, 1)
                    _child(Errand(**question["errand"]), its)
                finally:
                    os._exit(0)
            os.close(its)
            pipes[pid] = mine
        print(json.dumps(wait(pid)._asdict()), flush=True)


if __name__ == "__main__":
    _serve()
