"""A query as a corpus, on SQLite, and what is refused before any database is asked."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from worker.corpus import Corpus, CorpusError, Query, Reading
from worker.corpus.long import Long
from worker.types import Job, Rejection, default_id

Database = Callable[..., str]
PASSWORD = "zwick/li?ch#%2"
QUOTED = "zwick%2Fli%3Fch%23%252"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Makes a database of statements, and gives its address."""

    def make(*statements: str, rows: Sequence[Sequence[object]] = (), into: str = "") -> str:
        with sqlite3.connect(tmp_path / "shop.db") as connection:
            for statement in statements:
                connection.execute(statement)
            if rows:
                connection.executemany(into, rows)
        connection.close()
        return f"sqlite:///{tmp_path}/shop.db"

    return make


def lines(database: str, sql: str, reading: Reading | None = None) -> list[Job | Rejection]:
    with Corpus(Query(sql, database), reading) as corpus:
        return list(corpus)


def test_the_rows_of_a_query_are_jobs_in_its_order(database: Database) -> None:
    url = database(
        "CREATE TABLE articles (id INTEGER, title TEXT, body TEXT)",
        into="INSERT INTO articles VALUES (?, ?, ?)",
        rows=[(number, f"T{number}", f"text {number}") for number in range(100)],
    )
    found = lines(url, "SELECT id, body AS text FROM articles ORDER BY id DESC")
    assert found == [Job(f"{number}", f"text {number}") for number in reversed(range(100))]
    reading = Reading(template="{title}: {body}", id_field="title", keep=("id",))
    (one,) = lines(url, "SELECT * FROM articles WHERE title LIKE '%7' AND id = 7", reading)
    assert one == Job("T7", "T7: text 7", {"id": 7})
    assert lines(url, "SELECT body AS text FROM articles WHERE id = 3") == [
        Job(default_id("text 3"), "text 3")
    ]
    assert lines(url, "WITH a AS (SELECT 1 AS id, 'x' AS text) SELECT * FROM a;\n") == [
        Job("1", "x")
    ]
    assert (
        lines(url, "-- why\n/* a; b */ SELECT id, body AS text FROM articles WHERE id > 100") == []
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("'a'", None),
        ("CAST('a' AS BLOB)", None),
        ("NULL", "text: not a string but null"),
        ("''", "text: empty"),
        ("7", "text: not a string but a number"),
        ("1.5", "text: not a string but a number"),
        ("X'6180'", "column 'text' cannot be read: not UTF-8 at byte 2"),
        ("CAST(X'6180' AS TEXT)", "column 'text' cannot be read: not UTF-8 at byte 2"),
    ],
)
def test_a_cell_that_is_no_text_is_a_rejection_with_its_row(
    database: Database, value: str, reason: str | None
) -> None:
    sql = f"SELECT 1 AS id, {value} AS text UNION ALL SELECT 2, 'good'"
    one, good = lines(database(), sql)
    assert good == Job("2", "good")
    if reason is None:
        assert one == Job("1", "a")
        return
    assert isinstance(one, Rejection)
    assert (one.line, one.id, one.reason) == (1, "1", reason)
    assert json.loads(one.raw)["id"] == 1


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("7", "7"),
        ("'a'", "a"),
        ("CAST('a' AS BLOB)", "a"),
        ("NULL", default_id("x")),
        ("''", "id: empty"),
        ("1.5", "id: neither a string nor a whole number but a number"),
        ("X'80'", "column 'id' cannot be read: not UTF-8 at byte 1"),
    ],
)
def test_an_id_is_text_or_a_whole_number(database: Database, value: str, wanted: str) -> None:
    (one,) = lines(database(), f"SELECT {value} AS id, 'x' AS text")
    assert wanted == (one.id if isinstance(one, Job) else one.reason)


def test_fields_of_a_json_column_are_found_by_dots(database: Database) -> None:
    url = database(
        'CREATE TABLE pages (data TEXT, "a.b" TEXT)',
        into="INSERT INTO pages VALUES (?, ?)",
        rows=[
            ('{"id": 1, "doc": {"body": "x"}, "tags": ["t"]}', "dotted"),
            ('{"id": 2, "doc": 5}', None),
            ("{", None),
            ("[" * 100_000, None),
            (None, None),
        ],
    )
    reading = Reading("data.doc.body", "data.id", keep=("data.tags", "a.b"))
    good, *others = lines(url, "SELECT * FROM pages", reading)
    assert good == Job("1", "x", {"data.tags": ["t"], "a.b": "dotted"})
    reasons = [one.reason for one in others if isinstance(one, Rejection)]
    assert reasons[0] == "no field 'data.doc.body'"
    assert all("column 'data' cannot be read: malformed JSON: " in one for one in reasons[1:3])
    assert reasons[3] == "no field 'data.doc.body'"


