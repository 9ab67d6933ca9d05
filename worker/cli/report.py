"""The report: what the commands print, as pure functions from values to lines.

Tables fit into 80 columns if their numbers do. A name that is too long for its column gets a line
of its own, so nothing is cut off. rich would cut or fold it, and takes 0.1 s or more to import.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from ..layout import memory
from ..monitor import pace
from ..monitor.figures import cells, clock, count, duration, local_time, plain, timestamp
from ..monitor.obstacle import CommandLine, Obstacle, Scene, obstacle, start_worker
from ..types import DeadLetter, Status, document_of, parent_of
from .folding import WIDTH, folded

if TYPE_CHECKING:
    from ..export.verify import Verification
    from ..producer import Progress
    from .own import Counts

_BLOCK = 1000  # rows that share the widths of their columns
_FIGURES = ["enqueued", "embedded", "evicted", "cached", "dead", "pending", "leased", "unchanged"]


class Outcome(NamedTuple):
    """How a wait ended."""

    counts: Counts
    seconds: float  # since the run began
    written: str | None = None  # how many vectors, and where to
    intact: bool = True  # Redis has lost nothing of what was added


# A run


def enqueued(label: str, progress: Progress, rejected_path: str | None, look: str) -> str:
    """The result of enqueuing one corpus."""
    parts = [said for _, said in _counts(progress, rejected_path)]
    if progress.dead:
        parts.append(f"{progress.dead:,} dead before (see {look})")
    return f"{label}: {', '.join(parts)}"


def finished(
    name: str, progress: Progress, rejected_path: str | None, look: str, outcome: Outcome
) -> str:
    """The result of a run that was waited for."""
    counts = outcome.counts
    new, *others = _counts(progress, rejected_path)
    parts = [new[1], *(said for number, said in others if number)]
    if counts.superseded:
        parts.append(f"{counts.superseded:,} superseded since")
    if counts.dead:
        parts.append(f"{counts.dead:,} dead (see {look})")
    if counts.waiting:
        parts.append(f"{counts.waiting:,} not embedded")
    elif counts.missing:
        parts.append(f"{counts.missing:,} missing")
    elif not outcome.intact:
        parts.append("some missing")
    else:
        took = f" in {duration(outcome.seconds)}" if progress.new else ""
        rest = "the rest" if counts.dead or counts.superseded else "all"
        parts.append(f"{rest} embedded{took}")
    line = f"{name}: {', '.join(parts)}"
    return line if outcome.written is None else f"{line}; {outcome.written}"


def _counts(progress: Progress, rejected_path: str | None) -> list[tuple[int, str]]:
    """What became of the texts, each count with its words."""
    replacing, evicted, skipped = progress.replacing, progress.evicted, progress.skipped
    in_place = f" ({replacing:,} in place of another text)" if replacing else ""
    of_them = f" ({evicted:,} of them evicted)" if evicted else ""
    see = "" if rejected_path is None else f" (see {plain(rejected_path)})"
    return [
        (progress.new, f"{progress.new:,} new{in_place}"),
        (progress.unchanged, f"{progress.unchanged:,} unchanged{of_them}"),
        (progress.rejected, f"{progress.rejected:,} rejected{see}"),
        (progress.duplicates, count(progress.duplicates, "duplicate")),
        *([(skipped, f"{count(skipped, 'file')} of an earlier run skipped")] if skipped else []),
    ]


def written(vectors: int, output: str) -> str:
    """The result of an export."""
    from ..export.files import ids_of

    target = "standard output" if output == "-" else plain(output)
    beside = ids_of(output)
    ids = "" if beside is None else f", their ids to {plain(str(beside))}"
    return f"{count(vectors, 'vector')} written to {target}{ids}"


def note(status: Status, command: CommandLine) -> tuple[str, str]:
    """What blocks a backlog, as far as its status says: a short word and a line.

    Two empty strings if nothing does, and for a halt, which has its own line.
    """
    found = obstacle(Scene(status, command))
    return ("", "") if found is None or found.kind == "halted" else (found.kind, found.line)


def stopped(status: Status, resume: str) -> str:
    """A halt or a pause, its reason, and what to do."""
    return f"{status.collection} is {_state_note(status, resume)}"


def unfinished(name: str, texts: int, found: Obstacle | None) -> str:
    """What is left at the end of a wait, and what blocks it."""
    left = f"{name}: {count(texts, 'text')} not done in time"
    return left if found is None else f"{left}: {found.line}"


def waited(status: Status, look: str) -> str:
    """The result of a wait for a collection."""
    parts = [f"{status.embedded:,} of {status.enqueued:,} embedded"]
    parts += [f"{status.evicted:,} evicted"] if status.evicted else []
    parts += [f"{status.dead:,} dead (see {look})"] if status.dead else []
    parts += [f"{status.backlog:,} not embedded"] if status.backlog else []
    return f"{status.collection}: {', '.join(parts)}"


def verified(name: str, result: Verification, sink: str = "files") -> str:
    """The result of a verification; `sink`: what held the exported ones."""
    filed = f" ({result.exported:,} of them in {sink})" if result.exported else ""
    surplus = f", {result.surplus:,} surplus" if result.surplus else ""
    of = "" if result.documents is None else f" in {count(result.documents, 'document')}"
    line = (
        f"{name}: {result.embedded:,} of {count(result.texts, 'text')}{of} embedded{filed}, "
        f"{result.pending:,} pending, {result.dead:,} dead, {result.missing:,} missing{surplus}; "
        f"{count(result.rejected, 'line')} rejected"
    )
    return f"{line}: complete" if result.complete else line


def by_document(ids: Iterable[str]) -> Iterator[str]:
    """Ids of texts, those of a document's pieces together."""
    pieces: dict[str, list[int]] = {}
    for id in ids:
        document, number = document_of(id)
        pieces.setdefault(document, []).extend([number] if number else [])
    for document, numbers in pieces.items():
        word = "piece" if len(numbers) == 1 else "pieces"
        listed = ", ".join(f"{number:,}" for number in sorted(numbers))
        yield f"{document} ({word} {listed})" if numbers else document


