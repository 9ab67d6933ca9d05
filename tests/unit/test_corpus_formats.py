"""Formats and packings: the same lines give the same jobs, and no bytes crash a reader."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import tracemalloc
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from encodings.aliases import aliases
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from worker.corpus import MAX_LINE_BYTES, Corpus, CorpusError, Reading
from worker.corpus.long import Long
from worker.corpus.pages import largest_page
from worker.types import Job, Rejection, default_id

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")
zstd: Any = pytest.importorskip("backports.zstd")
pytest.importorskip("inscriptis")

Rows = Sequence[Mapping[str, object]]


def json_lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def json_array(rows: Rows) -> bytes:
    return json.dumps(rows, indent=2).encode()


def table(rows: Rows, delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def arrow_file(rows: Rows) -> bytes:
    out = io.BytesIO()
    whole = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_file(out, whole.schema) as file:
        file.write_table(whole, max_chunksize=2)
    return out.getvalue()


def arrow_stream(rows: Rows) -> bytes:
    out = io.BytesIO()
    whole = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(out, whole.schema) as stream:
        stream.write_table(whole)
    return out.getvalue()


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "c.jsonl": json_lines,
    "c.json": json_array,
    "c.csv": table,
    "c.tsv": lambda rows: table(rows, "\t"),
    "c.parquet": parquet,
    "c.arrow": arrow_file,
    "c.feather": arrow_file,
    "stream.arrow": arrow_stream,
}
NESTED = [name for name in FORMATS if not name.endswith("sv")]
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}
ROWS = [
    {"id": "a", "text": "one", "title": "A", "lang": "de"},
    {"id": "b", "text": 'two "quoted", [and] {more}\\', "title": "B", "lang": "en"},
    {"id": "c", "text": "drei Öl 🎉", "title": "C", "lang": "de"},
]

MARKS = (BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE)
NO_ENCODINGS = ("idna", "punycode", "undefined", "unicode_escape", "none", "", "\0", "\u00e9")

Lines = Sequence["Job | Rejection"]
Read = Callable[..., "list[Job | Rejection]"]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write the bytes to a file of that name and read it as a corpus."""

    def write_and_read(name: str, data: bytes, **reading: object) -> list[Job | Rejection]:
        path = tmp_path / name
        path.write_bytes(data)
        with Corpus(str(path), Reading(**reading)) as corpus:  # type: ignore[arg-type]
            return list(corpus)

    return write_and_read


def reasons(lines: Lines) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in lines if isinstance(one, Rejection)]


# --- The same of every format


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_rows_are_the_same_jobs(read: Read, name: str, packing: str) -> None:
    data = PACKINGS[packing](FORMATS[name](ROWS))
    jobs = [Job(str(row["id"]), str(row["text"]), {"lang": row["lang"]}) for row in ROWS]
    assert read(name + packing, data, keep=["lang"]) == jobs


@pytest.mark.parametrize("name", FORMATS)
def test_a_template_joins_fields(read: Read, name: str) -> None:
    lines = read(name, FORMATS[name](ROWS), template=r"{title} {{x}}\n\n{text}!")
    assert lines[0] == Job("a", "A {x}\n\none!")
    assert len(lines) == len(ROWS)


@pytest.mark.parametrize("name", NESTED)
def test_dots_lead_into_nested_fields(read: Read, name: str) -> None:
    rows: Rows = [
        {"meta": {"id": n, "lang": "de"}, "doc": {"body": {"text": f"text {n}"}}} for n in range(3)
    ]
    wanted = {"text_field": "doc.body.text", "id_field": "meta.id", "keep": ["meta.lang"]}
    lines = read(name, FORMATS[name](rows), **wanted)
    assert lines == [Job(str(n), f"text {n}", {"meta.lang": "de"}) for n in range(3)]
    lines = read(name, FORMATS[name](rows), template="{meta.lang}: {doc.body.text}")
    assert [line.text for line in lines if isinstance(line, Job)][0] == "de: text 0"


