"""The connection to Redis: made lazily, per process, and never retrying by itself.

redis-py would send a command again after a lost reply; a step that counts would then count twice.
Only steps that are idempotent are sent again, by those who know that they are.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import cache, partial
from hashlib import sha1
from pathlib import Path
from typing import Any, Protocol, TypeVar, Union, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, SlotNotCoveredError
from redis.retry import Retry

from ..settings import Settings
from ..settings.address import read_address
from .faults import insist, is_lost
from .tls import TLSConnection

T = TypeVar("T")

MINIMUM_VERSION = (6, 2)
ROOMS = Path(__file__).parents[1]  # the Lua steps lie beside their callers
IDLE_SECONDS = 5.0  # after which an unused connection is closed

# Shares of Redis' maxmemory. Above the first a producer waits, above the second also one of texts
# that overtake others; above the third nothing is claimed, and so paid, that could not be stored. A
# backlog alone never reaches the third: they cannot lock each other out.
PRODUCER_MEMORY = 0.60
OVERTAKING_MEMORY = 0.70
CLAIM_MEMORY = 0.85

Argument = Union[bytes, str, int, float]
Invocation = tuple[Sequence[str], Sequence[Argument]]  # the keys and the arguments of a step


class Pipeline(Protocol):
    """The commands that we send in one go."""

    def delete(self, *names: str) -> object: ...
    def execute_command(self, *args: Argument) -> object: ...
    def get(self, name: str) -> object: ...
    def hget(self, name: str, key: str) -> object: ...
    def hgetall(self, name: str) -> object: ...
    def hmget(self, name: str, keys: Sequence[str]) -> object: ...
    def hincrby(self, name: str, key: str, amount: int) -> object: ...
    def hlen(self, name: str) -> object: ...
    def hset(self, name: str, key: str, value: str) -> object: ...
    def hdel(self, name: str, *keys: str) -> object: ...
    def sadd(self, name: str, *values: str) -> object: ...
    def set(self, name: str, value: str, ex: int, nx: bool = ...) -> object: ...
    def xlen(self, name: str) -> object: ...
    def xpending(self, name: str, groupname: str) -> object: ...
    def xpending_range(
        self, name: str, groupname: str, min: str, max: str, count: int, consumername: str
    ) -> object: ...
    def xrange(self, name: str, min: str, max: str, count: int) -> object: ...
    def zcount(self, name: str, min: str, max: str) -> object: ...
    def zrange(self, name: str, start: int, end: int, *, withscores: bool) -> object: ...
    def execute(self, raise_on_error: bool = True) -> list[Any]: ...


class Redis(Protocol):
    """The commands that we send, with the replies as they come: bytes, for we decode ourselves."""

    def delete(self, *names: str) -> int: ...
    def exists(self, *names: str) -> int: ...
    def get(self, name: str) -> bytes | None: ...
    def hget(self, name: str, key: str) -> bytes | None: ...
    def hgetall(self, name: str) -> dict[bytes, bytes]: ...
    def hkeys(self, name: str) -> list[bytes]: ...
    def hmget(self, name: str, keys: Sequence[str]) -> list[bytes | None]: ...
    def hscan_iter(self, name: str, count: int) -> Iterator[tuple[bytes, bytes]]: ...
    def hscan(self, name: str, cursor: int, *, count: int) -> tuple[int, dict[bytes, bytes]]: ...
    def hdel(self, name: str, *keys: str) -> int: ...
    def hset(self, name: str, key: str, value: str) -> int: ...
    def info(self, section: str = ...) -> dict[str, object]: ...
    def pexpire(self, name: str, time: int) -> bool: ...
    def pttl(self, name: str) -> int: ...
    def pipeline(self, transaction: bool) -> Pipeline: ...
    def sadd(self, name: str, *values: str) -> int: ...
    def set(
        self, name: str, value: str, ex: int = ..., px: int = ..., nx: bool = ...
    ) -> bool | None: ...
    def smembers(self, name: str) -> AbstractSet[bytes]: ...
    def srandmember(self, name: str, number: int) -> list[bytes]: ...
    def srem(self, name: str, *values: str) -> int: ...
    def time(self) -> tuple[int, int]: ...
    def xpending_range(
        self, name: str, groupname: str, min: str, max: str, count: int, consumername: str
    ) -> list[object]: ...
    def xlen(self, name: str) -> int: ...
    def xrange(
        self, name: str, min: str, max: str, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]: ...
    def zrangebyscore(self, name: str, min: float, max: float) -> list[bytes]: ...
    def zadd(self, name: str, mapping: dict[str, float], xx: bool, gt: bool = ...) -> int: ...
    def zrem(self, name: str, *values: str) -> int: ...
    def zrevrangebyscore(
        self, name: str, max: float, min: float, withscores: bool
    ) -> list[tuple[bytes, float]]: ...


class RedisUnfit(Exception):
    """This Redis cannot keep the promises. The message says why and what to change."""


def connect(settings: Settings) -> Redis:
    """The process's client for `settings.redis_url`. Replies come as bytes."""
    # A pool shared over a fork gave one child the other's replies: the pid is part of the key.
    return _connect(settings.redis_url, os.getpid())


