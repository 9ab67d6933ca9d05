"""The throttle: may one request be sent now? One answer for the whole fleet, on the clock of Redis.

There is one throttle per endpoint and API key. It knows a halt, a pause, the canary that goes first
after a pause, the rate that the API allows, and what is left of its quota. Failures in a row are
counted per model under that key, so a model that the API does not know stops no other. Requests in
flight are counted per endpoint, under all keys. `policy.lua` decides; this module only asks it.
docs/throttle.md describes the model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import redis

from ..logs import skip
from ..settings import Settings
from ..store.connection import Argument, Redis, connect, run
from ..store.keys import CommonKeys, throttle_keys
from ..store.nodes import time_of
from ..types import Rate, ThrottleStatus

FLIGHT_SECONDS = 15  # the sender of a request that is not renewed for this long is dead
_ANSWERED = 10**15  # above any time in ms: see admit.lua
_YEAR = 365 * 86_400.0
_FOREVER = 10 * 365 * 86_400_000  # ms


class Permit(NamedTuple):
    """One request of at most `most` texts may be sent now.

    `failures`: requests that failed in a row before. `first`: nothing has passed yet.
    """

    id: str
    admitted_at: int  # ms, Redis' clock
    failures: int
    most: int = 100
    first: int = 0  # or 1


class Wait(NamedTuple):
    """Nothing may be sent for this many seconds.

    `full`: all request slots are taken; ask again as soon as one is free.
    """

    seconds: float
    reason: str
    full: bool = False


class Halt(NamedTuple):
    """Nothing may be sent until a person resumes."""

    reason: str


class Throttle:
    """The fleet's throttle for one endpoint and key, for requests to one model.

    `urgent`: someone waits for them. They go before those that are not.
    """

    def __init__(self, settings: Settings, model: str, *, urgent: bool = False) -> None:
        self.name = throttle_name(settings.base_url, settings.api_key or "")
        self.settings = settings
        self.model = model
        self._keys = throttle_keys(settings.prefix, self.name, model)
        self._urgent = urgent

    @property
    def _redis(self) -> Redis:
        return connect(self.settings)

    def ask(self) -> Permit | Wait | Halt:
        """Ask to send one request. A Permit must be reported on."""
        permit = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        args: list[Argument] = [permit, self.settings.max_in_flight, FLIGHT_SECONDS * 1000]
        rate = self.settings.rate
        args += ["", ""] if rate is None else [rate.per_second, rate.of]
        args += [_ANSWERED, "1" if self._urgent else ""]
        verdict, number, *rest = run(self._redis, "throttle/admit", self._keys, args)
        if verdict == b"go":
            return Permit(permit, number, *rest)
        if verdict in (b"wait", b"full"):
            return Wait(number / 1000, rest[0].decode(), verdict == b"full")
        return Halt(rest[0].decode())

    def renew(self, permit: Permit) -> None:
        """Keep a permit's request slot for FLIGHT_SECONDS more. A dead sender loses it."""
        now, _ = time_of(self._redis, self._keys.flights)
        ends = (now + FLIGHT_SECONDS) * 1000
        self._redis.zadd(self._keys.flights, {permit.id: ends}, xx=True, gt=True)

    def answered(self, permit: Permit) -> None:
        """Free the request slot: the whole answer is here. The outcome is reported later."""
        with suppress(redis.RedisError):  # then the report frees the slot
            args: list[Argument] = [permit.id, FLIGHT_SECONDS * 1000, _ANSWERED]
            run(self._redis, "throttle/answered", [self._keys.flights], args)

    def passed(self, permit: Permit, texts: int = 100, uncached: int = 0) -> None:
        """Report that the API answered with vectors."""
        facts = self._unneeded(permit, texts)
        facts["timeout_ms"] = self.settings.timeout * 1000
        self._report(permit, "passed", None, "", texts=texts, uncached=uncached, **facts)

    def refused(self, permit: Permit, texts: int) -> None:
        """Report that the API refused the texts, or refuses everything."""
        facts = self._unneeded(permit, texts)
        self._report(permit, "passed", None, "", texts=texts, refused=1, **facts)

    def deferred(
        self,
        permit: Permit,
        retry_after: float | None,
        reason: str,
        texts: int = 100,
        *,
        unavailable: bool = False,
    ) -> None:
        """Report a 429. `retry_after`: the seconds that it named, or None.

        `unavailable`: it was a 503 that named a time. That says nothing of a limit.
        """
        quota = None if unavailable else read_quota(reason)
        facts = {"unavailable": 1.0} if unavailable else {}
        if quota is not None:
            facts["quota"] = 1
            if quota.limit is not None:
                facts["quota_limit"] = quota.limit
            if quota.resets_at is not None:
                facts["resets_at"] = quota.resets_at * 1000
        self._report(permit, "deferred", retry_after, reason, texts=texts, **facts)

    def failed(
        self,
        permit: Permit,
        reason: str,
        texts: int = 100,
        *,
        charged: bool = False,
        timeout: bool = False,
        reused: bool = False,
    ) -> None:
        """Report a failure: 5xx, no connection, or an answer that makes no sense.

        `charged`: the texts were charged. `reused`: the connection had served a request before.
        """
        said = {"charged": charged, "timeout": timeout, "reused": reused}
        facts = {name: 1.0 for name, is_so in said.items() if is_so}
        self._report(permit, "failed", None, reason, texts=texts, **facts)

    def unused(self, permit: Permit) -> None:
        """Report that there was nothing to send."""
        self._report(permit, "unused", None, "", texts=0, **self._unneeded(permit, 0))

    def halted(self, permit: Permit, reason: str, *, of_key: bool = False) -> None:
        """Report that the API refuses everything for the model: a halt, until a person resumes.

        `of_key`: it refuses the key, with any model.
        """
        facts = {"of_key": 1.0} if of_key else {}
        self._report(permit, "halted", None, reason, **facts)

    def _unneeded(self, permit: Permit, texts: int) -> dict[str, float]:
        """The ms of the configured rate that the permit took and did not use."""
        rate = self.settings.rate
        if rate is None or (rate.of == "requests" and texts):
            return {}
        unused = permit.most - texts if rate.of == "texts" else 1
        return {"give_back": round(unused * 1000 / rate.per_second, 3)}

    def _report(
        self,
        permit: Permit,
        outcome: str,
        asked: float | None = None,
        reason: str = "",
        **facts: float,
    ) -> None:
        # More than a year is a year: policy.lua says what is believed.
        wait = "" if asked is None else round(min(max(0.0, asked), _YEAR) * 1000)
        args: list[Argument] = [permit.id, permit.admitted_at, outcome, wait, reason]
        args.append(self.settings.max_in_flight)
        for name, number in facts.items():
            args += [name, number]
        # Without its report a request keeps its slot for FLIGHT_SECONDS, and its outcome is not
        # known. So the report is sent again: Redis may be back within seconds.
        run(self._redis, "throttle/report", self._keys, args, resends=5)


