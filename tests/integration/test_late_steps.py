"""A step that arrives late, twice, after the next one or after its sender's end does no harm.

The table names each script that is sent by itself: a new one has to be looked at, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from stored import Store

import worker
from worker import Status
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Worker, announce_worker, forget_worker, read_fleet
from worker.settings import Settings
from worker.store.bookmark import Bookmark
from worker.store.calls import Jobs, Kind, Run
from worker.store.connection import Argument, connect, run
from worker.store.urgent import announce_urgent, urgent_collections
from worker.types import Embedded, Job, Lease, Position, Refused, text_digest

VECTOR = b"\0\0\x80\x3f" * 2


class World:
    """A collection at work, and steps on their way to it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = connect(settings)
        self.wiki = Store("wiki", settings=settings)

    def add(self, *pairs: tuple[str, str]) -> None:
        self.wiki.adder().add([Job(*pair) for pair in pairs])

    def claim(self, consumer: str = "c") -> list[Lease]:
        self.wiki.backlog.keep_alive(consumer)
        return self.wiki.backlog.claim(consumer)

    def work(self, consumer: str = "all") -> None:
        while leases := self.claim(consumer):
            self.wiki.backlog.commit([Embedded(lease, VECTOR, False) for lease in leases])
        self.wiki.backlog.release(consumer, end_slice=True)

    def text_of(self, id: str) -> bytes | None:
        """The digest of the text whose vector is stored."""
        (state,) = self.wiki.reader.states([id])
        return state.stored

    def check(self) -> Status:
        status = self.wiki.status()
        parts = status.embedded + status.evicted + status.dead + status.pending + status.leased
        assert status.enqueued == parts, status
        return status


@pytest.fixture
def world(redis_server: RedisServer) -> World:
    url = redis_server.url
    return World(Settings(redis_url=url, broker_url=url, model="m"))


# Each puts a world together and gives the step that comes late, and a check that it did no harm.
Late = tuple[Callable[[], object], Callable[[], None]]


def late_add_of_a_run_that_ended(world: World) -> Late:
    return late_add(world, expired=True)


def late_add(world: World, *, expired: bool = False) -> Late:
    adder = world.wiki.adder()
    first = adder.chunk([Job("a", "old")])
    first.send()
    first.reply()
    adder.add([Job("a", "new")])
    world.work()
    if expired:
        world.client.delete(adder.receipt)
    lasts = ("jobs", "queued", "info", "dead", "done")
    keys = [*(f"vec:{{wiki}}:{last}" for last in lasts), adder.receipt, "vec:{wiki}:epoch"]
    args = first.args

    def check() -> None:
        world.work()
        assert world.text_of("a") == text_digest("new")

    return lambda: run(world.client, "store/add", keys, args), check


def late_add_of_calls_that_were_given_up(world: World) -> Late:
    kind = Kind(world.settings, "wiki", "m", None, None)
    a_run = Run(kind, threads=1, lost=4)
    a_run.begin(world.client)
    keys, args = a_run.step([Jobs([Job("a", "old")])], looks=True, wakes=True)
    a_run.begin(world.client)  # as for what its process adds next
    keys_now, args_now = a_run.step([Jobs([Job("a", "new")])], looks=True, wakes=True)
    run(world.client, "store/add", keys_now, args_now)
    world.work()

    def check() -> None:
        world.work()
        assert world.text_of("a") == text_digest("new")
        assert world.check().enqueued == 1

    return lambda: run(world.client, "store/add", keys, args), check


def late_claim(world: World) -> Late:
    world.add(("a", "text"))
    world.wiki.backlog.keep_alive("c")
    world.wiki.backlog.release("c", end_slice=True)

    def check() -> None:
        assert world.check().leased == 0

    return lambda: world.wiki.backlog.claim("c"), check


def late_claim_of_what_is_urgent(world: World) -> Late:
    world.add(("a", "old"))
    adder = world.wiki.adder()
    adder.priority = "interactive"
    adder.add([Job("a", "text")])
    world.wiki.backlog.keep_alive("c")
    keys, args = world.wiki.backlog._claim("c", 10, kind="urgent")
    world.wiki.backlog.release("c", end_slice=True)

    def check() -> None:
        assert world.check().leased == 0

    return lambda: run(world.client, "store/claim", keys, args), check


