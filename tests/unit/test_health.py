"""The probe of a container: the age of the file that the worker's heartbeat touches."""

from __future__ import annotations

import os
import time
from pathlib import Path

from worker.health import MAX_AGE, beat, trouble


def test_a_worker_that_has_just_touched_its_file_is_well(tmp_path: Path) -> None:
    file = str(tmp_path / "heartbeat")
    beat(file)
    assert trouble(file) is None
    old = time.time() - MAX_AGE - 60
    os.utime(file, (old, old))
    beat(file)
    assert trouble(file) is None


def test_an_old_a_missing_and_an_unnamed_file_are_trouble_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    assert trouble(str(file)) == f"no heartbeat in {file}: No such file or directory"
    beat(str(file))
    old = time.time() - MAX_AGE - 60
    os.utime(file, (old, old))
    assert "no heartbeat for 1" in (trouble(str(file)) or "")
    assert "VECTOR_EMBED_HEARTBEAT_FILE is not set" in (trouble(None) or "")
