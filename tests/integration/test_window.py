"""Vectors that move on to the files of a folder: complete, once, whoever is killed at whatever
moment.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from faulty_api.vectors import Hashed
from servers import API, TcpProxy, WorkerProcess, wait_until
from shell import Shell
from stored import Store

from worker import Status
from worker.export.folder import Folder
from worker.export.follow import Options, Published, SinkExport
from worker.export.sink import Rotation
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE
from worker.store.errors import CollectionError
from worker.store.eviction import DROP_SIZE, EVICT_SIZE
from worker.store.reader import PAGE_SIZE
from worker.types import Embedded, Job, text_digest

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]

ENGINE = Hashed(8)
# Runs vec and kills it, as SIGKILL does, at the first moment that the first argument names.
BOMB = """
import os, signal, sys
import worker.cli
from worker.store.eviction import Eviction

place = sys.argv.pop(1)
replace, fsync, evict = os.replace, os.fsync, Eviction.evict

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def bombed_replace(*names):
    if place == "before the name":
        die()
    replace(*names)
    if place == "after the name":
        die()

def bombed_fsync(fd):
    if place == "before the end of the file":
        die()
    fsync(fd)

def bombed_evict(self, token, vectors=(), **options):
    if vectors and place == "before the eviction":
        die()
    count = evict(self, token, vectors, **options)
    if vectors and place == "in the middle of the eviction":
        die()
    return count

os.replace, os.fsync, Eviction.evict = bombed_replace, bombed_fsync, bombed_evict
worker.cli.vec()
"""


def vector_of(text: str) -> bytes:
    return _floats(ENGINE.numbers(ENGINE.pack([text])[0]))


def _floats(numbers: list[float]) -> bytes:
    return array("f", numbers).tobytes()


@pytest.fixture
def wiki(redis_server: RedisServer) -> Store:
    url = redis_server.url
    return Store("wiki", settings=Settings(redis_url=url, broker_url=url, model="m"))


def texts(count: int, edition: str = "text") -> dict[str, str]:
    return {f"id{number}": f"{edition} {number}" for number in range(count)}


def add(collection: Store, corpus: dict[str, str]) -> int:
    """Enqueue a corpus; how many of it were evicted before."""
    adder = collection.adder()
    jobs = [Job(id, text) for id, text in corpus.items()]
    chunks = [jobs[start : start + CHUNK_SIZE] for start in range(0, len(jobs), CHUNK_SIZE)]
    return sum(adder.add(chunk).evicted for chunk in chunks)


def embed(collection: Store, *, keep_text: bool = False) -> None:
    """Do the workers' work."""
    collection.backlog.keep_alive("c")
    while leases := collection.backlog.claim("c"):
        collection.backlog.commit(
            [Embedded(lease, vector_of(lease.job.text), False) for lease in leases],
            keep_text=keep_text,
        )


def ledger(collection: Store) -> Status:
    status = collection.status()
    parts = (status.embedded, status.evicted, status.dead, status.pending, status.leased)
    assert status.enqueued == sum(parts)
    return status


def rows(folder: Path, name: str = "wiki") -> list[dict[str, object]]:
    """All that the files hold, in their order; each file is whole."""
    found = []
    for path in sorted(folder.glob(f"{name}-*")):
        if path.suffix == ".parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]

            some = pyarrow.parquet.read_table(path).to_pylist()
        else:
            some = [json.loads(line) for line in path.read_text().splitlines()]
        first, last = (int(part) for part in path.stem.split("-")[1:])
        assert (some[0]["number"], some[-1]["number"]) == (first, last)
        found += some
    numbers = [row["number"] for row in found]
    assert numbers == sorted(numbers)
    return found


def check(folder: Path, corpus: dict[str, str]) -> None:
    """Each text of the corpus is in the folder, once, with its vector."""
    found = rows(folder)
    assert Counter(row["id"] for row in found) == Counter(list(corpus))
    for row in found:
        text = corpus[str(row["id"])]
        assert row["digest"] == text_digest(text).hex()
        assert _floats(row["vector"]) == vector_of(text)  # type: ignore[arg-type]
        assert (row["model"], row["dimensions"], row["cached"]) == ("m", 8, False)


@pytest.fixture
def out(shell: Shell) -> Path:
    return shell.directory / "out"


