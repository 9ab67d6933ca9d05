"""The page in Chromium: how long it takes until it is painted first.

    python -m tests.bench.bench_page --collections 1000

Each opening is a new browser context, with nothing kept of earlier ones. The time is Chromium's own
`first-contentful-paint`, from the moment when it begins to ask. The limit is a page that says `ok`,
of the same server. It needs Chromium and the extra `browser`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from browser.chromium import chromium

from .bench_many import exporter, fill
from .stack import stack
from .table import Table, machine

PAINTED = """() => new Promise((painted) => new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint");
  if (found.length) painted(found[0].startTime);
}).observe({ type: "paint", buffered: true }))"""
PAGES = {
    "a page that says ok": "/healthz",
    "overview": "/",
    "overview, page 10": "/?from=900",
    "one collection": "/collections/tenant-00018",
}


def bench(collections: Sequence[int], runs: int) -> None:
    """Open each page in turns."""
    with chromium() as browser:
        for number in collections:
            table = Table(f"{number:,} collections", ("ms to first paint", "kB"))
            table.ratios("ms to first paint", "a page that says ok")
            with stack() as on:
                fill(on, number)
                with exporter(on) as (metrics, _):
                    url = metrics.removesuffix("/metrics")
                    for run in range(runs + 1):
                        for name, path in PAGES.items():
                            context = browser.new_context()
                            page = context.new_page()
                            answer = page.goto(url + path)
                            painted = float(page.evaluate(PAINTED))
                            size = len(answer.body()) / 1000 if answer is not None else 0
                            if run:  # the first warms both programs up
                                table.add(name, **{"ms to first paint": painted, "kB": size})
                            context.close()
            table.show()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=int, nargs="+", default=[1000])
    parser.add_argument("--runs", type=int, default=9)
    asked = parser.parse_args()
    print(machine())
    bench(asked.collections, asked.runs)
