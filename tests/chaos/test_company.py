"""A small company on one fleet; `python -m tests.chaos.company` takes a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .company import Company, parse

pytestmark = pytest.mark.heavy


@pytest.mark.usefixtures("running_redis")
def test_of_many_tenants_each_has_exactly_its_texts_whatever_dies(tmp_path: Path) -> None:
    sizes = "--tenants 30 --threads 10 --every 0.5 --bulk 2000 --calm 0 --minutes 0.2 --pause 3"
    company = Company(tmp_path, parse([*sizes.split(), "--patience", "200"]))
    try:
        company.run()
    finally:
        company.close()
    assert not company.faults
