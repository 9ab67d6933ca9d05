"""At every point in the life of a batch: killed, frozen, or the line lost. See `points`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import redis
from servers import API
from stored import Store

from worker import Job
from worker.export.sinks import read_sinks
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.registry import busy_collections
from worker.types import Embedded, Refused, text_digest

from .points import CUT, FREEZE, KILL, End, Errand, Points
from .proof import balances, vector_of

pytestmark = pytest.mark.heavy

MOST = 20_000  # points, in case that an end is never reached
# Old texts stored before, one of which gets a new one; and what else may be in a batch.
OLD = {"a": "old a", "b": "old b"}
TEXTS = {"a": "new a", "c": "text c", "d": "text d", "bad": "poison-named"}
NEWS = {"a": "news a", "b": "text c", "bad": "poison-named"}  # one text is in both
MORE = {**TEXTS, "worse": "poison-unnamed", "e": "text e", "f": "text f"}
RULES: list[dict[str, object]] = [
    {"answer": "named", "marker": "poison-named"},
    {"answer": "unnamed", "marker": "poison-unnamed"},
]


def embed(wiki: Store) -> None:
    """Do the workers' work."""
    wiki.backlog.keep_alive("before:1")
    leases = wiki.backlog.claim("before:1")
    wiki.backlog.commit([Embedded(one, vector_of(one.job.text), False) for one in leases])
    wiki.backlog.release("before:1", end_slice=True)


class Bench:
    """A collection that is as new for each point."""

    def __init__(self, points: Points, settings: Settings, api: API, client: redis.Redis) -> None:
        self.points = points
        self.settings = settings
        self.wiki = Store("wiki", settings=settings)
        self.api = api
        self.redis = client
        self.texts: dict[str, str] = {}

    def prepare(self, texts: Mapping[str, str], *, queued: bool = True) -> None:
        self.texts = {**OLD, **texts}
        self.redis.flushall()
        self.api.reset()
        self.api.faults(rules=RULES)
        adder = self.wiki.adder()
        adder.add([Job(id, text) for id, text in OLD.items()])
        embed(self.wiki)
        if queued:
            adder.add([Job(id, "superseded") for id in texts if id == "d"])
            adder.add([Job(id, text) for id, text in texts.items()])

    def expire(self) -> None:
        """The leases of the dead have run out."""
        for key in self.redis.scan_iter("vec:{wiki}:alive:*", count=1000):
            self.redis.delete(key)

    def heal(self) -> None:
        """Others do what is left."""
        for _ in range(10):
            end = self.points.run(Errand("drain"))
            assert not end.error and not end.signal, end
            if not self.wiki.backlog.size():
                return
        raise AssertionError(f"never done: {self.wiki.status()}")

    def prepare_news(self) -> None:
        """Another collection, of which texts go into the same requests."""
        Store("news", settings=self.settings).adder().add([Job(*one) for one in NEWS.items()])

    def check_news(self) -> None:
        """All of it is done, by whoever had room for it, and nothing of it is left over."""
        for key in self.redis.scan_iter("vec:{news}:alive:*"):
            self.redis.delete(key)
        news = Store("news", settings=self.settings)
        for _ in range(10):
            assert balances(news.status()), news.status()
            if not news.backlog.size():
                break
            end = self.points.run(Errand("drain", words=["news"]))
            assert not end.error and not end.signal, end
        assert {one.id: one.tobytes() for one in news} == {
            id: vector_of(text) for id, text in NEWS.items() if "poison" not in text
        }
        assert [(one.id, one.code) for one in news.dead()] == [("bad", "invalid_request")]
        assert news.status().enqueued == len(NEWS)
        assert not self.redis.exists("vec:{news}:attempts", "vec:{news}:queued")
        assert "news" not in busy_collections(connect(self.settings), "vec")  # the pump's look
        consumers = self.redis.xinfo_consumers("vec:{news}:jobs", "workers")
        assert {one["name"] for one in consumers} <= {b"released"}

    def check_found(self) -> None:
        """The pump finds the collection if there is work in it, and forgets it if there is none."""
        busy = busy_collections(connect(self.settings), "vec")
        assert busy == (["wiki"] if self.wiki.backlog.size() else [])

    def check_ledger(self) -> None:
        assert balances(self.wiki.status()), self.wiki.status()

    def check_end(self) -> None:
        """Every text is where it belongs, once; nothing is left over."""
        bad = {id: text for id, text in self.texts.items() if "poison" in text}
        good = {id: text for id, text in self.texts.items() if id not in bad}
        status = self.wiki.status()
        assert (status.enqueued, status.embedded) == (len(self.texts), len(good)), status
        assert status.dead == len(bad), status
        self.check_ledger()
        records = list(self.wiki)
        assert len(records) == len(good)
        assert {one.id: one.tobytes() for one in records} == {
            id: vector_of(text) for id, text in good.items()
        }
        assert {one.id: one.text for one in self.wiki.dead()} == bad
        assert not self.redis.exists("vec:{wiki}:attempts", "vec:{wiki}:queued")
        # What was paid for is in the API's cache: only what never got that far is paid twice.
        assert self.api.log().charged == self.api.log().distinct


