"""The texts of a run as they are noted: in memory, or in a temporary file."""

from __future__ import annotations

import resource
from itertools import chain

import pytest
from forking import in_child

from worker.producer.noted import Noted

CHUNKS = [
    [(f"{n % 250}é\0", bytes([n // 10]) * 16) for n in range(at, at + 100)]
    for at in range(0, 500, 100)
]
TEXTS = list(chain(*CHUNKS))


def noted_in(chunks: list[list[tuple[str, bytes]]]) -> Noted:
    noted = Noted()
    for chunk in chunks:
        noted.note([id for id, _ in chunk], [digest + b"more" for _, digest in chunk])
    return noted


@pytest.fixture(params=[4_000_000, 6_000, 0])  # in memory; from some chunk on in a file; in a file
def noted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Noted:
    monkeypatch.setattr("worker.producer.noted._HELD_BYTES", request.param)
    return noted_in(CHUNKS)


def test_what_was_noted_is_read_in_its_order(noted: Noted) -> None:
    assert (list(noted), noted.count) == (TEXTS, len(TEXTS))


def test_the_last_text_of_an_id_is_read_once(noted: Noted) -> None:
    assert sorted(noted.latest()) == sorted(dict(TEXTS).items())


def test_two_may_read_at_once(noted: Noted) -> None:
    assert list(zip(noted, noted)) == list(zip(TEXTS, TEXTS))


def test_a_forked_process_reads_what_its_parent_reads(noted: Noted) -> None:
    def read() -> None:
        assert list(noted) == TEXTS

    reading = iter(noted)
    first = next(reading)
    assert in_child(read) == 0
    assert [first, *reading] == TEXTS


def test_on_a_full_disk_nothing_is_noted_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def note() -> None:
        limit = resource.RLIMIT_FSIZE
        resource.setrlimit(limit, (3000, resource.getrlimit(limit)[1]))
        noted = noted_in(CHUNKS)
        assert (noted.full, noted.count, list(noted)) == (True, 0, [])

    monkeypatch.setattr("worker.producer.noted._HELD_BYTES", 0)
    assert in_child(note) == 0
