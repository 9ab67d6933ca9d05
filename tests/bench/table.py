"""A table of results: the limit, us and the peers, each the median of several runs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from worker.local.redis_server import find_program

_LIBRARIES = ("redis", "hiredis", "httpx", "orjson", "celery", "celery-batches", "numpy", "pyarrow")


class Table:
    """Rows of measured values under one title. `columns` are units, as they are printed.

    A row's value is the median of its runs. `ratio` puts a row into relation to another: run by
    run, as both were measured in turns, and the median of that.
    """

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self._title = title
        self._columns = columns
        self._runs: dict[str, list[Mapping[str, float]]] = {}
        self._ratios: list[tuple[str, str]] = []

    def add(self, row: str, **values: float) -> None:
        """One run of a row; the names of the values are the columns."""
        self._runs.setdefault(row, []).append(values)

    def ratios(self, column: str, to: str) -> None:
        """Show the ratio of every row's `column` to that of row `to`."""
        self._ratios.append((column, to))

    def show(self) -> None:
        """Print it."""
        heads = [*self._columns, *(f"x {to}" for _, to in self._ratios)]
        body = [[row, *self._cells(row)] for row in self._runs]
        lines = [[self._title, *heads], *body]
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads) + 1)]
        print()
        for line in lines:
            first, *rest = (cell.rjust(width) for cell, width in zip(line, widths))
            print("  ".join([line[0].ljust(widths[0]), *rest]), flush=True)

    def _cells(self, row: str) -> list[str]:
        cells = [_number(_median(self._runs[row], column)) for column in self._columns]
        for column, to in self._ratios:
            pairs = zip(self._runs[row], self._runs.get(to, ()))
            ratios = [a[column] / b[column] for a, b in pairs if column in a and b.get(column)]
            cells.append(_number(statistics.median(ratios)) if ratios else "")
        return cells


def _median(runs: Sequence[Mapping[str, float]], column: str) -> float | None:
    values = [run[column] for run in runs if column in run]
    return statistics.median(values) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """The machine and the versions of all that matters, in a few lines."""
    processor = platform.processor() or platform.machine()
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = _read("/proc/meminfo").partition("MemTotal:")[2].split("kB")[0].strip()
    gigabytes = f", {int(memory) / 1e6:.0f} GB" if memory else ""
    program = find_program()
    redis_server = "no redis-server" if program is None else "Redis {}.{}".format(*program.version)
    load = f"load {os.getloadavg()[0]:.1f} before the run"
    return (
        f"{processor}, {os.cpu_count()} cores{gigabytes}, {platform.system()}, {load}\n"
        f"Python {platform.python_version()}, {redis_server}, "
        + ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
