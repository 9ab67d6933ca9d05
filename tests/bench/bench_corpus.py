"""The corpus as it is: what reading and splitting cost, and how much memory the producer takes.

    python -m tests.bench.bench_corpus --megabytes 300 --before ../earlier

Lines: the limit is a bare loop that reads the file, parses each line with orjson and adds chunks of
1,000 by a script that does nothing but XADD. `--before` names a checkout of an earlier commit: its
`vec-enqueue` is timed in turns with ours.

Documents: the Markdown of this project, as a folder. The limit is reading and decoding the files.
Splitting is compared with reading alone, and with a run that gets the same pieces as JSON lines, in
processor time.

Address (`--only address`; needs the extra `elsewhere`): packed files on an S3 server behind a slow
network. The limit is the same file on disk, or its bytes by the speed of the network, whichever
takes longer; *busy* is processor time by wall time.

Memory: the peak of the whole process of `vec-enqueue`, beside what we allow.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import orjson
import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet  # type: ignore[import-untyped]  # the same
from servers import TcpProxy

from worker.corpus import Corpus, Reading
from worker.corpus.long import Long
from worker.local.child import Child
from worker.local.redis_server import free_port
from worker.types import PIECE_FIELDS, Job

from .bench_enqueue import XADD_LUA, write_corpus
from .stack import ROOT, Ran, Stack, stack
from .table import Table, machine

NAME = "bench"
PARTS = ("lines", "documents", "memory")  # and "address", which needs the extra `elsewhere`
LINES_LIMIT, PARQUET_LIMIT = 100, 250  # MB
LINE_BYTES = 320
_ENTRY = (
    "import sys; from worker.corpus import Corpus, Reading; from worker.corpus.long import Long"
)
_READ = _ENTRY + "; print(sum(1 for _ in Corpus(sys.argv[1], Reading(long=Long({long})))))"
_BARE = "import os, sys; [open(file, 'rb').read().decode() for file in os.scandir(sys.argv[1])]"
RATES = (100, 20, 5)  # MB/s of a network
PIECES = "vec-enqueue of the pieces"
SPLIT = ("--long", "split", "--split-as", "markdown", "--chunk-size", "2000")
WAYS = {
    "read, long texts cut": "'cut'",
    "split as text": "'split', 'text', 2000",
    "split as Markdown": "'split', 'markdown', 2000",
}


def bare(on: Stack, corpus: Path) -> dict[str, float]:
    """The limit of lines: read, orjson, Lua XADD."""
    on.flush()
    script = on.client.register_script(XADD_LUA)
    begun, used = time.perf_counter(), time.process_time()
    args: list[str] = []
    texts = 0
    with corpus.open("rb") as file:
        for line in file:
            said = orjson.loads(line)
            args += (said["id"], said["text"])
            texts += 1
            if len(args) == 2000:
                script(["stream"], args)
                args = []
    if args:
        script(["stream"], args)
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    return {"texts/s": texts / seconds, "cpu us/text": used * 1e6 / texts}


def enqueue(on: Stack, corpus: Path, texts: int, code: Path) -> dict[str, float]:
    """`vec-enqueue` of some checkout, the whole process."""
    ran = produce(on, str(corpus), code=code)
    assert f"{texts:,} new" in ran.said, ran.said
    return {
        "texts/s": texts / ran.seconds,
        "cpu us/text": ran.cpu_seconds * 1e6 / texts,
        "peak MB": ran.peak_megabytes,
    }


def produce(on: Stack, *words: str, code: Path = ROOT, **environ: str) -> Ran:
    """Run `vec-enqueue` into an empty Redis. It may reject lines (1) or the file (2)."""
    on.flush()
    environ.update(VECTOR_EMBED_HIGH_WATER=str(10**9), PYTHONPATH=str(code))
    return on.run("vec-enqueue", *words, "--collection", NAME, good=(0, 1, 2), **environ)


def python(code: str, *arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of a Python program."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, used


def bench_lines(on: Stack, megabytes: int, runs: int, before: Path | None) -> None:
    texts = megabytes * 1_000_000 // LINE_BYTES
    corpus = on.directory / "lines.jsonl"
    write_corpus(corpus, texts, False)
    table = Table(f"{texts:,} JSON lines", ("texts/s", "cpu us/text", "peak MB"))
    for _ in range(runs):
        table.add("read, orjson, XADD", **bare(on, corpus))
        table.add("vec-enqueue", **enqueue(on, corpus, texts, ROOT))
        if before is not None:
            table.add("before", **enqueue(on, corpus, texts, before.resolve()))
    table.ratios("cpu us/text", "read, orjson, XADD")
    if before is not None:
        table.ratios("cpu us/text", "before")
        table.ratios("texts/s", "before")
    table.show()
    corpus.unlink()


def bench_documents(on: Stack, megabytes: int, runs: int) -> None:
    """Reading and splitting a folder of Markdown."""
    folder = on.directory / "documents"
    size = write_documents(folder, megabytes * 1_000_000) / 1e6
    pieces = on.directory / "pieces.jsonl"
    write_pieces(pieces, folder)
    table = Table(f"{size:,.0f} MB of Markdown", ("MB/s", "cpu s", "peak MB"))
    for _ in range(runs):
        seconds, used = python(_BARE, str(folder))
        table.add("bare read", **{"MB/s": size / seconds, "cpu s": used})
        for name, long in WAYS.items():
            seconds, used = python(_READ.format(long=long), str(folder))
            table.add(name, **{"MB/s": size / seconds, "cpu s": used})
        for name, words in {
            "vec-enqueue --long cut": (str(folder), "--long", "cut"),
            PIECES: (str(pieces), *(f"--keep={name}" for name in PIECE_FIELDS)),
            "vec-enqueue --long split": (str(folder), *SPLIT),
        }.items():
            ran = produce(on, *words)
            peak = {"MB/s": size / ran.seconds, "cpu s": ran.cpu_seconds}
            table.add(name, **peak, **{"peak MB": ran.peak_megabytes})
    table.ratios("cpu s", "read, long texts cut")
    table.ratios("cpu s", PIECES)
    table.show()


def write_pieces(path: Path, folder: Path) -> None:
    """The pieces of a folder's documents, each a line, under ids that are no pieces'."""
    reading = Reading(long=Long("split", "markdown", 2000))
    with path.open("wb") as file, Corpus(str(folder), reading) as corpus:
        for job in corpus:
            assert isinstance(job, Job)
            line = {**(job.meta or {}), "id": job.id.replace("#", "-"), "text": job.text}
            file.write(orjson.dumps(line) + b"\n")


def write_documents(folder: Path, size: int) -> int:
    """The Markdown of this project over and over, each file a little different."""
    pages = [path.read_text() for path in sorted(ROOT.rglob("*.md")) if ".venv" not in path.parts]
    pages = [page for page in pages if 2_000 < len(page) < 200_000]
    folder.mkdir()
    written = number = 0
    while written < size:
        page = f"# Edition {number}\n\n{pages[number % len(pages)]}"
        (folder / f"{number:06}.md").write_text(page)
        written += len(page.encode())
        number += 1
    return written


def bench_address(on: Stack, megabytes: int, runs: int) -> None:
    """Packed files on disk, and on an S3 server behind a network of some speed."""
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = Child("moto", command, on.directory / "moto.log")
    networks = {rate: TcpProxy(f"http://127.0.0.1:{port}", rate * 1e6) for rate in RATES}
    try:
        server.wait_for("Running on", 60)
        os.environ.update(
            AWS_ACCESS_KEY_ID="bench",
            AWS_SECRET_ACCESS_KEY="bench",
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        )
        client = boto3.client("s3")
        client.create_bucket(Bucket="bench")
        for path in _packed(on.directory, megabytes * 1_000_000):
            client.upload_file(str(path), "bench", path.name)
            _bench_address(on, path, networks, runs)
            path.unlink()
    finally:
        for proxy in networks.values():
            proxy.close()
        server.stop()


def _bench_address(on: Stack, path: Path, networks: Mapping[int, TcpProxy], runs: int) -> None:
    size = path.stat().st_size / 1e6
    columns = ("seconds", "limit s", "of the limit", "cpu s", "busy", "peak MB")
    table = Table(f"{path.name}, {size:,.0f} MB", columns)
    for _ in range(runs):
        disk = produce(on, str(path))
        _add(table, "on disk", disk, disk.seconds)
        for rate, proxy in networks.items():
            ran = produce(on, f"s3://bench/{path.name}", AWS_ENDPOINT_URL=proxy.url)
            _add(table, f"on S3, {rate:,} MB/s", ran, max(disk.seconds, size / rate))
    table.show()


def _add(table: Table, row: str, ran: Ran, limit: float) -> None:
    times = {"seconds": ran.seconds, "limit s": limit, "of the limit": ran.seconds / limit}
    used = {"cpu s": ran.cpu_seconds, "busy": ran.cpu_seconds / ran.seconds}
    table.add(row, **times, **used, **{"peak MB": ran.peak_megabytes})


def _packed(directory: Path, size: int) -> Iterator[Path]:
    """Texts that zstd packs to a quarter: in Parquet, in Parquet packed once more, in lines."""
    from backports import zstd

    path = directory / "rows.parquet"
    _rows(path, size, repeats=2)
    whole = path.read_bytes()
    yield path
    path = directory / "rows.parquet.zst"
    path.write_bytes(zstd.compress(whole))
    yield path
    path = directory / "rows.jsonl.zst"
    table = pyarrow.parquet.read_table(io.BytesIO(whole))
    with zstd.open(path, "wb") as file:
        for batch in table.to_batches():
            file.writelines(orjson.dumps(row) + b"\n" for row in batch.to_pylist())
    yield path


def bench_memory(on: Stack, megabytes: int, bomb: int) -> None:
    """The peak of `vec-enqueue` with corpora that are easy to hold whole."""
    title = f"the producer of {megabytes:,} MB of lines, or one of {bomb:,}"
    table = Table(title, ("peak MB", "limit MB", "of the limit", "seconds"))
    for name, (limit, write) in _heavy().items():
        path = on.directory / name
        write(path, (bomb if write in (_one_line, _zeros) else megabytes) * 1_000_000)
        ran = produce(on, str(path))
        share = ran.peak_megabytes / limit
        values = {"peak MB": ran.peak_megabytes, "limit MB": limit, "of the limit": share}
        table.add(name, **values, seconds=ran.seconds)
        path.unlink()
    table.show()


def _heavy() -> dict[str, tuple[int, Callable[[Path, int], None]]]:
    """Files by name, each with what we allow the producer, in MB."""
    return {
        "lines-of-300.jsonl": (LINES_LIMIT, partial(_rows_of_json, length=300)),
        "lines-of-10000.jsonl": (LINES_LIMIT, partial(_rows_of_json, length=10_000)),
        "array-of-10000.json": (LINES_LIMIT, partial(_rows_of_json, length=10_000)),
        **{
            f"one-line.{kind}": (LINES_LIMIT, _one_line) for kind in ("jsonl", "json", "csv", "txt")
        },
        **{f"zeros.{kind}.gz": (LINES_LIMIT, _zeros) for kind in ("jsonl", "json", "csv", "txt")},
        "rows.parquet": (PARQUET_LIMIT, _rows),
        "shared-string.parquet": (PARQUET_LIMIT, _shared),
    }


def _rows_of_json(path: Path, size: int, length: int) -> None:
    start, between, end = ("[", ",", "]") if path.suffix == ".json" else ("", "\n", "\n")
    with path.open("w") as file:
        file.write(start)
        for number in range(size // length):
            row = {"id": str(number), "text": f"{number} ".ljust(length - 50, "a")}
            file.write((between if number else "") + json.dumps(row))
        file.write(end)


def _one_line(path: Path, size: int) -> None:
    row = ('{"id": "1", "text": "', '"}')
    start, end = {
        ".jsonl": row,
        ".json": (f"[{row[0]}", f"{row[1]}]"),
        ".csv": ("id,text\n1,", ""),
    }.get(path.suffix, ("", ""))
    with path.open("w") as file:
        file.write(start)
        for _ in range(size // 1_000_000):
            file.write("a" * 1_000_000)
        file.write(f"{end}\n")


def _zeros(path: Path, size: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(size // 1_000_000):
            file.write(bytes(1_000_000))


def _rows(path: Path, size: int, repeats: int = 8) -> None:
    """Rows of 1,000 characters, of which the same is said `repeats` times over."""
    schema = pyarrow.schema([("id", pyarrow.string()), ("text", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, size // 1_000, 100_000):
            ids = [str(number) for number in range(first, min(first + 100_000, size // 1_000))]
            texts = [(os.urandom(496 // repeats).hex() + " ") * repeats for _ in ids]
            writer.write_table(pyarrow.table({"id": ids, "text": texts}, schema))


def _shared(path: Path, size: int) -> None:
    """A small file: 4,000 rows with one and the same string of 5 MB, if `size` is more."""
    numbers = pyarrow.array([0] * 4_000, pyarrow.int32())
    text = pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array(["a" * min(size, 5_000_000)]))
    table = pyarrow.table({"id": [str(number) for number in range(4_000)], "text": text})
    pyarrow.parquet.write_table(table, path, compression="zstd", dictionary_pagesize_limit=10**8)


def bench(
    megabytes: int, runs: int, bomb: int, before: Path | None = None, only: Sequence[str] = PARTS
) -> None:
    with stack() as on:
        if "lines" in only:
            bench_lines(on, megabytes, runs, before)
        if "documents" in only:
            bench_documents(on, megabytes, runs)
        if "address" in only:
            bench_address(on, megabytes, runs)
        if "memory" in only:
            bench_memory(on, megabytes, bomb)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_corpus", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bomb", type=int, default=1000, help="megabytes of one line, of zeros")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--only", choices=(*PARTS, "address"), nargs="+", default=PARTS)
    asked = parser.parse_args()
    print(machine())
    bench(asked.megabytes, asked.runs, asked.bomb, asked.before, asked.only)


if __name__ == "__main__":
    main()