def late_urgent(world: World) -> Late:
    """A look with which a collection was forgotten that was announced again since."""
    keys, name = world.wiki.keys, world.wiki.name
    announce_urgent(world.client, keys)
    seen = urgent_collections(world.client, "vec", {})
    announce_urgent(world.client, keys)

    def check() -> None:
        assert urgent_collections(world.client, "vec", {}).keys() == {name}

    return lambda: urgent_collections(world.client, "vec", seen), check


def late_commit(world: World) -> Late:
    world.add(("a", "old"))
    old = world.claim()
    world.add(("a", "new"))
    world.wiki.backlog.release("c", end_slice=True)
    world.work()

    def check() -> None:
        assert world.text_of("a") == text_digest("new")
        assert world.check().dead == 0

    def commit() -> None:
        world.wiki.backlog.commit([Embedded(lease, VECTOR, False) for lease in old])
        world.wiki.backlog.commit([], [Refused(lease, "bad", "no") for lease in old])

    return commit, check


def late_release(world: World) -> Late:
    world.add(("a", "text"))
    failed = world.claim()
    world.wiki.backlog.release("c", failed)
    again = world.claim()
    assert [lease.attempts for lease in again] == [1]

    def check() -> None:
        (lease,) = world.claim()
        assert lease.attempts == 1

    return lambda: world.wiki.backlog.release("c", failed), check


def late_retry(world: World) -> Late:
    world.add(("a", "bad"))
    world.wiki.backlog.commit([], [Refused(lease, "bad", "no") for lease in world.claim()])
    (letter,) = [*world.client.hscan_iter("vec:{wiki}:dead", count=1)]
    world.wiki.retry()
    world.work()
    assert list(world.wiki.drop())

    def retry() -> None:
        keys = [f"vec:{{wiki}}:{last}" for last in ("jobs", "queued", "info", "dead", "epoch")]
        run(world.client, "store/retry", keys, ["", "a", letter[1], "", "bad"])

    def check() -> None:
        assert not world.wiki.exists()
        assert world.client.hgetall("vec:{wiki}:info") == {}

    return retry, check


def late_drop(world: World) -> Late:
    world.add(("a", "old"))
    born = world.wiki.reader.born()
    assert list(world.wiki.drop())
    world.add(("a", "new"), ("b", "new"))

    def drop() -> None:
        lasts = ("jobs", "queued", "info", "done", "dead", "attempts", "wakeups", "tombstones")
        keys = [f"vec:{{wiki}}:{last}" for last in lasts]
        prefixes = ["vec:{wiki}:doc:", "vec:{wiki}:evicted:"]
        run(world.client, "store/drop", keys, [*prefixes, 9, born, "x"])

    def check() -> None:
        assert world.check().enqueued == 2

    return drop, check


def late_evict(world: World) -> Late:
    world.add(("a", "text"))
    world.work()
    born = world.wiki.reader.born()
    assert list(world.wiki.drop())
    world.add(("a", "text"))
    world.work()

    def check() -> None:
        assert world.check().embedded == 1

    return lambda: world.wiki.eviction.evict(
        "t", [Position(1, "a", text_digest("text"))], born=born
    ), check


def late_remove(world: World) -> Late:
    world.add(("a", "old"), ("b", "dead"), ("c", "old"))
    ids = ["a", "b", "c", "d"]
    refused = [lease for lease in world.claim() if lease.job.id == "b"]
    world.wiki.backlog.commit([], [Refused(lease, "bad", "no") for lease in refused])
    known = world.wiki.reader.known(ids)
    proofs = [state.dead or b"" for state in known.states]
    assert world.wiki.removal.remove(zip(ids, proofs), known.born, known.seq) == 3
    world.add(("a", "old"), ("b", "new"), ("c", "new"), ("d", "new"))
    refused = [lease for lease in world.claim() if lease.job.id in "bc"]
    world.wiki.backlog.commit([], [Refused(lease, "bad", "no") for lease in refused])

    def check() -> None:
        world.work("c")
        status = world.check()
        assert (status.embedded, status.dead, status.removed) == (2, 2, 3)

    return lambda: world.wiki.removal.remove(zip(ids, proofs), known.born, known.seq), check


