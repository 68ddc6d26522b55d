# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A server process: started on a free port, waited for, and never left behind."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
_START = 30.0  # seconds until a server must answer
_STOP = 10.0  # to end in good order
_DIE = 2.0  # to end without; one that had been paused may have children that take longer
_TRIES = 5  # another process may take the port before the server does
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class MissingServer(Exception):
    """It is not installed."""


class ServerProcess(ABC):
    """A server; starts on entering, stops on leaving, and may be stopped and started between.

    :param user: the name of the user that it runs as; None: who runs the tests
    """

    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL
    """What it is sent by the system when the tests are killed, and when they are done."""

    def __init__(self, user: str | None = None) -> None:
        self.host = HOST
        self.port = 0
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        # Not pytest's own directory: no other user could look into that.
        self.directory = Path(tempfile.mkdtemp(prefix="crashmover-test-"))
        if user:
            owner = pwd.getpwnam(user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)

    @abstractmethod
    def command(self) -> list[str | Path]:
        """What to run, on `port`; no secret is in it."""

    def environment(self) -> dict[str, str]:
        """What to run it with besides the environment of the tests."""
        return {}

    def prepare(self) -> None:
        """Do what comes before the first start."""

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process
        return self._process.pid

    def pids(self) -> list[int]:
        """Of it and the processes that it has started."""
        return [self.pid, *_children(self.pid)]

    def start(self) -> None:
        """Start it and wait until it answers; on the port that it had, if it had one.

        :raises RuntimeError: it does not; the text has the end of its log
        """
        for _ in range(_TRIES):
            self.port = self.port or _free_port()
            self._process = self.run(self.command())
            if self._answers():
                return
            self.stop()
            self.port = 0
        raise RuntimeError(f"{type(self).__name__} does not start:\n{self._log_tail()}")

    def run(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        """Start a program as the server's user."""
        with self._log.open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=os.environ | {"HOME": str(self.directory)} | self.environment(),
                preexec_fn=self._die_with_the_tests,
                start_new_session=True,
                **self._as_user(),
            )
        return process

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        self._end(self.stop_signal)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(number)
        try:
            self._process.wait(_DIE if number is self.death_signal else _STOP)
        except subprocess.TimeoutExpired:
            self._send(signal.SIGKILL)
            self._process.wait()
        self._process = None

    def crash(self) -> None:
        """End it without any order, and its processes; it recovers when it is started."""
        self._end(self.death_signal)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self._process
        self._send(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Let it answer nobody until `resume`."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if self._process and self._process.poll() is None:
            self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):  # children come and go
                os.kill(pid, number)

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._end(self.death_signal)  # what it has is not needed any more
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.ping()
                return True
            except OSError:
                time.sleep(0.02)
        return False

    def ping(self) -> None:
        """Raise `OSError` unless it answers."""
        socket.create_connection((self.host, self.port), 1).close()

    def _as_user(self) -> dict[str, Any]:
        if not self._user:
            return {}
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}

    def _die_with_the_tests(self) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, self.death_signal)

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _log_tail(self) -> str:
        try:
            return self._log.read_text("utf-8", "replace")[-2000:]
        except OSError as error:
            return str(error)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
    return port


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text("utf-8", "replace")
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found += [int(entry.name), *_children(int(entry.name))]
    return found
