"""Commands with a corpus at an address: what they say, keep and prune when a read breaks off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
import redis
from remote_files import FileServer, file_server
from servers import wait_until
from shell import Shell

from worker import Collection, UnknownCollection
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import CollectionKeys
from worker.store.registry import read_sources

pytest.importorskip("aiohttp")

SECRET = "s3cr3t"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as files:
        yield files


def json_lines(numbers: Sequence[int]) -> bytes:
    rows = (
        {"id": str(at), "text": f"a text long enough to be worth its line {at}"} for at in numbers
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def enqueued(name: str, settings: Settings) -> int:
    try:
        return Collection(name, settings=settings).status().enqueued
    except UnknownCollection:
        return 0


@pytest.mark.heavy
def test_whatever_takes_a_corpus_takes_an_address(
    server: FileServer, shell: Shell, settings: Settings
) -> None:
    server.files["my wiki.jsonl"] = json_lines(range(300)) + b"bad\n"
    address = f"{server.address}my%20wiki.jsonl"
    dry = shell("vec-enqueue", "--dry-run", address)
    assert dry.returncode == 1 and "texts               300" in dry.stdout
    done = shell("vec-enqueue", address)
    assert done.stdout.startswith("my-wiki: 300 new, ")
    assert "1 rejected (see my wiki.rejected.jsonl)" in done.stdout
    assert done.returncode == 1
    assert f"{address}:301: rejected: " in done.stderr
    assert enqueued("my-wiki", settings) == 300
    verified = shell("vec", "verify", address)
    assert verified.returncode == 1 and "300 pending" in verified.stdout


@pytest.mark.heavy
def test_no_command_and_no_key_of_redis_has_a_secret_of_an_address(
    server: FileServer, shell: Shell, redis_client: redis.Redis, settings: Settings
) -> None:
    server.files["wiki.jsonl"] = json_lines(range(3)) + b"bad\n"
    for user in ("me", "you"):  # the second replaces texts of another source
        host = server.address.replace("//", f"//{user}:{SECRET}@")
        server.files["other.jsonl"] = json_lines(range(3)).replace(b"a text", user.encode())
        said = [
            shell("vec-enqueue", f"{host}{name}?sig={SECRET}", "--collection", "wiki")
            for name in ("wiki.jsonl", "other.jsonl", "none.jsonl")
        ]
        assert [one.returncode for one in said] == [1, 0, 2]
        assert not [one for one in said if SECRET in one.stdout + one.stderr]
    assert SECRET not in (shell.directory / "wiki.rejected.jsonl").read_text()
    for key in redis_client.scan_iter("*"):
        assert SECRET.encode() not in key + redis_client.dump(key), key
    sources = read_sources(connect(settings), CollectionKeys(settings.prefix, "wiki"))
    shown = server.address.replace("//", "//***@")
    assert sources == [f"{shown}wiki.jsonl", f"{shown}other.jsonl"]


@pytest.mark.heavy
@pytest.mark.parametrize("folder", [False, True])
def test_a_read_that_cannot_be_continued_ends_with_2_and_prunes_nothing(
    server: FileServer, shell: Shell, settings: Settings, folder: bool
) -> None:
    server.files["docs/wiki.jsonl"] = json_lines(range(100))
    corpus = [f"{server.address}docs/{'' if folder else 'wiki.jsonl'}", "--collection", "wiki"]
    assert shell("vec-enqueue", *corpus).returncode == 0
    server.files["docs/wiki.jsonl"] = json_lines(range(100, 20_000))

    def change(_path: str, at: int, _part: bytes) -> None:
        if at:
            server.files["docs/wiki.jsonl"] += b"\n"

    server.fault = change
    reason = (
        f"{server.address}docs/wiki.jsonl: the file cannot be read any further: "
        "it was changed while it was read"
    )
    done = shell("vec-enqueue", *corpus, "--prune", "--yes")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"Error: {server.address}docs/")
    assert done.stderr.splitlines()[-1].endswith(f"{reason}: run the same command again")
    assert f"wiki: nothing is pruned: {server.address}docs/" in done.stderr
    assert enqueued("wiki", settings) > 1000
    for words in (("vec", "verify"), ("vec-enqueue", "--dry-run")):
        told = shell(*words, *corpus)
        assert told.returncode == 2 and told.stderr.splitlines()[-1].endswith("again")
    server.fault = lambda *_: None
    again = shell("vec-enqueue", *corpus, "--prune", "--yes")
    assert again.returncode == 0
    assert enqueued("wiki", settings) == 19_900


def test_a_run_that_was_killed_is_run_again(
    server: FileServer, shell: Shell, settings: Settings
) -> None:
    server.files["wiki.jsonl"] = json_lines(range(20_000))
    hang = True

    def fault(_path: str, at: int, _part: bytes) -> None:
        if at:
            wait_until(lambda: not hang, 60)

    server.fault = fault
    command = shell.start("vec-enqueue", f"{server.address}wiki.jsonl")
    wait_until(lambda: enqueued("wiki", settings) >= 1000, 60)
    command.kill()
    command.wait()
    hang = False
    assert shell("vec-enqueue", f"{server.address}wiki.jsonl").returncode == 0
    assert enqueued("wiki", settings) == 20_000


def test_a_corpus_is_not_fetched_twice_to_see_whether_it_is_there(
    server: FileServer, shell: Shell
) -> None:
    server.files["wiki.jsonl"] = json_lines(range(50_000))
    size = len(server.files["wiki.jsonl"])
    assert shell("vec-enqueue", "--dry-run", f"{server.address}wiki.jsonl").returncode == 0
    fetched = sum(
        int(end) - int(at) + 1 for at, end in (part[6:].split("-") for part in server.sent if part)
    )
    assert size <= fetched < size * 1.3