@pytest.mark.parametrize("name", ["c.jsonl", "c.json"])
def test_a_field_that_the_template_lacks_is_a_rejection_with_its_name(
    read: Read, name: str
) -> None:
    rows: Rows = [{"id": "a", "text": "x"}, {"id": "b", "title": "B", "text": "y", "n": None}]
    data = FORMATS[name](rows)
    assert reasons(read(name, data, template="{title} {text}")) == [(1, "no field 'title'")]
    lines = read(name, data, template="{n}{text}")
    assert reasons(lines)[1] == (2, "field 'n': neither a string nor a number but null")
    assert isinstance(lines[1], Rejection)
    assert lines[1].id == "b"


@pytest.mark.parametrize("name", [name for name in FORMATS if "json" not in name])
def test_a_column_that_the_template_lacks_is_an_error(read: Read, name: str) -> None:
    with pytest.raises(CorpusError, match="no column 'head': name one of .* with --template"):
        read(name, FORMATS[name](ROWS), template="{head} {text}")


@pytest.mark.parametrize("template", ["", "text", "{text", "{}", "{text!r}", "{text:>9}", "}"])
def test_a_malformed_template_is_an_error(read: Read, template: str) -> None:
    with pytest.raises(CorpusError, match="--template"):
        read("c.jsonl", json_lines(ROWS), template=template)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", NESTED)
def test_a_field_with_a_dot_in_its_name_goes_before_a_nested_one(
    read: Read, name: str, order: int
) -> None:
    row = {"doc.body": "flat", "doc": {"body": "nested", "id": "a"}}
    data = FORMATS[name]([dict(list(row.items())[::order])])
    lines = read(name, data, text_field="doc.body", id_field="doc.id", keep=("doc.body",))
    assert lines == [Job("a", "flat", {"doc.body": "flat"})]


@pytest.mark.parametrize("packing", [packing for packing in PACKINGS if packing])
def test_packed_data_that_ends_early_or_is_damaged_keeps_what_came_before(
    read: Read, packing: str
) -> None:
    rows = [{"id": n, "text": random.Random(n).randbytes(40).hex()} for n in range(20_000)]
    data = PACKINGS[packing](json_lines(rows))
    lines = read("c.jsonl" + packing, data[: len(data) // 2])
    assert len(lines) > 1 or packing == ".xz"
    assert isinstance(lines[-1], Rejection)
    assert "file ends early: the rest is missing, fetch it again" in lines[-1].reason
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    assert reasons(read("c.jsonl" + packing, bytes(damaged)))
    with pytest.raises(CorpusError, match=f"data: name it without {packing}"):
        read("c.jsonl" + packing, b'{"text": "x"}')


@pytest.mark.parametrize("packing", [packing for packing in PACKINGS if packing])
def test_packed_members_in_a_row_are_one_file(read: Read, packing: str) -> None:
    one, two = (PACKINGS[packing](json_lines([row])) for row in ROWS[:2])
    assert len(read("c.jsonl" + packing, one + two)) == 2


@pytest.mark.heavy
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["c.jsonl", "c.json", "c.csv", "c.txt", "c.md", "c.html"])
def test_an_archive_of_zeros_costs_bounded_memory(tmp_path: Path, name: str, packing: str) -> None:
    path = tmp_path / (name + packing)
    start = {"c.json": b'[{"text": "', "c.csv": b"text\n"}.get(name, b"")
    path.write_bytes(PACKINGS[packing](start + b"0" * (3 * MAX_LINE_BYTES)))
    tracemalloc.start()
    try:
        with Corpus(str(path)) as corpus:
            (rejection, *_) = corpus
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(rejection, Rejection)
    ends = "the array is not closed" if name == "c.json" else "is longer than 16,777,216 bytes"
    assert ends in rejection.reason
    assert peak < 3 * MAX_LINE_BYTES


@pytest.mark.heavy
def test_a_quote_that_is_not_closed_before_short_lines_costs_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b'id,text\n1,"' + b"a\n" * 2_000_000)
    with Corpus(str(tmp_path / "c.csv")) as corpus:
        tracemalloc.start()
        try:
            first = next(iter(corpus))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(first, Rejection) and first.reason.endswith("begins here is not closed")
    assert most < 100_000_000