# Files


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_folder_gets_files_of_so_many_and_later_what_is_new(
    wiki: Store, shell: Shell, out: Path, format: str
) -> None:
    first, second = texts(250), texts(300)
    add(wiki, first)
    embed(wiki)
    words = ["export", "wiki", "-o", "out", "--format", format, "--rotate", "100"]

    said = shell("vec", *words)

    assert (said.stderr, said.returncode) == ("", 0)
    assert said.stdout == "wiki: 250 vectors written to out in 3 files\n"
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == [
        f"wiki-000000000001-000000000100.{format}",
        f"wiki-000000000101-000000000200.{format}",
        f"wiki-000000000201-000000000250.{format}",
    ]
    check(out, first)
    add(wiki, second)
    embed(wiki)
    said = shell("vec", "export", "wiki", "-o", "out/")
    assert said.stdout == "wiki: 50 vectors written to out in 1 file\n"
    check(out, second)
    assert ledger(wiki).embedded == 300


def test_texts_and_a_limit_in_bytes_are_kept(wiki: Store, shell: Shell, out: Path) -> None:
    wiki.adder().add([Job(f"id{n}", f"text {n}", {"n": n}) for n in range(100)])
    embed(wiki, keep_text=True)

    shell("vec", "export", "wiki", "-o", "out", "--rotate", "4KB", "--evict")

    assert [row["text"] for row in rows(out)] == [f"text {n}" for n in range(100)]
    assert [row["meta"] for row in rows(out)] == [{"n": n} for n in range(100)]
    sizes = [path.stat().st_size for path in sorted(out.glob("wiki-*"))]
    assert len(sizes) > 1
    assert all(4096 <= size < 4096 + 500 for size in sizes[:-1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "-", "--follow"], "name one with -o"),
        (["-o", "wiki.txt", "--evict"], "wiki.txt is a file"),
        (["-o", "no/such/folder", "--evict"], "cannot be written: No such file"),
        (["-o", "/proc/out", "--evict"], "/proc/out cannot be written"),
        (["-o", "out", "--rotate", "5TB"], "--rotate 5TB: say a number"),
        (["-o", "out", "--rotate", "0"], "--rotate 0: say a number"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_nothing_is_evicted(
    wiki: Store, shell: Shell, words: list[str], told: str
) -> None:
    (shell.directory / "wiki.txt").write_text("a file")
    add(wiki, texts(3))
    embed(wiki)

    said = shell("vec", "export", "wiki", *words)

    assert said.returncode == 2
    assert told in said.stderr.splitlines()[-1]
    assert said.stderr.splitlines()[-1].startswith("Error: ")
    assert ledger(wiki).embedded == 3


def test_a_full_disk_is_one_line_and_loses_nothing(wiki: Store, shell: Shell, out: Path) -> None:
    corpus = texts(2000)
    add(wiki, corpus)
    embed(wiki)
    command = " ".join(
        ["ulimit -f 32;", f"exec {sys.executable} -c 'import worker.cli; worker.cli.vec()'"]
        + ["export wiki -o out --evict --rotate 5MB"]
    )

    said = subprocess.run(
        ["bash", "-c", command],
        cwd=shell.directory,
        env=shell.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "Error: out cannot be written: File too large\n"
    assert {path.name for path in out.iterdir()} == {".wiki.life", ".wiki.lock"}
    assert ledger(wiki).embedded == 2000
    shell("vec", "export", "wiki", "-o", "out", "--evict")
    check(out, corpus)


def test_what_else_lies_in_the_folder_is_left_alone(wiki: Store, shell: Shell, out: Path) -> None:
    out.mkdir()
    names = ["notes.txt", "wiki-old.jsonl", "wiki2-000000000001-000000000009.jsonl", "wiki.jsonl"]
    for name in names:
        (out / name).write_text("not ours")
    corpus = texts(5)
    add(wiki, corpus)
    embed(wiki)

    assert shell("vec", "export", "wiki", "-o", "out", "--evict").returncode == 0

    assert all((out / name).read_text() == "not ours" for name in names)
    (written,) = out.glob("wiki-0*")
    assert written.name == "wiki-000000000001-000000000005.jsonl"


# Evicting


def test_what_is_in_a_file_is_evicted_and_enqueuing_it_again_costs_nothing(
    wiki: Store, shell: Shell, out: Path
) -> None:
    corpus = texts(700)
    add(wiki, corpus)
    embed(wiki)

    said = shell("vec", "export", "wiki", "-o", "out", "--evict")

    assert said.stdout == "wiki: 700 vectors written to out in 1 file, 700 evicted\n"
    check(out, corpus)
    assert (ledger(wiki).embedded, ledger(wiki).evicted) == (0, 700)
    shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in corpus.items()))
    again = shell("vec-enqueue", "wiki.jsonl", "--model", "m")
    assert again.stdout == (
        "wiki: 0 new, 700 unchanged (700 of them evicted), 0 rejected, 0 duplicates\n"
    )
    assert ledger(wiki).enqueued == 700


