"""A producer of single texts for many tenants: `python -m tests.chaos.tenants JOURNAL NAME`.

Each of its threads enqueues a text at a time, of a tenant chosen at random, until it is told to
stop; for some it waits. What is wrong with a receipt is printed. The journal says what it was about
to enqueue, and what was taken: a process that is killed leaves one line of each thread open.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import redis

from worker import BacklogFull, Receipt, RedisAway, enqueue

POISON = "poison-unnamed"  # in a text that the API refuses
_IDS = 30  # of a thread with a tenant: so some texts are replaced while they are queued
WRONG = "a wrong receipt"  # before it, where one is printed
_ASKED = 0.1  # of the receipts
_TIMEOUTS = (0.5, 2.0, 30.0)  # so some leave a step that others still wait for
_TAKEN, _SENT = "taken", "sent"


class Line(NamedTuple):
    """A line of a journal."""

    word: str
    tenant: str
    id: str
    text: str


def tenant_name(number: int) -> str:
    return f"tenant-{number:03}"


def read(journal: Path) -> Iterator[Line]:
    """The whole lines of a journal."""
    for line in journal.read_text().split("\n")[:-1]:
        yield Line(*line.split("\t"))


class Producer:
    """Threads that enqueue single texts. `pause`: seconds between two of a thread, on average."""

    def __init__(self, journal: Path, name: str, tenants: int, pause: float) -> None:
        self._name = name
        self._tenants = tenants
        self._pause = pause
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._ended = threading.Event()

    def run(self, threads: int) -> None:
        """Enqueue until SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: self._ended.set())
        started = [threading.Thread(target=self._produce, args=(n,)) for n in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    def _produce(self, thread: int) -> None:
        chance = random.Random(f"{self._name}/{thread}")
        edition = 0
        while not self._ended.wait(chance.expovariate(1 / self._pause)):
            edition += 1
            tenant = tenant_name(chance.randrange(self._tenants))
            id = f"{self._name}-{thread}-{chance.randrange(_IDS)}"
            poison = f" {POISON}" if chance.random() < 0.002 else ""
            text = f"edition {edition} of {id} of {tenant}{poison}"
            self._enqueue(tenant, id, text, chance)

    def _enqueue(self, tenant: str, id: str, text: str, chance: random.Random) -> None:
        self._write(_SENT, tenant, id, text)
        while True:
            try:
                receipt = enqueue([(id, text)], tenant, timeout=chance.choice(_TIMEOUTS))
            except (BacklogFull, RedisAway):  # it may be taken, or not: so once more
                continue
            self._write(_TAKEN, tenant, id, text)
            break
        if chance.random() < _ASKED:
            self._ask(receipt, POISON in text)

    def _ask(self, receipt: Receipt, is_bad: bool) -> None:
        """Wait for a text, and say what is wrong with its receipt."""
        try:
            status = receipt.wait(30)
        except redis.RedisError:
            return  # it is killed just now
        right = (status.embedded, status.dead) == (not is_bad, is_bad)
        if not right and not status.waiting:
            print(f"{WRONG}: {receipt} {status}", flush=True)

    def _write(self, *words: str) -> None:
        os.write(self._journal, ("\t".join(words) + "\n").encode())  # whole, also if we are killed


def last_texts(journals: Sequence[Path]) -> dict[str, dict[str, set[str | None]]]:
    """What the latest text of each id may be, by tenant; None if it may be none."""
    tenants: dict[str, dict[str, set[str | None]]] = {}
    for journal in journals:
        for word, tenant, id, text in read(journal):
            may_be = tenants.setdefault(tenant, {}).setdefault(id, {None})
            if word == _TAKEN:
                may_be.clear()
            may_be.add(text)
    return tenants


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.tenants", description=__doc__)
    parser.add_argument("journal", type=Path)
    parser.add_argument("name")
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--threads", type=int, default=25)
    parser.add_argument("--pause", type=float, default=1.0)
    asked = parser.parse_args()
    Producer(asked.journal, asked.name, asked.tenants, asked.pause).run(asked.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
