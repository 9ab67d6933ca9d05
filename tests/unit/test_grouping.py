"""Which calls go into Redis together, and what each learns from the letters of its group."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from worker.producer.calls import Call, ThreadWaiter, board
from worker.settings import Settings
from worker.store.calls import Jobs, Kind, shared
from worker.types import Added, Job

NOTHING = cast(Any, None)


def kind(collection: str = "wiki") -> Kind:
    return Kind(Settings(), collection, "m", None, None)


WIKI, NEWS = kind(), kind("news")


def call(of: Kind, *ids: str, length: int = 1) -> Call:
    jobs = Jobs([Job(id, "x" * length) for id in ids])
    return Call(of, jobs, NOTHING, NOTHING, None, ThreadWaiter())


def ids(calls: list[Call]) -> list[list[str]]:
    return [list(one.jobs.by_id) for one in calls]


def test_all_calls_of_a_kind_go_together_and_each_kind_by_itself() -> None:
    waiting = deque([call(WIKI, "a"), call(NEWS, "a"), call(WIKI, "b", "c")])
    groups = board(waiting)
    assert [group.kind for group in groups] == [WIKI, NEWS]
    assert ids(groups[0].calls) == [["a"], ["b", "c"]]
    assert not waiting


def test_a_call_with_an_id_of_the_group_waits_and_so_do_all_later_ones_of_its_kind() -> None:
    waiting = deque([call(WIKI, "a"), call(WIKI, "b", "a"), call(WIKI, "c"), call(NEWS, "a")])
    first, news = board(waiting)
    assert (ids(first.calls), ids(news.calls)) == ([["a"]], [["a"]])
    (second,) = board(waiting)
    assert ids(second.calls) == [["b", "a"], ["c"]]


def test_a_group_has_only_so_many_jobs_and_characters() -> None:
    waiting = deque([call(WIKI, "a", "b"), call(WIKI, "c", "d"), call(WIKI, "e")])
    assert ids(board(waiting, most=3)[0].calls) == [["a", "b"]]
    assert ids(board(waiting, most=3)[0].calls) == [["c", "d"], ["e"]]
    waiting = deque([call(WIKI, "a", length=60), call(WIKI, "b", length=60)])
    assert ids(board(waiting, room=100)[0].calls) == [["a"]]


def test_the_first_call_is_taken_however_large_it_is() -> None:
    waiting = deque([call(WIKI, "a", "b", length=60)])
    assert ids(board(waiting, most=1, room=1)[0].calls) == [["a", "b"]]


@given(
    st.lists(
        st.tuples(st.sampled_from([WIKI, NEWS]), st.lists(st.sampled_from("abcd"), min_size=1))
    )
)
def test_each_call_goes_once_in_its_order_and_no_group_has_an_id_twice(
    asked: list[tuple[Kind, list[str]]],
) -> None:
    calls = [call(of, *some) for of, some in asked]
    waiting, gone = deque(calls), []
    while waiting:
        for group in board(waiting, most=3):
            there = [id for one in group.calls for id in one.jobs.by_id]
            assert len(there) == len(set(there))
            assert all(one.kind is group.kind and one.group is group for one in group.calls)
            gone += group.calls
    for one_kind in (WIKI, NEWS):
        assert [c for c in gone if c.kind is one_kind] == [c for c in calls if c.kind is one_kind]


def test_each_call_gets_its_own_letters() -> None:
    one = Jobs([Job("a", "x"), Job("b", "x"), Job("a", "y")])
    two = Jobs([Job("c", "x"), Job("d", "x"), Job("e", "x")])
    assert shared(b"NUEDN", [one, two]) == [
        Added(new=1, unchanged=1, duplicates=1, dead=0),
        Added(new=1, unchanged=1, duplicates=0, dead=1, evicted=1),
    ]
    assert one.by_id["a"].text == "y"