def given(connection: redis.Redis) -> Redis:
    """A connection that a program handed in. Raises ValueError for one that decodes replies."""
    if connection.get_encoder().decode_responses:
        raise ValueError(
            "the connection decodes replies, and vectors are bytes: make it without "
            "decode_responses=True"
        )
    return cast(Redis, connection)


@cache
def _connect(url: str, pid: int) -> Redis:
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 30,
        # As many as there are threads. In redis-py 8.1 the default is 100, and the 101st command at
        # once fails as if Redis were away: of 100 producers in one process some enqueued nothing.
        "max_connections": 2**31,
    }
    address = read_address(url)
    if address.is_socket:
        del options["socket_keepalive"]
    clean, said = address.for_redis()
    options.update(said)
    if address.is_tls:
        options["connection_class"] = TLSConnection
    if address.is_cluster:
        options["connection_pool_class"] = _NodePool
        return cast(Redis, _as_one(partial(_Cluster.from_url, clean, **options)))
    return cast(
        Redis, redis.Redis(connection_pool=_Pool.from_url(clean, retry_on_error=[], **options))
    )


# redis-py sends them to the node with the first slot, which may be away. COMMAND is sent by itself,
# before anything else.
_OF_ANY_NODE = ("COMMAND", "INFO", "PING", "TIME")


class _Cluster(RedisCluster):
    """A cluster that is away as a single Redis is: with `redis.ConnectionError`."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        ask = partial(super().execute_command, *args, **options)
        try:
            return _as_one(ask)
        except (redis.ConnectionError, redis.TimeoutError):
            if args[0] not in _OF_ANY_NODE or "target_nodes" in options:
                raise
            for node in self.get_primaries():  # type: ignore[no-untyped-call]
                with suppress(redis.ConnectionError, redis.TimeoutError):
                    return _as_one(partial(ask, target_nodes=node))
            raise

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipeline: Any = super().pipeline(*args, **options)  # type: ignore[no-untyped-call]
        execute = pipeline.execute
        pipeline.execute = lambda *args, **options: _as_one(partial(execute, *args, **options))
        return pipeline


def _as_one(step: Callable[[], T]) -> T:
    """What a step on a cluster returns. redis-py's own error where no node answers, or none has the
    key, is no `redis.RedisError`.
    """
    try:
        return step()
    except RedisClusterException as error:
        is_away = isinstance(error, SlotNotCoveredError) or "cannot be connected" in str(error)
        if not is_away:
            raise
        raise redis.ConnectionError(str(error)) from error


class _Pool(redis.ConnectionPool):
    """Connections, closed when they have not been used for some seconds.

    The one given back last is given out first, so the idle ones lie in the order in which they were
    given back. Otherwise a worker that has used all its threads would keep a connection for each:
    a small hosted Redis has twenty.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._released: dict[object, float] = {}
        super().__init__(*args, **options)

    def release(self, connection: Any) -> None:
        now = self._released[connection] = time.monotonic()
        super().release(connection)
        # The lock is taken only where there is something to close: sixteen threads that take it
        # once more for each command wait for one another.
        oldest = next(iter(self._available_connections), None)
        if now - self._released.get(oldest, now) > IDLE_SECONDS:
            self._close_idle(now)

    def _close_idle(self, now: float) -> None:
        with self._lock:
            idle = self._available_connections
            while idle and now - self._released.get(idle[0], now) > IDLE_SECONDS:
                oldest = idle.pop(0)
                del self._released[oldest]
                oldest.disconnect()


class _NodePool(redis.ConnectionPool):
    """Connections to a node of a cluster, of which those in use are left to their threads.

    Up to redis-py 6 a thread that asks a node for the others closes all connections to it. The
    threads that used them met an AttributeError, or waited 30 s for a reply that went elsewhere:
    the system gives the number of a closed socket to the next one.
    """

    def disconnect(self, inuse_connections: bool = False) -> None:
        super().disconnect(inuse_connections=False)


def run(
    client: Redis, name: str, keys: Sequence[str], args: Sequence[Argument], *, resends: int = 0
) -> Any:
    """The reply of the atomic step `<name>.lua`, as `store/claim`.

    A step that is idempotent may be sent again, up to `resends` times, when its reply is lost.
    """
    pauses = (0.1 * 2**resend for resend in range(resends))
    return insist(partial(_run, client, name, keys, args), pauses, worth=is_lost)


