# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Workers: threads, or processes where the interpreter's lock would be the limit."""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import BinaryIO, Generic, TypeVar, cast

from crashmover import documents
from crashmover.pool import Pool

T = TypeVar("T")
R = TypeVar("R")

_MOMENT = 0.01  # seconds for which those who have work waiting for them go on undisturbed
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerKilled(Exception):
    """A process was killed in the middle of its work."""


class Workers(Generic[T, R]):
    """Workers that all do the same, each one task at a time.

    :param work: what they do
    :param count: how many there are, or as many as the system grants
    :param processes: whether they had better be processes.  These are forked at once, and so
        they are threads all the same where forking is not safe: beside other threads, which
        may hold a lock at that moment, and on systems whose libraries do not survive it.
    """

    def __init__(self, work: Callable[[T], R], count: int, *, processes: bool) -> None:
        self._work = work
        self._processes: SimpleQueue[_Process[T, R]] | None = None
        if processes and count > 1 and sys.platform == "linux" and threading.active_count() == 1:
            if found := _fork(work, count):
                self._processes = SimpleQueue()
                for process in found:
                    self._processes.put(process)
                count = len(found)
        self._threads = Pool(count, "worker")

    def submit(self, task: T) -> "Future[R]":
        """Let a worker do it; `WorkerKilled` where that was a process and is no more."""
        return self._threads.submit(self._work if self._processes is None else self._pass, task)

    def close(self) -> None:
        """Return when all have finished."""
        self._threads.shutdown()
        while self._processes and not self._processes.empty():
            self._processes.get().close()

    def _pass(self, task: T) -> R:
        assert self._processes
        process = self._processes.get()  # there is one for each thread
        try:
            return process.do(task)
        finally:
            self._processes.put(process)


def next_of(
    finished: "SimpleQueue[Future[R]]", timeout: float | None, is_ahead: bool
) -> "Iterator[Future[R]]":
    """Yield what is finished, once anything is; none, if nothing is in time.

    :param is_ahead: whether no worker waits for who asks: then it takes a moment longer, for to be
        woken by many threads, one by one, costs more than all else that is done with a result
    """
    with suppress(Empty):
        yield finished.get(timeout=timeout)
        if is_ahead:
            time.sleep(_MOMENT)
        while True:
            yield finished.get_nowait()


def drop_what_waits(flight: "dict[Future[R], T]") -> None:
    """Remove the tasks that no worker has begun with, so that a run that is stopped ends soon."""
    for future in [future for future in flight if future.cancel()]:
        del flight[future]


class _Process(Generic[T, R]):
    """A process that does one task after the other, as its parent knows it."""

    def __init__(self, pid: int, tasks: BinaryIO, results: BinaryIO) -> None:
        self.files = (tasks, results)
        self._pid = pid

    def do(self, task: T) -> R:
        tasks, results = self.files
        try:
            pickle.dump(task, tasks)
            tasks.flush()
            is_done, result = pickle.load(results)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise WorkerKilled("a worker process has ended in the middle of its work") from error
        if not is_done:
            raise RuntimeError(result)
        return cast(R, result)

    def close(self) -> None:
        """Let it end, and wait until it has."""
        for file in self.files:
            with suppress(OSError):  # it was killed: what waits for it has nowhere to go
                file.close()
        os.waitpid(self._pid, 0)


def _fork(work: Callable[[T], R], count: int) -> "list[_Process[T, R]]":
    """Return so many processes, or fewer, or none, if the system does not grant them."""
    processes: list[_Process[T, R]] = []
    documents.share_turns()
    # A handler of the parent's must not run in a child.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        for _ in range(count):
            processes.append(_fork_one(work, processes))
    except OSError:
        # Each process needs a thread that hands it its work, and threads count as processes: so
        # half of them make room.  A single one would be no faster than a thread.
        kept = len(processes) // 2 if len(processes) > 3 else 0
        for process in processes[kept:]:
            process.close()
        del processes[kept:]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return processes


def _fork_one(work: Callable[[T], R], others: "list[_Process[T, R]]") -> "_Process[T, R]":
    (task_out, task_in), (result_out, result_in) = os.pipe(), os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        for fd in (task_out, task_in, result_out, result_in):
            os.close(fd)
        raise
    if pid == 0:
        try:
            # Or else no worker would ever see the end of its tasks.
            for fd in (task_in, result_out, *(file.fileno() for o in others for file in o.files)):
                os.close(fd)
            _serve(work, parent, os.fdopen(task_out, "rb"), os.fdopen(result_in, "wb"))
        finally:
            os._exit(0)
    os.close(task_out)
    os.close(result_in)
    return _Process(pid, os.fdopen(task_in, "wb"), os.fdopen(result_out, "rb"))


def _serve(work: Callable[[T], R], parent: int, tasks: BinaryIO, results: BinaryIO) -> None:
    """Be a worker.  Signals are for whoever forked it: it finishes what it has in hand; when
    its parent is gone, it ends at once."""
    import ctypes  # Python has no other way to say the latter

    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(EOFError, BrokenPipeError):
        while os.getppid() == parent:
            results.write(_answer(work, pickle.load(tasks)))
            results.flush()


def _answer(work: Callable[[T], R], task: T) -> bytes:
    """Do a task; return whether it was done, and its result, or else what was raised."""
    try:
        return pickle.dumps((True, work(task)))
    except Exception as error:
        return pickle.dumps((False, f"{type(error).__name__}: {error}"))
