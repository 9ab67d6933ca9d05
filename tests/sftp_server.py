"""An sftp server for a folder of this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import paramiko

PASSWORD = "s3cr3t"


@contextmanager
def sftp_server(folder: Path) -> Iterator[int]:
    """The port of a server that shows `folder` as `/` to whoever has the PASSWORD."""
    listener = socket.create_server(("127.0.0.1", 0))
    key = paramiko.RSAKey.generate(2048)
    transports: list[Any] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, folder)
            transports.append(transport)
            try:
                transport.start_server(server=_Server())
            except (paramiko.SSHException, EOFError, OSError):
                transport.close()

    thread = Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in transports:
            transport.close()
        thread.join(5)


class _Server(paramiko.ServerInterface):  # type: ignore[misc]  # it ships no types
    def check_auth_password(self, username: str, password: str) -> Any:
        is_right = password == PASSWORD
        return paramiko.AUTH_SUCCESSFUL if is_right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> Any:
        return paramiko.OPEN_SUCCEEDED


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    def __init__(self, server: object, folder: Path, *args: object) -> None:
        super().__init__(server, *args)
        self._folder = folder

    def _real(self, path: str) -> str:
        return os.path.join(self._folder, self.canonicalize(path).lstrip("/"))

    def list_folder(self, path: str) -> Any:
        real = self._real(path)
        try:
            return [self._attributes(os.path.join(real, name), name) for name in os.listdir(real)]
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    @staticmethod
    def _attributes(path: str, name: str) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.lstat(path), name)

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(self._real(path)))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def open(self, path: str, flags: int, attributes: object) -> Any:
        handle = paramiko.SFTPHandle(flags)
        try:
            handle.readfile = open(self._real(path), "rb")  # noqa: SIM115
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        return handle
