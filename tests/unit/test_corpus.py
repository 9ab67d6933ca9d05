"""A corpus: every line of a file is a job, a rejection with its line number, or blank."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Union

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.corpus import MAX_LINE_BYTES, Corpus, CorpusError, Reading, collection_name
from worker.corpus.packing import MAGIC
from worker.corpus.stream import READ_BYTES
from worker.types import Job, Rejection, default_id

Read = Callable[..., list[Union[Job, Rejection]]]

NAME_IT = "name the file's encoding with --encoding"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write the bytes to a file of that name and read it as a corpus."""

    def write_and_read(name: str, data: bytes, **fields: object) -> list[Job | Rejection]:
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
        with Corpus(str(path), Reading(**fields)) as corpus:  # type: ignore[arg-type]
            return list(corpus)

    return write_and_read


def only(records: Sequence[Job | Rejection]) -> Job | Rejection:
    (record,) = records
    return record


def reasons(records: Sequence[Job | Rejection]) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in records if isinstance(one, Rejection)]


# --- JSON lines


def test_a_line_is_a_job_with_its_id_and_text(read: Read) -> None:
    data = '{"id": "a", "text": "caf\\u00e9"}\n{"text": "naïve 🎉", "id": 7}\n'.encode()
    assert read("c.jsonl", data) == [Job("a", "café"), Job("7", "naïve 🎉")]


@pytest.mark.parametrize("name", ["c.jsonl", "c.ndjson", "c.JSONL", "c.jsonl.gz", "c.Jsonl.GZ"])
def test_json_lines_are_known_by_their_suffix(read: Read, name: str) -> None:
    assert read(name, b'{"id": "a", "text": "x"}') == [Job("a", "x")]