class Quota(NamedTuple):
    """What a 429 says of a quota. `resets_at`: Unix seconds; often the last reset."""

    limit: int | None
    resets_at: float | None


def read_quota(said: str) -> Quota | None:
    """Read the quota from the text of a 429; None if it speaks of requests only."""
    limit = re.search(r"([0-9][0-9_,.]*)\s*(?:texts?\s*)?(?:/|per|a)\s*(?:day|month)\b", said, re.I)
    resets = re.search(r"resets?\b\D{0,12}(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?", said, re.I)
    if limit is None and resets is None and not re.search(r"\bquota\b|\bdaily\b", said, re.I):
        return None
    at = None
    if resets is not None:
        try:
            at = datetime.fromisoformat(
                f"{resets[1]}T{resets[2]}{resets[3] or ':00'}+00:00"
            ).timestamp()
        except ValueError:
            at = None
    return Quota(int(re.sub(r"\D", "", limit[1])) if limit else None, at)


def throttle_name(base_url: str, api_key: str) -> str:
    """Name the throttle of endpoint and key: `<endpoint>-<fingerprint>`, which shows neither."""
    endpoint = _digest(base_url, size=4)
    return f"{endpoint}-{_digest(base_url, api_key, size=6)}"


def _digest(*parts: str, size: int) -> str:
    keyed = hashlib.blake2b(key=b"vector-embed throttle", digest_size=size)
    keyed.update("\0".join(parts).encode())
    return keyed.hexdigest()


def read_throttle(
    client: Redis, prefix: str, name: str, model: str | None = None
) -> ThrottleStatus:
    """Read the throttle as it is now. It needs no API key."""
    return read_throttles(client, prefix, [name], model)[name]


def read_throttles(
    client: Redis, prefix: str, names: Sequence[str], model: str | None = None
) -> dict[str, ThrottleStatus]:
    """Read the throttles of these names as they are now."""
    if not names:
        return {}
    pipeline = client.pipeline(transaction=False)
    for name in names:
        keys = throttle_keys(prefix, name, model or "")
        for key in keys[:3]:
            pipeline.hgetall(key)
        pipeline.zrange(keys.flights, 0, -1, withscores=True)
    replies = pipeline.execute()
    # Not in the pipeline: on a cluster it has no place there.
    seconds, micros = time_of(client, keys.key)
    now = seconds + micros / 1e6
    return {
        name: _read_status(name, now, *some) for name, *some in zip(names, *[iter(replies)] * 4)
    }


