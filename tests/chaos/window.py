"""A corpus larger than Redis: `python -m tests.chaos.window --texts 2000000 --maxmemory 512mb`.

`vec-enqueue` puts it into a Redis of so little memory, workers embed it, and `vec export --follow
--evict` takes the vectors out to files. On the way the exporter is killed twice, the producer twice
and a worker twice, and started again. In the end every text is in the files with its vector, none
is there twice, and `vec verify --export` says the same. The exit code is 0 only then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

from faulty_api.vectors import Hashed
from servers import API, API_KEY, WorkerProcess

from worker import Collection, Status
from worker.export.folder import Folder, read_positions
from worker.local.child import Child
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.server_memory import read_memory
from worker.types import text_digest

from .conduct import conduct
from .machines import Redis, command, environment, run
from .proof import balances

NAME = "corpus"
# When who is killed, in shares of the corpus that are evicted.
KILLS = (
    (0.10, "exporter"),
    (0.20, "producer"),
    (0.30, "worker"),
    (0.45, "exporter"),
    (0.55, "producer"),
    (0.65, "worker"),
)


class Run:
    """One run. `run()` once."""

    def __init__(self, directory: Path, asked: argparse.Namespace) -> None:
        self._directory = directory
        self._texts: int = asked.texts
        self._engine = Hashed(asked.dimensions)
        self._corpus = directory / f"{NAME}.jsonl"
        self._out = directory / "out"
        self._words = ["export", NAME, "-o", "out", "--format", asked.format]
        self._redis = Redis(directory / "redis")
        with self._redis.client() as client:
            client.config_set("maxmemory", asked.maxmemory)
        dimensions = str(asked.dimensions)
        self._api = API(directory / "api.log", "--dimensions", dimensions)
        self._env = environment(self._redis.url)
        self._settings = Settings(redis_url=self._redis.url, broker_url=self._redis.url)
        self._collection = Collection(NAME, settings=self._settings)
        self._workers = [self._worker(number) for number in range(asked.workers)]
        self._started = 0
        self.faults: list[str] = []
        self._peak = 0.0
        self._readings = 0
        self._told = 0.0

    def run(self) -> None:
        """Send the corpus through, kill on the way, and prove what came out."""
        self._write_corpus()
        began = time.monotonic()
        producer, exporter = self._producer(), self._exporter()
        kills = list(KILLS)
        try:
            while True:
                status = self._look(began)
                if kills and status.evicted >= kills[0][0] * self._texts:
                    _, victim = kills.pop(0)
                    print(f"  {status.evicted:,} evicted: the {victim} is killed", flush=True)
                    if victim == "worker":
                        self._workers.pop(0).kill()
                        self._workers.append(self._worker(len(kills) + 100))
                    elif victim == "producer":
                        producer.kill()
                        producer = self._producer()
                    else:
                        exporter.kill()
                        exporter = self._exporter()
                if not exporter.running:
                    raise AssertionError(exporter.ended())
                if not producer.running and not status.backlog:
                    break
                time.sleep(0.2)
            exporter.stop(60)  # it publishes what it has, and another exports the rest
            done = run(self._env, self._directory, "vec", *self._words, "--evict")
            print((done.stdout + done.stderr).strip(), flush=True)
        finally:
            producer.kill()
            exporter.kill()
        seconds = time.monotonic() - began
        for line in self._check():
            self.faults.append(line)
        charged = self._api.log().charged
        files = Folder(str(self._out), NAME).files()
        size = sum(file.path.stat().st_size for file in files)
        print(
            f"{self._texts:,} texts in {seconds:.0f} s "
            f"({self._texts / seconds:,.0f}/s), {len(KILLS) - len(kills)} kills, {charged:,} texts "
            f"charged; Redis {self._peak:.0%} full at most; the ledger exact at {self._readings:,} "
            f"readings; {len(files)} files, {size / 1e6:,.0f} MB",
            flush=True,
        )

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.stop(20)
        self._api.stop()
        self._redis.stop()

    def _look(self, began: float) -> Status:
        status = self._collection.status()
        self._readings += 1
        if not balances(status):
            raise AssertionError(f"the ledger does not balance: {status}")
        used = read_memory(connect(self._settings)).share
        self._peak = max(self._peak, used)
        now = time.monotonic()
        if now - self._told > 10:
            self._told = now
            print(
                f"  {now - began:4.0f} s: {status.evicted:,} evicted, {status.embedded:,} stored, "
                f"{status.backlog:,} queued; Redis {used:.0%} full; {status.state}",
                flush=True,
            )
        return status

    def _check(self) -> Iterator[str]:
        said = run(
            self._env,
            self._directory,
            "vec",
            *("verify", self._corpus.name, "--export", "out"),
            timeout=1000,
        )
        print((said.stdout + said.stderr).strip(), flush=True)
        if said.returncode:
            yield "vec verify found something wrong"
        status = self._collection.status()
        if status.embedded or status.evicted != self._texts or status.enqueued != self._texts:
            yield f"the ledger at the end: {status}"
        seen = bytearray(self._texts)
        for file in Folder(str(self._out), NAME).files():
            for place in read_positions(file):
                number = int(place.id)
                seen[number] = min(255, seen[number] + 1)
                if place.digest != text_digest(_text(number)):
                    yield f"{place.id} is there with another text"
            yield from self._check_vectors(file.path)
        if missing := seen.count(0):
            yield f"{missing:,} missing"
        if twice := self._texts - missing - seen.count(1):
            yield f"{twice:,} twice"

    def _check_vectors(self, path: Path) -> Iterator[str]:
        """Some of a file: whether they are the vectors of their texts."""
        if path.suffix == ".parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]  # it ships no types

            with pyarrow.parquet.ParquetFile(path) as file:
                batch = next(file.iter_batches(100, columns=["id", "vector"])).to_pylist()
        else:
            with path.open("rb") as lines:
                batch = [json.loads(line) for line, _ in zip(lines, range(100))]
        for row in batch:
            (packed,) = self._engine.pack([_text(int(row["id"]))])
            if array("f", row["vector"]) != array("f", self._engine.numbers(packed)):
                yield f"{row['id']} has the vector of another text"

    def _write_corpus(self) -> None:
        with self._corpus.open("w") as file:
            for number in range(self._texts):
                file.write(f'{{"id": "{number}", "text": "{_text(number)}"}}\n')

    def _worker(self, number: int) -> WorkerProcess:
        environ = {
            "VECTOR_EMBED_API_KEY": API_KEY,
            "VECTOR_EMBED_BASE_URL": self._api.base_url,
            "VECTOR_EMBED_REDIS_URL": self._redis.url,
        }
        return WorkerProcess(self._directory / f"worker-{number}", environ, concurrency=8)

    def _producer(self) -> Child:
        return self._start("vec-enqueue", self._corpus.name)

    def _exporter(self) -> Child:
        return self._start("vec", *self._words, "--evict", "--follow")

    def _start(self, name: str, *arguments: str) -> Child:
        self._started += 1
        log = self._directory / f"{self._started:02}-{name}.log"
        return Child(name, command(name, *arguments), log, env=self._env, cwd=self._directory)


def _text(number: int) -> str:
    return f"Text {number} of a corpus that is larger than the memory of its Redis, word by word."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.window", description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--maxmemory", default="24mb")
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="parquet")
    parser.add_argument("--directory", type=Path, default=None, help="where there is room")
    return conduct("window", Run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
