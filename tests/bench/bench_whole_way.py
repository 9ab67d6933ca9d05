"""The whole way from one table into another: `vec-enqueue --to`, and the script `by_hand.py`.

    python -m tests.bench.bench_whole_way --rows 10000

Both read the same table of PostgreSQL, ask the same API, and are started as a person starts them.
First they load it all; then a hundredth of the rows is edited, another is deleted, and they run
again; then they load it all again, are killed halfway, and run again. What is in their tables is
compared with the rows each time. Needs the extra `elsewhere`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy
from faulty_api.vectors import Hashed
from postgresql import PostgreSQL
from servers import API

from .by_hand import __file__ as SCRIPT
from .stack import API_KEY, ROOT, Stack, stack
from .table import Table, machine

DIMENSIONS = 256
LATENCY = 0.2
COMMAND = "import sys, worker.cli; sys.argv[0] = 'vec-enqueue'; worker.cli.vec_enqueue()"
COLUMNS = ("seconds", "requests", "paid twice", "missing", "stale", "surplus")


class Shop:
    """A database with the table `articles`, and what others make of it."""

    def __init__(self, server: PostgreSQL, api: API, rows: int) -> None:
        self._server = server
        self._api = api
        self._rows = rows
        self._engine = Hashed(DIMENSIONS)
        self.fill()

    def fill(self) -> None:
        """All rows as at the beginning, and no vector anywhere."""
        self._server(
            "DROP TABLE IF EXISTS articles, by_hand, vectors, vector_embed_sinks",
            "DROP TABLE IF EXISTS vector_embed_tombstones",
            "CREATE TABLE articles AS SELECT n::text AS id, 'text ' || n AS body "
            f"FROM generate_series(1, {self._rows}) n",
            "ALTER TABLE articles ADD PRIMARY KEY (id)",
            "ALTER TABLE articles OWNER TO app",
        )
        self._api.reset()
        self._api.faults(latency=LATENCY)

    def change(self) -> None:
        """Edit a hundredth of the rows, and delete another."""
        self._server(
            "UPDATE articles SET body = 'edited ' || id WHERE id::int % 100 = 0",
            "DELETE FROM articles WHERE id::int % 100 = 1",
        )

    def compared(self, table: str) -> dict[str, float]:
        """What the table lacks, has of another text, and has too much."""
        rows = {str(id): str(body) for id, body in self._server("SELECT id, body FROM articles")}
        found = self._server(f"SELECT id, embedding::real[] FROM {table}")
        held = {str(id): vector for id, vector in found}
        stale = [id for id in held.keys() & rows.keys() if not self._is_of(held[id], rows[id])]
        log = self._api.log()
        return {
            "requests": log.requests,
            "paid twice": log.texts - log.distinct,
            "missing": len(rows.keys() - held.keys()),
            "stale": len(stale),
            "surplus": len(held.keys() - rows.keys()),
        }

    def _is_of(self, vector: object, text: str) -> bool:
        expected = self._engine.numbers(self._engine.pack([text])[0])
        return numpy.array_equal(numpy.array(vector, "<f4"), numpy.array(expected, "<f4"))


class Way:
    """One of the two, with the table that it writes."""

    def __init__(self, words: list[str], table: str, env: Mapping[str, str], cwd: Path) -> None:
        self.table = table
        self._words = [sys.executable, *words]
        self._env = {**os.environ, **env}
        self._cwd = cwd

    def run(self, *, kill_after: float | None = None) -> float:
        """Run it to its end, or for some seconds; returns the seconds that it took."""
        begun = time.perf_counter()
        process = subprocess.Popen(
            self._words,
            env=self._env,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=kill_after)
            if process.returncode:
                raise SystemExit(f"{self.table}: {said}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return time.perf_counter() - begun


def measure(tables: Mapping[str, Table], shop: Shop, name: str, way: Way, on: Stack) -> None:
    """All three steps of one way."""
    on.client.flushdb()
    shop.fill()
    seconds = way.run()
    tables["first load"].add(name, seconds=seconds, **shop.compared(way.table))
    shop.change()
    changed = way.run()
    tables["2 % changed"].add(name, seconds=changed, **shop.compared(way.table))
    on.client.flushdb()
    shop.fill()
    way.run(kill_after=seconds / 2)
    rest = way.run()
    tables["killed, run again"].add(name, seconds=rest, **shop.compared(way.table))


def bench(rows: int, runs: int) -> None:
    lines = len(Path(SCRIPT).read_text().splitlines())
    with stack() as on:
        server = PostgreSQL()
        api = API(on.directory / "api.log", "--dimensions", str(DIMENSIONS))
        try:
            server("CREATE EXTENSION vector")
            env = {
                **on.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                "VECTOR_EMBED_API_KEY": API_KEY,
                "VECTOR_EMBED_BASE_URL": api.base_url,
                "VECTOR_EMBED_DATABASE_URL": server.url,
                "VECTOR_EMBED_SINK_URL": f"{server.url}&table=vectors",
            }
            words = ["-c", COMMAND, "--sql", "SELECT id, body AS text FROM articles"]
            words += ["--collection", "articles", "--yes", "--to"]
            ways = {
                f"by hand, {lines} lines": Way([SCRIPT], "by_hand", env, on.directory),
                "vec-enqueue --to": Way(words, "vectors", env, on.directory),
            }
            steps = ("first load", "2 % changed", "killed, run again")
            tables = {step: Table(f"{step}, {rows:,} rows", COLUMNS) for step in steps}
            shop = Shop(server, api, rows)
            with on.workers(1, 8, env):
                for _ in range(runs):
                    for name, way in ways.items():
                        measure(tables, shop, name, way, on)
            for table in tables.values():
                table.show()
        finally:
            api.stop()
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_whole_way", description=__doc__
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.rows, asked.runs)


if __name__ == "__main__":
    main()
