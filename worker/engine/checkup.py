"""The checkup: what `vec doctor` looks at.

Each check yields findings: ok, a warning (the work continues) or a problem (it stops, now or soon),
with what to do about it. One word is embedded, which costs one text; nothing else is changed. No
finding contains a secret. Waiting for a silent server ends after half a minute.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, cast

import redis

from vector_embed_client import __version__

from ..logs import listening
from ..monitor import figures
from ..monitor.fleet import read_fleet
from ..monitor.obstacle import CommandLine, Obstacle, obstacle, start_worker
from ..monitor.scene import Surroundings, broker_fault
from ..monitor.service import read_statuses
from ..settings import Settings, SettingsError, read_settings, without_password
from ..settings.address import is_cluster
from ..store.connection import CLAIM_MEMORY, MINIMUM_VERSION, PRODUCER_MEMORY, connect
from ..store.faults import cannot_reach
from ..store.keys import CollectionKeys
from ..store.registry import collection_names, read_sources
from ..types import Status

PATIENCE_SECONDS = 5.0
SKEW_SECONDS = 10.0  # that two clocks may differ
FEW_FILES = 512
FEW = 10  # collections with dead letters that get a line each
RECENT_SECONDS = 86_400  # since a start of Redis that is worth a line

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_SHADOWING = ("worker", "celery", "kombu", "redis", "httpx", "click")


class Finding(NamedTuple):
    """What one check found."""

    level: str
    said: str
    remedy: str = ""


ok = partial(Finding, OK)
warning = partial(Finding, WARNING)
problem = partial(Finding, PROBLEM)


def environment(redis_url: str | None) -> tuple[Settings | None, list[Finding]]:
    """The settings, if they can be read, and what is wrong in the environment."""
    said: list[str] = []
    try:
        with listening(lambda record: said.append(record.getMessage())):
            settings = read_settings(redis_url=redis_url, keys=False)
    except SettingsError as error:
        return None, [problem(str(error))]
    if said:
        return settings, [warning(line, "rename or unset it") for line in said]
    return settings, [ok("the environment's names and values can be read")]


def machine(settings: Settings | None) -> Iterator[Finding]:
    """This machine: versions, the current directory, limits."""
    names = ("redis", "celery", "httpx")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    yield ok(f"version {__version__}, Python {platform.python_version()}, {versions}")
    missing = [name for name in ("hiredis", "orjson") if not installed(name)]
    if missing:
        yield warning(
            f"without {' and '.join(missing)} answers are decoded slowly",
            f"pip install {' '.join(missing)}",
        )
    yield from _shadows()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        yield warning(f"only {files:,} files may be open at once", "ulimit -n 1024")
    if settings is not None and settings.heartbeat_file is not None:
        directory = os.path.dirname(os.path.abspath(settings.heartbeat_file))
        if not os.access(directory, os.W_OK):
            yield problem(
                f"VECTOR_EMBED_HEARTBEAT_FILE lies in {figures.plain(directory)}, which cannot be "
                "written",
                "name a file in another directory",
            )


def redis_server(settings: Settings) -> Iterator[Finding]:
    """The Redis with queue and vectors. If it does not answer, this is the only finding."""
    url = settings.shown_redis_url
    try:
        client = cast(redis.Redis, connect(settings))
        took = min(_seconds(client.ping) for _ in range(4))  # the first one connects
        info = {str(key): value for key, value in client.info().items()}
        now = client.time()[0]
        client.eval("return 1", 0)
    except redis.RedisError as error:
        yield problem(cannot_reach(settings, error))
        return
    version = str(info.get("redis_version", "0"))
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
        yield problem(f"{name} at {url} is too old", "install 6.2 or newer, or Valkey")
    elif info.get("role") == "slave":
        yield problem(f"{name} at {url} is a replica, read-only", "name its primary")
    elif took > 0.1:
        yield warning(
            f"{name} at {url} takes {took * 1000:.0f} ms to answer", "run the workers near it"
        )
    else:
        yield ok(f"{name} at {url}")
    yield _eviction(str(info.get("maxmemory_policy", "noeviction")))
    yield _memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))
    yield _persistence(info)
    yield clock("Redis", now - time.time(), "the times shown are off")


def broker(settings: Settings) -> Iterator[Finding]:
    """Celery's broker."""
    url = without_password(settings.broker_url)
    if settings.broker_url == settings.redis_url:
        yield ok("the broker is the same Redis")
        return
    reason = broker_fault(settings)
    if reason is not None:
        yield problem(
            f"the broker at {url} does not answer: {reason}",
            "start it, or unset VECTOR_EMBED_BROKER_URL to use the Redis of the queue",
        )
    else:
        yield ok(f"the broker at {url} answers; all workers and producers must name it")


