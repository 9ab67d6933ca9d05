"""Watching a fleet at work, as a person does: real processes, a real Redis, a real worker."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
from collections.abc import Callable

import pytest
import redis
from servers import API, TcpProxy, WorkerProcess, wait_for_heartbeat, wait_until
from shell import Shell

from worker.local.redis_server import RedisServer

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]


def texts(number: int) -> list[dict[str, str]]:
    return [{"id": f"doc-{index}", "text": f"text {index}"} for index in range(number)]


# Workers


def test_workers_are_listed_with_what_they_are_at_and_as_lost_when_killed(
    shell: Shell, api: API, worker_process: StartWorker
) -> None:
    assert shell("vec", "workers").stdout.startswith(
        "no worker is alive: start one with vec worker"
    )
    worker = worker_process(concurrency=2)
    api.faults(latency=3)
    shell.write("wiki.jsonl", *texts(10_000))
    shell("vec-enqueue", "wiki.jsonl")

    def at_work() -> bool:
        [one] = json.loads(shell("vec", "workers", "--json").stdout)
        return [work["texts"] for work in one["work"]] == [100, 100]

    wait_until(at_work, timeout=30)
    header, row, doing, total = shell("vec", "workers").stdout.splitlines()
    assert header.split() == ["HOST", "PID", "STATE", "UP", "THREADS", "VERSION"]
    assert row.split()[1:3] == [str(worker.pid), "alive"]
    assert doing.startswith("  wiki: 2 threads, ")
    assert doing.endswith(" in hand")
    assert total == "1 worker alive, 2 threads"

    worker.kill()
    wait_until(lambda: "lost" in shell("vec", "workers").stdout, timeout=20)
    assert "  last seen " in shell("vec", "workers").stdout


# Watching


def test_where_there_is_no_terminal_changes_are_lines(
    shell: Shell,
    redis_server: RedisServer,
    redis_client: redis.Redis,
    proxy: Callable[[str], TcpProxy],
) -> None:
    def looked() -> int:
        return int(redis_client.info("commandstats")["cmdstat_smembers"]["calls"])

    line = proxy(redis_server.url)
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")
    watching = shell.start("vec", "watch", "--redis-url", line.url)
    said: list[str] = []
    assert watching.stdout is not None
    reader = threading.Thread(target=said.extend, args=(watching.stdout,), daemon=True)
    reader.start()

    def tells(words: str) -> None:
        wait_until(lambda: any(words in line for line in list(said)), 30, words)

    tells("wiki: waiting, 0 of 3 done, no worker is alive")
    line.refuse()
    tells("Redis does not answer: trying again")
    line.refuse(False)
    shell("vec", "drop", "wiki", "--yes")
    tells("no collections yet")
    looks = looked()
    wait_until(lambda: looked() >= looks + 3, 20, "further looks")

    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 0
    reader.join(5)
    assert sum("wiki" in line for line in said) == 1
    assert sum("no collections yet" in line for line in said) == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_has_a_live_screen_and_is_left_as_it_was(
    shell: Shell, ending: signal.Signals
) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")
    terminal = Terminal(shell, "vec", "watch", "wiki")

    terminal.read_until("Ctrl-C leaves")
    terminal.process.send_signal(ending)
    rest = terminal.rest()

    assert terminal.process.wait(20) == (0 if ending == signal.SIGINT else 143)
    assert "\x1b[?1049l" in rest  # the screen before it
    assert "\x1b[?25h" in rest  # the cursor
    assert "Traceback" not in rest


def test_a_dumb_terminal_gets_lines(shell: Shell) -> None:
    shell.environ["TERM"] = "dumb"
    terminal = Terminal(shell, "vec", "watch")

    assert "\x1b" not in terminal.read_until("no collections yet")

    terminal.process.send_signal(signal.SIGINT)
    terminal.rest()
    assert terminal.process.wait(20) == 0


class Terminal:
    """A command whose output is a terminal of ours."""

    def __init__(self, shell: Shell, name: str, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = shell.start(name, *arguments, terminal=theirs, output=True)
        os.close(theirs)

    def read_until(self, said: str) -> str:
        """All that comes, until it says that."""
        seen = ""
        while said not in seen:
            part = self._read()
            assert part, f"it ended without {said!r}: {seen}"
            seen += part
        return seen

    def rest(self) -> str:
        """All that comes until its end."""
        seen = ""
        while part := self._read():
            seen += part
        os.close(self._ours)
        return seen

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # so Linux says that the other side is closed
            return ""


# Pausing


def test_a_pause_by_hand_holds_until_it_is_resumed(
    shell: Shell, api: API, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(3))
    shell.write("news.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl", "news.jsonl", "--wait")

    paused = shell("vec", "pause", "wiki", "--reason", "a rest")

    assert paused.stdout == "wiki: paused\n"
    assert paused.stderr == "To continue: vec resume wiki\n"
    wait_for_heartbeat(redis_client)
    shell.write("wiki.jsonl", *texts(5))
    shell("vec-enqueue", "wiki.jsonl")
    page = shell("vec", "status", "wiki").stdout
    assert page.startswith(
        "wiki: paused\n  paused: by hand: a rest. To continue: vec resume wiki\n"
    )
    assert json.loads(shell("vec", "status", "wiki", "--json").stdout)["pending"] == 2

    assert shell("vec", "resume", "wiki").stdout == "wiki: resumed\n"
    assert shell("vec", "resume").stdout == "all collections: nothing was halted or paused\n"
    assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0


def test_what_no_worker_has_seen_yet_can_be_paused(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")

    answer = shell("vec", "pause")

    assert (answer.returncode, answer.stdout) == (0, "wiki: paused\n")
    assert shell("vec", "status", "wiki").stdout.startswith("wiki: paused\n")
