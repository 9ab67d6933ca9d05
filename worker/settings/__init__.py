"""What the environment says, read once into one frozen value.

A misspelt `VECTOR_EMBED_*` name would leave a default in force that no one chose. So a name that is
close to a known one is an error, and any other unknown one a warning.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Callable, TypeVar
from urllib.parse import urlsplit

from vector_embed_client.http import DEFAULT_BASE_URL, DEFAULT_MODEL

from ..types import Rate
from .address import AddressError, is_cluster, is_redis, read_address
from .errors import SettingsError as SettingsError
from .keyfile import KeyFileError, each_key, read_key

logger = logging.getLogger("worker")

_Number = TypeVar("_Number", int, float)

PREFIX = "VECTOR_EMBED_"
DEFAULT_REDIS_URL = "redis://localhost:6379/0"


@dataclass(frozen=True)
class Settings:
    """The whole configuration of producers and workers. Times are in seconds."""

    api_key: str | None = field(default=None, repr=False)
    api_key_file: str | None = None  # where the key is read again for each slice
    keys_file: str | None = None  # where several are, each perhaps with its endpoint
    base_url: str = DEFAULT_BASE_URL
    model: str = DEFAULT_MODEL
    redis_url: str = field(default=DEFAULT_REDIS_URL, repr=False)
    broker_url: str = field(default=DEFAULT_REDIS_URL, repr=False)
    max_in_flight: int = 8  # requests of the whole fleet to one API address; at most 15
    rate: Rate | None = None  # never faster than that; None: as fast as the API allows
    prefix: str = "vec"  # of every Redis key
    high_water: int = 1_000_000  # queued texts at which a producer waits
    timeout: float = 30.0  # of one API call
    slice_seconds: float = 5.0  # how long one drain keeps a worker thread
    linger: float = 0.015  # a backlog below a batch is claimed once it did not grow for so long
    heartbeat_file: str | None = None  # that a worker touches every second, for probes
    log_format: str = "text"  # of a worker; or json
    metrics_collections: int = 1000  # that have metrics of their own; the others are summed

    @property
    def queue(self) -> str:
        """The name of the Celery queue that carries the wake-ups."""
        return f"{self.prefix}.wakeups"

    @property
    def shown_redis_url(self) -> str:
        """The Redis URL without its password."""
        return without_password(self.redis_url)


_NAMES = {each.name.upper() for each in fields(Settings)}
_READ = ("REDIS_URL", *(PREFIX + name for name in sorted(_NAMES)))
_RATE = re.compile(
    r"(?P<number>\d+(\.\d+)?) *(?P<of>requests|texts)? */ *"
    r"(?P<unit>s(ec(ond)?)?|m(in(ute)?)?|h(our)?|d(ay)?)\Z"
)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_OTHER_NAMES = {"LOCAL_DIR", "DATABASE_URL", "SINK_URL"}  # read by worker.local and worker.cli


def read_settings(
    environ: Mapping[str, str] | None = None, *, redis_url: str | None = None, keys: bool = True
) -> Settings:
    """Settings from the environment (`os.environ` unless given).

    `redis_url` is what the command line said. It comes before the environment, and the broker is
    the same Redis unless `VECTOR_EMBED_BROKER_URL` names another. `keys`: the API keys are needed,
    so they are read from their file now; without them, `each_key` does it when it is called. Raises
    SettingsError, one line naming the variable.
    """
    env = os.environ if environ is None else environ
    _check_names(env)
    said = {
        name.lower(): env[PREFIX + name].strip()
        for name in _NAMES
        if env.get(PREFIX + name, "").strip()
    }
    name, redis = ("--redis-url", redis_url) if redis_url else default_redis_url(env)
    settings = Settings(
        api_key=_api_key(said),
        api_key_file=said.get("api_key_file"),
        keys_file=_keys_file(said),
        base_url=said.get("base_url", DEFAULT_BASE_URL).rstrip("/"),
        model=said.get("model", DEFAULT_MODEL),
        redis_url=_redis_url(name, redis),
        broker_url=_broker_url(said.get("broker_url", redis)),
        max_in_flight=_whole(said, "max_in_flight", 1, 15),
        rate=_rate(said),
        prefix=_prefix(said.get("prefix", Settings.prefix)),
        high_water=_whole(said, "high_water", 1000, 10**12),
        timeout=_seconds(said, "timeout"),
        slice_seconds=_seconds(said, "slice_seconds"),
        linger=_number(  # twenty times the most is still less than the life of a wake-up
            said, "linger", float, lambda it: 0 <= it <= 0.25, "a number of seconds from 0 to 0.25"
        ),
        heartbeat_file=said.get("heartbeat_file"),
        log_format=_log_format(said.get("log_format", Settings.log_format)),
        metrics_collections=_whole(said, "metrics_collections", 0, 1_000_000),
    )
    if keys:
        each_key(settings)
    return settings


def default_redis_url(environ: Mapping[str, str]) -> tuple[str, str]:
    """What names the Redis if the command line does not, and its URL."""
    for name in (f"{PREFIX}REDIS_URL", "REDIS_URL"):
        if url := environ.get(name, "").strip():
            return name, url
    return "the default", DEFAULT_REDIS_URL


def settings_now() -> Settings:
    """`read_settings()`, read again where the environment has changed since the last time."""
    return _settings_in(tuple(map(os.environ.get, _READ)))


@lru_cache(1)
def _settings_in(environ: tuple[str | None, ...]) -> Settings:
    return read_settings(keys=False)


def parse_rate(said: str) -> Rate:
    """Read `600/min`, `5 requests/s`, `20000 texts/h` or `50000 texts/day`. Raises ValueError."""
    match = _RATE.match(said.strip().lower())
    if match is None or not 0 < float(match["number"]) < 1e12:
        raise ValueError(
            f"a rate is like 600/min, 5 requests/s or 20000 texts/hour, not {said.strip()!r}"
        )
    return Rate(float(match["number"]) / _UNIT_SECONDS[match["unit"][0]], match["of"] or "requests")


def _rate(said: Mapping[str, str]) -> Rate | None:
    value = said.get("rate")
    if value is None:
        return None
    try:
        return parse_rate(value)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}RATE: {error}") from None


def without_password(url: str) -> str:
    """`url` with `***` in place of the password."""
    # Not by parsing: a URL with "/" or "#" in its password cannot be parsed, and has a secret too.
    url = re.sub(r"(://[^:@/?#]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&](ssl_)?password=)[^&#]*", r"\1***", url)


def _check_names(env: Mapping[str, str]) -> None:
    known = _NAMES | _OTHER_NAMES
    for name in env:
        # Another case counts as close too: on Linux vector_embed_api_key is another variable.
        if not name.upper().startswith(PREFIX[:-1]):
            continue
        rest = name.upper()[len(PREFIX) :]
        if name.startswith(PREFIX) and rest in known:
            continue
        words = set(rest.split("_"))
        near = difflib.get_close_matches(rest, known, n=1, cutoff=0.75)
        near = near or [one for one in sorted(known) if words <= set(one.split("_"))]
        if near:
            raise SettingsError(
                f"unknown environment variable {name}: did you mean {PREFIX}{near[0]}? "
                "Rename or unset it"
            )
        logger.warning("unknown environment variable %s is ignored", name)


def _number(
    said: Mapping[str, str],
    name: str,
    read: Callable[[str], _Number],
    fits: Callable[[_Number], bool],
    wanted: str,
) -> _Number:
    """The number that a variable says, or its default. Raises SettingsError unless it fits."""
    value = said.get(name)
    if value is None:
        default: _Number = getattr(Settings, name)
        return default
    with suppress(ValueError):
        if fits(number := read(value)):
            return number
    raise SettingsError(f"{PREFIX}{name.upper()} must be {wanted}, not {value!r}")


def _whole(said: Mapping[str, str], name: str, low: int, high: int) -> int:
    wanted = f"a whole number from {low} to {high}"
    return _number(said, name, int, lambda it: low <= it <= high, wanted)


def _seconds(said: Mapping[str, str], name: str) -> float:
    return _number(said, name, float, lambda it: 0 < it < 86_400, "a number of seconds above 0")


def _api_key(said: Mapping[str, str]) -> str | None:
    file = said.get("api_key_file")
    if file is None:
        return said.get("api_key")
    if "api_key" in said:
        raise SettingsError(f"set {PREFIX}API_KEY or {PREFIX}API_KEY_FILE, not both")
    with suppress(KeyFileError):
        return read_key(file)
    return None


def _keys_file(said: Mapping[str, str]) -> str | None:
    other = next((name for name in ("api_key", "api_key_file") if name in said), None)
    if "keys_file" in said and other is not None:
        raise SettingsError(
            f"set {PREFIX}KEYS_FILE or {PREFIX}{other.upper()}, not both: write the key into the "
            f"file, on a line of its own, and unset {PREFIX}{other.upper()}"
        )
    return said.get("keys_file")


def _log_format(value: str) -> str:
    if value not in ("text", "json"):
        raise SettingsError(f"{PREFIX}LOG_FORMAT must be text or json, not {value!r}")
    return value


def _prefix(value: str) -> str:
    if any(character in value for character in "{}: \t*?[]"):
        raise SettingsError(
            f"{PREFIX}PREFIX must be a plain word without {{}}, : or spaces, not {value!r}"
        )
    return value


def _redis_url(name: str, url: str) -> str:
    try:
        address = read_address(url)
    except AddressError as error:
        raise SettingsError(f"{name}: {without_password(url)!r} cannot be used: {error}") from None
    if address.ignored:
        names = ", ".join(address.ignored)
        logger.warning("%s: ignored, because we set it ourselves: %s", name, names)
    return url


def _broker_url(url: str) -> str:
    name = f"{PREFIX}BROKER_URL"
    if is_cluster(url):
        raise SettingsError(
            "Celery has no broker on a Redis Cluster: name a Redis of its own, or another broker, "
            f"in {name}"
        )
    try:
        for one in url.split(";"):  # the next one takes over if one fails
            _check_broker(one)
    except AddressError as error:
        raise SettingsError(f"{name}: {without_password(url)!r} cannot be used: {error}") from None
    return url


def _check_broker(url: str) -> None:
    scheme, separator, _ = url.partition("://")
    if is_redis(url) or "sentinel" in scheme:
        read_address(url)
        return
    if not separator:
        raise AddressError("it is no URL: it is like redis://HOST:6379/0 or amqp://USER@HOST//")
    try:
        readable = urlsplit(url).port != 0  # reading the port is what finds it wrong
    except ValueError:
        readable = False
    if not readable:
        raise AddressError("its host and port cannot be read: write special characters as %XX")
    from kombu.transport import get_transport_cls  # here: it takes a fifth of a second

    try:
        get_transport_cls(scheme.partition("+")[0])
    except KeyError:
        raise AddressError(f"Celery knows no broker of the kind {scheme!r}") from None
    except ImportError as error:
        raise AddressError(f"{scheme} needs a package that is missing: {error}") from None
