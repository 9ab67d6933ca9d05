"""Corpora at addresses: read as local ones are, whatever the server does in between."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from remote_files import FileServer, file_server

from worker.corpus import Corpus, CorpusError, Reading, collection_name, find_source
from worker.corpus.sources import File
from worker.corpus.sources.connection import Connection
from worker.corpus.sources.remote import Facts, opened
from worker.corpus.stream import Stream
from worker.types import Job, Rejection

pytest.importorskip("aiohttp")

TEXT = "a text with ünïcode, long enough to be worth its line"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as files:
        yield files


@pytest.fixture
def memory() -> Iterator[tuple[Any, str]]:
    """fsspec's files in memory, and a folder there that is the test's own."""
    system = fsspec.filesystem("memory")
    root = uuid4().hex
    yield system, f"memory://{root}"
    if system.exists(f"/{root}"):
        system.rm(f"/{root}", recursive=True)


def json_lines(number: int, text: str = TEXT) -> bytes:
    return b"".join(
        json.dumps({"id": str(at), "text": f"{text} {at}"}).encode() + b"\n" for at in range(number)
    )


def lines_of(path: object, reading: Reading | None = None) -> list[Job | Rejection]:
    with Corpus(str(path), reading) as corpus:
        return list(corpus)


def read(path: object) -> tuple[list[str | None], str | None]:
    """The ids of a corpus, and why it could not be read to its end."""
    with Corpus(str(path)) as corpus:
        return [one.id for one in corpus if isinstance(one, Job)], corpus.broken


def ids(number: int) -> list[str | None]:
    return [str(at) for at in range(number)]


def parquet(number: int) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    rows = {
        "id": [str(at) for at in range(number)],
        "text": [f"{TEXT} {at}" for at in range(number)],
    }
    pq.write_table(pa.table(rows), out, row_group_size=1000, compression="none")
    return out.getvalue()


def arrow(number: int, stream: bool = False) -> bytes:
    pa = pytest.importorskip("pyarrow")
    out = io.BytesIO()
    table = pa.table({"id": [str(at) for at in range(number)], "text": [TEXT] * number})
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    return out.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "jsonl": lambda: json_lines(1000) + b"not a line\n",
    "json": lambda: json.dumps([{"id": str(at), "text": TEXT} for at in range(1000)]).encode(),
    "csv": lambda: b"id,text\n" + b"".join(b'%d,"a, ""b""\nc"\n' % at for at in range(1000)),
    "tsv": lambda: b"id\ttext\n" + b"".join(b"%d\tx\n" % at for at in range(1000)),
    "txt": lambda: b"".join(b"line %d\n" % at for at in range(1000)),
    "md": lambda: b"# One\n\ntext",
    "html": lambda: b"<p>One <b>text</b>",
    "parquet": lambda: parquet(6000),
    "arrow": lambda: arrow(6000),
    "feather": lambda: arrow(6000, stream=True),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pytest.importorskip("backports.zstd").compress(data)),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_at_an_address_is_read_as_a_local_one(
    format: str, packing: str, memory: tuple[Any, str], server: FileServer, tmp_path: Path
) -> None:
    if format == "html":
        pytest.importorskip("inscriptis")
    system, root = memory
    name = f"one.{format}{packing}"
    data = PACKINGS[packing](FORMATS[format]())
    (tmp_path / name).write_bytes(data)
    system.pipe(f"{root}/{name}", data)
    server.files[name] = data
    expected = lines_of(tmp_path / name)
    assert lines_of(f"{root}/{name}") == expected
    assert lines_of(f"{server.address}{name}") == expected
    assert expected


def test_a_folder_and_a_pattern_give_the_ids_and_the_order_of_local_ones(
    memory: tuple[Any, str], server: FileServer, tmp_path: Path
) -> None:
    system, root = memory
    for name in (
        *("b/z.md", "b/deep/er/y.txt", "a.jsonl", "c d.txt.gz", "image.png", ".hidden.md"),
        *(".git/x.md", "a.rejected.jsonl", "bä/q?.md", "b.md", "b/10.txt", "b/9.txt"),
    ):
        data = json_lines(2) if name.endswith("jsonl") else name.encode()
        data = gzip.compress(data) if name.endswith("gz") else data
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(data)
        system.pipe(f"{root}/docs/{name}", data)
        server.files[f"docs/{name}"] = data
    for tail in ("/", "", "/*.jsonl", "/**/*.md", "/b*/*.*", "/*/*/er/*.txt", "/b/[0-9].txt"):
        expected = lines_of(f"{tmp_path}/docs{tail}")
        found = {f"{root}/docs{tail}": lines_of(f"{root}/docs{tail}")}
        if tail:
            found["http"] = lines_of(f"{server.address}docs{tail}")
        for where, lines in found.items():
            assert lines == expected, where
        assert expected, tail


def test_rejections_name_file_and_line_and_no_secret(memory: tuple[Any, str]) -> None:
    system, root = memory
    system.pipe(f"{root}/docs/a.jsonl", json_lines(1) + b"bad\n")
    (rejected,) = [one for one in lines_of(f"{root}/docs/") if isinstance(one, Rejection)]
    assert (rejected.file, rejected.line) == (f"{root}/docs/a.jsonl", 2)


def test_versions_change_when_the_file_does(memory: tuple[Any, str], server: FileServer) -> None:
    system, root = memory
    seen = set()
    for data in (json_lines(1), json_lines(1), json_lines(2)):
        server.files["a.jsonl"] = data
        if not system.exists(f"{root}/a.jsonl") or system.cat(f"{root}/a.jsonl") != data:
            system.pipe(f"{root}/a.jsonl", data)
        for path in (f"{root}/a.jsonl", f"{root}/", f"{root}/*.jsonl", f"{server.address}a.jsonl"):
            (file,) = find_source(path).files()
            assert isinstance(file, File) and file.version is not None
            seen.add((path, file.version))
    assert len(seen) == 8


def test_a_read_that_breaks_off_is_taken_up_where_it_stopped(server: FileServer) -> None:
    data = json_lines(100_000)
    server.files["a.jsonl"] = data
    random.seed(1)
    server.fault = lambda _path, _at, part: (
        random.randrange(len(part)) if random.random() < 0.5 else None
    )
    assert read(f"{server.address}a.jsonl") == (ids(100_000), None)
    asked = [int(part[6:].split("-")[0]) for part in server.sent if part]
    assert len(set(asked)) < len(asked), "no connection was cut"
    assert asked == sorted(asked)


@pytest.mark.parametrize(
    "format", ["jsonl.gz", "parquet", pytest.param("arrow", marks=pytest.mark.heavy)]
)
def test_so_are_packed_data_and_columns(server: FileServer, format: str) -> None:
    made = {
        "jsonl.gz": lambda: gzip.compress(json_lines(30_000), 1),
        "parquet": lambda: parquet(30_000),
        "arrow": lambda: arrow(30_000),
    }
    server.files[f"a.{format}"] = made[format]()
    cut = iter([1000, 70_000, 0] * 3)
    server.fault = lambda *_: next(cut, None)
    assert read(f"{server.address}a.{format}") == (ids(30_000), None)
    assert next(cut, None) is None


def test_columns_are_read_in_any_order_while_they_arrive(memory: tuple[Any, str]) -> None:
    system, root = memory
    data = random.Random(1).randbytes(3_000_001)
    system.pipe(f"{root}/a.parquet", data)
    (file,) = find_source(f"{root}/a.parquet").files()
    assert isinstance(file, File)
    for first in ((0, 3_000_001), (1_999_990, 20), (2_999_999, 9), (1_000_000, 1_500_000)):
        columns = Stream(file).random_access()
        for at, count in (first, (5, 100_000), (1_900_000, 600_000), (0, 3_000_001)):
            columns.seek(at)
            assert columns.read(count) == data[at : at + count]
        columns.close()


def test_a_server_that_is_busy_is_asked_again(server: FileServer) -> None:
    server.files["a.jsonl"] = json_lines(10_000)
    answers = iter(["503", "429", None, "500", "503", None] + ["502"] * 5)
    server.fault = lambda *_: next(answers, None)
    assert read(f"{server.address}a.jsonl") == (ids(10_000), None)


def test_a_server_that_gives_no_parts_is_asked_from_the_start(server: FileServer) -> None:
    server.files["a.jsonl"] = json_lines(30_000)
    server.ranges = False
    cut = iter([400_000, 100_000, 1_000_000])
    server.fault = lambda *_: next(cut, None)
    assert read(f"{server.address}a.jsonl") == (ids(30_000), None)
    assert next(cut, None) is None


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_server_that_says_no_size_is_read_as_a_stream(server: FileServer, format: str) -> None:
    server.files[f"a.{format}"] = json_lines(9000) if format == "jsonl" else parquet(9000)
    server.sizes = False
    assert read(f"{server.address}a.{format}") == (ids(9000), None)


def test_two_versions_of_a_file_are_never_mixed(server: FileServer) -> None:
    server.files["a.jsonl"] = json_lines(50_000, "old" * 20)

    def change(_path: str, at: int, _part: bytes) -> None:
        if at > 1_000_000:
            server.files["a.jsonl"] = json_lines(50_000, "new" * 20)

    server.fault = change
    with Corpus(f"{server.address}a.jsonl") as corpus:
        texts = [one.text for one in corpus if isinstance(one, Job)]
        assert corpus.broken == (
            f"{server.address}a.jsonl: the file cannot be read any further: "
            "it was changed while it was read: run the same command again"
        )
    assert 1000 < len(texts) < 50_000 and all(text.startswith("old") for text in texts)


def test_a_file_that_is_changed_before_it_is_read_is_read_as_it_is_now(
    memory: tuple[Any, str],
) -> None:
    system, root = memory
    system.pipe(f"{root}/a.jsonl", json_lines(100))
    (file,) = find_source(f"{root}/").files()
    system.pipe(f"{root}/a.jsonl", json_lines(50))
    assert isinstance(file, File)
    with file.open() as opened:
        assert opened.read() == json_lines(50)


@pytest.mark.parametrize("ranges", [True, False])
def test_without_a_version_a_read_that_breaks_off_is_a_fault(
    server: FileServer, ranges: bool
) -> None:
    server.files["a.jsonl"] = json_lines(30_000)
    server.versions, server.ranges = False, ranges
    assert read(f"{server.address}a.jsonl") == (ids(30_000), None)
    server.fault = lambda *_: 1_500_000
    found, broken = read(f"{server.address}a.jsonl")
    assert found == ids(len(found)) and 1000 < len(found) < 30_000
    assert broken is not None and "does not say whether it is still the same file" in broken


def test_a_fault_that_stays_ends_the_corpus_with_the_lines_before_it(server: FileServer) -> None:
    for name in ("a", "b", "c"):
        server.files[f"docs/{name}.jsonl"] = json_lines(10_000)
    server.fault = lambda path, at, _: "403" if path == "docs/b.jsonl" and at else None
    with Corpus(f"{server.address}docs/") as corpus:
        lines = list(corpus)
        assert corpus.broken is not None and "docs/b.jsonl" in corpus.broken
    assert 10_000 < len(lines) < 20_000
    assert isinstance(lines[-1], Rejection) and lines[-1].file == f"{server.address}docs/b.jsonl"


def test_a_server_that_stays_away_is_given_up_after_twenty_seconds(server: FileServer) -> None:
    server.files["a.jsonl"] = json_lines(30_000)
    waits: list[float] = []
    connection = Connection(f"{server.address}a.jsonl", wait=waits.append)
    with opened(connection, None, Facts(None, None)) as file:
        server.fault = lambda *_: "503"
        with pytest.raises(OSError, match="503"):
            file.read()
    assert len(waits) == 8 and 15 < sum(waits) < 30
    with pytest.raises(CorpusError, match="503"):
        opened(connection, None, Facts(None, None))
    assert len(waits) == 11 and sum(waits[8:]) < 1


class Odd(MemoryFileSystem):  # type: ignore[misc]  # it ships no types
    """A driver whose errors have lines and are no OSErrors."""

    protocol = "odd"
    error: Exception | None = None

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.replace("odd://", "memory://"))

    def info(self, path: str, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        return super().info(path, **options)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("two\nlines"), KeyError("x"), AssertionError(), EOFError(), OSError(5, "no")],
)
def test_any_error_of_a_driver_is_one_line(
    memory: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fsspec.register_implementation("odd", Odd, clobber=True)
    system, root = memory
    system.pipe(f"{root}/a.jsonl", json_lines(20_000))
    address = f"{root.replace('memory', 'odd')}/a.jsonl"
    assert read(address) == (ids(20_000), None)
    waits: list[float] = []
    with opened(Connection(address, wait=waits.append), None, Facts(None, None)) as file:
        assert file.read(10)
        monkeypatch.setattr(Odd, "error", error)
        with pytest.raises(OSError) as raised:
            file.read()
    with pytest.raises(CorpusError) as refused:
        opened(Connection(address, wait=waits.append), None, Facts(None, None))
    for line in (str(raised.value), str(refused.value)):
        assert line and "\n" not in line


SECRET_ADDRESSES = [
    "{scheme}user:s3cr3t@{host}/a.jsonl",
    "{scheme}s3cr3t@{host}/a.jsonl",
    "{scheme}user:s3cr3t/p@ss@{host}/a.jsonl",
    "{scheme}user:p%40s3cr3t@{host}/a.jsonl?X-Amz-Signature=s3cr3t&token=s3cr3t#s3cr3t",
    "{scheme}{host}/a.jsonl?s3cr3t",
]


def test_a_short_value_in_an_address_leaves_messages_readable() -> None:
    with pytest.raises(CorpusError) as raised:
        lines_of("http://127.0.0.1:1/a.jsonl?part=1")
    assert str(raised.value).count("127.0.0.1") > 1
    assert "***" not in str(raised.value)


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
@pytest.mark.parametrize(
    "status",
    [None, "403", "404", pytest.param("500", marks=pytest.mark.heavy)],  # 20 s of waiting
)
def test_no_secret_of_an_address_is_said(
    server: FileServer, address: str, status: str | None
) -> None:
    host = server.address.removeprefix("http://").rstrip("/")
    server.files["a.jsonl"] = b"bad\n" + json_lines(30_000)
    server.fault = lambda _path, at, _part: status if at else 0
    path = address.format(scheme="http://", host=host)
    source = find_source(path)
    said = [repr(source), source.path, source.name, collection_name(source.path)]
    with pytest.raises(CorpusError) as raised:
        said.append(str(lines_of(path)))
    said.append(str(raised.value))
    server.fault = lambda _path, at, _part: status if at else None
    try:
        with Corpus(path) as corpus:
            said += [repr(line) for line in corpus if isinstance(line, Rejection)]
            said += [repr(corpus.fault), repr(corpus.broken)]
    except CorpusError as error:
        said.append(str(error))
    assert source.path.endswith("/a.jsonl") and "\n" not in str(raised.value)
    assert not [line for line in said if "s3cr3t" in line]
