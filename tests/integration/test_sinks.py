"""The contract of a sink: nothing missing, nothing twice, nothing stale, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from _pytest.mark import ParameterSet
from servers import wait_until
from sinks import Case, Failing, FolderCase, Held, PgVectorCase
from stored import Bench, vector_of

from worker.export.folder import Folder
from worker.export.follow import Options, SinkExport
from worker.export.rows import ExportError
from worker.export.sink import Rotation, Sink, SinkAway
from worker.layout import Layout
from worker.store.reader import Reader
from worker.store.removal import Removal
from worker.types import Position, text_digest

SMALL = Rotation(vectors=2, seconds=0.2)


class Died(BaseException):
    """In place of a signal that kills."""


def elsewhere(*kinds: str) -> list[ParameterSet]:
    return [pytest.param(kind, marks=pytest.mark.elsewhere) for kind in kinds]


@pytest.fixture(
    params=["folder", *elsewhere("qdrant", "engine of qdrant", "pgvector", "column of pgvector")]
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Each kind of sink."""
    if request.param == "folder":
        yield FolderCase(tmp_path / "out")
    elif "qdrant" in request.param:
        pytest.importorskip("qdrant_client")
        from qdrant_server import QdrantCase, running_qdrant

        with running_qdrant(directory=tmp_path if "engine" in request.param else None) as server:
            yield QdrantCase(server)
    else:
        server = request.getfixturevalue("postgresql")
        yield PgVectorCase(server, "embedding" if "column" in request.param else None)


def feed(bench: Bench, *ids: str, edition: str = "text") -> None:
    bench.add(*[(id, f"{edition} {id}") for id in ids])
    bench.embed_all()


def export(
    bench: Bench,
    sink: Sink,
    *,
    evict: bool = False,
    options: Options | None = None,
    tell: Callable[[int], object] = lambda read: None,
) -> int:
    """Export what is there now; returns the number of vectors that were written."""
    run = SinkExport(sink, bench.settings, options or Options(evict), tell=tell)
    return sum(published.vectors for published in run.run())


def expected(*ids: str, edition: str = "text") -> dict[str, Held]:
    texts = {id: f"{edition} {id}" for id in ids}
    return {id: Held(text_digest(text), vector_of(text)) for id, text in texts.items()}


@pytest.mark.parametrize("evict", [False, True])
def test_a_sink_holds_the_vector_of_the_last_text_of_each_id(
    bench: Bench, case: Case, evict: bool
) -> None:
    feed(bench, *"abcde")
    assert export(bench, case.open(SMALL), evict=evict) == 5
    assert case.held() == expected(*"abcde")
    assert export(bench, case.open(SMALL), evict=evict) == 0, "nothing twice"
    feed(bench, *"be", edition="other")
    feed(bench, "f")
    assert export(bench, case.open(), evict=evict) == 3
    assert case.held() == {**expected(*"acdf"), **expected(*"be", edition="other")}
    assert bench.status.embedded == (0 if evict else 6)


@pytest.mark.parametrize("evict", [False, True])
def test_what_is_deleted_leaves_the_sink_and_may_come_back(
    bench: Bench, case: Case, evict: bool
) -> None:
    feed(bench, *"abc")
    export(bench, case.open(), evict=evict)
    bench.collection.delete(["a", "b"])
    export(bench, case.open(), evict=evict)
    assert case.held() == expected("c")
    feed(bench, "a")
    export(bench, case.open(), evict=evict)
    assert case.held() == expected("a", "c")


def test_what_is_deleted_after_it_was_read_is_not_written_again(bench: Bench, case: Case) -> None:
    feed(bench, *"abcdef")
    once = iter([["e"]])
    run = SinkExport(case.open(SMALL), bench.settings, Options(), tell=lambda read: None)
    for _ in run.run():  # all six are read at once, and written two by two
        bench.collection.delete(next(once, []))
    assert case.held() == expected(*"abcdf")


