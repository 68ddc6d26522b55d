# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""This process: its open files, its memory, its lock file, its time limit."""

import fcntl
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Timer

import click

from crashmover.cli import console
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.report import open_output
from crashmover.errors import NO_THREAD

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1  # from malloc.h of glibc


def allow_open_files() -> None:
    """Allow as many open files as the system grants: many workers hold many at a time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_memory_together() -> None:
    """Let all threads share two heaps, and keep what is freed for what comes next.

    With a heap for each thread, what one has freed is of no use to the others: that took 10 to 20 %
    more memory, and was no faster.  To give the memory for each crash back to the system, and to
    have it handed out anew for the next, took a fourth of the system's time for a copy.
    """
    import ctypes  # 10 ms that other commands need not wait for

    with suppress(AttributeError):  # not every C library has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a file, or end the command: another run holds it."""
    with open_output(path, "a", "--lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"crashmover: another run holds {path}; nothing was done")
            raise click.exceptions.Exit(ExitCode.UNAVAILABLE) from None
        yield


@contextmanager
def time_limit(seconds: float | None, stop: Callable[[], object]) -> Iterator[Event]:
    """Call `stop` after so many seconds; yield the event of that."""
    expired = Event()
    if seconds is None:
        yield expired
        return

    def expire() -> None:
        expired.set()
        stop()

    timer = Timer(seconds, expire)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # "can't start new thread"
        console.say(f"crashmover: --max-duration: {NO_THREAD}; nothing was done")
        raise click.exceptions.Exit(ExitCode.UNAVAILABLE) from None
    try:
        yield expired
    finally:
        timer.cancel()
