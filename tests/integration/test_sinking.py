"""The export beside a command that enqueues: when it begins, fails, is late, and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from servers import wait_until
from sinks import Failing, FolderCase
from stored import Bench

from worker import enqueue
from worker.cli.screen import Screen
from worker.cli.sinking import Sinking
from worker.export.folder import Folder
from worker.export.follow import Options, SinkExport
from worker.export.rows import ExportError
from worker.export.sink import Part, Rotation, Sink
from worker.types import Stored

SMALL = Rotation(vectors=2, seconds=0.2)
Closing = list[Sinking]


class Held(Folder):
    """A folder that writes no part before it is let go, and raises `error` then."""

    def __init__(self, path: Path, error: ExportError | None = None) -> None:
        super().__init__(str(path), "wiki", "jsonl", SMALL)
        self.let_go = threading.Event()
        self.is_held = threading.Event()
        self._error = error

    def write(self, records: Iterable[Stored]) -> Part | None:
        some = list(records)
        self.is_held.set()
        self.let_go.wait(20)
        if self._error is not None:
            raise self._error
        return super().write(some)


@pytest.fixture
def begun() -> Iterator[Closing]:
    """What is stopped at the end."""
    begun: Closing = []
    yield begun
    for sinking in begun:
        sinking.stop()


def sinking_into(sink: Sink, bench: Bench) -> Sinking:
    return Sinking(sink, bench.settings, Screen(), evict=False)


def test_it_has_all_at_the_end_and_says_so(bench: Bench, tmp_path: Path) -> None:
    case = FolderCase(tmp_path / "out")
    sinking = sinking_into(case.open(SMALL), bench)
    sinking.begin()
    bench.add(*[(id, f"text {id}") for id in "abc"])
    bench.embed_all()
    line = sinking.end(None)
    assert line is not None and line.startswith("3 vectors written to ")
    assert case.held().keys() == {"a", "b", "c"}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_error_before_it_has_begun_ends_the_command_there(
    bench: Bench, tmp_path: Path, at: int
) -> None:
    folder = FolderCase(tmp_path / "out").open(SMALL)
    sink = Failing(folder, at, lambda: ExportError("no room"), after=False)
    with pytest.raises(ExportError, match="no room"):
        sinking_into(sink, bench).begin()


def test_an_error_in_the_middle_is_there_for_the_command_to_see(
    bench: Bench, tmp_path: Path, begun: Closing
) -> None:
    sink = Held(tmp_path / "out", ExportError("no room"))
    sinking = sinking_into(sink, bench)
    begun.append(sinking)
    sinking.begin()
    sink.let_go.set()
    wait_until(lambda: sinking.error is not None, 10, "the error")
    with pytest.raises(ExportError, match="no room"):
        sinking.end(None)


def test_a_last_part_that_is_late_is_not_waited_for_longer_than_asked(
    bench: Bench, tmp_path: Path, begun: Closing
) -> None:
    bench.add(("a", "text"))
    bench.embed_all()
    sink = Held(tmp_path / "out")
    sinking = sinking_into(sink, bench)
    begun.append(sinking)
    sinking.begin()
    assert sink.is_held.wait(10)
    asked = time.monotonic()
    assert sinking.end(asked + 0.3) is None
    assert time.monotonic() - asked < 5
    sink.let_go.set()
    assert (sinking.end(None) or "").startswith("1 vector written to ")


def test_it_ends_by_itself_when_the_command_stops(bench: Bench, tmp_path: Path) -> None:
    sinking = sinking_into(FolderCase(tmp_path / "out").open(SMALL), bench)
    sinking.begin()
    sinking.stop()
    assert not [one for one in threading.enumerate() if one.name == "sink"]


class Streamed(Folder):
    """A sink whose parts are on disk only when they are whole, as that of a database."""

    size = 0


def test_kept_fields_count_as_bytes_of_a_part(bench: Bench, tmp_path: Path) -> None:
    texts = [{"id": f"{number}", "text": "text", "kept": "x" * 6_000} for number in range(6)]
    enqueue(texts, "wiki", settings=bench.settings)
    bench.embed_all()
    sink = Streamed(str(tmp_path / "out"), "wiki", "jsonl", Rotation(100, bytes=10_000))
    run = SinkExport(sink, bench.settings, Options(), tell=lambda read: None)
    assert [published.vectors for published in run.run()] == [2, 2, 2]
