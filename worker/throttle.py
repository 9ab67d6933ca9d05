"""The throttle: may I send now? One answer for the whole fleet, kept in Redis, on Redis' clock.

There is one throttle per endpoint, key and model. It knows a halt (until somebody resumes), a pause
(a 429, or failures in a row), the canary that goes first after a pause, and how many requests are
in flight. The decisions are `admit.lua` and `report.lua`; here is only how to ask.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import NamedTuple

from .connection import Argument, Redis, connect, run
from .settings import Settings

FLIGHT_SECONDS = 15  # a request that is not renewed for so long has lost its sender


class Permit(NamedTuple):
    """One request may be sent now. `failures`: how many failed in a row before it."""

    id: str
    admitted_at: int  # ms, Redis' clock
    failures: int


class Wait(NamedTuple):
    """Nothing may be sent for so many seconds."""

    seconds: float
    reason: str


class Halt(NamedTuple):
    """Nothing may be sent until somebody resumes."""

    reason: str


class Throttle:
    """The fleet's throttle for one endpoint, key and model."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.name = throttle_name(settings.base_url, settings.api_key or "", model)
        self._settings = settings
        self._keys = _keys(settings.prefix, self.name)

    @property
    def _redis(self) -> Redis:
        return connect(self._settings)

    def ask(self) -> Permit | Wait | Halt:
        """Ask to send one request; a Permit must be reported on."""
        permit = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        args: list[Argument] = [permit, self._settings.max_in_flight, FLIGHT_SECONDS * 1000]
        verdict, number, text = run(self._redis, "admit", self._keys, args)
        if verdict == b"go":
            return Permit(permit, number, text)
        if verdict == b"wait":
            return Wait(number / 1000, text.decode())
        return Halt(text.decode())

    def renew(self, permit: Permit) -> None:
        """Keep a permit's place for FLIGHT_SECONDS more; a sender that died loses it so."""
        now, _ = self._redis.time()
        self._redis.zadd(self._keys[1], {permit.id: (now + FLIGHT_SECONDS) * 1000}, xx=True)

    def passed(self, permit: Permit) -> None:
        """The API answered with vectors, or refused the texts: it is well."""
        self._report(permit, "passed")

    def deferred(self, permit: Permit, retry_after: float | None, reason: str) -> None:
        """The API said 429; `retry_after` in seconds where it named a time."""
        self._report(permit, "deferred", retry_after, reason)

    def failed(self, permit: Permit, reason: str) -> None:
        """The API failed (5xx, no connection, no sensible answer)."""
        self._report(permit, "failed", None, reason)

    def unused(self, permit: Permit) -> None:
        """There was nothing to send."""
        self._report(permit, "unused")

    def halted(self, permit: Permit, reason: str) -> None:
        """The API refuses the account: nobody sends until somebody resumes."""
        self._report(permit, "halted", None, reason)

    def _report(
        self, permit: Permit, outcome: str, asked: float | None = None, reason: str = ""
    ) -> None:
        wait = "" if asked is None else max(0, round(asked * 1000))
        args: list[Argument] = [permit.id, permit.admitted_at, outcome, wait, reason]
        # A report that is lost keeps its place for FLIGHT_SECONDS, and the answer it is about is
        # lost too: a Redis that is back within seconds still gets it.
        run(self._redis, "report", self._keys, args, resends=5)


def throttle_name(base_url: str, api_key: str, model: str) -> str:
    """A name that tells endpoint, key and model apart and gives none of them away."""
    digest = hashlib.blake2b(key=b"vector-embed throttle", digest_size=8)
    digest.update(f"{base_url}\0{api_key}\0{model}".encode())
    return digest.hexdigest()


def read_throttle(client: Redis, prefix: str, name: str) -> tuple[str, str | None, float | None]:
    """`running`, `paused` or `halted`; the reason; the Unix time in seconds when a pause ends."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hmget(_keys(prefix, name)[0], ["halted", "paused_until", "reason"])
    pipeline.time()
    (halted, until, reason), (seconds_now, micros) = pipeline.execute()
    if halted is not None:
        return "halted", halted.decode(), None
    seconds = float(until) / 1000 if until is not None else 0.0
    if seconds > seconds_now + micros / 1e6:
        return "paused", reason.decode() if reason else None, seconds
    return "running", None, None


def resume(client: Redis, prefix: str, name: str) -> bool:
    """End a halt or a pause; whether there was one. What follows is one request first."""
    state = read_throttle(client, prefix, name)[0]
    key = _keys(prefix, name)[0]
    seconds, micros = client.time()
    pipeline = client.pipeline(transaction=True)
    pipeline.hset(key, "resumed_at", str(seconds * 1000 + micros // 1000))
    pipeline.hdel(key, "halted", "paused_until", "reason", "strikes", "failures")
    pipeline.hset(key, "canary", "1")
    pipeline.execute()
    return state != "running"


def _keys(prefix: str, name: str) -> list[str]:
    return [f"{prefix}:throttle:{{{name}}}", f"{prefix}:throttle:{{{name}}}:flights"]
