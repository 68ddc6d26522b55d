# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Workers: threads, or processes where the interpreter's lock would be the limit."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_EXIT_CODE = 1  # of a worker whose parent is gone; nobody reads it


def start(work: Callable[[T], R], count: int, *, processes: bool) -> "Workers[T, R]":
    """Start `count` workers that do `work`.

    :param processes: whether they had better be processes.  They are forked, and so they are
        threads all the same where forking is not safe: beside other threads, which may hold a
        lock at that moment, and on systems whose libraries do not survive it.
    """
    if processes and count > 1 and sys.platform == "linux" and threading.active_count() == 1:
        try:
            return ForkedWorkers(work, count)
        except (ImportError, OSError):  # no semaphores, or no further process
            pass
    return ThreadWorkers(work, count)


class ThreadWorkers(Generic[T, R]):
    """Threads of this process."""

    def __init__(self, work: Callable[[T], R], count: int) -> None:
        self._work = work
        self._pool: Executor = ThreadPoolExecutor(count, "worker")

    def submit(self, task: T) -> "Future[R]":
        """Let a worker do it."""
        return self._pool.submit(self._work, task)

    def close(self) -> None:
        """Return when all have finished."""
        self._pool.shutdown()


class ForkedWorkers(Generic[T, R]):
    """Processes that are copies of this one, made at once; tasks and results are pickled.

    A signal is for whoever forked them: they finish what they have in hand, and end with it.
    """

    def __init__(self, work: Callable[[T], R], count: int) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(count, context, _begin, (work,))
        self._pool.submit(_nothing).result()  # with the first task all are forked

    def submit(self, task: T) -> "Future[R]":
        """Let a worker do it; `BrokenExecutor` where one was killed."""
        return self._pool.submit(_do, task)

    def close(self) -> None:
        """Return when all have finished."""
        self._pool.shutdown()


Workers = ThreadWorkers[T, R] | ForkedWorkers[T, R]

_work: Callable[[object], object]


def _begin(work: Callable[[object], object]) -> None:
    global _work
    _work = work
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    if parent := parent_process():
        parent.join()
        os._exit(_EXIT_CODE)


def _do(task: object) -> object:
    return _work(task)


def _nothing() -> None:
    pass
