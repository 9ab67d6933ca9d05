"""A Redis Cluster on this machine: three primaries without replicas, which can go away.

Two of them have three collections each, and the first one has all other keys. So what the fleet
shares is there while one of the others, or both, are away.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import redis
from redis.crc import key_slot
from servers import wait_until

from worker.local.child import Child
from worker.local.redis_server import free_port

SLOTS = 16384
NODES = 3
HOME = 0  # the node of all keys but those of the others' collections
FIRST = 2  # the node with the first slot: redis-py sends it the commands without a key
NAMES = [[f"of-{node}-{number}" for number in range(3)] for node in range(NODES)]


class Cluster:
    """Three nodes. What a node has stored survives its end."""

    def __init__(self, program: str, directory: Callable[[str], Path]) -> None:
        self._commands: list[tuple[list[str], Path]] = []
        self._children: list[Child] = []
        self.nodes: list[redis.Redis] = []
        try:
            self._form(program, directory)
        except BaseException:
            self.end()
            raise

    @property
    def url(self) -> str:
        """As settings name it: by its first node."""
        return f"redis+cluster://127.0.0.1:{_port(self.nodes[0])}"

    def kill(self, *numbers: int) -> None:
        """End nodes; connections to them are refused."""
        for number in numbers:
            self._children[number].kill()

    def freeze(self, number: int) -> None:
        """Let a node answer nothing, with its connections open."""
        os.kill(self._children[number].pid, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let it answer again."""
        os.kill(self._children[number].pid, signal.SIGCONT)

    def move(self, name: str, start: int, end: int) -> Iterator[str]:
        """Move a collection to another node; gives a word when its keys are there, and at the end.

        In between no node takes a step on several of its keys.
        """
        slot = key_slot(f"{{{name}}}".encode())
        source, target = self.nodes[start], self.nodes[end]
        ids = [node.cluster("MYID").decode() for node in (source, target)]
        target.cluster("SETSLOT", slot, "IMPORTING", ids[0])
        source.cluster("SETSLOT", slot, "MIGRATING", ids[1])
        keys = source.cluster("GETKEYSINSLOT", slot, 100)
        source.migrate("127.0.0.1", _port(target), keys, 0, 5000)
        yield "moving"
        for node in (target, source, *self.nodes):
            node.cluster("SETSLOT", slot, "NODE", ids[1])
        yield "moved"

    def restore(self) -> None:
        """Start the nodes that were killed, with all that they had stored."""
        for number, (command, directory) in enumerate(self._commands):
            if not self._children[number].running:
                self._children[number] = Child("a node", command, directory / "log")
        self._wait()

    def end(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()
        for child in self._children:
            child.kill()

    def _form(self, program: str, directory: Callable[[str], Path]) -> None:
        while len(self.nodes) < NODES:
            port = node_port()
            place = directory("node")
            command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            command += ["--cluster-enabled", "yes", "--appendonly", "yes", "--dir", str(place)]
            # As is usual: a node that is away takes only its own slots with it.
            command += ["--cluster-require-full-coverage", "no"]
            self._commands.append((command, place))
            self._children.append(Child("a node", command, place / "log"))
            self.nodes.append(redis.Redis(port=port))
        for number, node in enumerate(self.nodes):
            wait_until(partial(_answers, node), 20, "a node to answer")
            node.cluster("ADDSLOTS", *_slots(number))
            node.cluster("SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.cluster("MEET", "127.0.0.1", _port(self.nodes[0]))
        self._wait()

    def _wait(self) -> None:
        for node in self.nodes:
            wait_until(partial(_whole, node), 30, "the cluster")


def node_port() -> int:
    """A free port for a node. The nodes talk to each other on a second one, 10,000 above: beyond
    those that Linux gives to connections, where it may be taken at any moment.
    """
    return next(port for port in iter(free_port, 0) if 51_000 <= port <= 55_000)


def _slots(node: int) -> set[int]:
    its = {key_slot(f"{{{name}}}".encode()) for name in NAMES[node]}
    if node == FIRST:
        its.add(0)
    if node == HOME:
        return set(range(SLOTS)) - _slots(1) - _slots(2)
    return its


def _port(node: redis.Redis) -> int:
    port: int = node.connection_pool.connection_kwargs["port"]
    return port


def _answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
        return False


def _whole(node: redis.Redis) -> bool:
    if not _answers(node):
        return False
    info: dict[str, str] = node.cluster("INFO")
    good = info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS)
    return good and info["cluster_known_nodes"] == str(NODES)
