"""Corpora on servers of other makers, whose connections break: S3 and sftp."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import TcpProxy
from shell import Shell

from worker.corpus import Corpus, CorpusError
from worker.local.redis_server import RedisServer
from worker.types import Job, Rejection

pytestmark = pytest.mark.elsewhere
boto3: Any = pytest.importorskip("boto3")
moto: Any = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
pytest.importorskip("paramiko")
from sftp_server import PASSWORD, sftp_server  # noqa: E402

Upload = Callable[[str, bytes], object]


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(
    moto_server: str, proxy: Callable[[str], TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> tuple[Upload, TcpProxy]:
    """Puts an object into an empty bucket, and what stands before the server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=moto_server)
    client.create_bucket(Bucket="bucket")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for found in page.get("Contents", ()):
            client.delete_object(Bucket="bucket", Key=found["Key"])
    between = proxy(moto_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
    return lambda key, data: client.put_object(Bucket="bucket", Key=key, Body=data), between


@pytest.fixture
def sftp(tmp_path: Path, proxy: Callable[[str], TcpProxy]) -> Iterator[tuple[Path, str, TcpProxy]]:
    """A folder, its address, and what stands before the server."""
    folder = tmp_path / "served"
    folder.mkdir()
    with sftp_server(folder) as port:
        between = proxy(f"http://127.0.0.1:{port}")
        host = between.url.removeprefix("http://")
        yield folder, f"sftp://someone:{PASSWORD}@{host}", between


def texts(number: int) -> list[str]:
    """Texts that cannot be packed well."""
    source = random.Random(1)
    return [source.randbytes(40).hex() for _ in range(number)]


def json_lines(number: int) -> bytes:
    rows = ({"id": str(at), "text": text} for at, text in enumerate(texts(number)))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(number: int) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    table = pa.table({"id": [str(at) for at in range(number)], "text": texts(number)})
    pq.write_table(table, out, row_group_size=2000, compression="zstd")
    return out.getvalue()


def read_beside(corpus: str, cut: Callable[[], object], every: int) -> list[Job | Rejection]:
    """The lines of a corpus, with a fault after so many of them, again and again."""
    lines = []
    with Corpus(corpus) as opened:
        for line in opened:
            lines.append(line)
            if len(lines) % every == 0:
                cut()
        assert opened.broken is None
    return lines


def numbers(lines: list[Job | Rejection]) -> list[str | None]:
    return [line.id for line in lines]


def test_s3_gives_files_folders_and_patterns(s3: tuple[Upload, TcpProxy], tmp_path: Path) -> None:
    put, _ = s3
    for name, data in {
        "docs/": b"",
        "docs/a b.md": b"one",
        "docs/b/c.txt": b"two",
        "docs/b.md": b"three",
        "docs/.x/y.md": b"no",
        "docs/d.jsonl.gz": gzip.compress(json_lines(3)),
        "docs/p.parquet": parquet(5000),
    }.items():
        put(name, data)
        if not name.endswith("/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    for tail in ("docs", "docs/", "docs/*.md", "docs/**/*.*", "docs/p.parquet", "docs/d.jsonl.gz"):
        with Corpus(f"s3://bucket/{tail}") as there, Corpus(f"{tmp_path}/{tail}") as here:
            assert list(there) == list(here), tail
    for address, line in {
        "bucket/docs/none.jsonl": " does not exist: check the name",
        "bucket/none/": ": the folder does not exist: check the name",
        "none/docs/": ": the folder does not exist: check the name",
        "none/a.jsonl": " does not exist: check the name",
    }.items():
        with pytest.raises(CorpusError) as raised:
            Corpus(f"s3://{address}")
        assert str(raised.value) == f"s3://{address}{line}"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_read_from_s3_is_taken_up_where_it_broke_off(
    s3: tuple[Upload, TcpProxy], name: str
) -> None:
    put, between = s3
    data = parquet(60_000) if "parquet" in name else json_lines(60_000)
    put(name, gzip.compress(data, 1) if name.endswith("gz") else data)
    between.cut_next_reply(1000, to=b"GET /bucket/a.")
    lines = read_beside(
        f"s3://bucket/{name}", lambda: between.cut_next_reply(30_000, to=b"GET /bucket/a."), 5000
    )
    assert numbers(lines) == [str(at) for at in range(60_000)]
    assert between.cuts > ("parquet" not in name)  # a background thread may have fetched all


def test_an_object_that_changes_ends_the_run_and_prunes_nothing(
    s3: tuple[Upload, TcpProxy], shell: Shell, redis_server: RedisServer
) -> None:
    put, _ = s3
    put("a.jsonl", json_lines(10))
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert shell("vec-enqueue", "s3://bucket/a.jsonl", **environ).returncode == 0
    put("a.jsonl", b"not gzip")
    put("b/a.jsonl.gz", gzip.compress(json_lines(10))[:100])
    put("b/b.jsonl", json_lines(10))
    told = shell(
        *("vec-enqueue", "s3://bucket/b/", "--collection", "a", "--prune", "--yes"), **environ
    )
    assert told.returncode == 1 and "nothing is pruned" in told.stderr
    assert PASSWORD not in told.stdout + told.stderr


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_read_over_sftp_is_taken_up_where_it_broke_off(
    sftp: tuple[Path, str, TcpProxy], name: str
) -> None:
    folder, address, between = sftp
    data = parquet(30_000) if "parquet" in name else json_lines(30_000)
    (folder / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        if cuts < 3:
            between.refuse()
            between.refuse(False)
        cuts += 1

    lines = read_beside(f"{address}/{name}", cut, 5000)
    assert numbers(lines) == [str(at) for at in range(30_000)]


def test_sftp_gives_files_folders_and_patterns_and_no_password(
    sftp: tuple[Path, str, TcpProxy],
) -> None:
    folder, address, between = sftp
    (folder / "b").mkdir()
    (folder / "a.md").write_text("one")
    (folder / "b" / "c.txt").write_text("two")
    (folder / "link.md").symlink_to("a.md")
    (folder / "bad.jsonl").write_text("bad\n")
    for tail in ("/", "/*.md", "/**/*.*"):
        with Corpus(f"{address}{tail}") as there, Corpus(f"{folder}{tail}") as here:
            lines = list(there)
            assert [line for line in lines if isinstance(line, Job)] == [
                line for line in here if isinstance(line, Job)
            ]
        assert PASSWORD not in repr(lines)
    with pytest.raises(CorpusError) as raised:
        Corpus(f"{address}/none.jsonl")
    assert str(raised.value).startswith("sftp://***@127.0.0.1:")
    with pytest.raises(CorpusError) as raised:
        Corpus(f"{address.replace(PASSWORD, 'wr0ng')}/a.md")
    assert "wr0ng" not in str(raised.value) and "\n" not in str(raised.value)
