"""The end of a collection, as a person asks for it."""

from __future__ import annotations

import json

import pytest
from shell import Shell

pytestmark = pytest.mark.heavy


def texts(number: int) -> list[dict[str, str]]:
    return [{"id": f"doc-{index}", "text": f"text {index}"} for index in range(number)]


def test_a_drop_asks_says_what_it_deletes_and_takes_no_for_an_answer(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")
    no = shell.answering("n", "vec", "drop", "wiki")
    yes = shell.answering("y", "vec", "drop", "wiki")

    question = "wiki: delete 0 vectors, 3 queued, 0 dead? [y/N]: "
    assert (no.stdout, no.stderr, no.returncode) == ("", question + "wiki: nothing is deleted\n", 1)
    dropped = "wiki: dropped, 0 vectors, 3 queued, 0 dead\n"
    assert (yes.stdout, yes.stderr, yes.returncode) == (dropped, question, 0)


def test_a_script_has_to_say_yes_to_a_drop(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")

    refused = shell("vec", "drop", "wiki")
    assert refused.returncode == 2
    assert refused.stderr == (
        "Error: cannot ask whether to delete wiki (0 vectors, 3 queued, 0 dead): use --yes\n"
    )
    assert json.loads(shell("vec", "status", "wiki", "--json").stdout)["pending"] == 3

    dropped = shell("vec", "drop", "wiki", "--yes")
    assert (dropped.returncode, dropped.stderr) == (0, "")
    assert dropped.stdout == "wiki: dropped, 0 vectors, 3 queued, 0 dead\n"
    assert shell("vec", "status").stdout == "no collections yet\n"
    again = shell("vec", "drop", "wiki", "--yes")
    assert again.returncode == 2
    assert again.stderr == "Error: no collection 'wiki' here; there is none yet\n"
