"""What a command with --redis-url tells to type is about that Redis, not that of the environment.

`tests/unit/test_spelt_commands.py` holds that no message spells a command by itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import redis
from click.testing import CliRunner
from stored import Bench, pairs

from worker import Collection
from worker.cli import vec, vec_enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings, without_password
from worker.throttle.holds import hold

Run = Callable[[Sequence[str], str], str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with --redis-url, where the environment names a Redis that is away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECTOR_EMBED_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("VECTOR_EMBED_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("VECTOR_EMBED_BROKER_URL", raising=False)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "wiki.jsonl").write_text('{"id": "id0", "text": "text 0"}\n')

    def invoke(words: Sequence[str], url: str) -> str:
        first, *others = words
        program = vec_enqueue if first == "vec-enqueue" else vec
        given = others if first == "vec-enqueue" else list(words)
        said = CliRunner().invoke(program, [*given, "--redis-url", url])
        return " ".join(said.output.split())

    return invoke


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # A server without a password refuses one, up to redis-py 7, unless the user is named.
    url = settings.redis_url.replace("//:", "//default:")
    return replace(settings, redis_url=url, broker_url=url)


@pytest.fixture
def url(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[str]:
    """`redis_server`, which asks for no password meanwhile."""
    parts = urlsplit(redis_server.url)
    redis_client.config_set("requirepass", "")
    yield f"redis://{parts.hostname}:{parts.port}/0"
    redis_client.config_set("requirepass", parts.password or "")


def queued(bench: Bench) -> None:
    bench.add(*pairs(2))


def paused(bench: Bench) -> None:
    bench.add(*pairs(2))
    hold(bench.redis, bench.settings.prefix, "wiki", "by hand")


def halted(bench: Bench) -> None:
    bench.add(*pairs(2))
    bench.collection.backlog.halt("", "the API refuses the key")


def dead(bench: Bench) -> None:
    bench.add(*pairs(2))
    bench.embed_all(refuse=["text 0"])


def embedded(bench: Bench) -> None:
    bench.add(*pairs(2))
    bench.embed_all()


def many(bench: Bench) -> None:
    for number in range(30):
        other = Bench(bench.settings, f"wiki-{number}")
        other.add(*pairs(2))


class Told(NamedTuple):
    """A command that is run after `before`, and the commands that it tells."""

    words: str
    before: Callable[[Bench], None]
    told: Sequence[str]


WORKER = "env VECTOR_EMBED_REDIS_URL={url} vec worker"
TABLE = [
    Told("status", queued, [WORKER]),
    Told("status wiki", queued, [WORKER]),
    Told("status wiki", paused, ["vec resume wiki"]),
    Told("status wiki", halted, ["vec resume wiki"]),
    Told("status wiki", dead, ["vec dead wiki"]),
    Told("status wiki --json", queued, [WORKER]),
    Told("status", many, [WORKER]),
    Told("status news-*", queued, ["vec status"]),
    Told("workers", queued, [WORKER]),
    Told("pause wiki", queued, ["vec resume wiki"]),
    Told("wait wiki --timeout 0", queued, [WORKER]),
    Told("wait wiki --timeout 0", halted, ["vec resume wiki"]),
    Told("wait wiki", dead, ["vec dead wiki"]),
    Told("dead wiki", dead, ["vec retry wiki"]),
    Told("search wiki text", queued, ["vec status"]),
    Told("doctor", queued, [WORKER, "vec verify", "vec-enqueue"]),
    Told("doctor", halted, [WORKER, "vec resume wiki", "vec verify", "vec-enqueue"]),
    Told("doctor", dead, ["vec dead wiki", "vec verify", "vec-enqueue"]),
    Told("vec-enqueue wiki.jsonl --model m", dead, ["vec dead wiki"]),
    Told("vec-enqueue wiki.jsonl --model m", halted, ["vec resume wiki"]),
    Told("vec-enqueue wiki.jsonl --model m --wait --timeout 0", queued, [WORKER]),
    Told("vec-enqueue wiki.jsonl --model other", embedded, ["vec drop wiki"]),
    Told("vec-enqueue wiki.jsonl --model m --dtype int8", embedded, ["vec shrink wiki"]),
    Told("vec-enqueue empty.jsonl --collection wiki --model m --prune", queued, ["vec drop wiki"]),
    Told("vec-enqueue wiki.jsonl a.jsonl -o out.jsonl", queued, ["vec export"]),
]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case.words}, {case.before.__name__}")
def test_each_command_told_is_about_the_same_redis(
    case: Told, run: Run, bench: Bench, url: str
) -> None:
    case.before(bench)

    said = run(case.words.split(), url)

    for line in case.told:
        whole = line.format(url=url) if line == WORKER else f"{line} --redis-url {url}"
        assert whole in said, said
    assert unnamed(said, url) == []


def unnamed(said: str, url: str) -> list[str]:
    """The commands in a text that are not about the Redis at `url`."""
    said = re.sub(r"^Usage: .* for help\. ", "", said.replace(WORKER.format(url=url), ""))
    _, *told = re.split(r"\b(?=vec(?:-enqueue)? )", said)
    return [one for one in told if f"--redis-url {url}" not in one]


def test_what_is_told_works_when_it_is_typed(
    run: Run, bench: Bench, settings: Settings, url: str
) -> None:
    halted(bench)
    told = re.search(r"vec (resume .*)", run(["status", "wiki"], url))
    assert told is not None
    words = shlex.split(told[1])[:4]
    assert words == ["resume", "wiki", "--redis-url", url]

    typed = CliRunner().invoke(vec, words)

    assert typed.exit_code == 0, typed.output
    assert Collection("wiki", settings=settings).status().state != "halted"


def test_an_earlier_life_in_a_folder_is_told_with_the_export_that_mends_it(
    run: Run, bench: Bench, url: str
) -> None:
    embedded(bench)
    run(["export", "wiki", "-o", "out/", "--rotate", "1"], url)
    assert list(bench.collection.drop())
    embedded(bench)

    said = run(["verify", "wiki.jsonl", "--export", "out"], url)

    assert said.endswith(f", with vec export wiki -o out/ --redis-url {url}")


@pytest.mark.parametrize("words", ["status wiki", "workers", "dead wiki", "doctor"])
def test_a_password_is_not_told_and_the_redis_is(
    words: str, run: Run, bench: Bench, redis_server: RedisServer
) -> None:
    dead(bench)
    password = urlsplit(redis_server.url).password or ""

    said = run(words.split(), redis_server.url)

    assert password and password not in said
    shown = without_password(redis_server.url)
    assert "redis://:***@" in shown and shown in said
    assert unnamed(said.replace("'", ""), shown) == []


def test_nothing_is_named_where_the_environment_names_the_same_redis(
    run: Run, bench: Bench, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(bench)
    monkeypatch.setenv("VECTOR_EMBED_REDIS_URL", redis_server.url)

    said = run(["status", "wiki"], redis_server.url)

    assert said.endswith("start one with vec worker")