@pytest.mark.parametrize("keep", [(), ("lang",)])
@pytest.mark.parametrize(
    ("id", "kept"),
    [
        ("0", "0"),
        ("-7", "-7"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ('"007"', "007"),
        ('" "', " "),
        ('"\\u0000"', "\0"),
        ('"' + "x" * 1024 + '"', "x" * 1024),
        ('"' + "é" * 512 + '"', "é" * 512),
        ("null", default_id("x")),
    ],
)
def test_ids_are_strings_or_exact_whole_numbers(
    read: Read, id: str, kept: str, keep: Sequence[str]
) -> None:
    line = f'{{"id": {id}, "text": "x"}}'.encode()
    assert only(read("c.jsonl", line, keep=keep)) == Job(kept, "x")


@pytest.mark.parametrize("keep", [(), ("lang",)])
@pytest.mark.parametrize(
    ("id", "reason"),
    [
        ('""', "id: empty"),
        ("1.0", "id: neither a string nor a whole number but a number"),
        ("1e3", "id: neither a string nor a whole number but a number"),
        ("true", "id: neither a string nor a whole number but a boolean"),
        ("[1]", "id: neither a string nor a whole number but a list"),
        ("{}", "id: neither a string nor a whole number but an object"),
        ('"' + "x" * 1025 + '"', "id: 1,025 bytes, more than 1,024"),
        ('"' + "é" * 513 + '"', "id: 1,026 bytes, more than 1,024"),
        ('"\\ud800"', "id: an unpaired surrogate at character 1"),
        ("1" * 2000, "id: 2,000 bytes, more than 1,024"),
    ],
)
def test_any_other_id_is_rejected(read: Read, id: str, reason: str, keep: Sequence[str]) -> None:
    line = f'{{"id": {id}, "text": "x"}}'.encode()
    rejection = only(read("c.jsonl", line, keep=keep))
    assert isinstance(rejection, Rejection)
    assert (rejection.line, rejection.id, rejection.reason) == (1, None, reason)


def test_a_text_without_an_id_gets_its_hash(read: Read) -> None:
    assert read("c.jsonl", b'{"text": "x"}') == [Job(default_id("x"), "x")]


@pytest.mark.parametrize(
    ("line", "id", "reason"),
    [
        (b'{"text": "x"', None, "malformed JSON"),
        (b"garbage", None, "malformed JSON"),
        (b'{"text": "x"} {"text": "y"}', None, "malformed JSON: Extra data"),
        (b'{"text": "x", "score": NaN}', None, "malformed JSON: NaN is not JSON"),
        (b'{"text": "x", "n": -Infinity}', None, "malformed JSON: -Infinity is not JSON"),
        (b"[" * 200_000, None, "malformed JSON"),
        (b'{"id": ' + b"9" * 10_000 + b', "text": "x"}', None, ""),
        (b'{"text": "\xff"}', None, "not UTF-8 at byte 11"),
        (b'{"text": "\xed\xa0\x80"}', None, "not UTF-8"),
        (b'["x"]', None, "not a JSON object but a list"),
        (b'"x"', None, "not a JSON object but a string"),
        (b"3", None, "not a JSON object but a number"),
        (b"null", None, "not a JSON object but null"),
        (b'{"id": "a"}', "a", "no field 'text'"),
        (b'{"id": "a", "text": null}', "a", "text: not a string but null"),
        (b'{"id": "a", "text": 3}', "a", "text: not a string but a number"),
        (b'{"id": "a", "text": [1]}', "a", "text: not a string but a list"),
        (b'{"id": "a", "text": {"b": 1}}', "a", "text: not a string but an object"),
        (b'{"id": "a", "text": ""}', "a", "text: empty"),
        (b'{"id": "a", "text": " \\n\\u2003"}', "a", "text: white space only"),
        (b'{"id": "a", "text": "\\ud83d"}', "a", "text: an unpaired surrogate"),
        (b'{"id": 5, "text": "' + b"x" * 10_001 + b'"}', "5", "text: 10,001 characters"),
    ],
)
def test_a_bad_line_costs_itself_alone(
    read: Read, line: bytes, id: str | None, reason: str
) -> None:
    good = b'{"id": "good", "text": "x"}\n'
    first, rejection, last = read("c.jsonl", good + line + b"\n" + good)
    assert first == last == Job("good", "x")
    assert isinstance(rejection, Rejection)
    assert (rejection.line, rejection.id) == (2, id)
    assert rejection.reason.startswith(reason)
    assert "\n" not in rejection.reason
    assert line.decode(errors="replace").startswith(rejection.raw)


def test_ten_thousand_characters_of_four_bytes_are_a_text(read: Read) -> None:
    text = "🎉" * 10_000
    assert read("c.jsonl", json.dumps({"id": "a", "text": text}).encode()) == [Job("a", text)]


def test_blank_lines_count_as_lines_and_nothing_else(read: Read) -> None:
    data = b'\n  \t\r\n\n{"id": "a", "text": "x"}\r\n\n{"text": }\n\n'
    first, rejection = read("c.jsonl", data)
    assert first == Job("a", "x")
    assert isinstance(rejection, Rejection)
    assert rejection.line == 6


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_line(read: Read) -> None:
    assert read("c.jsonl", b'\xef\xbb\xbf{"id": "a", "text": "x"}') == [Job("a", "x")]
    assert read("c.txt", b"\xef\xbb\xbfone") == [Job(default_id("one"), "one")]
    assert read("c.csv", b"\xef\xbb\xbftext,id\r\none,1\r\n") == [Job("1", "one")]


def test_other_fields_can_hold_the_id_and_the_text(read: Read) -> None:
    line = b'{"id": "no", "text": "no", "key": "a", "body": "x"}'
    assert read("c.jsonl", line, id_field="key", text_field="body") == [Job("a", "x")]


def test_kept_fields_become_meta_and_missing_ones_are_left_out(read: Read) -> None:
    data = (
        b'{"id": "a", "text": "x", "lang": "de", "n": 36893488147419103233, "other": 1}\n'
        b'{"id": "b", "text": "y"}\n'
        b'{"id": "c", "text": "z", "n": null}\n'
    )
    assert read("c.jsonl", data, keep=["lang", "n"]) == [
        Job("a", "x", {"lang": "de", "n": 36893488147419103233}),
        Job("b", "y"),
        Job("c", "z", {"n": None}),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1e999", "kept fields: a number that is not finite"),
        ('"\\udc00"', "kept fields: an unpaired surrogate"),
        ("[" * 150 + "]" * 150, "kept fields: nested more than 100 deep"),
        ('"' + "x" * 100_000 + '"', "kept fields: 100,012 bytes, more than 100,000"),
    ],
)
def test_kept_fields_that_cannot_be_stored_are_rejected(
    read: Read, value: str, reason: str
) -> None:
    line = f'{{"id": "a", "text": "x", "lang": {value}}}'.encode()
    assert reasons(read("c.jsonl", line, keep=["lang"])) == [(1, reason)]
    assert read("c.jsonl", line) == [Job("a", "x")]


