"""`Collection.shrink` and `vec shrink`: stored vectors become smaller, and stay right meanwhile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis
from numpy.typing import NDArray
from shell import Shell
from stored import Store, check_ledger

from worker.layout import SIZES, Layout, LayoutError
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.errors import CollectionGone, LayoutChanged, UnknownCollection
from worker.store.memory import read_footprint
from worker.types import Embedded, Job, Position, Shrunk, text_digest

MODEL = "nomic-v1.5"
DIMENSIONS = 768
LAYOUTS = [(256, "float32"), (None, "float16"), (256, "float16"), (None, "int8"), (64, "int8")]
MANY = [f"id-{number}" for number in range(600)]  # more than two steps take

Field = tuple[str, int]


def answered(digest: bytes) -> NDArray[np.float32]:
    """The vector of the text with this digest, as the API answers; a matrix of one row."""
    numbers = np.random.default_rng(list(digest)).standard_normal((1, DIMENSIONS))
    unit: NDArray[np.float32] = (numbers / np.linalg.norm(numbers)).astype("<f4")
    return unit


class Wiki(Store):
    """A collection of long vectors."""

    def feed(self, *ids: str, text: str = "text") -> None:
        """Embed a text under each of these ids."""
        for at in range(0, len(ids), 1000):
            jobs = [Job(id, f"{text} {id}", {"n": 1}) for id in ids[at : at + 1000]]
            self.adder().add(jobs)
        self.backlog.keep_alive("c")
        while leases := self.backlog.claim("c"):
            embedded = []
            for lease in leases:
                vector = answered(text_digest(lease.job.text)).tobytes()
                embedded.append(Embedded(lease, vector, False))
            self.backlog.commit(embedded, layout=self.reader.info().layout)
        self.backlog.release("c", end_slice=True)

    def check(self, dimensions: int | None, dtype: str) -> None:
        """Readers see each vector in the layout, and nothing else has changed."""
        layout = Layout(MODEL, dimensions, dtype)
        for one in self.reader.finished(0, 10_000):
            assert one.digest is not None
            assert one.data == layout.encode(answered(one.digest))[0], one.id
            assert (one.dtype, one.meta) == (dtype, {"n": 1})
        check_ledger(self.status())

    def positions(self) -> list[Position]:
        """Which vectors there are."""
        stored = self.reader.finished(0, 10_000)
        return [Position(one.number or 0, one.id, one.digest or b"") for one in stored]

    def fields(self) -> set[Field]:
        """In which fields vectors are, and how many bytes they have there."""
        found = set()
        for id in self.ids():
            doc = self.client.hgetall(self.keys.doc(id))
            (field,) = doc.keys() - {b"hash", b"meta"}
            found.add((field.decode(), len(doc[field])))
        return found


@pytest.fixture
def wiki(settings: Settings) -> Wiki:
    """An empty collection of a model whose lengths are known."""
    return Wiki("wiki", settings=replace(settings, model=MODEL))


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A prompt for that model."""
    shell.environ["VECTOR_EMBED_MODEL"] = MODEL
    return shell


def size(dimensions: int | None, dtype: str) -> int:
    return (dimensions or DIMENSIONS) * SIZES[dtype]


@pytest.mark.parametrize(("dimensions", "dtype"), LAYOUTS)
def test_each_vector_is_the_layout_of_its_own_text_and_keeps_its_number(
    wiki: Wiki, dimensions: int | None, dtype: str
) -> None:
    wiki.feed(*MANY)
    before = [(one.number, one.id, one.digest) for one in wiki.reader.finished(0, 1000)]
    heard: list[Shrunk] = []
    done = wiki.shrink(dimensions, dtype, progress=heard.append)
    assert done == (600, 600) == heard[-1]
    assert len(heard) > 2
    wiki.check(dimensions, dtype)
    assert wiki.fields() == {(dtype, size(dimensions, dtype))}
    assert [(one.number, one.id, one.digest) for one in wiki.reader.finished(0, 1000)] == before
    assert (wiki.dimensions(), wiki.dtype()) == (dimensions or DIMENSIONS, dtype)
    assert wiki.shrink(dimensions, dtype) == (600, 0)


def document_sizes(raw: redis.Redis) -> dict[bytes, int]:
    """The bytes of the hash of each vector, as Redis says."""
    keys = raw.scan_iter("vec:{wiki}:doc:*", count=1000)
    return {key: raw.memory_usage(key, samples=0) or 0 for key in keys}


