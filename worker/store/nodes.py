"""The nodes of a cluster: commands for many collections, in one round trip to each node.

All nodes are asked at the same time, and each answers for itself: one that is away costs the
collections that it has, and no others. A single Redis is a cluster of one node.

redis-py's own pipeline would fail as a whole for a node that is away, before anything was sent to
the others. And from version 8 on it asks the cluster for the keys of each step, a round trip each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, TypeVar, cast

import redis
from redis.cluster import RedisCluster
from redis.exceptions import AskError, NoScriptError, RedisClusterException, TryAgainError

from .connection import Argument, Invocation, Redis, is_cluster, load, node_of, run, sha_of
from .faults import insist, is_lost

T = TypeVar("T")

Command = tuple[Argument, ...]

# What becomes of a command without the others being concerned.
_OF_ONE = (
    redis.ResponseError,
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ClusterError,  # its key moves
)


def run_all(
    client: Redis, name: str, calls: Sequence[Invocation], *, resends: int = 0
) -> list[Any]:
    """The replies of the idempotent step `<name>.lua` to several calls, as `ask_all` gives them.

    What is lost is sent again, up to `resends` times, to the nodes that lost it: what the others
    did is done meanwhile.
    """
    replies: list[Any] = [None] * len(calls)
    left: Sequence[int] = range(len(calls))

    def ask() -> None:
        nonlocal left
        for n, reply in zip(left, _run_all(client, name, [calls[n] for n in left])):
            replies[n] = reply
        left = [n for n in left if _is_away(replies[n])]
        if left:
            raise replies[left[0]]

    pauses = (0.1 * 2**resend for resend in range(resends))
    try:
        insist(ask, pauses, worth=is_lost)
    except redis.RedisError as error:
        if not is_lost(error) or len(left) == len(calls):
            raise
    return replies


def ask_all(client: Redis, asked: Sequence[Command]) -> list[Any]:
    """The replies to several commands, each with its key first, in one round trip to each node.

    In place of a reply there may be the `redis.RedisError` of its command: that it was refused, or
    that its node is away. Raises the latter if no node answers.
    """
    replies = _ask_all(client, asked)
    if replies and all(map(_is_away, replies)):
        raise replies[0]
    return replies


def ask_each(client: Redis, step: Callable[[Redis], T]) -> list[T | redis.RedisError]:
    """What each node answers to a step, or why it is away. Raises that if no node answers."""
    nodes = [client]
    if is_cluster(client):
        cluster = cast(RedisCluster, client)
        primaries = cluster.get_primaries()  # type: ignore[no-untyped-call]
        nodes = [cast(Redis, cluster.get_redis_connection(one)) for one in primaries]
    answers: list[Any] = [None] * len(nodes)

    def ask(n: int) -> None:
        try:
            answers[n] = step(nodes[n])
        except redis.RedisError as error:
            if not is_lost(error):
                raise
            answers[n] = error

    _at_once([partial(ask, n) for n in range(len(nodes))])
    if all(map(_is_away, answers)):
        raise answers[0]
    return answers


def time_of(client: Redis, key: str) -> tuple[int, int]:
    """The time of the server that has this key, in seconds and microseconds."""
    if not is_cluster(client):
        return client.time()
    cluster = cast(Any, client)
    try:
        seconds, micros = cluster.time(target_nodes=cluster.get_node_from_key(key))
    except RedisClusterException as error:  # no node has the key
        raise redis.ConnectionError(str(error)) from error
    return seconds, micros


def _run_all(client: Redis, name: str, calls: Sequence[Invocation]) -> list[Any]:
    # Not `evalsha`, which redis-py has not allowed in the pipeline of a cluster.
    asked = [("EVALSHA", sha_of(name), len(keys), *keys, *args) for keys, args in calls]
    replies = _ask_all(client, asked, name)
    for n, reply in enumerate(replies):
        if isinstance(reply, NoScriptError):  # the node to which the key has moved
            try:
                replies[n] = run(client, name, *calls[n])
            except redis.RedisError as error:
                replies[n] = error
    return replies


def _ask_all(client: Redis, asked: Sequence[Command], name: str = "") -> list[Any]:
    """`ask_all`, whoever answers. `name`: of the step that all commands run."""
    ask = _ask_nodes if is_cluster(client) else _ask
    replies = ask(client, asked, name)
    for reply in replies:
        if isinstance(reply, Exception) and not isinstance(reply, _OF_ONE):
            raise reply
    return replies


def _ask_nodes(client: Redis, asked: Sequence[Command], name: str) -> list[Any]:
    replies: list[Any] = [None] * len(asked)

    def ask(node: Redis, numbers: Sequence[int]) -> None:
        for n, reply in zip(numbers, _ask(node, [asked[n] for n in numbers], name)):
            replies[n] = reply

    groups = _by_node(client, asked)
    _at_once([partial(ask, node, numbers) for node, numbers in groups.items()])
    if any(map(_is_away, replies)):
        _look_for_nodes(client)
    for n, reply in enumerate(replies):
        if isinstance(reply, (AskError, TryAgainError)):  # the key moves to another node
            [replies[n]] = _send(client, [asked[n]])
    return replies


def _ask(node: Redis, asked: Sequence[Command], name: str) -> list[Any]:
    """The replies of one node, which is sent the step if it does not know it."""
    replies = _send(node, asked)
    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        with suppress(redis.RedisError):  # then its calls say so
            load(cast(redis.Redis, node), name)
        for n, reply in zip(unknown, _send(node, [asked[n] for n in unknown])):
            replies[n] = reply
    return replies


def _send(client: Redis, asked: Sequence[Command]) -> list[Any]:
    """The replies of one node; of the cluster itself, which finds the node of each command."""
    pipeline = client.pipeline(transaction=False)
    for command in asked:
        pipeline.execute_command(*command)
    try:
        return pipeline.execute(raise_on_error=False)
    except redis.RedisError as error:
        return [error] * len(asked)
    except RedisClusterException as error:  # no node has the key
        return [redis.ConnectionError(str(error))] * len(asked)


def _by_node(client: Redis, asked: Sequence[Command]) -> dict[Redis, list[int]]:
    """The places of the commands for each node; under the cluster itself, those that no node has
    the key of.
    """
    groups: dict[Redis, list[int]] = {}
    for n, command in enumerate(asked):
        key = str(command[3] if command[0] == "EVALSHA" else command[1])
        try:
            node = cast(Redis, node_of(client, key))
        except RedisClusterException:
            node = client
        groups.setdefault(node, []).append(n)
    return groups


def _at_once(steps: Sequence[Callable[[], object]]) -> None:
    """Do all steps at the same time. Raises what one raises when all have ended."""
    faults: list[BaseException] = []

    def do(step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as fault:
            faults.append(fault)

    # Not of a pool: that takes nothing any more in a process that ends, and what is paid for is
    # stored then too.
    threads = [Thread(target=do, args=(step,), daemon=True) for step in steps[1:]]
    for thread in threads:
        thread.start()
    for step in steps[:1]:
        do(step)
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _is_away(reply: object) -> bool:
    return isinstance(reply, redis.RedisError) and is_lost(reply)


def _look_for_nodes(client: Redis) -> None:
    """Ask the cluster for its nodes: a replica may have taken the place of one that is away."""
    with suppress(redis.RedisError, RedisClusterException):
        cast(RedisCluster, client).nodes_manager.initialize()