def test_a_query_that_fails_in_the_middle_is_a_corpus_that_broke_off(database: Database) -> None:
    sql = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT 50) "
    sql += "SELECT id, 'x' || abs(CASE id WHEN 40 THEN -9223372036854775808 ELSE 1 END) AS text"
    sql += " FROM n"
    with Corpus(Query(sql, database())) as corpus:
        assert corpus.broken is None
        *jobs, last = corpus
        told = "the rows from this one on cannot be read: integer overflow"
        assert isinstance(last, Rejection) and last.reason == told
        assert corpus.fault == told
        assert corpus.broken == f"the query: {told}: mend that, then run the same command again"
    assert [job.id for job in jobs] == [str(number) for number in range(1, len(jobs) + 1)]


def test_long_texts_of_a_query_can_be_cut(database: Database) -> None:
    sql = "SELECT 1 AS id, printf('%.*c', 10001, 'x') AS text"
    (one,) = lines(database(), sql)
    assert isinstance(one, Rejection) and "--long cut or --long split takes it" in one.reason
    assert lines(database(), sql, Reading(long=Long("cut"))) == [Job("1", "x" * 10_000)]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT 1 AS id, 'x' AS body", "has no column 'text': name one of 'id', 'body' with --te"),
        ("SELECT 1 AS id, 'x' AS text, 'y' AS text", "has more than one column 'text'"),
        ("SELECT 'x' AS text FROM nowhere", "the query cannot be run: no such table: nowhere"),
        ("SELECT FROM", "the query cannot be run: near "),
        ("SELECT 1; SELECT 2", "--sql is more than one statement: write one SELECT"),
        ("INSERT INTO t VALUES (1)", "--sql is no SELECT"),
        ("", "--sql is no SELECT"),
        ("/* SELECT */ DROP TABLE t", "--sql is no SELECT"),
        ("-- SELECT\nDELETE FROM t", "--sql is no SELECT"),
        ("PRAGMA user_version = 7", "--sql is no SELECT"),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "attempt to write a readonly"),
        ("WITH a AS (SELECT 1) DELETE FROM t", "attempt to write a readonly database"),
    ],
)
def test_what_gives_no_rows_is_one_line_and_changes_nothing(
    database: Database, sql: str, reason: str
) -> None:
    url = database("CREATE TABLE t (a)", "INSERT INTO t VALUES (5)")
    with pytest.raises(CorpusError) as raised:
        lines(url, sql)
    assert reason in str(raised.value) and "\n" not in str(raised.value)
    assert lines(url, "SELECT a AS id, 'x' AS text FROM t") == [Job("5", "x")]


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="missing.db does not exist: check the name"):
        Query("SELECT 1", f"sqlite:///{tmp_path}/missing.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql://me:{QUOTED}@127.0.0.1:{QUOTED}/shop", "cannot be read"),
        (f"postgresql://me:{PASSWORD}", "cannot be read"),
        (f"postgresql://me:a@{PASSWORD}@127.0.0.1:1/shop", "more than one @"),
        (f"postgresql://me:{QUOTED}@127.0.0.1:1/{QUOTED}@shop", "more than one @"),
        (f"me:{PASSWORD}@127.0.0.1/shop", "cannot be read"),
        (f"postgresql:/me:{PASSWORD}@127.0.0.1/shop", "cannot be read"),
        (f"postgresql://me:{PASSWORD}\udcff@127.0.0.1/shop", "cannot be read"),
        (f"nonesuch://me:{QUOTED}@127.0.0.1/shop", "SQLAlchemy knows no database 'nonesuch'"),
        (f"mysql+nonesuch://me:{QUOTED}@127.0.0.1/shop", "no database 'mysql+nonesuch'"),
        (f"mssql+pymssql://me:{QUOTED}@127.0.0.1/shop", "pymssql, which is missing: pip install "),
        (f"sqlite:///nowhere.db?password={QUOTED}", "does not exist"),
        (f"sqlite://?timeout={QUOTED}&password={QUOTED}", "could not convert string to float"),
    ],
)
def test_no_error_and_no_name_has_the_password(
    url: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    with pytest.raises(CorpusError) as raised:
        query = Query("SELECT 1 AS id, 'x' AS text", url)
        shown += [repr(query), str(query), query.name]
        Corpus(query)
    message = str(raised.value)
    assert reason in message and "\n" not in message
    shown += [message, *traceback.format_exception(None, raised.value, None), caplog.text]
    for text in shown:
        assert PASSWORD not in text and QUOTED not in text and "zwick" not in text


def test_a_missing_driver_is_named_with_what_to_install() -> None:
    with pytest.raises(CorpusError) as raised:
        Query("SELECT 1", "mysql://host/shop")
    assert str(raised.value) == "mysql:// needs MySQLdb, which is missing: pip install mysqlclient"


def test_without_sqlalchemy_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(CorpusError) as raised:
        Query("SELECT 1", "sqlite://")
    extra = 'pip install "vector-embed-cache-client[sql]"'
    assert str(raised.value) == f"a query needs SQLAlchemy 2: {extra}"


def test_a_query_has_a_name_that_stays_and_has_no_login(database: Database) -> None:
    url = database()
    name = Query("SELECT 1", url).name
    assert name == Query(" SELECT 1\n", url).name != Query("SELECT 2", url).name
    assert name.startswith(f"{url}, query ")
