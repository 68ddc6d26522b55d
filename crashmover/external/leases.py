# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Leases: what is held of a queue, and when each of it must be extended."""

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from crashmover.errors import NO_THREAD, QueueUnavailable

T = TypeVar("T", bound=Hashable)


class Leases(Generic[T]):
    """The deliveries that are neither acked nor nacked.  Safe for use from many threads."""

    def __init__(self) -> None:
        self._due: dict[T, float] = {}
        self._ends: dict[T, float] = {}
        self._lock = threading.Lock()

    def hold(self, deliveries: Iterable[T], due: float) -> None:
        """Hold these from now on; each should be extended when it is `due`."""
        with self._lock:
            self._due.update(dict.fromkeys(deliveries, due))

    def end_at(self, delivery: T, end: float) -> None:
        """Hold this one until then at most, if it is still held."""
        with self._lock:
            if delivery in self._due:
                self._ends[delivery] = end

    def release(self, deliveries: Iterable[T]) -> None:
        with self._lock:
            self._forget(deliveries)

    def _forget(self, deliveries: Iterable[T]) -> None:
        for delivery in deliveries:
            self._due.pop(delivery, None)
            self._ends.pop(delivery, None)

    def held(self) -> list[T]:
        with self._lock:
            return list(self._due)

    def due(self, now: float) -> list[T]:
        """Return what should be extended by now; forget what has been held long enough."""
        with self._lock:
            self._forget([delivery for delivery, end in self._ends.items() if end <= now])
            return [delivery for delivery, when in self._due.items() if when <= now]

    def has_ends(self) -> bool:
        with self._lock:
            return bool(self._ends)

    def still_held(self, deliveries: Iterable[T]) -> list[T]:
        """Return those of these that are held."""
        with self._lock:
            return [delivery for delivery in deliveries if delivery in self._due]

    def put_off(self, deliveries: Iterable[T], due: float) -> None:
        """Say when those of these that are still held should be extended again."""
        with self._lock:
            self._due.update({each: due for each in deliveries if each in self._due})


@contextmanager
def keeping(extend: Callable[[], None], every: float) -> Iterator[None]:
    """Call `extend` every so many seconds, in a thread of its own, while this lasts."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(every):
            extend()

    thread = threading.Thread(target=keep, name="leases", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # "can't start new thread"
        raise QueueUnavailable(f"leases cannot be extended: {NO_THREAD}") from error
    try:
        yield
    finally:
        done.set()
        thread.join()


class Keeper:
    """A thread that extends leases for a caller that no ``with`` block can be asked of.

    It ends by itself when `extend` returns False, or when the object that `extend` is a method
    of is gone; `start` starts it again.

    :param extend: a bound method that returns whether to go on; no reference to its object is kept
    :param every: seconds between two calls
    """

    def __init__(self, extend: Callable[[], bool], every: float) -> None:
        self._extend = weakref.WeakMethod(extend)
        self._every = every
        self._lock = threading.Lock()
        self._done: threading.Event | None = None
        self._is_wanted = False

    def start(self) -> None:
        with self._lock:
            self._is_wanted = True
            if self._done is None:
                self._done = threading.Event()
                args = (self._done,)
                threading.Thread(target=self._keep, args=args, name="leases", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end, without waiting for it."""
        with self._lock:
            if self._done:
                self._done.set()
            self._done = None

    def _keep(self, done: threading.Event) -> None:
        while not done.wait(self._every) and self._goes_on(done):
            pass

    def _goes_on(self, done: threading.Event) -> bool:
        with self._lock:
            self._is_wanted = False
        extend = self._extend()
        if extend and extend():
            return True
        with self._lock:
            if extend and self._is_wanted:  # started again while it was looking
                return True
            if self._done is done:
                self._done = None
            return False
