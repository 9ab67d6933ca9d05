"""Small enqueues on a real redis-server: exact receipts for each caller, whoever it shares a step
with and whatever happens to the line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis
from forking import in_child
from servers import TcpProxy, wait_until
from stored import Store

from worker import (
    BacklogFull,
    Job,
    LayoutsDiffer,
    ModelsDiffer,
    Receipt,
    RedisAway,
    aenqueue,
    enqueue,
)
from worker.producer.wakeups import ASK_SECONDS, _sender
from worker.settings import Settings
from worker.store.calls import Jobs, Run
from worker.store.connection import Invocation, Redis
from worker.store.registry import busy_collections, collection_names
from worker.types import Embedded, Refused, text_digest

THREADS = 20
MakeProxy = Callable[[str], TcpProxy]


@pytest.fixture(autouse=True)
def nothing_is_on_its_way(settings: Settings, redis_client: redis.Redis) -> None:
    """No wake-up of an earlier test arrives after Redis was emptied for this one."""
    no_look_is_due()
    redis_client.delete(settings.queue)


def no_look_is_due() -> None:
    """Wait until the sender of wake-ups has sent all; a look may be followed by another."""
    for _ in range(3):
        _sender(os.getpid())._thread.submit(int).result()


@pytest.fixture
def wiki(settings: Settings) -> Store:
    return Store("wiki", settings=settings)


def through(line: TcpProxy) -> Settings:
    return Settings(redis_url=line.url, broker_url=line.url, model="m")


def texts_of(wiki: Store) -> dict[str, str]:
    """The texts that are to be embedded; claims them all."""
    wiki.backlog.keep_alive("c")
    return {lease.job.id: lease.job.text for lease in wiki.backlog.claim("c", 100_000)}


def work(wiki: Store) -> None:
    wiki.backlog.keep_alive("c")
    while leases := wiki.backlog.claim("c"):
        vectors = [Embedded(lease, text_digest(lease.job.text), False) for lease in leases]
        wiki.backlog.commit(vectors)


# Receipts


def test_each_text_is_in_the_count_that_it_belongs_to(settings: Settings, wiki: Store) -> None:
    enqueue([("old", "old"), ("bad", "bad"), ("gone", "gone")], "wiki", settings=settings)
    wiki.backlog.keep_alive("c")
    old, bad, gone = wiki.backlog.claim("c")
    wiki.backlog.commit(
        [Embedded(one, text_digest(one.job.text), False) for one in (old, gone)],
        [Refused(bad, "poison", "no")],
    )
    given = [("a", "x"), ("b", "y"), ("a", "z"), ("old", "old"), ("bad", "bad"), ("gone", "new")]
    receipt = enqueue([*given, ("c", " ")], "wiki", settings=settings)
    assert (receipt.new, receipt.duplicates, receipt.unchanged) == (3, 1, 1)
    assert (receipt.dead, receipt.rejected, receipt.collection) == (1, 1, "wiki")
    assert texts_of(wiki) == {"a": "z", "b": "y", "gone": "new"}


async def test_of_two_tasks_with_the_same_id_the_later_one_wins_and_both_receipts_are_right(
    settings: Settings, wiki: Store
) -> None:
    given = [("a", "one"), ("b", "x"), ("a", "two"), ("a", "two"), ("c", "x"), ("a", "three")]
    calls = [aenqueue([pair], "wiki", settings=settings) for pair in given]
    receipts = await asyncio.gather(*calls)
    assert [receipt.new for receipt in receipts] == [1, 1, 1, 0, 1, 1]
    assert [receipt.unchanged for receipt in receipts] == [0, 0, 0, 1, 0, 0]
    assert texts_of(wiki) == {"a": "three", "b": "x", "c": "x"}


async def test_an_error_reaches_the_callers_that_it_concerns_and_no_others(
    settings: Settings,
) -> None:
    await aenqueue(["first"], "wiki", settings=settings)
    calls = []
    for number in range(30):
        model, dtype = [(None, None), ("other", None), (None, "int8")][number % 3]
        text = f"text {number}"
        calls.append(aenqueue([text], "wiki", settings=settings, model=model, dtype=dtype))
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in said[1::3]} == {ModelsDiffer}
    assert {type(one) for one in said[2::3]} == {LayoutsDiffer}
    assert [one.new for one in said[::3] if not isinstance(one, BaseException)] == [1] * 10


def test_fields_and_texts_are_kept_as_they_are_of_many(settings: Settings, wiki: Store) -> None:
    enqueue([Job("a", "one", {"page": 1}), ("b", "two")], "wiki", settings=settings, keep_text=True)
    assert wiki.reader.info().keep_text
    work(wiki)
    one, two = wiki.get("a"), wiki.get("b")
    assert one and two and (one.meta, two.meta) == ({"page": 1}, None)
    # The fields of a stored text are those of its latest line.
    assert enqueue([Job("a", "one", {"page": 2})], "wiki", settings=settings).unchanged == 1
    again = wiki.get("a")
    assert again and again.meta == {"page": 2}
    enqueue(["three"], "wiki", settings=settings)
    assert wiki.reader.info().keep_text
    enqueue(["four"], "wiki", settings=settings, keep_text=False)
    assert not wiki.reader.info().keep_text


@pytest.mark.parametrize("kind", ["list", "tuple", "generator"])
def test_a_hundred_texts_leave_no_more_in_redis_than_one(
    settings: Settings, redis_client: redis.Redis, kind: str
) -> None:
    def given(start: int) -> Iterator[str]:
        return (f"text {number}" for number in range(start, start + 100))

    make = {"list": list, "tuple": tuple, "generator": iter}[kind]
    for start in range(0, 1000, 100):
        assert enqueue(make(given(start)), "wiki", settings=settings).new == 100  # type: ignore[operator]
    assert len(redis_client.keys("vec:{wiki}:receipt:*")) == 1


# Round trips, connections, wake-ups


def test_a_call_is_one_step_and_at_most_one_wake_up(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    for number in range(2):  # connections and receipts are made at first
        enqueue([f"before {number}"], "wiki", settings=settings)
    wait_until(lambda: redis_client.llen(settings.queue) == 1, what="the first wake-up")
    no_look_is_due()
    redis_client.delete(wiki.keys.wakeups)
    threading.Event().wait(2 * ASK_SECONDS)  # until the next step asks
    asked: list[tuple[str, str]] = []  # the client, and the command
    with redis_client.monitor() as monitor:  # type: ignore[no-untyped-call]
        enqueue(["text"], "wiki", settings=settings)
        wait_until(lambda: redis_client.llen(settings.queue) == 2, what="the second one")
        redis_client.echo("end")
        for command in monitor.listen():
            if command["command"] == "ECHO end":
                break
            if command["client_type"] != "lua":
                asked.append((command["client_port"], command["command"].split()[0]))
    ours = {port for port, name in asked if name == "LLEN"}
    assert [name for port, name in asked if port not in ours] == ["EVALSHA", "LPUSH"]


def test_the_calls_of_many_threads_share_steps_and_connections(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    def opened() -> int:
        return int(redis_client.info("stats")["total_connections_received"])

    enqueue(["text"], "wiki", settings=settings)
    begin = threading.Barrier(150)

    def call(number: int) -> int:
        begin.wait()
        return sum(enqueue([f"{number}, {n}"], "wiki", settings=settings).new for n in range(10))

    redis_client.config_resetstat()
    with ThreadPoolExecutor(150) as pool:
        assert sum(pool.map(call, range(150))) == 1500
    steps = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert steps < 750
    assert opened() <= 12  # since the reset, with those for wake-ups
    assert wiki.status().pending == 1501


def test_a_text_that_comes_just_after_a_wake_up_was_answered_gets_another(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    enqueue(["one"], "wiki", settings=settings)
    tokens = wait_until(lambda: redis_client.zrange(wiki.keys.wakeups, 0, -1), what="a wake-up")
    assert isinstance(tokens, list) and isinstance(tokens[0], bytes)
    wiki.backlog.acknowledge(tokens[0].decode())
    work(wiki)
    for number in range(5):
        enqueue([f"text {number}"], "wiki", settings=settings)
    wait_until(lambda: redis_client.llen(settings.queue) == 2, what="another one")


def test_a_programs_pool_of_one_connection_is_enough(settings: Settings, wiki: Store) -> None:
    pool = redis.ConnectionPool.from_url(settings.redis_url, max_connections=1)
    with redis.Redis(connection_pool=pool) as client:
        for number in range(20):
            enqueue([f"text {number}"], "wiki", settings=settings, connection=client)
            assert client.ping()
    with redis.Redis.from_url(settings.redis_url, single_connection_client=True) as alone:
        enqueue(["alone"], "wiki", settings=settings, connection=alone)
    assert wiki.status().pending == 21


# Room


@pytest.mark.parametrize("count", [1, 1000])
def test_above_the_high_water_a_call_with_a_timeout_raises_and_takes_nothing(
    settings: Settings, wiki: Store, count: int
) -> None:
    full = dataclasses.replace(settings, high_water=1000)
    enqueue([f"text {number}" for number in range(1000)], "wiki", settings=full)
    begun = time.monotonic()
    more = [f"more {number}" for number in range(count)]
    with pytest.raises(BacklogFull, match="took nothing more for 0.3 s, because 1,000 texts are"):
        enqueue(more, "wiki", settings=full, timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 5
    with pytest.raises(BacklogFull):
        enqueue(more, "wiki", settings=full, timeout=0)
    assert wiki.status().enqueued == 1000


async def test_a_task_waits_for_room_and_leaves_the_loop_free(
    settings: Settings, wiki: Store
) -> None:
    full = dataclasses.replace(settings, high_water=1000)
    enqueue([f"text {number}" for number in range(1000)], "wiki", settings=full)
    with pytest.raises(BacklogFull):
        await aenqueue(["more"], "wiki", settings=full, timeout=0.2)
    waiting = asyncio.gather(*(aenqueue([f"{n}"], "wiki", settings=full) for n in range(500)))
    await asyncio.sleep(0.7)
    assert not waiting.done()
    work(wiki)
    assert sum(receipt.new for receipt in await waiting) == 500


def test_a_redis_without_memory_refuses_a_call_with_a_timeout(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    enqueue(["text"], "wiki", settings=settings)
    used = int(redis_client.info("memory")["used_memory"])
    try:
        for limit in (used // 2, int(used / 0.7)):  # it is full, and 70 % full
            redis_client.config_set("maxmemory", limit)

            def fill() -> None:
                for number in range(10**6):  # not each step looks, but one every half second
                    enqueue([f"{limit} {number}"], "wiki", settings=settings, timeout=0)  # noqa: B023

            with pytest.raises(BacklogFull, match="because Redis is .*full"):
                fill()
            for number in range(10):
                with pytest.raises(BacklogFull):
                    enqueue([f"more {number}"], "wiki", settings=settings, timeout=0)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert enqueue(["after"], "wiki", settings=settings).new == 1


# Cut lines


def test_receipts_are_exact_while_replies_are_lost_and_the_line_breaks(
    settings: Settings, wiki: Store, proxy: MakeProxy
) -> None:
    line = proxy(settings.redis_url)
    far, ended = through(line), threading.Event()
    wrong: list[str] = []

    def call(thread: int) -> int:
        """Enqueue texts, each id three times; how many ids."""
        for number in range(10**6):
            id = f"{thread}-{number}"
            for text, wanted in ("first", (1, 0)), ("first", (0, 1)), ("second", (1, 0)):
                receipt = enqueue([(id, text)], "wiki", settings=far, timeout=60)
                if (receipt.new, receipt.unchanged) != wanted:
                    wrong.append(f"{id} {text}: {receipt}")
            if line.cuts > 5:
                return number + 1
        raise AssertionError

    def break_it() -> None:
        chance = random.Random(1)
        while line.cuts <= 5 and not ended.wait(0.1):
            if chance.random() < 0.7:
                line.cut_next_reply(chance.choice([0, 0, 3]), to=b"EVALSHA")
            else:
                line.refuse()
                ended.wait(0.1)
                line.refuse(False)

    breaker = threading.Thread(target=break_it)
    breaker.start()
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            ids = sum(pool.map(call, range(THREADS)))
    finally:
        ended.set()
        breaker.join()
    assert not wrong
    assert wiki.status().enqueued == 2 * ids  # the first ones, and the second
    found = texts_of(wiki)
    assert set(found.values()) == {"second"} and len(found) == ids


@pytest.mark.parametrize("is_known", [True, False])
def test_while_redis_is_away_a_call_waits_as_long_as_it_is_told(
    settings: Settings, wiki: Store, proxy: MakeProxy, is_known: bool
) -> None:
    line = proxy(settings.redis_url)
    far = through(line)
    if is_known:
        enqueue(["before"], "wiki", settings=far)
    line.refuse()
    begun = time.monotonic()
    with pytest.raises(RedisAway, match="no text was taken") as caught:
        enqueue(["a"], "wiki", settings=far, timeout=1)
    assert caught.value.taken is False
    assert 1 <= time.monotonic() - begun < 5
    begun = time.monotonic()
    with pytest.raises(RedisAway, match="no text was taken"):
        enqueue(["a"], "wiki", settings=far)  # it is not told to wait
    assert time.monotonic() - begun < 5
    with ThreadPoolExecutor(2 * THREADS) as pool:

        def call(text: str, timeout: float) -> Future[Receipt]:
            return pool.submit(enqueue, [text], "wiki", settings=far, timeout=timeout)

        waiting = [call(f"b {number}", 60) for number in range(THREADS)]
        leaving = [call(f"c {number}", 0.6) for number in range(THREADS)]
        # Those that leave go with no step, though they waited together with the others.
        errors = [one.exception() for one in leaving]
        assert all(isinstance(one, RedisAway) and one.taken is False for one in errors)
        line.refuse(False)
        assert [receipt.result().new for receipt in waiting] == [1] * THREADS
    assert wiki.status().enqueued == THREADS + is_known


async def test_a_task_waits_for_a_redis_that_is_away_as_long_as_it_is_told(
    settings: Settings, wiki: Store, proxy: MakeProxy
) -> None:
    line = proxy(settings.redis_url)
    far = through(line)
    line.refuse()
    begun = time.monotonic()
    calls = [aenqueue([f"{n}"], "wiki", settings=far, timeout=1) for n in range(50)]
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, RedisAway) and one.taken is False for one in said)
    assert time.monotonic() - begun < 5
    waiting = asyncio.gather(
        *(aenqueue([f"{n}"], "wiki", settings=far, timeout=60) for n in range(50))
    )
    await asyncio.sleep(0.3)
    line.refuse(False)
    assert sum(receipt.new for receipt in await waiting) == 50
    assert wiki.status().enqueued == 50


def test_a_text_whose_reply_is_lost_for_good_may_have_been_taken_and_is_then_unchanged(
    settings: Settings, wiki: Store, proxy: MakeProxy
) -> None:
    line = proxy(settings.redis_url)
    far = through(line)
    enqueue(["before"], "wiki", settings=far)
    line.cut_next_reply(to=b"EVALSHA", for_good=True)
    with pytest.raises(RedisAway, match="may have been taken") as caught:
        enqueue([("a", "text")], "wiki", settings=far, timeout=1)
    assert caught.value.taken is None
    line.refuse(False)
    assert enqueue([("a", "text")], "wiki", settings=far).unchanged == 1
    assert wiki.status().enqueued == 2


@pytest.mark.parametrize("lost", [1, 2])
def test_a_redis_that_wants_another_password_after_a_reply_was_lost_stops_no_later_call(
    settings: Settings, wiki: Store, proxy: MakeProxy, redis_client: redis.Redis, lost: int
) -> None:
    line = proxy(settings.redis_url)
    far = through(line)
    enqueue(["before"], "wiki", settings=far)
    with ThreadPoolExecutor(1) as pool:
        line.cut_next_reply(to=b"EVALSHA", times=lost, for_good=True)
        call = pool.submit(enqueue, [("a", "text")], "wiki", settings=far)
        wait_until(lambda: line.cuts == lost, 30, "its replies are lost")
        password = str(redis_client.config_get("requirepass")["requirepass"])
        redis_client.config_set("requirepass", "another")
        try:
            line.refuse(False)
            with pytest.raises(RedisAway, match="may have been taken") as caught:
                call.result(60)
        finally:
            redis_client.config_set("requirepass", password)
    assert caught.value.taken is None
    assert enqueue([("a", "text")], "wiki", settings=far, timeout=60).unchanged == 1


def test_a_step_that_was_given_up_and_arrives_late_changes_no_later_text(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    enqueue(["before"], "wiki", settings=settings)
    for number in range(5):
        redis_client.client_pause(60_000, all=False)
        begun = time.monotonic()
        with pytest.raises(RedisAway, match="may have been taken"):
            enqueue([("a", f"old {number}")], "wiki", settings=settings, timeout=0.5)
        assert time.monotonic() - begun < 2
        redis_client.client_unpause()
        receipt = enqueue([("a", f"new {number}")], "wiki", settings=settings, timeout=60)
        assert receipt.new == 1
    assert texts_of(wiki)["a"] == "new 4"
    status = wiki.status()
    assert status.enqueued == status.pending + status.leased


def test_a_step_that_its_callers_have_left_and_that_arrives_late_is_no_reply_to_a_later_one(
    settings: Settings,
    wiki: Store,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call of another collection leads, and has more time than they."""
    names = ("first", "leads", "wiki")
    for name in names:
        enqueue(["before"], name, settings=settings)
    all_wait, step = threading.Event(), Run.step
    server = redis_client.info("server")["process_id"]

    def delayed(run: Run, calls: Sequence[Jobs], *, looks: bool, wakes: bool) -> Invocation:
        if run.keys.name == "first":
            all_wait.wait(20)
        elif run.keys.name == "leads":
            os.kill(server, signal.SIGSTOP)
        return step(run, calls, looks=looks, wakes=wakes)

    monkeypatch.setattr(Run, "step", delayed)
    with ThreadPoolExecutor(3) as pool:
        calls = []
        for name, timeout in zip(names, (30, 1.5, 0.6)):
            calls.append(pool.submit(enqueue, ["late"], name, settings=settings, timeout=timeout))
            time.sleep(0.1)  # they come one after the other
        try:
            all_wait.set()
            assert [type(call.exception(20)) for call in calls[1:]] == [RedisAway, RedisAway]
        finally:
            monkeypatch.undo()
            os.kill(server, signal.SIGCONT)
        assert calls[0].result(20).new == 1
    assert enqueue([("a", "text")], "wiki", settings=settings, timeout=60).new == 1
    assert texts_of(wiki)["a"] == "text"


