"""What the page says of a snapshot, in words and with the commands to type. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...types import Status, ThrottleStatus
from .. import pace
from ..figures import clock, count, duration, plain
from ..fleet import Trouble, Worker
from ..obstacle import CommandLine, Obstacle
from .shared import Seen
from .snapshot import Endpoint, Snapshot

SHOWN_TROUBLES = 8
MOVING = ("running", "idle")  # states in which the rate of the last minute is that of now
_LOOK = {  # the commands that show or end an obstacle; {} is the collection
    "halted": ["doctor", "resume {}"],
    "refused": ["doctor"],
    "other queue": ["workers"],
    "unfit": ["workers", "resume {}"],
    "broker": ["doctor"],
    "failing": ["doctor"],
    "idle": ["workers", "doctor"],
}


class Said(NamedTuple):
    """How something stands: its state, a line, what is behind it, and what to type."""

    state: str  # of STATES, or `away` and `empty`
    title: str
    note: str = ""
    commands: Sequence[str] = ()


def of_all(seen: Seen, command: CommandLine) -> Said:
    """The whole fleet in one line, or that Redis does not answer. `seen` has a snapshot."""
    assert seen.snapshot is not None
    if seen.fault is None:
        return headline(seen.snapshot, command)
    since = clock(seen.since or seen.snapshot.at)
    note = f"since {since} ({plain(seen.fault)}). This page and the workers try again by themselves"
    return Said("away", "Redis does not answer", note, [command("doctor")])


def headline(snapshot: Snapshot, command: CommandLine) -> Said:
    """The whole fleet in one line."""
    sums = snapshot.sums
    if not sums.collections:
        line = command("vec-enqueue", "corpus.jsonl")
        workers = () if snapshot.alive else start_worker(command)
        return Said(
            "empty", "Nothing here yet", "Put a corpus into a collection:", (line, *workers)
        )
    if not sums.backlog:
        return _finished(snapshot, command)
    first = snapshot.first[0]
    standing = sums.states
    moving = standing.get("running", 0)
    state = first.state
    left = count(sums.backlog, "text")
    said = trouble_of(first, snapshot.obstacles.get(first.collection), command)
    if state == "waiting":
        return Said(state, f"No worker: {left} to do", said.note, said.commands)
    if state in ("halted", "paused"):
        stopped = f"{state[0].upper()}{state[1:]}"
        if not moving:
            return Said(state, f"{stopped}: {left} to do", said.note, said.commands)
        number = standing[state]
        which = plain(first.collection) if number == 1 else f"{number:,} collections"
        title = f"{stopped}: {which}; {count(moving, 'other')} running"
        return Said(state, title, said.note, said.commands)
    if first.rate or not said.note:
        return Said("running", f"Working: {_speed(snapshot)}", f"{left} to do")
    return Said("running", f"Waiting: {left} to do", said.note, said.commands)


def _finished(snapshot: Snapshot, command: CommandLine) -> Said:
    sums = snapshot.sums
    done = sums.embedded + sums.evicted
    if not sums.dead:
        return Said("idle", "All done", f"{count(done, 'text')} embedded, none left and none dead")
    dead = count(sums.dead, "text")
    names = [one.collection for one in snapshot.first if one.dead][:1]
    return Said(
        "idle",
        f"Done, but for {dead} that cannot be embedded",
        f"{count(done, 'text')} embedded, none left",
        [command("dead", name) for name in names],
    )


def _speed(snapshot: Snapshot) -> str:
    """`512 texts/s, 13 min left`; the time is that of the only collection with work, if it is."""
    sums = snapshot.sums
    if sum(1 for one in snapshot.first if one.backlog) == 1:
        return pace.speed(snapshot.first[0]) or "the first texts are under way"
    if not sums.rate:
        return "the first texts are under way"
    left = duration(sums.backlog / sums.rate)
    return f"{pace.per_second(sums.rate, 'text')}, {left} left"


def trouble_of(status: Status, found: Obstacle | None, command: CommandLine) -> Said:
    """Why a collection does not move, and what to type; both empty if nothing is wrong."""
    name, state = status.collection, status.state
    is_held = status.held or (status.throttle is not None and status.throttle.is_held)
    if found is not None:
        known = [command(*words.format(name).split()) for words in _LOOK.get(found.kind, ())]
        known += start_worker(command) if found.kind == "no worker" else []
        known += [command("resume", name)] if is_held and state == "paused" else []
        return Said(state, "", found.line, known)
    reason = f": {plain(status.reason).rstrip('.')}" if status.reason else ""
    if state == "halted":
        return Said(state, "", f"halted{reason}", [command("resume", name)])
    if state == "paused":
        until = "" if status.paused_until is None else f" until {clock(status.paused_until)}"
        return Said(
            state,
            "",
            f"paused{until}{reason}",
            [command("resume", name)] if is_held else [],
        )
    if state == "waiting":
        return Said(state, "", "no worker is alive", start_worker(command))
    return Said(state, "")


def rate_of(status: Status) -> str:
    """`512 texts/s`; empty where none was done recently, or no more are."""
    if not status.rate or status.state not in MOVING:
        return ""
    return pace.per_second(status.rate, "text")


def left_of(status: Status) -> str:
    """`13 min`; empty where it is not known."""
    return pace.time_left(status).replace(" left", "", 1) if status.backlog else ""


class Sending(NamedTuple):
    """A throttle in words: a name and a value for each fact that is known."""

    state: str
    address: str
    name: str
    note: str
    facts: Sequence[tuple[str, str]]


def sending(endpoint: Endpoint) -> Sending:
    """What a throttle does."""
    one = endpoint.throttle
    return Sending(one.state, plain(endpoint.address), one.name, _stop(one), list(_facts(one)))


def _stop(one: ThrottleStatus) -> str:
    reason = f": {plain(one.reason).rstrip('.')}" if one.reason else ""
    if one.state == "paused" and one.paused_until is not None:
        seconds = duration(max(0.0, one.pause_seconds or 0.0))
        return f"paused for {seconds}, until {clock(one.paused_until)}{reason}"
    return "" if one.state == "running" else f"{one.state}{reason}"


def _facts(one: ThrottleStatus) -> list[tuple[str, str]]:
    facts = [("rate now", pace.per_second(one.rate, "request"))] if one.rate else []
    if not facts:
        facts = [("rate now", "as fast as the API answers")]
    if one.learned_limit is not None:
        facts.append(("limit learned", pace.per_second(one.learned_limit, "request")))
    if one.configured is not None:
        most = pace.per_second(one.configured.per_second, one.configured.of[:-1])
        facts.append(("limit set", most))
    most_in_flight = "" if one.in_flight_ceiling is None else f" of {one.in_flight_ceiling:,}"
    facts.append(("in flight", f"{one.in_flight:,}{most_in_flight}"))
    if quota := pace.quota(one):
        facts.append(("quota", quota))
    return facts


class Complaint(NamedTuple):
    """What a worker complained of."""

    seconds: float  # ago
    said: str
    worker: str


def complaints(fleet: Sequence[Worker], about: str | None = None) -> list[Complaint]:
    """The last complaints of all workers, or those about a collection, the latest first."""
    every = [
        Complaint(trouble.seconds, plain(trouble.said), plain(f"{worker.host} {worker.pid}"))
        for worker in fleet
        for trouble in worker.troubles
        if about is None or _is_about(trouble, about)
    ]
    return sorted(every)[:SHOWN_TROUBLES]


def _is_about(trouble: Trouble, collection: str) -> bool:
    return trouble.said.startswith((f"{collection} ", f"{collection}:"))


def of_collection(status: Status, found: Obstacle | None, command: CommandLine) -> Said:
    """One collection in one line."""
    said = trouble_of(status, found, command)
    name = status.collection
    if said.note:
        return said._replace(title=f"{name}: {status.state}")
    if status.backlog:
        return said._replace(title=f"{name}: {pace.speed(status) or 'running'}")
    if status.dead:
        dead = count(status.dead, "text")
        return said._replace(title=f"{name}: done, but for {dead} that cannot be embedded")
    return said._replace(title=f"{name}: done" if status.enqueued else f"{name}: empty")


def facts_of(status: Status) -> list[tuple[str, str]]:
    """What a collection is, a name and a value for each fact."""
    facts = [("model", plain(status.model or "none yet"))]
    if status.dimensions:
        cut = status.answered_dimensions not in (None, status.dimensions)
        whole = f" of {status.answered_dimensions}" if cut else ""
        facts.append(("vectors", f"{status.dimensions}{whole} dimensions, {status.dtype}"))
    if status.index is not None:
        behind = f", {count(status.index_behind, 'commit')} behind" if status.index_behind else ""
        facts.append(("index", f"{plain(status.index)}{behind}"))
    for name, number in (
        ("cached", status.cached),
        ("unchanged", status.unchanged),
        ("removed", status.removed),
    ):
        facts += [(name, f"{number:,}")] if number else []
    if status.seconds_since_done is not None:
        facts.append(("last text done", f"{duration(status.seconds_since_done)} ago"))
    return facts


def start_worker(command: CommandLine) -> list[str]:
    """How to start a worker, if that is for people to do."""
    return [line for line in [command("worker")] if line]


def map_command(name: str, command: CommandLine, field: str | None = None) -> str:
    """Draws the map of a collection into a file."""
    return command("map", name, color=field, o=_file(name, "html"))


def _file(name: str, kind: str) -> str:
    return f"{'./' if name.startswith('-') else ''}{name}.{kind}"


def types_of(status: Status, command: CommandLine) -> list[tuple[str, str]]:
    """What can be done with a collection, each with its command."""
    name = status.collection
    types = [("Follow the work", command("watch", name))]
    if status.held or status.state == "halted":
        types.append(("Let the work continue", command("resume", name)))
    elif status.backlog:
        types.append(("Pause the work", command("pause", name)))
    if status.dead:
        types.append(("List the dead letters", command("dead", name)))
        types.append(("Try them again", command("retry", name)))
    if status.embedded:
        types.append(("Write the vectors to a file", command("export", name, o=_file(name, "npz"))))
        types.append(("Draw a map of the vectors", map_command(name, command)))
        types.append(("Find what is near to a text", command("search", name, "a text")))
    types.append(("Check what may be wrong", command("doctor")))
    return types
