"""The code of an earlier version, which works beside ours in a mixed fleet."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest


def unpack(commit: str, directory: Path) -> Path:
    """Our packages as they were, in a new directory below this one. Skips without a history."""
    command = ["git", "-C", str(Path(__file__).parents[1]), "archive", commit]
    packed = subprocess.run([*command, "worker", "vector_embed_client"], capture_output=True)
    if packed.returncode:
        pytest.skip("the history of the repository is not here")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(directory / "earlier")
    return directory / "earlier"