def work(settings: Settings, command: CommandLine) -> Iterator[Finding]:
    """The workers and the collections."""
    try:
        yield from fleet(settings, command)
        yield from collections(settings, command)
        if not is_cluster(settings.redis_url):
            yield from recovery(settings, command)
    except redis.RedisError as error:  # gone since the first look, or a key of another type
        yield problem(cannot_reach(settings, error))


def fleet(settings: Settings, command: CommandLine) -> Iterator[Finding]:
    """The workers."""
    workers = read_fleet(connect(settings), settings.prefix)
    alive = [one for one in workers if one.alive]
    if not alive:
        yield problem("no worker is alive", start_worker(command))
    else:
        threads = sum(one.threads for one in alive)
        yield ok(f"{figures.count(len(alive), 'worker')} alive, {figures.count(threads, 'thread')}")
    versions = sorted({one.version or "an older one" for one in alive} - {__version__})
    if versions:
        others = figures.plain(", ".join(versions))
        yield warning(
            f"workers of another version than {__version__} here: {others}",
            "upgrade them one by one: they work side by side",
        )
    if lost := len(workers) - len(alive):
        yield warning(
            f"{figures.count(lost, 'worker')} lost within the hour",
            f"see {command('workers')}, and the log of each",
        )


def collections(settings: Settings, command: CommandLine) -> Iterator[Finding]:
    """What blocks each collection. Collections with the same reason share a finding."""
    well = 0
    stopped: dict[tuple[str, str], list[str]] = {}
    stalled: dict[Obstacle, list[str]] = {}
    dead: list[Status] = []
    around, client = Surroundings(settings, command), connect(settings)
    for status in read_statuses(client, settings.prefix, settings.queue):
        name = status.collection
        if status.state in ("halted", "paused"):
            reason = figures.plain(status.reason or "no reason given").rstrip(".")
            stopped.setdefault((status.state, reason), []).append(name)
        elif (stall := _stall(status, around)) is not None:
            stalled.setdefault(stall, []).append(name)
        elif status.dead:
            dead.append(status)
        else:
            well += 1
    for stall, names in stalled.items():
        yield problem(f"{figures.names(names)}: {stall.said}", stall.remedy)
    yield from _dead(dead, command)
    for (state, reason), names in stopped.items():
        said = f"{figures.names(names)} {'is' if len(names) == 1 else 'are'} {state}: {reason}"
        remedy = f"fix that, then {command('resume', names[0])}"
        look = f"see {command('status', names[0])}"
        yield problem(said, remedy) if state == "halted" else warning(said, look)
    if well:
        yield ok(f"{figures.count(well, 'collection')} without trouble")


def _dead(every: Sequence[Status], command: CommandLine) -> Iterator[Finding]:
    """Which collections have dead letters: a finding for each of a few, or one for all."""
    if len(every) > FEW:
        texts = figures.count(sum(status.dead for status in every), "text")
        said = f"{figures.names([status.collection for status in every])}: {texts}"
        yield warning(f"{said} could not be embedded", f"see {command('status')}")
        return
    for status in every:
        texts = figures.count(status.dead, "text")
        look = command("dead", status.collection)
        yield warning(f"{status.collection}: {texts} could not be embedded", f"see {look}")


