# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Pool: threads, as many as the system grants.

A container or a user may be allowed few processes, and each thread counts as one.
"""

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock, Semaphore, Thread, current_thread, main_thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_Tasks = SimpleQueue["partial[None] | None"]


class Pool(Executor):
    """Does what ``ThreadPoolExecutor`` does, and goes on where no further thread can be started.

    Then the threads that run do the work.  If there is none, the thread that calls `submit` does
    it, and the future has its result when `submit` returns.

    :param most: how many threads there are at most; each starts when it is first needed
    :param name: what the threads are called
    """

    def __init__(self, most: int, name: str) -> None:
        self._name = name
        self._threads: list[Thread] = []
        self._tasks: _Tasks = SimpleQueue()
        self._crew = _Crew(most)
        self._lock = self._crew.lock
        self._is_closed = False
        # Also when the pool is dropped without `shutdown`, and at exit.
        self._end = weakref.finalize(self, self._tasks.put, None)

    @property
    def most(self) -> int:
        """How many threads there may be.  If that is lowered, a thread that is one too many ends
        after the task that it has."""
        return self._crew.most

    @most.setter
    def most(self, most: int) -> None:
        self._crew.most = most

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Let a thread call `fn`; return its future.

        :raises RuntimeError: the pool was shut down
        """
        future: Future[R] = Future()
        task = partial(_fulfil, future, partial(fn, *args, **kwargs))
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the pool was shut down")
            has_thread = self._has_thread()
            if has_thread:
                self._tasks.put(task)
        if not has_thread:
            task()
        return future

    def _has_thread(self) -> bool:
        """Start a thread if none is idle; return whether there is any."""
        crew = self._crew
        # Also where no further thread may start: `most` may be raised later, and then a thread
        # that was idle once must not count as idle still.
        if not crew.idle.acquire(blocking=False) and crew.count < crew.most:
            # A daemon: at exit, an idle thread is not waited for.  It must not keep the pool alive.
            thread = Thread(
                target=_work,
                args=(self._tasks, crew),
                name=f"{self._name}_{crew.count}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # "can't start new thread"
                return crew.count > 0
            if len(self._threads) > crew.count:
                self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
            crew.count += 1
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further work; return when all is done.

        :param wait: whether to wait for that
        :param cancel_futures: whether to cancel what no thread has begun
        """
        with self._lock:
            self._is_closed = True
        if cancel_futures:
            with suppress(Empty):
                while task := self._tasks.get_nowait():
                    task.args[0].cancel()
        self._end()
        if wait:
            for thread in self._threads:
                thread.join()


class _Crew:
    """The threads of a pool, as each of them knows it: a thread must not keep the pool alive."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.idle = Semaphore(0)
        self.lock = Lock()

    def lets_go(self) -> bool:
        """Return True if the thread that asks has to end, as there are too many."""
        if self.count <= self.most:  # which is nearly always so, and needs no lock
            return False
        with self.lock:
            is_surplus = self.count > self.most
            self.count -= is_surplus
        return is_surplus


def _work(tasks: _Tasks, crew: _Crew) -> None:
    task = tasks.get()
    while task:
        task()
        del task  # what it holds is not needed while this waits
        if crew.lets_go():
            return
        task = _next(tasks, crew)
    tasks.put(None)  # for the next thread


def _next(tasks: _Tasks, crew: _Crew) -> "partial[None] | None":
    """Return the next task; the thread is idle if none waits."""
    with suppress(Empty):
        return tasks.get_nowait()
    crew.idle.release()
    return tasks.get()


def _fulfil(future: "Future[Any]", call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def at_once(calls: Sequence[Callable[[], R]]) -> list[R]:
    """Return what each of these returns, in their order: each is called in a thread of its own.

    :raises Exception: what the first of them raised that failed, when all have ended
    """
    pool = Pool(len(calls), "at_once")
    futures = [pool.submit(call) for call in calls]
    for future in futures:
        future.exception()  # a signal ends this, and does not wait for a server
    pool.shutdown()
    return [future.result() for future in futures]


def possible_threads(wanted: int) -> int:
    """Return how many threads can be started now, up to so many."""
    end = Event()
    threads = [Thread(target=end.wait, daemon=True) for _ in range(wanted)]
    started: list[Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    finally:
        end.set()
        for thread in started:
            thread.join()
    return len(started)


def in_lasting_thread(function: Callable[[], object]) -> None:
    """Call a function in a thread that never ends: the main thread, or one of its own."""
    if current_thread() is main_thread():
        function()
        return
    future: Future[object] = Future()

    def run() -> None:
        _fulfil(future, function)
        Event().wait()

    Thread(target=run, name="lasting", daemon=True).start()
    future.result()


def off_main_thread(function: Callable[[], R], name: str) -> R:
    """Return what `function` returns.  The main thread lets another thread call it, and waits: only
    there Python runs the handlers of signals, and not within a call of compiled code.

    :param name: of that thread
    :raises RuntimeError: no further thread can be started
    """
    if current_thread() is not main_thread():
        return function()
    future: Future[R] = Future()
    # A daemon: the program does not wait for it at exit.
    Thread(target=_fulfil, args=(future, function), name=name, daemon=True).start()
    return future.result()