@pytest.mark.parametrize(("dimensions", "dtype"), LAYOUTS)
def test_the_memory_that_is_told_before_is_what_it_is_afterwards(
    tmp_path: Path, dimensions: int | None, dtype: str
) -> None:
    # glibc hands out a piece of memory 16 bytes too large where the rest would be of no use. How
    # often, depends on what else the server did before: this one has done nothing. Valkey 9 keeps
    # a small value in one piece with its name, and saves 8 bytes that are told here.
    server = RedisServer(tmp_path)
    try:
        settings = Settings(redis_url=server.url, broker_url=server.url, model=MODEL)
        wiki = Wiki("wiki", settings=settings)
        raw = redis.Redis.from_url(server.url)
        wiki.feed(*MANY)
        before, sizes = read_footprint(wiki.client, wiki.keys), document_sizes(raw)
        told = before.of(Layout(MODEL, dimensions, dtype), DIMENSIONS)
        wiki.shrink(dimensions, dtype)
        after, smaller = read_footprint(wiki.client, wiki.keys), document_sizes(raw)
        is_valkey = raw.info("server").get("server_name") == "valkey"
        saved = 8 if is_valkey and size(dimensions, dtype) < 128 else 0
        differences = Counter(smaller[key] - sizes[key] for key in sizes)
        assert differences.most_common(1)[0][0] == round(told - before.bytes) - saved
        inexact = 1 if before.allocator == "jemalloc" else 8
        assert after.bytes == pytest.approx(told - saved, abs=inexact)
    finally:
        server.stop()


class Stop(Exception):
    """The shrink is interrupted."""


def stop(done: Shrunk) -> None:
    raise Stop


def half(wiki: Wiki, dimensions: int | None, dtype: str) -> None:
    """A shrink that is interrupted after its first step."""
    with pytest.raises(Stop):
        wiki.shrink(dimensions, dtype, progress=stop)
    assert len(wiki.fields()) > 1


def test_a_shrink_that_is_interrupted_is_right_at_once_and_continues(wiki: Wiki) -> None:
    wiki.feed(*MANY)
    half(wiki, 256, "float16")
    wiki.check(256, "float16")
    wiki.feed("new", *MANY[400:500], text="newer")
    wiki.check(256, "float16")
    done = wiki.shrink(256, "float16")
    assert done.vectors == 601 and 0 < done.shrunk < 350
    wiki.check(256, "float16")
    assert wiki.fields() == {("float16", 512)}


def test_it_is_shrunk_again_from_what_is_left_also_after_half_a_shrink(wiki: Wiki) -> None:
    wiki.feed(*MANY)
    half(wiki, None, "float16")
    half(wiki, 256, "float16")
    assert {field for field, _ in wiki.fields()} == {"vector", "float16"}
    layout = Layout(MODEL, 128, "int8")
    wiki.shrink(128, "int8")
    assert wiki.fields() == {("int8", 128)}
    for one in wiki.reader.finished(0, 1000):
        assert one.digest is not None
        exact = np.frombuffer(layout.encode(answered(one.digest))[0], "int8").astype(int)
        assert np.abs(np.frombuffer(one.data, "int8") - exact).max() <= 1


def test_a_vector_that_a_worker_of_an_earlier_version_has_stored_is_shrunk_too(wiki: Wiki) -> None:
    wiki.feed("a", "b")
    wiki.shrink(256, "float16")
    (old,) = [one for one in wiki.reader.finished(0, 10) if one.id == "b"]
    assert old.digest is not None
    raw = redis.Redis.from_url(wiki.settings.redis_url)
    raw.hdel(wiki.keys.doc("b"), "float16")
    raw.hset(wiki.keys.doc("b"), "vector", answered(old.digest).tobytes())
    wiki.check(256, "float16")
    assert wiki.shrink(256, "float16") == (2, 1)
    wiki.check(256, "float16")
    assert wiki.fields() == {("float16", 512)}