def recovery(settings: Settings, command: CommandLine) -> Iterator[Finding]:
    """What to do after a recent start of Redis: it may have lost data, and cannot know it."""
    client = connect(settings)
    started = int(str(client.info("server").get("uptime_in_seconds", RECENT_SECONDS)))
    names = collection_names(client, settings.prefix)
    if started >= RECENT_SECONDS or not names:
        return
    ago = figures.duration(started)
    yield ok(
        f"Redis was started {ago} ago: after a restore, a failover or a crash of its machine, what "
        "came last may be missing",
        f"for each corpus, {command('verify')} says what is, and {command('vec-enqueue')} adds "
        "that and no more",
    )
    for name in names[: figures.SHOWN_NAMES]:
        sources = read_sources(client, CollectionKeys(settings.prefix, name))
        files = [source for source in sources if "/" in source]
        if files:
            verify = command("verify", files[-1], collection=name)
            yield ok(f"{name}: {figures.plain(verify)}")


def _stall(status: Status, around: Surroundings) -> Obstacle | None:
    """What blocks a collection that is neither halted nor paused."""
    found = obstacle(next(around.scenes([status]))) if status.is_stalled else None
    # Of no worker the fleet's finding tells.
    return None if found is None or found.kind == "no worker" else found


def _seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.monotonic()
    call()
    return time.monotonic() - start


def _eviction(policy: str) -> Finding:
    change = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its configuration"
    if policy.startswith("allkeys"):
        lost = f"Redis evicts keys under {policy}: texts and vectors would be lost"
        return problem(lost, change)
    if policy != "noeviction":
        lost = f"Redis evicts keys that expire under {policy}: live workers would seem dead"
        return warning(lost, change)
    return ok("Redis evicts nothing")


def _memory(used: int, limit: int) -> Finding:
    if not limit:
        return warning(
            f"Redis has no memory limit; {figures.size(used)} used",
            "set maxmemory, so that producers wait before the machine is full",
        )
    share = used / limit
    said = f"Redis uses {figures.size(used)} of {figures.size(limit)}, {share:.0%}"
    room = "raise maxmemory, or export and drop what is done"
    if share >= CLAIM_MEMORY:
        return problem(f"{said}: workers wait for room", room)
    if share >= PRODUCER_MEMORY:
        return warning(f"{said}: producers wait for room", room)
    return ok(said)


def _persistence(info: dict[str, object]) -> Finding:
    for field in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if info.get(field, "ok") != "ok":
            return problem(
                "Redis cannot write to its disk, and may refuse every change", "see its log"
            )
    if not info.get("aof_enabled"):
        return warning(
            "without an append-only file Redis would lose what came since its last snapshot",
            "redis-cli CONFIG SET appendonly yes, and the same in its configuration",
        )
    return ok("Redis keeps an append-only file")


def clock(whose: str, skew: float, harm: str) -> Finding:
    """Whether this machine's clock agrees with another's. `skew`: seconds that the other is ahead.

    `harm`: what comes of it if not.
    """
    if abs(skew) <= SKEW_SECONDS:
        return ok(f"this machine's clock agrees with that of {whose}")
    way = "behind" if skew > 0 else "ahead of"
    return warning(
        f"this machine's clock is {figures.duration(abs(skew))} {way} that of {whose}: {harm}",
        "set both by NTP",
    )


def _shadows() -> Iterator[Finding]:
    """Files here that Python would import in place of a package of ours."""
    ours = Path(__file__).parent.parent
    for name in _SHADOWING:
        for path in (Path(f"{name}.py"), Path(name, "__init__.py")):
            if path.exists() and path.parent.resolve() != ours:
                yield problem(
                    f"{path} in this directory would be imported by celery -A worker, not ours",
                    "start workers in another directory",
                )


def installed(name: str) -> bool:
    """Whether a module of this name can be imported."""
    from importlib.util import find_spec

    return find_spec(name) is not None
