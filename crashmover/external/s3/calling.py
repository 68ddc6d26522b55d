# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Calling a client that is made for other languages: what its threads must not do."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import obstore.exceptions

from crashmover.hiding import hidden
from crashmover.pool import possible_threads

T = TypeVar("T")

_FEWEST = 2  # threads of the client
_WORKERS = "TOKIO_WORKER_THREADS"
_NO_THREADS = "too few threads can be started: allow more processes (ulimit -u, pids.max)"


class ClientPanicked(Exception):
    """The client met what its authors took for impossible, as in the answer of a server."""


class NoThreads(Exception):
    """Fewer threads can be started than the client needs."""


DRIVER_ERRORS = (
    obstore.exceptions.BaseError,
    FileNotFoundError,
    ValueError,
    OSError,
    ClientPanicked,
    NoThreads,
)
"""What the client raises on its own."""


class _Thread(threading.local):
    """What a thread must know of itself."""

    def __init__(self) -> None:
        self.must_not_call = threading.current_thread() is threading.main_thread()


_thread = _Thread()
_start_lock = threading.Lock()
_is_started = False


def call_client(function: Callable[[], T]) -> T:
    """Return what `function` returns: one call of the client.

    Some threads have to let another make the call, and wait for that.  Python runs the
    handlers of signals in its main thread only, and not while that is inside a compiled
    client.  And the client cannot be called from within a call of itself, as happens when an
    upload reads a part that is being downloaded.
    """
    if _thread.must_not_call:
        return _call_elsewhere(function)
    if not _is_started:
        _start()
    _thread.must_not_call = True
    try:
        return function()
    except Exception:
        raise
    except BaseException as error:
        # Its own is no Exception: it would end the thread, and the program.
        if type(error).__name__ == "PanicException":
            raise ClientPanicked(str(error)) from error
        raise
    finally:
        _thread.must_not_call = False


def _call_elsewhere(function: Callable[[], T]) -> T:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call_client(function))
        except BaseException as error:
            future.set_exception(error)

    # A daemon: the program does not wait for it at exit.
    try:
        threading.Thread(target=run, name="s3", daemon=True).start()
    except RuntimeError as error:
        raise NoThreads(_NO_THREADS) from error
    return future.result()


def _start() -> None:
    """Let the client start its threads, once in a process.

    Where the system refuses one of them, the client writes a trace to standard error and cannot
    be used any more.  So it is tried first how many there may be.  What the environment says of
    their number is no more than another way to make the client fail.
    """
    global _is_started
    from obstore.store import MemoryStore

    with _start_lock:
        if _is_started:
            return
        wanted = _wanted()
        possible = possible_threads(wanted)
        if possible < _FEWEST:
            raise NoThreads(_NO_THREADS)
        few = {} if possible == wanted else {_WORKERS: str(possible - 1)}
        with hidden(lambda name: name == _WORKERS, few):
            obstore.list_with_delimiter(MemoryStore())
        _is_started = True


def _wanted() -> int:
    """Return how many threads the client starts: one for each core, and one that asks for the
    addresses of hosts."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