def test_a_line_too_long_is_shown_by_how_it_begins(read: Read) -> None:
    # Where a read ends with the line before, nothing of the long one has come with it.
    good = b'{"id": "a", "text": "' + b"x" * (READ_BYTES // 32 - 24) + b'"}\n'
    assert len(good) * 32 == READ_BYTES
    rejection = read("c.jsonl", good * 32 + b"y" * (MAX_LINE_BYTES + 1) + b"\n" + good)[32]
    assert isinstance(rejection, Rejection)
    assert (rejection.line, rejection.raw) == (33, "y" * 1000)


def test_a_line_too_long_is_rejected_and_the_next_one_read(read: Read) -> None:
    good = b'{"id": "a", "text": "x"}\n'
    huge = b'{"text": "' + b"x" * (MAX_LINE_BYTES + 300_000) + b'"}\n'
    data = good + huge + good + huge + good
    records = read("c.jsonl.gz", data)
    assert [one for one in records if isinstance(one, Job)] == [Job("a", "x")] * 3
    reason = "the line is longer than 16,777,216 bytes"
    assert reasons(records) == [(2, reason), (4, reason)]


def test_a_single_endless_line_takes_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "zeros.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(b"x" * 1024 * 1024)
    tracemalloc.start()
    try:
        with Corpus(str(path)) as corpus:
            rejection = only(list(corpus))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(rejection, Rejection)
    assert rejection.line == 1
    assert peak < 2 * MAX_LINE_BYTES


# --- Plain text


def test_plain_text_is_a_text_a_line_with_the_hash_as_its_id(read: Read) -> None:
    data = "one\r\n\n  two \n\t\nümlaut\x00".encode()
    texts = ["one", "  two ", "ümlaut\x00"]
    assert read("c.txt", data) == [Job(default_id(text), text) for text in texts]


def test_plain_text_that_is_not_utf8_is_rejected_by_the_line(read: Read) -> None:
    records = read("c.txt", b"one\n\xff\nthree\n")
    assert reasons(records) == [(2, f"not UTF-8 at byte 1: {NAME_IT}")]
    assert len(records) == 3


# --- CSV and TSV


@pytest.mark.parametrize(
    ("name", "delimiter"), [("c.csv", ","), ("c.tsv", "\t"), ("c.tsv.gz", "\t")]
)
def test_a_table_gives_what_the_csv_writer_was_given(read: Read, name: str, delimiter: str) -> None:
    rows = [
        ["1", "plain", "de"],
        ["2", 'with "quotes", commas,\tand tabs', "en"],
        ["3", "two\nlines\r\nor three", ""],
        ["007", " spaced ", "x"],
    ]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["id", "text", "lang"])
    writer.writerows(rows)
    records = read(name, out.getvalue().encode(), keep=["lang"])
    assert records == [Job(id, text, {"lang": lang}) for id, text, lang in rows]


def test_a_rejected_row_is_named_by_the_line_it_starts_on(read: Read) -> None:
    data = b'id,text\n1,"two\nlines"\n\n2,""\n3,a,b\n4\n5,"x\ny",z\n6,good\n'
    records = read("c.csv", data)
    assert [one for one in records if isinstance(one, Job)] == [
        Job("1", "two\nlines"),
        Job("6", "good"),
    ]
    assert reasons(records) == [
        (5, "text: empty"),
        (6, "the row has 3 fields and the header 2"),
        (7, "the row has 1 fields and the header 2"),
        (8, "the row has 3 fields and the header 2"),
    ]


def test_a_quote_that_is_never_closed_costs_one_line(read: Read) -> None:
    rows = b"".join(b"%d,text %d\n" % (number, number) for number in range(3, 20_003))
    records = read("c.csv", b'id,text\n2,"oops\n' + rows)
    assert [one.line for one in records if isinstance(one, Rejection)] == [2]
    assert records[1:] == [Job(str(number), f"text {number}") for number in range(3, 20_003)]


