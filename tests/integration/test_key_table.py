"""The table of keys in `worker/store/keys.py`, against a Redis that was used in every way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import redis
from conftest import StartWorker
from servers import API, wait_until
from shell import Shell

from worker.local.redis_server import RedisServer
from worker.store import keys

SECTION = re.compile(r"`(<prefix>:\S*)` and$|^(Fields of info):$")
ROW = re.compile(r"    (\S+) {2,}(.*)")
TYPES = ("string", "hash", "set", "zset", "stream", "vectorset", "none")


class Row(NamedTuple):
    """A key, or a field of info where there is no type."""

    name: str
    type: str | None

    def matches(self, name: str) -> bool:
        """Whether the key or field `name` is meant; <parts> stand for anything."""
        parts = re.split(r"<[a-z]+>", self.name)
        return re.fullmatch("[^{}]+?".join(map(re.escape, parts)), name) is not None


def table() -> Iterator[Row]:
    """The rows of the table."""
    head = None
    for line in (keys.__doc__ or "").splitlines():
        if section := SECTION.search(line):
            head = section[1] or ""
        elif head is not None and (row := ROW.fullmatch(line)) and not line.startswith(" " * 5):
            type, _, _ = row[2].partition(" ")
            name = head.replace("<prefix>", "vec") + row[1]
            yield Row(name, type if head else None)


KEYS = [row for row in table() if row.type]
FIELDS = [row for row in table() if not row.type]
QUEUE = Row("vec.wakeups", "list")  # of Celery

# What an ordinary run does not write.
UNSEEN_FIELDS = {"bulk", "halted", "index", "layout", "throttle", "trimmed", "turns"}


def is_told(name: str, type: str) -> bool:
    """Whether the table has a key of this name and type."""
    return any(row.type == type and row.matches(name) for row in [*KEYS, QUEUE])


def test_the_table_can_be_read() -> None:
    assert {row.type for row in KEYS} <= {*TYPES}
    assert len(KEYS) == 32 and len(FIELDS) == 27
    assert Row("vec:{<collection>}:doc:<id>", "hash") in KEYS
    assert Row("dead:<code>", None) in FIELDS


def test_the_table_names_every_key_and_field_of_info_in_a_used_redis(
    redis_server: RedisServer,
    worker_process: StartWorker,
    api: API,
    shell: Shell,
) -> None:
    api.faults(latency=0.05, rules=[{"answer": "named", "marker": "poison"}])
    worker_process()
    client = redis.Redis.from_url(redis_server.url, decode_responses=True)
    types: dict[str, str] = {}
    fields: set[str] = set()

    def look() -> None:
        for key in client.scan_iter("vec*", count=1000):
            if (type := str(client.type(key))) != "none":
                types[key] = type
        fields.update(map(str, client.hkeys("vec:{wiki}:info")))

    def is_done() -> bool:
        look()
        return not client.xlen("vec:{wiki}:jobs")

    texts = [{"id": f"id-{number}", "text": f"text {number}", "n": 1} for number in range(1000)]
    shell.write("wiki.jsonl", *texts, {"id": "bad", "text": "poison"})
    assert shell("vec-enqueue", "wiki.jsonl", "--keep", "n", "--keep-text").returncode == 0
    wait_until(is_done, 30, "the work is done")
    assert shell("vec", "export", "wiki", "-o", "vectors/", "--evict").returncode == 0
    shell.write("wiki.jsonl", {"id": "again", "text": "text 0"})
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    wait_until(is_done, 30, "the cached text is done")
    assert shell("vec", "delete", "wiki", "id-0", "again").returncode == 0
    assert shell("vec", "pause", "wiki").returncode == 0
    shell.write("wiki.jsonl", {"id": "late", "text": "late"})
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    look()

    assert {name: type for name, type in types.items() if not is_told(name, type)} == {}
    assert [field for field in fields if not any(row.matches(field) for row in FIELDS)] == []
    assert {row.name for row in FIELDS if not any(map(row.matches, fields))} == UNSEEN_FIELDS
    client.close()