def late_remove_of_another_life(world: World) -> Late:
    world.add(("a", "text"))
    known = world.wiki.reader.known(["a"])
    assert list(world.wiki.drop())
    world.add(("a", "text"))

    def check() -> None:
        assert world.check().enqueued == 1

    return lambda: world.wiki.removal.remove([("a", b"")], known.born, known.seq), check


def late_renumber(world: World) -> Late:
    world.add(("a", "text"))
    world.work()
    born = world.wiki.reader.born()
    assert list(world.wiki.drop())
    world.add(("a", "text"))

    def check() -> None:
        world.work()
        assert world.wiki.reader.ledger().embedded_ever == 1

    return lambda: world.wiki.eviction.renumber([], 1000, born=born), check


def late_wake(world: World) -> Late:
    world.add(("a", "text"))
    world.work()

    def check() -> None:
        assert world.client.exists("vec:{wiki}:wakeups") == 0

    return lambda: world.wiki.backlog.wake(8), check


def late_idle(world: World) -> Late:
    world.add(("a", "text"))

    def idle() -> None:
        keys = ["vec:{wiki}:jobs", "vec:{wiki}:epoch"]
        assert run(world.client, "store/idle", keys, ["", "other"]) == 0

    def check() -> None:
        world.add(("b", "text"))
        assert world.check().backlog == 2

    return idle, check


def late_announce(world: World) -> Late:
    dead = Worker("host:1:a", 8)
    announce_worker(world.client, "vec", dead)
    forget_worker(world.client, "vec", dead)
    seconds, _ = world.client.time()

    def announce() -> None:
        args: list[str | int] = ["host:1:a/8", seconds - 10, seconds - 3600]
        run(world.client, "monitor/announce", ["vec:workers"], args)

    def check() -> None:
        assert read_fleet(world.client, "vec") == []

    return announce, check


def late_exported(world: World) -> Late:
    world.add(("a", "text"))
    born = world.wiki.reader.born()
    world.wiki.eviction.note_exported("f", 5, born)

    def late() -> None:
        world.wiki.eviction.note_exported("f", 3, born)
        world.wiki.eviction.note_exported("f", 9, b"another life")

    def check() -> None:
        assert world.wiki.eviction.exported("f") == 5

    return late, check


def late_followed(world: World) -> Late:
    world.add(("a", "text"), ("b", "text"))
    world.work()
    born = world.wiki.reader.born()
    world.wiki.eviction.note_followed("f", 2, born)
    world.wiki.delete(["a", "b"])
    world.wiki.eviction.note_followed("f", 3, born)

    def late() -> None:
        world.wiki.eviction.note_followed("f", 2, born)
        world.wiki.eviction.note_followed("f", 9, b"another life")

    def check() -> None:
        assert world.wiki.eviction.followed("f") == (3, 0)
        assert [one.id for one in world.wiki.reader.tombstones(0)] == ["b"]

    return late, check


def late_resume(world: World) -> Late:
    def bookmark() -> Bookmark:
        return Bookmark(world.client, world.wiki.keys, "way", reads=False, documents=False)

    adder, late = world.wiki.adder(), bookmark()
    adder.bookmark = bookmark()
    late.resume([])
    adder.resume([])
    assert adder.bookmark.begin("1")
    adder.add([Job("a", "text")])

    def check() -> None:
        assert adder.bookmark is not None
        adder.bookmark.begin("2")
        adder.add([Job("b", "text")])
        again = bookmark()
        again.resume(["1", "2"])
        assert again.files == 0

    return lambda: late.resume([]), check


def late_layout(world: World) -> Late:
    """A layout that comes after a second, smaller one."""
    wiki = world.wiki
    world.add(("a", "text"))
    world.work()
    born = wiki.reader.born()
    keys = [wiki.keys.info, wiki.keys.done]

    def late() -> None:
        run(world.client, "store/layout", keys, [born, "", "float16"])

    late()
    wiki.shrink(1, "float16", force=True)

    def check() -> None:
        assert (wiki.dimensions(), wiki.dtype()) == (1, "float16")

    return late, check


