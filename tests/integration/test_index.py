"""An index in a real Redis 8: made, asked, true whatever happens to the texts, and dropped."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy
import pytest
import redis
from redis8 import WHEELS, Redis8
from servers import API, API_KEY, WorkerProcess, wait_until
from shell import Shell
from stored import Bench

from worker import Hit
from worker.layout import PLAIN, Layout
from worker.settings import Settings
from worker.store.adder import Adder
from worker.store.connection import Redis
from worker.store.errors import CollectionGone
from worker.store.index import KINDS, Index, IndexUnfit
from worker.store.search import Search
from worker.types import Embedded, Job, Position, Stored

pytestmark = pytest.mark.elsewhere

StartWorker = Callable[..., WorkerProcess]
ROOT = Path(__file__).parents[2]
LENGTH = 32
TOP = 10
chance = numpy.random.default_rng(1)


@pytest.fixture(scope="module")
def redis8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis8]:
    for wheel in WHEELS:
        pytest.importorskip(wheel)
    server = Redis8(tmp_path_factory.mktemp("redis8"))
    yield server
    server.stop()


@pytest.fixture
def redis_server(redis8: Redis8) -> Redis8:
    """In place of the ordinary server, for all fixtures: empty."""
    with redis.Redis(port=redis8.port) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
    return redis8


class Wiki:
    """A collection of texts with vectors that are given, not computed."""

    def __init__(self, settings: Settings, layout: Layout = PLAIN) -> None:
        self.layout = layout
        self.bench = Bench(settings)
        self.store = self.bench.collection
        self.client: Redis = self.store.client
        self.index = Index(self.client, self.store.keys)
        self.told: list[str] = []

    def put(self, texts: dict[str, Any], **meta: object) -> None:
        """Store vectors, in place of what is there under their ids."""
        ids = list(texts)
        for first in range(0, len(ids), 500):
            some = ids[first : first + 500]
            adder = Adder(self.client, self.store.keys, "m", layout=self.layout)
            chunk = adder.chunk([Job(id, f"{id} {random.random()}", meta or None) for id in some])
            chunk.send()
            chunk.reply()
            while leases := self.bench.claim("c"):
                rows = [texts[lease.job.id].astype("<f4").tobytes() for lease in leases]
                self.store.backlog.commit(
                    [Embedded(lease, row, False) for lease, row in zip(leases, rows)],
                    keep_text=True,
                    layout=self.layout,
                )

    def make(self, kind: str) -> None:
        self.index.make(kind, self.store.reader.info(), lambda share: None)

    def search(self, query: Any, count: int = TOP, *, exact: bool = False) -> list[Hit]:
        search = Search(self.client, self.store.keys)
        return search.nearest(query, count, exact=exact, tell=self.told.append)

    def ids(self, query: Any, count: int = TOP, *, exact: bool = False) -> list[str]:
        return [hit.record.id for hit in self.search(query, count, exact=exact)]

    def asked(self) -> int:
        """How often an index was asked."""
        stats: Any = self.client.info("commandstats")
        names = ("cmdstat_FT.SEARCH", "cmdstat_VSIM")
        return sum(int(stats[name]["calls"]) for name in names if name in stats)


@pytest.fixture
def wiki(redis_server: Redis8) -> Wiki:
    url = redis_server.url
    return Wiki(Settings(redis_url=url, broker_url=url, model="m"))


def vectors(count: int, name: str = "text") -> dict[str, Any]:
    return {f"{name}-{n}": row for n, row in enumerate(chance.normal(size=(count, LENGTH)))}


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_what_the_exact_scan_finds(wiki: Wiki, kind: str) -> None:
    wiki.put(vectors(500))
    wiki.make(kind)
    queries = chance.normal(size=(20, LENGTH))

    before = wiki.asked()
    found = [wiki.search(query) for query in queries]

    assert wiki.asked() == before + 20
    exact = [wiki.search(query, exact=True) for query in queries]
    assert wiki.asked() == before + 20
    same = sum(len({*map(_id, one)} & {*map(_id, other)}) for one, other in zip(found, exact))
    assert same >= 0.97 * 20 * TOP
    assert [hits[0] for hits in found] == [hits[0] for hits in exact]  # and its score
    assert wiki.told == []


def _id(hit: Hit) -> str:
    return hit.record.id


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_true_whatever_happened_to_the_texts_since(wiki: Wiki, kind: str) -> None:
    texts = vectors(200)
    wiki.put(texts)
    wiki.make(kind)
    chosen = random.Random(2)
    for turn in range(30):
        some = chosen.sample(sorted(texts), min(5, len(texts)))
        action = chosen.choice(["replace", "add", "delete", "evict", "die", "make"])
        if action == "replace":
            wiki.put({id: chance.normal(size=LENGTH) for id in some})
        elif action == "add":
            texts.update(new := vectors(5, f"new-{turn}"))
            wiki.put(new)
        elif action == "delete":
            wiki.store.delete(some)
        elif action == "evict":
            page = wiki.store.reader.finished(0, 5)
            wiki.store.eviction.evict("e", [_position(one) for one in page], end=True)
        elif action == "die":
            wiki.bench.add(*((id, f"poison {turn}") for id in some))
            wiki.bench.embed_all(refuse=[f"poison {turn}"])
        else:
            wiki.make(kind)
        there = {record.id: record.tobytes() for record in wiki.store}
        query = numpy.frombuffer(there[chosen.choice(sorted(there))], "<f4")
        before = wiki.asked()

        found = wiki.search(query)

        assert wiki.asked() > before, action
        assert [hit.score for hit in found] == sorted((h.score for h in found), reverse=True)
        assert all(there[_id(hit)] == hit.record.tobytes() for hit in found), action
        exact = wiki.search(query, exact=True)
        assert _id(found[0]) == _id(exact[0]) and found[0].score == pytest.approx(1.0)
        assert len({*map(_id, found)} & {*map(_id, exact)}) >= TOP - 1, action
    assert wiki.told == []


def _position(stored: Stored) -> Position:
    assert stored.number is not None and stored.digest is not None
    return Position(stored.number, stored.id, stored.digest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layout", [Layout("m", 16), Layout("m", 16, "float16"), Layout("m", None, "int8")]
)
def test_an_index_of_smaller_vectors_finds_what_the_exact_scan_finds(
    redis_server: Redis8, layout: Layout, kind: str
) -> None:
    url = redis_server.url
    wiki = Wiki(Settings(redis_url=url, broker_url=url, model="m"), layout)
    texts = vectors(300)
    wiki.put(texts)
    if kind != "set" and layout.dtype == "int8":
        with pytest.raises(IndexUnfit, match="takes no int8: use --kind set"):
            wiki.make(kind)
        return
    wiki.make(kind)
    old = vectors(100, "old")
    wiki.put(old)
    for id, row in old.items():  # as a worker of an earlier version stores them
        client: Any = wiki.client
        client.hdel(wiki.store.keys.doc(id), layout.dtype)
        client.hset(wiki.store.keys.doc(id), "vector", row.astype("<f4").tobytes())
    texts.update(old)
    rows = numpy.array(list(texts.values()), numpy.float32)
    small = layout.cut(rows)
    before = wiki.asked()
    same = 0
    for query in chance.normal(size=(20, LENGTH)).astype(numpy.float32):
        cosines = small @ layout.cut(query[None])[0]
        expected = [list(texts)[n] for n in numpy.argsort(-cosines)[:TOP]]
        found = wiki.search(query)
        same += len({hit.record.id for hit in found} & {*expected})
    assert wiki.asked() >= before + 20
    assert same >= 0.9 * 20 * TOP
    assert wiki.told == []


def test_an_index_of_another_layout_is_not_asked_and_is_made_anew(wiki: Wiki) -> None:
    wiki.put(vectors(50))
    wiki.make("hnsw")
    small = Layout("m", None, "float16")
    wiki.client.hset(wiki.store.keys.info, "layout", str(small))  # vec shrink begins
    query = chance.normal(size=LENGTH)

    assert wiki.ids(query) == wiki.ids(query, exact=True)
    assert wiki.told == ["the index is of vectors in another layout"]

    wiki.make("hnsw")
    assert wiki.ids(query) == wiki.ids(query, exact=True)
    wiki.client.hset(wiki.store.keys.info, "layout", str(Layout("m", 16, "float16")))
    wiki.client.hset(wiki.store.keys.doc("text-1"), "int8", "x" * 16)
    with pytest.raises(IndexUnfit, match="has vectors in another layout: shrink it to the end"):
        wiki.make("hnsw")
    assert len(wiki.told) == 1


def test_an_index_that_is_being_built_is_not_asked(wiki: Wiki) -> None:
    wiki.put({f"{n}": row for n, row in enumerate(chance.normal(size=(6000, 256)))})
    query = chance.normal(size=256)
    exact = wiki.ids(query, exact=True)
    states: list[float] = []

    def look(share: float) -> None:
        states.append(share)
        assert wiki.ids(query) == exact

    wiki.index.make("hnsw", wiki.store.reader.info(), look)

    assert states and re.match(r"the index is being built, \d+% is done", wiki.told[0])
    before = wiki.asked()
    assert wiki.ids(query)[0] == exact[0]
    assert wiki.asked() == before + 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_is_gone_is_told_and_made_again(wiki: Wiki, kind: str) -> None:
    wiki.put(vectors(50))
    wiki.make(kind)
    client: Any = wiki.client
    client.delete(wiki.store.keys.index) if kind == "set" else client.execute_command(
        "FT.DROPINDEX", wiki.store.keys.index
    )
    query = chance.normal(size=LENGTH)

    assert wiki.ids(query) == wiki.ids(query, exact=True)
    assert wiki.told == ["the index is not there any more, or not whole"]

    wiki.make(kind)
    assert len(wiki.ids(query)) == TOP and len(wiki.told) == 1


def test_an_index_that_is_dropped_on_the_server_while_searches_run_costs_no_answer(
    wiki: Wiki,
) -> None:
    wiki.put(vectors(300))
    wiki.make("flat")
    query, searched = chance.normal(size=LENGTH), Event()
    exact = wiki.ids(query, exact=True)
    client: Any = wiki.client

    def drop_and_make() -> int:
        dropped = 0
        while not searched.is_set():
            client.execute_command("FT.DROPINDEX", wiki.store.keys.index)
            wiki.make("flat")
            dropped += 1
        return dropped

    before = wiki.asked()
    with ThreadPoolExecutor(1) as pool:
        dropping = pool.submit(drop_and_make)
        try:
            for _ in range(100):
                assert wiki.ids(query) == exact
            wait_until(
                lambda: wiki.ids(query) == exact and bool(wiki.told) and wiki.asked() > before, 30
            )
        finally:
            searched.set()
        assert dropping.result()
    assert wiki.ids(query) == exact


def test_a_vector_set_that_is_dropped_while_it_is_filled_is_not_taken_for_whole(wiki: Wiki) -> None:
    texts = vectors(2000)
    wiki.put(texts)
    once = iter([0.4])

    def drop(share: float) -> None:
        if share > 0.4:
            for _ in once:
                assert wiki.index.drop()

    with pytest.raises(IndexUnfit, match="made or dropped the index of wiki meanwhile: make it"):
        wiki.index.make("set", wiki.store.reader.info(), drop)
    assert wiki.index.indexed() is None
    assert wiki.ids(texts["text-1"], 1) == ["text-1"]

    wiki.make("set")
    assert wiki.ids(texts["text-1"], 1) == ["text-1"]
    assert wiki.told == []


def test_an_index_whose_collection_is_dropped_while_it_is_built_is_not_made(wiki: Wiki) -> None:
    wiki.put({f"{n}": row for n, row in enumerate(chance.normal(size=(6000, 256)))})
    dropped: list[object] = []

    def drop(share: float) -> None:
        dropped.append(wiki.store.drop())

    with pytest.raises(CollectionGone):
        wiki.index.make("hnsw", wiki.store.reader.info(), drop)
    assert dropped
    client: Any = wiki.client
    assert client.execute_command("FT._LIST") in ([], set())
    assert not client.exists(wiki.store.keys.info)


@pytest.mark.parametrize("kind", KINDS)
def test_a_collection_of_a_version_that_knew_no_lives_is_indexed(wiki: Wiki, kind: str) -> None:
    wiki.put(vectors(50))
    wiki.client.hdel(wiki.store.keys.info, "born")
    wiki.make(kind)
    query, before = chance.normal(size=LENGTH), wiki.asked()
    assert wiki.ids(query) == wiki.ids(query, exact=True)
    assert wiki.asked() == before + 1
    assert wiki.index.drop() and not wiki.index.drop()


def test_a_filter_that_few_texts_fit_still_finds_them(wiki: Wiki) -> None:
    wiki.put(vectors(3000))
    wiki.put(vectors(3, "rare"), lang="eo")
    wiki.make("flat")
    search = Search(wiki.client, wiki.store.keys, {"lang": "eo"})
    query = chance.normal(size=LENGTH)

    assert {hit.record.id for hit in search.nearest(query, 2)} <= {"rare-0", "rare-1", "rare-2"}
    assert len(search.nearest(query, 2)) == 2
    assert len(search.nearest(query, 9)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_collection_is_dropped_with_its_index(wiki: Wiki, kind: str) -> None:
    wiki.put(vectors(20))
    wiki.make(kind)

    wiki.store.drop()

    client: Any = wiki.client
    assert client.execute_command("FT._LIST") in ([], set())
    assert client.exists(wiki.store.keys.index) == 0
    wiki.put(vectors(20, "later"))
    assert len(wiki.ids(chance.normal(size=LENGTH))) == TOP
    assert wiki.told == []


def test_what_an_earlier_vec_drop_left_of_an_index_is_no_part_of_the_next_life(wiki: Wiki) -> None:
    for kind in KINDS:
        wiki.put(vectors(20, kind))
        wiki.make(kind)
        for key in wiki.client.execute_command("KEYS", "vec:{wiki}:*"):  # type: ignore[attr-defined]
            if key != wiki.store.keys.index.encode():
                wiki.client.delete(key)
    wiki.put(vectors(20, "later"))
    query = chance.normal(size=LENGTH)

    before = wiki.asked()
    assert len(wiki.ids(query)) == TOP
    assert wiki.asked() == before
    wiki.make("set")
    assert all(id.startswith("later") for id in wiki.ids(query, 20))
    client: Any = wiki.client
    assert client.execute_command("VCARD", wiki.store.keys.index) == 20


def test_an_index_for_which_there_is_no_memory_is_refused_before_it_is_made(wiki: Wiki) -> None:
    wiki.put(vectors(500))
    used = int(str(wiki.client.info("memory")["used_memory"]))
    client: Any = wiki.client
    client.config_set("maxmemory", int(used / 0.85) + 200_000)
    info = wiki.store.reader.info()

    with pytest.raises(IndexUnfit, match=r"takes about 1 MB, and Redis has 0 MB before workers"):
        wiki.index.memory("hnsw", info, 500)
    assert wiki.index.memory("flat", info, 100) < 200_000

    client.config_set("maxmemory", 0)
    wiki.make("hnsw")
    client.config_set("maxmemory", int(used / 0.85) + 200_000)
    assert wiki.index.memory("hnsw", info, 500) > 500_000  # it is there already
    client.execute_command("FT.DROPINDEX", wiki.store.keys.index)
    with pytest.raises(IndexUnfit, match="takes about 1 MB, and Redis has 0 MB"):
        wiki.index.memory("hnsw", info, 500)


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_that_is_told_is_about_what_it_takes(wiki: Wiki, kind: str) -> None:
    wiki.put({f"document-{n}": row for n, row in enumerate(chance.normal(size=(1500, 256)))})
    told = wiki.index.memory(kind, wiki.store.reader.info(), 1500)
    before = int(str(wiki.client.info("memory")["used_memory"]))

    wiki.make(kind)
    assert wiki.index.memory(kind, wiki.store.reader.info(), 1500) == told

    taken = int(str(wiki.client.info("memory")["used_memory"])) - before
    assert 0.6 < told / taken < 1.6, (told, taken)


def test_the_commands_make_use_show_and_drop_an_index(
    redis_server: Redis8, shell: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    texts = [f"text {n}" for n in range(60)]
    shell.write("wiki.jsonl", *({"id": text, "text": text} for text in texts))
    assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}
    names = {
        "hnsw": "an HNSW index of the query engine",
        "set": "a vector set",
    }
    for kind, name in names.items():
        made = shell("vec", "index", "wiki", *([] if kind == "hnsw" else ["--kind", kind]))
        assert made.returncode == 0, made.stderr
        assert re.match(rf"wiki: {name} of 60 vectors, in ", made.stdout)
        assert f"{name}, 60 vectors of 768 numbers, takes about 0." in made.stderr
        assert f"  index      {kind}\n" in shell("vec", "status", "wiki").stdout
        found = shell("vec", "search", "wiki", "text 7", "-k", "1", **environ)
        assert found.stdout.splitlines()[1].split() == ["1.000", "text", "7"], found.stderr
        assert found.stderr == ""
        if kind == "hnsw":
            with redis.Redis(port=redis_server.port) as client:
                client.execute_command("FT.DROPINDEX", "vec:{wiki}:index")
            found = shell("vec", "search", "wiki", "text 7", "-k", "1", **environ)
            assert found.stdout.splitlines()[1].split() == ["1.000", "text", "7"]
            gone = "wiki: the index is not there any more, or not whole: all vectors are compared"
            assert found.stderr == gone + "\n"
        other = "flat" if kind == "set" else "set"
        clash = shell("vec", "index", "wiki", "--kind", other)
        assert (clash.returncode, clash.stdout) == (2, "")
        assert "drop it first with vec index wiki --drop" in clash.stderr
        assert shell("vec", "index", "wiki", "--drop").stdout == "wiki: the index is dropped\n"
    shell.write("more.jsonl", {"id": "more", "text": "more"})
    assert shell("vec", "index", "wiki", "--kind", "set").returncode == 0
    assert shell("vec-enqueue", "more.jsonl", "--collection", "wiki", "--wait").returncode == 0
    assert "  index      set, 1 commit behind\n" in shell("vec", "status", "wiki").stdout
    found = shell("vec", "search", "wiki", "more", "-k", "1", **environ)
    assert found.stdout.splitlines()[1].split() == ["1.000", "more"]
    assert shell("vec", "index", "wiki").returncode == 0
    assert "  index      set\n" in shell("vec", "status", "wiki").stdout


def test_the_recipe_for_the_query_engine_runs_as_the_page_shows_it(
    redis_server: Redis8, shell: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    texts = ["ships of the ancient world", "bread", "violins"]
    shell.write("wiki.jsonl", *({"id": text, "text": text} for text in texts))
    assert shell("vec-enqueue", "wiki.jsonl", "--keep-text", "--wait").returncode == 0
    page = (ROOT / "docs" / "how-to" / "read.md").read_text()
    (recipe,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "FT." in code)
    create, ask = recipe.split("query = ")
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}

    def run(code: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={**shell.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run(create)
    with redis.Redis(port=redis_server.port, protocol=2) as client:
        wait_until(lambda: b"3" in _number(client.execute_command("FT.INFO", "wiki")), 20)
    found = run(re.sub(r"(?s)store.execute_command\(\n.*?\n\)\n", "", create) + "query = " + ask)
    assert found.startswith("[3, b'vec:{wiki}:doc:ships of the ancient world', [b'distance', b'")


def _number(said: Sequence[Any]) -> bytes:
    """The number of documents, from an FT.INFO that is whole."""
    facts = dict(zip(said[::2], said[1::2]))
    return b"%d" % int(facts[b"num_docs"]) if float(facts[b"percent_indexed"]) == 1 else b""


def test_an_index_in_a_cluster_is_on_the_node_of_its_collection(
    redis_server: Redis8, tmp_path: Path
) -> None:
    server = Redis8(tmp_path, "--cluster-enabled", "yes")
    try:
        with redis.Redis(port=server.port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: node.cluster("INFO")["cluster_state"] == "ok", 20)
        url = f"redis+cluster://127.0.0.1:{server.port}"
        wiki = Wiki(Settings(redis_url=url, broker_url=redis_server.url, model="m"))
        wiki.put(vectors(50))
        query = chance.normal(size=LENGTH)
        for kind in wiki.index.offered():
            wiki.make(kind)
            assert wiki.ids(query) == wiki.ids(query, exact=True)
            assert wiki.index.drop()
        assert wiki.index.offered() == list(KINDS)
        assert wiki.told == []
    finally:
        server.stop()


def test_a_redis_8_without_the_query_engine_has_a_vector_set(
    redis_server: Redis8, tmp_path: Path
) -> None:
    server = Redis8(tmp_path, search=False)
    try:
        wiki = Wiki(Settings(redis_url=server.url, broker_url=server.url, model="m"))
        wiki.put(vectors(50))
        assert wiki.index.choose(None, None) == "set"
        with pytest.raises(IndexUnfit, match="no query engine: leave out --kind flat"):
            wiki.index.choose("flat", None)
        wiki.make("set")
        query = chance.normal(size=LENGTH)
        assert wiki.ids(query) == wiki.ids(query, exact=True)
        wiki.store.drop()
        assert wiki.client.exists(wiki.store.keys.index) == 0
    finally:
        server.stop()