MUTABLE: dict[str, Callable[[Rows], bytes]] = {
    **FORMATS,
    "c.txt": lambda rows: b"\n".join(str(row["text"]).encode() for row in rows),
    "c.md": lambda rows: b"# Title\n\nText\n",
    "c.html": lambda rows: b"<html><table><tr><td>a<td>b</table><p style='x'>text</html>",
}


@pytest.mark.parametrize("packing", ["", ".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", MUTABLE)
def test_no_mutated_file_crashes_a_reader(tmp_path: Path, name: str, packing: str) -> None:
    chance = random.Random(name + packing)
    data = PACKINGS[packing](MUTABLE[name](ROWS * 20))
    path = tmp_path / (name + packing)
    for _ in range(40):
        mutated = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        path.write_bytes(mutated[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            with Corpus(str(path)) as corpus:
                for line in corpus:
                    assert isinstance(line, (Job, Rejection))
        except CorpusError as error:
            assert "\n" not in str(error)


# --- JSON arrays


def test_a_faulty_item_is_rejected_with_its_number(read: Read) -> None:
    data = b'[{"text": "a"}, {"text": }, 3, {"text": "\\"]}"}, , {"text": "b\\\\"}, {"no": "x"}]\n'
    lines = read("c.json", data)
    assert [line.text for line in lines if isinstance(line, Job)] == ["a", '"]}', "b\\"]
    assert [number for number, _ in reasons(lines)] == [2, 3, 5, 7]


@pytest.mark.parametrize(
    ("data", "number", "reason"),
    [
        (b'[{"text": "a"}, {"text": "b"', 2, "the array is not closed"),
        (b'[{"text": "a"}] {"text": "b"}', 2, "data follows the array"),
    ],
)
def test_an_array_that_breaks_off_or_goes_on_ends_with_a_rejection(
    read: Read, data: bytes, number: int, reason: str
) -> None:
    first, rejection = read("c.json", data)
    assert isinstance(first, Job)
    assert isinstance(rejection, Rejection)
    assert rejection.line == number
    assert rejection.reason.startswith(reason)


def test_a_json_file_that_is_no_array_is_an_error(read: Read) -> None:
    with pytest.raises(CorpusError, match=r"if each line is an object, name it \.jsonl"):
        read("c.json", json_lines(ROWS))
    with pytest.raises(CorpusError, match="is not a JSON array of objects: check it"):
        read("c.json", b"")


def test_an_item_too_long_is_rejected_and_the_next_one_read(read: Read) -> None:
    huge = b'{"text": "' + b'\\"' * (MAX_LINE_BYTES // 2 + 70_000) + b'"}'
    lines = read("c.json", b'[{"text": "a"}, ' + huge + b', {"text": "b"}]')
    assert [line.text for line in lines if isinstance(line, Job)] == ["a", "b"]
    assert reasons(lines) == [(2, "the item is longer than 16,777,216 bytes")]


@pytest.mark.parametrize("begin", range(131_050, 131_080))
def test_an_item_may_lie_anywhere_between_two_reads(read: Read, begin: int) -> None:
    items = [{"id": "a", "text": "x" * (begin % 9000 + 1)}, {"id": "b", "text": '\\"\\\\"]}'}]
    data = json.dumps(items).encode()
    pad = b" " * (begin - len(data))
    assert [line.id for line in read("c.json", b"[" + pad + data[1:])] == ["a", "b"]


# --- Encodings and delimiters


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["c.jsonl", "c.json", "c.csv", "c.tsv", "c.txt", "c.md"])
def test_a_byte_order_mark_names_the_encoding(read: Read, name: str, encoding: str) -> None:
    written = MUTABLE[name](ROWS).decode()
    texts = [line.text for line in read(name, written.encode()) if isinstance(line, Job)]
    assert [
        line.text for line in read(name, written.encode(encoding)) if isinstance(line, Job)
    ] == (texts)


def test_an_encoding_can_be_named(read: Read) -> None:
    data = "text\nÖl€\n".encode("cp1252")
    assert reasons(read("c.csv", data))[0][1].endswith("name the file's encoding with --encoding")
    assert read("c.csv", data, encoding="cp1252") == [Job(default_id("Öl€"), "Öl€")]
    with pytest.raises(CorpusError, match="--encoding rot13: not a known one"):
        read("c.csv", data, encoding="rot13")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("encoding", sorted({*aliases.values(), *NO_ENCODINGS}))
def test_any_name_of_an_encoding_reads_any_bytes_or_is_an_error(read: Read, encoding: str) -> None:
    for start in (b"", *MARKS):
        for name in ("c.txt", "c.csv", "c.json", "c.md"):
            with suppress(CorpusError):
                read(name, start + random.Random(1).randbytes(2000), encoding=encoding)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["c.csv", "c.json", "c.txt"])
def test_a_named_encoding_of_wide_characters_is_read_with_and_without_a_mark(
    read: Read, name: str, encoding: str, mark: str
) -> None:
    data = (mark + MUTABLE[name](ROWS).decode()).encode(encoding)
    jobs = read(name, MUTABLE[name](ROWS))
    assert read(name, data, encoding=encoding) == jobs
    if mark or encoding.endswith("-le"):
        assert read(name, data, encoding=encoding[:6]) == jobs


def test_a_byte_that_is_not_in_the_encoding_costs_its_line(read: Read) -> None:
    lines = read("c.txt", b"one\nt\x81wo\nthree\n", encoding="cp1252")
    assert reasons(lines) == [(2, "not in the encoding of the file: name it with --encoding")]
    assert len(lines) == 3


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "§"])
def test_a_delimiter_can_be_named(read: Read, delimiter: str) -> None:
    lines = read("c.csv", table(ROWS, delimiter), delimiter=delimiter)
    assert [line.id for line in lines] == ["a", "b", "c"]


