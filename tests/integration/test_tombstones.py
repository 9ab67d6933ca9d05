"""Ids that are deleted after they went to the files of a folder: the folder gets tombstones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from shell import Shell
from stored import Bench

from worker.export.folder import Folder
from worker.export.follow import Options, SinkExport
from worker.export.sink import Rotation
from worker.export.sinks import read_sinks
from worker.store.removal import Removal
from worker.types import text_digest

ROTATION = Rotation()


def feed(bench: Bench, *ids: str, edition: str = "text") -> None:
    bench.add(*[(id, f"{edition} {id}") for id in ids])
    bench.embed_all()


def export(
    bench: Bench,
    path: Path,
    *,
    evict: bool = True,
    rotation: Rotation = ROTATION,
    tell: Callable[[int], object] = lambda read: None,
) -> SinkExport:
    """Export to a folder what is there now."""
    folder = Folder(str(path), "wiki", rotation=rotation)
    run = SinkExport(folder, bench.settings, Options(evict), tell=tell)
    list(run.run())
    return run


def rows(path: Path, pattern: str) -> list[dict[str, object]]:
    files = sorted(path.glob(pattern))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def live(path: Path) -> dict[str, str]:
    """What is in the folder, read as the documentation says: ids and digests."""
    deleted = {row["id"]: row["number"] for row in rows(path, "wiki-*.tombstones")}
    found = {}
    for row in rows(path, "wiki-*.jsonl"):
        if int(str(row["number"])) > int(str(deleted.get(row["id"], 0))):
            found[str(row["id"])] = str(row["digest"])
    return found


def digests(*ids: str, edition: str = "text") -> dict[str, str]:
    return {id: text_digest(f"{edition} {id}").hex() for id in ids}


def waiting(bench: Bench) -> int:
    """Tombstones in Redis."""
    return bench.redis.xlen("vec:{wiki}:tombstones")


@pytest.mark.parametrize("evict", [True, False])
def test_a_deleted_id_is_deleted_in_the_folder_and_comes_back_when_it_is_new(
    bench: Bench, tmp_path: Path, evict: bool
) -> None:
    feed(bench, "a", "b", "c")
    export(bench, tmp_path, evict=evict)
    assert bench.collection.delete(["a", "b"]) == 2
    assert waiting(bench) == 2

    assert export(bench, tmp_path, evict=evict).tombstones == 2

    assert rows(tmp_path, "*.tombstones") == [{"id": "a", "number": 4}, {"id": "b", "number": 5}]
    assert [file.name for file in tmp_path.glob("*.tombstones")] == [
        "wiki-000000000004-000000000005.tombstones"
    ]
    assert live(tmp_path) == digests("c")
    assert waiting(bench) == 0
    assert bench.collection.reader.ledger().embedded_ever == 3
    assert bench.add(("a", "text a")).new == 1
    bench.embed_all()
    export(bench, tmp_path, evict=evict)
    assert live(tmp_path) == digests("a", "c")
    assert export(bench, tmp_path, evict=evict).tombstones == 0


@pytest.mark.heavy
def test_verify_heeds_tombstones_before_and_after_they_are_in_the_folder(
    bench: Bench, tmp_path: Path, shell: Shell
) -> None:
    feed(bench, "a", "b")
    export(bench, tmp_path / "out")
    corpus = {id: shell.write(f"{id}.jsonl", {"id": id, "text": f"text {id}"}) for id in "ab"}
    verify = ("--collection", "wiki", "--export", "out")
    assert shell("vec", "verify", str(corpus["b"]), *verify).stderr == "surplus: a\n"
    bench.collection.delete(["a"])
    for _ in range(2):
        done = shell("vec", "verify", str(corpus["b"]), *verify)
        assert (done.returncode, done.stderr) == (0, "")
        assert shell("vec", "verify", str(corpus["a"]), *verify).stderr.startswith("missing: a\n")
        done = shell("vec", "export", "wiki", "-o", "out/", "--evict")
        assert "1 tombstone" in done.stdout or not waiting(bench)


def test_a_tombstone_waits_in_redis_until_every_folder_has_it(bench: Bench, tmp_path: Path) -> None:
    feed(bench, "a", "b")
    bench.collection.delete(["b"])
    assert waiting(bench) == 0  # no folder follows
    one, two = tmp_path / "one", tmp_path / "two"
    export(bench, one, evict=False)
    export(bench, two, evict=False)
    bench.collection.delete(["a"])
    export(bench, one, evict=False)
    assert (live(one), live(two), waiting(bench)) == ({}, digests("a"), 1)
    export(bench, two, evict=False)
    assert (live(two), waiting(bench)) == ({}, 0)


@pytest.mark.parametrize("evict", [True, False])
def test_a_folder_that_missed_tombstones_is_compared_with_the_collection(
    bench: Bench, tmp_path: Path, evict: bool
) -> None:
    ids = [f"id{number}" for number in range(20)]
    feed(bench, *ids)
    export(bench, tmp_path, evict=evict)
    feed(bench, "queued-again", "stays")
    export(bench, tmp_path, evict=evict)
    few = Removal(bench.redis, bench.collection.keys, tombstones=3)
    assert few.delete([*ids[:10], "queued-again"]) == 11
    assert waiting(bench) == 3  # memory is bounded
    bench.add(("queued-again", "newer"))
    export(bench, tmp_path, evict=evict)
    assert live(tmp_path).keys() == {*ids[10:], "queued-again", "stays"}
    bench.embed_all()
    export(bench, tmp_path, evict=evict)
    assert live(tmp_path)["queued-again"] == text_digest("newer").hex()
    assert waiting(bench) == 0


def test_a_folder_of_an_earlier_version_is_compared_once(bench: Bench, tmp_path: Path) -> None:
    feed(bench, "a", "b")
    export(bench, tmp_path)
    info = bench.collection.keys.info
    for field in bench.redis.hgetall(info):
        if field.startswith(b"tombstones"):
            bench.redis.hdel(info, field.decode())
    bench.collection.delete(["a"])
    assert waiting(bench) == 0
    export(bench, tmp_path)
    assert live(tmp_path) == digests("b")


@pytest.mark.parametrize("rotation", [1, 2, 100])
def test_what_is_deleted_while_an_exporter_reads_is_deleted_in_its_folder(
    bench: Bench, tmp_path: Path, rotation: int
) -> None:
    feed(bench, "a", "b", "c", "d")
    told: list[int] = []

    def tell(read: int) -> None:
        if not told:  # all of them are in its hands
            assert bench.collection.delete(["a", "c"]) == 2
            assert bench.add(("a", "newer a")).new == 1
        told.append(read)

    export(bench, tmp_path, rotation=Rotation(rotation), tell=tell)
    assert told
    assert live(tmp_path) == digests("b", "d")
    bench.embed_all()
    export(bench, tmp_path)
    assert live(tmp_path) == {**digests("b", "d"), **digests("a", edition="newer")}
    assert bench.status.enqueued == 3


def test_an_id_that_only_a_folder_has_gets_a_tombstone_too(bench: Bench, tmp_path: Path) -> None:
    feed(bench, "a", "b")
    export(bench, tmp_path)
    bench.redis.delete("vec:{wiki}:evicted:0")  # as where files of an earlier life are there too
    assert bench.collection.delete(["a"]) == 0
    export(bench, tmp_path)
    assert live(tmp_path) == digests("b")


def test_a_dropped_collection_leaves_no_tombstones_and_its_next_life_has_its_own(
    bench: Bench, tmp_path: Path, redis_client: redis.Redis
) -> None:
    feed(bench, "a", "b")
    export(bench, tmp_path / "one")
    bench.collection.delete(["a"])
    bench.collection.drop()
    assert not redis_client.exists("vec:{wiki}:tombstones", "vec:{wiki}:info")
    feed(bench, "a", "b")
    export(bench, tmp_path / "one")
    export(bench, tmp_path / "two")
    bench.collection.delete(["a"])
    export(bench, tmp_path / "one")
    assert live(tmp_path / "one") == digests("b")


@pytest.mark.parametrize(("evict", "evicted_before"), [(True, False), (False, False), (True, True)])
def test_a_vector_that_a_restored_redis_has_again_is_in_the_folder_again_or_is_new(
    bench: Bench, tmp_path: Path, redis_client: redis.Redis, evict: bool, evicted_before: bool
) -> None:
    feed(bench, "a", "b")
    export(bench, tmp_path, evict=evicted_before)
    backup = {key: redis_client.dump(key) for key in redis_client.scan_iter("vec:{wiki}:*")}
    bench.collection.delete(["a"])
    export(bench, tmp_path, evict=False)
    assert live(tmp_path) == digests("b")
    redis_client.flushall()
    for key, value in backup.items():
        assert isinstance(value, bytes)
        redis_client.restore(key, 0, value)
    export(bench, tmp_path, evict=evict)
    if evicted_before:
        assert live(tmp_path) == digests("b")
        assert bench.add(("a", "text a"), ("b", "text b")).new == 1
        bench.embed_all()
        export(bench, tmp_path, evict=evict)
    assert live(tmp_path) == digests("a", "b")


def test_positions_and_tombstones_come_in_the_order_of_their_numbers(
    bench: Bench, tmp_path: Path
) -> None:
    feed(bench, "a", "b")
    export(bench, tmp_path)
    bench.collection.delete(["a"])
    export(bench, tmp_path)
    feed(bench, "a", "c")
    bench.collection.delete(["b"])
    export(bench, tmp_path)
    found = list(read_sinks([str(tmp_path)], bench.collection.reader))
    assert [(one.number, one.id, bool(one.digest)) for one in found] == [
        *[(1, "a", True), (2, "b", True), (3, "a", False)],
        *[(4, "a", True), (5, "c", True), (6, "b", False)],
    ]
