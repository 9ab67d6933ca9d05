"""The surroundings: what a person's environment, directory and files say behind our back. A command
works as if it said nothing, or ends with one line that says what to change.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from shell import Shell

from worker.export import ExportError, check_output, export
from worker.local.stack import StackError, local_directory
from worker.local.surroundings import keep_to_this_machine
from worker.record import Record

DEAD_PROXY = "http://127.0.0.1:9"
# Those in one row have nothing to do with each other.
HARMLESS = [
    {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "no/such"},
    {"PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "2", "TMPDIR": "/no/such", "NO_COLOR": "1"},
    {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "1"},
    {"HOME": "/no/such", "XDG_DATA_HOME": "relative", "COLUMNS": "many", "FORCE_COLOR": "1"},
    {"ALL_PROXY": "socks5://127.0.0.1:9", "HTTP_PROXY": DEAD_PROXY, "SSL_CERT_FILE": "/no/such"},
]


@pytest.mark.parametrize("environ", HARMLESS, ids=lambda environ: "-".join(environ))
def test_a_producer_works_whatever_others_say_in_its_environment(
    shell: Shell, environ: dict[str, str]
) -> None:
    shell.write("ä.jsonl", {"id": "ü", "text": "schön"}, "not JSON \u2028")
    done = shell("vec-enqueue", "ä.jsonl", "--collection", "c", **environ)
    assert (done.returncode, "1 new" in done.stdout) == (1, True), done.stderr
    assert "Traceback" not in done.stderr and "Warning:" not in done.stderr
    look = shell("vec", "status", "c", **environ)
    assert (look.returncode, look.stderr) == (0, ""), look.stderr


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
        assert "no home directory: name a place" in line and "VECTOR_EMBED_LOCAL_DIR" in line
    checked = shell("vec", "doctor", "--local")
    assert "Traceback" not in checked.stderr and "no home directory" in checked.stdout


def test_a_home_of_somebody_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTOR_EMBED_LOCAL_DIR", "~no-such-user/stack")
    with pytest.raises(StackError, match="VECTOR_EMBED_LOCAL_DIR: .* names no home"):
        local_directory()


@pytest.mark.parametrize(
    "name", ["HTTP_PROXY", "http_proxy", "All_Proxy", "SSL_CERT_FILE", "HF_HUB"]
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
    assert export([Record("a", b"\0\0\x80\x3f", "m", False)], str(pipe)) == 1
    reader.join(10)
    assert json.loads(read[0])["vector"] == [1.0]
    assert pipe.is_fifo()


def test_a_device_is_written_to_and_stays_a_device() -> None:
    check_output(os.devnull)
    assert export([Record("a", b"\0\0\x80\x3f", "m", False)], os.devnull) == 1
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_pipe_takes_json_lines_only(suffix: str, tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    with pytest.raises(ExportError, match="is a pipe or a device: only JSON lines"):
        check_output(str(pipe))