@pytest.mark.parametrize(("name", "delimiter"), [("c.csv", ";"), ("c.csv", "\t"), ("c.tsv", ",")])
def test_a_table_that_looks_like_another_delimiter_is_an_error_that_names_it(
    read: Read, name: str, delimiter: str
) -> None:
    with pytest.raises(CorpusError) as error:
        read(name, table(ROWS, delimiter))
    assert f"add --delimiter {delimiter!r}" in str(error.value)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ('"id";"text"', "has ';' between its columns"),
        ('"a";"b"', "the header cannot be read"),
        ('x,"a\nb"', "has no column 'text'"),
        (",".join(f"c{number}" for number in range(40_000)), "has no column 'text'"),
    ],
)
def test_any_header_without_the_wanted_columns_is_an_error(
    read: Read, header: str, reason: str
) -> None:
    with pytest.raises(CorpusError, match=reason):
        read("c.csv", f"{header}\n1,2\n".encode())


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_of_a_megabyte_is_cut_if_asked(read: Read, name: str) -> None:
    data = FORMATS[name]([{"id": "a", "text": "x" * 1_000_000}])
    assert read(name, data, long=Long("cut")) == [Job("a", "x" * 10_000)]


# --- Typed columns


def of_type(kind: object, values: Sequence[object]) -> bytes:
    out = io.BytesIO()
    columns = {"id": ["a", "b"], "text": ["x", "y"]}
    columns["id" if values[0] not in ("x", b"x") else "text"] = pa.array(values, kind)
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string_view()])
def test_texts_may_be_binary_or_views(read: Read, kind: object) -> None:
    values = ["x", "y"] if kind == pa.string_view() else [b"x", b"y"]
    assert read("c.parquet", of_type(kind, values)) == [Job("a", "x"), Job("b", "y")]


def test_a_binary_text_that_is_not_utf8_costs_its_row(read: Read) -> None:
    lines = read("c.parquet", of_type(pa.binary(), [b"x", b"\xff"]))
    assert reasons(lines) == [(2, "column 'text' cannot be read: not UTF-8 at byte 1")]


