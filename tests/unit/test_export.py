"""An export holds every record, bit for bit, and is there whole or not at all."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.export.files import ExportError, check_output, export
from worker.types import Record, Stored

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def repacked(numbers: list[float]) -> bytes:
    """What a reader has who casts the numbers of a JSON line to float32."""
    return bytes(np.array(numbers, dtype=np.float64).astype("<f4").tobytes())


RECORDS = [
    Stored("a", packed(1.0, -0.0, 0.1), "nomic-v1.5", True),
    Stored("ü/🎉", packed(1e-45, 3.4028235e38, -1 / 3), "nomic-v1.5", False, "der Text\n"),
    Stored("b\0c", packed(0.0, 1e-7, 1e16), "nomic-v1.5", False, "", {"n": [1, None], "é": "ü"}),
]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- What is in it


def test_a_line_of_json_has_the_record_and_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert export([Stored("a", packed(0.5, -2.0), "m", True)], str(path)) == 1
    assert path.read_bytes() == (
        b'{"id":"a","vector":[0.5,-2.0],"model":"m","dimensions":2,"cached":true}\n'
    )
    assert export(RECORDS, str(path)) == 3
    assert [line.get("text") for line in lines(path)] == [None, "der Text\n", ""]
    assert [line.get("meta") for line in lines(path)] == [None, None, {"n": [1, None], "é": "ü"}]
    assert [line["id"] for line in lines(path)] == ["a", "ü/🎉", "b\0c"]
    assert "text" not in lines(path)[0]


def test_meta_with_whole_numbers_above_64_bits_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export([Stored("a", packed(1.0), "m", False, None, {"n": 2**70})], str(path))
    assert lines(path)[0]["meta"] == {"n": 2**70}


def test_npz_has_ids_and_vectors_and_loads_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    assert export(RECORDS, str(path)) == 3
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["ids", "vectors"]
        assert archive["ids"].tolist() == [record.id for record in RECORDS]
        assert archive["vectors"].dtype == np.float32
        assert archive["vectors"].shape == (3, 3)
        assert archive["vectors"].tobytes() == b"".join(record.data for record in RECORDS)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 3000])
def test_npz_of_any_length_passes_its_checksums(tmp_path: Path, count: int) -> None:
    path = tmp_path / "out.npz"
    data = [os.urandom(400) for _ in range(count)]
    export((Stored(str(n), row, "m", False) for n, row in enumerate(data)), str(path))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["vectors.npy", "ids.npy"]
        assert archive.testzip() is None
    with np.load(path) as arrays:
        assert arrays["vectors"].tobytes() == b"".join(data)
        assert arrays["ids"].tolist() == [str(n) for n in range(count)]


def ids_beside(path: Path) -> list[str]:
    ids: list[str] = json.loads(path.with_suffix(".ids.json").read_text(encoding="ascii"))
    return ids


def test_npy_is_mapped_into_memory_and_its_ids_lie_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "out.v2.npy"
    odd = [Stored(id, packed(1, 2, 3), "m", False) for id in ("a\nb", "\u2028", '"', "end\0")]
    assert export([*RECORDS, *odd], str(path)) == 7
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.v2.ids.json", "out.v2.npy"]
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    assert isinstance(vectors, np.memmap)
    assert (vectors.dtype, vectors.shape) == (np.float32, (7, 3))
    assert vectors.tobytes() == b"".join(record.data for record in [*RECORDS, *odd])
    assert ids_beside(path) == [record.id for record in [*RECORDS, *odd]]
    assert len(path.with_suffix(".ids.json").read_bytes().splitlines()) == 7  # for grep


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 3000])
def test_npy_of_any_length_has_a_row_for_each_id(tmp_path: Path, count: int) -> None:
    path = tmp_path / "out.npy"
    data = [os.urandom(400) for _ in range(count)]
    export((Stored(str(n), row, "m", False) for n, row in enumerate(data)), str(path))
    assert np.load(path).tobytes() == b"".join(data)
    assert ids_beside(path) == [str(n) for n in range(count)]


def test_parquet_has_a_column_for_each_key(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    assert export(RECORDS, str(path)) == 3
    table = pq.read_table(path)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
    assert table.schema.metadata[b"model"] == b"nomic-v1.5"
    assert table.schema.metadata[b"dimensions"] == b"3"
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [record.id for record in RECORDS]
    assert [repacked(row["vector"]) for row in rows] == [record.data for record in RECORDS]
    assert [row["cached"] for row in rows] == [True, False, False]
    assert [row["text"] for row in rows] == [None, "der Text\n", ""]
    assert [row["meta"] for row in rows] == [None, None, '{"n":[1,null],"é":"ü"}']
    assert {(row["model"], row["dimensions"]) for row in rows} == {("nomic-v1.5", 3)}


def test_more_rows_than_a_row_group_are_all_written(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    records = (Stored(str(n), packed(float(n)), "m", False) for n in range(10_000))
    assert export(records, str(path)) == 10_000
    table = pq.read_table(path)
    assert table["id"].to_pylist() == [str(n) for n in range(10_000)]
    assert table["vector"].to_pylist() == [[float(n)] for n in range(10_000)]


@pytest.mark.parametrize("suffix", ["jsonl", "npz", "npy", "parquet"])
def test_an_export_of_nothing_is_a_file_that_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    assert export([], str(path)) == 0
    if suffix == "jsonl":
        assert path.read_bytes() == b""
    elif suffix == "npz":
        with np.load(path) as archive:
            assert len(archive["ids"]) == len(archive["vectors"]) == 0
    elif suffix == "npy":
        assert np.load(path, mmap_mode="r").shape == (0, 0)
        assert ids_beside(path) == []
    else:
        assert pq.read_table(path).num_rows == 0


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
# The one float32 whose shortest decimal a float64 carries to its neighbour.
misread = st.sampled_from([0x15AE43FD, 0x95AE43FD]).map(
    lambda bits: struct.unpack("<f", struct.pack("<I", bits))[0]
)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
in_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_file
@given(
    rows=st.lists(
        st.tuples(
            ids.filter(lambda id: not id.endswith("\0")),
            st.lists(finite | misread, min_size=3, max_size=3),
        ),
        max_size=6,
    )
)
@pytest.mark.parametrize("suffix", ["jsonl", "npz", "npy", "parquet"])
def test_every_float32_survives_the_export(
    tmp_path: Path, suffix: str, rows: list[tuple[str, list[float]]]
) -> None:
    path = tmp_path / f"out.{suffix}"
    records = [Stored(id, packed(*numbers), "m", False) for id, numbers in rows]
    assert export(records, str(path)) == len(records)
    if suffix == "jsonl":
        read = [(line["id"], repacked(line["vector"])) for line in lines(path)]  # type: ignore[arg-type]
    elif suffix == "npz":
        with np.load(path) as archive:
            read = [(str(id), row.tobytes()) for id, row in zip(archive["ids"], archive["vectors"])]
    elif suffix == "npy":
        read = [(id, row.tobytes()) for id, row in zip(ids_beside(path), np.load(path))]
    else:
        read = [(row["id"], repacked(row["vector"])) for row in pq.read_table(path).to_pylist()]
    assert read == [(record.id, record.data) for record in records]


def test_numbers_are_written_as_short_as_float32_allows(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export([Stored("a", packed(0.1, 0.7, 1 / 3), "m", False)], str(path))
    assert b'"vector":[0.1,0.7,0.33333334]' in path.read_bytes()


@pytest.mark.parametrize("suffix", ["jsonl", "npz", "npy", "parquet"])
def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path, suffix: str) -> None:
    data = os.urandom(24 * 4).replace(b"\x7f", b"\x3f").replace(b"\xff", b"\x3f")

    def peak(count: int) -> int:
        records = (Stored(f"id {n}", data, "m", False) for n in range(count))
        tracemalloc.start()
        export(records, str(tmp_path / f"out.{suffix}"))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest + int(pa.default_memory_pool().max_memory())

    peak(100)  # imports and caches
    few, many = peak(9000), peak(18_000)
    assert many < few + 800_000  # measured: 0.3 MB at most, and 1.3 at least if they are kept


# --- Whole or not at all


def failing(records: list[Stored], error: BaseException) -> Iterator[Stored]:
    yield from records
    raise error


@pytest.mark.parametrize("suffix", ["jsonl", "npz", "npy", "parquet"])
@pytest.mark.parametrize("error", [RuntimeError("lost"), KeyboardInterrupt()])
def test_an_export_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, suffix: str, error: BaseException
) -> None:
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        export(failing(RECORDS * 3000, error), str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_while_it_is_written_there_is_nothing_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    def records() -> Iterator[Stored]:
        for record in RECORDS:
            assert not path.exists()
            assert [other.suffix for other in tmp_path.iterdir()] == [".part"]
            yield record

    assert export(records(), str(path)) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_new_vectors_never_lie_beside_old_ids_nor_old_ones_beside_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.npy"
    export(RECORDS[:1], str(path))
    seen: list[tuple[int | None, int]] = []
    replace = os.replace

    def look(source: Path, target: Path) -> None:
        replace(source, target)
        seen.append((len(np.load(path)) if path.exists() else None, len(ids_beside(path))))

    monkeypatch.setattr(os, "replace", look)
    assert export(RECORDS, str(path)) == 3
    assert seen == [(None, 3), (3, 3)]


def test_a_link_stays_a_link_to_the_new_export(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.bin"
    target.write_bytes(b"old")
    link = tmp_path / "out.jsonl"
    link.symlink_to(target)
    export(RECORDS, str(link))
    assert link.is_symlink()
    assert len(lines(target)) == 3


def test_an_export_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        export(RECORDS, str(tmp_path / "out.jsonl"))
    finally:
        os.umask(umask)
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("suffix", ["jsonl", "npz", "npy", "parquet"])
def test_a_file_that_finds_no_more_room_is_one_line_and_no_file(
    tmp_path: Path, suffix: str
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / f"out.{suffix}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ExportError, match="cannot be written: File too large"):
            export(RECORDS * 30_000, str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_dash_writes_json_lines_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    assert export(RECORDS, "-") == 3
    written = stdout.buffer.getvalue()
    assert [json.loads(line)["id"] for line in written.splitlines()] == [
        record.id for record in RECORDS
    ]


def test_a_closed_pipe_is_left_to_the_caller() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(BrokenPipeError):
            patch.setattr(sys, "stdout", stdout)
            export(RECORDS * 10_000, "-")
        # What is still in the buffer has nowhere to go.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stdout.fileno())
        os.close(null)


# --- What is refused before anything is read


def unread() -> Iterator[Stored]:
    raise AssertionError("a record was asked for")
    yield


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.csv", r"unknown kind of file: name it \.jsonl, \.npz, \.npy, \.parquet"),
        ("out", "unknown kind of file"),
        ("none/out.jsonl", "there is no directory .*none: make it"),
        ("folder.jsonl", "is a directory: name a file in it"),
        ("taken.npy", r"taken\.ids\.json is not a file, and the ids go there: move it away"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, output: str, message: str
) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "taken.ids.json").mkdir()
    with pytest.raises(ExportError, match=message) as error:
        check_output(str(tmp_path / output))
    assert "\n" not in str(error.value)
    with pytest.raises(ExportError, match=message):
        export(unread(), str(tmp_path / output))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes all")
def test_a_directory_without_permission_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(ExportError, match="may not be written to: check its permissions"):
        check_output(str(folder / "out.jsonl"))


@pytest.mark.parametrize(("suffix", "library"), [("npz", "numpy"), ("parquet", "pyarrow")])
def test_a_missing_library_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExportError, match=rf'{library}: pip install "vector-embed-cache-client\['):
        check_output(str(tmp_path / f"out.{suffix}"))


@pytest.mark.parametrize("output", ["-", "out.jsonl", "OUT.NPZ", "Out.Npy", "./out.parquet"])
def test_a_good_output_passes_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_vectors_of_unlike_dimensions_do_not_fit_a_table(tmp_path: Path, suffix: str) -> None:
    records = [
        Stored("a", packed(1.0), "m", False),
        Stored("b", packed(1.0, 2.0), "m", False),
    ]
    with pytest.raises(ExportError, match="'b' has 2 dimensions and those before it 1"):
        export(records, str(tmp_path / f"out.{suffix}"))


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet"])
def test_vectors_that_become_smaller_meanwhile_do_not_fit_a_table(
    tmp_path: Path, suffix: str
) -> None:
    half = np.array([1, 2], "<f2").tobytes()
    records = [Stored(str(n), packed(1, 2), "m", False) for n in range(300)]
    records.append(Stored("b", half, "m", False, dtype="float16"))
    with pytest.raises(ExportError, match="'b' is float16 and those before it float32: .* again"):
        export(records, str(tmp_path / f"out.{suffix}"))
    assert list(tmp_path.iterdir()) == []


def test_npz_refuses_an_id_that_it_would_change(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="ends in NUL"):
        export([Stored("a\0", packed(1.0), "m", False)], str(tmp_path / "out.npz"))


# --- The record itself


def test_a_record_gives_floats_and_bytes_of_its_vector() -> None:
    record = Record(Stored("a", packed(0.5, -2.0), "m", False))
    assert record.vector == [0.5, -2.0]
    assert record.tobytes() == packed(0.5, -2.0)
    assert record.dimensions == 2
    assert (record.id, record.model, record.cached) == ("a", "m", False)
    assert (record.text, record.meta) == (None, None)


def test_a_record_is_one_short_line_and_shows_nothing_of_its_storage() -> None:
    record = Record(Stored("a", packed(*[1 / 3] * 768), "m", False, "text", None, 7, b"digest"))
    assert repr(record) == "Record('a', 768 dimensions: [0.3333, 0.3333, 0.3333, ...])"
    assert record == Record(Stored("a", packed(*[1 / 3] * 768), "m", False, "text", None, 8, b""))
    assert record != Record(Stored("a", packed(*[1 / 3] * 768), "m", True, "text"))
    public = {name for name in dir(record) if not name.startswith("_")}
    assert public == {
        *("id", "model", "cached", "text", "meta", "dimensions", "vector", "tobytes"),
        "outdated",
    }


def test_a_parquet_file_is_closed_only_when_its_thread_is_done_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()
    events: list[str] = []
    write, close = pq.ParquetWriter.write_batch, pq.ParquetWriter.close

    def slow_write(writer: object, batch: object) -> None:
        began.set()
        time.sleep(0.3)
        write(writer, batch)
        events.append("written")

    def noted_close(writer: object) -> None:
        events.append("closed")
        close(writer)

    def interrupted_twice() -> Iterator[Stored]:
        number = 0
        while not began.wait(1e-5):  # until the first row group is full
            yield Stored(f"id{number}", packed(1.0), "m", False)
            number += 1
        # The first is raised here, the second while its thread is waited for.
        monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupt)
        raise KeyboardInterrupt

    def interrupt(executor: object, wait: bool = True) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", slow_write)
    monkeypatch.setattr(pq.ParquetWriter, "close", noted_close)
    with pytest.raises(KeyboardInterrupt):
        export(interrupted_twice(), str(tmp_path / "wiki.parquet"))
    assert events[:2] == ["written", "closed"]
    assert list(tmp_path.iterdir()) == []
