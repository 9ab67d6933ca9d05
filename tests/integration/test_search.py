"""A search as a person runs it."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable

import numpy
import pytest
import redis
from faulty_api.vectors import expected_vector
from servers import API, API_KEY, WorkerProcess
from shell import Shell
from stored import Bench, positions

from worker import Collection, Hit, NotSent, UnknownCollection
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.throttle import Permit, Throttle

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def wiki(shell: Shell, api: API, worker_process: StartWorker) -> None:
    """Four texts of distinct words, embedded, with their texts."""
    worker_process()
    texts = ["red apples", "blue whales", "green hills \x1b[31m", "yellow " * 100]
    shell.write("wiki.jsonl", *({"id": text.split()[0], "text": text} for text in texts))
    assert shell("vec-enqueue", "wiki.jsonl", "--keep-text", "--wait").returncode == 0


def test_the_nearest_texts_come_first_with_their_scores(wiki: None, shell: Shell, api: API) -> None:
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}
    before = api.log().requests

    table = shell("vec", "search", "wiki", "Green Hills \x1b[31m", **environ)
    found = shell("vec", "search", "wiki", "yellow " * 100, "-k", "2", "--json", **environ)

    assert (table.returncode, table.stderr) == (0, "")
    lines = table.stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["SCORE", "ID"], ["1.000", "green"]]
    assert lines[2] == "  green hills \\x1b[31m"
    assert table.stdout.count("1.000") == 1
    assert max(map(len, lines)) <= 80
    first, second = json.loads(found.stdout)
    text = "yellow " * 100
    assert first == {"document": "yellow", "id": "yellow", "score": 1.0, "text": text}
    assert second["score"] < 0.9
    assert api.log().requests == before + 2


def test_a_field_named_parent_that_was_kept_makes_no_piece(
    shell: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    shell.write("wiki.jsonl", {"id": "doc", "text": "red apples", "parent": "tree"})
    assert shell("vec-enqueue", "wiki.jsonl", "--keep", "parent", "--wait").returncode == 0
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}
    found = shell("vec", "search", "wiki", "red apples", **environ)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[1].split() == ["1.000", "doc"]


def test_the_keys_are_what_an_index_of_redis_asks_for(
    wiki: None, redis_client: redis.Redis
) -> None:
    """FT.CREATE ... ON HASH PREFIX 1 vec:{wiki}:doc: ... TYPE FLOAT32 DIM 768"""
    stored = redis_client.hget("vec:{wiki}:doc:red", "vector")

    assert stored == struct.pack("<768f", *expected_vector("red apples"))
    assert redis_client.hget("vec:{wiki}:doc:red", "text") == b"red apples"
    assert len(list(redis_client.scan_iter("vec:{wiki}:doc:*"))) == 4


def test_what_a_search_lacks_is_said_in_one_line(wiki: None, shell: Shell, api: API) -> None:
    def refusal(*words: str, **environ: str) -> str:
        said = shell("vec", "search", *words, **environ)
        assert (said.returncode, said.stdout) == (2, "")
        (line,) = said.stderr.splitlines()
        return line

    key, place = {"VECTOR_EMBED_API_KEY": API_KEY}, {"VECTOR_EMBED_BASE_URL": api.base_url}
    api.faults(rules=[{"answer": "revoked"}])
    assert "VECTOR_EMBED_API_KEY is not set" in refusal("wiki", "apples")
    assert "Invalid or revoked API key" in refusal("wiki", "apples", **key, **place)
    assert "white space only" in refusal("wiki", "  ", **key, **place)
    assert "no collection 'nope'" in refusal("nope", "apples", **key, **place)
    shell("vec-enqueue", "wiki.jsonl", "--collection", "fresh")
    shell("vec", "drop", "wiki", "--yes")
    assert "no collection 'wiki'" in refusal("wiki", "apples", **key, **place)


def test_a_redis_without_an_index_to_offer_is_one_line_and_nothing_changes(
    wiki: None, shell: Shell, redis_client: redis.Redis
) -> None:
    before = redis_client.hgetall("vec:{wiki}:info")

    said = shell("vec", "index", "wiki")

    assert (said.returncode, said.stdout) == (2, "")
    assert "this Redis has no vector index: it needs Redis 8, or Redis Stack" in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert shell("vec", "index", "wiki", "--drop").stdout == "wiki: has no index\n"
    assert redis_client.hgetall("vec:{wiki}:info") == before


def test_a_collection_whose_vectors_are_all_evicted_says_where_they_are(
    shell: Shell, bench: Bench
) -> None:
    bench.add(("a", "apples"))
    bench.embed_all()
    bench.collection.eviction.evict("t", positions(bench), end=True)
    told = shell("vec", "search", "wiki", "apples")
    assert (told.returncode, told.stderr) == (
        2,
        "Error: wiki holds no vector any more: all were evicted, into the folder of their export\n",
    )


def test_local_searches_what_local_embedded(shell: Shell) -> None:
    local = {"VECTOR_EMBED_LOCAL_DIR": str(shell.directory / "local")}
    texts = ["Wolves hunt in packs.", "Bread is baked from flour.", "The violin has four strings."]
    shell.write("wiki.jsonl", *({"id": str(n), "text": text} for n, text in enumerate(texts)))
    assert shell("vec-enqueue", "wiki.jsonl", "--local", **local).returncode == 0

    said = shell("vec", "search", "wiki", "a loaf from the bakery", "-k", "1", "--local", **local)

    lines = said.stdout.splitlines()
    assert lines[1].split()[1:] == ["1"], said.stderr
    assert lines[2] == "  Bread is baked from flour."


def test_a_program_searches_by_a_text_and_by_a_vector(
    shell: Shell, api: API, worker_process: StartWorker, redis_server: RedisServer
) -> None:
    worker_process()
    texts = [
        {"id": f"{lang}-{n}", "text": f"{lang} {n}", "lang": lang} for lang in "ab" for n in "12"
    ]
    shell.write("wiki.jsonl", *texts)
    assert shell("vec-enqueue", "wiki.jsonl", "--keep", "lang", "--wait").returncode == 0
    url = redis_server.url
    settings = Settings(api_key=API_KEY, base_url=api.base_url, redis_url=url, broker_url=url)
    wiki = Collection("wiki", settings=settings)

    def ids(hits: list[Hit]) -> list[str]:
        return [hit.record.id for hit in hits]

    found = wiki.search("b 2", k=4)
    assert (found[0].record.id, found[0].document) == ("b-2", "b-2")
    assert found[0].score == pytest.approx(1.0, abs=1e-6)
    assert len(found) == 4
    assert ids(wiki.search(expected_vector("b 2"), k=4)) == ids(found)
    assert ids(wiki.search(numpy.array(expected_vector("b 2")), 4)) == ids(found)
    assert set(ids(wiki.search("b 2", filter={"lang": "a"}))) == {"a-1", "a-2"}
    assert set(ids(wiki.search("b 2", filter={"lang": ["a", "b"]}))) == set(ids(found))
    assert ids(asyncio.run(wiki.asearch("b 2", 1))) == ["b-2"]
    with pytest.raises(ValueError, match="the query has 2 dimensions, wiki has 768"):
        wiki.search([1.0, 2.0])
    with pytest.raises(ValueError, match="k must be at least 1"):
        wiki.search("b 2", k=0)
    with pytest.raises(UnknownCollection):
        Collection("nope", settings=settings).search("b 2")

    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}
    said = shell("vec", "search", "wiki", "b 2", "--filter", "lang=a", "--json", **environ)
    assert {hit["id"] for hit in json.loads(said.stdout)} == {"a-1", "a-2"}, said.stderr
    said = shell("vec", "search", "wiki", "b 2", "--filter", "lang", **environ)
    assert (said.returncode, "'lang' is not FIELD=VALUE" in said.stderr) == (2, True)


def test_a_query_waits_for_the_throttle_of_the_fleet(
    wiki: None, api: API, redis_server: RedisServer
) -> None:
    url = redis_server.url
    settings = Settings(API_KEY, base_url=api.base_url, redis_url=url, broker_url=url)
    throttle = Throttle(settings, settings.model)
    before = api.log().requests
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.deferred(permit, 2.0, "slow down", 1)  # what a worker was told
    begun = time.monotonic()

    assert Collection("wiki", settings=settings).search("red apples", 1)[0].document == "red"

    assert time.monotonic() - begun > 1
    assert api.log().requests == before + 1

    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.halted(permit, "the key was revoked", of_key=True)
    with pytest.raises(NotSent, match="the key was revoked"):
        Collection("wiki", settings=settings).search("red apples")
    assert api.log().requests == before + 1
