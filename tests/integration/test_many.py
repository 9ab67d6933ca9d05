"""Hundreds of collections on a real Redis: read at once, shown on a screen, cheap while idle."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import redis
from conftest import heavy
from prometheus_client import CollectorRegistry
from shell import Shell
from stored import Bench, Store, pairs, vector_of

from worker.monitor.metrics import FleetCollector
from worker.monitor.service import read_statuses
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import CollectionKeys
from worker.store.ledgers import have_quarantined, read_ledgers
from worker.store.registry import busy_collections, collection_names
from worker.types import Embedded, Job, Refused, Status

MANY = 300
HOSTILE = ["-", "--all", "-x", ".", "..", "_", "0", "a" * 100, "null", "tenant-0.", "wiki.jsonl"]


def fill(settings: Settings, names: Sequence[str]) -> None:
    """Of ten collections one has a backlog, one leases, one a dead letter, one is halted."""
    for number, name in enumerate(names):
        store, kind = Store(name, settings=settings), number % 10
        store.adder().add([Job("a", f"a of {name}"), Job("b", f"b of {name}")])
        if kind == 0:
            continue
        store.backlog.keep_alive("c")
        one, other = store.backlog.claim("c")
        refused = [Refused(other, "poison", "the API refuses it")] if kind == 1 else []
        embedded = [one] if kind in (1, 2) else [one, other]
        vectors = [Embedded(lease, vector_of(lease.job.text), False) for lease in embedded]
        store.backlog.commit(vectors, refused)
        if kind != 2:
            store.backlog.release("c", end_slice=True)
        if kind == 3:
            store.backlog.halt("another-key", "the API refuses the key")


@pytest.fixture
def names(settings: Settings) -> list[str]:
    """Hundreds of collections."""
    names = sorted([*HOSTILE, *(f"tenant-{number:03}" for number in range(MANY - len(HOSTILE)))])
    fill(settings, names)
    return names


def read(settings: Settings) -> list[Status]:
    return list(read_statuses(connect(settings), settings.prefix, settings.queue))


def test_all_are_read_as_each_is_and_in_few_round_trips(
    settings: Settings, redis_client: redis.Redis, names: list[str]
) -> None:
    def reads() -> int:
        """How often Redis has read from a connection: of 16 KB, or of all that is there."""
        return int(redis_client.info("stats")["total_reads_processed"])

    read(settings)
    before = reads()
    every = read(settings)
    assert reads() - before < 40
    assert [one.collection for one in every] == names
    assert every == [Store(name, settings=settings).status() for name in names]
    assert {one.state for one in every} == {"idle", "waiting", "halted"}
    for part in ("dead", "pending", "leased"):
        assert sum(getattr(one, part) for one in every) == MANY // 10 * (1 + (part == "pending"))


def test_what_was_dropped_since_is_left_out_and_a_name_that_is_left_is_not(
    settings: Settings, names: list[str]
) -> None:
    client = connect(settings)
    Store(names[7], settings=settings).drop()
    there = CollectionKeys(settings.prefix, names[8])
    client.delete(there.info, there.jobs, there.done, there.dead, there.queued)

    found = dict(read_ledgers(client, settings.prefix, names))

    assert list(found) == names[:7] + names[8:]
    assert found[names[8]].model is None


def test_a_script_that_redis_has_forgotten_is_sent_again_and_what_is_no_collection_left_out(
    settings: Settings, redis_client: redis.Redis, names: list[str]
) -> None:
    for name in (names[0], names[-1]):  # the first is asked for alone, to load the script
        redis_client.set(CollectionKeys(settings.prefix, name).done, "not ours")
    redis_client.script_flush()

    found = [name for name, _ in read_ledgers(connect(settings), settings.prefix, names)]

    assert found == names[1:-1]


def test_one_that_only_a_later_version_can_read_hides_no_other(
    settings: Settings, redis_client: redis.Redis, shell: Shell
) -> None:
    names = [f"tenant-{number}" for number in range(25)]
    fill(settings, names)
    redis_client.hset("vec:{tenant-7}:info", "layout", "int4 128")
    shown = [one.collection for one in read(settings)]
    assert shown == sorted(set(names) - {"tenant-7"})
    answer = shell("vec", "status")
    assert answer.returncode == 0 and answer.stdout.startswith("24 collections: ")
    assert "tenant-7" in answer.stderr
    assert shell("vec", "status", "tenant-7").returncode != 0


def test_who_may_have_killed_a_worker_is_found_among_all(settings: Settings) -> None:
    benches = [Bench(settings, f"tenant-{number}") for number in range(3)]
    for bench in benches[:2]:
        bench.add(*pairs(2))
    for owner in ("one", "two"):
        benches[1].claim(owner)
        benches[1].kill(owner)
    benches[1].claim("three")
    ours = [bench.collection.name for bench in benches]

    assert list(have_quarantined(connect(settings), settings.prefix, ours)) == [False, True, False]
    assert benches[1].collection.backlog.has_quarantined()


def test_status_shows_a_screen_of_many_and_all_of_them_where_that_is_asked(
    settings: Settings, shell: Shell, names: list[str]
) -> None:
    shown = shell("vec", "status", LINES="24").stdout.splitlines()
    assert len(shown) < 24
    assert shown[0] == f"{MANY} collections: 30 halted, 60 waiting, 210 idle"
    assert shown[1] == "600 texts: 480 embedded, 30 dead, 60 pending, 30 leased"
    waiting = [one.collection for one in read(settings) if one.backlog]
    assert shown[4].split()[:2] == [waiting[0], "waiting"]
    assert shown[-2] == f"and {MANY - (len(shown) - 6)} more: vec status --all"

    every = json.loads(shell("vec", "status", "--json").stdout)
    assert [one["collection"] for one in every] == names
    assert [one["reason"] is not None for one in every] == [
        one.state != "idle" for one in read(settings)
    ]
    rows = shell("vec", "status", "--all").stdout.splitlines()
    assert {line.partition(" ")[0] for line in rows} > set(names)


def test_a_pattern_chooses_collections(settings: Settings, shell: Shell, names: list[str]) -> None:
    some = shell("vec", "status", "tenant-00*").stdout.splitlines()
    assert {line.split()[0] for line in some} >= {f"tenant-{n:03}" for n in range(10)}
    assert not any("collections:" in line for line in some)
    more = shell("vec", "status", "tenant-0*").stdout.splitlines()
    assert more[0].startswith("101 collections: ")  # with `tenant-0.`
    assert more[-2].endswith("more: vec status 'tenant-0*' --all")
    assert len(json.loads(shell("vec", "status", "--json", "--", "-*").stdout)) == 3
    none = shell("vec", "status", "nothing-*")
    assert none.returncode == 2
    assert none.stderr == (
        f"Error: no collection matches 'nothing-*'; there are {MANY} collections: see vec status\n"
    )


def test_watch_begins_with_all_and_tells_of_those_with_work(shell: Shell, names: list[str]) -> None:
    watching = shell.start("vec", "watch", "tenant-*")
    assert watching.stdout is not None
    lines = [watching.stdout.readline().split(" ", 1)[1].strip() for _ in range(3)]
    watching.terminate()
    assert lines[0] == (
        f"{MANY - 10} collections: 29 halted, 58 waiting, 203 idle; 493 of 580 done, 29 dead"
    )
    assert all("waiting, " in line for line in lines[1:])


def test_doctor_and_the_exporter_look_at_all_of_them(
    settings: Settings, shell: Shell, names: list[str]
) -> None:
    said = shell("vec", "doctor").stdout
    assert len(said.splitlines()) < 30
    for line in (
        "and 27 more: 30 texts could not be embedded: see vec status",
        "and 27 more are halted: the API refuses the key: fix that, then vec resume ",
        "240 collections without trouble",
    ):
        assert line in said
    registry = CollectorRegistry()
    collector = FleetCollector(Settings(**{**vars(settings), "metrics_collections": 50}))
    registry.register(collector)
    samples = [one for family in registry.collect() for one in family.samples]
    of = {name: [one for one in samples if one.name == name] for name in {s.name for s in samples}}
    assert sum(one.value for one in of["vec_texts"]) == 2 * MANY
    assert sum(one.value for one in of["vec_collection_halted"]) == MANY // 10
    assert {one.labels["series"]: one.value for one in of["vec_collections"]} == {
        "own": 50,
        "summed": MANY - 50,
    }
    # The oldest: they were made in the order of their names.
    labels = [one.labels["collection"] for one in of["vec_enqueued_texts"]]
    assert labels == [*names[:50], "(others)"]
    assert len(of["vec_collection_info"]) == 50


@pytest.mark.parametrize("texts", [1, 20, *heavy(900)])
def test_an_idle_collection_takes_two_kilobytes_beside_its_vectors(
    bench: Bench, redis_client: redis.Redis, texts: int
) -> None:
    def size() -> int:
        keys = [key for key in redis_client.scan_iter("vec:{wiki}:*") if b":doc:" not in key]
        return sum(redis_client.memory_usage(key, samples=0) or 0 for key in keys)

    bench.add(*pairs(texts))
    bench.embed_all(refuse=["text 0"] if texts > 1 else [])
    before, stored = size(), bench.stored()
    assert busy_collections(bench.redis, "vec") == []
    assert size() < before - 2000
    assert size() < 2048 + 30 * texts
    # All is as it was, and continues where it was.
    assert bench.stored() == stored
    bench.add(("more", "and more"), ("id1", "replaced"))
    bench.embed_all()
    assert bench.stored()["id1" if texts > 1 else "more"] in map(
        vector_of, ["replaced", "and more"]
    )
    numbers = [one.number for one in bench.collection.reader.finished(0, 1000)]
    assert numbers[-2:] == [max(texts - 1, 1) + n for n in (1, 2)]
    assert collection_names(bench.redis, "vec") == ["wiki"]
    assert not redis_client.exists("vec:{wiki}:packed")
