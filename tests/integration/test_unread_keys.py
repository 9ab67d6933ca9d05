"""A key file that cannot be read ends what needs a key, with one line, and nothing else."""

from __future__ import annotations

import os
import sys
from inspect import signature
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import pytest
from click.testing import CliRunner, Result
from shell import Shell
from stored import Bench, pairs

from worker import Collection, SettingsError, enqueue
from worker.cli import vec, vec_enqueue
from worker.health import beat
from worker.local.keeper import LOCAL_KEY, Addresses
from worker.local.redis_server import RedisServer
from worker.settings import read_settings
from worker.settings.keyfile import each_key

KEYS, KEY = "VECTOR_EMBED_KEYS_FILE", "VECTOR_EMBED_API_KEY_FILE"

# fault: (variable, what the file holds, what is said of it)
FAULTS = {
    "missing": (KEYS, None, f"{KEYS}: cannot read keys: No such file or directory"),
    "empty": (KEYS, "", f"{KEYS}: keys is empty"),
    "JSON": (KEYS, '{"key": "vec_secret", "base_url": "x"}', f"{KEYS}: line 1 of keys: a line is"),
    "no address": (
        KEYS,
        "vec_a\nvec_secret vec_secret\n",
        f"{KEYS}: line 2 of keys: base_url must be an address like",
    ),
    "a missing key": (KEY, None, f"{KEY}: cannot read keys: No such file or directory"),
    "two keys for one": (KEY, "vec_secret vec_secret\n", f"{KEY}: keys does not hold one API key"),
}


@pytest.fixture(params=FAULTS)
def said(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_server: RedisServer,
) -> str:
    """What is wrong with the key file that the environment names."""
    variable, content, said = FAULTS[request.param]
    monkeypatch.chdir(tmp_path)
    for name in ("VECTOR_EMBED_API_KEY", "VECTOR_EMBED_BROKER_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VECTOR_EMBED_REDIS_URL", redis_server.url)
    monkeypatch.setenv("VECTOR_EMBED_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, "keys")
    if content is not None:
        (tmp_path / "keys").write_text(content)
    (tmp_path / "wiki.jsonl").write_text('{"id": "id0", "text": "text 0"}\n')
    return said


WITHOUT_A_KEY = [
    "status",
    "status wiki --json",
    "workers",
    "dead wiki --json",
    "pause wiki",
    "resume wiki",
    "delete wiki id1",
    "verify wiki.jsonl",
    "export wiki -o out.jsonl",
    "wait wiki --timeout 0",
    "vec-enqueue wiki.jsonl --model m",
    "vec-enqueue --dry-run wiki.jsonl",
]


# click below 8.2 puts both into one, unless it is told.
APART: dict[str, Any] = (
    {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
)
RUNNER = CliRunner(**APART)


def run(words: str) -> Result:
    first, *others = words.split()
    if first == "vec-enqueue":
        return RUNNER.invoke(vec_enqueue, others)
    return RUNNER.invoke(vec, [first, *others])


def test_what_needs_no_key_does_its_work_and_says_what_is_wrong_in_one_line(
    said: str, bench: Bench
) -> None:
    bench.add(*pairs(2))
    bench.embed_all()

    for words in WITHOUT_A_KEY:
        ended = run(words)

        assert ended.exit_code == 0, (words, ended.output)
        assert ended.stdout, words
        told = [line for line in ended.stderr.splitlines() if line.startswith("Warning: ")]
        is_dry = "--dry-run" in words  # it reads nothing of a Redis, and nothing of the fleet
        assert is_dry and not told or told[0].startswith(f"Warning: {said}"), (words, ended.stderr)
        assert len(told) <= 1 and "vec_secret" not in ended.output


@pytest.mark.heavy
@pytest.mark.parametrize("words", ["worker", "search wiki text"])
def test_what_needs_a_key_ends_with_that_line(
    words: str, said: str, bench: Bench, shell: Shell
) -> None:
    bench.add(*pairs(2))
    bench.embed_all()
    shell.environ.update({name: os.environ[name] for name in (KEYS, KEY) if name in os.environ})

    ended = shell("vec", *words.split())

    assert ended.returncode == 2
    told = ended.stderr.replace(f"{Path.cwd()}/", "")  # a worker changes its directory
    assert told.startswith(f"Error: {said}") and told.count("\n") == 1
    assert "vec_secret" not in ended.stdout + ended.stderr


def test_the_doctor_calls_it_a_problem_and_looks_at_all_else(said: str, bench: Bench) -> None:
    bench.add(*pairs(2))
    bench.embed_all()

    ended = run("doctor")

    lines = ended.stdout.splitlines()
    assert ended.exit_code == 1 and ended.stderr == ""
    assert len([line for line in lines if line.startswith(f"problem  {said}")]) == 1, lines
    assert "ok       1 collection without trouble" in lines


def test_a_program_enqueues_and_reads_and_a_search_of_its_says_what_is_wrong(
    said: str, bench: Bench
) -> None:
    assert enqueue(["a text"], "wiki").new == 1
    bench.embed_all()
    wiki = Collection("wiki")

    assert wiki.status().embedded == 1
    with pytest.raises(SettingsError) as raised:
        wiki.search("a text")
    assert str(raised.value).startswith(said)
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert str(raised.value).startswith(said)


def test_the_probe_of_a_worker_that_keeps_its_former_keys_is_well(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "heartbeat")
    beat(file)
    monkeypatch.setenv("VECTOR_EMBED_HEARTBEAT_FILE", file)

    ended = run_process([sys.executable, "-m", "worker.health"], capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_local_stack_has_its_own_key(said: str) -> None:
    there = Addresses("redis://127.0.0.1:1/0", "http://127.0.0.1:1", "a-model")

    settings = there.settings(read_settings(keys=False))

    assert [one.api_key for one in each_key(settings)] == [LOCAL_KEY]


@pytest.mark.heavy
def test_the_shell_completes_a_collection(said: str, bench: Bench, shell: Shell) -> None:
    bench.add(*pairs(1))
    shell.environ.update({name: os.environ[name] for name in (KEYS, KEY) if name in os.environ})

    ended = shell("vec", _VEC_COMPLETE="bash_complete", COMP_WORDS="vec status w", COMP_CWORD="2")

    assert ended.stdout.split() == ["plain,wiki"]


# What no request can hold


@pytest.mark.heavy
@pytest.mark.parametrize("words", ["worker", "search wiki text", "doctor"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [("VECTOR_EMBED_BASE_URL", "vec_secret"), ("VECTOR_EMBED_API_KEY", "vec_secret vec_secret")],
)
def test_a_key_or_an_address_that_cannot_be_is_named_by_its_variable(
    words: str, variable: str, value: str, bench: Bench, shell: Shell
) -> None:
    bench.add(*pairs(2))
    bench.embed_all()
    well = {"VECTOR_EMBED_API_KEY": "vec_a", "VECTOR_EMBED_BASE_URL": "http://127.0.0.1:1"}

    ended = shell("vec", *words.split(), **{**well, variable: value})

    assert ended.returncode == (1 if words == "doctor" else 2)
    said = ended.stdout + ended.stderr
    assert len([line for line in said.splitlines() if f"{variable}: " in line]) == 1, said
    assert "vec_secret" not in said