def _read_status(
    name: str,
    now: float,
    of_key: Mapping[bytes, bytes],
    of_model: Mapping[bytes, bytes],
    of_endpoint: Mapping[bytes, bytes],
    permits: Sequence[tuple[bytes, float]],
) -> ThrottleStatus:
    said = _decoded(of_key)

    def number(field: str) -> float | None:
        return float(said[field]) if said.get(field) else None

    def whole(field: str) -> int | None:
        return int(float(said[field])) if said.get(field) else None

    state, reason, until = _state(said, now)
    if state == "running":
        state, reason, until = _state(_decoded(of_model), now)
    resets_at = number("quota_resets_at")
    configured = None
    for of in ("requests", "texts"):
        most = number(f"set_{of}")
        configured = configured if most is None else Rate(most, of)
    return ThrottleStatus(
        state=state,
        reason=reason,
        paused_until=until,
        rate=number("rate"),
        learned_limit=number("limit"),
        in_flight=sum(1 for _, end in permits if now * 1000 < end < _ANSWERED),
        in_flight_ceiling=int(of_endpoint.get(b"ceiling", 0)) or whole("most"),
        quota_limit=whole("quota_limit"),
        quota_used=(whole("charged") or 0) if whole("day") == int(now // 86_400) else 0,
        quota_resets_at=resets_at / 1000 if resets_at and resets_at > now * 1000 else None,
        configured=configured,
        name=name,
        pause_seconds=None if until is None else until - now,
    )


def _decoded(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    # What is not UTF-8 is not ours, and names no field that is read.
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in fields.items()
    }


def _state(said: Mapping[str, str], now: float) -> tuple[str, str | None, float | None]:
    """The state of a key or a model, its reason, and the end of a pause."""
    paused_until = float(said.get("paused_until", 0)) / 1000
    paused_at = float(said.get("paused_at", 0)) / 1000
    if "halted" in said:
        return "halted", said["halted"], None
    if "held" in said:
        return "paused", said["held"], None
    # A pause told in the future: the clock was set back. The next worker that asks puts it right.
    if paused_until > now >= paused_at - 1:
        return "paused", said.get("reason") or None, paused_until
    return "running", None, None


def pause(client: Redis, prefix: str, name: str, reason: str = "paused by hand") -> None:
    """Pause until a person resumes. Requests in flight are finished."""
    key = throttle_keys(prefix, name).key
    seconds, micros = time_of(client, key)
    now = seconds * 1000 + micros // 1000
    pipeline = client.pipeline(transaction=True)
    pipeline.hset(key, "held", reason)
    # Workers that do not know `held` obey this.
    pipeline.hset(key, "paused_until", str(now + _FOREVER))
    pipeline.hset(key, "paused_at", str(now))
    pipeline.hset(key, "reason", reason)
    pipeline.execute()


def resume(client: Redis, prefix: str, name: str, models: Iterable[str] = ()) -> bool:
    """End a halt or a pause of the key and of `models` under it. Returns whether there was one.

    One request goes first afterwards.
    """
    models = list(models)
    states = {read_throttle(client, prefix, name, model).state for model in [*models, None]}
    if states == {"running"}:
        return False
    key = throttle_keys(prefix, name).key
    seconds, micros = time_of(client, key)
    pipeline = client.pipeline(transaction=True)
    pipeline.hset(key, "resumed_at", str(seconds * 1000 + micros // 1000))
    pipeline.hdel(key, "halted", "held", "paused_until", "reason", "strikes", "failures")
    pipeline.hdel(key, "failing", "episode", "probe", "size", "certain", "parked")
    pipeline.hdel(key, "refused_size", "passed_size", "quota_resets_at", "begun", "disbelieved")
    pipeline.hset(key, "canary", "1")
    for model in models:
        pipeline.delete(throttle_keys(prefix, name, model).model)
    pipeline.execute()
    return True


class Known(NamedTuple):
    """A throttle that a worker announced."""

    endpoint: str  # the address of the API, without what may be secret in it
    seen: float  # Unix seconds, when one last did


def announce_throttles(client: Redis, prefix: str, endpoints: Mapping[str, str]) -> None:
    """Announce that a worker uses these throttles, for readers that have no API key.

    `endpoints`: the address of the API by the name of the throttle.
    """
    seconds, _ = time_of(client, CommonKeys(prefix).throttles)
    pipeline = client.pipeline(transaction=False)
    for name, base_url in endpoints.items():
        parts = urlsplit(base_url)
        place = parts.netloc.rpartition("@")[2]
        known = Known(f"{parts.scheme}://{place}{parts.path}", seconds)
        pipeline.hset(CommonKeys(prefix).throttles, name, json.dumps(known))
    pipeline.execute()


def known_throttles(client: Redis, prefix: str) -> dict[str, Known]:
    """Read all throttles that were ever announced, by name."""
    found: dict[str, Known] = {}
    for name, said in sorted(client.hgetall(CommonKeys(prefix).throttles).items()):
        try:
            endpoint, seen = json.loads(said)
            found[name.decode("ascii")] = Known(str(endpoint), float(seen))
        except (ValueError, TypeError, RecursionError):
            skip("member of throttles", name)
    return found
