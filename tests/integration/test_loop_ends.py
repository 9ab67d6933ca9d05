"""A process whose background thread cannot continue ends, and says why."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker.engine.loop import STATUS

_DOOMED = """
import threading, time
from worker.engine.loop import Loop

def step():
    raise {error}

def no_thread(self):
    raise RuntimeError("can't start new thread")

if {unstartable}:
    threading.Thread.start = no_thread
Loop("heartbeat", step, 0.01, threading.Event()).start()
time.sleep(60)
"""


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "MemoryError()"])
def test_a_loop_that_cannot_continue_ends_its_process(error: str) -> None:
    code = _DOOMED.format(error=error, unstartable=False)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ended.returncode == STATUS
    assert "the heartbeat cannot continue" in ended.stderr


def test_a_process_that_can_start_no_thread_ends() -> None:
    code = _DOOMED.format(error="ValueError()", unstartable=True)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ended.returncode == STATUS
    assert "can't start new thread" in ended.stderr