@pytest.fixture
def bench(points: Points, redis_server: RedisServer, api: API, redis_client: redis.Redis) -> Bench:
    settings = Settings(redis_url=redis_server.url, broker_url=redis_server.url)
    return Bench(points, settings, api, redis_client)


Extent = tuple[Mapping[str, str], int]  # see the fixture


@pytest.fixture(
    params=[
        pytest.param((TEXTS, 11), id="here-and-there"),
        pytest.param((MORE, 1), id="everywhere", marks=pytest.mark.slow),
    ]
)
def extent(request: pytest.FixtureRequest) -> Extent:
    """The texts of a batch, and how far it is from one of the points tried to the next."""
    texts, stride = request.param
    return texts, stride


def at_points(
    bench: Bench,
    errand: Errand,
    happens: Callable[[End], None],
    extent: Extent,
    *,
    first: int = 1,
    queued: bool = True,
    news: bool = False,
) -> int:
    """Send a child on the errand for each of these points; how many there were."""
    texts, stride = extent
    for tried, at in enumerate(range(min(first, stride), MOST, stride)):
        bench.prepare(texts, queued=queued)
        if news:
            bench.prepare_news()
        end = bench.points.run(errand._replace(at=at, texts=texts))
        if end.points is not None and end.points < at:
            assert not end.error
            return tried
        bench.check_ledger()
        try:
            happens(end)
        except AssertionError as error:
            raise AssertionError(f"{errand.what} at point {at}: {error}") from error
    raise AssertionError("no end of points")


