"""What an import brings, and what works where a library is missing. Each in a fresh process."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from worker.corpus import Corpus


def test_the_import_brings_neither_asyncio_nor_numpy() -> None:
    # httpx brings what it brings; we add nothing heavy to it.
    script = (
        "import sys, httpx; before = set(sys.modules); import vector_embed_client; "
        "print(*sorted({'asyncio', 'numpy', 'concurrent.futures'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""


FRAMEWORKS = {
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "haystack": "haystack",
    "chroma": "chromadb",
}


def test_neither_the_client_nor_its_integrations_import_a_framework() -> None:
    code = (
        "import sys, vector_embed_client.integrations, vector_embed_client.integrations.embedder; "
        f"print({set(FRAMEWORKS.values()) | {'pydantic', 'numpy'}} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "set()\n"


@pytest.mark.parametrize("module, framework", FRAMEWORKS.items())
def test_without_its_framework_an_adapter_names_the_extra_to_install(
    module: str, framework: str
) -> None:
    code = (
        f"import sys; sys.modules[{framework!r}] = None\n"
        f"import vector_embed_client.integrations.{module}"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    extra = module.replace("_", "-")
    told = f"is missing: pip install 'vector-embed-cache-client[{extra}]'"
    assert answer.stderr.splitlines()[-1].endswith(told)
    assert framework in answer.stderr.splitlines()[-1]
    assert "During handling" not in answer.stderr


def test_asking_the_worker_for_a_name_imports_no_more_than_it_needs() -> None:
    code = "import sys; from worker import Job, Status; assert 'celery' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_to_enqueue_imports_no_more_than_it_needs() -> None:
    unwanted = {"worker.collection", "worker.engine.query", "worker.store.search"}
    code = f"import sys; from worker import enqueue; assert not {unwanted} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_needs_neither_celery_nor_redis() -> None:
    loaded = (
        "import sys, worker.cli; print({'celery', 'redis', 'httpx', 'rich'} & set(sys.modules))"
    )

    answer = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)

    assert answer.stdout == "set()\n"


def test_without_click_the_commands_name_the_extra_to_install() -> None:
    hidden = "import sys; sys.modules['click'] = None; import worker.cli"

    answer = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)

    assert answer.returncode == 2
    assert "vector-embed-cache-client[worker]" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_corpora_are_read_alike_without_orjson(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b'{"id": 5, "text": "x"}\n{"text": "y"}\n{"id": 18446744073709551616, "text": 1}'
    )
    script = (
        "import sys; sys.modules['orjson'] = None\n"
        "from worker.corpus import Corpus\n"
        "print(list(Corpus(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    with Corpus(str(path)) as corpus:
        assert printed.strip() == str(list(corpus))


@pytest.mark.parametrize("missing", ["numpy", "orjson"])
def test_json_lines_need_neither_numpy_nor_orjson(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "out.jsonl"
    data = struct.pack("<8f", 1.0, -0.0, 0.1, 1e-45, 3.4028235e38, -1 / 3, 7.038531e-26, 16777217.0)
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from worker.export.files import export\n"
        "from worker.types import Record, Stored\n"
        "data = bytes.fromhex(sys.argv[2])\n"
        "export([Stored('ü', data, 'm', True, 't', {'n': 2**70})], sys.argv[1])\n"
    )
    command = [sys.executable, "-c", script, str(path), data.hex()]
    subprocess.run(command, check=True, timeout=60)
    line = json.loads(path.read_text())
    assert struct.pack("<8f", *line.pop("vector")) == data
    assert line == {
        "id": "ü",
        "model": "m",
        "dimensions": 8,
        "cached": True,
        "text": "t",
        "meta": {"n": 2**70},
    }
