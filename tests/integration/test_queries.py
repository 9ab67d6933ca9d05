"""The rows of a database into a collection: the commands, on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell
from stored import Bench

SELECT = ("--sql", "SELECT id, body AS text FROM articles", "--collection", "wiki")


@pytest.fixture
def shop(shell: Shell) -> Path:
    """A database with an article for each number from 1 to 20."""
    path = shell.directory / "shop.db"
    change(
        path,
        "CREATE TABLE articles AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 20) SELECT i AS id, 'text ' || i AS body FROM n",
    )
    shell.environ["VECTOR_EMBED_MODEL"] = "m"
    shell.environ["VECTOR_EMBED_DATABASE_URL"] = f"sqlite:///{path}"
    return path


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.heavy
def test_a_table_that_changes_is_what_the_collection_is(
    shop: Path, shell: Shell, bench: Bench
) -> None:
    first = shell("vec-enqueue", *SELECT)
    assert first.stdout == "wiki: 20 new, 0 unchanged, 0 rejected, 0 duplicates\n"
    bench.embed_all()
    verified = shell("vec", "verify", *SELECT)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith("wiki: 20 of 20 texts embedded")
    # When rows are edited, removed and added
    change(
        shop,
        "UPDATE articles SET body = 'edited' WHERE id = 3",
        "DELETE FROM articles WHERE id = 5",
        "INSERT INTO articles VALUES (21, 'text 21')",
    )
    told = shell("vec", "verify", *SELECT)
    assert told.returncode == 1 and "2 missing, 1 surplus" in told.stdout
    planned = shell("vec-enqueue", *SELECT, "--dry-run", "--prune")
    assert planned.stdout.startswith("the query: a dry run, nothing was sent\n")
    assert "wiki: 1 of 20 ids would be deleted" in planned.stdout
    again = shell("vec-enqueue", *SELECT, "--prune")
    assert "2 new (1 in place of another text), 18 unchanged" in again.stdout
    assert again.stderr == "wiki: pruned, 1 id removed\n"
    bench.embed_all()
    assert shell("vec", "verify", *SELECT).returncode == 0
    assert set(bench.stored()) == {f"{id}" for id in range(1, 22) if id != 5}


def test_a_bad_row_is_rejected_by_its_number_and_the_others_are_enqueued(
    shop: Path, shell: Shell, bench: Bench
) -> None:
    change(shop, "UPDATE articles SET body = NULL WHERE id = 7")
    answer = shell("vec-enqueue", *SELECT)
    assert answer.returncode == 1
    assert answer.stdout.startswith("wiki: 19 new, 0 unchanged, 1 rejected")
    assert answer.stderr == "the query:7: rejected: text: not a string but null\n"
    (rejection,) = map(
        json.loads, (shell.directory / "wiki.rejected.jsonl").read_text().split("\n")[:-1]
    )
    assert (rejection["line"], rejection["id"]) == (7, "7")


SECRET = "zwick-li-ch"


def processes(directory: Path) -> Iterator[tuple[int, str, str]]:
    """The id, command line and environment of each process that was told of this directory."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes().decode(errors="replace")
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended, or is another user's
            continue
        if str(directory) in told:
            yield int(process.name), words, told


@pytest.mark.heavy
def test_the_password_of_the_database_stays_in_the_command(shop: Path, shell: Shell) -> None:
    # Given a secret in the address of the database, and others in the environment
    local = shell.directory / "local"
    secrets = [SECRET, "zwick-key", "zwick-redis"]
    shell.environ["VECTOR_EMBED_DATABASE_URL"] = f"sqlite:///file:{shop}?uri=true&token={SECRET}"
    shell.environ["VECTOR_EMBED_API_KEY"] = "zwick-key"
    shell.environ["VECTOR_EMBED_REDIS_URL"] = "redis://:zwick-redis@redis.invalid/0"
    shell.environ["VECTOR_EMBED_LOCAL_DIR"] = str(local)
    del shell.environ["VECTOR_EMBED_MODEL"]
    # When a command starts processes of its own
    run = shell.start("vec-enqueue", *SELECT, "--local", "--wait")
    seen: set[str] = set()
    while run.poll() is None:
        for process, words, told in processes(local):
            assert not any(secret in words for secret in secrets), words
            if process != run.pid and "vec_enqueue()" not in words:  # its copy, before an exec
                assert not any(secret in told for secret in secrets), words
            seen.update(words.split("\0"))
    # Then none of them has a secret, and neither what they print nor what they write
    assert {"worker.local.keeper", "worker.local.api", "celery"} < seen
    stdout, stderr = run.communicate()
    assert run.returncode == 0 and "20 new" in stdout, stderr
    files = [path for path in local.rglob("*") if path.is_file()]
    assert any(b"text 20" in path.read_bytes() for path in files)  # the file of Redis
    for said in (stdout, stderr, *(path.read_bytes().decode("latin-1") for path in files)):
        assert not any(secret in said for secret in secrets)
    # And it is nowhere if the database fails
    shop.unlink()
    failed = shell("vec-enqueue", *SELECT, "--local")
    assert failed.returncode != 0 and SECRET not in failed.stdout + failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_a_query_that_feeds_texts_of_another_source_is_told(
    shop: Path, shell: Shell, bench: Bench
) -> None:
    shell("vec-enqueue", *SELECT)
    other = ("--sql", "SELECT id, 'other' AS text FROM articles", "--collection", "wiki")
    answer = shell("vec-enqueue", *other)
    assert f"Warning: wiki was fed from sqlite:///{shop}, query " in answer.stderr
    assert "the query" not in answer.stderr