@pytest.mark.parametrize("evict", [False, True])
def test_an_export_that_dies_at_any_step_is_simply_run_again(
    bench: Bench, case: Case, evict: bool
) -> None:
    for after in (False, True):
        steps = 0
        while True:
            steps += 1
            edition = f"{after} {steps}"
            feed(bench, *"abcde", edition=edition)
            bench.collection.delete(["c"])
            feed(bench, "a", edition=f"later {edition}")
            failing = Failing(case.open(SMALL), steps, Died, after=after)
            try:
                export(bench, failing, evict=evict)
            except Died:
                export(bench, case.open(SMALL), evict=evict)
            assert case.held() == {
                **expected(*"bde", edition=edition),
                **expected("a", edition=f"later {edition}"),
            }
            assert bench.status.embedded == (0 if evict else 4)
            if failing.calls < steps:
                break
        assert steps > 6


@pytest.mark.parametrize("evict", [False, True])
def test_a_sink_that_is_away_is_waited_for(
    bench: Bench, case: Case, evict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.export.follow.AWAY_SECONDS", 0.0)
    options = Options(evict, follow=True, until_done=True)
    for after in (False, True):
        for step in range(7, 12):  # the first ones are at its start
            edition = f"{after} {step}"
            feed(bench, *"abcde", edition=edition)
            away = Failing(case.open(SMALL), step, lambda: SinkAway("it is away"), after=after)
            export(bench, away, options=options)
            assert case.held() == expected(*"abcde", edition=edition)
            assert away.calls > step


def test_a_sink_that_is_away_ends_an_export_that_does_not_follow(bench: Bench, case: Case) -> None:
    feed(bench, "a")
    for step in range(1, 8):
        with pytest.raises(SinkAway, match="it is away"):
            away = Failing(case.open(), step, lambda: SinkAway("it is away"), after=False)
            export(bench, away)
    export(bench, case.open())
    assert case.held() == expected("a")


def test_only_one_export_at_a_time_writes_to_a_sink(bench: Bench, case: Case) -> None:
    feed(bench, "a")
    first = case.open()
    with first.locked(), pytest.raises(ExportError, match="another vec export writes wiki to"):
        export(bench, case.open())
    export(bench, case.open())


def test_another_layout_is_refused_with_a_line(bench: Bench, case: Case) -> None:
    feed(bench, "a")
    export(bench, case.open())
    sink = case.open()
    with (
        sink.locked(),
        pytest.raises(ExportError, match="of wiki as float32 .* as int8 .* now") as refused,
    ):
        born = bench.collection.reader.born()
        sink.accept(born, Layout("m", None, "int8"))
    assert "\n" not in str(refused.value)


def test_another_life_of_the_collection_is_noticed(
    bench: Bench, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    feed(bench, *"ab", edition="first")
    export(bench, case.open())
    bench.collection.drop()
    feed(bench, *"bc", edition="second")
    try:
        export(bench, case.open())
    except ExportError as error:
        assert "holds an earlier life of wiki" in str(error)
        assert case.held() == expected(*"ab", edition="first"), "they are not mixed"
    else:
        assert "holds an earlier life of wiki" in caplog.text


@pytest.mark.parametrize("evict", [False, True])
def test_a_redis_that_went_back_in_time_is_exported_from_there(
    bench: Bench, case: Case, evict: bool, redis_client: redis.Redis
) -> None:
    feed(bench, *"abc")
    export(bench, case.open(), evict=evict)
    backup = {key: redis_client.dump(key) or b"" for key in redis_client.keys("*")}
    feed(bench, *"bd", edition="lost")
    bench.collection.delete(["a"])
    export(bench, case.open(), evict=evict)
    assert case.held() == {**expected("c"), **expected(*"bd", edition="lost")}

    redis_client.flushall()
    for key, value in backup.items():
        redis_client.restore(key, 0, value)
    feed(bench, *"de", edition="new")
    export(bench, case.open(), evict=evict)

    held = case.held()
    assert {id: held[id] for id in "cde"} == {**expected("c"), **expected(*"de", edition="new")}
    bench.add(("a", "text a"), ("b", "text b"))
    bench.embed_all()
    export(bench, case.open(), evict=evict)
    assert case.held() == {**expected(*"abc"), **expected(*"de", edition="new")}


def test_positions_and_holds_say_what_is_there(bench: Bench, case: Case) -> None:
    feed(bench, *"abc")
    export(bench, case.open(SMALL))
    stored = bench.collection.reader.finished(0, 10)
    sink = case.open()
    with sink.locked():
        positions = list(sink.positions())
        assert [position.id for position in positions] == [record.id for record in stored]
        assert [position.number for position in positions] == [record.number for record in stored]
        other = positions[1]._replace(digest=text_digest("another"))
        later = positions[2]._replace(number=99)
        assert sink.holds([positions[0], other, later]) == [True, False, False]
        assert sink.holds(positions) == [True, True, True]
        assert sink.watermarks()[:2] == (stored[-1].number, 0)
        assert list(sink.tombstones(0)) == []


def test_a_sink_follows_what_comes_while_it_runs(bench: Bench, case: Case) -> None:
    feed(bench, "a")
    ended: list[bool] = []
    run = SinkExport(
        case.open(SMALL),
        bench.settings,
        Options(follow=True),
        stop=lambda: bool(ended),
        tell=lambda read: None,
    )
    editions = iter("123")
    for _ in run.run():
        edition = next(editions, None)
        if edition is None:
            ended.append(True)
        else:
            feed(bench, "a", "b", edition=edition)
    wait_until(lambda: case.held() == expected("a", "b", edition="3"), 5, "the last edition")


def test_tombstones_that_redis_forgets_while_they_are_read_are_found_by_comparing(
    bench: Bench, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(bench, *"abcdef")
    export(bench, case.open())
    bench.collection.delete(["a", "b"])
    few = Removal(bench.redis, bench.collection.keys, tombstones=1)
    read, later = Reader.tombstones, iter([["c", "d"], ["e"]])

    def read_late(reader: Reader, after: int) -> Iterator[Position]:
        for ids in later:  # Redis keeps the last one alone
            few.delete(ids)
        return read(reader, after)

    monkeypatch.setattr(Reader, "tombstones", read_late)
    export(bench, case.open())
    assert case.held() == expected("f")


def test_a_redis_that_went_back_behind_more_deletions_than_a_sink_remembers(
    bench: Bench, case: Case, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.export.recovery.TOMBSTONES", 2)
    feed(bench, *"abcdef")
    export(bench, case.open())
    backup = {key: redis_client.dump(key) or b"" for key in redis_client.keys("*")}
    bench.collection.delete([*"abcd"])
    export(bench, case.open())
    redis_client.flushall()
    for key, value in backup.items():
        redis_client.restore(key, 0, value)
    sink = case.open()
    if not isinstance(sink, Folder):  # which remembers all
        remembered = sink.tombstones
        monkeypatch.setattr(sink, "tombstones", lambda above: iter([*remembered(above)][-2:]))
    export(bench, sink)
    assert case.held() == expected(*"abcdef")


def test_a_sink_waits_for_a_collection_and_is_finished_whenever_nothing_is_queued(
    bench: Bench, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []
    looks = iter(["", "", "feed", "", "", "drop", "", ""])

    def look(read: int) -> None:
        what = next(looks, "end")
        if what == "feed":
            feed(bench, "a")
        elif what == "drop":
            bench.collection.drop()
        elif what == "end":
            ended.append(True)

    sink = case.open(Rotation(seconds=0.0))
    finished: list[int] = []  # vectors then
    monkeypatch.setattr(sink, "finish", lambda: finished.append(len(case.held())))
    options = Options(follow=True)
    run = SinkExport(sink, bench.settings, options, stop=lambda: bool(ended), tell=look)
    assert sum(published.vectors for published in run.run()) == 1
    assert case.held() == expected("a")
    assert (finished[0], finished[-1]) == (0, 1)
