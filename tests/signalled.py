# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Commands that are sent signals, and what must hold of each whatever it does."""

import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import crashmover
from crashmover.cli.signals import GRACE
from tests.cli_helpers import Argument, command_line, environment
from tests.test_cli_kills import is_running, wait_for_the_end_of
from tests.test_cli_processes import children_of

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IN_TIME = GRACE + 25.0
"""Seconds after which a command has not ended in time: on a machine with other work, too."""

_PACKAGE = Path(crashmover.__file__).parent
# Where the interpreter has just begun with us: an interrupt there is not ours to handle yet.  It
# tells of it at length, and a second signal may keep it from telling all.
_FIRST_LINES = {_PACKAGE / "__init__.py", _PACKAGE / "__main__.py"}
_SUMMARY = re.compile(r"(copied|published|removed) \d")
_ANNOUNCEMENT = "PUBSUB_EMULATOR_HOST is set"


@dataclass(frozen=True)
class Ended:
    """How a command ended that was sent these signals, all there was time for.

    :param seconds: from the first of them to its end
    """

    code: int
    stdout: bytes
    stderr: str
    numbers: Sequence[signal.Signals]
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it has written whole, of data."""
        pieces = self.stdout.decode().split("\n")
        return pieces[:-1]

    @property
    def is_interpreters(self) -> bool:
        """Whether it was interrupted before the first line of the package was done with."""
        frames = [Path(name) for name in re.findall(r'File "([^"]+)"', self.stderr)]
        ours = {path for path in frames if _PACKAGE in path.parents}
        is_told = re.search("KeyboardInterrupt|init_import_site", self.stderr)
        is_interrupted = signal.SIGINT in self.numbers and is_told is not None
        return is_interrupted and bool(frames) and ours <= _FIRST_LINES

    @property
    def how(self) -> str:
        """How it ended, in a word, to be counted."""
        if self.is_interpreters:
            return "before_the_first_line"
        if self.code < 0:
            return "before_or_after_its_work"
        return "finished" if self.code == 0 else "stopped"

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the end of any command."""
        if self.is_interpreters:
            return
        if self.code not in {0, *(sign * n + base for n in self.numbers for sign, base in _CODES)}:
            yield f"exit code {self.code} after {self.numbers}: {self.stderr}"
        said = [line for line in self.stderr.splitlines() if not _is_usual(line)]
        if len(said) > 1 or "Traceback" in self.stderr:
            yield f"too much is said: {self.stderr}"


_CODES = ((1, 128), (-1, 0))  # for a shell these are the same


def _is_usual(line: str) -> bool:
    return _ANNOUNCEMENT in line or _SUMMARY.match(line) is not None


def send(
    process: "subprocess.Popen[bytes]", numbers: Sequence[signal.Signals], pause: float = 0.0
) -> tuple[float, list[signal.Signals]]:
    """Send it signals, and wait for its end and for that of its workers; return how long that
    took, and which signals it has lived to see."""
    begun, sent, workers = time.monotonic(), [], []
    for number in numbers:
        with suppress(FileNotFoundError, ProcessLookupError):
            workers += children_of(process)
        if process.poll() is None:
            process.send_signal(number)
            sent.append(number)
        time.sleep(pause if number is not numbers[-1] else 0)
    process.wait(IN_TIME)
    seconds = time.monotonic() - begun
    wait_for_the_end_of([pid for pid in workers if is_running(pid)])
    return seconds, sent


def run_signalled(
    args: Sequence[Argument],
    place: Path,
    after: float,
    numbers: Sequence[signal.Signals],
    pause: float = 0.0,
) -> Ended:
    """Run a command, and send it signals after so many seconds, if it still runs."""
    stdout, stderr = place / "stdout", place / "stderr"
    with (
        stdout.open("wb") as out,
        stderr.open("wb") as err,
        subprocess.Popen(
            command_line(*args),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment(),
        ) as process,
    ):
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(after)
            seconds, sent = send(process, numbers, pause)
        finally:
            process.kill()
    return Ended(process.returncode, stdout.read_bytes(), stderr.read_text(), sent, seconds)


def pick_signals(rng: random.Random, *, twice: bool) -> tuple[list[signal.Signals], float]:
    """Return one or two signals, and seconds between them."""
    count = 2 if twice and rng.random() < 0.25 else 1
    return rng.choices(SIGNALS, k=count), rng.uniform(0, 0.03)


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + IN_TIME
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def in_queue(path: Path) -> tuple[set[str], int]:
    """What is in a queue's file, and how many of it are leased."""
    with closing(sqlite3.connect(path, timeout=20)) as database:
        rows = database.execute("SELECT body, visible_at FROM messages").fetchall()
    now = time.time()
    return {bytes(body).decode() for body, _ in rows}, sum(when > now for _, when in rows)
