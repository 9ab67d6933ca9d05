"""Where a Redis may be, and what stands in the way: passwords, users, sockets, TLS, as told by a
real server.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import redis
from servers import wait_until
from shell import Shell

from worker import Collection, enqueue
from worker.engine.broker import make_app
from worker.local.child import Child
from worker.local.redis_server import find_program, free_port
from worker.monitor.scene import broker_fault
from worker.settings import Settings, read_settings
from worker.store.connection import connect

pytestmark = pytest.mark.heavy

PASSWORD = "geheim"
_CONFIG = """\
bind 127.0.0.1 127.0.0.2
port {port}
unixsocket {directory}/r.sock
requirepass {password}
user small on >small ~* resetchannels +ping +client +hello +info
save ""
dir {directory}
"""
_TLS = """\
tls-port {tls_port}
tls-cert-file {directory}/cert.pem
tls-key-file {directory}/key.pem
tls-ca-cert-file {directory}/cert.pem
tls-auth-clients no
"""


class Server(NamedTuple):
    """A redis-server with a password, a socket, and a port for TLS where it can."""

    directory: Path
    port: int
    tls_port: int  # 0: it has none

    def url(self, spelling: str) -> str:
        """The URL that `spelling` stands for."""
        if "{tls}" in spelling and not self.tls_port:
            pytest.skip("this redis-server, or this machine, has no TLS")
        return spelling.format(plain=self.port, tls=self.tls_port, at=self.directory)


@pytest.fixture(scope="module")
def server(
    running_redis: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:  # `running_redis` skips where there is no redis-server
    program = find_program()
    assert program is not None
    directory = tmp_path_factory.mktemp("place")
    port, tls_port = free_port(), free_port()
    said = {"port": port, "tls_port": tls_port, "password": PASSWORD, "directory": directory}
    config = directory / "redis.conf"
    has_certificate = _certificate(directory)
    config.write_text((_CONFIG + _TLS).format(**said))
    command = [program.path, str(config)]
    child = Child("redis-server", command, directory / "redis.log")
    if not has_certificate or not _serves(child):
        child.stop()
        config.write_text(_CONFIG.format(**said))
        child = Child("redis-server", command, directory / "redis.log")
        tls_port = 0
        assert _serves(child), child.tail()
    yield Server(directory, port, tls_port)
    child.stop()


def _serves(child: Child) -> bool:
    """Whether it takes connections, or else has ended."""
    wait_until(lambda: not child.running or "eady to accept" in child.tail())
    return child.running


def _certificate(directory: Path) -> bool:
    """A self-signed certificate for 127.0.0.1; whether it could be made."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return False
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    return not subprocess.run(command, cwd=directory, capture_output=True).returncode


