"""The surroundings: what a person's environment, directory and files say behind our back. A command
works as if it said nothing, or ends with one line that says what to change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import StartWorker
from servers import API, API_KEY, wait_until
from shell import Shell

import worker
from worker import Collection, enqueue
from worker.export.files import ExportError, check_output, export
from worker.local.child import Child
from worker.local.redis_server import RedisServer
from worker.local.stack import StackError, local_directory
from worker.local.surroundings import keep_to_this_machine
from worker.settings import Settings
from worker.types import Stored

pytestmark = pytest.mark.heavy

DEAD_PROXY = "http://127.0.0.1:9"
ABSENT = "/no/such"
# What changes nothing for anybody, all at once: a person may have any of it.
HARMLESS = {
    "AUTOSCALE_KEEPALIVE": "many",
    "BROKER_URL": "redis://127.0.0.1:9/9",
    "CELERY_BROKER_READ_URL": "redis://127.0.0.1:9/9",
    "CELERY_BROKER_URL": "redis://127.0.0.1:9/9",
    "CELERY_BROKER_WRITE_URL": "redis://127.0.0.1:9/9",
    "CELERY_CONFIG_MODULE": "no.such.config",
    "CELERY_RESULT_BACKEND": "nowhere://",
    "CELERYD_CONCURRENCY": "many",
    "DJANGO_SETTINGS_MODULE": "no.such.settings",
    "FORCE_COLOR": "1",
    "HOME": ABSENT,
    "LANG": "C",
    "LC_ALL": "C",
    "NETRC": ABSENT,
    "NO_COLOR": "1",
    "NO_PROXY": "[::, 127.0.0.1",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "0",
    "REDIS_SOCKET_TIMEOUT": "0",
    "TERM": "dumb",
    "TMPDIR": ABSENT,
    "TZ": "no/such",
    "XDG_DATA_HOME": "/proc/self",
}
# What changes nothing for those who send nothing to the API.
OF_THE_API = {
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "HTTP_PROXY": "http://[::",
    "HTTPS_PROXY": DEAD_PROXY,
    "SSL_CERT_FILE": ABSENT,
    "SSL_CERT_DIR": ABSENT,
    "SSLKEYLOGFILE": "/no/such/keys",
    "VECTOR_EMBED_API_KEY": "a key of two\nlines",
}
MORE = {
    "COLUMNS": "many",
    "LC_ALL": "xx_YY.nonsense",
    "PYTHONWARNINGS": "error",
    "C_FORCE_ROOT": "",
}


@pytest.mark.parametrize("more", [{"COLUMNS": "1"}, MORE], ids=["harmless", "more"])
def test_a_producer_works_whatever_others_say_in_its_environment(
    shell: Shell, more: dict[str, str]
) -> None:
    environ = {**HARMLESS, **OF_THE_API, **more}
    shell.write("ä.jsonl", {"id": "ü", "text": "schön"}, "not JSON \u2028")
    done = shell("vec-enqueue", "ä.jsonl", "--collection", "c", **environ)
    assert (done.returncode, "1 new" in done.stdout) == (1, True), done.stderr
    assert "Traceback" not in done.stderr and "Warning:" not in done.stderr
    look = shell("vec", "status", "c", **environ)
    assert (look.returncode, look.stderr) == (0, ""), look.stderr


def test_workers_work_whatever_others_say_in_their_environment(
    shell: Shell,
    redis_server: RedisServer,
    api: API,
    worker_process: StartWorker,
    tmp_path: Path,
) -> None:
    settings = Settings(redis_url=redis_server.url, broker_url=redis_server.url)
    collection = Collection("c", settings=settings)
    # Given a worker of Celery's command
    worker = worker_process(concurrency=1, **HARMLESS)
    # When a text is queued, Then it embeds it
    enqueue([("ü", "schön")], collection="c", settings=settings)
    wait_until(lambda: collection.status().embedded == 1, 30, "the first vector")
    worker.stop()
    # And so does one of our own command, beside a stranger's modules
    for name in ("worker", "celery", "redis"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')")
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}
    ours = Child(
        "vec worker",
        shell.command("vec", "worker", "--threads", "1"),
        tmp_path / "worker.log",
        env={**shell.environ, **HARMLESS, **MORE, **environ},
        cwd=tmp_path,
    )
    try:
        ours.wait_for(r" ready\.", 60)
        enqueue([("b", "naïve")], collection="c", settings=settings)
        wait_until(lambda: collection.status().embedded == 2, 30, "the second vector")
        # And the doctor asks the API on the same way as they do
        around = {**HARMLESS, **MORE, "HTTP_PROXY": DEAD_PROXY}
        doctor = shell("vec", "doctor", **around, **environ)
        assert f"the API at {api.base_url} answers" in doctor.stdout, doctor.stderr
    finally:
        ours.stop(20)
    assert "Traceback" not in worker.log + ours.log.read_text()


def test_the_library_works_whatever_others_say_in_its_environment(shell: Shell, api: API) -> None:
    script = (
        "from vector_embed_client import Client\n"
        f"with Client('{API_KEY}', '{api.base_url}') as client:\n"
        "    print(len(client.embed('one').vector))"
    )
    # A proxy that is not asked: the API is an exception of it
    environ = {**HARMLESS, **MORE, "HTTP_PROXY": DEAD_PROXY, "SSL_CERT_FILE": ABSENT}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=shell.directory,
        env={**shell.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1


# What a worker cannot work with, and a word of the way out
UNUSABLE = {
    "VECTOR_EMBED_API_KEY": ("of two words", "Copy it again"),
    "VECTOR_EMBED_BASE_URL": ("http://[::", "must be an address like"),
    "VECTOR_EMBED_REDIS_URL": ("redis://h?colour=red", "leave it out"),
    "VECTOR_EMBED_BROKER_URL": ("h:5672", "it is like redis://"),
    "VECTOR_EMBED_MAX_IN_FLIGHT": ("99", "from 1 to 15"),
    "VECTOR_EMBED_APIKEY": ("vec_x", "did you mean VECTOR_EMBED_API_KEY"),
    "HTTPS_PROXY": ("ftp://proxy", "write it like"),
    "ALL_PROXY": ("nonsense://proxy", "write it like"),
    "SSL_CERT_FILE": (ABSENT, "correct it, or unset it"),
    "SSL_CERT_DIR": (ABSENT, "correct it, or unset it"),
    "SSLKEYLOGFILE": ("/no/such/keys", "correct it, or unset it"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_worker_that_cannot_work_ends_with_one_line_that_names_the_variable(
    shell: Shell, name: str
) -> None:
    value, way_out = UNUSABLE[name]
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": "https://127.0.0.1:9"}
    environ["SSL_CERT_FILE"] = ""  # it stands above SSL_CERT_DIR
    done = shell("vec", "worker", **{**environ, name: value})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and name in line and way_out in line


@pytest.mark.parametrize("name", ["ALL_PROXY", "VECTOR_EMBED_MAX_IN_FLIGHT"])
def test_so_does_one_of_celerys_own_command(shell: Shell, name: str) -> None:
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": "https://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "--quiet", "-A", "worker", "worker", "-P", "threads"],
        cwd=shell.directory,
        env={**shell.environ, **environ, name: UNUSABLE[name][0]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: ") and name in line


@pytest.mark.parametrize("command", [["vec", "status"], ["vec-enqueue", "c.jsonl"]])
def test_a_stranger_of_the_name_worker_is_named(shell: Shell, command: list[str]) -> None:
    shell.write("c.jsonl", {"id": "a", "text": "one"})
    stranger = shell.directory / "strange" / "worker.py"
    stranger.parent.mkdir()
    stranger.write_text("raise SystemExit('a stranger')")
    path = os.pathsep.join([str(stranger.parent), str(Path(worker.__file__).parent.parent)])
    done = shell(*command, PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert str(stranger) in line and "PYTHONPATH" in line


LOCAL_HARMLESS = {
    "HTTP_PROXY": DEAD_PROXY,
    "https_proxy": DEAD_PROXY,
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "[::",
    "SSL_CERT_FILE": "/no/such",
    "SSLKEYLOGFILE": "/no/such/keys",
    "WEB_CONCURRENCY": "many",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "1",
    "HF_HOME": "/no/such",
    "TZ": "no/such",
    "LC_ALL": "C",
    "CELERY_BROKER_URL": "redis://127.0.0.1:9/9",
    "DJANGO_SETTINGS_MODULE": "no.such.settings",
    "REDIS_URL": "redis://127.0.0.1:9?colour=red",
    "VECTOR_EMBED_API_KEY": "vec_of_the_real_thing",
}


def test_a_local_run_keeps_to_this_machine_whatever_the_environment_says(
    running_redis: object, tmp_path: Path
) -> None:
    # Given everything at once, and a user who has no home and no name
    (tmp_path / "nameless").mkdir()
    nobody = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"
    (tmp_path / "nameless" / "sitecustomize.py").write_text(nobody)
    stack = tmp_path / "stack"
    shell = Shell(tmp_path, {**LOCAL_HARMLESS, "VECTOR_EMBED_LOCAL_DIR": str(stack)})
    shell.environ.pop("HOME", None)
    shell.environ["PYTHONPATH"] = str(tmp_path / "nameless")
    (tmp_path / "worker.py").write_text("raise SystemExit('imported from the current directory')")
    shell.write("c.jsonl", {"id": "a", "text": "ships at sea"})
    # When a corpus is embedded and searched
    done = shell("vec-enqueue", "c.jsonl", "--local")
    assert done.returncode == 0, done.stderr + _logs(stack)
    found = shell("vec", "search", "c", "ships", "--local")
    # Then all of it works
    assert found.returncode == 0 and "ships at sea" in found.stdout, found.stderr
    assert json.loads((tmp_path / "c.vectors.jsonl").read_text())["id"] == "a"


def _logs(directory: Path) -> str:
    return "".join(log.read_text(errors="replace")[-2000:] for log in directory.glob("*.log"))


def test_a_user_without_a_home_is_told_to_name_a_place(shell: Shell, tmp_path: Path) -> None:
    nobody = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"
    (tmp_path / "nameless").mkdir()
    (tmp_path / "nameless" / "sitecustomize.py").write_text(nobody)
    shell.environ.pop("HOME", None)
    shell.environ.pop("XDG_DATA_HOME", None)
    shell.environ["PYTHONPATH"] = str(tmp_path / "nameless")
    shell.write("c.jsonl", {"id": "a", "text": "one"})
    for environ in ({}, {"VECTOR_EMBED_LOCAL_DIR": "~/stack"}):
        done = shell("vec-enqueue", "c.jsonl", "--local", **environ)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "no home directory: name a directory" in line and "VECTOR_EMBED_LOCAL_DIR" in line
    checked = shell("vec", "doctor", "--local")
    assert "Traceback" not in checked.stderr and "no home directory" in checked.stdout


def test_a_home_that_cannot_be_written_is_told_with_the_way_out(shell: Shell) -> None:
    shell.write("c.jsonl", {"id": "a", "text": "one"})
    done = shell("vec-enqueue", "c.jsonl", "--local", XDG_DATA_HOME="/proc/self")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "/proc/self" in line and "name another directory in VECTOR_EMBED_LOCAL_DIR" in line


def test_a_home_of_somebody_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTOR_EMBED_LOCAL_DIR", "~no-such-user/stack")
    with pytest.raises(StackError, match="VECTOR_EMBED_LOCAL_DIR: .* names no home"):
        local_directory()


@pytest.mark.parametrize(
    "name",
    [
        *("HTTP_PROXY", "http_proxy", "All_Proxy", "SSL_CERT_FILE", "HF_HUB", "REDIS_URL"),
        *(
            f"VECTOR_EMBED_{one}"
            for one in ("API_KEY", "DATABASE_URL", "SINK_URL", "REDIS_URL", "BROKER_URL")
        ),
    ],
)
def test_what_leads_elsewhere_is_kept_from_a_local_stack(name: str) -> None:
    environ = {name: "x", "PATH": "y", "NO_PROXY": "[::"}
    keep_to_this_machine(environ)
    assert environ == {"PATH": "y", "NO_PROXY": "*"}


def test_a_directory_that_cannot_be_written_is_one_line_before_anything_is_sent(
    shell: Shell,
) -> None:
    corpus = shell.write("c.jsonl", {"id": "a", "text": "one"})
    shell.directory = Path("/proc/self")  # where root may not write either
    done = shell("vec-enqueue", str(corpus), "-o", "c.vectors.jsonl")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "may not be written to" in line
    shell.directory = corpus.parent
    assert shell("vec", "status", "c").returncode == 2  # there is no such collection


def test_rejected_lines_are_shown_whole_where_they_cannot_be_kept(shell: Shell) -> None:
    corpus = shell.write("c.jsonl", {"id": "a", "text": "one"}, "not JSON")
    shell.directory = Path("/proc/self")
    done = shell("vec-enqueue", str(corpus))
    assert done.returncode == 1
    assert "1 new" in done.stdout and "1 rejected" in done.stdout
    assert "malformed JSON" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_a_closed_stream_harms_nothing(shell: Shell, closed: str) -> None:
    shell.write("c.jsonl", {"id": "a", "text": "one"})
    words = shell.command("vec-enqueue", "c.jsonl")
    shell_words = ["/bin/sh", "-c", f'"$@" {closed}', "sh", *words]
    process = subprocess.run(
        shell_words, cwd=shell.directory, env=shell.environ, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert shell("vec", "status", "c").returncode == 0


# Files that are none


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    check_output(str(pipe))
    assert export([Stored("a", b"\0\0\x80\x3f", "m", False)], str(pipe)) == 1
    reader.join(10)
    assert json.loads(read[0])["vector"] == [1.0]
    assert pipe.is_fifo()


def test_a_device_is_written_to_and_stays_a_device() -> None:
    check_output(os.devnull)
    assert export([Stored("a", b"\0\0\x80\x3f", "m", False)], os.devnull) == 1
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_pipe_takes_json_lines_only(suffix: str, tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    with pytest.raises(ExportError, match="is a pipe or a device: only JSON lines"):
        check_output(str(pipe))
