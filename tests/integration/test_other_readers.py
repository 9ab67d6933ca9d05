"""What other programs read of our files: the lines of the documentation, run in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import StartWorker
from shell import Shell

from worker.export.files import export, write_as
from worker.types import Stored

pytestmark = pytest.mark.elsewhere
duckdb: Any = pytest.importorskip("duckdb")
faiss: Any = pytest.importorskip("faiss")
np: Any = pytest.importorskip("numpy")

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```\n(.*?)^```\n", re.M | re.S)


def test_the_examples_for_duckdb_and_faiss_print_what_the_page_shows(
    shell: Shell, worker_process: StartWorker, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    worker_process()
    shell.write("wiki.jsonl", *({"id": id, "text": id} for id in ("q42", "q64")))
    assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0
    for name in ("wiki.parquet", "wiki.npy"):
        assert shell("vec", "export", "wiki", "-o", name).returncode == 0
    monkeypatch.chdir(shell.directory)
    ran = []
    for code, output in EXAMPLE.findall((DOCS / "read.md").read_text()):
        library = re.search("import (duckdb|faiss)$", code, re.M)
        if library is not None:
            exec(code, {})
            assert capsys.readouterr().out == output
            ran.append(library[1])
    assert ran == ["duckdb", "faiss"]


def test_duckdb_finds_the_valid_vectors_of_a_folder_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "follow-and-evict.md").read_text()
    sql = re.search(r"^```sql\n(.*?)^```$", page, re.M | re.S)
    assert sql is not None
    folder = tmp_path / "vectors"
    folder.mkdir()
    rows = [("a", 1.0, 1), ("b", 2.0, 2), ("c", 3.0, 3), ("a", 4.0, 4)]
    stored = [
        Stored(id, np.float32([number]).tobytes(), "m", False, number=at, digest=bytes(16))
        for id, number, at in rows
    ]
    with (folder / "wiki-000000000001-000000000004.parquet").open("wb") as file:
        write_as("parquet", stored, file, positions=True)
    dead = folder / "wiki-000000000005-000000000005.tombstones"
    dead.write_text(json.dumps({"id": "b", "number": 5}) + "\n")
    monkeypatch.chdir(tmp_path)
    assert sorted(duckdb.sql(sql[1]).fetchall()) == [("a", [4.0]), ("c", [3.0])]


def test_duckdb_reads_json_lines_and_the_ids_beside_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = ["é\n", '"', "🎉", "c"]
    records = [Stored(id, np.float32([1, 2]).tobytes(), "m", False, id) for id in ids]
    export(records, "wiki.jsonl")
    export(records, "wiki.npy")
    assert duckdb.sql("SELECT id, vector, text FROM 'wiki.jsonl'").fetchall() == [
        (id, [1.0, 2.0], id) for id in ids
    ]
    found = duckdb.sql("SELECT json FROM read_json('wiki.ids.json', format = 'array')").fetchall()
    assert [row[0] for row in found] == ids


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_duckdb_and_faiss_read_every_type_of_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = np.array([[1, 0, 0, 0], [0, 3, 4, 0], [5, 0, 0, 12]], dtype)
    records = [
        Stored(f"q{i}", row.tobytes(), "m", False, dtype=dtype) for i, row in enumerate(numbers)
    ]
    for name in ("wiki.parquet", "wiki.npy"):
        export(records, name)
    found = duckdb.sql("SELECT vector::FLOAT[4] FROM 'wiki.parquet' ORDER BY id").fetchall()
    assert [list(row[0]) for row in found] == numbers.tolist()
    vectors = np.load("wiki.npy", mmap_mode="r")
    assert vectors.dtype == dtype
    index = faiss.IndexFlatL2(4)
    index.add(vectors)
    assert index.search(vectors, 1)[1].tolist() == [[0], [1], [2]]
