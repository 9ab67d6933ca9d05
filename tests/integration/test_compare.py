"""`Collection.compare` and `vec compare`: what smaller vectors keep, before anything is lost."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import heavy
from numpy.typing import NDArray
from shell import Shell
from stored import Store

from worker.layout import Layout, LayoutError, decode
from worker.settings import Settings
from worker.store.errors import CollectionError, CollectionGone, LayoutChanged, UnknownCollection
from worker.types import Comparison, Embedded, Job

MODEL = "wordllama-256"
LENGTHS = (256, 128, 64)

Rows = NDArray[np.float32]


def made(count: int, seed: int = 1) -> Rows:
    """Vectors in some clusters, the first numbers of which say most."""
    chance = np.random.default_rng(seed)
    rows = chance.standard_normal((30, 256))[chance.integers(0, 30, count)]
    rows = (rows + chance.standard_normal((count, 256))) / np.sqrt(np.arange(1, 257))
    unit: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")
    return unit


class Wiki(Store):
    """A collection that is fed with vectors."""

    def feed(self, rows: Rows, name: str = "id", text: str = "") -> None:
        """Store them as the vectors of texts."""
        for at in range(0, len(rows), 1000):
            numbers = range(at, min(at + 1000, len(rows)))
            self.adder().add([Job(f"{name}-{number}", f"{number} {text}") for number in numbers])
        self.backlog.keep_alive("c")
        while leases := self.backlog.claim("c"):
            vectors = [rows[int(lease.job.text.split()[0])].tobytes() for lease in leases]
            embedded = [Embedded(lease, one, False) for lease, one in zip(leases, vectors)]
            self.backlog.commit(embedded, layout=self.reader.info().layout)
        self.backlog.release("c", end_slice=True)


@pytest.fixture
def wiki(settings: Settings) -> Wiki:
    """An empty collection of a model whose lengths are known."""
    return Wiki("wiki", settings=replace(settings, model=MODEL))


def kept(rows: Rows, layout: Layout) -> float:
    """The share of the ten nearest that the layout keeps, found in the plainest way."""
    small = decode(b"".join(layout.encode(rows)), layout.dtype, len(rows)).astype(float)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    share = 0
    for index, row in enumerate(rows.astype(float)):
        near, ours = rows @ row, small @ small[index]
        near[index] = ours[index] = -2
        exact = set(np.argsort(-near)[:10])
        share += len(exact & set(np.argsort(-ours)[:10]))
    return share / 10 / len(rows)


def by_layout(found: Comparison) -> dict[tuple[int, str], float]:
    return {(one.dimensions, one.dtype): one.kept for one in found.layouts}


def test_all_lengths_and_dtypes_are_compared_as_a_plain_count_does(wiki: Wiki) -> None:
    rows = made(700)
    wiki.feed(rows)
    found = wiki.compare()
    assert (found.vectors, found.compared, found.queries) == (700, 700, 700)
    shares = by_layout(found)
    assert list(shares) == [
        (length, dtype) for length in LENGTHS for dtype in ("float32", "float16", "int8")
    ]
    assert found.layouts[0].kept == 1.0
    for (length, dtype), share in list(shares.items())[1:]:
        layout = Layout(MODEL, length, dtype)
        assert share == pytest.approx(kept(rows, layout), abs=0.002), layout
    assert shares[256, "float16"] > shares[128, "float16"] > shares[64, "float16"]
    sizes = [one.bytes for one in found.layouts]
    assert sizes[0] == max(sizes) and sizes[-1] == min(sizes)
    assert wiki.dtype() == "float32"


def test_one_layout_or_one_of_its_halves_can_be_asked_for(wiki: Wiki) -> None:
    wiki.feed(made(120))
    now = (256, "float32")
    assert list(by_layout(wiki.compare(64, "int8"))) == [now, (64, "int8")]
    assert list(by_layout(wiki.compare(dtype="int8"))) == [now, *[(n, "int8") for n in LENGTHS]]
    assert list(by_layout(wiki.compare(100, "int8", force=True))) == [now, (100, "int8")]
    with pytest.raises(LayoutError, match="trained for 256, 128, 64"):
        wiki.compare(100)
    wiki.shrink(128, "float16")
    shares = by_layout(wiki.compare())
    assert list(shares) == [(128, "float16"), (128, "int8"), (64, "float16"), (64, "int8")]
    with pytest.raises(LayoutError, match="cannot become float16 with 256 dimensions"):
        wiki.compare(256)


def test_a_sample_lies_evenly_over_the_collection(wiki: Wiki) -> None:
    rows = made(4000)
    wiki.feed(rows)
    found = wiki.compare(64, "float16", sample=500)
    assert (found.vectors, found.compared, found.queries) == (4000, 500, 500)
    expected = kept(rows[7::8], Layout(MODEL, 64, "float16"))
    assert found.layouts[1].kept == pytest.approx(expected, abs=0.002)


def test_of_vectors_that_are_equally_near_any_is_right(wiki: Wiki) -> None:
    wiki.feed(np.repeat(made(8), 25, axis=0))
    assert set(by_layout(wiki.compare()).values()) == {1.0}


@pytest.mark.parametrize("count", [0, *heavy(1, 99)])
def test_too_few_vectors_are_not_compared(wiki: Wiki, shell: Shell, count: int) -> None:
    wiki.feed(made(count))
    wiki.adder().add([Job("waiting", "0")])
    said = f"collection wiki has {count} vectors: a comparison needs at least 100"
    with pytest.raises(CollectionError, match=said):
        wiki.compare()
    done = shell("vec", "compare", "wiki")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"Error: {said}\n")


def test_a_sample_in_which_all_are_among_the_ten_nearest_measures_nothing(
    wiki: Wiki, shell: Shell
) -> None:
    wiki.feed(made(200))

    for sample in (1, 11, 99):
        with pytest.raises(CollectionError, match=f"sample of at least 100, not of {sample}$"):
            wiki.compare(64, "int8", sample=sample)
    done = shell("vec", "compare", "wiki", "--sample", "5")
    told = "Error: a comparison needs a sample of at least 100, not of 5\n"
    assert (done.stdout, done.stderr) == ("", told)


def test_a_collection_that_is_not_there_cannot_be_compared(wiki: Wiki) -> None:
    with pytest.raises(UnknownCollection):
        wiki.compare()


def test_what_is_stored_meanwhile_is_left_out(wiki: Wiki) -> None:
    rows = made(5000)
    wiki.feed(rows)
    once = iter([1])

    def replace_some(done: int, total: int) -> None:
        for _ in once:
            wiki.feed(made(3000, seed=2), text="newer")

    found = wiki.compare(64, "float16", progress=replace_some)
    assert found.vectors == 5000 and 2000 <= found.compared < 5000
    assert by_layout(found)[64, "float16"] < 1


Act = Callable[[Wiki], object]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda wiki: wiki.drop(), CollectionGone),
        (lambda wiki: wiki.shrink(128, "float16"), LayoutChanged),
    ],
)
def test_a_collection_that_becomes_another_meanwhile_ends_the_comparison(
    wiki: Wiki, act: Act, error: type[Exception]
) -> None:
    wiki.feed(made(5000))
    with pytest.raises(error):
        wiki.compare(64, "float16", progress=lambda done, total: act(wiki))


@pytest.mark.heavy
def test_the_memory_of_a_comparison_does_not_grow_with_the_vectors(wiki: Wiki) -> None:
    peaks = []
    for count in (5000, 20_000):
        wiki.feed(made(count), name=f"of {count}")
        tracemalloc.start()
        try:
            found = wiki.compare(64, "float16", sample=1_000_000)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert found.compared == 25_000
    assert peaks[1] < 1.2 * peaks[0]


# The command


@pytest.mark.heavy
def test_the_command_shows_a_table_and_the_same_as_json(wiki: Wiki, shell: Shell) -> None:
    wiki.feed(made(300))
    done = shell("vec", "compare", "wiki", "--dimensions", "64", "--sample", "200")
    print(done.stdout, done.stderr)
    said = "wiki: of all vectors less is kept than of a sample: --sample 300\n"
    assert (done.returncode, done.stderr) == (0, said)
    first, head, now, *others = done.stdout.splitlines()
    assert first == "wiki: 200 vectors of 300 compared with 200"
    assert head == "DIMENSIONS  DTYPE    TOP 10 KEPT  BYTES A VECTOR  ALL VECTORS"
    assert re.fullmatch(r" +256  float32 +1\.0000 +1,[346]\d\d +4\d\d kB  now", now)
    assert [line.split()[:2] for line in others] == [
        ["64", "float32"],
        ["64", "float16"],
        ["64", "int8"],
    ]
    words = ("--dimensions", "64", "--dtype", "int8", "--sample", "200", "--json")
    shown = json.loads(shell("vec", "compare", "wiki", *words).stdout)
    assert {name: shown[name] for name in ("collection", "vectors", "compared", "queries")} == {
        "collection": "wiki",
        "vectors": 300,
        "compared": 200,
        "queries": 200,
    }
    own, smaller = shown["layouts"]
    assert own["kept"] == 1 and own["bytes_of_all"] == pytest.approx(300 * own["bytes"])
    assert (smaller["dimensions"], smaller["dtype"]) == (64, "int8")
    assert f"{smaller['kept']:.4f}" == others[2].split()[2]
