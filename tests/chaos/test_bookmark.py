"""Runs over a folder, killed at any request, while the folder and the collection change."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from servers import API
from stored import Store

from worker import Job
from worker.local.redis_server import RedisServer
from worker.settings import Settings

from .points import KILL, NOTHING, End, Errand, Points
from .proof import balances
from .test_points import embed

pytestmark = pytest.mark.heavy

IDS = [f"id{number}" for number in range(12)]
SPLIT = ("--long", "split", "--chunk-size", "20")


class Folder:
    """A folder of shards, which changes, and a collection beside it."""

    def __init__(self, directory: Path, wiki: Store, points: Points, seed: int) -> None:
        self.directory = directory
        self.chance = random.Random(seed)
        self.shares_ids = self.chance.random() < 0.6
        self.words = SPLIT if self.chance.random() < 0.4 else ()
        self._wiki = wiki
        self._points = points
        self._number = 0
        (directory / "docs").mkdir()
        for name in "abcdef":
            self.write(name)

    def write(self, name: str) -> None:
        """A shard with other lines than before, some of which are rejected."""
        lines = []
        for _ in range(self.chance.randrange(9)):
            self._number += 1
            id = self.chance.choice(IDS) if self.shares_ids else f"{name}{self._number % 9}"
            text = f"{self.chance.randrange(3)} " * self.chance.choice([1, 1, 2, 20, 40])
            lines.append({"id": id, "text": "" if self.chance.random() < 0.05 else text})
        path = self.directory / "docs" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def change(self) -> None:
        """Something happens between two runs."""
        path = self.directory / "docs" / f"{self.chance.choice('abcdefg')}.jsonl"
        id = self.chance.choice([*IDS, *self.state()])
        job = Job(id, f"of another {self.chance.random()}")
        what: list[Callable[[], object]] = [
            lambda: self.write(path.stem),
            lambda: path.unlink(missing_ok=True),
            lambda: self._wiki.adder().add([job]),
            lambda: self._wiki.removal.delete([id]),
            lambda: embed(self._wiki),
            self._wiki.drop,
        ]
        self.chance.choices(what, [4, 2, 2, 2, 3, 1])[0]()

    def run(self, what: str = NOTHING, at: int = 0) -> End:
        """Enqueue the folder."""
        errand = Errand("files", what, at, token=str(self.directory), words=self.words)
        end = self._points.run(errand)
        assert not end.error, end
        assert balances(self._wiki.status())
        return end

    def state(self) -> dict[str, bytes | None]:
        """The text of each id."""
        ids = sorted(set(self._wiki.reader.names()) if self._wiki.exists() else ())
        known = self._wiki.reader.states(ids)
        return {id: (one.queued or one.stored or b"")[:8] for id, one in zip(ids, known)}

    def skips(self) -> int:
        """How many runs have skipped files."""
        return self._points.log.read_text().count("skipped: an earlier run")


@pytest.mark.parametrize(
    "seed", [*range(10), *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 40)]]
)
def test_a_run_that_skips_files_leaves_what_reading_all_of_them_would(
    redis_server: RedisServer,
    redis_client: redis.Redis,
    api: API,
    points: Points,
    tmp_path: Path,
    seed: int,
) -> None:
    settings = Settings(redis_url=redis_server.url, broker_url=redis_server.url)
    wiki = Store("wiki", settings=settings)
    folder = Folder(tmp_path, wiki, points, seed)
    points_of_a_run = 60
    for _ in range(4):
        for _ in range(folder.chance.choice([1, 1, 2])):
            folder.run(KILL, at=folder.chance.randrange(points_of_a_run // 3, points_of_a_run))
            if folder.chance.random() < 0.5:
                folder.change()
        points_of_a_run = max(20, folder.run().points or 0)
        assert not redis_client.exists("vec:{wiki}:bookmark")
        after, skips = folder.state(), folder.skips()
        folder.run()
        assert folder.state() == after
        assert folder.skips() == skips
