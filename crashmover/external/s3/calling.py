# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Calling a client that is made for other languages: what its threads must not do."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class ClientPanicked(Exception):
    """The client met what its authors took for impossible, as in the answer of a server."""


class _Thread(threading.local):
    """What a thread must know of itself."""

    def __init__(self) -> None:
        self.must_not_call = threading.current_thread() is threading.main_thread()


_thread = _Thread()


def call_client(function: Callable[[], T]) -> T:
    """Return what `function` returns: one call of the client.

    Some threads have to let another make the call, and wait for that.  Python runs the
    handlers of signals in its main thread only, and not while that is inside a compiled
    client.  And the client cannot be called from within a call of itself, as happens when an
    upload reads a part that is being downloaded.
    """
    if _thread.must_not_call:
        return _call_elsewhere(function)
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

    # A daemon, so that nobody waits for it at exit.
    threading.Thread(target=run, name="s3", daemon=True).start()
    return future.result()
