"""What counts against a text: requests of its own kind of failure, and what passed between them."""

from __future__ import annotations

from worker.engine.evidence import ENOUGH, Evidence


def alternating(evidence: Evidence, rounds: int, *, refused: bool) -> None:
    for number in range(rounds):
        evidence.add(["bad"], passed=False, refused=refused)
        evidence.add([f"harmless {number}"], passed=True)


def test_failures_at_random_take_nothing_from_the_evidence_of_refusals() -> None:
    alone, mixed = Evidence(), Evidence()
    alternating(alone, 12, refused=True)
    for number in range(12):
        mixed.add(["bad"], passed=False, refused=True)
        mixed.add([f"other {number}"], passed=False)
        mixed.clear(f"other {number}")
        mixed.add([f"harmless {number}"], passed=True)
    bits = alone.against("bad", {"bad"}, refused=True).bits
    assert bits == mixed.against("bad", {"bad"}, refused=True).bits >= ENOUGH
    assert not mixed.is_contradictory


def test_a_failure_of_an_innocent_text_ends_what_counts_of_its_kind() -> None:
    evidence = Evidence()
    alternating(evidence, 12, refused=False)
    evidence.add(["harmless 11"], passed=False)
    assert evidence.against("bad", {"bad"}).bits == 0


def test_a_refusal_of_an_innocent_text_contradicts_the_refusals() -> None:
    evidence = Evidence()
    alternating(evidence, 12, refused=True)
    evidence.add(["harmless 11"], passed=False, refused=True)
    assert evidence.is_contradictory
    assert evidence.against("bad", {"bad"}, refused=True).bits == 0
