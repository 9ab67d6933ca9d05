"""A worker before a hostile API: `python -m tests.chaos.hostile --minutes 15 --threads 16`.

Half of the answers are picked from a table of all that a stranger could send. A person types
`vec resume` whenever the queue is halted. All the time the worker's memory is read, the ledger, and
vectors beside their texts. Then the API is well; the backlog drains, and every text has its own
vector, none is dead but for an answer that was about it, none is leased, and the worker still ends
within its grace time. The exit code is 0 only then.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from array import array
from collections import Counter
from pathlib import Path

from servers import API_KEY, WorkerProcess

from worker import Collection, Record, Status, enqueue
from worker.local.child import Child
from worker.settings import Settings

from .conduct import conduct
from .hostile_api import _ENGINE
from .machines import Redis, environment, resident_megabytes, run
from .proof import balances

NAME = "hostile"
HEAP = 300.0  # MB that the worker may have resident
REFILL = 2_000  # texts enqueued whenever fewer are left
DRAIN_SECONDS = 180.0
GRACE_SECONDS = 40.0


class Hostile:
    """One run. `run()` once."""

    def __init__(self, directory: Path, asked: argparse.Namespace) -> None:
        self._directory = directory
        self._asked = asked
        self._redis = Redis(directory / "redis")
        words = ["--share", str(asked.share), "--seed", str(asked.seed)]
        command = [sys.executable, "-m", "tests.chaos.hostile_api", *words]
        self._api = Child("the hostile API", command, directory / "api.log")
        url = self._api.wait_for(r"listening on (\S+)\n", 60)[1]
        self._settings = Settings(redis_url=self._redis.url, broker_url=self._redis.url)
        self._collection = Collection(NAME, settings=self._settings)
        environ = {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_BASE_URL": url,
            "VECTOR_EMBED_REDIS_URL": self._redis.url,
            "VECTOR_EMBED_TIMEOUT": "3",
            "VECTOR_EMBED_MAX_IN_FLIGHT": "15",
        }
        self._worker = WorkerProcess(directory / "worker", environ, concurrency=asked.threads)
        self._chance = random.Random(asked.seed)
        self._enqueued = 0
        self.readings = self.vectors = self.resumes = 0
        self.most_megabytes = 0.0
        self.faults: list[str] = []

    def run(self) -> str:
        """Be hostile for so long, then well; a line that says what came out."""
        ends = time.monotonic() + 60 * self._asked.minutes
        while time.monotonic() < ends and not self.faults:
            self._look()
            time.sleep(0.5)
        at_work = self._collection.status()
        self._api.send(signal.SIGUSR1)
        self._drain()
        last = self._collection.status()
        self._check_all(last)
        begun = time.monotonic()
        self._worker.stop(GRACE_SECONDS)
        took = time.monotonic() - begun
        if took >= GRACE_SECONDS:
            self._complain(f"the worker did not end within {GRACE_SECONDS:.0f} s")
        dead = Counter(f"{letter.code}: {letter.reason[:60]}" for letter in self._collection.dead())
        for reason, count in dead.most_common(8):
            print(f"  {count} dead: {reason}")
        self._api.stop(10)
        print(f"  answers: {self._api.tail().splitlines()[-1][:600]}")
        return (
            f"{self._asked.minutes:g} minutes, {self._asked.threads} threads, "
            f"{self._asked.share:.0%} hostile; {at_work.embedded:,} embedded meanwhile, "
            f"{last.embedded:,} in the end, {last.dead} dead; {self.most_megabytes:.0f} MB at "
            f"most; {self.resumes} times resumed; the ledger exact at {self.readings:,} readings; "
            f"{self.vectors:,} vectors compared; ended in {took:.1f} s"
        )

    def close(self) -> None:
        """End every process."""
        self._worker.kill()
        self._api.kill()
        self._redis.stop()

    def _look(self) -> None:
        status = self._collection.status()
        self.readings += 1
        if not balances(status):
            self._complain(f"the ledger does not balance: {status}")
        if status.backlog < REFILL // 2:
            numbers = range(self._enqueued, self._enqueued + REFILL)
            enqueue([(str(n), _text(n)) for n in numbers], NAME, settings=self._settings)
            self._enqueued += REFILL
        if status.state == "halted":
            run(environment(self._redis.url), self._directory, "vec", "resume", NAME)
            self.resumes += 1
        ids = [str(self._chance.randrange(self._enqueued)) for _ in range(20)]
        for record in self._collection.get_many(ids):
            if record is not None:
                self._compare(record)
        self._weigh()

    def _drain(self) -> None:
        ends = time.monotonic() + DRAIN_SECONDS
        while (status := self._collection.status()).backlog:
            if status.state == "halted":
                run(environment(self._redis.url), self._directory, "vec", "resume", NAME)
            self._weigh()
            if time.monotonic() > ends:
                self._complain(
                    f"not drained {DRAIN_SECONDS:.0f} s after the API was well: {status}"
                )
                return
            time.sleep(0.2)

    def _check_all(self, last: Status) -> None:
        if not balances(last) or last.leased:
            self._complain(f"the ledger at the end: {last}")
        stored = 0
        for record in self._collection:
            self._compare(record)
            stored += 1
        if stored + last.dead != self._enqueued:
            self._complain(f"{stored} stored and {last.dead} dead of {self._enqueued}")
        for said in ("raised unexpected", "Traceback", "Unrecoverable error"):
            if said in self._worker.log:
                self._complain(f"the worker's log says {said!r}")

    def _compare(self, record: Record) -> None:
        self.vectors += 1
        packed = _ENGINE.pack([_text(int(record.id))])[0]
        if record.tobytes() != array("f", _ENGINE.numbers(packed)).tobytes():
            self._complain(f"{record.id} has the vector of another text")

    def _weigh(self) -> None:
        self.most_megabytes = max(self.most_megabytes, resident_megabytes(self._worker.pid))
        if self.most_megabytes > HEAP:
            self._complain(f"{self.most_megabytes:.0f} MB resident, more than {HEAP:.0f}")

    def _complain(self, fault: str) -> None:
        if len(self.faults) < 20:
            self.faults.append(fault)


def _text(number: int) -> str:
    return f"text number {number} before a hostile API"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of hostility; then it heals")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.5, help="of the answers that are hostile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=None, help="where there is room")
    return conduct("hostile", Hostile, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
