"""A collection whose texts overtake each other, under producers and workers that freeze and die.

Workers of the version before there were priorities are among them: they take texts in the order of
the stream, also those that have overtaken others and are in hand.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from stored import Commits, check_ledger
from test_any_order import CONSUMERS, Draw, Fleet, seq_of

from worker.settings import Settings
from worker.store.backlog import claim_all
from worker.store.connection import script_source
from worker.types import Lease

BEFORE = "67c47c0"  # the last commit without priorities
PRIORITIES = st.sampled_from(["bulk", "normal", "interactive"])


def claim_before() -> str:
    """The source of `claim` of the earlier version."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "show", f"{BEFORE}:worker/store/claim.lua"]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode:
        pytest.skip("the history of the repository is not here")
    return re.sub(
        r"require '(\w+)'",
        lambda found: f"(function()\n{script_source(f'store/{found[1]}')}end)()",
        shown.stdout,
    )


class Earlier(Commits):
    """A backlog as workers of the earlier version use it."""

    source = ""

    def claim(
        self,
        consumer: str,
        count: int = 100,
        *,
        quarantined: bool = False,
        take_over: bool = True,
        living: Iterable[str] = (),
    ) -> list[Lease]:
        kind = "1" if quarantined else ""
        keys, args = self._claim(consumer, count, living, kind=kind, take_over=take_over)
        names = [*keys[:5]]
        client: Any = self._redis
        flat = client.eval(self.source, len(names), *names, *args)
        # One that was released after it had overtaken others may be there twice: its second
        # lease is fenced.
        jobs = {flat[at]: flat[at : at + 6] + [b""] for at in range(0, len(flat), 6)}
        return self._leases([field for job in jobs.values() for field in job])


class Priorities(Fleet):
    """The same with priorities, claims of what is urgent, and workers of two versions."""

    def __init__(self) -> None:
        super().__init__()
        self.new = self.collection.backlog
        self.earlier = Earlier(self.bench.redis, self.collection.keys)

    def add(self, draw: Draw) -> None:
        for adder in self.adders.values():
            adder.priority = draw(PRIORITIES)
        super().add(draw)

    def claim(self, draw: Draw) -> None:
        if Earlier.source and draw(st.sampled_from([False, False, True])):
            self.collection.backlog = self.earlier
        super().claim(draw)
        self.collection.backlog = self.new

    # One that has overtaken others is handed to an earlier worker in its turn: paid for twice.

    def _take_leave_of(self, consumer: str, owners: dict[int, str | None]) -> int:
        if self.collection.backlog is self.earlier:
            for seq in self.entries.keys() - owners.keys():
                self.entries[seq].owner = consumer
        return super()._take_leave_of(consumer, owners)

    def _move(self, seq: int, consumer: str, owner: str | None) -> None:
        if self.collection.backlog is self.earlier and owner == consumer:
            self.entries[seq].owner = consumer
        super()._move(seq, consumer, owner)

    def more_events(self) -> list[Callable[[Draw], None]]:
        events: list[Callable[[Draw], None]] = [self.join, self.join]
        return events * bool(self.entries)

    def join(self, draw: Draw) -> None:
        """A slice with a batch in hand takes what is urgent, too."""
        consumer, count = draw(CONSUMERS), draw(st.integers(1, 3))
        leases = claim_all([self.new], consumer, [count], urgent=True)[0]
        check_ledger(self.collection.status())
        self.alive.add(consumer)
        owners = self._owners()
        self._take_leave_of(consumer, owners)
        leased = [seq_of(lease) for lease in leases]
        for seq, owner in owners.items():
            entry = self.entries[seq]
            if seq in leased:
                assert entry.owner in (None, "released") and not self._is_done(seq)
                entry.owner = consumer
            assert owner == entry.owner
        assert len(set(leased)) == len(leased) <= count
        for lease, seq in zip(leases, leased):
            entry = self.entries[seq]
            told = (lease.job.id, lease.job.text, lease.attempts, lease.lost, lease.urgent)
            assert told == (entry.id, entry.text, 0, 0, True)
        if leases:
            self.hands.setdefault(consumer, []).extend(leases)

    def release(self, draw: Draw) -> None:
        """What has overtaken others is named as it is given back."""
        backlog, hands = self.new, {name: [*hand] for name, hand in self.hands.items()}

        class Naming(Commits):
            def release(self, consumer: str, failed: Any = (), held: Any = (), **ends: bool) -> int:
                return backlog.release(consumer, failed, hands.get(consumer, []), **ends)

        self.collection.backlog = Naming(self.bench.redis, self.collection.keys)
        super().release(draw)
        self.collection.backlog = self.new


def run(machine: type[Priorities], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.heavy
@pytest.mark.parametrize("beside_earlier_ones", [False, True])
def test_the_ledger_survives_any_order_of_events(
    settings: Settings, redis_client: redis.Redis, beside_earlier_ones: bool
) -> None:
    Priorities.settings_in_use, Priorities.direct = settings, redis_client
    Earlier.source = claim_before() if beside_earlier_ones else ""
    run(Priorities, 60)
