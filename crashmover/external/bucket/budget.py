# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Budget: how many bytes of bodies are in memory at the same time, whatever threads hold them."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeVar

T = TypeVar("T")


class Budget:
    """So many bytes, of which each thread takes what it needs.  Safe for use from many threads.

    A thread that waits must hold no bytes of this budget, nor of another one that a thread waits
    for while it holds some of this one: then no two threads wait for each other.

    :param most: bytes
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[tuple[int, Event]] = deque()
        self._lock = Lock()

    @contextmanager
    def of(self, count: int) -> Iterator[Callable[[int], None]]:
        """Hold so many bytes meanwhile; give a function that is told how many are enough.  Threads
        get theirs in the order in which they came.

        :param count: bytes; if these are more than there are, all
        """
        held = min(count, self._most)
        self._wait_for(held)

        def shrink(enough: int) -> None:
            nonlocal held
            surplus = max(0, held - enough)
            held -= surplus
            self._give_back(surplus)

        try:
            yield shrink
        finally:
            self._give_back(held)

    def has(self, count: int) -> bool:
        """Return True if there are so many bytes left."""
        return self._left >= count

    def lend(self, count: int, make: Callable[[], T]) -> T | None:
        """Return what `make` makes of so many bytes, which count until that is no more; None if
        there are not so many left.  Waits for no other thread."""
        with self._lock:
            if self._left < count:
                return None
            self._left -= count
        try:
            made = make()
        except BaseException:
            self._give_back(count)
            raise
        weakref.finalize(made, self._give_back, count).atexit = False
        return made

    def _wait_for(self, count: int) -> None:
        with self._lock:
            if not self._waiting and self._left >= count:
                self._left -= count
                return
            turn = Event()
            self._waiting.append((count, turn))
        turn.wait()

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._left += count
            while self._waiting and self._left >= self._waiting[0][0]:
                needed, turn = self._waiting.popleft()
                self._left -= needed
                turn.set()
