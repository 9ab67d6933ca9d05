"""What `deploy/` ships: that it says what is so, and runs, as far as the tools for it are here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from servers import API, API_KEY, TcpProxy, WorkerProcess, wait_until

from worker import Collection, enqueue
from worker.cli import vec
from worker.cli.command import Target
from worker.local.child import Child
from worker.local.redis_server import RedisServer, free_port
from worker.monitor.metrics import FleetCollector
from worker.monitor.page.letters import read_letters
from worker.monitor.page.snapshot import read_snapshot
from worker.settings import Settings
from worker.store.connection import connect
from worker.throttle import throttle_name

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
REFERENCE = ROOT / "docs" / "reference"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
StartWorker = Callable[..., WorkerProcess]


def tool(name: str) -> str:
    """The program, or a skip that names it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> None:
    """Run it to a good end."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


# Metrics: documented, exported and used are the same


def documented() -> dict[str, tuple[str, ...]]:
    """name: (type, *labels), by the table of the reference."""
    table = (REFERENCE / "metrics.md").read_text()
    rows = re.findall(r"^\| `(vec_\w+)` \| (\w+) \| ([\w, ]*) ?\|", table, re.M)
    return {name: (kind, *re.findall(r"\w+", labels)) for name, kind, labels in rows}


def used(expression: str) -> set[str]:
    """The metrics in a query: `x_bucket` is of the histogram `x`."""
    return {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bvec_\w+", expression)}


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load(ALERTS.read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    """Everything that Prometheus is asked by what we ship."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for rule in rules():
        yield rule["expr"]
    scaled = yaml.safe_load((DEPLOY / "k8s" / "keda.yaml").read_text())
    for trigger in scaled["spec"]["triggers"]:
        yield trigger["metadata"]["query"]


def worked(settings: Settings, worker: StartWorker, api: API) -> Collection:
    """A collection with a sample of everything: embedded, dead, and requests told of."""
    api.faults(rules=[{"answer": "named", "marker": "poison"}])
    worker()
    texts = [*((f"id-{number}", f"text {number}") for number in range(120)), ("bad", "poison")]
    enqueue(texts, "wiki", settings=settings)
    collection = Collection("wiki", settings=settings)
    assert collection.wait(30).dead == 1
    name = throttle_name(api.base_url, API_KEY)
    endpoint, _, key = name.partition("-")
    # What is there only for some APIs, put there as the throttle would.
    client = connect(settings)
    for field, value in (("rate", "5"), ("limit", "6"), ("most", "8"), ("quota_limit", "900")):
        client.hset(f"{settings.prefix}:throttle:{{{endpoint}}}:{key}", field, value)
    requests = f"{settings.prefix}:throttle:{{{name}}}:requests"
    wait_until(lambda: client.exists(requests), 10, "the heartbeat to tell of requests")
    return collection


def test_the_table_of_metrics_is_what_is_exported(
    settings: Settings, worker_process: StartWorker, api: API
) -> None:
    worked(settings, worker_process, api)
    exported = {}
    for family in FleetCollector(settings).collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        kind = "gauge" if family.type == "info" else family.type
        exported[family.name + suffix] = (kind, *sorted(labels))
        assert family.documentation.endswith("."), family.name
    table = {name: (kind, *sorted(labels)) for name, (kind, *labels) in documented().items()}
    assert exported == table


def test_every_query_names_metrics_that_exist() -> None:
    for query in queries():
        assert used(query), query
        assert used(query) <= set(documented()), query


def test_every_alert_is_explained_and_every_explained_alert_is_there() -> None:
    explained = re.findall(r"^\| `(Vec\w+)` \|", (DEPLOY / "README.md").read_text(), re.M)
    assert explained == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_every_panel_of_the_dashboard_can_be_drawn() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        title = panel["title"]
        assert panel["description"] and panel["datasource"]["type"] == "prometheus", title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["targets"], title
        if panel["type"] == "timeseries":
            assert all(target["legendFormat"] for target in panel["targets"]), title
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, title
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, f"{title} lies over another"
        taken |= cells


# Prometheus itself