@pytest.mark.parametrize(
    ("kind", "values", "ids"),
    [
        (pa.decimal128(20, 0), [Decimal(12), Decimal(10**19)], ["12", "1" + "0" * 19]),
        (pa.decimal128(9, 2), [Decimal("1.50"), Decimal("-0.01")], ["1.50", "-0.01"]),
        (pa.uuid(), [UUID(int=1).bytes, UUID(int=2).bytes], [str(UUID(int=1)), str(UUID(int=2))]),
    ],
)
def test_ids_may_be_decimals_or_uuids(
    read: Read, kind: object, values: Sequence[object], ids: Sequence[str]
) -> None:
    assert [line.id for line in read("c.parquet", of_type(kind, values))] == ids


def shared(kind: str) -> bytes:
    """4,000 rows that share a string of 2 MB, or its beginning."""
    out = io.BytesIO()
    text = "x" * 2_000_000
    if kind == "delta":
        values = pa.array([text + str(n) for n in range(100)])
        pq.write_table(
            pa.table({"text": values}),
            out,
            use_dictionary=False,
            column_encoding={"text": "DELTA_BYTE_ARRAY"},
            compression="zstd",
        )
        return out.getvalue()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array([text]))
    if kind == "parquet":
        pq.write_table(
            pa.table({"text": column}), out, compression="zstd", dictionary_pagesize_limit=10**8
        )
    else:
        with pa.ipc.new_file(out, pa.schema({"text": column.type})) as file:
            file.write_table(pa.table({"text": column}))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "delta", "arrow"])
def test_rows_that_share_a_long_string_take_bounded_memory(
    read: Read, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / ("c.arrow" if kind == "arrow" else "c.parquet")
    path.write_bytes(shared(kind))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    with Corpus(str(path)) as corpus:
        lines = iter(corpus)
        for _ in range(90):
            assert isinstance(next(lines), Rejection)
            assert pa.total_allocated_bytes() - before < 300_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


@pytest.mark.parametrize("name", ["c.arrow", "stream.arrow"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("kind", ["batch", "dictionary"])
def test_a_packed_buffer_that_claims_gigabytes_ends_the_file_before_its_batch(
    read: Read, name: str, codec: str, kind: str
) -> None:
    texts = pa.array([f"{number} of a text " * 300 for number in range(100)])
    of = texts.dictionary_encode() if kind == "dictionary" else texts
    batches = [pa.record_batch({"text": some}) for some in (of, of)]
    out = io.BytesIO()
    new = pa.ipc.new_file if name == "c.arrow" else pa.ipc.new_stream
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with new(out, batches[0].schema, options=options) as file:
        for batch in batches:
            file.write_batch(batch)
    data, size = out.getvalue(), texts.buffers()[2].size.to_bytes(8, "little")
    assert len(read(name, data)) == 200
    begin = data.rindex(size)
    damaged = data[:begin] + (3 << 30).to_bytes(8, "little") + data[begin + 8 :]
    before = pa.default_memory_pool().max_memory()
    lines = read(name, damaged)
    whole = 0 if kind == "dictionary" else 100
    ((at, reason),) = reasons(lines)
    assert (len(lines), at) == (whole + 1, whole + 1)
    assert reason.endswith("a column of its batch unpacks to more than 1,073,741,824 bytes")
    assert pa.default_memory_pool().max_memory() - before < 1 << 30


def varint(number: int) -> bytes:
    """A whole number as Parquet's heads have it."""
    number, out = 2 * number, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_a_page_of_parquet_that_claims_gigabytes_ends_the_file_before_its_rows(read: Read) -> None:
    out = io.BytesIO()
    plain = {"use_dictionary": False, "write_statistics": False, "compression": "zstd"}
    with pq.ParquetWriter(out, pa.schema({"text": pa.string()}), **plain) as file:
        for text in ("one", "x" * 140_000_000):
            file.write_table(pa.table({"text": [text]}))
    data = out.getvalue()
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0)
    page, whole = 140_000_010, column.total_uncompressed_size
    assert data.count(varint(page)) == 1 and varint(whole) in data
    data = data.replace(varint(page), varint(3 << 29)).replace(varint(whole), varint(2000 << 20))
    before = pa.default_memory_pool().max_memory()
    lines = read("c.parquet", data)
    assert lines[0] == Job(default_id("one"), "one")
    ((at, reason),) = reasons(lines)
    assert at == 2 and "a page of column 'text' unpacks to more than 1,073,741,824 b" in reason
    assert pa.default_memory_pool().max_memory() - before < 50_000_000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_page_version": "2.0", "compression": "zstd"},
        {"write_page_checksum": True, "use_dictionary": False},
        {"column_encoding": "DELTA_BYTE_ARRAY", "use_dictionary": False},
    ],
)
def test_the_largest_page_of_a_column_is_found_in_any_way_of_writing_it(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    chance = random.Random(1)
    texts = [chance.randbytes(size * 50).hex() for size in (*[1] * 2000, *[30] * 1024, *[2] * 900)]
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": texts}), path, dictionary_pagesize_limit=9**9, **options)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    with open(path, "rb") as file:
        found = largest_page(file, begin, begin + column.total_compressed_size)
        most = column.total_uncompressed_size
        assert (most * 0.5 if options else most * 0.95) < found < most
        for _ in range(300):
            assert largest_page(file, chance.randrange(path.stat().st_size), 2**31) >= 0
    for size in range(300):
        assert largest_page(io.BytesIO(chance.randbytes(size)), 0, 2**31) >= 0


def test_arrow_text_that_is_not_utf8_costs_its_row(read: Read) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffy")]
    )
    out = io.BytesIO()
    with pa.ipc.new_file(out, pa.schema({"text": pa.string()})) as file:
        file.write_table(pa.table({"text": broken}))
    lines = read("c.arrow", out.getvalue())
    assert [number for number, _ in reasons(lines)] == [1]
    assert lines[1] == Job(default_id("y"), "y")


