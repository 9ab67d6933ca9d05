"""Collections that store smaller vectors: born so, written by workers, read back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import redis
from stored import Bench, ids, pairs

from worker import LayoutChanged, LayoutsDiffer
from worker.layout import PLAIN, Layout, decode
from worker.store.backlog import Adder
from worker.store.reader import PAGE_SIZE
from worker.types import Committed, Embedded, Job, Lease, Stored, text_digest

MODEL = "nomic-v1.5"
LAYOUTS = [
    Layout(MODEL, None, "float16"),
    Layout(MODEL, 256, "float32"),
    Layout(MODEL, 64, "int8"),
]
FLOAT16 = LAYOUTS[0]


def whole(text: str) -> bytes:
    """The vector that an API with 768 dimensions gives this text."""
    seed = int.from_bytes(text_digest(text)[:4], "big")
    return np.random.default_rng(seed).standard_normal(768).astype("<f4").tobytes()


def kept(text: str, layout: Layout) -> bytes:
    """What is to be stored of it."""
    return layout.encode(decode(whole(text), "float32"))[0]


def add(bench: Bench, layout: Layout | None, *pairs: tuple[str, str]) -> None:
    store = bench.collection
    adder = Adder(store.client, store.keys, MODEL, layout=layout)
    adder.add([Job(id, text) for id, text in pairs])


def commit(bench: Bench, leases: Sequence[Lease], layout: Layout = PLAIN) -> Committed:
    """As a worker does that began when the collection had this layout."""
    embedded = [Embedded(lease, whole(lease.job.text), False) for lease in leases]
    return bench.collection.backlog.commit(embedded, layout=layout)


def as_before(bench: Bench, id: str, text: str) -> None:
    """Write the vector as a worker of an earlier version does."""
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.hset(bench.collection.keys.doc(id), "vector", whole(text))


def fields(bench: Bench, id: str) -> set[bytes]:
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        return set(client.hkeys(bench.collection.keys.doc(id)))


def test_the_layout_is_set_when_a_collection_begins_and_stays(bench: Bench) -> None:
    add(bench, FLOAT16, ("a", "text"))
    assert bench.collection.reader.info().layout == FLOAT16
    add(bench, FLOAT16, ("b", "text"))
    add(bench, None, ("c", "text"))
    told = (
        "collection wiki stores vectors as float16 with all dimensions, not as int8 with 64 "
        "dimensions: .* vec shrink wiki"
    )
    with pytest.raises(LayoutsDiffer, match=told):
        add(bench, LAYOUTS[2], ("d", "text"))
    with pytest.raises(LayoutsDiffer):
        add(bench, Layout(MODEL), ("d", "text"))
    assert bench.collection.reader.info().layout == FLOAT16
    assert bench.status.enqueued == 3


def test_a_collection_without_a_layout_gets_none_later(bench: Bench) -> None:
    add(bench, None, ("a", "text"))
    add(bench, Layout(MODEL), ("b", "text"))
    with pytest.raises(LayoutsDiffer, match="as float32 with all dimensions, not as float16 with"):
        add(bench, FLOAT16, ("c", "text"))
    assert bench.redis.hget(bench.collection.keys.info, "layout") is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_reader_gets_vectors_in_the_layout_of_the_collection(
    bench: Bench, layout: Layout
) -> None:
    add(bench, layout, *pairs(5))
    commit(bench, bench.claim(), layout)
    store, expected = bench.collection, [kept(f"text {n}", layout) for n in range(5)]
    names = [f"id{n}" for n in range(5)]

    def check(found: Sequence[Stored | None]) -> None:
        assert [one and (one.id, one.data, one.dtype) for one in found] == [
            (name, data, layout.dtype) for name, data in zip(names, expected)
        ]

    check(store.reader.get_many(names))
    check(store.reader.finished(0, PAGE_SIZE))
    check([one for page in store.reader.pages() for one in page])
    rows = decode(b"".join(expected), layout.dtype, 5)
    read, matrix = store.to_numpy()
    assert read == names and np.array_equal(matrix, rows)
    [record] = store.get_many(["id3"])
    assert record is not None and record.tobytes() == rows[3].tobytes()
    assert record.vector == rows[3].tolist() and record.dimensions == layout.length(768)
    status = bench.status
    assert (status.dimensions, status.answered_dimensions) == (layout.length(768), 768)
    assert (store.dimensions(), store.dtype()) == (layout.length(768), layout.dtype)
    assert store.get("nothing") is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_whole_vector_that_an_earlier_version_wrote_is_read_in_the_layout(
    bench: Bench, layout: Layout
) -> None:
    add(bench, layout, ("old", "text 1"), ("new", "text 2"))
    old, new = bench.claim()
    commit(bench, [new], layout)
    commit(bench, [old], layout)
    bench.redis.hdel(bench.collection.keys.doc("old"), layout.dtype)
    as_before(bench, "old", "text 1")
    found = bench.collection.reader.finished(0, 10)
    assert [one.data for one in found] == [kept("text 2", layout), kept("text 1", layout)]
    assert bench.collection.reader.get_many(["old"]) == [found[1]]


@pytest.mark.parametrize(
    "later", [Layout(MODEL, 256, "float16"), Layout(MODEL, 64, "int8")], ids=str
)
def test_a_vector_of_a_larger_layout_is_read_in_the_one_of_the_collection(
    bench: Bench, later: Layout
) -> None:
    add(bench, FLOAT16, *pairs(2))
    commit(bench, bench.claim(), FLOAT16)
    bench.redis.hset(bench.collection.keys.info, "layout", str(later))
    found = bench.collection.reader.finished(0, 10)
    first = decode(kept("text 0", FLOAT16), "float16")
    assert [one.dtype for one in found] == [later.dtype] * 2
    assert found[0].data == later.encode(first)[0]
    assert bench.collection.reader.get_many(["id0", "id1"]) == found


def test_a_commit_finds_the_layout_that_came_since_and_nothing_is_embedded_again(
    bench: Bench,
) -> None:
    add(bench, None, *pairs(3))
    first, second, third = bench.claim()
    commit(bench, [first])
    bench.redis.hset(bench.collection.keys.info, "layout", str(LAYOUTS[2]))
    assert commit(bench, [second]).stored == 1
    assert commit(bench, [third], FLOAT16).stored == 1
    assert [fields(bench, id) for id in ids([first, second, third])] == [
        {b"vector", b"hash"},
        {b"int8", b"hash"},
        {b"int8", b"hash"},
    ]
    found = bench.collection.reader.finished(0, 10)
    assert [one.data for one in found] == [kept(f"text {n}", LAYOUTS[2]) for n in range(3)]


def test_a_vector_that_is_replaced_is_in_one_form_alone(bench: Bench) -> None:
    add(bench, FLOAT16, ("a", "text 1"))
    commit(bench, bench.claim(), FLOAT16)
    as_before(bench, "a", "text 1")
    add(bench, None, ("a", "text 2"))
    commit(bench, bench.claim(), FLOAT16)
    assert fields(bench, "a") == {b"float16", b"hash"}
    assert bench.collection.reader.finished(0, 1)[0].data == kept("text 2", FLOAT16)


def test_reading_ends_when_the_layout_changes(bench: Bench) -> None:
    add(bench, FLOAT16, *pairs(3))
    commit(bench, bench.claim(), FLOAT16)
    pages = bench.collection.reader.pages()
    assert len(next(pages)) == 3
    bench.redis.hset(bench.collection.keys.info, "layout", str(LAYOUTS[2]))
    with pytest.raises(LayoutChanged, match="layout of collection wiki changed while it was read"):
        list(pages)
        list(bench.collection.reader.pages())
