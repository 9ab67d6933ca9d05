"""The pace of a collection in words: its rate, its limits, the time left. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ..types import Status, ThrottleStatus
from . import figures


def speed(status: Status) -> str:
    """`512 texts/s, 13 min left`; empty if neither is known. A pause has no recent rate."""
    if status.state == "paused":
        return time_left(status) if quota_days(status) > 1 else ""
    parts = []
    if status.rate:
        parts.append(f"{per_second(status.rate, 'text')}")
    if status.backlog and (left := time_left(status)):
        parts.append(left)
    return ", ".join(parts)


def time_left(status: Status) -> str:
    """`13 min left`, or the days if the quota decides."""
    days = quota_days(status)
    if days > 1:
        return f"about {days:,} days left at {_quota(status)[0]:,} texts a day"
    seconds = status.seconds_left
    return "" if seconds is None else f"{figures.duration(seconds)} left"


def quota_days(status: Status) -> int:
    """How many days the quota needs for the backlog, with today; 0 if no quota is known."""
    limit, today = _quota(status)
    return 1 + math.ceil(max(0, status.backlog - today) / limit) if limit else 0


def _quota(status: Status) -> tuple[int, int]:
    """The texts a day of all keys that are not halted, and what is left of them today.

    0 if the quota of one of them is not known.
    """
    keys = [key for key in status.keys if key.state != "halted"]
    keys = keys or ([] if status.throttle is None else [status.throttle])
    limit = left = 0
    for key in keys:
        if not key.quota_limit:
            return 0, 0
        limit += key.quota_limit
        left += 0 if key.quota_resets_at else max(0, key.quota_limit - key.quota_used)
    return limit, left


def all_sending(status: Status) -> str:
    """How requests are sent with the only key, or with all of several; empty if not known."""
    if len(status.keys) > 1:
        return together(status.keys)
    return "" if status.throttle is None else sending(status.throttle)


def together(keys: Sequence[ThrottleStatus]) -> str:
    """`3 API keys: 2 running, 1 halted, 16.0 requests/s, 5 in flight`."""
    states = Counter(key.state for key in keys)
    parts = [
        f"{states[state]:,} {state}" for state in ("running", "paused", "halted") if states[state]
    ]
    rates = [key.rate for key in keys if key.state == "running"]
    if rates and None not in rates:
        parts.append(per_second(sum(rate or 0.0 for rate in rates), "request"))
    # They are counted by endpoint, under all its keys.
    in_flight = {key.name.partition("-")[0]: key.in_flight for key in keys}
    parts.append(f"{sum(in_flight.values()):,} in flight")
    return f"{figures.count(len(keys), 'API key')}: {', '.join(parts)}"


def of_key(key: ThrottleStatus) -> str:
    """`e4b1f2-77c0a1: running, 3.4 requests/s, ...`, or why nothing is sent with this key."""
    why = f": {figures.plain(key.reason).rstrip('.')}" if key.reason else ""
    if key.state == "running":
        said = ", ".join(filter(None, ["running", sending(key), quota(key)]))
    elif key.paused_until is not None:
        said = f"paused until {figures.clock(key.paused_until)}{why}"
    else:
        said = f"{key.state}{why}"
    return f"{key.name}: {said}"


def sending(throttle: ThrottleStatus) -> str:
    """`3.4 requests/s, limit learned 5.0 requests/s, 3 of 8 in flight`."""
    parts = []
    if throttle.rate is not None:
        parts.append(per_second(throttle.rate, "request"))
    elif throttle.configured is None:
        parts.append("as fast as the API answers")
    if throttle.configured is not None:
        most_set = per_second(throttle.configured.per_second, throttle.configured.of[:-1])
        parts.append(f"set to at most {most_set}")
    if throttle.learned_limit is not None:
        parts.append(f"limit learned {per_second(throttle.learned_limit, 'request')}")
    most = "" if throttle.in_flight_ceiling is None else f" of {throttle.in_flight_ceiling:,}"
    parts.append(f"{throttle.in_flight:,}{most} in flight")
    return ", ".join(parts)


def quota(throttle: ThrottleStatus) -> str:
    """`12,345 texts answered as new today, of at most 50,000`; empty if nothing is known.

    The API may charge failed texts too, and does not say so.
    """
    if not throttle.quota_used and throttle.quota_limit is None:
        return ""
    most = "" if throttle.quota_limit is None else f", of at most {throttle.quota_limit:,}"
    back = throttle.quota_resets_at
    tail = "" if back is None else f"; more were refused, back at {figures.clock(back)}"
    return f"{throttle.quota_used:,} texts answered as new today{most}{tail}"


def per_second(rate: float, noun: str) -> str:
    """`512 texts/s`, `3.4 requests/s`; per minute or hour if it is slower."""
    if rate >= 99.5:
        return f"{rate:,.0f} {noun}s/s"
    if rate >= 1:
        return f"{rate:.1f} {noun}s/s"
    if rate * 60 >= 1:
        return f"{rate * 60:.1f} {noun}s/min"
    return f"{rate * 3600:.1f} {noun}s/h"
