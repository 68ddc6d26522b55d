# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Workers: threads, or processes where the interpreter's lock would be the limit.

Why the processes are not those of ``ProcessPoolExecutor``: when one of its processes is killed, it
fails all that is in hand; here only the batch of that process fails.  And it takes 0.6 ms to pass
on a batch of 64 crashes, in place of 0.4 ms (Python 3.11, 4 processes on 2 cores).
"""

import logging
import os
import pickle
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import Any, BinaryIO, Generic, TypeVar, cast

from crashmover import documents
from crashmover.engine.guard import Guard
from crashmover.engine.pace import Pace
from crashmover.errors import StorageError, WorkerKilled
from crashmover.external.roles import Store
from crashmover.pool import Pool

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_Downs = list[StorageError | None]
_Asked = tuple[T, _Downs]
_Answered = tuple[R, _Downs]

_FILES_EACH = 8  # open files and connections that a worker may need at the same time

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def pace_for(
    stores: Sequence[Store], default: int, asked: int | None, batch_for: Callable[[int], int]
) -> Pace:
    """Return the pace of a run with these stores.

    :param default: how many workers are right where nothing is known of the distance
    :param asked: how many the user allows; None: as many as the stores do.  Where the stores allow
        no more than the default, there are as many as the user says
    :param batch_for: as `Pace` has it
    """
    mosts = [store.tuning.most_workers or 0 for store in stores]
    if min(mosts) <= default or are_processes(stores):
        count = asked or default
        return Pace(count, count, batch_for)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = max(default, files // _FILES_EACH) if files > 0 else sys.maxsize  # -1: no limit
    most = min(asked or min(mosts), granted)
    return Pace(min(default, most), most, batch_for)


def are_processes(stores: Sequence[Store]) -> bool:
    """Return True if workers that use these stores had better be processes."""
    return all(store.tuning.processes for store in stores)


class Workers(Generic[T, R]):
    """Workers that all do the same, each one task at a time.

    :param work: what they do
    :param pace: how many there are: threads as many as its limit is at any time, processes as many
        as it is at first; fewer where the system does not grant as many
    :param processes: whether processes are better than threads.  They are forked at once.  Where
        forking is not safe, the workers are threads all the same: beside other threads, which may
        hold a lock at that moment, and on systems whose libraries do not survive it.
    :param guards: of the stores that are used.  What a process finds down, all others learn; and
        a server of theirs that asks for fewer requests has an effect on `pace`.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        pace: Pace,
        *,
        processes: bool,
        guards: Sequence[Guard[Any]] = (),
    ) -> None:
        self._work = work
        self._guards = guards
        self._pace = pace
        self._stores = [store for guard in guards for store in guard.store.stores]
        self._slowdowns_before = self._slowdowns()
        self._busy = 0
        self._lock = threading.Lock()
        self._processes: SimpleQueue[_Process[_Asked[T], _Answered[R]]] | None = None
        count = pace.limit
        if processes and count > 1 and sys.platform == "linux" and threading.active_count() == 1:
            if found := _fork(self._answer, count):
                self._processes = SimpleQueue()
                for process in found:
                    self._processes.put(process)
                count = len(found)
        self._threads = Pool(count, "worker")

    @property
    def count(self) -> int:
        """How many there may be now."""
        return self._threads.most

    def submit(self, task: T, crashes: int = 1) -> "Future[R]":
        """Let a worker do it; the future raises `WorkerKilled` if a process was killed.

        :param crashes: how many crashes the task has
        """
        if self._processes is not None:
            return self._threads.submit(self._ask, task)
        return self._threads.submit(self._timed, task, crashes)

    def close(self) -> None:
        """Return when all have finished."""
        self._threads.shutdown()
        while self._processes and not self._processes.empty():
            self._processes.get().close()

    def tell(self) -> None:
        """Log how many were in flight, if that has changed."""
        if text := self._pace.text():
            logger.info("%s", text)

    def _timed(self, task: T, crashes: int) -> R:
        """Do it, and let the pace know how long it took."""
        with self._lock:
            self._busy += 1
            began = self._pace.begin()
        start = monotonic()
        try:
            return self._work(task)
        finally:
            seconds = monotonic() - start
            with self._lock:
                slowdowns = self._slowdowns() - self._slowdowns_before
                self._pace.finish(began, crashes, seconds, self._busy, slowdowns)
                self._busy -= 1
                self._threads.most = self._pace.limit

    def _slowdowns(self) -> int:
        return sum(store.slowdowns for store in self._stores)

    def _ask(self, task: T) -> R:
        """Let a process do it: in a thread of the parent, which has one for each process."""
        assert self._processes
        process = self._processes.get()
        try:
            result, downs = process.do((task, self._downs()))
        finally:
            self._processes.put(process)
        self._learn(downs)
        return result

    def _answer(self, asked: "_Asked[T]") -> "_Answered[R]":
        task, downs = asked
        self._learn(downs)
        return self._work(task), self._downs()

    def _downs(self) -> "_Downs":
        return [guard.down for guard in self._guards]

    def _learn(self, downs: "_Downs") -> None:
        for guard, down in zip(self._guards, downs, strict=True):
            guard.down = guard.down or down


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
            with suppress(OSError):  # it was killed: what was written to it has nowhere to go
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
    """Be a worker.  Signals are for the parent: a worker finishes what it has in hand.  When its
    parent is gone, it ends at once."""
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
