"""Changing corpora on servers: Parquet shards on S3, and a table of PostgreSQL."""

from __future__ import annotations

import io
import sys
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice

from postgresql import PostgreSQL

from worker.local.child import Child
from worker.local.redis_server import free_port

from .changing import Changing
from .truth import Held

_SHARD = 3_000  # texts
_KEY = "testing"


class Shards(Changing):
    """Parquet files on an S3 server. What is added in a pass is a shard of its own."""

    words = ("s3://corpora/shards/*.parquet", "--collection", "corpus")

    def prepare(self) -> None:
        import boto3

        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._server = Child("moto", command, self.directory / "moto.log")
        self._server.wait_for("Running on", 60)
        address = f"http://127.0.0.1:{port}"
        login = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _KEY}
        self.environ = {**login, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
        self._s3 = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
        )
        self._s3.create_bucket(Bucket="corpora")
        self._shards: list[list[str]] = []
        self._shard_of: dict[str, int] = {}

    def candidates(self) -> list[str]:
        """Those of a few shards: the others stay as they are."""
        chosen = self._chance.sample(self._shards, -(-len(self._shards) // 4))
        chosen.append(self._shards[0])
        return list(dict.fromkeys(id for shard in chosen for id in shard if id in self.texts))

    def write(self, changed: Collection[str]) -> None:
        touched = {self._shard_of[id] for id in changed if id in self._shard_of}
        added = iter(sorted(id for id in changed if id not in self._shard_of))
        while some := list(islice(added, _SHARD)):
            touched.add(len(self._shards))
            self._shard_of.update((id, len(self._shards)) for id in some)
            self._shards.append(some)
        for number in touched:
            self._put(number)

    def close(self) -> None:
        self._server.stop()

    def _put(self, number: int) -> None:
        import pyarrow  # type: ignore[import-untyped]  # the same
        import pyarrow.parquet  # type: ignore[import-untyped]  # the same

        ids = [id for id in self._shards[number] if id in self.texts]
        key = {"Bucket": "corpora", "Key": f"shards/part-{number:04}.parquet"}
        if not ids:
            self._s3.delete_object(**key)
            return
        rows = pyarrow.table({"id": ids, "text": [self.texts[id] for id in ids]})
        out = io.BytesIO()
        pyarrow.parquet.write_table(rows, out, row_group_size=1_000, compression="zstd")
        self._s3.put_object(**key, Body=out.getvalue())


class Table(Changing):
    """A table of PostgreSQL."""

    words = ("--sql", "SELECT id, body AS text FROM articles", "--collection", "corpus")

    def prepare(self) -> None:
        self._server = PostgreSQL()
        self.environ = {"VECTOR_EMBED_DATABASE_URL": self._server.url}
        self._server(
            "CREATE TABLE articles (id text PRIMARY KEY, body text NOT NULL)",
            "ALTER TABLE articles OWNER TO app",
        )

    def write(self, changed: Collection[str]) -> None:
        import psycopg

        address = f"host={self._server.socket} user=postgres dbname=shop"
        with psycopg.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE changed (id text) ON COMMIT DROP")
            with cursor.copy("COPY changed FROM STDIN") as copy:
                for id in changed:
                    copy.write_row((id,))
            cursor.execute("DELETE FROM articles WHERE id IN (TABLE changed)")
            with cursor.copy("COPY articles FROM STDIN") as copy:
                for row in self._rows(changed):
                    copy.write_row(row)

    def make_sink(self, database: str = "shop") -> str:
        """Let vectors into a table of this database, the corpus' own or another; its address."""
        if database != "shop":
            self._server(f"CREATE DATABASE {database} OWNER app", database="postgres")
        # Of a million rows. With less, pgvector takes an hour to index them.
        self._server(f"ALTER DATABASE {database} SET maintenance_work_mem = '1GB'")
        self._server("CREATE EXTENSION vector", database=database)
        return self._server.url.replace("/shop?", f"/{database}?") + "&table=vectors"

    def in_sink(self, database: str = "shop") -> Iterator[tuple[str, Held]]:
        """What that table holds."""
        rows = self._server(
            "SELECT id, embedding::real[], digest, parent, start_offset, end_offset FROM vectors",
            database=database,
        )
        for id, vector, digest, parent, start, end in rows:
            place = None if parent is None else {"parent": parent, "start": start, "end": end}
            yield str(id), Held(array("f", vector).tobytes(), bytes(digest), place)  # type: ignore[call-overload]

    def crash(self) -> None:
        """Let the server crash, and recover; not while it recovers from the crash before."""
        import psycopg

        with suppress(psycopg.OperationalError):
            self._server.crash()

    def close(self) -> None:
        self._server.stop()

    def _rows(self, changed: Collection[str]) -> Iterator[tuple[str, str]]:
        return ((id, self.texts[id]) for id in changed if id in self.texts)