@pytest.mark.parametrize(
    "spelling",
    [
        "redis://:geheim@127.0.0.1:{plain}/1",
        "redis://default:geheim@127.0.0.1:{plain}?db=1",
        "redis://127.0.0.1:{plain}?password=geheim&client_name=mine",
        "redis://:geheim@127.0.0.1:{plain}?protocol=3&decode_responses=True",
        "redis://:geheim@127.0.0.1:{plain}?socket_timeout=1&max_connections=1",
        "redis://:geheim@127.0.0.1:{plain}?health_check_interval=1&socket_keepalive=no",
        "unix://:geheim@{at}/r.sock",
        "unix://:geheim@{at}/r.sock?db=1",
        "redis+socket://:geheim@{at}/r.sock?virtual_host=1",
        "rediss://:geheim@127.0.0.1:{tls}/1?ssl_cert_reqs=none",
        "rediss://:geheim@127.0.0.1:{tls}/1?ssl_cert_reqs=CERT_NONE",
        "rediss://:geheim@127.0.0.1:{tls}?ssl_cert_reqs=required&ssl_ca_certs={at}/cert.pem",
        "rediss://:geheim@127.0.0.1:{tls}?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={at}/cert.pem",
    ],
)
def test_texts_are_queued_and_workers_woken_wherever_redis_is(
    server: Server, spelling: str
) -> None:
    url = server.url(spelling)
    settings = read_settings({"VECTOR_EMBED_REDIS_URL": url})
    client = cast(redis.Redis, connect(settings))
    client.flushdb()
    enqueue([("a", "one")], collection="c", settings=settings)
    assert Collection("c", settings=settings).status().pending == 1
    with make_app(settings).connection_for_read() as broker:
        queue = broker.SimpleQueue(settings.queue)
        assert queue.get(timeout=5).headers["task"] == "worker.drain"
        queue.close()


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("redis://127.0.0.1:{plain}", "asks for a password: put it into the URL"),
        ("redis://:no@127.0.0.1:{plain}", "refuses the user or the password"),
        ("redis://u:no@127.0.0.1:{plain}", "refuses the user or the password"),
        ("redis://small:small@127.0.0.1:{plain}", "does not let its user do what is needed"),
        ("redis://:geheim@127.0.0.1:{plain}/99", "has no such database"),
        ("redis://:geheim@127.0.0.1:{tls}", "begin the URL with rediss://"),
        ("rediss://:geheim@127.0.0.1:{tls}", "has a certificate that is not trusted"),
        (
            "rediss://:geheim@127.0.0.2:{tls}?ssl_ca_certs={at}/cert.pem",
            "has a certificate that is not trusted",
        ),
        ("redis://no.such.host.invalid", "is at a host that cannot be found"),
        ("redis://127.0.0.1:1", "Connection refused. Start one, name another"),
        ("unix:///no/such.sock", "No such file or directory. Start one"),
    ],
)
def test_what_stands_in_the_way_is_told_in_one_true_line(
    server: Server, spelling: str, words: str, tmp_path: Path
) -> None:
    url = server.url(spelling)
    shell = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": url})
    shell.write("c.jsonl", {"id": "a", "text": "one"})
    for command in (["vec", "status"], ["vec-enqueue", "c.jsonl"]):
        done = shell(*command)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: ") and words in line
        assert PASSWORD not in line
        assert "Start one" not in line or "Start one" in words


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("redis://127.0.0.1:{plain}", "asks for a password"),
        ("redis://u:no@127.0.0.1:{plain}", "refuses the user or the password"),
        ("redis://:geheim@127.0.0.1:{plain}/99", "has no such database"),
    ],
)
def test_a_worker_does_not_start_with_a_url_that_redis_refuses(
    server: Server, spelling: str, words: str, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": server.url(spelling)})
    done = shell("vec", "worker", VECTOR_EMBED_API_KEY="vec_test")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and words in line


def test_tls_to_a_port_without_it_is_told_as_that_within_seconds(
    server: Server, tmp_path: Path
) -> None:
    # redis-server waits for more of what it takes for a command
    url = server.url("rediss://:geheim@127.0.0.1:{plain}")
    start = time.monotonic()
    done = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": url})("vec", "status")
    assert time.monotonic() - start < 20  # of the 30 for an answer
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "If this port is without TLS, begin the URL with redis://" in line
    # And the same of a broker
    assert "Timeout" in str(broker_fault(Settings(broker_url=url)))
    assert time.monotonic() - start < 30


def test_another_server_at_the_port_is_told_as_that(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    web = Child("a web server", command, tmp_path / "log")
    try:
        web.wait_for("Serving HTTP", 20)
        shell = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": f"redis://127.0.0.1:{port}"})
        done = shell("vec", "status")
    finally:
        web.stop()
    assert done.returncode == 2
    assert "is another server at this port?" in done.stderr


@pytest.fixture
def enqueue_beside() -> Callable[[Server, str, Path], subprocess.CompletedProcess[str]]:
    """Enqueues into a good Redis, with another broker."""

    def run(server: Server, broker: str, directory: Path) -> subprocess.CompletedProcess[str]:
        url = server.url("redis://:geheim@127.0.0.1:{plain}/2")
        cast(redis.Redis, connect(Settings(redis_url=url))).flushdb()
        environ = {"VECTOR_EMBED_REDIS_URL": url, "VECTOR_EMBED_BROKER_URL": server.url(broker)}
        shell = Shell(directory, environ)
        shell.write("c.jsonl", {"id": "a", "text": "one"})
        return shell("vec-enqueue", "c.jsonl")

    return run


@pytest.mark.parametrize(
    "broker",
    [
        "redis://:no@127.0.0.1:{plain}",
        "redis://small:small@127.0.0.1:{plain}",
        "redis://:geheim@127.0.0.1:{plain}/99",
        "redis://127.0.0.1:1",
        "redis://no.such.host.invalid",
        "amqp://u:p@127.0.0.1:1//",
    ],
)
def test_a_broker_that_refuses_is_one_line_and_the_texts_are_queued_all_the_same(
    server: Server,
    broker: str,
    tmp_path: Path,
    enqueue_beside: Callable[[Server, str, Path], subprocess.CompletedProcess[str]],
) -> None:
    done = enqueue_beside(server, broker, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 new" in done.stdout
    assert "the pump will wake the workers" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("broker", ["amqp://u:p@h:port//", "carrierpigeon://h", "h:5672"])
def test_a_broker_that_cannot_be_meant_ends_the_command_before_anything_is_queued(
    server: Server,
    broker: str,
    tmp_path: Path,
    enqueue_beside: Callable[[Server, str, Path], subprocess.CompletedProcess[str]],
) -> None:
    done = enqueue_beside(server, broker, tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: VECTOR_EMBED_BROKER_URL: ")
