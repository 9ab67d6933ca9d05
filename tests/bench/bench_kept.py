"""How much of the ten nearest is lost with each length and dtype, on vectors of real texts.

    python -m tests.bench.bench_kept --texts 100000
    python -m tests.bench.bench_kept --texts 1000000 --file texts.jsonl   # a field `text` a line

The vectors are those of the local model, 256 numbers, or those in a .npy. A query is a text; its
nearest are found among all others, by the whole vectors and by the smaller ones. Of those that are
equally near, any does. The layouts are made here, in the plainest way; the last column is by how
much a number that the worker stores differs from that. The limit is the whole vector.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable

import numpy as np

from worker.layout import Layout, decode
from worker.local.vectors import WORDLLAMA_MODEL

from .table import Table, machine
from .texts import vectors

TOP = 10
LENGTHS = (256, 128, 64)
SIZES = {"float32": 4, "float16": 2, "int8": 1}
COLUMNS = ("lost, %", "bytes of numbers", "differs at most")
_BLOCK = 20_000  # vectors compared at once
_TIE = 1e-6

Way = Callable[[Any], Any]


def plain(length: int, dtype: str) -> Way:
    """Stores and reads vectors in a layout, as its definition says."""

    def way(rows: Any) -> Any:
        cut = unit(rows[:, :length])
        if dtype == "float16":
            return unit(cut.astype(np.float16).astype(np.float32))
        if dtype == "int8":
            return unit(np.round(cut / np.abs(cut).max(axis=1, keepdims=True) * 127))
        return cut

    return way


def stored(length: int, dtype: str) -> Way:
    """The same by the worker."""
    layout = Layout(WORDLLAMA_MODEL, length, dtype)
    return lambda rows: unit(decode(b"".join(layout.encode(rows)), dtype, len(rows)))


def unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def nearest(rows: Any, asked: Any, way: Way) -> Any:
    """Which rows are nearest to those that are asked for, without themselves."""
    queries = way(rows[asked])
    best = np.full((len(asked), TOP), -np.inf, np.float32)
    which = np.zeros((len(asked), TOP), np.int64)
    for first in range(0, len(rows), _BLOCK):
        block = way(rows[first : first + _BLOCK])
        scores = queries @ block.T
        inside = (asked >= first) & (asked < first + len(block))
        scores[np.flatnonzero(inside), asked[inside] - first] = -np.inf
        scores = np.hstack([best, scores])
        index = np.argpartition(scores, -TOP, axis=1)[:, -TOP:]
        best = np.take_along_axis(scores, index, axis=1)
        numbers = np.broadcast_to(np.arange(first, first + len(block)), (len(asked), len(block)))
        which = np.take_along_axis(np.hstack([which, numbers]), index, axis=1)
    return which


def bench(count: int, asked: int, file: str | None = None) -> None:
    begun = time.perf_counter()
    rows = vectors(file, count)
    print(f"\n{len(rows):,} vectors, in {time.perf_counter() - begun:,.0f} s", flush=True)
    chosen = np.unique(np.linspace(0, len(rows) - 1, asked).astype(np.int64))

    def cosines(which: Any) -> Any:
        return np.einsum("qd,qkd->qk", rows[chosen], rows[which])

    least = cosines(nearest(rows, chosen, unit)).min(axis=1, keepdims=True) - _TIE
    table = Table(f"top {TOP} of {len(chosen):,} texts among {len(rows):,}", COLUMNS)
    some = rows[: 10 * TOP]
    for length in LENGTHS:
        for dtype, size in SIZES.items():
            way = plain(length, dtype)
            lost = 100 * float((cosines(nearest(rows, chosen, way)) < least).mean())
            differs = float(np.abs(way(some) - stored(length, dtype)(some)).max())
            values = (lost, length * size, differs)
            table.add(f"{length} {dtype}", **dict(zip(COLUMNS, values)))
    table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_kept", description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--file", help="JSON lines with a field `text`, or vectors in a .npy")
    asked = parser.parse_args()
    print(machine())
    bench(asked.texts, asked.queries, asked.file)


if __name__ == "__main__":
    main()
