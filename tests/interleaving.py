# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Every order in which the requests of a few processes can reach a server.

Each process is a thread that waits before each of its requests until it is let go on.  An order
is the number of the process that goes on, request by request; after what is prescribed of it, a
process goes on until it has ended.  `orders` prescribes, one by one, all orders in which a process
is interrupted no more than a few times.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

TIMEOUT = 60


class Process:
    """A function that is stopped before each of its requests.

    :param number: of the process, counted from 0
    """

    killed_before: int | None = None
    """The number of the request that it does not come to send, counted from 0."""

    def __init__(self, work: Callable[[], object], number: int = 0) -> None:
        self.number = number
        self.error: Exception | None = None
        self.has_ended = False
        self.was_killed = False
        self.requests = 0
        self._work = work
        # Locks, each released by the other side: semaphores take ten times as long.
        self._may_go_on, self._has_stopped = threading.Lock(), threading.Lock()
        self._may_go_on.acquire()
        self._has_stopped.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def go_on(self) -> None:
        """Let it send its next request; return when it is about to send another, or has ended."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._may_go_on.release()
        assert self._has_stopped.acquire(timeout=TIMEOUT)

    def before_request(self) -> None:
        """Called in its thread."""
        self._has_stopped.release()
        assert self._may_go_on.acquire(timeout=TIMEOUT)
        if self.requests == self.killed_before:
            self.was_killed = True
            raise Killed
        self.requests += 1

    def _run(self) -> None:
        _current.process = self
        try:
            self._work()
        except Killed:
            pass
        except Exception as error:
            self.error = error
        self.has_ended = True
        self._has_stopped.release()


class Killed(BaseException):
    """The process is no more."""


_current = threading.local()


def current() -> Process | None:
    """Return the process whose request it is; none, outside of one."""
    process: Process | None = getattr(_current, "process", None)
    return process


def before_request() -> None:
    """To be called by whatever stands for the server; outside of a process it does nothing."""
    if process := current():
        process.before_request()


@dataclass
class Order:
    """An order, as far as it is prescribed, and what happened.

    :param prescribed: which process goes on, request by request
    :param taken: which went on
    :param choices: which could have
    """

    prescribed: Sequence[int]
    taken: list[int] = field(default_factory=list)
    choices: list[list[int]] = field(default_factory=list)

    def run(self, processes: Sequence[Process]) -> None:
        """Let them run to their end in this order."""
        for process in processes:
            process.go_on()  # to before its first request
        while running := [n for n, process in enumerate(processes) if not process.has_ended]:
            at = len(self.taken)
            last = self.taken[-1] if self.taken else 0
            number = self.prescribed[at] if at < len(self.prescribed) else last
            number = number if number in running else running[0]
            self.taken.append(number)
            self.choices.append(running)
            processes[number].go_on()

    def interruptions(self) -> int:
        """How often a process had to wait that could have gone on."""
        pairs = zip(self.taken, self.taken[1:], self.choices[1:], strict=False)
        return sum(before != after and before in able for before, after, able in pairs)


def orders(most: int) -> Iterator[Order]:
    """Yield orders to be run, until all have been in which there are `most` interruptions."""
    waiting = [Order([])]
    while waiting:
        order = waiting.pop()
        yield order
        for at in range(len(order.prescribed), len(order.taken)):
            for other in order.choices[at]:
                another = Order([*order.taken[:at], other])
                another.taken = list(another.prescribed)
                another.choices = order.choices[: at + 1]
                if other != order.taken[at] and another.interruptions() <= most:
                    waiting.append(Order(another.prescribed))
