# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Batches: what a run has in hand.  Batches go to workers, and come back with their results."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, Self, TypeVar

from crashmover.engine.workers import Workers
from crashmover.errors import WorkerKilled

T = TypeVar("T")
R = TypeVar("R")

_MOMENT = 0.01  # seconds for which workers that have a batch waiting go on undisturbed


class Batches(Generic[T, R]):
    """The batches of one run.  A context manager: at its end, what no worker has begun is dropped.

    :param workers: these do the work; each is given a batch and returns its result
    """

    def __init__(self, workers: Workers[list[T], R]) -> None:
        self._workers = workers
        self._in_hand: dict[Future[R], list[T]] = {}  # in the order in which they were submitted
        self._finished: SimpleQueue[Future[R]] = SimpleQueue()

    def __len__(self) -> int:
        """Return how many batches are in hand."""
        return len(self._in_hand)

    @property
    def item_count(self) -> int:
        """How many items the batches in hand have."""
        return sum(map(len, self._in_hand.values()))

    def have_room(self, ahead: int) -> bool:
        """Return True if fewer are in hand than `ahead` for each worker."""
        return len(self) < ahead * self._workers.count

    def submit(self, batch: list[T]) -> None:
        """Give a batch to the next free worker."""
        future = self._workers.submit(batch, len(batch))
        self._in_hand[future] = batch
        future.add_done_callback(self._finished.put)

    def finished(self, timeout: float | None) -> Iterator[tuple[list[T], R | WorkerKilled]]:
        """Yield each batch that is finished, and its result, once one is; none, if none is in time.

        :param timeout: seconds; None: wait until one is finished
        """
        # To be woken by many threads, one by one, costs more than all else that is done with a
        # result.  If no worker waits for the next batch, a moment later more are finished.
        is_ahead = len(self) > self._workers.count
        with suppress(Empty):
            yield from self._result(self._finished.get(timeout=timeout))
            if is_ahead:
                time.sleep(_MOMENT)
            while True:
                yield from self._result(self._finished.get_nowait())

    def _result(self, future: Future[R]) -> Iterator[tuple[list[T], R | WorkerKilled]]:
        if batch := self._in_hand.pop(future, None):
            result: R | WorkerKilled
            try:
                result = future.result()
            except WorkerKilled as error:
                result = error
            yield batch, result

    def oldest(self) -> R:
        """Return the result of the batch that was submitted first, and is still in hand.

        :raises WorkerKilled: its worker was a process, and is no more
        """
        future = next(iter(self._in_hand))
        del self._in_hand[future]
        with suppress(Empty):  # which one is finished first does not matter here
            while True:
                self._finished.get_nowait()
        return future.result()

    def drop_waiting(self) -> None:
        """Drop what no worker has begun with, so that a run that is stopped ends soon."""
        for future in [future for future in self._in_hand if future.cancel()]:
            del self._in_hand[future]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.drop_waiting()