def test_quotes_that_are_part_of_the_text_are_taken_so_in_tsv_and_rejected_in_csv(
    read: Read,
) -> None:
    assert read("c.tsv", b'id\ttext\n1\t"So" it goes\n2\t"open\n3\tx\n') == [
        Job("1", '"So" it goes'),
        Job("2", '"open'),
        Job("3", "x"),
    ]
    records = read("c.csv", b'id,text\n1,"So" it goes\n3,x\n')
    assert [one.line for one in records if isinstance(one, Rejection)] == [2]
    assert records[1] == Job("3", "x")


def test_the_reason_of_a_malformed_row_is_in_plain_words(read: Read) -> None:
    data = b'id,text\n1,a\rb\n2,"x"y\n3,"open\n4,x\n5,"open'
    assert reasons(read("c.csv", data)) == [
        (2, "malformed row: a carriage return outside quotes"),
        (3, "malformed row: ',' expected after '\"'"),
        (4, "malformed row: a quoted field that begins here is not closed"),
        (6, "malformed row: a quoted field that begins here is not closed"),
    ]


def test_a_field_above_the_limit_of_the_csv_reader_is_rejected(read: Read) -> None:
    data = b"id,text\n1," + b"x" * (csv.field_size_limit() + 1) + b"\n2,good\n"
    records = read("c.csv", data)
    assert [one.line for one in records if isinstance(one, Rejection)] == [2]
    assert records[1] == Job("2", "good")


def test_a_row_that_is_not_utf8_is_rejected_whole(read: Read) -> None:
    records = read("c.csv", b'id,text,x\n1,"a\nb\xff",\n2,good,\n')
    assert reasons(records) == [(2, f"not UTF-8 at byte 2: {NAME_IT}")]
    assert records[1] == Job("2", "good")


def test_a_line_that_is_not_utf8_after_an_open_quote_is_rejected_by_itself(read: Read) -> None:
    records = read("c.tsv", b'id\ttext\n1\t"open\n2\t\xff\n3\tgood\n')
    assert records[0] == Job("1", '"open')
    assert reasons(records) == [(3, f"not UTF-8 at byte 3: {NAME_IT}")]
    assert records[2] == Job("3", "good")


def test_an_overlong_line_inside_an_open_quote_is_rejected_with_its_line(read: Read) -> None:
    data = b'id,text\n1,"open\n' + b"x" * (MAX_LINE_BYTES + 1) + b"\n3,good\n"
    records = read("c.csv", data)
    assert [one.line for one in records if isinstance(one, Rejection)] == [2, 3]
    assert records[-1] == Job("3", "good")


def test_a_table_without_an_id_column_gets_hashes_unless_one_was_named(read: Read) -> None:
    assert read("c.csv", b"text\none\n\ntwo") == [Job(default_id(t), t) for t in ("one", "two")]
    with pytest.raises(CorpusError, match=r"no column 'key': name one of 'text' with --id-field"):
        read("c.csv", b"text\none\n", id_field="key")


