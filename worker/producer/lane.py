"""The lane: small calls of one process on their way into one Redis, several in one step.

Group commit, without a timer: while a step is under way, the calls that come meanwhile wait, and go
together with the next. One caller at a time *leads*: in its own thread it sends what waits, its own
call included, and then lets the first of those who wait lead.

A leader does only what takes one round trip with a Redis that answers. All else, such as the first
call of a collection, a lost reply or a Redis that is away, is done by the lane's helper thread, so
each caller leaves at its own deadline. Callers in an asyncio loop cannot lead: the helper does.

A group whose reply was lost is sent again, before anything else, as the chunk that it was: it is
counted once, and each call gets the outcome that it had.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import redis

from ..engine.broker import most_threads
from ..logs import logger
from ..monitor.fleet import WORKER_SECONDS
from ..store.calls import Full, Kind, OutOfStep, Refused, Reply, Run, shared
from ..store.connection import (
    Argument,
    RedisUnfit,
    check_redis,
    is_cluster,
    is_ours,
    load,
    node_of,
    run,
    sha_of,
)
from ..store.errors import RedisAway
from ..store.faults import is_lost, is_out_of_memory, passes
from ..store.line import Line, pack
from .calls import CHUNK_CHARACTERS, Call, Group, Outcome, Track, board, tell
from .wakeups import Wakeups

LOOK_SECONDS = 0.5  # a look at Redis that is older is repeated
ANSWER_SECONDS = 0.5  # any caller waits for an answer at least so long
PATIENCE = 2.0  # after which a step without a reply is sent again
INSIST_SECONDS = 80.0  # for the reply to a step of a caller without a timeout
MOST_TRACKS = 5000  # kinds that a process remembers; another one begins anew
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_STEP = "store/add"


class Lane:
    """The calls of this process to one pool of connections, so to one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Call] = deque()
        self._is_led = False
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="vec-enqueue")
        # These belong to whoever leads.
        self._tracks: OrderedDict[Kind, Track] = OrderedDict()
        self._line = Line()
        self._checked = False  # that Redis can keep the promises
        self._looked = 0.0  # when its memory was looked at
        self._unlooked = 0  # characters sent since

    def put(self, call: Call) -> None:
        """Let a call wait for its turn, and see that somebody leads."""
        with self._lock:
            self._waiting.append(call)
            if self._is_led:
                return
            self._is_led = True
        if call.waiter.can_lead:
            call.leads = True
        else:
            self._call_helper()

    def lead(self, call: Call) -> None:
        """Send what waits, until the call has its outcome, or Redis makes trouble."""
        call.leads = False
        unsettled: list[Group] = []
        try:
            while call.outcome is None and not unsettled:
                unsettled = self._board()
                ready = [group for group in unsettled if self._track(group).run.begun]
                self._send(ready, call.left)
                # One that was sent and got no reply makes trouble, also if its callers have left.
                unsettled = [one for one in unsettled if one.sent or not one.is_settled]
        finally:  # also if it is interrupted
            if unsettled or self._pass_on():
                self._call_helper(unsettled)

    def withdraw(self, call: Call, fault: Exception | None = None) -> None:
        """End the wait of a call: its outcome says whether it was taken."""
        with self._lock:
            if call.outcome is not None:
                return
            group = call.group
            if group is None:
                self._waiting.remove(call)
            taken = None if group is not None and group.sent else False
            if fault is None and group is not None:
                fault = group.fault
            reason = str(fault or "no reply in time")
            call.outcome = Refused(partial(RedisAway, call.kind.collection, reason, taken))
            leads, call.leads = call.leads, False
        if leads and self._pass_on():
            self._call_helper()

    def _board(self) -> list[Group]:
        with self._lock:
            return board(self._waiting)

    def _pass_on(self) -> bool:
        """Let the first caller that waits lead; whether the helper has to."""
        with self._lock:
            if not self._waiting:
                self._is_led = False
                return False
            call = self._waiting[0]
            if not call.waiter.can_lead:
                return True
            call.leads = True
        tell([call])
        return False

    # The helper

    def _call_helper(self, groups: Iterable[Group] = ()) -> None:
        try:
            self._helper.submit(self._help, groups)
        except RuntimeError:  # the interpreter ends, and starts no thread
            self._help(groups)

    def _help(self, groups: Iterable[Group]) -> None:
        """Lead for callers that cannot; first settle the groups that made trouble."""
        for group in groups:
            self._insist(group)
        while self._pass_on():
            groups = self._board()
            try:
                self._send([group for group in groups if self._track(group).run.begun], PATIENCE)
            except Exception:  # a bug: it must not stop the callers for ever
                logger.exception("a step failed, and is tried again")
            for group in groups:
                self._insist(group)

    def _insist(self, group: Group) -> None:
        """Send a group until each of its calls has an outcome."""
        attempts = 0
        while not group.is_settled:
            try:
                self._attempt(group)
            except redis.RedisError as error:
                self._failed(group, error)
            except Exception as error:
                if not isinstance(error, RedisUnfit):  # a bug, as above
                    logger.exception("a step failed")
                self._give_up(group, error)
            if not group.is_settled:
                time.sleep(_PAUSES[min(attempts, len(_PAUSES) - 1)])
                attempts += 1
        if group.sent:  # it was given up, and a copy of it may arrive yet
            self._track(group).run.begun = False

    def _attempt(self, group: Group) -> None:
        """Do all that may be missing, and send a group once more."""
        if not group.began:
            self._attempt_step(group)
        if group.began:
            try:
                self._track(group).run.announce(group.client)
            finally:
                self._settle(group)
        if group.open and group.fault is not None:
            raise group.fault

    def _attempt_step(self, group: Group) -> None:
        client, run_ = group.client, self._track(group).run
        if not self._checked:
            check_redis(client)
            self._checked = True
        if not run_.begun:
            run_.begin(client)
        fault, group.fault = group.fault, None
        if isinstance(fault, redis.exceptions.NoScriptError):
            load(node_of(client, run_.keys.jobs), _STEP)
        if is_cluster(client) and fault is not None:  # the key may have moved
            with self._lock:
                group.sent += 1
            keys, args = self._step(group, True)
            self._read(group, run(client, _STEP, keys, args))
        else:
            self._send([group], PATIENCE)

    def _failed(self, group: Group, error: redis.RedisError) -> None:
        """An attempt failed: who waits for no Redis that is away gets the error."""
        if isinstance(error, redis.exceptions.NoScriptError):
            return
        if isinstance(error, redis.exceptions.AskError) and is_cluster(group.client):
            return  # the key has moved
        if isinstance(error, redis.ResponseError) and is_out_of_memory(error):
            self._end(group, Full("Redis is full"))
            return
        if not passes(error) or isinstance(error, redis.AuthenticationError):
            self._give_up(group, error)
            return
        self._checked = False
        group.fault = error
        now = time.monotonic()
        is_away = is_lost(error) and not isinstance(error, redis.BusyLoadingError)
        with self._lock:
            for call in group.open:
                if call.deadline is None and (group.sent or not is_away):
                    call.deadline = now + INSIST_SECONDS
            calls = [*group.open, *(self._waiting if is_away else ())]
            over = [call for call in calls if call.deadline is None or call.deadline <= now]
        for call in over:
            self.withdraw(call, error)
        tell(over)

    # One round trip

    def _send(self, groups: Sequence[Group], patience: float | None) -> None:
        """Send groups together, and settle those whose reply comes.

        `patience`: seconds that one may take; None: as long as the connection waits for any.
        """
        if not groups:
            return
        pool, is_well = groups[0].calls[0].pool, False
        try:
            connection = self._line.lend(pool)
        except redis.RedisError as error:
            for group in groups:
                group.fault = error
            return
        try:
            groups = self._depart(groups)
            commands = list(map(partial(self._command, looks=self._looks(groups)), groups))
            connection.send_packed_command(pack(connection, commands), check_health=False)
            for group in groups:
                if patience is not None and not connection.can_read(patience):
                    raise redis.TimeoutError(f"no answer within {patience:.1f} s")
                try:
                    self._read(group, connection.read_response())
                except redis.ResponseError as error:
                    self._refused(group, error)
            is_well = True
        except redis.RedisError as error:
            self._looked = 0.0
            for group in groups:
                group.fault = error
        finally:
            self._line.give_back(pool, connection, is_well=is_well)

    def _depart(self, groups: Sequence[Group]) -> list[Group]:
        """From here on Redis may take these groups; calls that were withdrawn do not go."""
        with self._lock:
            for group in groups:
                if not group.sent:
                    group.calls = group.open
                group.sent += bool(group.calls)
        return [group for group in groups if group.calls]

    def _looks(self, groups: Iterable[Group]) -> bool:
        """Whether these steps look at the memory of Redis, too."""
        now = time.monotonic()
        self._unlooked += sum(call.jobs.size for group in groups for call in group.calls)
        if now - self._looked < LOOK_SECONDS and self._unlooked < CHUNK_CHARACTERS:
            return False
        self._looked, self._unlooked = now, 0
        return True

    def _command(self, group: Group, looks: bool) -> tuple[Argument, ...]:
        keys, args = self._step(group, looks)
        return ("EVALSHA", sha_of(_STEP), len(keys), *keys, *args)

    def _step(self, group: Group, looks: bool) -> tuple[Sequence[str], Sequence[Argument]]:
        run, wakeups = self._track(group)
        jobs = [call.jobs for call in group.calls]
        return run.step(jobs, looks=looks, wakes=wakeups.asks())

    def _read(self, group: Group, reply: Sequence[Any]) -> None:
        """Settle a group by the reply to it; one with which a collection began, not yet."""
        run, wakeups = self._track(group)
        said = run.read(reply)
        if isinstance(said, OutOfStep):
            group.sent = 0
            self._looked = 0.0
            return
        if not isinstance(said, Reply):
            self._end(group, said)
            return
        group.added = shared(said.letters, [call.jobs for call in group.calls])
        group.began = said.begun
        if b"N" in said.letters:
            wakeups.added(group.client, said.wakeups)
        if not group.began:
            self._settle(group)

    def _settle(self, group: Group) -> None:
        """All of a group was added: tell its callers."""
        with self._lock:
            calls = group.open
            for call, outcome in zip(group.calls, group.added):
                call.outcome = call.outcome or outcome
            group.sent, group.began = 0, False
        tell(calls)

    def _refused(self, group: Group, error: redis.ResponseError) -> None:
        """Redis refused a step, so nothing of this copy was added."""
        again = (redis.exceptions.NoScriptError, redis.exceptions.AskError)
        if is_out_of_memory(error):
            self._end(group, Full("Redis is full"))
        elif passes(error) or isinstance(error, again):
            group.fault = error
            group.sent -= 1
        else:
            self._refuse(group, error)

    def _refuse(self, group: Group, error: Exception) -> None:
        self._end(group, Refused(partial(type(error), *error.args)))

    def _end(self, group: Group, outcome: Outcome) -> None:
        """Nothing of a group was added; nor will be, by a copy of it that arrives late."""
        self._looked = 0.0
        if group.sent > 1:
            try:
                self._track(group).run.void(group.client)
            except redis.RedisError as error:
                self._give_up(group, error)
                return
        with self._lock:
            calls = group.open
            for call in calls:
                call.outcome = outcome
            group.sent = 0
        tell(calls)

    def _give_up(self, group: Group, error: Exception) -> None:
        """An error ends a group of which a copy may have been added, or may arrive yet."""
        if not group.sent:
            self._refuse(group, error)
            return
        self._track(group).run.begun = False
        calls = group.open
        for call in calls:
            self.withdraw(call, error)
        tell(calls)

    def _track(self, group: Group) -> Track:
        if group.track is None:
            kind, tracks = group.kind, self._tracks
            group.track = tracks.pop(kind, None) or Track(
                Run(kind, most_threads(kind.settings), WORKER_SECONDS),
                Wakeups(kind, each=not is_ours(group.calls[0].pool)),
            )
            tracks[kind] = group.track  # the last one is the one used last
            while len(tracks) > MOST_TRACKS:
                tracks.popitem(last=False)
        return group.track
