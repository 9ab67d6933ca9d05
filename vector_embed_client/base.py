"""What both clients share: a key, an address, defaults, and the decisions about one call.

Nothing here waits or sends.
"""

from __future__ import annotations

import logging
import os
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from . import http
from .calls import Call, T
from .echoes import Sent
from .errors import VectorEmbedError
from .http import Answer, Fault, Schedule
from .route import route_to

# What httpx raises for a request that gets no answer. It reads a redirect's address, too.
SEND_ERRORS = (httpx.RequestError, httpx.InvalidURL, UnicodeError)

logger = logging.getLogger("vector_embed_client")
logger.addHandler(logging.NullHandler())


def no_cookies() -> CookieJar:
    """A jar that accepts no cookie: the server's cookies would be sent with every later request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class Exchange(float):
    """The seconds that one exchange may take in all, and the moment when they are over.

    It is a float, so httpx takes it as a timeout. httpx and httpcore hand it on unchanged to
    `transport`, which applies the one limit to all steps together. Any other transport takes it as
    a number: the seconds for each step.

    reused: whether the connection had served a request before; False if that is not known.
    """

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.reused = False

    def left(self) -> float:
        """The seconds until the end, 0 or less after it."""
        return self.ends - time.monotonic()


class BaseClient:
    """The configuration of a client; see Client for the arguments."""

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        model: str,
        timeout: float,
        retries: int,
        is_own: bool,
    ) -> None:
        self._api_key = http.checked_key(api_key or os.environ.get("VECTOR_EMBED_API_KEY"))
        self._base_url = http.checked_base_url(
            base_url or os.environ.get("VECTOR_EMBED_BASE_URL", "").strip() or http.DEFAULT_BASE_URL
        )
        self._model = _name("model", model)
        self._timeout = _seconds("timeout", timeout)
        self._retries = _count("retries", retries, least=0)
        self._headers = http.build_headers(self._api_key)
        self._headers_without_key = http.build_headers(None)
        self._is_closed = False
        self._is_own = is_own
        self._process = os.getpid()
        # The environment does not apply to an http_client that was given.
        self._route = route_to(self._base_url) if is_own else None

    @property
    def api_key(self) -> str:
        """The key in use. Its repr is masked."""
        return self._api_key

    @property
    def base_url(self) -> str:
        """The address in use, without a final slash."""
        return self._base_url

    @property
    def model(self) -> str:
        """The model of calls that name no other."""
        return self._model

    @property
    def timeout(self) -> float:
        """Seconds for each attempt, in calls that name no other."""
        return self._timeout

    @property
    def retries(self) -> int:
        """How often a failed request is sent again, in calls that name no other."""
        return self._retries

    def __repr__(self) -> str:
        # Also for a half-built client: a traceback with locals shows one whose key was refused.
        base_url, model = (getattr(self, name, None) for name in ("_base_url", "_model"))
        return f"{type(self).__name__}(base_url={base_url!r}, model={model!r})"

    def _schedule(
        self, timeout: float | None, retries: int | None, deadline: float | None
    ) -> Schedule:
        return Schedule(
            timeout=self._timeout if timeout is None else _seconds("timeout", timeout),
            retries=self._retries if retries is None else _count("retries", retries, least=0),
            deadline=None if deadline is None else _seconds("deadline", deadline),
            now=time.monotonic(),
        )

    def _wanted(self, model: str | None) -> str:
        """The model of a call that names `model`, or none."""
        return self._model if model is None else _name("model", model)

    def _check_open(self) -> None:
        """Raise RuntimeError if this client, or its `http_client`, cannot be used here."""
        if self._is_closed:
            raise RuntimeError(f"this {type(self).__name__} is closed: make a new one")
        if not self._is_own and os.getpid() != self._process:
            raise RuntimeError(
                f"this {type(self).__name__} was given an http_client of another process: "
                "make both after the fork"
            )

    def _request(self, call: Call[T], exchange: Exchange) -> dict[str, Any]:
        """The arguments of httpx's `stream` for one attempt."""
        return {
            "method": call.method,
            "url": self._base_url + call.path,
            "content": call.body,
            "headers": self._headers if call.with_key else self._headers_without_key,
            "timeout": exchange,
            "auth": None,
            "follow_redirects": False,
        }

    def _settle(self, call: Call[T], answer: Answer | Fault) -> T | Fault:
        """The result of an answer, or the reason why there is none."""
        if isinstance(answer, Fault):
            return answer
        limit, sent = call.limit_of(answer.status), Sent(self._api_key, call.texts)
        if not 200 <= answer.status < 300:
            return http.refusal_fault(answer, limit, sent, time.time())
        if len(answer.content) > limit.size:
            said = f"the answer does not end: it is longer than {limit.size:,} bytes"
            return http.bad_answer_fault(said, answer, sent)
        if call.on_answer is not None:
            call.on_answer()
        try:
            http.check_shape(answer.content, limit)
            return call.read(answer.content)
        except http.BadAnswer as reason:
            return http.bad_answer_fault(str(reason), answer, sent)

    def _transport_fault(self, call: Call[T], error: Exception, exchange: Exchange) -> Fault:
        """The fault for one of SEND_ERRORS. It keeps nothing of `error`: that has the request."""
        if isinstance(error, httpx.TimeoutException):
            return http.timeout_fault(exchange, exchange.reused)
        if not isinstance(error, httpx.RequestError):
            said = "the address, or the one that the server redirects to, cannot be read"
            return Fault(VectorEmbedError(f"{said}: check base_url", "redirect"), retryable=False)
        kind = type(error).__name__
        proxy = None if self._route is None else self._route.proxy
        through = "" if proxy is None else f" through the proxy {proxy.url}"  # no password is in it
        address = ": ".join(filter(None, [f"{self._base_url}{through}", str(error)]))
        sent = Sent(self._api_key, call.texts)
        return http.connection_fault(f"{kind} at {address}", sent, exchange.reused)

    def _delay(self, fault: Fault, schedule: Schedule) -> float:
        """Seconds to wait before the next attempt. Logs the fault, and raises it if it is final."""
        error = fault.error
        if error.status is None:
            logger.warning("Request failed: %s", error)
        else:
            logger.warning("Request failed with status %d: %s", error.status, error)
        delay = schedule.delay(fault, time.monotonic())
        if delay is None:
            raise error
        logger.debug(
            "Retry attempt %d/%d after %.2fs delay", schedule.attempt, schedule.retries, delay
        )
        return http.to_wait(delay)


def count_in_flight(max_in_flight: int) -> int:
    """`max_in_flight` of embed_many, checked."""
    return min(_count("max_in_flight", max_in_flight, least=1), http.MAX_IN_FLIGHT)


def _seconds(name: str, value: float) -> float:
    """The argument `name`, checked. So are those of the next two functions."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value <= http.MAX_SECONDS):
        most = f"{http.MAX_SECONDS:,.0f}"
        raise _wrong(name, f"a number of seconds, above 0 and at most {most}", value)
    return float(value)


def _count(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(name, f"a whole number of at least {least}", value)
    return value


def _name(name: str, value: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(name, "a string with something in it", value)
    return value


def _wrong(name: str, what: str, value: object) -> ValueError:
    """The error for an argument. It shows the value on one short line."""
    try:
        shown = repr(value)
    except ValueError:  # a whole number of thousands of digits
        shown = type(value).__name__
    return ValueError(f"{name} must be {what}, not {' '.join(shown[:80].split())}")