@pytest.mark.parametrize("name", ["c.csv", "c.tsv"])
def test_an_empty_id_in_a_table_is_no_id(read: Read, name: str) -> None:
    data = b'id,text\n,one\n"",two\n" ",three\n'.replace(b",", b"\t" if "tsv" in name else b",")
    assert read(name, data) == [
        Job(default_id("one"), "one"),
        Job(default_id("two"), "two"),
        Job(" ", "three"),
    ]


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        (b"", {}, "is empty: its first line must name the columns"),
        (b"\n\n", {}, "is empty"),
        (b"id,body\n1,x\n", {}, "no column 'text': name one of 'id', 'body' with --text-field"),
        (b"text,text\nx,y\n", {}, "more than one column 'text'"),
        (b"text\nx\n", {"keep": ["lang"]}, "no column 'lang': name one of 'text' with --keep"),
        (b"text,\xff\nx,y\n", {}, "the header cannot be read: not UTF-8 at byte 6"),
        (b'"text\nx\n', {}, "the header cannot be read: .* a quoted field .* is not closed"),
        (b"id,text\r1,x\r", {}, "the header cannot be read: .* a carriage return outside quotes"),
        (b"x" * (MAX_LINE_BYTES + 1), {}, "the header cannot be read: the line is longer"),
    ],
)
def test_a_header_that_cannot_be_used_is_an_error(
    read: Read, data: bytes, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(CorpusError, match=message) as error:
        read("c.csv", data, **fields)
    assert "\n" not in str(error.value)


# --- Parquet


def parquet(columns: dict[str, object], **options: object) -> bytes:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def test_parquet_rows_become_jobs_across_row_groups(read: Read) -> None:
    count = 5000
    data = parquet(
        {"id": list(range(count)), "text": [f"text {n}" for n in range(count)]}, row_group_size=700
    )
    assert read("c.parquet", data) == [Job(str(n), f"text {n}") for n in range(count)]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_every_kind_of_text_column_is_read(read: Read, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    types = {
        "string": pa.string(),
        "large_string": pa.large_string(),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
    }
    data = parquet({"id": ["a", "b"], "text": pa.array(["x", "x"]).cast(types[kind])})
    assert read("c.parquet", data) == [Job("a", "x"), Job("b", "x")]


def test_a_faulty_row_is_rejected_with_its_row_number(read: Read) -> None:
    pa = pytest.importorskip("pyarrow")
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffy")]
    )
    data = parquet({"id": ["a", None, "c", ""], "text": ["x", None, " ", "y"]})
    records = read("c.parquet", data)
    assert records[0] == Job("a", "x")
    assert [one.line for one in records if isinstance(one, Rejection)] == [2, 3, 4]
    records = read("c.parquet", parquet({"text": broken}))
    assert [one.line for one in records if isinstance(one, Rejection)] == [1]
    assert records[1] == Job(default_id("y"), "y")


def test_kept_columns_are_json(read: Read) -> None:
    pa = pytest.importorskip("pyarrow")
    data = parquet(
        {
            "text": ["x"],
            "tags": [["a", "b"]],
            "score": [float("nan")],
            "day": pa.array([20_000], pa.timestamp("ns")),
            "place": [{"city": "Bern"}],
        }
    )
    job = only(read("c.parquet", data, keep=["tags", "score", "day", "place"]))
    assert isinstance(job, Job)
    assert job.meta == {
        "tags": ["a", "b"],
        "score": None,
        "day": "1970-01-01 00:00:00.000020000",
        "place": {"city": "Bern"},
    }


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"body": ["x"]}, {}, "no column 'text': name one of 'body' with --text-field"),
        ({"text": [1]}, {}, "column 'text' is int64, not text"),
        ({"text": ["x"], "id": [1.5]}, {}, "column 'id' is double, and ids are strings or whole"),
        ({"text": ["x"]}, {"id_field": "id"}, "no column 'id'"),
        ({"text": ["x"], "b": [b"x"]}, {"keep": ["b"]}, "column 'b' is binary, which JSON"),
    ],
)
def test_parquet_columns_that_cannot_be_used_are_an_error(
    read: Read, columns: dict[str, object], fields: dict[str, object], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        read("c.parquet", parquet(columns), **fields)


def test_damaged_parquet_is_an_error_or_ends_with_one_rejection(read: Read) -> None:
    with pytest.raises(CorpusError, match="cannot be read as parquet"):
        read("c.parquet", b"PAR1 and then nothing")
    data = bytearray(
        parquet(
            {"text": [f"text {n}" for n in range(4000)]}, row_group_size=2000, compression="gzip"
        )
    )
    half = len(data) // 2
    data[half : half + 2000] = bytes(2000)
    records = read("c.parquet", bytes(data))
    assert isinstance(records[-1], Rejection)
    assert "cannot be read from this row on" in records[-1].reason
    assert all(isinstance(record, Job) for record in records[:-1])


def test_parquet_without_pyarrow_names_what_to_install(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "worker.corpus.formats.parquet", raising=False)
    with pytest.raises(CorpusError, match=r'pip install "vector-embed-cache-client\[parquet\]"'):
        read("c.parquet", b"PAR1")


def test_parquet_is_read_through_gzip_and_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    count = 5000
    data = parquet({"id": list(range(count)), "text": [f"text {n}" for n in range(count)]})
    path = tmp_path / "c.parquet.gz"
    path.write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    with Corpus(str(path)) as corpus:
        assert list(corpus) == [Job(str(n), f"text {n}") for n in range(count)]
    assert os.listdir(room) == []
    assert sorted(os.listdir(tmp_path)) == ["c.parquet.gz", "room"]


def test_unpacking_parquet_takes_no_memory_to_speak_of(tmp_path: Path) -> None:
    data = parquet({"text": [os.urandom(4000).hex() for _ in range(1000)]}, compression="none")
    path = tmp_path / "c.parquet.gz"
    path.write_bytes(gzip.compress(data, compresslevel=1))
    tracemalloc.start()
    try:
        with Corpus(str(path)):
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) / 8


