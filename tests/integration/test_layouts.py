"""Collections that store smaller vectors: born so, written by workers, read back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import redis
from conftest import StartWorker
from servers import API
from shell import Shell
from stored import Bench, Store, ids, pairs

from worker import LayoutChanged, LayoutError, LayoutsDiffer, Record, Settings, enqueue
from worker.export.files import ExportError
from worker.export.folder import Folder
from worker.export.follow import Options, SinkExport
from worker.layout import PLAIN, Layout, decode
from worker.store.adder import Adder
from worker.store.reader import PAGE_SIZE
from worker.store.search import Search
from worker.testing import in_memory
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


@pytest.mark.parametrize("layout", [PLAIN, *LAYOUTS], ids=str)
def test_a_commit_to_a_collection_that_was_dropped_stores_nothing(
    bench: Bench, layout: Layout
) -> None:
    add(bench, layout, *pairs(3))
    leases = bench.claim()
    bench.collection.drop()
    assert commit(bench, leases, layout) == Committed(stored=0, dead=0, superseded=0, fenced=3)
    assert not bench.redis.exists(bench.collection.keys.info)


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


@pytest.mark.parametrize("smaller", [(256, "float32"), (None, "float16"), (64, "int8")])
def test_a_search_ends_when_the_vectors_that_it_found_are_shrunk(
    bench: Bench, smaller: tuple[int | None, str]
) -> None:
    add(bench, None, *pairs(3))
    commit(bench, bench.claim())
    store = bench.collection
    search = Search(store.client, store.keys)
    query = decode(whole("text 1"), "float32")[0]
    with pytest.raises(LayoutChanged):
        search.nearest(query, 2, progress=lambda compared: store.shrink(*smaller))
    assert search.nearest(query, 1)[0].record.id == "id1"


def test_a_vector_that_is_shrunk_between_a_look_at_the_layout_and_at_it_is_read(
    bench: Bench,
) -> None:
    add(bench, None, *pairs(2))
    commit(bench, bench.claim())
    store = bench.collection
    store.shrink(None, "float16")
    bench.redis.hdel(store.keys.info, "layout")  # as the reader has seen it before
    found = store.reader.get_many(["id0", "none", "id1"])
    cosines = [
        None if one is None else np.dot(decode(one.data, one.dtype)[0], decode(unit, "float32")[0])
        for one, unit in zip(found, [kept(f"text {n}", Layout(MODEL, 768)) for n in (0, 0, 1)])
    ]
    assert cosines == [pytest.approx(1, abs=1e-3), None, pytest.approx(1, abs=1e-3)]


class ShrunkWhileRead(Store):
    """A collection that is shrunk after its last vector was read."""

    def __iter__(self) -> Iterator[Record]:
        yield from super().__iter__()
        self.shrink(64)


def test_a_matrix_has_the_length_of_the_vectors_that_were_read(bench: Bench) -> None:
    add(bench, None, *pairs(3))
    commit(bench, bench.claim())
    names, matrix = ShrunkWhileRead("wiki", settings=bench.settings).to_numpy()
    assert (names, matrix.shape) == (["id0", "id1", "id2"], (3, 768))
    assert matrix.tobytes() == b"".join(whole(f"text {n}") for n in range(3))
    assert bench.collection.to_numpy()[1].shape == (3, 64)


def outcomes(settings: Settings) -> list[object]:
    """What programs get that enqueue with and without a layout."""
    asked: list[tuple[str, dict[str, object]]] = [
        ("small", {"dimensions": 256, "dtype": "int8"}),
        ("small", {}),
        ("small", {"dtype": "int8", "dimensions": 256}),
        ("small", {"dtype": "float16"}),
        ("small", {"dimensions": 300}),
        ("small", {"dimensions": 300, "force": True}),
        ("whole", {}),
        ("whole", {"dimensions": 768}),
        ("whole", {"dtype": "float16"}),
    ]
    found: list[object] = []
    for name, how in asked:
        try:
            texts = ["one", "two"]
            found.append(enqueue(texts, name, model=MODEL, settings=settings, **how))  # type: ignore[arg-type]
        except (LayoutError, LayoutsDiffer) as error:
            found.append((type(error), str(error)))
    return found


def test_programs_name_the_layout_and_without_redis_get_the_same_answers(
    settings: Settings,
) -> None:
    with in_memory():
        expected = outcomes(settings)
    found = outcomes(settings)
    assert found == expected
    kinds = [kind[0] if isinstance(kind, tuple) else None for kind in found]
    assert kinds == [
        None,
        None,
        None,
        *[LayoutsDiffer, LayoutError, LayoutsDiffer],
        None,
        None,
        LayoutsDiffer,
    ]


def follow(bench: Bench, path: Path, *, evict: bool = False) -> SinkExport:
    folder = Folder(str(path), "wiki", "parquet")
    return SinkExport(folder, bench.settings, Options(evict=evict), tell=lambda read: None)


def test_a_folder_continues_until_the_layout_changes_and_says_what_to_do(
    bench: Bench, tmp_path: Path
) -> None:
    add(bench, FLOAT16, *pairs(4))
    commit(bench, bench.claim(), FLOAT16)
    [published] = follow(bench, tmp_path / "a", evict=True).run()
    assert (published.vectors, published.evicted, bench.status.evicted) == (4, 4, 4)
    add(bench, None, ("late", "text"))
    commit(bench, bench.claim(), FLOAT16)
    assert [one.vectors for one in follow(bench, tmp_path / "a").run()] == [1]
    bench.redis.hset(bench.collection.keys.info, "layout", str(LAYOUTS[2]))
    with pytest.raises(ExportError, match="as float16 with all dimensions, .* name a new folder"):
        list(follow(bench, tmp_path / "a", evict=True).run())
    assert (bench.status.embedded, bench.status.evicted) == (1, 4)
    assert [one.vectors for one in follow(bench, tmp_path / "b", evict=True).run()] == [1]


def test_an_export_in_which_the_layout_changes_evicts_nothing_more(
    bench: Bench, tmp_path: Path
) -> None:
    add(bench, FLOAT16, *pairs(3))
    commit(bench, bench.claim(), FLOAT16)
    folder = Folder(str(tmp_path), "wiki", "parquet")

    def change(read: int) -> None:
        bench.redis.hset(bench.collection.keys.info, "layout", str(LAYOUTS[2]))

    run = SinkExport(folder, bench.settings, Options(evict=True), tell=change)
    with pytest.raises(LayoutChanged, match="changed while it was read"):
        list(run.run())
    assert bench.status.evicted == 0 and folder.files() == []


def test_the_command_sets_the_layout_and_one_line_says_what_cannot_be(
    shell: Shell, bench: Bench
) -> None:
    shell.write("wiki.jsonl", {"id": "a", "text": "text"})
    bad = [
        (["--dimensions", "300"], "Error: 300 dimensions: nomic-v1.5 was trained for 768, 512, "),
        (["--dtype", "float8"], "'float8' is not one of 'float32', 'float16', 'int8'"),
        (["--dimensions", "300"], "lose much; use --force if you know that it does not\n"),
        (["--force"], "Error: --force goes with --dimensions."),
    ]
    for options, told in bad:
        answer = shell("vec-enqueue", "wiki.jsonl", *options)
        assert answer.returncode == 2 and told in answer.stderr, answer
    small = ["--dimensions", "256", "--dtype", "float16"]
    assert shell("vec-enqueue", "wiki.jsonl", *small).returncode == 0
    assert shell("vec-enqueue", "wiki.jsonl", *small).returncode == 0
    answer = shell("vec-enqueue", "wiki.jsonl", "--dtype", "int8")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert "stores vectors as float16 with 256 dimensions, not as int8" in answer.stderr
    assert "vec shrink wiki" in answer.stderr
    layout = Layout(MODEL, 256, "float16")
    commit(bench, bench.claim(), layout)
    page = shell("vec", "status", "wiki").stdout
    assert "nomic-v1.5, 256 of 768 dimensions, float16, about 970 bytes of memory a vector" in page
    assert shell("vec", "verify", "wiki.jsonl").returncode == 0
    shell("vec", "export", "wiki", "-o", "vectors/", "--evict")
    assert shell("vec", "verify", "wiki.jsonl", "--export", "vectors/").returncode == 0
    plan = shell("vec-enqueue", "wiki.jsonl", "--dry-run", *small).stdout
    assert "for 1 vector of 256 dimensions, float16" in plan
    assert "with --dimensions 256 --dtype int8" in plan and "with --dtype float32" in plan


def test_a_vector_of_which_a_cut_leaves_nothing_is_refused_and_the_others_are_stored(
    bench: Bench, api: API, worker_process: StartWorker
) -> None:
    api.faults(rules=[{"answer": "even", "marker": "text 7"}])
    texts = [(f"id{n}", f"text {n}") for n in range(10)]
    enqueue(texts, "wiki", model=MODEL, dimensions=64, settings=bench.settings)
    worker_process()
    status = bench.collection.wait(60)
    assert (status.embedded, status.dead) == (9, 1)
    [letter] = bench.collection.dead()
    assert (letter.id, letter.code) == ("id7", "bad_response")