# --- Documents


def test_a_document_is_one_text_named_by_its_file(read: Read) -> None:
    assert read("README.md", b"# Title\n\nText\n") == [Job("README.md", "# Title\n\nText\n")]
    assert read("notes.txt", b"a\nb\n", whole_files=True) == [Job("notes.txt", "a\nb\n")]
    (rejection,) = read("long.md", b"x" * 10_001)
    assert isinstance(rejection, Rejection)
    assert (rejection.id, rejection.line) == ("long.md", 1)


def test_the_text_of_a_page_is_what_a_reader_sees(read: Read) -> None:
    page = """<?xml version="1.0"?><html><head><title>T</title><script>x()</script></head><body>
    <h1>Install &amp; go</h1><p style="padding: 99999em">Short <b>and</b> bold.</p>
    <table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table><ul><li>Ö</li></ul></body>"""
    (job,) = read("p.html", page.encode())
    assert isinstance(job, Job)
    assert job.text.split() == [
        "Install",
        "&",
        "go",
        "Short",
        "and",
        "bold.",
        "a",
        "b",
        "c",
        "*",
        "Ö",
    ]
    (job,) = read("p.htm", page.replace("T<", '</title><meta charset="latin-1">').encode("latin-1"))
    assert isinstance(job, Job)
    assert "Ö" in job.text
    assert isinstance(read("e.html", b"")[0], Rejection)


@pytest.mark.parametrize(
    "page",
    [
        b"<div>" * 100_000 + b"x",
        b"<ul><li>" * 200 + b"<br>x" * 20_000,
        b"<table><tr><td>" + b"x" * 1_000_000 + b"</td></tr>" + b"<tr><td>y" * 5_000,
        b"<p style='padding-left: 100000em; margin-top: 100000em'>x" * 100,
    ],
)
def test_a_page_makes_no_text_much_longer_than_itself(read: Read, page: bytes) -> None:
    tracemalloc.start()
    try:
        assert len(read("p.html", page)) == 1
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()


def test_a_dictionary_of_views_is_text(read: Read) -> None:
    views = pa.array(["x", None, "y"], pa.string_view())
    column = pa.DictionaryArray.from_arrays(pa.array([0, 2, 2]), views)
    out = io.BytesIO()
    with pa.ipc.new_file(out, pa.schema({"text": column.type})) as file:
        file.write_table(pa.table({"text": column}))
    lines = read("c.arrow", out.getvalue())
    assert [line.text for line in lines if isinstance(line, Job)] == ["x", "y", "y"]