def test_a_changed_text_comes_in_a_later_file(wiki: Store, shell: Shell, out: Path) -> None:
    for edition in ("old", "new"):
        add(wiki, texts(3, edition))
        embed(wiki)
        shell("vec", "export", "wiki", "-o", "out", "--evict")

    assert {row["id"]: row["digest"] for row in rows(out)} == {
        id: text_digest(text).hex() for id, text in texts(3, "new").items()
    }
    assert len(rows(out)) == ledger(wiki).evicted == 6


@pytest.mark.parametrize(
    "place",
    [
        "before the end of the file",
        "before the name",
        "after the name",
        "before the eviction",
        "in the middle of the eviction",
    ],
)
def test_killed_at_any_step_and_run_again_nothing_is_missing_or_twice(
    wiki: Store, shell: Shell, out: Path, place: str
) -> None:
    corpus = texts(3 * EVICT_SIZE)
    add(wiki, corpus)
    embed(wiki)
    words = ["export", "wiki", "-o", "out", "--evict", "--rotate", str(2 * EVICT_SIZE)]

    killed = subprocess.run(
        [sys.executable, "-c", BOMB, place, *words],
        cwd=shell.directory,
        env=shell.environ,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert ledger(wiki).embedded > 0
    add(wiki, corpus)  # a producer is run again as well

    said = shell("vec", *words)

    assert (said.returncode, said.stderr) == (0, "")
    check(out, corpus)
    assert (ledger(wiki).embedded, ledger(wiki).evicted) == (0, len(corpus))
    assert add(wiki, corpus) == len(corpus)


def test_what_a_run_without_evict_wrote_is_evicted_by_one_with_it(
    wiki: Store, shell: Shell, out: Path
) -> None:
    corpus = texts(250)
    add(wiki, corpus)
    embed(wiki)
    shell("vec", "export", "wiki", "-o", "out", "--rotate", "100")

    said = shell("vec", "export", "wiki", "-o", "out", "--evict")

    assert said.stdout == "wiki: 0 vectors written to out in 0 files, 250 evicted\n"
    check(out, corpus)


@pytest.mark.parametrize("options", [[], ["--evict"]])
def test_a_redis_that_lost_everything_is_exported_from_anew(
    wiki: Store, redis_client: redis.Redis, shell: Shell, out: Path, options: list[str]
) -> None:
    add(wiki, texts(30, "before"))
    embed(wiki)
    shell("vec", "export", "wiki", "-o", "out/", *options)
    redis_client.flushall()
    corpus = texts(20, "after")
    add(wiki, corpus)
    embed(wiki)

    said = shell("vec", "export", "wiki", "-o", "out/", *options)

    assert said.stdout.startswith("wiki: 20 vectors written")
    found = rows(out)
    assert len(found) == 50
    assert {str(row["id"]): row["digest"] for row in found[30:]} == {
        id: text_digest(text).hex() for id, text in corpus.items()
    }


def test_a_damaged_file_keeps_what_it_should_hold_in_redis(
    wiki: Store, shell: Shell, out: Path
) -> None:
    add(wiki, texts(3))
    embed(wiki)
    shell("vec", "export", "wiki", "-o", "out/")
    (file,) = out.glob("wiki-*")
    file.write_bytes(file.read_bytes()[:-30])

    said = shell("vec", "export", "wiki", "-o", "out", "--evict")

    assert said.returncode == 2
    assert said.stderr.startswith(f"Error: out/{file.name} cannot be read: ")
    assert len(said.stderr.splitlines()) == 1
    assert ledger(wiki).embedded == 3


# Following


def start(shell: Shell, *options: str, url: str = "") -> subprocess.Popen[str]:
    words = ["export", "wiki", "-o", "out", "--follow", *options]
    return shell.start("vec", *words, *(["--redis-url", url] if url else []))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_publishes_what_it_has(
    wiki: Store, shell: Shell, out: Path, number: int
) -> None:
    corpus = texts(150)
    add(wiki, corpus)
    embed(wiki)
    process = start(shell, "--evict", "--rotate", "100")
    wait_until(lambda: ledger(wiki).evicted == 100, 30)
    more = texts(170)
    add(wiki, more)
    embed(wiki)
    part = out / ".wiki.part"
    wait_until(lambda: part.exists(), 10)

    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)

    assert process.returncode == 0, stderr
    written = len(rows(out))
    assert 150 <= written <= 170
    assert stdout.startswith(
        f"wiki: {written} vectors written to out in 2 files, {written} evicted"
    )
    assert "out/wiki-000000000001-000000000100.jsonl: 100 vectors" in stderr
    shell("vec", "export", "wiki", "-o", "out", "--evict")
    check(out, more)


