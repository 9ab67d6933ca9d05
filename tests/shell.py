"""A shell: the commands as a person runs them, each in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

Finished = subprocess.CompletedProcess[str]

# As the installed commands do, it imports nothing from the current directory.
_ENTRY = (
    "import sys; sys.path = [path for path in sys.path if path]; "
    "from vector_embed_client.commands import {1}; "
    "sys.argv[0] = {0!r}; {1}()"
)


class Shell:
    """A person at a prompt in `directory`, whose environment names a Redis and no API key."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if "VECTOR_EMBED" not in name}
        kept.pop("REDIS_URL", None)
        self.environ = {**kept, "COLUMNS": "80", "TERM": "xterm", **environ}
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, name: str, *arguments: str, stdin: str = "", **environ: str) -> Finished:
        """Run a command to its end."""
        return subprocess.run(
            self.command(name, *arguments),
            cwd=self.directory,
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",  # the locale may be another than ours
            timeout=100,
        )

    def answering(self, answer: str, name: str, *arguments: str) -> Finished:
        """Run a command at a terminal to its end, and answer the question that it asks."""
        ours, theirs = pty.openpty()
        os.write(ours, answer.encode() + b"\n")
        try:
            return subprocess.run(
                self.command(name, *arguments),
                cwd=self.directory,
                env=self.environ,
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            os.close(theirs)
            os.close(ours)

    def start(
        self, name: str, *arguments: str, terminal: int | None = None, output: bool = False
    ) -> subprocess.Popen[str]:
        """Start a command; its standard error goes to `terminal`, where there is one, and with
        `output` its standard output too.
        """
        process = subprocess.Popen(
            self.command(name, *arguments),
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=terminal if output else subprocess.PIPE,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
        )
        self._started.append(process)
        return process

    def write(self, name: str, *records: object) -> Path:
        """A corpus of JSON lines; a string is a line as it stands."""
        lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
        path = self.directory / name
        path.write_text("".join(line + "\n" for line in lines))
        return path

    def end(self) -> None:
        """End what a test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command as a list of words."""
        entry = _ENTRY.format(name, name.replace("-", "_"))
        return [sys.executable, "-c", entry, *arguments]
