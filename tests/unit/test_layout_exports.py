"""Exports of smaller vectors: each kind of file has the numbers in the layout of the collection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray

from worker.export.files import ExportError, export
from worker.export.folder import Folder
from worker.layout import PLAIN, Layout, decode
from worker.types import Stored

LAYOUTS = [PLAIN, Layout("m", None, "float16"), Layout("m", 4, "float32"), Layout("m", 4, "int8")]


def stored(layout: Layout) -> tuple[list[Stored], NDArray[np.float32]]:
    """Ten stored vectors, and what is read of them."""
    rows = np.random.default_rng(1).standard_normal((10, 8)).astype(np.float32)
    data = layout.encode(rows)
    records = [
        Stored(f"id{n}", one, "m", False, None, None, n + 1, bytes(16), layout.dtype)
        for n, one in enumerate(data)
    ]
    return records, decode(b"".join(data), layout.dtype, len(data))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_arrays_have_the_dtype_of_the_collection(tmp_path: Path, layout: Layout) -> None:
    records, rows = stored(layout)
    expected = np.frombuffer(b"".join(one.data for one in records), layout.dtype)
    export(records, str(tmp_path / "out.npz"))
    export(records, str(tmp_path / "out.npy"))
    with np.load(tmp_path / "out.npz") as archive:
        zipped = archive["vectors"]
    for array in (zipped, np.load(tmp_path / "out.npy", mmap_mode="r")):
        assert array.dtype == layout.dtype and array.shape == rows.shape
        assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_parquet_has_the_dtype_of_the_collection(tmp_path: Path, layout: Layout) -> None:
    records, rows = stored(layout)
    export(records, str(tmp_path / "out.parquet"))
    table = parquet.read_table(tmp_path / "out.parquet")
    kind = table.schema.field("vector").type
    alias = {"float16": "halffloat", "float32": "float"}.get(layout.dtype, layout.dtype)
    assert (str(kind.value_type), kind.list_size) == (alias, rows.shape[1])
    numbers = table["vector"].combine_chunks().flatten().to_numpy()
    assert numbers.tobytes() == b"".join(one.data for one in records)
    assert table["dimensions"].to_pylist() == [rows.shape[1]] * 10
    assert table.schema.metadata[b"dimensions"] == str(rows.shape[1]).encode()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_json_lines_have_floats_of_the_length_of_the_layout(tmp_path: Path, layout: Layout) -> None:
    records, rows = stored(layout)
    export(records, str(tmp_path / "out.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.array([line["vector"] for line in lines], np.float32).tobytes() == rows.tobytes()
    assert {line["dimensions"] for line in lines} == {rows.shape[1]}


def test_a_folder_has_vectors_of_one_layout(tmp_path: Path) -> None:
    float16, int8 = LAYOUTS[1], LAYOUTS[3]
    first = Folder(str(tmp_path), "wiki")
    first.accept(b"life", int8)
    first.accept(b"life", float16)  # it has no files yet
    first.write(stored(float16)[0])
    first.accept(b"life", float16)
    told = (
        "holds vectors of wiki as float16 with all dimensions, and they are stored as int8 with 4 "
        "dimensions now: name a new folder"
    )
    for other in (int8, PLAIN):
        with pytest.raises(ExportError, match=told if other is int8 else "float32 with all"):
            Folder(str(tmp_path), "wiki").accept(b"life", other)
    Folder(str(tmp_path), "news").accept(b"life", int8)