def test_until_done_ends_when_nothing_is_queued_any_more(
    wiki: Store, shell: Shell, out: Path
) -> None:
    corpus = texts(300)
    add(wiki, corpus)
    process = start(shell, "--evict", "--until-done", "--rotate", "100")
    wiki.backlog.keep_alive("c")
    while leases := wiki.backlog.claim("c", 50):
        wiki.backlog.commit([Embedded(lease, vector_of(lease.job.text), False) for lease in leases])
        assert process.poll() is None

    stdout, stderr = process.communicate(timeout=30)

    assert process.returncode == 0, stderr
    assert stdout == "wiki: 300 vectors written to out in 3 files, 300 evicted\n"
    check(out, corpus)


def test_a_second_follower_is_refused_in_the_same_folder_and_in_another(
    wiki: Store, shell: Shell, out: Path
) -> None:
    add(wiki, texts(10))
    embed(wiki)
    process = start(shell, "--evict", "--rotate", "10")
    wait_until(lambda: ledger(wiki).evicted == 10, 30)

    same = shell("vec", "export", "wiki", "-o", "out", "--evict")
    other = shell("vec", "export", "wiki", "-o", "elsewhere", "--evict")

    assert same.stderr == "Error: another vec export writes wiki to out\n"
    assert other.stderr.startswith("Error: another export evicts from wiki")
    assert same.returncode == other.returncode == 2
    assert process.poll() is None


@pytest.mark.parametrize("options", [[], ["--evict"]])
def test_a_redis_that_is_emptied_while_it_is_followed_is_exported_from_anew(
    wiki: Store, redis_client: redis.Redis, shell: Shell, out: Path, options: list[str]
) -> None:
    add(wiki, texts(100, "before"))
    embed(wiki)
    process = start(shell, "--rotate", "100", *options)
    wait_until(lambda: list(out.glob("wiki-*")), 30)

    redis_client.flushall()
    corpus = texts(50, "after")
    add(wiki, corpus)
    embed(wiki)
    wait_until(lambda: wiki.reader.ledger().embedded_ever == 150, 30)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 0, stderr
    shell("vec", "export", "wiki", "-o", "out/", *options)
    found = rows(out)[100:]
    assert {str(row["id"]): row["digest"] for row in found} == {
        id: text_digest(text).hex() for id, text in corpus.items()
    }
    assert len(found) == 50


def once(
    collection: Store, out: Path, tell: Callable[[int], object] = lambda count: None
) -> Iterator[Published]:
    """An export into the folder that does not follow, begun in this process."""
    return SinkExport(
        Folder(str(out), collection.name, "jsonl", Rotation(vectors=PAGE_SIZE)),
        collection.settings,
        Options(),
        tell=tell,
    ).run()


def test_a_collection_that_begins_while_it_is_exported_is_not_said_to_be_gone(
    wiki: Store, out: Path
) -> None:
    assert list(once(wiki, out, lambda count: add(wiki, texts(3)))) == []
    assert ledger(wiki).pending == 3