@pytest.mark.parametrize("cut", [1, 8, 2000])
def test_parquet_in_a_gzip_that_ends_early_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    data = parquet({"text": [os.urandom(20).hex() for _ in range(999)]})
    path = tmp_path / "c.parquet.gz"
    path.write_bytes(gzip.compress(data)[:-cut])
    with pytest.raises(CorpusError, match=r"c\.parquet\.gz: the gzip file ends early") as error:
        Corpus(str(path))
    assert "\n" not in str(error.value)
    assert os.listdir(room) == []


def test_parquet_that_finds_no_room_to_be_unpacked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "c.parquet.gz"
    path.write_bytes(gzip.compress(parquet({"text": [os.urandom(2000).hex() for _ in range(999)]})))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(CorpusError, match="set TMPDIR to a directory with room"):
            Corpus(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match="cannot be unpacked into a temporary file: No such file"):
        Corpus(str(path))


def test_gzip_that_holds_no_parquet_is_an_error(read: Read) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(CorpusError, match=r"c\.parquet\.gz cannot be read as parquet"):
        read("c.parquet.gz", b"text\nx\n")


# --- Gzip, standard input, and files that cannot be opened


@pytest.mark.parametrize("cut", [1, 8, 2000])
def test_a_gzip_that_ends_early_keeps_what_came_before_it(tmp_path: Path, cut: int) -> None:
    lines = [
        b'{"id": "%d", "text": "%s"}\n' % (n, os.urandom(20).hex().encode()) for n in range(999)
    ]
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(lines))[:-cut])
    with Corpus(str(path)) as corpus:
        *jobs, rejection = corpus
    assert isinstance(rejection, Rejection)
    assert "ends early" in rejection.reason
    assert rejection.line == len(jobs) + 1
    assert all(isinstance(job, Job) for job in jobs)
    assert len(jobs) == 999 or (cut == 2000 and 900 < len(jobs) < 999)


def test_a_damaged_gzip_ends_with_one_rejection(tmp_path: Path) -> None:
    data = bytearray(
        gzip.compress(b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(9999)))
    )
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    path = tmp_path / "c.txt.gz"
    path.write_bytes(data)
    with Corpus(str(path)) as corpus:
        rejections = [record for record in corpus if isinstance(record, Rejection)]
    assert "damaged" in rejections[-1].reason


def test_gzip_members_in_a_row_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "c.txt.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    with Corpus(str(path)) as corpus:
        assert [record.text for record in corpus if isinstance(record, Job)] == ["one", "two"]


