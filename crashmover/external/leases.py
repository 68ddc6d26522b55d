# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Leases: what is held of a queue, and when each of it must be extended."""

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from crashmover.errors import NO_THREAD, QueueUnavailable

T = TypeVar("T", bound=Hashable)


class Leases(Generic[T]):
    """The deliveries that are neither acked nor nacked.  Safe for use from many threads."""

    def __init__(self) -> None:
        self._due: dict[T, float] = {}
        self._lock = threading.Lock()

    def hold(self, deliveries: Iterable[T], due: float) -> None:
        """Hold these from now on; each should be extended when it is `due`."""
        with self._lock:
            self._due.update(dict.fromkeys(deliveries, due))

    def release(self, deliveries: Iterable[T]) -> None:
        """Hold these no more."""
        with self._lock:
            for delivery in deliveries:
                self._due.pop(delivery, None)

    def held(self) -> list[T]:
        """Return all that is held."""
        with self._lock:
            return list(self._due)

    def due(self, now: float) -> list[T]:
        """Return what should be extended by now."""
        with self._lock:
            return [delivery for delivery, when in self._due.items() if when <= now]

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
