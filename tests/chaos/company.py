"""A whole company on one fleet, with kills: `python -m tests.chaos.company --minutes 5`.

Producers enqueue single texts for many tenants, a collection each, and ask some receipts;
`vec-enqueue --priority bulk` brings a bulk load; once a second a person asks for the vector of a
query, and another enqueues an interactive text into the bulk's collection and waits for it. The
workers have three keys with different limits; with `--earlier`, the first is of an earlier version,
which knows one key alone. At first nothing is killed: a bare client asks the
API beside them, and the memory of the workers must stay flat. Then workers, producers, the bulk's
command and Redis are killed, and Redis stands still at times. At last all is worked off, and each
collection must have exactly the latest text of each id, with the vector of that text; a text is
dead only if the API refuses it, and its letter names no other tenant; each ledger must balance, and
each receipt was right. The exit code is 0 only then.

    python -m tests.chaos.company --tenants 200 --threads 50 --bulk 2000000 --calm 5 --minutes 30
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import redis
from earlier import unpack
from faulty_api.vectors import Hashed
from servers import API, WorkerProcess

from vector_embed_client import Client, VectorEmbedError
from worker import Collection, NotSent, RedisAway, ThrottledClient, enqueue
from worker.local.child import Child
from worker.settings import Settings

from .conduct import conduct
from .machines import Redis, command, environment, resident_megabytes
from .proof import balances
from .tenants import POISON, WRONG, last_texts, tenant_name

KEYS = {  # with the limit of each
    "vec_window": {"limiter": "window", "rate": 60, "per": 5.0},
    "vec_bucket": {"limiter": "bucket", "rate": 10, "per": 1.0},
    "vec_free": {"limiter": "window", "rate": 1000, "per": 1.0},
}
ROOT = Path(__file__).parents[2]
BARE = "vec_bare"  # of a client beside the fleet, without limits
BULK = "bulk"
FROZEN = 3.0  # seconds
_TOLD = 10
_LATENCY = 0.1  # of the API


class Person:
    """Asks for the vector of a text once a second; `took`: seconds until each was there."""

    def __init__(self, what: str, ask: Callable[[str], Sequence[float]], engine: Hashed) -> None:
        self.took: list[float] = []
        self.calm = 0  # of these, before anything was killed
        self.unanswered: Counter[str] = Counter()  # by the name of the error
        self.wrong = 0
        self._what = what
        self._ask = ask
        self._engine = engine
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join(60)

    def __str__(self) -> str:
        calm, rest = self.took[: self.calm], self.took[self.calm :]
        told = f"in calm {_times(calm)}, then {_times(rest)}"
        missed = ", ".join(f"{often} {name}" for name, often in self.unanswered.items())
        return f"{len(self.took):,} {self._what}, {told}, unanswered: {missed or 0}"

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(1.0):
            number += 1
            text, begun = f"what was number {number} of the {self._what}?", time.monotonic()
            try:
                vector = self._ask(text)
            except (
                NotSent,
                VectorEmbedError,
                redis.RedisError,
            ) as error:  # Redis is killed just now
                self.unanswered[type(error).__name__] += 1
                continue
            self.took.append(time.monotonic() - begun)
            self.wrong += list(vector) != self._engine.numbers(self._engine.pack([text])[0])


def _times(took: Sequence[float]) -> str:
    if not took:
        return "none"
    p99 = sorted(took)[int(len(took) * 0.99)]
    return f"median {statistics.median(took):.2f} s, p99 {p99:.2f} s"


class Company:
    """One run. `run()` once, `close()` always."""

    def __init__(self, directory: Path, asked: argparse.Namespace) -> None:
        self.faults: list[str] = []
        self.kills: Counter[str] = Counter()
        self._directory = directory
        self._asked = asked
        self._chance = random.Random(asked.seed)
        self._engine = Hashed(asked.dimensions)
        self._redis = Redis(directory / "redis")
        self._api = API(directory / "api.log", "--dimensions", str(asked.dimensions))
        rules = [{"answer": "unnamed", "marker": POISON}]
        self._api.faults(latency=_LATENCY, rules=rules, limits=KEYS, keys=[*KEYS, BARE])
        self._keys = directory / "keys"
        self._keys.touch(0o600)
        self._keys.write_text("".join(f"{key}\n" for key in KEYS))
        self._settings = Settings(
            redis_url=self._redis.url,
            broker_url=self._redis.url,
            keys_file=str(self._keys),
            base_url=self._api.base_url,
        )
        self._env = environment(self._redis.url)
        self._started = 0
        self._journals: list[Path] = []
        earlier = unpack(asked.earlier, directory) if asked.earlier else None
        self._versions = [earlier, *[None] * (asked.workers - 1)]  # where their code is
        self._workers = list(map(self._worker, self._versions))
        self._corpus = self._write_corpus()
        self._bulk = self._enqueue_bulk()
        self._producers = [self._producer() for _ in range(asked.producers)]
        client = ThrottledClient(self._settings, patience=30)
        self._bare = Client(BARE, self._api.base_url)
        self._urgent: dict[str, str] = {}  # texts by id
        self._persons = [
            Person("queries", lambda text: client.embed(text).vector, self._engine),
            Person("interactive texts", self._enqueue_urgent, self._engine),
            Person("bare requests", lambda text: self._bare.embed(text).vector, self._engine),
        ]
        self._memory = ""

    def run(self) -> None:
        """Let them work and die, then compare; prints a line that says what there was."""
        self._stay_calm()
        breaks = [self._kill_worker, self._kill_producer, self._kill_bulk, self._kill_redis]
        breaks.append(self._freeze_redis)
        end = time.monotonic() + 60 * self._asked.minutes
        while time.monotonic() < end:
            time.sleep(self._chance.expovariate(1 / self._asked.pause))
            self._chance.choice(breaks)()
        for producer in self._producers:
            producer.stop(60)
        self._finish()
        for person in self._persons:
            person.end()
        tenants = last_texts(self._journals)
        for name in map(tenant_name, range(self._asked.tenants)):
            self._compare(name, tenants.get(name, {}))
        may_be: dict[str, set[str | None]] = {id: {text} for id, text in self._bulk_texts()}
        may_be |= {id: {text, None} for id, text in self._urgent.items()}
        self._compare(BULK, may_be)
        for person in self._persons:
            if person.wrong or not person.took:
                self._complain(f"{person.wrong} vectors were of another text: {person}")
        for log in self._directory.glob("producer-*.log"):
            for line in log.read_text().splitlines():
                if WRONG in line:
                    self._complain(f"{log.name}: {line}")
        print(self._line(sum(map(len, tenants.values()))), flush=True)

    def close(self) -> None:
        """End every process."""
        for child in (*self._producers, self._bulk):
            child.kill()
        for person in self._persons:
            person.end()
        self._bare.close()
        for worker in self._workers:
            worker.stop(20)
        self._api.stop()
        self._redis.stop()

    def _stay_calm(self) -> None:
        """Kill nothing for a while; the workers' memory is the same then."""
        calm = 60 * self._asked.calm
        time.sleep(calm / 4)  # they have what they need
        before = self._megabytes()
        time.sleep(calm * 3 / 4)
        after = self._megabytes()
        self._memory = f"a worker's memory {before:.0f} MB, then {after:.0f} MB"
        if after > 1.1 * before:
            self._complain(f"it grew: {self._memory}")
        for person in self._persons:
            person.calm = len(person.took)

    def _megabytes(self) -> float:
        return max(resident_megabytes(worker.pid) for worker in self._workers)

    # What dies

    def _kill_worker(self) -> None:
        self.kills["workers"] += 1
        self._workers.pop(0).kill()
        self._versions.append(self._versions.pop(0))
        self._workers.append(self._worker(self._versions[-1]))

    def _kill_producer(self) -> None:
        self.kills["producers"] += 1
        self._producers.pop(0).kill()
        self._producers.append(self._producer())

    def _kill_bulk(self) -> None:
        if self._bulk.running:
            self.kills["bulk"] += 1
            self._bulk.kill()
            self._bulk = self._enqueue_bulk()

    def _kill_redis(self) -> None:
        self.kills["Redis"] += 1
        self._redis.restart()

    def _freeze_redis(self) -> None:
        self.kills["Redis frozen"] += 1
        self._redis.freeze()
        time.sleep(FROZEN)
        self._redis.thaw()

    # What works

    def _worker(self, version: Path | None) -> WorkerProcess:
        environ = {
            "VECTOR_EMBED_KEYS_FILE": str(self._keys),
            "VECTOR_EMBED_BASE_URL": self._api.base_url,
            "VECTOR_EMBED_REDIS_URL": self._redis.url,
        }
        if version is not None:
            path = os.pathsep.join([str(version), os.environ.get("PYTHONPATH", "")])
            environ |= {"VECTOR_EMBED_API_KEY": next(iter(KEYS)), "PYTHONPATH": path}
            del environ["VECTOR_EMBED_KEYS_FILE"]
        return WorkerProcess(self._directory / f"worker-{self._number()}", environ, concurrency=8)

    def _producer(self) -> Child:
        number = self._number()
        journal = self._directory / f"producer-{number}.journal"
        journal.touch()  # it may be killed before it begins
        self._journals.append(journal)
        words = [sys.executable, "-m", "tests.chaos.tenants", str(journal), f"p{number}"]
        words += ["--tenants", str(self._asked.tenants), "--pause", str(self._asked.every)]
        words += ["--threads", str(self._asked.threads // self._asked.producers)]
        log = journal.with_suffix(".log")
        return Child("a producer", words, log, env=self._env, cwd=ROOT)

    def _enqueue_bulk(self) -> Child:
        log = self._directory / f"bulk-{self._number()}.log"
        words = command(
            "vec-enqueue", str(self._corpus), "--collection", BULK, "--priority", "bulk"
        )
        return Child("vec-enqueue", words, log, env=self._env, cwd=self._directory)

    def _enqueue_urgent(self, text: str) -> Sequence[float]:
        """The vector of an interactive text, when it is there."""
        id = f"urgent-{len(self._urgent)}"
        self._urgent[id] = text
        receipt = enqueue(
            [(id, text)], BULK, priority="interactive", timeout=30, settings=self._settings
        )
        status = receipt.wait(60)
        record = self._collection(BULK).get(id)
        if record is None or status.embedded != 1:
            raise RedisAway(BULK, f"{status}", None)
        return list(record.vector)

    def _number(self) -> int:
        self._started += 1
        return self._started

    def _bulk_texts(self) -> Iterator[tuple[str, str]]:
        for number in range(self._asked.bulk):
            yield f"{number}", f"row {number} of the bulk"

    def _write_corpus(self) -> Path:
        path = self._directory / "bulk.jsonl"
        with path.open("w") as file:
            for id, text in self._bulk_texts():
                file.write(json.dumps({"id": id, "text": text}) + "\n")
        return path

    # What is true in the end

    def _finish(self) -> None:
        """Wait until the bulk is enqueued and nothing is left to do."""
        names = [BULK, *map(tenant_name, range(self._asked.tenants))]
        end = time.monotonic() + self._asked.patience
        while self._bulk.running or any(map(self._backlog, names)):
            if time.monotonic() > end:
                left = {name: left for name in names if (left := self._backlog(name))}
                self._complain(f"not done in {self._asked.patience} s: {left}")
                return
            time.sleep(1)
        if "with status 0" not in self._bulk.ended():
            self._complain(self._bulk.ended())

    def _backlog(self, name: str) -> int:
        return self._collection(name).status().backlog

    def _collection(self, name: str) -> Collection:
        return Collection(name, settings=self._settings)

    def _compare(self, name: str, may_be: dict[str, set[str | None]]) -> None:
        """A collection has what it may have, and nothing else."""
        if not may_be:
            return
        collection = self._collection(name)
        status = collection.status()
        if not balances(status) or status.backlog:
            self._complain(f"{name}: the ledger at the end: {status}")
        texts = {id: {text for text in some if text is not None} for id, some in may_be.items()}
        optional = {id for id, some in may_be.items() if None in some}
        seen = Counter(letter.id for letter in collection.dead())
        for letter in collection.dead():
            if letter.text not in texts.get(letter.id, ()) or POISON not in letter.text:
                self._complain(f"{name}: dead, and should not be: {letter}")
            if others := [word for word in letter.reason.split() if word.startswith("tenant-")]:
                self._complain(f"{name}: a letter of {letter.id} names {others}")
        for record in collection:
            seen[record.id] += 1
            good = [text for text in texts.get(record.id, ()) if POISON not in text]
            if record.tobytes() not in map(self._vector, good):
                self._complain(f"{name}: {record.id} has the vector of none of {good}")
        if doubled := [id for id, often in seen.items() if often > 1]:
            self._complain(f"{name}: twice: {doubled[:_TOLD]}")
        if missing := texts.keys() - optional - seen.keys():
            self._complain(f"{name}: {len(missing)} missing, such as {sorted(missing)[:_TOLD]}")
        if status.enqueued != len(seen):
            self._complain(f"{name}: {len(seen)} found, the ledger says {status}")

    def _vector(self, text: str) -> bytes:
        return array("f", self._engine.numbers(self._engine.pack([text])[0])).tobytes()

    def _complain(self, fault: str) -> None:
        if len(self.faults) < _TOLD:
            self.faults.append(fault)

    def _line(self, ids: int) -> str:
        log = self._api.log()
        killed = ", ".join(f"{what} {often}" for what, often in sorted(self.kills.items()))
        return (
            f"{ids:,} ids of {self._asked.tenants} tenants, {self._asked.bulk:,} of the bulk; "
            f"{log.requests:,} requests, {log.texts:,} texts sent, {log.charged:,} charged; "
            f"{'; '.join(map(str, self._persons))}; {self._memory}; killed: {killed}"
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.company", description=__doc__)
    number: Callable[[str], float] = float
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--producers", type=int, default=2, help="processes of single texts")
    parser.add_argument("--threads", type=int, default=50, help="of all producers together")
    parser.add_argument("--every", type=number, default=1.0, help="seconds between two texts")
    parser.add_argument("--bulk", type=int, default=20_000, help="texts of the bulk load")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--earlier", help="the commit of the first worker's version")
    parser.add_argument("--calm", type=number, default=0.5, help="minutes without kills, first")
    parser.add_argument("--minutes", type=number, default=1.0)
    parser.add_argument("--pause", type=number, default=5.0, help="seconds between two kills")
    parser.add_argument("--patience", type=number, default=3600, help="seconds for what is left")
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=None, help="where there is room")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(conduct("company", Company, parse()))
