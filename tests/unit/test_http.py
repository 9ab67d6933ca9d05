"""The wire's pure functions: texts, JSON, headers, delays, Retry-After at a frozen clock."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vector_embed_client.echoes import Sent
from vector_embed_client.http import (
    MAX_TEXT_LENGTH,
    RETRY_CONFIG,
    BadAnswer,
    build_headers,
    calculate_delay,
    checked_key,
    decode,
    encode,
    map_status_to_error,
    retry_after_seconds,
    text_bytes,
    text_fault,
)

# Sun, 06 Nov 1994 08:49:37 GMT, the moment of RFC 9110's examples.
NOW = 784111777.0

RETRY_AFTER: list[tuple[str, float | None, int | None]] = [
    ("0", 0.0, 0),
    ("7", 7.0, 7),
    (" 7 ", 7.0, 7),
    ("0.2", 0.2, 1),
    ("59.001", 59.001, 60),
    ("86400", 86400.0, 86400),
    ("9" * 400, 1e9, 10**9),
    ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0, 10),
    ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0, 10),
    ("Sun Nov  6 08:49:47 1994", 10.0, 10),
    ("Sun, 06 Nov 1994 09:49:47 +0100", 10.0, 10),
    ("Sun, 06 Nov 1994 08:49:17 GMT", 0.0, 0),
    ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9, 10**9),
    ("", None, None),
    ("-1", None, None),
    ("+1", None, None),
    ("1e3", None, None),
    ("nan", None, None),
    ("inf", None, None),
    ("٣", None, None),
    ("soon", None, None),
    ("Sun, 99 Nov 1994 99:99:99 GMT", None, None),
]


@pytest.mark.parametrize("value, seconds, whole", RETRY_AFTER)
def test_retry_after_is_read_in_all_its_forms(
    value: str, seconds: float | None, whole: int | None
) -> None:
    found = retry_after_seconds({"retry-after": value}, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))
    error = map_status_to_error(429, {}, {"Retry-After": value}, now=NOW)
    assert error.retry_after == whole
    assert whole is None or type(error.retry_after) is int


def test_a_fraction_of_a_second_before_a_date_is_rounded_up() -> None:
    date = {"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT"}
    assert map_status_to_error(429, {}, date, now=NOW - 0.25).retry_after == 11


def test_a_date_is_counted_from_the_answers_own_date() -> None:
    fields = {
        "retry-after": "Sun, 06 Nov 1994 08:49:47 GMT",
        "date": "Sun, 06 Nov 1994 08:49:40 GMT",
    }
    assert retry_after_seconds(fields, NOW + 5000) == 7.0


@given(st.text())
def test_no_retry_after_breaks_the_reading(value: str) -> None:
    found = retry_after_seconds({"retry-after": value}, NOW)
    assert found is None or 0 <= found <= 1e9


@pytest.mark.parametrize(
    "attempt, middle", [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0), (5, 30.0), (5000, 30.0)]
)
def test_delays_double_up_to_thirty_seconds_give_or_take_a_fifth(
    attempt: int, middle: float
) -> None:
    delays = [calculate_delay(attempt) for _ in range(300)]
    assert middle * 0.8 <= min(delays) < middle * 0.85
    assert middle * 1.15 < max(delays) <= middle * 1.2


def test_the_retried_statuses_are_those_that_may_pass() -> None:
    assert RETRY_CONFIG["retryable_statuses"] == [408, 429, 500, 502, 503, 504]


@pytest.mark.parametrize(
    "text, fault",
    [
        ("a", None),
        ("a" * MAX_TEXT_LENGTH, None),
        ("\U0001f600" * MAX_TEXT_LENGTH, None),
        ("", "empty"),
        ("\u2003\n ", "white space only"),
        ("a" * (MAX_TEXT_LENGTH + 1), "10,001 characters, more than 10,000"),
        ("ab\udc00", "an unpaired surrogate at character 2"),
        (None, "not a string but NoneType"),
        (b"a", "not a string but bytes"),
    ],
)
def test_a_text_has_a_fault_or_none(text: object, fault: str | None) -> None:
    assert text_fault(text) == fault


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_text_bytes_are_what_a_text_takes_in_the_body(texts: list[str]) -> None:
    empty = len(encode({"texts": []}))
    assert len(encode({"texts": texts})) == empty + sum(map(text_bytes, texts)) - 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_both_encoders_write_a_text_alike(text: str) -> None:
    assert encode([text]) == json.dumps([text], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[NaN]", b"[-Infinity]", b"\xff", b"[" * 200_000, b'"a', b"[1,]"]
)
def test_what_is_not_json_is_a_bad_answer(content: bytes) -> None:
    with pytest.raises(BadAnswer):
        decode(content)


def test_headers_name_the_client_and_hide_the_key() -> None:
    headers = build_headers("vec_secret")
    python = f"python/{sys.version_info.major}.{sys.version_info.minor}"
    assert headers == {
        "Authorization": "Bearer vec_secret",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": f"vector-embed-cache-client/0.1.0 {python}",
    }
    assert "vec_secret" not in repr(headers)
    assert "Authorization" not in build_headers(None)


@pytest.mark.parametrize(
    "name", ["X-Request-Id", "x-request-id", "Request-Id", "X-Correlation-Id", "CF-Ray"]
)
def test_a_request_id_goes_by_several_names(name: str) -> None:
    assert map_status_to_error(500, "", {name: "abc-1"}).request_id == "abc-1"


def test_a_key_is_stripped() -> None:
    assert checked_key("  vec_a\r\n") == "vec_a"


@given(
    st.integers(300, 599),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(["detail", "error", "message", "loc", "msg"]), children, max_size=3
            )
        ),
    ),
)
def test_any_body_makes_an_error(status: int, body: object) -> None:
    error = map_status_to_error(status, body, {}, sent=Sent("vec_key", ["some text"]))
    assert error.status == status
    assert str(error)
    assert len(error.body) <= 300


@example(text="sixteen letters_  it", around="x")
@example(text="xf0 of some text and more", around="\\")
@given(st.text(min_size=20, alphabet=st.characters(exclude_categories=["Cs"])), st.text())
def test_no_body_shows_a_text_that_was_sent(text: str, around: str) -> None:
    body = {"detail": f"{around}{text}{around}"}
    error = map_status_to_error(400, body, {}, sent=Sent("vec_key", [text]))
    shown = text.strip()
    if sum(map(str.isalnum, text.casefold())) >= 16 and shown not in around:
        assert shown not in str(error)
        assert shown not in error.body