def test_promtool_finds_nothing_wrong(exposition: str) -> None:
    promtool = tool("promtool")
    run(promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_alerts_ring_when_they_should_and_only_then() -> None:
    run(tool("promtool"), "test", "rules", str(Path(__file__).parent / "alerts.test.yml"))


@pytest.fixture
def exposition(settings: Settings, worker_process: StartWorker, api: API) -> str:
    from prometheus_client import generate_latest

    worked(settings, worker_process, api)
    registry = CollectorRegistry()
    registry.register(FleetCollector(settings))
    return generate_latest(registry).decode()


def test_a_real_prometheus_answers_every_query(
    settings: Settings, worker_process: StartWorker, api: API, tmp_path: Path
) -> None:
    prometheus = tool("prometheus")
    worked(settings, worker_process, api)
    exporter = Child(
        "the exporter",
        [
            *(sys.executable, "-c", "from worker.cli import vec; vec()", "exporter"),
            *("--port", "0", "--redis-url", settings.redis_url),
        ],
        tmp_path / "exporter.log",
    )
    target = exporter.wait_for(r"serving http://(\S+)/metrics", 30)[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "vec", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    server = Child(
        "prometheus",
        [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={url[7:]}",
        ],
        tmp_path / "prometheus.log",
    )

    def ask(query: str) -> list[Any]:
        query = query.replace("$collection", ".*").replace("$__rate_interval", "1m")
        try:
            answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
        except httpx.HTTPError:
            return []
        assert answer["status"] == "success", (query, answer)
        result: list[Any] = answer["data"]["result"]
        return result

    try:
        wait_until(lambda: ask("count_over_time(vec_up[1m]) > 3"), 60, "some scrapes")
        silent = [
            (panel["title"], target["expr"])
            for panel in panels()
            for target in panel["targets"]
            if not ask(target["expr"])
        ]
        # Nothing is embedded any more, and this Redis has no limit.
        assert [title for title, _ in silent if title not in ("Time left", "Redis memory")] == []
        for query in queries():
            ask(query)
        groups = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"]
        for rule in groups[0]["rules"]:
            assert rule["health"] == "ok", rule
            assert rule["state"] == "inactive", rule
    finally:
        server.stop()
        exporter.stop()


# Containers, units, Procfile


def environment_names() -> set[str]:
    table = (REFERENCE / "environment.md").read_text()
    return set(re.findall(r"^\| `(VECTOR_EMBED_\w+)` \|", table, re.M))


def test_what_is_shipped_sets_variables_that_exist() -> None:
    known = environment_names()
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.suffix != ".jsonl":
            named = set(re.findall(r"VECTOR_EMBED_[A-Z_]*[A-Z]", path.read_text()))
            assert named <= known | {"VECTOR_EMBED"}, path


def test_a_worker_lives_in_the_eyes_of_a_probe_also_while_redis_is_away(
    redis_server: RedisServer,
    proxy: Callable[[str], TcpProxy],
    worker_process: StartWorker,
    tmp_path: Path,
) -> None:
    file = tmp_path / "heartbeat"
    line = proxy(redis_server.url)
    worker = worker_process(VECTOR_EMBED_REDIS_URL=line.url, VECTOR_EMBED_HEARTBEAT_FILE=str(file))
    wait_until(file.exists, 10, "the first beat")
    line.refuse()
    wait_until(lambda: "Redis does not answer" in worker.log, 20, "the outage")
    file.unlink()
    wait_until(file.exists, 20, "a beat without Redis")
    worker.kill()
    file.unlink()
    probe = [sys.executable, "-m", "worker.health"]
    env = {**os.environ, "VECTOR_EMBED_HEARTBEAT_FILE": str(file)}
    ended = subprocess.run(probe, env=env, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Error: no heartbeat in {file}: No such file or directory\n"
    file.touch()
    assert subprocess.run(probe, env=env, timeout=60).returncode == 0


def test_the_source_distribution_has_what_the_image_is_built_from(tmp_path: Path) -> None:
    sdist = pytest.importorskip("hatchling.builders.sdist")
    [archive] = sdist.SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path)
    [source] = (path for path in tmp_path.iterdir() if path.is_dir())
    dockerfile = (source / "deploy" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M)
    for name in " ".join(copied).split():
        assert (source / name).exists(), name
    for name in ("compose.yaml", "k8s", "systemd", "prometheus"):
        assert (source / "deploy" / name).exists(), name


def test_all_name_the_port_that_the_exporter_takes() -> None:
    command = vec.commands["exporter"]
    port = next(option.default for option in command.params if option.name == "port")
    for name in ("compose.yaml", "prometheus/prometheus.yml", "k8s/exporter.yaml", "README.md"):
        assert re.findall(r"\b9\d{3}\b", (DEPLOY / name).read_text()).count(str(port)), name


def test_a_worker_is_given_more_time_to_end_than_a_request_may_take() -> None:
    longest = Settings.timeout + 15  # and what is left to commit and give back
    deployment = next(yaml.safe_load_all((DEPLOY / "k8s" / "worker.yaml").read_text()))
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= longest
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert int(compose["services"]["worker"]["stop_grace_period"].rstrip("s")) >= longest
    unit = (DEPLOY / "systemd" / "vec-worker@.service").read_text()
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)[0]) >= longest


def test_compose_mounts_files_that_are_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() or source in compose["volumes"], volume


