# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What is begun ahead of its turn, so that what follows each other does not wait for each other."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from itertools import islice
from time import monotonic
from typing import TypeVar

from crashmover.pool import Pool

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 16
_FRESH = 5.0  # seconds for which what was begun ahead is good enough


def begun_ahead(begin: Callable[[T], R], things: Sequence[T]) -> Generator[R]:
    """Yield what `begin` returns for each thing, in order; call it for some in threads, ahead.

    If the caller takes its time, what was begun ahead has grown old: it is thrown away, and from
    then on nothing is begun ahead.
    """

    def begin_now(thing: T) -> tuple[R, float]:
        return begin(thing), monotonic()

    begun: deque[Future[tuple[R, float]]] = deque()
    pool, most, left = Pool(_AHEAD, "ahead"), _AHEAD, iter(things)
    try:
        for thing in things:
            for following in islice(left, max(0, most - len(begun))):
                begun.append(pool.submit(begin_now, following))
            result, when = begun.popleft().result()
            if monotonic() > when + _FRESH:
                most = 1
                result = begin(thing)
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
