"""Admission: the API key that a request goes with is the first whose throttle lets it go now.

A process may have several keys, each with a throttle of its own. Whoever has a batch asks them in
an order until one says yes, and waits else until the earliest moment that any of them named. A key
that is halted, or paused for long, so takes only itself out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, Union

from ..settings import Settings
from ..settings.keyfile import each_key
from ..throttle import Halt, Permit, Throttle, Wait, throttle_name

BELIEVED_SECONDS = 1.0  # before a paused or halted key is asked again: a person may resume it

# The throttles of the keys that may be used now.
Throttles = Callable[[], Sequence[Throttle]]


class Admitted(NamedTuple):
    """One request may be sent now, with this key."""

    throttle: Throttle
    permit: Permit


Said = Union[Admitted, Wait, Halt]


def throttles_of(
    settings: Settings, model: str, *, urgent: bool = False, but: Collection[str] = ()
) -> list[Throttle]:
    """The throttles of all keys that are valid now, except those named in `but`."""
    every = (_throttle(one, model, urgent) for one in each_key(settings))
    return [one for one in every if one.name not in but]


def throttle_names(settings: Settings) -> list[str]:
    """The names of the throttles of all keys that are valid now."""
    return [throttle_name(one.base_url, one.api_key or "") for one in each_key(settings)]


def order(
    names: Sequence[str], used: Mapping[str, float], not_before: Mapping[str, float]
) -> list[str]:
    """The names in the order to ask them: the key that would let a request go earliest.

    `used`: when each was last used; a tie goes to the least recently used key. `not_before`: until
    when each said to wait. So one with a slow limit is asked first as soon as its turn has come.
    """
    return sorted(
        names, key=lambda name: (not_before.get(name, -math.inf), used.get(name, -math.inf))
    )


def earliest(said: Sequence[Wait | Halt]) -> Wait | Halt:
    """What the answers of all keys amount to: the earliest wait; a halt where all are halted."""
    if not said:
        return Wait(math.inf, "no API key may be used for it now")
    waits = [one for one in said if isinstance(one, Wait)]
    if waits:
        first = min(waits, key=lambda one: one.seconds)
        return first._replace(full=any(one.full for one in waits))
    return Halt("; ".join(dict.fromkeys(one.reason for one in said)))


class Admission:
    """Asks the throttles of a process's keys for one slice of work, one request at a time."""

    def __init__(self, throttles: Throttles, clock: Callable[[], float] = time.monotonic) -> None:
        self._throttles = throttles
        self._clock = clock
        self._stopped: dict[str, _Stop] = {}  # by throttle

    def ask(self, only: Throttle | None = None) -> Said:
        """Ask to send one request, with whatever key or with that of `only`.

        An Admitted must be reported on to its throttle.
        """
        known = {one.name: one for one in self._throttles()}
        if only is not None:
            known = {name: one for name, one in known.items() if name == only.name}
        now = self._clock()
        stops = ((name, stop.ends) for name, stop in self._stopped.items())
        not_before = {name: at for name, at in chain(_turns.items(), stops) if at > now}
        refusals: list[Wait | Halt] = []
        for name in order(list(known), _used, not_before):
            answer = self._answer(known[name], now)
            if isinstance(answer, Permit):
                _used[name] = self._clock()
                return Admitted(known[name], answer)
            refusals.append(answer)
        return earliest(refusals)

    def _answer(self, throttle: Throttle, now: float) -> Permit | Wait | Halt:
        stop = self._stopped.get(throttle.name)
        if stop is not None and now < stop.believed:
            if isinstance(stop.said, Halt):
                return stop.said
            return stop.said._replace(seconds=stop.ends - now)
        said = throttle.ask()
        self._stopped.pop(throttle.name, None)
        # A turn or a request slot may be there at any time. A pause lasts as long as it says.
        if isinstance(said, Halt):
            self._stopped[throttle.name] = _Stop(said, math.inf, now + BELIEVED_SECONDS)
        elif isinstance(said, Wait) and not said.full:
            ends = now + said.seconds
            if said.reason:
                self._stopped[throttle.name] = _Stop(said, ends, min(ends, now + BELIEVED_SECONDS))
            else:
                turn = _turns.get(throttle.name, 0.0)
                _turns[throttle.name] = min(turn, ends) if turn > now else ends
        return said


class _Stop(NamedTuple):
    """A pause or a halt, as a throttle last said it. Times are of the clock of the Admission."""

    said: Wait | Halt
    ends: float
    believed: float  # it is not asked again before


# By throttle, of this process: when a request last went, and until when it waits for its turn. Of
# several who wait, each is told a later turn; the earliest counts.
_used: dict[str, float] = {}
_turns: dict[str, float] = {}


@lru_cache(1000)
def _throttle(settings: Settings, model: str, urgent: bool) -> Throttle:
    return Throttle(settings, model, urgent=urgent)
