"""Random chaos: a fleet at work, and a seeded hand that breaks its parts one after the other.

The seed decides what happens, in which order, with which pauses between; when exactly in the life
of a batch it happens is the machine's own chance. In the end everything heals, the backlog drains,
and `proof` looks at every text.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import redis
from servers import API, API_KEY, TcpProxy, WorkerProcess

from worker import Collection, Status
from worker.local.child import Child
from worker.settings import Settings

from .editions import POISON_RULES, Editions
from .machines import Redis, command, environment, run
from .proof import Auditor, final_faults

NAME = "chaos"
DRAIN_SECONDS = 240.0  # at the end, for what is left
MAX_ACTIONS = 10_000
# What Celery says when it cannot acknowledge is its own, and no harm; these would be our faults.
_BROKEN = ("raised unexpected", "Unrecoverable error", "Exception in thread")
_REPLIES = [b"EVALSHA", b"EVALSHA", b"EVALSHA", b"INFO", b"TIME", b"HGET", b"BRPOP", b"LPUSH"]


class Outcome(NamedTuple):
    """What a run came to. `faults` is empty when every promise was kept."""

    texts: int
    editions: int
    seconds: float
    events: Counter[str]
    readings: int
    vectors: int
    charged: int
    dead: int
    faults: list[str]

    @property
    def line(self) -> str:
        """All of it in one line."""
        events = ", ".join(f"{count} {what}" for what, count in sorted(self.events.items()))
        verdict = "PASS" if not self.faults else f"FAIL ({len(self.faults)} faults)"
        return (
            f"{verdict}: {self.texts:,} texts in {self.editions} editions, {self.dead} dead, "
            f"{self.seconds:.0f} s; ledger read {self.readings:,} times, "
            f"{self.vectors:,} vectors compared on the way; {self.charged:,} texts charged; "
            f"{events}"
        )


class Place:
    """A place in the fleet: a worker process, or the next one on its way."""

    def __init__(self, directory: Path, environ: dict[str, str], starter: ThreadPoolExecutor):
        self._directory = directory
        self._environ = environ
        self._starter = starter
        self._count = 0
        self._coming: Future[WorkerProcess]
        self.begin()

    def begin(self) -> None:
        """Start a worker process here; the last one is gone."""
        self._count += 1
        directory = self._directory / str(self._count)
        self._coming = self._starter.submit(WorkerProcess, directory, self._environ, concurrency=8)

    @property
    def worker(self) -> WorkerProcess | None:
        """The process, once it is ready. Raises what kept it from starting."""
        return self._coming.result() if self._coming.done() else None

    def wait(self, timeout: float) -> WorkerProcess:
        """The process, as soon as it is ready."""
        return self._coming.result(timeout)

    def end(self) -> None:
        """End it, whatever state it is in."""
        try:
            worker = self._coming.result(70)
        except Exception:
            return  # it never started: nothing is left of it
        worker.thaw()
        worker.stop(20)


class Chaos:
    """One run. `run()` once."""

    def __init__(self, directory: Path, *, texts: int, minutes: float, seed: int, workers: int):
        self._chance = random.Random(seed)
        self._minutes = minutes
        self._directory = directory
        self.events: Counter[str] = Counter()
        self._faults: list[str] = []
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._editions = Editions(random.Random(seed + 1), texts, directory)
        self._starter = ThreadPoolExecutor(workers)
        self._redis = Redis(directory / "redis")
        self._api = API(directory / "api.log")
        self._worker_line = TcpProxy(self._redis.url)
        self._producer_line = TcpProxy(self._redis.url)
        self._settings = Settings(redis_url=self._redis.url, broker_url=self._redis.url)
        self._collection = Collection(NAME, settings=self._settings)
        self._producer: Child | None = None
        self._commands: list[Child] = []
        self._well()
        environ = {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_BASE_URL": self._api.base_url,
            "VECTOR_EMBED_REDIS_URL": self._worker_line.url,
            "VECTOR_EMBED_TIMEOUT": "4",
            "VECTOR_EMBED_SLICE_SECONDS": "4",
        }
        self._places = [
            Place(directory / f"worker-{number}", environ, self._starter)
            for number in range(workers)
        ]
        self._auditor = Auditor(self._collection, self._editions, random.Random(seed + 2))

    def run(self) -> Outcome:
        """Break things for so many minutes, heal them, and prove that nothing was lost."""
        began = time.monotonic()
        try:
            self._break_things(began + 60 * self._minutes)
            self._heal()
            self._drain()
            self._check()
        except Exception as error:  # the run ends, its finding stays
            self._faults.append(f"{type(error).__name__}: {error}")
        finally:
            self._auditor.end()
        charged = self._api.log().charged
        try:
            dead = self._collection.status().dead
        except redis.RedisError:
            dead = -1
        return Outcome(
            texts=len(self._editions.texts),
            editions=self._editions.number + 1,
            seconds=time.monotonic() - began,
            events=self.events,
            readings=self._auditor.readings,
            vectors=self._auditor.vectors,
            charged=charged,
            dead=dead,
            faults=self._faults + self._auditor.faults,
        )

    def close(self) -> None:
        """End every process."""
        if self._producer is not None:
            self._producer.send(signal.SIGCONT)
            self._producer.kill()
        for child in self._commands:
            child.kill()
        self._redis.thaw()
        for place in self._places:
            place.end()
        self._starter.shutdown()
        self._worker_line.close()
        self._producer_line.close()
        self._api.stop()
        self._redis.stop()

    # What happens

    def _break_things(self, end: float) -> None:
        actions: list[tuple[Callable[[], object], int]] = [
            (self._change_api, 32),
            (self._kill_worker, 12),
            (self._stop_worker, 4),
            (self._freeze_worker, 8),
            (self._kill_producer, 12),
            (self._freeze_producer, 4),
            (self._restart_redis, 4),
            (self._freeze_redis, 4),
            (self._cut_reply, 32),
            (self._refuse_lines, 4),
            (self._lose_wakeups, 4),
            (self._flush_redis, 1),
            (self._retry, 4),
        ]
        functions, weights = zip(*actions)
        for _ in range(MAX_ACTIONS):
            pause = time.monotonic() + self._chance.expovariate(1.0)
            while time.monotonic() < min(pause, end):
                self._tend()
                time.sleep(0.05)
            if time.monotonic() >= end:
                return
            self._chance.choices(functions, weights)[0]()

    def _tend(self) -> None:
        """What has become due; and a producer that has ended is followed by another."""
        now = time.monotonic()
        due = [task for moment, task in self._later if moment <= now]
        self._later = [one for one in self._later if one[0] > now]
        for task in due:
            task()
        for place in self._places:
            worker = place.worker
            if worker is not None and not worker.child.running:
                raise AssertionError(f"a worker left by itself: {worker.child.tail()}")
        producer = self._producer
        if producer is None or not producer.running:
            if producer is not None:
                producer.kill()
                self._producer_ended(producer)
            self._begin_producer(self._producer_line.url)

    def _producer_ended(self, producer: Child) -> None:
        log = producer.log.read_text(errors="replace")
        if "Traceback" in log:
            raise AssertionError(f"the producer broke: {log[-3000:]}")
        if "queued" in log or "unchanged" in log:
            # What is left of the old edition may still be in flight: the last text has to win.
            self._editions.next()

    def _begin_producer(self, url: str) -> None:
        words = command("vec-enqueue", str(self._editions.path), "--collection", NAME)
        self._producer = Child(
            "the producer",
            [*words, "--id-field", "id", "--keep-text"],
            self._directory / "producer.log",
            env=environment(url),
            cwd=self._directory,
        )

    def _happened(self, what: str) -> None:
        self.events[what] += 1

    def _after(self, seconds: float, task: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, task))

    # The API

    def _set(self, *rules: dict[str, object], **faults: object) -> None:
        # The first rule that matches has the request: what is in front of the API comes first.
        self._api.faults(rules=[*rules, *POISON_RULES], **faults)

    def _well(self) -> None:
        self._set(latency=0.02, jitter=0.1)

    def _change_api(self) -> None:
        chance = self._chance
        forms = ["1", "1.5", "+2", ""]
        kind = chance.choice(["well", "429", "rate", "5xx", "bad", "lines", "down", "account"])
        latency = chance.choice([0.0, 0.05, 0.3])
        seconds = chance.uniform(2, 8)
        share = chance.uniform(0.05, 0.25)
        if kind == "429":
            rule = {"answer": "slow_down", "retry_after": chance.choice(forms)}
            self._set({**rule, "probability": share}, latency=latency)
        elif kind == "rate":
            form = chance.choice(["seconds", "fraction", "date", "none"])
            limiter = chance.choice(["window", "bucket"])
            self._set(rate=chance.randint(2, 20), retry_after=form, limiter=limiter)
        elif kind == "5xx":
            answers = chance.sample(["error", "gateway", "unavailable", "request_timeout"], 2)
            self._set(*[{"answer": one, "probability": share / 2} for one in answers])
        elif kind == "bad":
            wrong = ["truncate", "garbage", "short", "long", "dimension", "nan", "infinity", "zero"]
            answers = [*chance.sample(wrong, 3), "rows", "drip"]
            self._set(*[{"answer": one, "probability": share / 3} for one in answers])
        elif kind == "lines":
            answers = ["reset", "lost", "hang"]
            rules = [{"answer": one, "probability": share / 3, "seconds": 6.0} for one in answers]
            self._set(*rules, latency=latency)
        elif kind == "down":
            answer = chance.choice(["reset", "unavailable", "error", "gateway", "hang", "garbage"])
            self._set({"answer": answer, "seconds": 6.0})
        elif kind == "account":
            self._set({"answer": chance.choice(["revoked", "forbidden", "account"])})
        else:
            self._set(latency=latency, jitter=latency)
        self._happened(f"API {kind}")
        if kind in ("down", "account"):
            self._after(seconds, self._well)
        if kind in ("429", "rate", "down", "account"):
            self._after(seconds + 0.5, self._resume)

    def _resume(self) -> None:
        # A process of its own would hold everything else up.
        self._start_command("vec", "resume")

    def _retry(self) -> None:
        self._start_command("vec", "retry", NAME)
        self._happened("retries of all dead")

    def _start_command(self, *words: str) -> None:
        name, *arguments = words
        log = self._directory / f"command-{time.monotonic_ns()}.log"
        child = Child(
            name,
            command(name, *arguments),
            log,
            env=environment(self._redis.url),
            cwd=self._directory,
        )

        self._commands.append(child)

        def ended() -> None:
            if child.running:
                self._after(0.5, ended)
                return
            child.kill()
            self._commands.remove(child)
            if "Traceback" in log.read_text(errors="replace"):
                raise AssertionError(f"vec {words[1]} broke: {child.tail()}")
            log.unlink()

        self._after(1.0, ended)

    # Processes

    def _ready_worker(self) -> tuple[Place, WorkerProcess] | None:
        place = self._chance.choice(self._places)
        worker = place.worker
        return None if worker is None else (place, worker)

    def _kill_worker(self) -> None:
        if found := self._ready_worker():
            place, worker = found
            worker.kill()
            place.begin()
            self._happened("workers killed")

    def _stop_worker(self) -> None:
        if found := self._ready_worker():
            place, worker = found
            worker.thaw()
            worker.stop(30)
            place.begin()
            self._happened("workers stopped")

    def _freeze_worker(self) -> None:
        seconds = self._chance.choice([1, 5, 17, 20])
        if found := self._ready_worker():
            worker = found[1]
            worker.freeze()
            self._after(seconds, worker.thaw)
            self._happened("workers frozen")

    def _kill_producer(self) -> None:
        if self._producer is not None and self._producer.running:
            self._producer.kill()
            self._begin_producer(self._producer_line.url)
            self._happened("producers killed")

    def _freeze_producer(self) -> None:
        producer = self._producer
        if producer is not None and producer.running:
            producer.send(signal.SIGSTOP)
            self._after(self._chance.uniform(0.5, 4), lambda: producer.send(signal.SIGCONT))
            self._happened("producers frozen")

    def _restart_redis(self) -> None:
        kill = self._chance.random() < 0.7
        self._redis.thaw()
        self._redis.restart(kill=kill)
        self._happened("Redis killed" if kill else "Redis restarted")

    def _freeze_redis(self) -> None:
        self._redis.freeze()
        self._after(self._chance.uniform(0.5, 3), self._redis.thaw)
        self._happened("Redis frozen")

    # Lines

    def _cut_reply(self) -> None:
        line = self._chance.choice([self._worker_line, self._worker_line, self._producer_line])
        line.cut_next_reply(self._chance.choice([0, 0, 1, 7]), to=self._chance.choice(_REPLIES))
        self._happened("cuts ordered")

    def _refuse_lines(self) -> None:
        line = self._chance.choice([self._worker_line, self._producer_line])
        line.refuse()
        self._after(self._chance.uniform(0.2, 3), lambda: line.refuse(False))
        self._happened("lines refused")

    def _lose_wakeups(self) -> None:
        with self._redis.client() as client:
            try:
                client.delete(self._settings.queue)
            except redis.RedisError:
                return  # frozen at the moment
        self._happened("wake-ups deleted")

    def _flush_redis(self) -> None:
        with self._redis.client() as client:
            try:
                client.flushall()
            except redis.RedisError:
                return  # frozen at the moment
        self._happened("Redis emptied")

    # The end

    def _heal(self) -> None:
        self._later = []
        self._redis.thaw()
        self._worker_line.refuse(False)
        self._producer_line.refuse(False)
        self._well()
        for place in self._places:
            place.wait(70).thaw()
        if self._producer is not None:
            self._producer.send(signal.SIGCONT)
            self._producer.kill()
            self._producer = None
        env = environment(self._redis.url)
        run(env, self._directory, "vec", "resume")
        words = [str(self._editions.path), "--collection", NAME, "--id-field", "id", "--keep-text"]
        done = run(env, self._directory, "vec-enqueue", *words, timeout=300)
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:
            raise AssertionError(f"the last vec-enqueue: {done.stdout}{done.stderr}")

    def _drain(self) -> None:
        end = time.monotonic() + DRAIN_SECONDS
        status: Status = self._collection.status()
        while status.backlog:
            if time.monotonic() > end:
                raise AssertionError(f"still to be done after {DRAIN_SECONDS:.0f} s: {status}")
            time.sleep(0.2)
            status = self._collection.status()
        for place in self._places:
            worker = place.wait(70)
            if not worker.child.running:
                raise AssertionError(f"a worker left by itself: {worker.child.tail()}")

    def _check(self) -> None:
        self.events["cuts"] = self._worker_line.cuts + self._producer_line.cuts
        del self.events["cuts ordered"]
        self._faults += final_faults(self._collection, self._editions)
        env = environment(self._redis.url)
        for path, code, options in (
            (self._editions.write_innocent(), 0, ["--allow-surplus"]),
            (self._editions.path, 1 if self._editions.poison else 0, []),
        ):
            words = [str(path), "--collection", NAME, "--id-field", "id", *options]
            said = run(env, self._directory, "vec", "verify", *words)
            if said.returncode != code:
                self._faults.append(f"vec verify {path.name}: {said.stdout}{said.stderr}")
        for log in self._directory.glob("worker-*/*/worker.log"):
            text = log.read_text(errors="replace")
            for sign in _BROKEN:
                if sign in text:
                    at = text.index(sign)
                    self._faults.append(f"{log}: {text[max(0, at - 200) : at + 4000]}")