def _run(client: Redis, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
    ask = partial(cast(redis.Redis, client).evalsha, sha_of(name), len(keys), *keys, *args)
    try:
        return ask()
    except NoScriptError:
        # Where it is needed, and at first only there: another node of a cluster may be away.
        load(node_of(client, keys[0]), name)
    try:
        return ask()
    except NoScriptError:  # the key is on its way to another node
        load(cast(redis.Redis, client), name)
        return ask()


class Step:
    """The atomic step `<name>.lua`, prepared, sent and read one after the other, so
    that other work is done while Redis does its own. Commands `along` go the same way, after it.

    All in one thread: a second one that sends waits for the interpreter's lock, and Redis for it.
    For idempotent steps only: if the step could not be sent, or its reply was lost, `replies` sends
    it (again).
    """

    _line: redis.Redis | None = None  # with a connection of its own

    def __init__(
        self,
        client: Redis,
        name: str,
        keys: Sequence[str],
        args: Sequence[Argument],
        along: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.args = args
        self._run = partial(run, client, name, keys)
        self._node = partial(node_of, client, keys[0])
        self._along = along
        self._sent = False
        with suppress(redis.RedisError):
            self._line = cast(redis.Redis, self._node().client())  # type: ignore[no-untyped-call]
            step = ("EVALSHA", sha_of(name), len(keys), *keys, *args)
            self._packed = self._connection.pack_commands([step, *along])

    def send(self) -> None:
        """Send it, if Redis is there."""
        if self._line is not None:
            self._sent = True
            try:
                self._connection.send_packed_command(self._packed)
            except redis.RedisError:
                self.close()

    def replies(self) -> list[Any]:
        """Wait for the replies, the step's first."""
        if self._line is None:
            return self._send_again()
        read: Any = self._line.parse_response
        try:
            names = ("EVALSHA", *[command[0] for command in self._along])
            replies = [read(self._connection, name) for name in names]
            self._sent = False
            return replies
        except redis.ResponseError:  # the script is not known there, or the key has moved
            return self._send_again()
        finally:
            self.close()

    def __del__(self) -> None:
        self.close()  # an interrupt may come before the caller has it

    def close(self) -> None:
        """Wait no longer."""
        if self._line is not None:
            if self._sent:  # whoever had the connection next would get the replies
                self._connection.disconnect()
            self._line.close()
            self._line = None

    @property
    def _connection(self) -> Any:  # half of its methods are untyped
        return cast(redis.Redis, self._line).connection

    def _send_again(self) -> list[Any]:
        reply = self._run(self.args)
        node: Any = self._node()
        return [reply, *[node.execute_command(*command) for command in self._along]]


def is_ours(pool: redis.ConnectionPool) -> bool:
    """Whether a pool has as many connections as are asked for; that of a program may have few."""
    return isinstance(pool, _Pool)


def load(client: redis.Redis, name: str) -> str:
    """The name under which a server that has been sent `<name>.lua` runs it."""
    return client.script_load(script_source(name))


@cache
def sha_of(name: str) -> str:
    """The same name; the server may not know it yet."""
    return sha1(script_source(name).encode()).hexdigest()


def node_of(client: Redis, key: str) -> redis.Redis:
    """The client of the server that has this key."""
    if isinstance(client, RedisCluster):
        return cast(redis.Redis, client.get_redis_connection(client.get_node_from_key(key)))
    return cast(redis.Redis, client)


def is_cluster(client: Redis) -> bool:
    """Whether the keys of a collection and those of the fleet may be on two nodes."""
    # isinstance would look at the attributes of a protocol: 5 us.
    return RedisCluster in type(client).__mro__


def script_source(name: str) -> str:
    """`<name>.lua`, with what it requires of others in its folder in its place."""
    text = (ROOMS / f"{name}.lua").read_text(encoding="utf-8")
    room = name.split("/")[0]

    def required(found: re.Match[str]) -> str:
        return f"(function()\n{script_source(f'{room}/{found[1]}')}end)()"

    return re.sub(r"require '(\w+)'", required, text)


def check_redis(client: Redis) -> None:
    """Raises RedisUnfit on a server too old, or one that would evict what we store."""
    info = client.info()
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
        raise RedisUnfit(f"Redis {version} is too old: 6.2 or newer is needed")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys"):
        raise RedisUnfit(evicts(policy))


def evicts(policy: str) -> str:
    """What is wrong with a Redis under such a policy."""
    return (
        f"Redis evicts keys under maxmemory-policy {policy}: texts and vectors would be lost; "
        "set it to noeviction"
    )