@pytest.mark.parametrize(
    ("dimensions", "dtype", "force", "said"),
    [
        (512, "int8", False, "float16 with 256 dimensions cannot become int8 with 512 dimensions"),
        (768, "int8", False, "cannot become int8 with 768 dimensions"),
        (None, "float32", False, "cannot become float32 with 256 dimensions"),
        (100, None, False, "trained for 768, 512, 256, 128, 64: another .*; pass force=True if"),
        (1000, None, True, "768 dimensions, not 1000"),
        (None, "float8", False, "float8"),
        (None, "", False, "dtype '' must be float32, float16 or int8"),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_changes(
    wiki: Wiki, dimensions: int | None, dtype: str | None, force: bool, said: str
) -> None:
    wiki.feed("a")
    wiki.shrink(256, "float16")
    with pytest.raises(LayoutError, match=said):
        wiki.shrink(dimensions, dtype, force=force)
    wiki.check(256, "float16")


def test_a_vector_of_which_nothing_would_be_left_stops_it_before_anything_changes(
    wiki: Wiki,
) -> None:
    wiki.feed(*MANY)
    row = np.zeros((1, DIMENSIONS), "<f4")
    row[0, 300:302] = 1, -1
    doc = wiki.keys.doc(MANY[400])
    redis.Redis.from_url(wiki.settings.redis_url).hset(doc, "vector", row.tobytes())
    said = f"nothing is left of the vector of id '{MANY[400]}' if it is cut to 256 dimensions"
    with pytest.raises(LayoutError, match=said):
        wiki.shrink(256, "float16")
    assert wiki.fields() == {("vector", 4 * DIMENSIONS)}
    assert wiki.dtype() == "float32"
    wiki.shrink(dtype="float16")
    assert wiki.fields() == {("float16", 2 * DIMENSIONS)}


def test_a_length_that_is_forced_and_a_dtype_alone_keep_what_is_not_said(wiki: Wiki) -> None:
    wiki.feed("a")
    wiki.shrink(100, force=True)
    assert wiki.fields() == {("float32", 400)}
    wiki.shrink(dtype="int8")
    assert wiki.fields() == {("int8", 100)}


def test_a_collection_of_a_version_that_knew_no_lives_is_shrunk(wiki: Wiki) -> None:
    wiki.feed("a")
    wiki.client.hdel(wiki.keys.info, "born")
    assert wiki.shrink(256, "float16") == (1, 1)
    wiki.check(256, "float16")


def test_a_collection_that_is_not_there_is_no_collection(wiki: Wiki) -> None:
    with pytest.raises(UnknownCollection):
        wiki.shrink(256, "float16")
    assert not wiki.client.exists(wiki.keys.info)


def test_a_collection_without_vectors_gets_them_in_the_layout(wiki: Wiki) -> None:
    wiki.adder().add([Job("a", "text a", {"n": 1})])
    assert wiki.shrink(256, "float16") == (0, 0)
    wiki.feed("b")
    wiki.check(256, "float16")
    assert wiki.fields() == {("float16", 512)}


# What happens between two steps, and which of the ids are there afterwards.
Change = Callable[[Wiki], object]
CHANGES: dict[str, tuple[Change, set[str]]] = {
    "replaced": (lambda wiki: wiki.feed(*MANY[:300], text="newer"), set(MANY)),
    "added": (lambda wiki: wiki.feed("new"), {*MANY, "new"}),
    "deleted": (lambda wiki: wiki.delete(MANY[200:500]), {*MANY[:200], *MANY[500:]}),
    "evicted": (
        lambda wiki: wiki.eviction.evict("t", wiki.positions()[:400], end=True),
        set(MANY[400:]),
    ),
    "renumbered": (lambda wiki: wiki.eviction.renumber(wiki.positions()[:500], 9000), set(MANY)),
    "other fields": (
        lambda wiki: wiki.adder().add([Job(id, f"text {id}", {"n": 1}) for id in MANY]),
        set(MANY),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_between_two_steps_is_right_at_the_end(wiki: Wiki, name: str) -> None:
    wiki.feed(*MANY)
    change, left = CHANGES[name]
    once = iter([change])

    def progress(done: Shrunk) -> None:
        for act in once:
            act(wiki)

    wiki.shrink(256, "float16", progress=progress)
    assert set(wiki.ids()) == left
    wiki.check(256, "float16")
    assert wiki.fields() == {("float16", 512)}


def test_a_drop_in_the_middle_ends_it_and_a_new_life_stays_as_it_is(wiki: Wiki) -> None:
    wiki.feed(*MANY)

    def begin_again(done: Shrunk) -> None:
        wiki.drop()
        wiki.feed("a")

    with pytest.raises(CollectionGone):
        wiki.shrink(256, "float16", progress=begin_again)
    assert wiki.fields() == {("vector", 4 * DIMENSIONS)}
    assert wiki.dtype() == "float32"


def test_of_two_shrinks_at_once_the_smaller_layout_wins(wiki: Wiki) -> None:
    wiki.feed(*MANY)
    with pytest.raises(LayoutChanged):
        wiki.shrink(256, "float16", progress=lambda done: wiki.shrink(128, "float16"))
    assert wiki.fields() == {("float16", 256)}
    wiki.drop()
    wiki.feed(*MANY)
    again = iter([1])
    wiki.shrink(256, "int8", progress=lambda done: [wiki.shrink(256, "int8") for _ in again])
    wiki.check(256, "int8")
    assert wiki.fields() == {("int8", 256)}


def test_three_equal_shrinks_at_once_all_end_as_one(wiki: Wiki) -> None:
    wiki.feed(*MANY)
    wiki.feed(*(f"more {id}" for id in MANY))
    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(wiki.shrink, 256, "float16") for _ in range(3)]:
            assert one.result().vectors == 2 * len(MANY)
    wiki.check(256, "float16")
    assert wiki.fields() == {("float16", 512)}


def test_a_larger_shrink_is_told_to_leave_it_to_the_smaller_one(wiki: Wiki) -> None:
    wiki.feed(*MANY)
    with pytest.raises(LayoutChanged, match="another vec shrink makes .* smaller still: leave the"):
        wiki.shrink(256, "float16", progress=lambda done: wiki.shrink(128, "float16"))


def test_a_full_redis_can_be_shrunk(wiki: Wiki) -> None:
    wiki.feed(*MANY)
    raw = redis.Redis.from_url(wiki.settings.redis_url)
    raw.config_set("maxmemory", "1mb")  # full from the beginning to the end
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            raw.set("more", "x")
        wiki.shrink(None, "float16")
        wiki.shrink(256, "float16")
    finally:
        raw.config_set("maxmemory", 0)
    assert wiki.fields() == {("float16", 512)}
    wiki.drop()


# The command

# How much it is depends on Redis' allocator.
PLAN = (
    r"store 600 vectors as float16 with 256 dimensions, not as float32 with 768 dimensions "
    r"\(frees about 1\.\d MB of 2\.\d MB\)"
)
SHRINK = ("vec", "shrink", "wiki", "--dimensions", "256", "--dtype", "float16")


@pytest.mark.heavy
def test_the_command_asks_says_what_it_frees_and_takes_no_for_an_answer(
    wiki: Wiki, shell: Shell
) -> None:
    wiki.feed(*MANY)
    question = rf"wiki: {PLAN}\? What is cut away is gone \[y/N\]: "
    no = shell.answering("n", *SHRINK)
    assert (no.stdout, no.returncode) == ("", 1)
    assert re.fullmatch(question + "wiki: nothing is changed\n", no.stderr)
    yes = shell.answering("y", *SHRINK)
    assert re.fullmatch(question, yes.stderr) and yes.returncode == 0
    sizes = r"2\.\d MB before, [456]\d\d kB now"
    assert re.fullmatch(f"wiki: 600 vectors made smaller, {sizes}\n", yes.stdout)
    wiki.check(256, "float16")


@pytest.mark.heavy
def test_a_script_has_to_say_yes_once_and_then_it_continues_by_itself(
    wiki: Wiki, shell: Shell
) -> None:
    wiki.feed(*MANY)
    refused = shell(*SHRINK)
    assert refused.returncode == 2
    assert re.fullmatch(f"Error: cannot ask whether to {PLAN}: use --yes\n", refused.stderr)
    assert wiki.fields() == {("vector", 4 * DIMENSIONS)}
    half(wiki, 256, "float16")
    continued = shell(*SHRINK)
    assert (continued.returncode, continued.stderr) == (0, "")
    assert wiki.fields() == {("float16", 512)}


@pytest.mark.heavy
def test_the_command_says_in_one_line_what_it_cannot_do(wiki: Wiki, shell: Shell) -> None:
    wiki.feed("a", "b")
    wiki.eviction.evict("t", wiki.positions()[:1], end=True)
    done = shell(*SHRINK, "--yes")
    assert done.stderr == "wiki: 1 vector evicted before: unchanged in files\n"
    assert done.stdout.startswith("wiki: 1 vector made smaller, ")
    larger = shell("vec", "shrink", "wiki", "--dimensions", "512", "--yes")
    assert larger.returncode == 2
    assert larger.stderr == (
        "Error: vectors that are stored as float16 with 256 dimensions cannot become float16 with "
        "512 dimensions: what was cut away is gone; enqueue the corpus into another collection\n"
    )
    nothing = shell("vec", "shrink", "wiki")
    assert nothing.returncode == 2
    assert nothing.stderr.endswith("Error: Say --dimensions, --dtype, or both.\n")
    other = shell("vec", "shrink", "other", "--dtype", "int8", "--yes")
    assert other.stderr == "Error: no collection 'other' here; there is wiki\n"
