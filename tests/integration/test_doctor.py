"""The doctor, as a newcomer runs it, on servers that are well and on ones that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from servers import API, API_KEY, WorkerProcess
from shell import Finished, Shell

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def well(shell: Shell, api: API, redis_client: redis.Redis) -> Iterator[Shell]:
    """A prompt where nothing is wrong but that no worker runs."""
    before = redis_client.config_get("appendonly")
    redis_client.config_set("appendonly", "yes")
    redis_client.config_set("maxmemory", "1gb")
    shell.environ.update(VECTOR_EMBED_BASE_URL=api.base_url, VECTOR_EMBED_API_KEY=API_KEY)
    yield shell
    redis_client.config_set("appendonly", before["appendonly"] or "no")
    redis_client.config_set("maxmemory", "0")
    redis_client.config_set("maxmemory-policy", "noeviction")


def lines(answer: Finished, verdict: str) -> list[str]:
    """The findings of one verdict."""
    assert answer.stderr == ""
    found = [line.split(None, 1) for line in answer.stdout.splitlines()]
    return [line[1] for line in found if line[0] == verdict]


def test_where_all_is_well_it_says_so(
    well: Shell, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    worker_process()
    server = redis_client.info("server")
    version = f"Redis {server['redis_version']}"
    if "valkey_version" in server:
        version = f"Valkey {server['valkey_version']}"

    answer = well("vec", "doctor")

    assert answer.returncode == 0
    assert answer.stdout.endswith("all is well\n"), answer.stdout
    for said in (version, "append-only", "same Redis", "costs one text", "1 worker alive"):
        assert any(said in line for line in lines(answer, "ok")), said + "\n" + answer.stdout


def test_no_worker_is_a_problem_with_the_command_that_starts_one(well: Shell) -> None:
    answer = well("vec", "doctor")

    assert answer.returncode == 1
    assert lines(answer, "problem") == ["no worker is alive: start one with vec worker"]
    assert answer.stdout.endswith("1 problem, 0 warnings\n")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"VECTOR_EMBED_REDIS_ULR": "x"}, "did you mean VECTOR_EMBED_REDIS_URL"),
        ({"VECTOR_EMBED_REDIS_URL": "redis://:geheim@127.0.0.1:1"}, "cannot reach Redis at redis"),
        (
            {
                "VECTOR_EMBED_REDIS_URL": "redis+cluster://:geheim@127.0.0.1:1",
                "VECTOR_EMBED_BROKER_URL": "redis://127.0.0.1:1",
            },
            "cannot reach Redis at redis+cluster",
        ),
        ({"VECTOR_EMBED_BROKER_URL": "redis://:geheim@127.0.0.1:1"}, "the broker at redis://:***@"),
        ({"VECTOR_EMBED_BASE_URL": "http://127.0.0.1:1"}, "the API at http://127.0.0.1:1 does not"),
        ({"VECTOR_EMBED_API_KEY": "geheim"}, "the API refuses the key"),
        ({"VECTOR_EMBED_API_KEY": "ge heim"}, "API key has a space"),
    ],
)
def test_each_thing_wrong_is_named_without_giving_a_secret_away(
    well: Shell, environ: dict[str, str], problem: str
) -> None:
    answer = well("vec", "doctor", **environ)

    assert answer.returncode == 1
    assert any(problem in line for line in lines(answer, "problem")), answer.stdout
    assert "heim" not in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_key_that_is_another_programs_is_a_problem(
    well: Shell, redis_client: redis.Redis
) -> None:
    well.write("wiki.jsonl", {"id": "a", "text": "text"})
    well("vec-enqueue", "wiki.jsonl")
    redis_client.sadd("vec:held", "a set, not a hash")
    answer = well("vec", "doctor")
    assert "refuses: WRONGTYPE" in lines(answer, "problem")[-1]
    assert (answer.returncode, answer.stderr) == (1, "")


def test_a_redis_that_evicts_is_a_problem_and_one_without_a_file_a_warning(
    well: Shell, redis_client: redis.Redis
) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    redis_client.config_set("maxmemory", "0")

    answer = well("vec", "doctor")

    assert any("evicts keys under allkeys-lru" in line for line in lines(answer, "problem"))
    kept, room = sorted(lines(answer, "warning"))
    assert "no memory limit" in kept
    assert "appendonly yes" in room


def test_what_celery_would_import_in_place_of_the_worker_is_a_problem(well: Shell) -> None:
    (well.directory / "worker.py").touch()
    (well.directory / "redis").mkdir()
    (well.directory / "redis" / "__init__.py").touch()

    answer = well("vec", "doctor")

    first, second = lines(answer, "problem")[:2]
    assert first.startswith("worker.py in this directory would be imported")
    assert second.startswith("redis/__init__.py in this directory would be imported")


def test_a_halted_collection_is_a_problem_with_the_way_out(
    well: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    api.faults(rules=[{"answer": "revoked", "marker": "text"}])
    well.write("wiki.jsonl", {"id": 1, "text": "text"})
    well("vec-enqueue", "wiki.jsonl", "--wait")

    [halt] = [line for line in lines(well("vec", "doctor"), "problem") if "wiki" in line]

    assert halt.startswith("wiki is halted: ")
    assert halt.endswith("fix that, then vec resume wiki")


def test_collections_that_share_a_halt_are_one_problem_and_one_line_of_pause_and_resume(
    well: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    api.faults(rules=[{"answer": "revoked", "marker": "text"}])
    names = [f"wiki-{number}" for number in range(5)]
    for name in names:
        well.write("wiki.jsonl", {"id": 1, "text": "text"})
        well("vec-enqueue", "wiki.jsonl", "--collection", name, "--wait")

    halts = [line for line in lines(well("vec", "doctor"), "problem") if "wiki" in line]

    assert len(halts) == 1
    assert halts[0].startswith("wiki-0, wiki-1, wiki-2 and 2 more are halted: ")
    api.faults()
    for command in ("pause", "resume"):
        [line] = well("vec", command).stdout.splitlines()
        assert line == f"wiki-0, wiki-1, wiki-2 and 2 more: {command}d"


def test_the_local_stack_has_a_doctor_too(shell: Shell) -> None:
    answer = shell("vec", "doctor", "--local", VECTOR_EMBED_LOCAL_DIR=str(shell.directory / "l"))

    assert answer.returncode == 0, answer.stdout
    assert f"--local keeps its data in {shell.directory / 'l'}" in answer.stdout
    assert answer.stdout.endswith("all is well\n")