@pytest.mark.parametrize("loss", ["dropped", "dropped in part", "emptied", "filled anew"])
def test_an_export_that_does_not_follow_tells_that_its_collection_went_meanwhile(
    wiki: Store, out: Path, redis_client: redis.Redis, loss: str
) -> None:
    corpus = texts(3 * DROP_SIZE)
    add(wiki, corpus)
    embed(wiki)
    published = once(wiki, out)
    assert next(published).vectors == PAGE_SIZE
    if loss == "dropped":
        assert wiki.drop().vectors
    elif loss == "dropped in part":
        wiki.drop_in_part()
    else:
        redis_client.flushall()
    if loss == "filled anew":
        add(wiki, corpus)
        embed(wiki)
    with pytest.raises(CollectionError, match="collection wiki was dropped, or lost by Redis"):
        list(published)
    assert rows(out), "what was published is whole"


def test_a_redis_that_is_away_for_a_while_is_waited_for(
    wiki: Store,
    redis_server: RedisServer,
    shell: Shell,
    out: Path,
    proxy: Callable[[str], TcpProxy],
) -> None:
    line = proxy(redis_server.url)
    first, second = texts(100), texts(200)
    add(wiki, first)
    embed(wiki)
    process = start(shell, "--evict", "--until-done", "--rotate", "100", url=line.url)
    add(wiki, {"later": "on"})
    wait_until(lambda: ledger(wiki).evicted == 100, 30)

    line.refuse()
    add(wiki, second)
    embed(wiki)
    line.refuse(False)
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 0, stderr
    check(out, {**second, "later": "on"})
    assert ledger(wiki).embedded == 0


def test_an_answer_cut_in_the_middle_of_an_eviction_loses_nothing(
    wiki: Store,
    redis_server: RedisServer,
    shell: Shell,
    out: Path,
    proxy: Callable[[str], TcpProxy],
) -> None:
    line = proxy(redis_server.url)
    corpus = texts(1200)
    add(wiki, corpus)
    embed(wiki)
    line.cut_next_reply(to=b"XDEL")  # the script itself, sent with the first eviction

    said = shell("vec", "export", "wiki", "-o", "out", "--evict", "--redis-url", line.url)

    assert said.returncode == 0, said.stderr
    check(out, corpus)
    assert ledger(wiki).evicted == 1200


# Proving it


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_verify_reads_the_folder_too(wiki: Store, shell: Shell, out: Path, format: str) -> None:
    corpus = texts(40)
    add(wiki, corpus)
    embed(wiki)
    shell("vec", "export", "wiki", "-o", "out", "--evict", "--format", format)
    more = {**texts(50), "id7": "changed"}
    add(wiki, more)
    embed(wiki)
    path = shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in more.items()))

    whole = shell("vec", "verify", path.name, "--export", "out")
    blind = shell("vec", "verify", path.name)

    assert whole.stdout == (
        "wiki: 50 of 50 texts embedded (39 of them in files), 0 pending, 0 dead, 0 missing; "
        "0 lines rejected: complete\n"
    )
    assert whole.returncode == 0
    assert blind.returncode == 1
    assert "40 vectors were evicted: name their folder with --export" in blind.stderr
    (file,) = out.glob("wiki-*")
    file.unlink()
    gone = shell("vec", "verify", path.name, "--export", "out")
    assert gone.stderr == "Error: out holds no exported vectors of wiki\n"


def test_a_corpus_larger_than_redis_goes_through_a_window(
    redis_server: RedisServer,
    redis_client: redis.Redis,
    api: API,
    worker_process: StartWorker,
    shell: Shell,
    out: Path,
) -> None:
    corpus = texts(10_000)
    path = shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in corpus.items()))
    limit = 24 * 1024 * 1024  # a half of what the vectors alone would take
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"] + limit)
    try:
        worker_process()
        follower = start(shell, "--evict")
        wait_until(lambda: (out / ".wiki.lock").exists(), 30)
        producer = shell("vec-enqueue", path.name, "--wait")
        assert producer.returncode == 0, producer.stderr
        follower.send_signal(signal.SIGTERM)
        _, stderr = follower.communicate(timeout=60)
        assert follower.returncode == 0, stderr
        assert stderr.startswith("wiki: nothing is enqueued yet: waiting\n")
        shell("vec", "export", "wiki", "-o", "out", "--evict")
    finally:
        redis_client.config_set("maxmemory", 0)

    assert Counter(row["id"] for row in rows(out)) == Counter(list(corpus))
    said = shell("vec", "verify", path.name, "--export", "out")
    assert said.stdout.startswith("wiki: 10,000 of 10,000 texts embedded (10,000 of them in files)")
    assert api.log().charged == 10_000