def test_a_redis_that_forgot_its_scripts_or_lost_everything_gets_what_it_needs(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    def lose() -> None:
        redis_client.flushall()

    def drop() -> None:
        list(wiki.drop())

    def end_the_epoch() -> None:
        work(wiki)
        busy_collections(wiki.client, settings.prefix)

    for trouble in (redis_client.script_flush, lose, drop, end_the_epoch):
        enqueue([("a", "text")], "wiki", settings=settings)
        before = wiki.status().enqueued
        trouble()
        receipt = enqueue([("b", "text")], "wiki", settings=settings)
        assert receipt.new + receipt.unchanged == 1
        assert wiki.status().enqueued in (before, before + 1, 1)
        assert collection_names(wiki.client, settings.prefix) == ["wiki"]
        if wiki.status().backlog:
            assert busy_collections(wiki.client, settings.prefix) == ["wiki"]


# Processes and loops


def test_a_forked_child_and_its_parent_both_enqueue(
    settings: Settings, wiki: Store, redis_client: redis.Redis
) -> None:
    def child() -> None:
        for number in range(20):
            text = f"child {os.getpid()} {number}"
            assert enqueue([text], "wiki", settings=settings).new == 1

    enqueue(["before"], "wiki", settings=settings)
    stop = threading.Event()
    counts: list[int] = []

    def beside() -> None:
        while not stop.is_set():
            counts.append(enqueue([f"beside {len(counts)}"], "wiki", settings=settings).new)

    other = threading.Thread(target=beside)
    other.start()  # so that a fork comes while a step is under way
    try:
        assert [in_child(child) for _ in range(3)] == [0, 0, 0]
    finally:
        stop.set()
        other.join()
    assert enqueue(["after"], "wiki", settings=settings).new == 1
    assert set(counts) == {1}
    assert wiki.status().pending == 2 + 3 * 20 + len(counts)


FORKS = """
import os, sys
from worker import enqueue
enqueue(["text"], "parent")
child = os.fork()
if child == 0:
    enqueue(["text"], "child")
    sys.exit()
sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_child_that_is_forked_while_the_first_wake_up_is_sent_sends_its_own(
    settings: Settings, redis_client: redis.Redis
) -> None:
    environ = {**os.environ, "REDIS_URL": settings.redis_url}
    for number in range(1, 4):
        subprocess.run([sys.executable, "-c", FORKS], env=environ, timeout=60, check=True)
        redis_client.delete("vec:{parent}:wakeups", "vec:{child}:wakeups")
        redis_client.delete("vec:{parent}:queued", "vec:{child}:queued")  # it is new again
        assert redis_client.llen(settings.queue) == 2 * number


class Beginning:
    """The first run of a collection, held where it has begun and nothing was sent yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        enqueue(["text"], "other", settings=settings)  # the server knows the script from here on
        self.is_there, self.goes_on = threading.Event(), threading.Event()
        self.announced: list[str] = []
        begin, announce = Run.begin, Run.announce

        def held(run: Run, client: Redis) -> None:
            begin(run, client)
            self.is_there.set()
            assert self.goes_on.wait(20)

        def noted(run: Run, client: Redis) -> None:
            time.sleep(0.1)  # whoever is told too early returns before it
            announce(run, client)
            self.announced.append(run.keys.name)

        monkeypatch.setattr(Run, "begin", held)
        monkeypatch.setattr(Run, "announce", noted)


async def test_tasks_are_told_though_the_first_one_of_a_collection_was_cancelled(
    settings: Settings, wiki: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = Beginning(monkeypatch, settings)
    first = asyncio.ensure_future(aenqueue(["first"], "wiki", settings=settings))
    await asyncio.get_running_loop().run_in_executor(None, begins.is_there.wait, 20)
    first.cancel()
    await asyncio.wait([first])
    others = [asyncio.ensure_future(aenqueue([f"{n}"], "wiki", settings=settings)) for n in (1, 2)]
    await asyncio.sleep(0)
    begins.goes_on.set()
    receipts = await asyncio.wait_for(asyncio.gather(*others), 20)
    assert [receipt.new for receipt in receipts] == [1, 1]
    assert begins.announced == ["wiki"] and wiki.status().pending == 2


@pytest.mark.parametrize("others", [1, 3])
@pytest.mark.parametrize("is_late", [False, True])
def test_threads_are_told_though_the_first_one_of_a_collection_has_left(
    settings: Settings,
    wiki: Store,
    monkeypatch: pytest.MonkeyPatch,
    others: int,
    is_late: bool,
) -> None:
    """`is_late`: the others come when no one leads any more, so that one of them does."""
    begins = Beginning(monkeypatch, settings)

    def call(number: int) -> tuple[int, list[str]]:
        return enqueue([f"{number}"], "wiki", settings=settings).new, list(begins.announced)

    with ThreadPoolExecutor(4) as pool:
        with pytest.raises(RedisAway) as left:
            enqueue(["first"], "wiki", settings=settings, timeout=0)
        assert begins.is_there.is_set() and left.value.taken is False
        if is_late:
            begins.goes_on.set()
            time.sleep(0.2)
        calls = [pool.submit(call, number) for number in range(others)]
        time.sleep(0.2)
        begins.goes_on.set()
        assert [one.result(20) for one in calls] == [(1, ["wiki"])] * others
    assert wiki.status().pending == others


async def test_a_task_that_is_cancelled_leaves_the_others_alone(
    settings: Settings, wiki: Store
) -> None:
    for _ in range(20):
        calls = [
            asyncio.ensure_future(aenqueue([f"{n}"], "wiki", settings=settings)) for n in range(50)
        ]
        await asyncio.sleep(random.random() / 200)
        for one in calls[::2]:
            one.cancel()
        said = await asyncio.gather(*calls, return_exceptions=True)
        assert not [one for one in said[1::2] if isinstance(one, BaseException)]
    assert 25 <= wiki.status().pending <= 50


def test_loops_and_threads_share_steps(settings: Settings, wiki: Store) -> None:
    async def tasks(start: int) -> int:
        calls = [aenqueue([f"task {start + n}"], "wiki", settings=settings) for n in range(100)]
        return sum(receipt.new for receipt in await asyncio.gather(*calls))

    def thread(start: int) -> int:
        return sum(
            enqueue([f"thread {start + n}"], "wiki", settings=settings).new for n in range(100)
        )

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(asyncio.run, tasks(100 * n)) for n in range(4)]
        threads = [pool.submit(thread, 100 * n) for n in range(4)]
        assert [one.result() for one in (*loops, *threads)] == [100] * 8
    assert wiki.status().pending == 800


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_cannot_be_is_an_error(settings: Settings, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is a number of seconds from 0"):
        enqueue(["text"], "wiki", settings=settings, timeout=timeout)