def test_a_slice_killed_at_a_request_or_an_answer_loses_nothing(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        assert end.signal == signal.SIGKILL
        bench.expire()
        bench.heal()
        bench.check_end()

    assert at_points(bench, Errand("drain", KILL), happens, extent) > 3


@pytest.mark.slow
def test_a_slice_killed_at_a_line_of_ours_loses_nothing(bench: Bench) -> None:
    def happens(end: End) -> None:
        assert end.signal == signal.SIGKILL
        bench.expire()
        bench.heal()
        bench.check_end()

    errand = Errand("drain", KILL, lines=True)
    assert at_points(bench, errand, happens, (TEXTS, 7)) > 50


def test_a_slice_whose_line_is_cut_at_a_request_or_an_answer_gives_all_back_at_once(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        assert not end.error and not end.signal, end
        assert not bench.wiki.status().leased  # nothing waits for a lease to run out
        bench.heal()
        bench.check_end()

    assert at_points(bench, Errand("drain", CUT), happens, extent, first=4) > 3


def test_a_slice_frozen_until_others_have_done_its_work_changes_nothing_when_it_wakes(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        assert end.signal == signal.SIGSTOP
        bench.expire()
        bench.heal()
        bench.check_end()
        later = bench.points.go_on(end)
        assert not later.error and not later.signal, later
        bench.check_end()

    assert at_points(bench, Errand("drain", FREEZE), happens, extent, first=7) > 3


def test_a_slice_frozen_while_a_text_is_replaced_stores_the_new_one_whoever_is_first(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        bench.wiki.adder().add([Job("c", "newer c"), Job("bad", "mended"), Job("new", "new")])
        bench.texts |= {"c": "newer c", "bad": "mended", "new": "new"}
        later = bench.points.go_on(end)
        assert not later.error and not later.signal, later
        bench.heal()
        bench.check_end()

    assert at_points(bench, Errand("drain", FREEZE), happens, extent, first=10) > 3


@pytest.mark.parametrize(("what", "first"), [(KILL, 1), (CUT, 4), (FREEZE, 7)])
def test_a_batch_filled_from_another_collection_is_whole_in_both(
    bench: Bench, what: str, first: int
) -> None:
    filled = 0

    def happens(end: End) -> None:
        nonlocal filled
        filled += Store("news", settings=bench.settings).status().leased > 0
        bench.expire()
        bench.heal()
        bench.check_end()
        bench.check_news()
        if what == FREEZE:
            later = bench.points.go_on(end)
            assert not later.error and not later.signal, later
            bench.check_end()
            bench.check_news()

    points = at_points(bench, Errand("drain", what), happens, (TEXTS, 17), first=first, news=True)
    assert points > 3 and (filled or what == CUT)


def test_a_producer_killed_at_a_request_or_an_answer_and_run_again_adds_all_once(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        assert end.signal == signal.SIGKILL
        again = bench.points.run(Errand("add", texts=extent[0]))
        assert not again.error and not again.signal, again
        status = bench.wiki.status()
        # The old text of `a` is stored and its new one queued: each counts, until it is replaced.
        assert (status.enqueued, status.pending) == (len(OLD) + len(extent[0]), len(extent[0]))
        bench.heal()
        bench.check_end()

    assert at_points(bench, Errand("add", KILL), happens, extent, queued=False) >= 1


def test_a_producer_whose_line_is_cut_at_a_request_or_an_answer_adds_all_once(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        assert not end.signal
        if end.error:  # nobody was there to begin with, and it says so
            assert end.error.startswith(("ConnectionError", "RedisAway")), end
            assert (end.points or 10) < 10, end
            assert bench.wiki.status().enqueued == len(OLD)
            assert not bench.points.run(Errand("add", texts=extent[0])).error
        status = bench.wiki.status()
        assert (status.enqueued, status.pending) == (len(OLD) + len(extent[0]), len(extent[0]))
        bench.heal()
        bench.check_end()

    assert at_points(bench, Errand("add", CUT), happens, extent, first=2, queued=False) >= 1


@pytest.mark.parametrize("what", [KILL, FREEZE])
def test_the_pump_finds_what_is_added_whenever_it_looks(bench: Bench, what: str) -> None:
    def happens(end: End) -> None:
        bench.check_found()
        if what == FREEZE:  # in which the pump took it for done
            later = bench.points.go_on(end)
            assert not later.error and not later.signal, later
            assert bench.wiki.backlog.size() == len(TEXTS)
            bench.check_found()
            bench.heal()
            bench.check_end()
            bench.check_found()

    assert at_points(bench, Errand("chunk", what), happens, (TEXTS, 1), queued=False) > 5


@pytest.mark.parametrize("what", [KILL, CUT, FREEZE])
def test_a_retry_that_ends_at_a_request_or_an_answer_leaves_each_letter_dead_or_queued(
    bench: Bench, what: str
) -> None:
    def happens(end: End) -> None:
        bench.check_found()
        if what == FREEZE:
            later = bench.points.go_on(end)
            assert not later.error and not later.signal, later
            assert bench.wiki.status().pending == 1
            bench.check_found()
        status = bench.wiki.status()
        assert (status.dead, status.pending) in ((1, 0), (0, 1))
        assert bench.wiki.retry() == status.dead
        assert bench.wiki.status().pending == 1
        bench.check_ledger()

    errand = Errand("retry", what)
    for at in range(1, MOST):
        bench.prepare({"bad": "poison-named"})
        bench.wiki.backlog.keep_alive("before:1")
        [lease] = bench.wiki.backlog.claim("before:1")
        bench.wiki.backlog.commit([], [Refused(lease, "invalid_request", "no")])
        bench.wiki.backlog.release("before:1", end_slice=True)
        end = bench.points.run(errand._replace(at=at))
        if end.points is not None and end.points < at:
            assert at > 3
            return
        bench.check_ledger()
        happens(end)


def test_a_slice_frozen_while_texts_are_deleted_brings_none_of_them_back(
    bench: Bench, extent: Extent
) -> None:
    def happens(end: End) -> None:
        gone = ["a", "c", "bad"]
        bench.wiki.delete(gone)
        bench.check_ledger()
        later = bench.points.go_on(end)
        assert not later.error and not later.signal, later
        bench.heal()
        for id in gone:
            del bench.texts[id]
        bench.check_end()

    assert at_points(bench, Errand("drain", FREEZE), happens, extent, first=10) > 3


@pytest.mark.parametrize("what", [KILL, CUT, FREEZE])
def test_a_deletion_that_ends_at_a_request_or_an_answer_is_done_or_can_be_done_again(
    bench: Bench, what: str
) -> None:
    """A part of the ids is stored, a part queued; one of them comes back before a frozen one is."""

    def happens(end: End) -> None:
        done = bench.wiki.status().removed
        assert done in (0, len(TEXTS))
        if what == FREEZE:
            bench.wiki.adder().add([Job("c", "again")])
            later = bench.points.go_on(end)
            assert not later.error and not later.signal, later
            bench.check_ledger()
        elif what == KILL or end.error:
            assert bench.points.run(Errand("delete", texts=TEXTS)).error == ""
        back = what == FREEZE and bench.wiki.reader.states(["c"])[0].queued is not None
        assert back or not (what == FREEZE and done)
        bench.heal()
        bench.texts = {"b": OLD["b"], **({"c": "again"} if back else {})}
        bench.check_end()

    tried = at_points(bench, Errand("delete", what), happens, (TEXTS, 1))
    assert tried > 5


@pytest.mark.parametrize("what", [KILL, FREEZE])
def test_a_prune_that_ends_at_a_request_or_an_answer_is_done_or_can_be_done_again(
    bench: Bench, what: str
) -> None:
    def happens(end: End) -> None:
        again = Errand("prune", texts={"a": "", "b": ""})
        if what == FREEZE:
            bench.wiki.adder().add([Job("c", "fresh"), Job("new", "fresh")])
            later = bench.points.go_on(end)
            assert not later.error and not later.signal, later
            bench.check_ledger()
            bench.texts |= {"c": "fresh", "new": "fresh"}
            if not bench.wiki.reader.states(["new"])[0].queued:  # it had not begun
                return
            stayed.append(end)
            again = again._replace(texts={"a": "", "b": "", "c": "", "new": ""})
        done = bench.points.run(again)
        assert not done.error and not done.signal, done
        bench.texts = {id: text for id, text in bench.texts.items() if id in again.texts}
        bench.heal()
        bench.check_end()

    stayed: list[End] = []
    errand = Errand("prune", what)
    for at in range(1, MOST):
        bench.prepare(TEXTS)
        end = bench.points.run(errand._replace(at=at, texts={"a": "", "b": ""}))
        if end.points is not None and end.points < at:
            assert at > 10
            assert len(stayed) > 5 or what == KILL
            return
        bench.check_ledger()
        happens(end)


@pytest.mark.parametrize("what", [KILL, FREEZE])
def test_an_exporter_that_ends_at_a_request_or_an_answer_while_ids_are_deleted_deletes_them_too(
    bench: Bench, tmp_path: Path, what: str
) -> None:
    """One of the deleted ids is in a file already, one comes again with another text."""

    def happens(end: End) -> None:
        bench.wiki.delete(["a", "b", "c"])
        bench.wiki.adder().add([Job("a", "newest a")])
        embed(bench.wiki)
        bench.check_ledger()
        if what == FREEZE:
            later = bench.points.go_on(end)
            assert not later.error and not later.signal, later
        for _ in range(2):
            done = bench.points.run(export)
            assert not done.error and not done.signal, done
            bench.check_ledger()
        latest = {one.id: one for one in read_sinks([export.token], bench.wiki.reader)}
        found = {id: one.digest for id, one in latest.items() if one.digest}
        texts = {"a": "newest a", "d": "text d", "bad": TEXTS["bad"]}
        assert found == {id: text_digest(text) for id, text in texts.items()}
        assert not bench.redis.xlen("vec:{wiki}:tombstones")
        status = bench.wiki.status()
        assert status.enqueued == status.evicted  # each vector of `a` that was evicted counts

    for at in range(1, MOST):
        bench.prepare(TEXTS, queued=False)
        export = Errand("export", token=str(tmp_path / str(at)))
        assert not bench.points.run(export).error
        bench.wiki.delete(["b"])
        bench.wiki.adder().add([Job(*text) for text in TEXTS.items()])
        embed(bench.wiki)
        end = bench.points.run(export._replace(what=what, at=at))
        if end.points is not None and end.points < at:
            assert at > 20
            return
        bench.check_ledger()
        happens(end)


# What a slice does at all


def test_a_slice_woken_by_what_has_been_replaced_leaves_the_work_to_the_other(
    bench: Bench,
) -> None:
    bench.prepare(TEXTS)
    [token] = bench.wiki.backlog.wake(1)
    assert not bench.points.run(Errand("drain", token="12345")).error
    assert bench.api.log().requests == 0
    assert not bench.points.run(Errand("drain", token=token)).error
    bench.check_end()
    requests = bench.api.log().requests
    bench.wiki.adder().add([Job("more", "more")])
    assert not bench.points.run(Errand("drain", token=token)).error  # a second time
    assert bench.api.log().requests == requests


def test_a_failure_is_counted_also_when_the_slice_ends_before_its_batch_is_through(
    bench: Bench,
) -> None:
    bench.prepare({"bad": "poison one", "worse": "poison two"})
    bench.wiki.backlog.keep_alive("before:1")
    bench.wiki.backlog.release("before:1", bench.wiki.backlog.claim("before:1"), end_slice=True)
    bench.api.faults(
        rules=[
            {"answer": "slow_down", "skip": 6, "retry_after": "60"},
            {"answer": "error", "marker": "poison"},
        ]
    )
    assert not bench.points.run(Errand("drain")).error
    # One failed three times, with a harmless text between, which is an attempt; then came the wait.
    assert bench.api.log().requests == 7
    bench.wiki.backlog.keep_alive("after:1")
    counted = {lease.job.id: lease.attempts for lease in bench.wiki.backlog.claim("after:1")}
    assert counted == {"bad": 2, "worse": 1}
