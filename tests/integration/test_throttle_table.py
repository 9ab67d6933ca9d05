"""What the throttle gets of each kind of limit: a changed rule moves the rows that it is for."""

from __future__ import annotations

from statistics import mean

import pytest
from bench.bench_policy import SCENARIOS

# The least share, and the most refusals in a window: a little worse than measured.
ROWS = [
    ("50/5s", "none", 0.98, 1.7),
    ("50/5s", "seconds", 0.97, 1.5),
    ("50/5s aligned", "none", 0.99, 1.7),
    ("50/5s aligned", "seconds", 0.98, 1.5),
    ("50/5s sliding", "none", 0.98, 1.7),
    ("50/5s sliding", "seconds", 0.97, 1.5),
    ("3/6s aligned", "none", 1.0, 2.3),
    ("3/6s aligned", "seconds", 0.95, 0.7),
    ("3/min aligned", "none", 0.99, 2.7),
    ("3/min aligned", "seconds", 0.99, 1.4),
    ("bucket 5", "none", 0.99, 1.0),
    ("bucket 5", "seconds", 0.96, 0.8),
    ("bucket 20", "none", 0.99, 1.5),
    ("bucket 20", "seconds", 0.98, 1.1),
    ("bucket 20 small", "none", 0.99, 1.5),
    ("bucket 20 small", "seconds", 0.65, 1.0),
    ("bucket 50", "none", 0.98, 2.6),
    ("bucket 50", "seconds", 0.98, 1.9),
    ("bucket 50 small", "none", 0.99, 2.5),
    ("bucket 50 small", "seconds", 0.64, 1.6),
    ("50/5s -> 25", "none", 0.99, 1.6),
    ("50/5s -> 25", "seconds", 0.99, 1.5),
    ("50/5s -> 100", "none", 0.99, 1.7),
    ("50/5s -> 100", "seconds", 0.95, 1.6),
    ("bucket 20 -> 10", "none", 0.99, 2.7),
    ("bucket 20 -> 10", "seconds", 0.97, 0.8),
    ("bucket 20 -> 40", "none", 0.98, 2.2),
    ("bucket 20 -> 40", "seconds", 0.98, 1.7),
]


@pytest.mark.parametrize(("name", "form", "share", "most"), ROWS)
def test_a_limit_is_used_as_well_as_it_was_measured(
    name: str, form: str, share: float, most: float
) -> None:
    runs = [SCENARIOS[name].run(form, seed) for seed in range(2)]
    got, refused = (mean(values) for values in zip(*runs))
    assert got >= share
    assert refused <= most
