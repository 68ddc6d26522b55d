# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Rounds: requests that have no order among them go together, where each of them takes long.

To hand a request to another thread costs CPU.  A server on this machine answers sooner than that
pays.  So requests go together only if the fastest of the last ones took `FAR_AWAY` seconds or more.
The average would say little: where many threads share few cores, requests wait for each other.
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Generic, Self, TypeVar

from crashmover.pool import Pool

T = TypeVar("T")

FAR_AWAY = 0.005
"""Seconds that each request takes, where requests go together."""

_MOST = 64  # threads that send requests beside those that ask for the answers
_FORGETS = 1.1  # by so much the fastest request counts as slower, with each that comes after it


class Rounds:
    """Sends the requests of one client.  Safe for use from many threads.

    ``with rounds() as begin: ...`` is one round.
    """

    def __init__(self) -> None:
        self._fastest = 0.0  # until a request was sent
        self._pool = Pool(_MOST, "round")

    @property
    def is_far(self) -> bool:
        """Whether requests go together now."""
        return self._fastest >= FAR_AWAY

    def __call__(self) -> "Round":
        """Return a new round."""
        return Round(self)

    def together(self, *calls: Callable[[], T]) -> list[T]:
        """Return what each of these returns, in their order.

        :raises Exception: what the first of them raised that failed.  Calls that have begun have
            ended by then; none begins any more.
        """
        with self() as begin:
            answers = [begin(call) for call in calls]
            return [answer() for answer in answers]

    def timed(self, call: Callable[[], T]) -> T:
        """Return what a call returns that sends a request, and take note how long it takes."""
        began = monotonic()
        try:
            return call()
        finally:
            self._fastest = min(self._fastest * _FORGETS or inf, monotonic() - began)

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Let another thread make a call, as soon as one is free."""
        return self._pool.submit(self.timed, call)


class Round:
    """Requests that may go together.  A context manager, at whose end none goes on."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._waiting: list[_Question[Any]] = []
        self._sent: list[Future[Any]] = []

    @property
    def has_sent(self) -> bool:
        """Whether requests have gone together with the one whose answer was asked for."""
        return bool(self._sent)

    def __enter__(self) -> Self:
        return self

    def __call__(self, call: Callable[[], T]) -> Callable[[], T]:
        """Take a call that sends a request.  Return what gives its answer, once.

        When an answer is asked for, this thread makes that call.  If requests go together, other
        threads make the other calls of the round then.
        """
        question = _Question(call)
        self._waiting.append(question)
        return partial(self._answer, question)

    def _answer(self, question: "_Question[T]") -> T:
        if question.future is None:
            self._waiting.remove(question)
        while self._waiting and self._rounds.is_far:
            other = self._waiting.pop(0)
            other.future = self._rounds.submit(other.call)
            self._sent.append(other.future)
        # If no thread has begun it, this thread makes the call: so no thread waits for one that
        # waits for it, nor for one that could not be started.
        if question.future is None or question.future.cancel():
            return self._rounds.timed(question.call)
        return question.future.result()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait for what goes on.  Do not if a signal has ended this: the server may not answer."""
        running = [future for future in self._sent if not future.cancel()]
        if error is None or isinstance(error, Exception):
            for future in running:
                future.exception()


class _Question(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.future: Future[T] | None = None  # until another thread is to make the call