def test_kubernetes_manifests_fit_the_schemas() -> None:
    pytest.importorskip("kubernetes_validate")
    for path in sorted((DEPLOY / "k8s").glob("*.yaml")):
        if path.name != "keda.yaml":  # of its own schema
            run(sys.executable, "-m", "kubernetes_validate", "--strict", str(path))


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    for path in (DEPLOY / "systemd").iterdir():
        # The programs are not in /opt here.
        unit = path.read_text().replace("/opt/vec/bin", str(Path(sys.executable).parent))
        (tmp_path / path.name).write_text(unit)
    units = sorted(map(str, tmp_path.iterdir()))
    command = [analyze, "verify", "--man=no", *units]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    # It looks at the host's own units too.
    assert [line for line in said.splitlines() if "vec-" in line] == []


def test_the_procfile_starts_a_worker_that_works_and_ends_on_sigterm(
    settings: Settings, api: API, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        "VECTOR_EMBED_API_KEY": API_KEY,
        "VECTOR_EMBED_BASE_URL": api.base_url,
        "VECTOR_EMBED_REDIS_URL": settings.redis_url,
        "VEC_CONCURRENCY": "2",
    }
    command = [sys.executable, "-m", "honcho", "-f", str(ROOT / "Procfile"), "-d", str(tmp_path)]
    child = Child("honcho", [*command, "start"], tmp_path / "log", env=env, cwd=tmp_path)
    try:
        enqueue([("a", "text")], "wiki", settings=settings)
        assert Collection("wiki", settings=settings).wait(40).embedded == 1
        with redis.Redis.from_url(settings.redis_url) as client:
            [(member, _)] = client.zrange("vec:workers", 0, -1, withscores=True)
        assert member.endswith(b"/2")
        child.stop(patience=30)
        assert Collection("wiki", settings=settings).status().workers == 0
    finally:
        child.kill()


# Redis' users


@pytest.fixture
def users(redis_server: RedisServer) -> Iterator[Mapping[str, str]]:
    """The URL of each user in users.acl, who is there for the test alone."""
    urls = {}
    with redis.Redis.from_url(redis_server.url) as client:
        for line in (DEPLOY / "redis" / "users.acl").read_text().splitlines():
            _, name, *rules = line.replace("CHANGE_ME", "secret").split()
            if name != "default":
                client.execute_command("ACL SETUSER", name, "reset", *rules)
                urls[name] = f"redis://{name}:secret@127.0.0.1:{redis_server.port}/0"
        client.acl_log_reset()
        yield urls
        for name in urls:
            client.acl_deluser(name)


def test_redis_users_may_do_what_they_must_and_nothing_is_refused_them(
    users: Mapping[str, str],
    redis_client: redis.Redis,
    worker_process: StartWorker,
    api: API,
    tmp_path: Path,
) -> None:
    mine = Settings(redis_url=users["vec"], broker_url=users["vec"])
    worker = worker_process(VECTOR_EMBED_REDIS_URL=users["vec"])
    api.faults(rules=[{"answer": "named", "marker": "poison"}])
    texts = [*((f"id-{number}", f"text {number}") for number in range(120)), ("bad", "poison")]
    enqueue(texts, "wiki", settings=mine)
    status = Collection("wiki", settings=mine).wait(30)
    assert (status.embedded, status.dead) == (120, 1)
    families = {
        family.name: family
        for family in FleetCollector(Settings(redis_url=users["vec-exporter"])).collect()
    }
    assert families["vec_up"].samples[0].value == 1
    reader = Settings(redis_url=users["vec-exporter"], broker_url=users["vec-exporter"])
    assert read_snapshot(reader, Target(None, False).command).sums.dead == 1
    assert [letter.id for letter in read_letters(reader, "wiki", None, 0).letters] == ["bad"]
    draw = f"map wiki -o {tmp_path}/wiki.html"
    export = f"export wiki -o {tmp_path}/wiki.jsonl"
    for user, asked in (
        *(("vec-exporter", asked) for asked in ("status wiki", "workers", "dead wiki", draw)),
        *(("vec", asked) for asked in ("retry wiki", "resume", export, "drop wiki --yes")),
    ):
        ended = CliRunner().invoke(vec, [*asked.split(), "--redis-url", users[user]])
        assert ended.exit_code == 0, (asked, ended.output)
    worker.stop()
    # On 6.2 redis-py may not say its own name (CLIENT SETINFO), and goes on.
    assert [one for one in redis_client.acl_log() if one["object"] != "client"] == []
    with redis.Redis.from_url(users["vec-exporter"]) as client:
        for forbidden in (client.flushall, lambda: client.set("vec:x", "1"), client.config_get):
            with pytest.raises(redis.ResponseError):
                forbidden()
        with pytest.raises(redis.ResponseError):
            client.get("other")
