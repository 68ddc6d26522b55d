# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Lending: connections that are kept, and threads that wait for one, first come first served.

A pooler, or a server, may have fewer connections than there are threads.  How many it has, a
thread finds out when it gets no further one.  From then on threads wait for each other, not for
the pooler: that would let one wait for ever, as the others keep what they have.
"""

import os
from collections import deque
from queue import Empty, SimpleQueue
from threading import RLock
from time import monotonic

from crashmover.external.postgresql.connection import Connection

PATIENCE = 2.0
"""Seconds until a thread tries to get a further connection, though there was none before."""

_IDLE_AT_MOST = 8

Answer = SimpleQueue["Connection | None"]


class Lending:
    """Connections that are lent, and those that are kept.  Safe for many threads.

    A thread may need a second connection while it has one.  So how many are lent is bounded for
    `PATIENCE` only.
    """

    def __init__(self) -> None:
        self._kept: list[Connection] = []
        self._lent = 0
        self._most: int | None = None  # as far as a thread has found out
        self._waiting: deque[Answer] = deque()
        self._lock = RLock()  # what is lent may come back whenever a generator is collected
        self._pid = os.getpid()
        self._inherited: list[Connection] = []
        self._is_closed = False

    def borrow(self, deadline: float) -> Connection | None:
        """Return a connection that was kept or has just come back; None: the caller has to make
        one, or to say with `fail` that it cannot.

        :param deadline: of `monotonic`; until then the caller may wait for another thread
        """
        with self._lock:
            if self._pid != os.getpid():  # forked: what is kept is the parent's to close
                self._start_anew()
            if self._kept or self._most is None or self._lent < self._most:
                self._lent += 1
                return self._kept.pop() if self._kept else None
            answer: Answer = SimpleQueue()
            self._waiting.append(answer)
        return self._wait(answer, min(deadline, monotonic() + PATIENCE))

    def _wait(self, answer: Answer, until: float) -> Connection | None:
        try:
            return answer.get(timeout=max(0, until - monotonic()))
        except Empty:
            with self._lock:
                if answer in self._waiting:
                    self._waiting.remove(answer)
                    self._lent += 1
                    return None
            return answer.get()  # it came in between

    def fail(self, *, is_full: bool) -> bool:
        """Take note that a connection could not be made; return whether to `borrow` again.

        :param is_full: whether there are no further ones: then another thread's may come back
        """
        with self._lock:
            self._lent -= 1
            others = self._lent + len(self._kept)
            if is_full and others:
                self._most = others
            return is_full and others > 0

    def give_back(self, connection: Connection, *, usable: bool) -> bool:
        """Lend a connection to the next thread, or keep it; return whether it must be closed."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(connection if usable else None)
                return not usable
            self._lent = max(0, self._lent - 1)  # one may come back in a fork
            if usable and not self._is_closed and len(self._kept) < _IDLE_AT_MOST:
                self._kept.append(connection)
                return False
        return True

    def is_only(self) -> bool:
        with self._lock:
            return self._lent + len(self._kept) == 1

    def close(self) -> list[Connection]:
        """Keep nothing from now on; return what was kept, to be closed."""
        with self._lock:
            self._is_closed = True
            kept, self._kept = self._kept, []
        return kept if self._pid == os.getpid() else []

    def _start_anew(self) -> None:
        self._pid, self._inherited, self._kept = os.getpid(), self._kept, []
        self._lent, self._most, self._waiting = 0, None, deque()