def test_a_dash_reads_json_lines_from_standard_input_and_leaves_it_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b'{"id": "a", "text": "x"}\n'))
    monkeypatch.setattr(sys, "stdin", stdin)
    with Corpus("-") as corpus:
        assert list(corpus) == [Job("a", "x")]
    assert corpus.size is None
    assert not stdin.buffer.closed


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CorpusError, match="standard input is closed"):
        Corpus("-")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("c.doc", b"x", r"unknown kind of file: name it \.jsonl, "),
        ("c", b"x", "unknown kind of file"),
        ("c.gz", b"x", "unknown kind of file"),
        ("c.jsonl", gzip.compress(b"x", mtime=0), "is gzip data: unpack it, or add .gz"),
        ("c.jsonl", lzma.compress(b"x"), "is xz data: unpack it, or add .xz"),
    ],
)
def test_a_file_that_cannot_be_a_corpus_is_an_error_when_opened(
    read: Read, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(CorpusError, match=message) as error:
        read(name, data)
    assert "\n" not in str(error.value)


def test_what_only_looks_like_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(b'{"text": "x"}')
    with pytest.raises(CorpusError, match="is not gzip data: name it without .gz"):
        Corpus(str(path))


def test_files_that_cannot_be_opened_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl does not exist"):
        Corpus(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(CorpusError, match=r"no file that can be read: name them \.jsonl, "):
        Corpus(str(tmp_path))
    with pytest.raises(CorpusError, match=r"\*\.csv: no file that can be read"):
        Corpus(str(tmp_path / "*.csv"))
    with pytest.raises(CorpusError, match="cannot be opened"):
        Corpus("a\0b.jsonl")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_without_permission_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(CorpusError, match="may not be read"):
        Corpus(str(path))


@pytest.mark.parametrize(
    ("name", "collection"),
    [
        ("wiki.jsonl", "wiki"),
        ("wiki.2024.csv.gz", "wiki.2024"),
        ("Größe & mehr.txt", "Gr--e---mehr"),
        ("x" * 120 + ".txt", "x" * 100),
    ],
)
def test_the_collection_is_named_by_the_stem_in_characters_that_a_name_may_have(
    name: str, collection: str
) -> None:
    assert collection_name(f"data/{name}") == collection


@pytest.mark.parametrize(
    "name", ["c.jsonl", "c.jsonl.gz", "c.csv", "c.txt", "c.parquet", "c.parquet.gz"]
)
def test_the_position_reaches_the_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = b"text\nx\n"
    if ".parquet" in name:
        data = parquet({"text": ["x"]})
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with Corpus(str(path)) as corpus:
        assert corpus.size == path.stat().st_size
        list(corpus)
        assert corpus.position == corpus.size


def test_a_corpus_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"x\n")
    with Corpus(str(path)) as corpus:
        assert len(list(corpus)) == 1
        with pytest.raises(CorpusError, match="was read already: open it again"):
            list(corpus)


# --- Whatever the bytes

FRAGMENTS = [
    b'{"id": "a", "text": "x"}',
    b'{"text": "y"}',
    b'{"id": 1.5, "text": "z"}',
    b'"',
    b'""',
    b",",
    b"\t",
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"word",
    b" ",
]
NO_TEXT = (*sum(MAGIC.values(), ()), b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
whatever = st.binary(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join)
openable = whatever.filter(
    lambda data: (
        not data.startswith((*sum(MAGIC.values(), ()), b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))
    )
)
in_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_file
@given(data=openable)
@pytest.mark.parametrize("name", ["c.jsonl", "c.txt", "c.jsonl.gz"])
def test_every_line_is_a_job_or_a_rejection_or_blank(read: Read, name: str, data: bytes) -> None:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    written = [number for number, line in enumerate(lines, 1) if line.strip(b" \t\r\n\x0b\x0c")]
    records = read(name, data)
    assert len(records) == len(written)
    for record, number in zip(records, written):
        assert isinstance(record, Job) or record.line == number


@in_one_file
@given(data=openable)
@example(data=b'"\n,"","\n')
@example(data=b"\r\t")
@pytest.mark.parametrize("name", ["c.csv", "c.tsv"])
def test_every_row_of_a_table_is_a_job_or_a_rejection_in_order(
    read: Read, name: str, data: bytes
) -> None:
    records = read(name, b"text,id\n".replace(b",", b"\t" if "tsv" in name else b",") + data)
    numbers = [one.line for one in records if isinstance(one, Rejection)]
    assert numbers == sorted(set(numbers))
    assert all(2 <= number <= 2 + data.count(b"\n") for number in numbers)
    # In a .tsv a line of tabs alone is a row of empty fields.
    blank = b" \r\x0b\x0c" if "tsv" in name else b" \t\r\x0b\x0c"
    written = sum(1 for line in data.split(b"\n") if line.strip(blank))
    assert len(records) <= written
    if b'"' not in data:
        assert len(records) == written


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@in_one_file
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=10), tabs=st.booleans())
def test_a_table_round_trips_through_the_csv_writer(
    read: Read, rows: list[tuple[str, str]], tabs: bool
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *rows])
    records = read("c.tsv" if tabs else "c.csv", out.getvalue().encode())
    assert len(records) == len(rows)
    for (id, text), record in zip(rows, records):
        if text and not text.isspace():
            assert record == Job(id or default_id(text), text)
        else:
            assert isinstance(record, Rejection)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@in_one_file
@given(
    record=st.dictionaries(st.sampled_from(["id", "text", "lang"]), json_values),
    ascii_only=st.booleans(),
)
def test_the_quick_reader_and_the_careful_one_agree(
    read: Read, record: dict[str, object], ascii_only: bool
) -> None:
    line = json.dumps(record, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    quick, careful = only(read("c.jsonl", line)), only(read("c.jsonl", line, keep=["absent"]))
    assert quick == careful