def unnamed(ids: int) -> str:
    """That evicted ids were not looked at, and what to do."""
    return f"{count(ids, 'evicted id')} not looked at: name their folder with --export"


# Status


def status_table(
    statuses: Sequence[Status], command: CommandLine, stalls: Mapping[str, str] | None = None
) -> Iterator[str]:
    """All collections, a row each. `stalls`: what blocks a collection, by its name."""
    figures = ["enqueued", "embedded", "dead", "pending", "leased"]
    if any(status.evicted for status in statuses):
        figures.insert(2, "evicted")
    rows = []
    for status in statuses:
        name = status.collection
        counts = [f"{getattr(status, figure):,}" for figure in figures]
        facts = [
            *(_state_note(status, command("resume", name)), (stalls or {}).get(name, "")),
            _going(status),
        ]
        rows.append(Row([name, status.state, *counts], "; ".join(filter(None, facts))))
    yield from table(["collection", "state", *figures], rows, right=range(2, 2 + len(figures)))


def status_page(status: Status, dead: str, resume: str, stall: str = "") -> Iterator[str]:
    """One collection, a line for each fact. `stall`: what blocks it."""
    yield f"{status.collection}: {status.state}"
    remark = _state_note(status, resume) or stall
    if remark:
        yield from folded(remark)
    yield f"  {'model':<9}  {status.model or 'none yet'}{_layout(status)}"
    names = [*_FIGURES, "removed"] if status.removed else _FIGURES
    width = max(len(f"{getattr(status, name):,}") for name in names)
    for name in names:
        remark = f"   see {dead}" if name == "dead" and status.dead else ""
        yield f"  {name:<9}  {getattr(status, name):>{width},}{remark}"
    facts = {"index": index_of(status), "progress": pace.speed(status)}
    if len(status.keys) > 1:
        facts["keys"] = pace.together(status.keys)
    elif status.throttle is not None:
        facts["throttle"] = pace.sending(status.throttle)
        facts["quota"] = pace.quota(status.throttle)
    for name, fact in facts.items():
        if fact:
            yield f"  {name:<9}  {fact}"


def index_of(status: Status) -> str:
    """The index that a collection has, and how far a vector set is behind it."""
    if status.index is None:
        return ""
    behind = f", {count(status.index_behind, 'commit')} behind" if status.index_behind else ""
    return status.index + behind


def _layout(status: Status) -> str:
    """How long vectors are and, of smaller ones, what is stored of each."""
    if not status.dimensions or not status.answered_dimensions:
        return f", {status.dtype}" if status.dtype != "float32" else ""
    whole = status.answered_dimensions
    cut = f"{status.dimensions} of " if status.dimensions != whole else ""
    dtype = f", {status.dtype}" if status.dtype != "float32" else ""
    size = memory(status.dimensions, status.dtype)
    each = f", about {size:,} bytes of memory a vector" if cut or dtype else ""
    return f", {cut}{whole} dimensions{dtype}{each}"


def workers_line(workers: int, command: CommandLine) -> str:
    """How many workers are alive, and what to do if there is none."""
    if workers:
        return f"{count(workers, 'worker')} alive"
    return f"no worker is alive: {start_worker(command)}"


def status_object(status: Status, stall: str | None = None) -> dict[str, object]:
    """The status as JSON has it. Times are ISO 8601, UTC. `stall`: what blocks the collection."""
    shown: dict[str, object] = {**vars(status), "seconds_left": status.seconds_left}
    shown["reason"] = status.reason or stall
    shown["paused_until"] = _timestamp(status.paused_until)
    shown["keys"] = [
        {"name": key.name, "state": key.state, "reason": key.reason} for key in status.keys
    ]
    if status.throttle is not None:
        shown["throttle"] = {
            **vars(status.throttle),
            "paused_until": _timestamp(status.throttle.paused_until),
            "quota_resets_at": _timestamp(status.throttle.quota_resets_at),
            "configured": status.throttle.configured and status.throttle.configured._asdict(),
        }
    return shown


