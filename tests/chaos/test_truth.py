"""A corpus that changes, pass after pass, with kills: collection and folder are what it is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from servers import API, WorkerProcess, wait_until
from stored import Store

from worker.export.sinks import read_sinks
from worker.local.child import Child
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.types import text_digest

from .conftest import Shell
from .proof import balances

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]
TEXTS, PASSES = 800, 4
FOLLOW = ("export", "wiki", "-o", "out/", "--follow", "--evict", "--rotate", "200")


def is_at(wiki: Store, count: str, before: int, process: Child) -> Callable[[], bool]:
    """Whether a count has changed, or the process has ended."""
    return lambda: getattr(wiki.status(), count) != before or not process.running


@pytest.mark.parametrize("evict", [True, False])
def test_after_each_pass_of_a_changing_corpus_verify_is_complete_and_right(
    redis_server: RedisServer, api: API, worker_process: StartWorker, shell: Shell, evict: bool
) -> None:
    chance = random.Random(7)
    url = redis_server.url
    wiki = Store("wiki", settings=Settings(redis_url=url, broker_url=url))
    path = shell.directory / "wiki.jsonl"
    worker_process()
    texts = {f"doc-{number}": f"text {number}" for number in range(TEXTS)}
    ever = set(texts.values())
    follow = FOLLOW if evict else [word for word in FOLLOW if word != "--evict"]
    follower = shell.start(url, "vec", *follow)
    enqueue = ("vec-enqueue", path.name, "--prune", "--yes", "--export", "out")

    for edition in range(PASSES):
        for id in chance.sample(sorted(texts), TEXTS // 25 if edition else 0):
            if chance.random() < 0.5:
                del texts[id]  # and another comes back, or comes for the first time
                texts[f"doc-{chance.randrange(2 * TEXTS)}"] = f"text of edition {edition} {id}"
            else:
                texts[id] = f"edited in {edition}: {id}"
        ever.update(texts.values())
        lines = [json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()]
        path.write_text("".join(lines))
        for count in ("unchanged", "removed"):  # killed while it adds, and while it prunes
            before = getattr(wiki.status(), count)
            doomed = shell.start(url, *enqueue)
            wait_until(is_at(wiki, count, before, doomed), 60, f"a change of {count}")
            doomed.kill()
            assert balances(wiki.status()), wiki.status()
            follower.kill()
            follower = shell.start(url, "vec", *follow)
        done = shell(url, *enqueue)
        assert "pruned, " in done.stderr and done.returncode == 0, done.stderr
        wait_until(lambda: not wiki.status().backlog, 60, "the work")
        follower.stop(30)
        done = shell(url, "vec", *[word for word in follow if word != "--follow"])
        assert done.returncode == 0, done.stderr
        verified = shell(url, "vec", "verify", path.name, "--export", "out")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        latest = {one.id: one for one in read_sinks([str(shell.directory / "out")], wiki.reader)}
        found = {id: one.digest for id, one in latest.items() if one.digest}
        assert found == {id: text_digest(text) for id, text in texts.items()}
        if not evict:
            assert {record.id for record in wiki} == texts.keys()
            assert wiki.status().enqueued == len(texts)
        assert balances(wiki.status())
        follower = shell.start(url, "vec", *follow)
    assert api.log().charged <= len(ever) * 1.02
