"""A real corpus that changes, pass after pass, with kills: `python -m tests.chaos.corpora folder`.

Before each pass a hundredth of the texts is edited, shortened, removed or added. `vec-enqueue
--prune` is killed at random moments, and so are a worker and `vec export --follow`; then it runs to
its end. With `--export to` it is `vec-enqueue --to` a table of the corpus' database, and PostgreSQL
and Redis are killed too; `--export all` follows into another database and into Qdrant beside it.
After each pass `vec verify` must say complete, and a comparison that shares no code with it must
find exactly the pieces of the corpus, each with the vector of its own text; only texts that changed
may be paid for; and the dry run must have said how many ids go. The exit code is 0 only then.

    python -m tests.chaos.corpora folder --texts /usr/share/doc --size 3000
    python -m tests.chaos.corpora shards --size 60000
    python -m tests.chaos.corpora table --size 1000000 --export none
    python -m tests.chaos.corpora table --size 1000000 --export all --kills 5
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from servers import API, API_KEY, WorkerProcess

from worker import Collection
from worker.local.child import Child
from worker.settings import Settings

from .changing import Changing, Folder, Lines, documents, lines, made
from .conduct import conduct
from .distant import Shards, Table
from .following import Following
from .machines import Redis, command, environment, run
from .proof import balances
from .truth import Piece, Rule, Truth, in_qdrant, normal, parallel

if TYPE_CHECKING:
    from qdrant_server import QdrantProcess

NAME = "corpus"
KINDS: dict[str, type[Changing]] = {
    "folder": Folder,
    "lines": Lines,
    "shards": Shards,
    "table": Table,
}
EXPORTS = ("none", "follow", "evict", "to", "all")
_LATENCY = 0.05  # of the API, so that a kill finds texts in flight


class Run:
    """One run. `run()` once, `close()` always."""

    def __init__(self, directory: Path, asked: argparse.Namespace) -> None:
        self.faults: list[str] = []
        self._directory = directory
        self._asked = asked
        self._chance = random.Random(asked.seed)
        self._rule = Rule("markdown" if asked.kind == "folder" else "text", asked.chunk_size)
        self._redis = Redis(directory / "redis")
        self._api = API(directory / "api.log", "--dimensions", str(asked.dimensions))
        self._env = environment(self._redis.url, VECTOR_EMBED_HIGH_WATER=str(10**8))
        settings = Settings(redis_url=self._redis.url, broker_url=self._redis.url)
        self._collection = Collection(NAME, settings=settings)
        self._truth = Truth(self._redis.url, NAME, asked.dimensions)
        self._started = 0
        self._commands: list[Child] = []
        self._workers = [self._worker() for _ in range(asked.workers)]
        self._corpus = KINDS[asked.kind](directory, self._texts(), asked.size, self._chance)
        self._env.update(self._corpus.environ)
        self._expected: dict[str, Piece] = {}
        self._evicts = asked.export == "evict"
        self._qdrant: QdrantProcess | None = None
        self._table: Table | None = None  # that `--to` writes into
        if asked.export in ("to", "all"):
            if not isinstance(self._corpus, Table):
                raise SystemExit(f"--export {asked.export} goes with table")
            self._table = self._corpus
            self._env["VECTOR_EMBED_SINK_URL"] = self._table.make_sink()
        self._followings = self._follow_into()

    def run(self) -> None:
        """The first pass brings the corpus; each of the others brings what changed in it."""
        changed = set(self._corpus.texts)
        for number in range(self._asked.passes + 1):
            began = time.monotonic()
            if number:
                changed = self._corpus.change(self._asked.share)
            said = self._one_pass(changed)
            print(f"pass {number}: {said}; {time.monotonic() - began:.0f} s", flush=True)
            if self.faults:
                return

    def close(self) -> None:
        """End every process."""
        for child in self._commands:
            child.kill()
        if self._qdrant is not None:
            self._qdrant.stop()
        for worker in self._workers:
            worker.stop(20)
        self._corpus.close()
        self._api.stop()
        self._redis.stop()

    def _follow_into(self) -> list[Following]:
        """The exports beside the producer."""
        if self._asked.export in ("follow", "evict"):
            folder = self._directory / "out"
            words = (NAME, "-o", "out", "--rotate", "20000", *(["--evict"] if self._evicts else []))
            return [Following("the folder", words, lambda: self._truth.in_folder(folder))]
        if self._asked.export != "all":
            return []
        assert self._table is not None
        from qdrant_server import QdrantProcess

        table = self._table
        self._qdrant = qdrant = QdrantProcess(self._directory / "qdrant")
        words = (NAME, "-o", table.make_sink("other"))
        into_qdrant = (NAME, "-o", qdrant.address)
        return [
            Following("the other database", words, lambda: table.in_sink("other")),
            Following("Qdrant", into_qdrant, lambda: in_qdrant(qdrant.points()), parallel),
        ]

    def _one_pass(self, changed: set[str]) -> str:
        before, self._expected = self._expected, self._pieces(changed)
        after = self._expected
        new = [piece.text for id, piece in after.items() if _text(before.get(id)) != piece.text]
        gone = before.keys() - after.keys()
        self._check_dry_run(len(gone))
        self._api.reset()
        self._api.faults(latency=_LATENCY)
        removed = self._collection.status().removed if before else 0
        kills = self._work()
        status = self._collection.status()
        self._check(balances(status), f"the ledger does not balance: {status}")
        enqueued = status.enqueued == len(after) or self._evicts
        self._check(enqueued, f"{status.enqueued} enqueued, not {len(after)}")
        removed = status.removed - removed
        self._check(removed == len(gone), f"{removed} removed, not {len(gone)}")
        log = self._api.log()
        distinct = len(set(map(normal, new)))
        paid = distinct <= log.charged <= len(new)
        self._check(paid, f"{log.charged} paid for, not {distinct} (of {len(new)} ids)")
        if self._table is not None:
            self.faults += self._truth.compared(after, self._table.in_sink(), "the table")
        with ThreadPoolExecutor(1) as beside:  # both only read
            verified = beside.submit(self._verify)
            folder = self._directory / "out"
            self.faults += self._truth.faults(after, evicted=folder if self._evicts else None)
            for one in [] if self._evicts else self._followings:
                self.faults += self._truth.compared(after, one.held(), one.where, one.same)
            verified.result()
        return (
            f"{len(changed):,} texts changed; {len(after):,} pieces, {len(new):,} of them new, "
            f"{len(gone):,} gone; {log.charged:,} paid for, {log.texts:,} sent; {kills}"
        )

    def _work(self) -> str:
        """Bring the corpus into the collection, with kills."""
        seconds = 1.0 + len(self._corpus.texts) / 30_000
        kills = self._asked.kills
        for _ in range(kills):
            producer = self._producer()
            self._let(producer, self._chance.uniform(0.3, seconds))
            producer.kill()
            self._follow(kill=True)
        producer = self._producer()
        left, often = kills, min(0.1, 0.1 * kills / seconds)
        while producer.running or self._collection.status().backlog:
            if left and self._chance.random() < often:
                left -= 1
                self._kill_others()
            time.sleep(0.05)
            self._follow()  # one that begins while Redis loads its data ends
            if not producer.running and self._table and "with status 2" in producer.ended():
                producer = self._producer()  # its query broke off
        said = producer.ended()
        self._check("with status 0" in said, said)
        self._end_exports()
        others = "a worker, PostgreSQL and Redis each" if self._table else "a worker"
        return f"the producer killed {kills} times, {others} {kills - left} times"

    def _kill_others(self) -> None:
        self._workers.pop(0).kill()
        self._workers.append(self._worker())
        self._follow(kill=True)
        if self._table is not None:
            self._table.crash()
            self._redis.restart()
        if self._qdrant is not None:
            self._qdrant.restart()

    def _let(self, child: Child, seconds: float) -> None:
        end = time.monotonic() + seconds
        while child.running and time.monotonic() < end:
            time.sleep(0.01)

    def _check(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def _check_dry_run(self, gone: int) -> None:
        said = self._vec("vec-enqueue", *self._words, *self._prune, "--dry-run")
        texts = re.search(r"^ +texts +([\d,]+)", said, re.MULTILINE)
        self._check(_number(texts) == len(self._expected), f"not {len(self._expected)}: {said}")
        found = re.search(r"([\d,]+) of [\d,]+ ids? would be deleted", said)
        self._check(_number(found) == gone, f"not {gone} would be deleted: {said}")

    def _verify(self) -> None:
        folder = ("--export", "out") if self._evicts else ()
        sink = ("--sink",) if self._table else ()
        said = self._vec("vec", "verify", *self._words, *folder, *sink)
        self._check("complete" in said and "incomplete" not in said, said)

    @property
    def _words(self) -> tuple[str, ...]:
        return (*self._corpus.words, *self._rule.words)

    @property
    def _prune(self) -> tuple[str, ...]:
        folder = ("--export", "out") if self._evicts else ()
        return ("--prune", "--yes", *folder, *(("--to",) if self._table else ()))

    def _pieces(self, changed: set[str]) -> dict[str, Piece]:
        """The pieces of the corpus as it is; those of texts that did not change are known."""
        found = {
            id: piece
            for id, piece in self._expected.items()
            if (piece.place["parent"] if piece.place else id) not in changed
        }
        for id in changed & self._corpus.texts.keys():
            found.update(self._rule.pieces(id, self._corpus.texts[id]))
        return found

    def _texts(self) -> Iterator[tuple[str, str]]:
        """The texts that the corpus begins with, and those that are added to it."""
        path: Path | None = self._asked.texts
        if path is None:
            suffix = ".md" if self._asked.kind == "folder" else ""
            return made(random.Random(self._asked.seed), suffix)
        return documents(path) if path.is_dir() else lines(path)

    def _worker(self) -> WorkerProcess:
        self._started += 1
        environ = {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_BASE_URL": self._api.base_url,
            "VECTOR_EMBED_REDIS_URL": self._redis.url,
        }
        return WorkerProcess(self._directory / f"worker-{self._started}", environ, concurrency=4)

    def _producer(self) -> Child:
        return self._start("vec-enqueue", *self._words, *self._prune)

    def _follow(self, *, kill: bool = False) -> None:
        for one in self._followings:
            one.follow(self._start, kill=kill)

    def _end_exports(self) -> None:
        for one in self._followings:
            one.end()
            self._vec("vec", "export", *one.words)

    def _start(self, name: str, *arguments: str) -> Child:
        self._started += 1
        log = self._directory / f"{self._started:03}-{name}.log"
        words = command(name, *arguments)
        child = Child(name, words, log, env=self._env, cwd=self._directory)
        self._commands.append(child)
        return child

    def _vec(self, name: str, *arguments: str) -> str:
        """What a command says; anything but exit code 0 is a fault."""
        done = run(self._env, self._directory, name, *arguments, timeout=3000)
        said = done.stdout + done.stderr
        self._check(done.returncode == 0, f"{name} {' '.join(arguments)}: {said}")
        return said


def _text(piece: Piece | None) -> str | None:
    return None if piece is None else piece.text


def _number(found: re.Match[str] | None) -> int | None:
    return None if found is None else int(found[1].replace(",", ""))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.corpora", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--texts", type=Path, help="a folder of documents, or a file of lines")
    parser.add_argument("--size", type=int, default=1000, help="texts to begin with")
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.01, help="of the texts that changes")
    parser.add_argument("--kills", type=int, default=2, help="of each process, in a pass")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--export", choices=EXPORTS, default="follow")
    parser.add_argument("--chunk-size", type=int, default=2000)
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=None, help="where there is room")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(conduct("corpora", Run, parse()))
