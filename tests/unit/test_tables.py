"""Tables of other libraries as they are: DataFrames, Arrow tables, HuggingFace datasets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from worker import Job, aenqueue, enqueue
from worker.producer import Receipt
from worker.testing import in_memory
from worker.types import default_id

pytestmark = [pytest.mark.elsewhere, pytest.mark.filterwarnings("default")]  # of the libraries

Columns = Mapping[str, Sequence[object]]
FRAME: Columns = {"id": ["a", "b", "c"], "text": ["one", "two", "three"]}
JOBS = [Job("a", "one"), Job("b", "two"), Job("c", "three")]
KINDS = ("pandas", "polars", "pyarrow", "dataset", "iterable", "generator")


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setitem(os.environ, name, "1")
    monkeypatch.setitem(os.environ, "HF_HOME", str(tmp_path))


def library(name: str) -> Any:
    return pytest.importorskip(name)


def table(kind: str, columns: Columns) -> Any:
    """The columns in a table of that kind."""
    if kind == "pyarrow":
        return library("pyarrow").table(dict(columns))
    if kind in ("pandas", "polars"):
        return library(kind).DataFrame(dict(columns))
    datasets = library("datasets")
    if kind == "generator":
        rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
        return datasets.IterableDataset.from_generator(lambda: iter(rows))
    dataset = datasets.Dataset.from_dict(dict(columns))
    return dataset.to_iterable_dataset() if kind == "iterable" else dataset


def enqueued(texts: Any, **long: Any) -> tuple[Receipt, list[Job]]:
    with in_memory() as memory:
        receipt = enqueue(texts, "wiki", **long)
        return receipt, memory.jobs("wiki")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_table_is_enqueued_row_by_row(kind: str) -> None:
    assert enqueued(table(kind, FRAME))[1] == JOBS
    with in_memory() as memory:
        assert (await aenqueue(table(kind, FRAME), "wiki")).new == 3
        assert memory.jobs("wiki") == JOBS


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_are_ids_and_a_missing_text_costs_its_row(kind: str) -> None:
    receipt, jobs = enqueued(table(kind, {"id": [1, 2], "text": ["one", None]}))
    assert jobs == [Job("1", "one")]
    (rejection,) = receipt.rejections
    assert (rejection.line, rejection.reason) == (2, "text: not a string but null")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_ids_have_the_hash_of_their_text(kind: str) -> None:
    assert enqueued(table(kind, {"text": ["one"]}))[1] == [Job(default_id("one"), "one")]


@pytest.mark.parametrize("kind", KINDS)
def test_other_columns_are_kept_as_json_can_hold_them(kind: str) -> None:
    others: dict[str, Sequence[object]] = {
        "label": [1],
        "score": [float("nan")],
        "tags": [["x", "y"]],
        "source": [{"page": 7, "of": {"name": "book"}}],
        "day": [date(2026, 1, 2)],
        "at": [datetime(2026, 1, 2, 3)],
        "a.b": ["dot"],
    }
    receipt, jobs = enqueued(table(kind, {"id": ["a"], "text": ["one"], **others}))
    assert not receipt.rejections
    kept = dict(jobs[0].meta or {})
    assert str(kept.pop("at")).startswith("2026-01-02 03:00:00")
    wanted = {name: values[0] for name, values in others.items() if name != "at"}
    assert kept == {**wanted, "score": None, "day": "2026-01-02"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_with_another_name_is_an_error_that_names_those_there_are(kind: str) -> None:
    with in_memory(), pytest.raises(TypeError, match="'text': .*'id', 'body'"):
        enqueue(table(kind, {"id": ["a"], "body": ["one"]}), "wiki")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_json_cannot_hold_is_named(kind: str) -> None:
    columns: Columns = {"id": ["a"], "text": ["one"], "n": [1], "raw": [b"\xff"]}
    with in_memory():
        try:
            receipt = enqueue(table(kind, columns), "wiki")
        except TypeError as error:
            reason = str(error)
        else:
            reason = receipt.rejections[0].reason
    assert "'raw'" in reason and "JSON cannot hold" in reason


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_of_a_table_are_split(kind: str) -> None:
    pytest.importorskip("semantic_text_splitter")
    columns: Columns = {"id": ["a"], "text": ["word " * 1000], "page": [1]}
    _, jobs = enqueued(table(kind, columns), long="split", chunk_size=2500)
    assert [job.id for job in jobs] == ["a#0001", "a#0002"]
    assert [(job.meta or {})["page"] for job in jobs] == [1, 1]


# --- pandas


@pytest.mark.parametrize("ids", [[1, 2, 3], ["x", "y", "z"], [5, 3, 9]])
def test_an_index_that_is_called_id_has_the_ids(ids: Sequence[object]) -> None:
    frame = table("pandas", {**FRAME, "id": ids}).set_index("id")
    assert [job.id for job in enqueued(frame)[1]] == [str(id) for id in ids]
    several = table("pandas", {**FRAME, "id": ids, "n": [1, 1, 2]}).set_index(["n", "id"])
    assert [job.id for job in enqueued(several)[1]] == [str(id) for id in ids]


def test_an_index_without_a_name_is_left_out() -> None:
    frame = table("pandas", FRAME)[::2].set_axis(["x", "y"])
    assert enqueued(frame)[1] == [JOBS[0], JOBS[2]]


def test_nullable_and_categorical_columns_are_read() -> None:
    pandas = library("pandas")
    frame = pandas.DataFrame(
        {
            "id": pandas.array([1, None], "Int64"),
            "text": pandas.Categorical(["one", "two"]),
            "flag": pandas.array([None, True], "boolean"),
            "kind": pandas.Categorical(["x", None]),
        }
    )
    assert enqueued(frame)[1] == [
        Job("1", "one", {"flag": None, "kind": "x"}),
        Job(default_id("two"), "two", {"flag": True, "kind": None}),
    ]


@pytest.mark.parametrize("column", ["id", "text"])
def test_a_column_of_several_types_is_an_error_that_names_it(column: str) -> None:
    columns = {**FRAME, column: [1, "x", 2.5]}
    with in_memory(), pytest.raises(TypeError, match=f"column {column} .*: leave it out, or conv"):
        enqueue(table("pandas", columns), "wiki")


def test_records_of_a_frame_with_missing_values_are_rows() -> None:
    pandas = library("pandas")
    columns = {**FRAME, "x": [1.5, None, 2], "at": pandas.to_datetime(["2026-01-02", None, None])}
    records = table("pandas", columns).to_dict("records")
    assert [job.meta for job in enqueued(records)[1]] == [
        {"x": 1.5, "at": "2026-01-02 00:00:00"},
        {"x": None, "at": None},
        {"x": 2.0, "at": None},
    ]


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_one_column_is_its_texts(kind: str) -> None:
    assert [job.text for job in enqueued(table(kind, FRAME)["text"])[1]] == FRAME["text"]


# --- polars


def test_a_lazy_frame_is_an_error_that_says_to_compute_it() -> None:
    with in_memory(), pytest.raises(TypeError, match=r"enqueue its collect\(\)"):
        enqueue(table("polars", FRAME).lazy(), "wiki")


def test_vectors_of_one_length_are_kept() -> None:
    polars = library("polars")
    vectors = polars.Series([[1.0, 2.0]] * 3, dtype=polars.Array(polars.Float32, 2))
    frame = table("polars", FRAME).with_columns(vectors.alias("v"))
    assert enqueued(frame)[1][0].meta == {"v": [1.0, 2.0]}


# --- datasets


@pytest.mark.parametrize("format", ["numpy", "pandas", "polars", "arrow", "python"])
def test_a_dataset_of_any_format_is_read(format: str) -> None:
    dataset = table("dataset", {**FRAME, "n": [1, 2, 3], "v": [[0.5]] * 3}).with_format(format)
    assert enqueued(dataset)[1] == [
        job._replace(meta={"n": n, "v": [0.5]}) for n, job in enumerate(JOBS, 1)
    ]
    some = dataset.with_format(format, columns=["text", "id"])
    assert enqueued(some)[1] == JOBS


def test_a_dataset_that_was_chosen_from_and_changed_is_read_so() -> None:
    dataset = table("dataset", FRAME)
    assert enqueued(dataset.select([2, 0]))[1] == [JOBS[2], JOBS[0]]
    changed = dataset.with_transform(lambda rows: {**rows, "text": [t * 2 for t in rows["text"]]})
    assert [job.text for job in enqueued(changed)[1]] == ["oneone", "twotwo", "threethree"]
    renamed = table("dataset", {"id": ["a"], "body": ["one"]}).rename_column("body", "text")
    assert enqueued(renamed)[1] == [JOBS[0]]


@pytest.mark.parametrize("kind", ["DatasetDict", "IterableDatasetDict"])
def test_a_dictionary_of_datasets_is_an_error_that_names_them(kind: str) -> None:
    one = table("dataset" if kind == "DatasetDict" else "iterable", FRAME)
    several = getattr(library("datasets"), kind)(train=one, test=one)
    with in_memory(), pytest.raises(TypeError, match="mapping of 'train', 'test' to texts: "):
        enqueue(several, "wiki")
