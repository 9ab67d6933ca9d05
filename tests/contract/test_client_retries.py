"""When a call is tried again, how long it waits, and when it gives up."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate

import pytest

from vector_embed_client import (
    NetworkError,
    RateLimitError,
    ServerError,
    VectorEmbedError,
    no_waiting,
)

from .loopback import (
    Caller,
    Reply,
    Server,
    as_the_api,
    bytes_of,
    hang_up,
    reply,
    reset,
    silence,
    truncated,
)

PASSING: list[Reply] = [
    *(reply(status, {"detail": "later"}) for status in (408, 429, 500, 502, 503, 504)),
    reset,
    hang_up,
    truncated(b'{"embedding": [1.0'),
    reply(200, b"<html>the proxy is tired</html>"),
    reply(200, {"embedding": [1.0], "cached": False, "dimensions": 2}),
    bytes_of(b"SMTP ready\r\n"),
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_may_pass_is_tried_again(caller: Caller, server: Server, fault: Reply) -> None:
    server.plan(fault, fault)
    with no_waiting() as waits:
        caller.call("embed", "a")
    assert len(server.requests) == 3
    assert 0.8 <= waits[0] <= 1.2
    assert 1.6 <= waits[1] <= 2.4


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 405, 413, 422, 501])
def test_a_fault_that_stays_is_not_tried_again(caller: Caller, server: Server, status: int) -> None:
    server.plan(reply(status, {"detail": "no"}))
    assert caller.fails("embed", "a").status == status
    assert len(server.requests) == 1


def test_a_timeout_is_tried_again(caller: Caller, server: Server) -> None:
    server.plan(silence)
    with no_waiting() as waits:
        caller.call("embed", "a", timeout=0.2)
    assert len(waits) == 1


def test_the_last_error_is_raised_after_three_retries(caller: Caller, server: Server) -> None:
    server.plan(*[reply(500, b"")] * 3, reply(502, b""))
    with no_waiting() as waits:
        error = caller.fails("embed", "a")
    assert isinstance(error, ServerError)
    assert error.status == 502
    assert len(waits) == 3
    assert len(server.requests) == 4


@pytest.mark.parametrize("of_client, of_call, attempts", [(0, None, 1), (5, 0, 1), (0, 2, 3)])
def test_retries_of_a_call_stand_above_the_clients(
    caller: Caller, server: Server, of_client: int, of_call: int, attempts: int
) -> None:
    server.usual = reply(503, b"")
    caller.client(retries=of_client)
    with no_waiting():
        caller.fails("embed", "a", retries=of_call)
    assert len(server.requests) == attempts


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "value, wait, told", [("2", 2.0, 2), ("0.3", 0.3, 1), ("1.", 1.0, 1), ("60", 60.0, 60)]
)
def test_retry_after_is_waited_exactly(
    caller: Caller, server: Server, status: int, value: str, wait: float, told: int
) -> None:
    server.plan(*[reply(status, {"detail": "later"}, {"Retry-After": value})] * 2)
    with no_waiting() as waits:
        error = caller.fails("embed", "a", retries=1)
    assert waits == [wait]
    assert error.retry_after == told


def test_retry_after_is_never_cut_short(caller: Caller, server: Server) -> None:
    server.plan(reply(429, {"detail": "later"}, {"Retry-After": "0.3"}))
    caller.call("embed", "a")
    first, second = server.requests
    assert second.at - first.at >= 0.3


def test_a_date_in_retry_after_is_counted_from_the_answers_own(
    caller: Caller, server: Server
) -> None:
    # This server's clock is an hour slow.
    now = time.time() - 3600
    dates = {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now + 7, usegmt=True)}
    server.plan(reply(429, {"detail": "later"}, dates))
    with no_waiting() as waits:
        caller.call("embed", "a")
    assert waits == [7.0]


def test_a_date_without_one_to_count_from_is_counted_from_now(
    caller: Caller, server: Server
) -> None:
    date = {"Retry-After": formatdate(time.time() + 30, usegmt=True)}
    server.plan(reply(429, {"detail": "later"}, date))
    with no_waiting() as waits:
        caller.call("embed", "a")
    assert 20 < waits[0] <= 30


@pytest.mark.parametrize("value, told", [("61", 61), ("60.2", 61), ("86400", 86400)])
def test_a_long_wait_is_left_to_the_caller(
    caller: Caller, server: Server, value: str, told: int
) -> None:
    server.plan(reply(429, {"detail": "later"}, {"Retry-After": value}))
    with no_waiting() as waits:
        error = caller.fails("embed", "a")
    assert isinstance(error, RateLimitError)
    assert type(error.retry_after) is int
    assert error.retry_after == told
    assert waits == []


@pytest.mark.parametrize("value", ["", "soon", "-5", "0", "nan", "1e3", "Mon, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_leaves_the_usual_wait(
    caller: Caller, server: Server, value: str
) -> None:
    server.plan(reply(429, {"detail": "later"}, {"Retry-After": value}))
    with no_waiting() as waits:
        caller.call("embed", "a")
    assert 0.8 <= waits[0] <= 1.2


def test_a_deadline_ends_in_the_last_error_without_a_useless_wait(
    caller: Caller, server: Server
) -> None:
    server.usual = reply(503, {"detail": "later"}, {"Retry-After": "4"})
    with no_waiting() as waits:
        error = caller.fails("embed", "a", deadline=10, retries=9)
    assert error.status == 503
    assert waits == [4.0, 4.0]


def test_a_deadline_holds_over_a_silent_server(caller: Caller, server: Server) -> None:
    server.usual = silence
    began = time.monotonic()
    error = caller.fails("embed", "a", deadline=0.3)
    assert isinstance(error, NetworkError)
    assert error.code == "timeout"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", ["timeout", "deadline", "retries"])
@pytest.mark.parametrize("value", [-1, float("nan"), "3", None])
def test_a_senseless_budget_is_refused(
    caller: Caller, server: Server, name: str, value: object
) -> None:
    if value is None:
        caller.call("embed", "a", **{name: value})  # None is the client's own
        return
    with pytest.raises(ValueError, match=name):
        caller.call("embed", "a", **{name: value})
    assert server.requests == []


def test_retries_are_logged_for_debugging_and_errors_as_warnings(
    caller: Caller, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="vector_embed_client")
    server.plan(reply(503, {"detail": "later"}, {"Retry-After": "2"}), reset, as_the_api)
    with no_waiting():
        caller.call("embed", "a")
    ours = [(r.levelname, r.getMessage()) for r in caplog.records if r.name.startswith("vector")]
    assert ours[0] == ("WARNING", "Request failed with status 503: later")
    assert ours[1] == ("DEBUG", "Retry attempt 1/3 after 2.00s delay")
    assert ours[2][0] == "WARNING"
    assert ours[2][1].startswith("Request failed: connection failed: ReadError at http://127.0.0.1")
    assert ours[3][1].startswith("Retry attempt 2/3 after ")
    assert len(ours) == 4


def test_a_soft_time_limit_passes_through(
    caller: Caller, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SoftTimeLimit(Exception):
        pass

    def interrupted(seconds: float) -> None:
        raise SoftTimeLimit

    server.usual = reply(503, b"")
    caller.client()
    monkeypatch.setattr("time.sleep", interrupted)
    monkeypatch.setattr("asyncio.sleep", interrupted)
    with pytest.raises(SoftTimeLimit):
        caller.call("embed", "a")


def test_no_waiting_ends_with_its_block(caller: Caller, server: Server) -> None:
    with no_waiting() as outer, no_waiting() as inner:
        server.plan(reply(503, b""))
        caller.call("embed", "a")
    assert (len(outer), len(inner)) == (0, 1)
    server.plan(reply(503, b"", {"Retry-After": "0.2"}))
    began = time.monotonic()
    caller.call("embed", "a")
    assert time.monotonic() - began >= 0.2
    assert len(inner) == 1


def test_the_base_error_catches_them_all(caller: Caller, server: Server) -> None:
    server.plan(reset)
    with pytest.raises(VectorEmbedError):
        caller.call("embed", "a", retries=0)
