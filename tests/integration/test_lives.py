"""An export into a folder knows the life of a collection: a Redis that went back in time, or a
collection that was dropped and began again, leaves nothing out of the files.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import redis
from servers import wait_until
from shell import Shell
from stored import Store

from worker import enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.types import Embedded, text_digest

pytestmark = pytest.mark.heavy

VECTOR = b"\0\0\x80\x3f" * 2


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def wiki(settings: Settings) -> Store:
    return Store("wiki", settings=settings)


def add(settings: Settings, count: int, text: str) -> dict[str, str]:
    corpus = {f"id-{number}": f"{text} {number}" for number in range(count)}
    enqueue(corpus.items(), "wiki", settings=settings)
    return corpus


def embed(wiki: Store, most: int = 10**6) -> None:
    wiki.backlog.keep_alive("c")
    while most > 0 and (leases := wiki.backlog.claim("c", min(50, most))):
        wiki.backlog.commit([Embedded(lease, VECTOR, False) for lease in leases])
        most -= len(leases)
    wiki.backlog.release("c", end_slice=True)


def in_force(folder: Path) -> dict[str, str]:
    """The digest of the text of the last vector of each id, in the order of the files' names."""
    rows = (
        json.loads(line)
        for path in sorted(folder.glob("wiki-*.jsonl"))
        for line in path.read_text().splitlines()
    )
    return {row["id"]: row["digest"] for row in rows}


def digests(corpus: dict[str, str]) -> dict[str, str]:
    return {id: text_digest(text).hex() for id, text in corpus.items()}


RESTORED = "150 vectors of wiki have numbers under which out holds others, or none: Redis went back"


@pytest.mark.parametrize("evict", [[], ["--evict"]])
@pytest.mark.parametrize("beyond", [0, 100])
def test_a_redis_that_went_back_in_time_is_exported_whole_and_that_is_said(
    settings: Settings,
    wiki: Store,
    redis_client: redis.Redis,
    shell: Shell,
    evict: list[str],
    beyond: int,
) -> None:
    # Given a backup of the first 100 vectors, and a folder that holds 250
    corpus = add(settings, 250, "first")
    embed(wiki, 100)
    backup = {key: redis_client.dump(key) for key in redis_client.scan_iter()}
    embed(wiki)
    first = shell("vec", "export", "wiki", "-o", "out/", "--rotate", "50")
    assert first.stdout == "wiki: 250 vectors written to out in 5 files\n"
    # When the backup is restored, and other texts get the numbers that the rest had
    redis_client.flushall()
    for key, dump in backup.items():
        redis_client.restore(key, 0, dump)  # type: ignore[arg-type]
    corpus.update(add(settings, 150 + beyond, "second"))
    embed(wiki)
    # Then the same command writes all of them, and says why
    again = shell("vec", "export", "wiki", "-o", "out/", "--rotate", "50", *evict)
    assert again.returncode == 0, again.stderr
    assert RESTORED in again.stderr
    assert in_force(shell.directory / "out") == digests(corpus)
    if evict:
        assert wiki.status().embedded == 0
    # And once only
    third = shell("vec", "export", "wiki", "-o", "out/")
    assert (third.stdout, third.stderr) == ("wiki: 0 vectors written to out in 0 files\n", "")


@pytest.mark.parametrize("evict", [[], ["--evict"]])
def test_a_collection_that_was_dropped_and_began_again_is_exported_whole_and_that_is_said(
    settings: Settings, wiki: Store, shell: Shell, evict: list[str]
) -> None:
    add(settings, 250, "first")
    embed(wiki)
    shell("vec", "export", "wiki", "-o", "out/", "--rotate", "50")
    assert list(wiki.drop())
    corpus = add(settings, 250, "first" if evict else "second")
    embed(wiki)
    path = shell.write("wiki.jsonl", *[{"id": id, "text": text} for id, text in corpus.items()])
    words = ["verify", str(path), "--id-field", "id", "--export", "out"]

    before = shell("vec", *words)

    assert before.returncode == 2
    assert before.stderr == (
        "Error: out holds an earlier life of wiki, which was dropped or lost since: first export "
        "what is stored now, with vec export wiki -o out/\n"
    )

    said = shell("vec", "export", "wiki", "-o", "out/", "--rotate", "50", *evict)

    assert "out holds an earlier life of wiki" in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert said.stdout.startswith("wiki: 250 vectors written to out in ")
    assert in_force(shell.directory / "out") == digests(corpus)
    after = shell("vec", *words)
    assert (after.returncode, after.stderr) == (0, "")


@pytest.mark.parametrize("evict", [[], ["--evict"]])
def test_a_collection_that_is_dropped_and_begins_again_while_it_is_followed_is_exported_whole(
    settings: Settings, wiki: Store, shell: Shell, evict: list[str]
) -> None:
    add(settings, 100, "first")
    embed(wiki)
    out = shell.directory / "out"
    words = ["export", "wiki", "-o", "out", "--follow", "--rotate", "50", *evict]
    follower = shell.start("vec", *words)
    wait_until(lambda: len(in_force(out)) == 100, 30)

    assert list(wiki.drop())
    corpus = add(settings, 150, "second")  # more than there were: the numbers alone do not tell
    embed(wiki)
    wait_until(lambda: {*in_force(out).values()} & {*digests(corpus).values()}, 50)
    follower.send_signal(signal.SIGTERM)
    _, stderr = follower.communicate(timeout=30)

    assert follower.returncode == 0, stderr
    assert "out holds an earlier life of wiki" in stderr
    shell("vec", "export", "wiki", "-o", "out/", *evict)
    assert in_force(out) == digests(corpus)
    assert wiki.status().evicted == (150 if evict else 0)


def test_a_folder_of_an_earlier_version_is_accepted(
    settings: Settings, wiki: Store, redis_client: redis.Redis, shell: Shell
) -> None:
    add(settings, 100, "first")
    embed(wiki)
    shell("vec", "export", "wiki", "-o", "out/", "--rotate", "50")
    out = shell.directory / "out"
    (out / ".wiki.life").unlink()
    for field in redis_client.hkeys("vec:{wiki}:info"):
        if "exported:" in str(field):
            redis_client.hdel("vec:{wiki}:info", field)
    min(out.glob("wiki-*.jsonl")).unlink()  # its readers may have taken all but the last

    said = shell("vec", "export", "wiki", "-o", "out/")

    assert (said.stdout, said.stderr) == ("wiki: 0 vectors written to out in 0 files\n", "")