# Dead letters


def dead_table(letters: Iterable[DeadLetter], retry: str, code: str | None = None) -> Iterator[str]:
    """The dead letters, each with its reason, and their number for each code."""
    codes: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for letter in letters:
            codes[letter.code] += 1
            cells = [letter.id, letter.code, f"{letter.attempts:,}", local_time(letter.at)]
            document = parent_of(letter.id, letter.meta)
            where = f" ({place(letter.meta)} of {document})" if document and letter.meta else ""
            yield Row([plain(cell) for cell in cells], plain(letter.reason + where))

    yield from table(["id", "code", "attempts", "at"], rows(), right=[2])
    if not codes:
        yield "no dead letters" + (f" of code {plain(code)}" if code else "")
        return
    by_code = ", ".join(f"{number:,} {plain(code)}" for code, number in codes.most_common())
    total = count(sum(codes.values()), "dead letter")
    yield f"{total}: {by_code}. To try them again: {retry}"


def place(meta: Mapping[str, object]) -> str:
    """Where a piece is in its document, by its meta."""
    return f"characters {meta['start']} to {meta['end']}"


def dead_array(letters: Iterable[DeadLetter]) -> Iterator[str]:
    """The dead letters as one JSON array, an object a line."""
    before = "["
    for letter in letters:
        names = ("id", "document", "code", "reason", "attempts", "at", "text", "meta")
        document = parent_of(letter.id, letter.meta) or letter.id
        shown = {**vars(letter), "document": document, "at": timestamp(letter.at)}
        yield before + json.dumps({name: shown[name] for name in names})
        before = ","
    yield "[]" if before == "[" else "]"


def reasons_table(letters: Iterable[DeadLetter], code: str | None = None) -> Iterator[str]:
    """How many dead letters there are of each code and reason, the most frequent first."""
    rows = [
        Row([f"{number:,}", plain(code)], plain(reason))
        for (code, reason), number in _reasons(letters)
    ]
    yield from table(["count", "code"], rows, right=[0])
    if not rows:
        yield "no dead letters" + (f" of code {plain(code)}" if code else "")


def reasons_array(letters: Iterable[DeadLetter]) -> str:
    """The counts of `reasons_table` as one JSON array."""
    counts = _reasons(letters)
    shown = [{"count": number, "code": code, "reason": reason} for (code, reason), number in counts]
    return json.dumps(shown, indent=2)


def _reasons(letters: Iterable[DeadLetter]) -> list[tuple[tuple[str, str], int]]:
    return Counter((letter.code, letter.reason) for letter in letters).most_common()


# Tables


class Row(NamedTuple):
    """Cells of a table, and a note to print below them."""

    cells: Sequence[str]
    note: str = ""


def table(header: Sequence[str], rows: Iterable[Row], right: Iterable[int]) -> Iterator[str]:
    """Lines of an aligned table; none if there are no rows. `right`: columns of figures."""
    remaining = iter(rows)
    numbers = set(right)
    head = Row([name.upper() for name in header])
    while block := list(islice(remaining, _BLOCK)):
        columns = list(zip(*(row.cells for row in (head, *block))))
        widths = [max(map(cells, column)) for column in columns]
        widths[0] = min(
            widths[0], max(cells(head.cells[0]), WIDTH - sum(w + 2 for w in widths[1:]))
        )
        for row in chain([head], block):
            yield from _lines(row, widths, numbers)
        head = Row(head.cells)


def _lines(row: Row, widths: Sequence[int], right: set[int]) -> Iterator[str]:
    first, *others = row.cells
    if cells(first) > widths[0]:
        yield first
        first = ""
    padded = [
        " " * (width - cells(cell)) + cell if index in right else cell + " " * (width - cells(cell))
        for index, (cell, width) in enumerate(zip([first, *others], widths))
    ]
    yield "  ".join(padded).rstrip()
    if row.note:
        yield from folded(row.note)


def _state_note(status: Status, resume: str) -> str:
    if status.state == "halted":
        return f"halted{_why(status)}. When that is fixed: {resume}"
    if status.state == "paused" and status.paused_until is not None:
        return f"paused until {clock(status.paused_until)}{_why(status)}"
    if status.state == "paused":
        return f"paused{_why(status)}" + (f". To continue: {resume}" if status.held else "")
    return ""


def _timestamp(at: float | None) -> str | None:
    return None if at is None else timestamp(at)


def _going(status: Status) -> str:
    """The speed of the work on a collection, if it has a backlog."""
    if not status.backlog or status.state == "halted":
        return ""
    sending = "" if status.state == "paused" else pace.all_sending(status)
    return "; ".join(filter(None, [pace.speed(status), sending]))


def _why(status: Status) -> str:
    return f": {plain(status.reason).rstrip('.')}" if status.reason else ""
