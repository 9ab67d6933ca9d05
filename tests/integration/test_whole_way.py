"""The whole way in one command: `vec-enqueue CORPUS --to SINK`, and the proof of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from servers import API, wait_until
from shell import Finished, Shell
from sinks import FolderCase, Held

from worker import Collection
from worker.settings import Settings
from worker.types import text_digest

pytestmark = pytest.mark.heavy


@pytest.fixture
def folder(shell: Shell) -> FolderCase:
    """The folder `out`."""
    return FolderCase(shell.directory / "out")


def write(shell: Shell, texts: dict[str, str]) -> None:
    shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in texts.items()))


def sync(shell: Shell, *options: str, **environ: str) -> Finished:
    return shell("vec-enqueue", "wiki.jsonl", "--to", "out/", *options, **environ)


def digests(held: dict[str, Held]) -> dict[str, bytes]:
    return {id: one.digest for id, one in held.items()}


def expected(texts: dict[str, str]) -> dict[str, bytes]:
    return {id: text_digest(text) for id, text in texts.items()}


@pytest.mark.parametrize("evict", [(), ("--evict",)])
def test_a_sink_is_true_to_a_corpus_that_changes(
    shell: Shell, worker_process: StartWorker, api: API, folder: FolderCase, evict: tuple[str, ...]
) -> None:
    worker_process()
    texts = {f"id-{number}": f"text {number}" for number in range(300)}
    write(shell, texts)
    first = sync(shell, *evict)
    assert first.returncode == 0, first.stderr
    assert "pruned" not in first.stderr
    assert "wiki: 300 new, all embedded in " in first.stdout
    assert "; 300 vectors written to out in " in first.stdout
    assert digests(folder.held()) == expected(texts)

    again = sync(shell, *evict)
    assert again.returncode == 0, again.stderr
    assert "wiki: 0 new, 300 unchanged" in again.stdout
    assert "; 0 vectors written to out in 0 files" in again.stdout

    texts["id-0"] = "another text"
    del texts["id-1"]
    texts["new"] = "a new text"
    write(shell, texts)
    charged = api.log().charged
    changed = sync(shell, *evict)
    assert changed.returncode == 0, changed.stderr
    assert "; 2 vectors written to out in " in changed.stdout
    assert "1 tombstone" in changed.stdout
    assert api.log().charged - charged == 2
    assert digests(folder.held()) == expected(texts)
    proof = shell("vec", "verify", "wiki.jsonl", "--sink", "out/")
    assert (proof.returncode, proof.stderr) == (0, "")
    assert "300 of 300 texts embedded (300 of them in out)" in proof.stdout


def test_a_vector_that_is_in_redis_alone_is_pending_for_its_sink(
    shell: Shell, worker_process: StartWorker
) -> None:
    worker_process()
    write(shell, {"a": "text", "b": "text"})
    assert sync(shell).returncode == 0
    write(shell, {"a": "text", "b": "text", "c": "text"})
    shell("vec-enqueue", "wiki.jsonl", "--wait")
    assert shell("vec", "verify", "wiki.jsonl").returncode == 0
    proof = shell("vec", "verify", "wiki.jsonl", VECTOR_EMBED_SINK_URL="out/")
    assert proof.returncode == 0, "the variable alone asks for nothing"
    proof = shell("vec", "verify", "wiki.jsonl", "--sink", VECTOR_EMBED_SINK_URL="out/")
    assert (proof.returncode, proof.stderr) == (1, "pending: c\n")
    assert shell("vec", "export", "wiki", VECTOR_EMBED_SINK_URL="out/").returncode == 0
    assert shell("vec", "verify", "wiki.jsonl", "--sink", "out/").returncode == 0
    (last,) = shell.directory.glob("out/*-000000000003.jsonl")
    last.rename(shell.directory / "moved.jsonl")
    last.touch()  # so the folder still says how far it is
    proof = shell("vec", "verify", "wiki.jsonl", "--sink", "out/")
    assert (proof.returncode, proof.stderr) == (1, "missing: c\n")
    write(shell, {"a": "text"})
    proof = shell("vec", "verify", "wiki.jsonl", "--sink", "out/")
    assert (proof.returncode, proof.stderr) == (1, "surplus: b, c\n")


@pytest.mark.parametrize("evict", [(), ("--evict",)])
def test_a_run_that_is_killed_is_simply_run_again(
    settings: Settings,
    shell: Shell,
    worker_process: StartWorker,
    api: API,
    folder: FolderCase,
    evict: tuple[str, ...],
) -> None:
    worker_process()
    api.faults(latency=0.2)
    wiki = Collection("wiki", settings=settings)
    texts: dict[str, str] = {}
    for edition in range(4):
        texts = {f"id-{number}": f"text {number} {edition}" for number in range(edition, 900)}
        write(shell, texts)
        before = wiki.status() if edition else None
        done = 0 if before is None else before.embedded + before.evicted
        run = shell.start("vec-enqueue", "wiki.jsonl", "--to", "out/", *evict)
        wait_until(lambda: wiki.exists() and wiki.status().backlog > 0, 30, "work")
        wait_until(lambda: wiki.status().backlog < 600, 30, f"some of it, {done} before")
        run.send_signal(signal.SIGKILL)
        run.wait()
    again = sync(shell, "--yes", *evict)
    assert again.returncode == 0, again.stderr
    assert digests(folder.held()) == expected(texts)
    assert shell("vec", "verify", "wiki.jsonl", "--sink", "out/").returncode == 0


def test_vectors_evicted_to_another_folder_before_do_not_stop_it(
    shell: Shell, worker_process: StartWorker, folder: FolderCase
) -> None:
    worker_process()
    write(shell, {"a": "text", "b": "text"})
    assert shell("vec-enqueue", "wiki.jsonl", "--to", "before/", "--evict").returncode == 0
    write(shell, {"a": "text", "c": "text"})
    done = sync(shell, "--export", "before/", "--yes")
    assert done.returncode == 0, done.stderr
    assert "pruned, 1 id removed" in done.stderr
    assert digests(folder.held()) == expected({"c": "text"})


def test_what_a_restored_redis_does_not_know_leaves_the_sink(
    shell: Shell, worker_process: StartWorker, folder: FolderCase, redis_client: redis.Redis
) -> None:
    worker_process()
    texts = {"a": "text a", "b": "text b"}
    write(shell, texts)
    sync(shell)
    backup = {key: redis_client.dump(key) or b"" for key in redis_client.keys("vec:{wiki}:*")}
    write(shell, {**texts, "x": "text x"})
    assert sync(shell).returncode == 0
    for key in redis_client.keys("vec:{wiki}:*"):
        redis_client.delete(key)
    for key, value in backup.items():
        redis_client.restore(key, 0, value)
    write(shell, texts)
    done = sync(shell, "--yes")
    assert done.returncode == 0, done.stderr
    assert digests(folder.held()) == expected(texts)


def test_a_deletion_that_a_sink_has_not_heard_of_is_surplus_there(
    shell: Shell, worker_process: StartWorker
) -> None:
    worker_process()
    write(shell, {"a": "text a", "b": "text b"})
    sync(shell)
    assert shell("vec", "delete", "wiki", "a").returncode == 0
    write(shell, {"b": "text b"})
    proof = shell("vec", "verify", "wiki.jsonl", "--sink", "out/")
    assert (proof.returncode, proof.stderr) == (1, "surplus: a\n")
    both = shell("vec", "verify", "wiki.jsonl", "--sink", "out/", "--export", "out/")
    assert both.returncode == 2
    assert "--sink and --export both name where vectors are: choose one." in both.stderr
    assert shell("vec", "export", "wiki", "-o", "out/").returncode == 0
    assert shell("vec", "verify", "wiki.jsonl", "--sink", "out/").returncode == 0


def test_a_dry_run_looks_into_the_sink(shell: Shell, worker_process: StartWorker) -> None:
    worker_process()
    write(shell, {"a": "text a", "b": "text b"})
    sync(shell, "--evict")
    write(shell, {"b": "text b"})
    dry = sync(shell, "--evict", "--dry-run")
    assert "wiki: 1 of 2 ids would be deleted" in dry.stdout
    assert dry.returncode == 0, dry.stderr


def test_a_sink_that_cannot_be_written_to_is_one_line_before_anything_is_enqueued(
    settings: Settings, shell: Shell, tmp_path: Path
) -> None:
    write(shell, {"a": "text"})
    (shell.directory / "out").write_text("a file")
    done = sync(shell)
    assert done.returncode == 2
    assert done.stderr == "Error: out is a file: name a folder for the files\n"
    assert not Collection("wiki", settings=settings).exists()


def test_ctrl_c_ends_the_export_too_and_the_same_command_continues(
    settings: Settings, shell: Shell, worker_process: StartWorker, api: API, folder: FolderCase
) -> None:
    worker_process()
    api.faults(latency=0.3)
    texts = {f"id-{number}": f"text {number}" for number in range(2_000)}
    write(shell, texts)
    run = shell.start("vec-enqueue", "wiki.jsonl", "--to", "out/", "--evict")
    wiki = Collection("wiki", settings=settings)
    wait_until(lambda: wiki.exists() and wiki.status().embedded > 0, 30, "some vectors")
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 130, stderr
    assert "Stopped: " in stderr
    assert "Traceback" not in stderr
    again = sync(shell, "--evict")
    assert again.returncode == 0, again.stderr
    assert digests(folder.held()) == expected(texts)
    assert json.loads(shell("vec", "status", "wiki", "--json").stdout)["embedded"] == 0
