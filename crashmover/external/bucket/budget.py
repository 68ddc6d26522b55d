# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Budget: how many bytes of bodies are in memory at the same time, whatever threads hold them."""

import weakref
from collections import deque
from threading import Event, Lock
from typing import Self


class Budget:
    """So many bytes, of which threads take shares, first come first served.  Safe for use from many
    threads.

    A thread that waits without an end must hold no share of this budget, nor one of a budget that a
    thread waits for while it holds a share of this one: then no two threads wait for each other.

    :param most: bytes
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[tuple[int, Event]] = deque()
        self._lock = Lock()

    def has(self, count: int) -> bool:
        """Return True if there are so many bytes left."""
        return self._left >= count

    def take(self, count: int, patience: float | None = None) -> "Share":
        """Return a share of so many bytes, once there are as many; of all, if there never are.

        :param patience: seconds to wait; after that the share is taken all the same
        """
        count = min(count, self._most)
        with self._lock:
            if not self._waiting and self._left >= count:
                self._left -= count
                return Share(self, count)
            place = (count, Event())
            self._waiting.append(place)
        if not place[1].wait(patience):
            with self._lock:
                if place in self._waiting:  # else it came in between
                    self._waiting.remove(place)
                    self._left -= count
        return Share(self, count)

    def take_now(self, count: int) -> "Share | None":
        """Return a share of so many bytes; None if there are not as many."""
        with self._lock:
            if self._waiting or self._left < count:
                return None
            self._left -= count
        return Share(self, count)

    def give_back(self, count: int) -> None:
        """For `Share`: add so many bytes; negative: take them, though there may not be as many."""
        with self._lock:
            self._left += count
            while self._waiting and self._left >= self._waiting[0][0]:
                needed, turn = self._waiting.popleft()
                self._left -= needed
                turn.set()


class Share:
    """Bytes of a budget, until they are given back.  A context manager, which gives them back."""

    def __init__(self, budget: Budget, count: int) -> None:
        self._budget = budget
        self._count = count

    def resize(self, count: int) -> None:
        """Make it a share of so many bytes, without waiting for any."""
        surplus, self._count = self._count - count, count
        self._budget.give_back(surplus)

    def end_with(self, holder: object) -> None:
        """Give the bytes back when this object is no more."""
        weakref.finalize(holder, self._budget.give_back, self._count).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.resize(0)
