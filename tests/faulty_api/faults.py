"""Faults: what a test or a benchmark makes go wrong with the API.

A `Faults` value says how the API behaves: how long it computes, which keys and how many texts it
accepts, how fast it may be called, and a list of rules. A `Rule` says which requests get which
wrong answer. There are four stages, in the order in which a real request passes them. The first
rule that matches at a stage applies:

* `proxy`: something in front of the server answers or cuts the connection; the server sees nothing.
* `account`: the key is refused, whatever the texts are.
* `text`: the server itself refuses or fails; misses of a 500 stay charged, as on the real server.
* `answer`: the texts are computed, charged and cached, but the answer is wrong or gets lost.

All of it is deterministic: the random generators are seeded.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from email.utils import formatdate

from .limiter import KINDS, Limiter

PROXY = frozenset(
    {"slow_down", "unavailable", "gateway", "request_timeout", "hang", "reset", "status"}
)
ACCOUNT = frozenset({"account", "revoked", "forbidden", "quota"})
TEXT = frozenset({"named", "unnamed", "error", "error_on_miss"})
ANSWER = frozenset(
    ("lost", "truncate", "drip", "garbage", "rows")  # sent wrongly, or in another shape
    + ("short", "long", "dimension", "nan", "infinity", "zero", "even")  # wrong inside
    + ("resized",)  # right in itself: vectors of another length, as another model's
)
_ANSWERS = PROXY | ACCOUNT | TEXT | ANSWER
_RETRY_AFTERS = ("seconds", "fraction", "date", "none")


class FaultsError(ValueError):
    """The faults that were asked for are invalid. The message says which part."""


@dataclass(frozen=True)
class Rule:
    """Which requests get which answer.

    `answer` is a name from one of the four stages. A request matches if one of its texts contains
    `marker` (empty: every request), and if it comes with `key` (empty: with any); the first `skip`
    matching ones pass, then `times` are hit (None: all), each with `probability`. `retry_after`
    goes out verbatim with `slow_down` and `unavailable`; `+2` stands for the HTTP date two seconds
    from now. `seconds` is how long `hang` holds the request and `drip` spreads the body. `status`
    answers with the status `status` and the words `detail`, and with `retry_after` too.
    """

    answer: str
    marker: str = ""
    skip: int = 0
    times: int | None = None
    probability: float = 1.0
    retry_after: str = ""
    seconds: float = 1.0
    status: int = 403
    detail: str = "Forbidden"
    key: str = ""


@dataclass(frozen=True)
class Limit:
    """How often one key may be used: `rate` requests per `per` seconds, see `limiter.py`."""

    rate: int
    per: float = 1.0
    limiter: str = "window"
    capacity: int | None = None


@dataclass(frozen=True)
class Faults:
    """How the API behaves. The defaults are a healthy server without limits.

    latency, jitter: seconds a request computes, and up to how many more.
    latency_per_text: seconds more for each text that is not in the cache.
    keys: the valid keys; None: all that begin with `vec_`.
    quota: texts a key may have computed a day; None: no limit.
    rate: requests let through per `per` seconds; None: all. `limiter` says how they are counted,
        see `limiter.py`: `window`, `aligned`, `bucket` (that holds `capacity`; None: `rate`) or
        `sliding`. `retry_after` is the form of the header on its 429s: `seconds`, `fraction`,
        `date` or `none`.
    limits: those of some keys, each for itself, on top of `rate`. They go on counting when other
        faults are set.
    freeze_at: this many requests computing at once are delayed by `freeze_seconds`; None: never.
    """

    latency: float = 0.0
    jitter: float = 0.0
    latency_per_text: float = 0.0
    keys: tuple[str, ...] | None = None
    quota: int | None = None
    rate: int | None = None
    per: float = 1.0
    limiter: str = "window"
    capacity: int | None = None
    retry_after: str = "seconds"
    freeze_at: int | None = None
    freeze_seconds: float = 30.0
    seed: int = 0
    rules: tuple[Rule, ...] = field(default=())
    limits: Mapping[str, Limit] = field(default_factory=dict)


def read_faults(said: object) -> Faults:
    """Faults from a JSON object. Raises FaultsError for an unknown name or a wrong value."""
    values = _fields(Faults, said)
    rules = values.pop("rules", [])
    if not isinstance(rules, list):
        raise FaultsError(f"rules must be a list, not {rules!r}")
    limits = values.pop("limits", {})
    if not isinstance(limits, Mapping):
        raise FaultsError(f"limits must be an object, not {limits!r}")
    keys = values.pop("keys", None)
    if keys is not None and not isinstance(keys, list):
        raise FaultsError(f"keys must be a list, not {keys!r}")
    faults = Faults(
        **values,  # type: ignore[arg-type]  # checked by name and type in _fields
        rules=tuple(_rule(rule) for rule in rules),
        limits={str(key): _limit(said) for key, said in limits.items()},
        keys=None if keys is None else tuple(str(key) for key in keys),
    )
    if faults.limiter not in KINDS:
        raise FaultsError(f"limiter must be one of {', '.join(KINDS)}, not {faults.limiter!r}")
    if faults.retry_after not in _RETRY_AFTERS:
        forms = ", ".join(_RETRY_AFTERS)
        raise FaultsError(f"retry_after must be one of {forms}, not {faults.retry_after!r}")
    return faults


def _limit(said: object) -> Limit:
    return Limit(**_fields(Limit, said))  # type: ignore[arg-type]  # checked by name and type


def _rule(said: object) -> Rule:
    rule = Rule(**_fields(Rule, said))  # type: ignore[arg-type]  # checked by name and type
    if rule.answer not in _ANSWERS:
        raise FaultsError(f"unknown answer {rule.answer!r}: one of {', '.join(sorted(_ANSWERS))}")
    return rule


def _fields(kind: type[Faults] | type[Rule] | type[Limit], said: object) -> dict[str, object]:
    """`said`, its names and the types of its values checked against the fields of `kind`."""
    what = kind.__name__.lower()
    if not isinstance(said, Mapping):
        raise FaultsError(f"{what} must be an object, not {said!r}")
    types = {one.name: str(one.type) for one in fields(kind)}
    for name, value in said.items():
        if name not in types:
            raise FaultsError(f"unknown {what} {name!r}: one of {', '.join(types)}")
        whole = type(value) is int or (value is None and "None" in types[name])
        if types[name].startswith("int") and not whole:
            raise FaultsError(f"{name} must be a whole number, not {value!r}")
        if types[name] == "float" and type(value) not in (int, float):
            raise FaultsError(f"{name} must be a number, not {value!r}")
        if types[name] == "str" and not isinstance(value, str):
            raise FaultsError(f"{name} must be a string, not {value!r}")
    return dict(said)


class Trouble:
    """The faults at work: what they have done so far, and what they do to the next request."""

    def __init__(self, faults: Faults, before: Trouble | None = None) -> None:
        self.faults = faults
        self._limiters = {key: _limiter(limit) for key, limit in faults.limits.items()}
        if before is not None:
            for key, limiter in before._limiters.items():
                if faults.limits.get(key) == before.faults.limits[key]:
                    self._limiters[key] = limiter
        # One generator each: what a rule hits does not depend on other rules or on jitter.
        self._jitter = random.Random(faults.seed)
        self._chances = [random.Random(f"{faults.seed} {n}") for n in range(len(faults.rules))]
        self._matched = [0] * len(faults.rules)
        self._limiter = (
            None
            if faults.rate is None
            else Limiter(faults.limiter, faults.rate, faults.per, faults.capacity)
        )

    def at(self, stage: frozenset[str], texts: Sequence[str], key: str) -> Rule | None:
        """The rule that applies to this request at this stage, if any."""
        for place, rule in enumerate(self.faults.rules):
            if rule.answer not in stage or rule.key not in ("", key):
                continue
            if rule.marker and not any(rule.marker in text for text in texts):
                continue
            self._matched[place] += 1
            hits = self._matched[place] - rule.skip
            if hits <= 0 or (rule.times is not None and hits > rule.times):
                continue
            if self._chances[place].random() < rule.probability:
                return rule
        return None

    def seconds(self, texts: int) -> float:
        """How long a request computes this number of texts."""
        faults = self.faults
        jitter = faults.jitter * self._jitter.random()
        return faults.latency + jitter + faults.latency_per_text * texts

    def over_rate(self, key: str) -> float | None:
        """None if the rate limiters let the request pass, else the seconds until one would."""
        for limiter in (self._limiter, self._limiters.get(key)):
            wait = None if limiter is None else limiter.refusal(time.time())
            if wait is not None:
                return wait
        return None


def _limiter(limit: Limit) -> Limiter:
    return Limiter(limit.limiter, limit.rate, limit.per, limit.capacity)


def retry_after_header(form: str, wait: float) -> str | None:
    """A `Retry-After` of at least `wait` seconds, in one of the forms a proxy may use."""
    if form == "none":
        return None
    if form == "fraction":
        return f"{math.ceil(wait * 1000) / 1000:.3f}"
    if form == "date":
        return formatdate(math.ceil(time.time() + wait), usegmt=True)
    return str(max(1, math.ceil(wait)))


def rule_retry_after(rule: Rule) -> str | None:
    """The `Retry-After` a rule asks for, its `+seconds` turned into a date."""
    if rule.retry_after.startswith("+"):
        return retry_after_header("date", float(rule.retry_after))
    return rule.retry_after or None