def late_shrink(world: World) -> Late:
    """A vector that came, in its smaller form, after its text was replaced."""
    wiki = world.wiki
    world.add(("a", "old"), ("b", "text"))
    world.work()
    doc = wiki.keys.doc("a")
    old, other = world.client.hget(doc, "hash"), world.client.hget(wiki.keys.doc("b"), "hash")
    assert old and other
    wiki.shrink(dtype="float16")
    small = b"\0\x3c" * 2
    vectors: list[Argument] = ["a", old, small, "b", other, small]
    keys = [wiki.keys.info, wiki.keys.done]
    first: list[Argument] = [wiki.keys.doc_prefix, wiki.reader.born(), "float16", "float16"]
    first += vectors
    world.add(("a", "new"))
    world.work()
    raw = redis.Redis.from_url(world.settings.redis_url)
    raw.hdel(doc, "float16")
    raw.hset(doc, "vector", VECTOR)  # by a worker of an earlier version
    before = world.client.hgetall(doc)

    def check() -> None:
        assert world.client.hgetall(doc) == before

    return lambda: run(world.client, "store/shrink", keys, first), check


def late_shrink_of_a_larger_layout(world: World) -> Late:
    """A vector in a layout that is no more."""
    wiki = world.wiki
    world.add(("a", "text"))
    world.work()
    hash = world.client.hget(wiki.keys.doc("a"), "hash")
    assert hash
    args: list[Argument] = [wiki.keys.doc_prefix, wiki.reader.born(), "float16", "float16"]
    args += ["a", hash, b"\0\x3c" * 2]
    keys = [wiki.keys.info, wiki.keys.done]
    wiki.shrink(1, "int8", force=True)

    def check() -> None:
        assert world.client.hget(wiki.keys.doc("a"), "int8") == b"\x7f"
        assert not world.client.hget(wiki.keys.doc("a"), "float16")

    return lambda: run(world.client, "store/shrink", keys, args), check


def late_indexed(world: World) -> Late:
    world.add(("a", "old"))
    born = world.wiki.reader.born()
    assert list(world.wiki.drop())
    world.add(("a", "new"))

    def check() -> None:
        assert world.wiki.status().index is None

    info = ["vec:{wiki}:info"]
    return lambda: run(world.client, "store/indexed", info, ["set 9 ", born]), check


STEPS: dict[str, Callable[[World], Late]] = {
    "add": late_add,
    "add after its run": late_add_of_a_run_that_ended,
    "add of calls": late_add_of_calls_that_were_given_up,
    "announce": late_announce,
    "claim": late_claim,
    "claim of what is urgent": late_claim_of_what_is_urgent,
    "commit": late_commit,
    "drop": late_drop,
    "evict": late_evict,
    "exported": late_exported,
    "followed": late_followed,
    "idle": late_idle,
    "layout": late_layout,
    "indexed": late_indexed,
    "release": late_release,
    "remove": late_remove,
    "remove of another life": late_remove_of_another_life,
    "renumber": late_renumber,
    "resume": late_resume,
    "retry": late_retry,
    "shrink": late_shrink,
    "shrink into a larger layout": late_shrink_of_a_larger_layout,
    "urgent": late_urgent,
    "wake": late_wake,
}
READ_ONLY = {
    "finished",
    "front",
    "high_water",
    "hits",
    "known",
    "larger",
    "memory",
    "pieces",
    "states",
    "status",
}
PARTS = {
    "alive",
    "batch",
    "bookmark",
    "bucket",
    "entry",
    "field",
    "last",
    "limit",
    "outage",
    "overtake",
    "piece",
    "policy",
    "priorities",
    "renew",
    "state",
    "wakeups",
}
OF_THE_THROTTLE = {"admit", "answered", "report"}  # see test_throttle


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_arrives_late_does_no_harm(world: World, name: str, times: int) -> None:
    late, check = STEPS[name](world)
    for _ in range(times):
        late()
        world.check()
    check()
    world.check()


def test_every_script_is_in_the_table() -> None:
    scripts = {path.stem for path in Path(worker.__path__[0]).rglob("*.lua")}
    looked_at = {name.split()[0] for name in STEPS}
    assert scripts == {*looked_at, *READ_ONLY, *PARTS, *OF_THE_THROTTLE}
