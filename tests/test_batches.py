# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Batches: what a run has in hand, as it is finished and in order."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from crashmover.engine.batches import Batches
from crashmover.engine.pace import Pace
from crashmover.engine.workers import Workers
from crashmover.errors import WorkerKilled


class Result:
    """What a worker makes of a batch."""

    def __init__(self, batch: list[int]) -> None:
        self.total = sum(batch)


@contextmanager
def batches_of(
    work: Callable[[list[int]], Result] = Result, count: int = 1
) -> Iterator[Batches[int, Result]]:
    workers = Workers(work, Pace(count, count), processes=False)
    try:
        with Batches(workers) as batches:
            yield batches
    finally:
        workers.close()


def test_what_is_in_hand_is_counted() -> None:
    with batches_of() as batches:
        batches.submit([1, 2])
        batches.submit([3])
        assert (len(batches), batches.item_count) == (2, 3)
        batches.oldest()
        assert (len(batches), batches.item_count) == (1, 1)


def test_the_oldest_comes_first_however_long_it_takes() -> None:
    quick = threading.Event()

    def work(batch: list[int]) -> Result:
        assert batch != [1] or quick.wait(10)
        if batch == [2]:
            quick.set()
        return Result(batch)

    with batches_of(work, 2) as batches:
        batches.submit([1])
        batches.submit([2])
        assert [batches.oldest().total for _ in range(2)] == [1, 2]


def test_a_result_that_was_handed_out_is_not_kept() -> None:
    with batches_of() as batches:
        batches.submit([1])
        result = weakref.ref(batches.oldest())
        batches.submit([2])
        batches.oldest()
        deadline = time.monotonic() + 10  # the worker's thread may hold it for a moment
        while result() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert result() is None


def test_what_is_finished_is_waited_for_and_comes_with_its_batch() -> None:
    def work(batch: list[int]) -> Result:
        time.sleep(0.1)
        return Result(batch)

    with batches_of(work) as batches:
        batches.submit([1, 2])
        [(batch, result)] = batches.finished(None)
        assert isinstance(result, Result)
        assert (batch, result.total, len(batches)) == ([1, 2], 3, 0)


def test_after_the_timeout_nothing_is_waited_for() -> None:
    go_on = threading.Event()

    def work(batch: list[int]) -> Result:
        assert go_on.wait(10)
        return Result(batch)

    with batches_of(work) as batches:
        batches.submit([1])
        assert list(batches.finished(0.05)) == []
        go_on.set()
        assert len(list(batches.finished(None))) == 1


def test_the_batch_of_a_worker_that_was_killed_is_named() -> None:
    def killed(_batch: list[int]) -> Result:
        raise WorkerKilled("a worker was killed")

    with batches_of(killed) as batches:
        batches.submit([1])
        [(batch, result)] = batches.finished(None)
        assert (batch, str(result)) == ([1], "a worker was killed")
        batches.submit([2])
        with pytest.raises(WorkerKilled):
            batches.oldest()


def test_at_the_end_what_no_worker_has_begun_is_dropped() -> None:
    begun: list[list[int]] = []
    has_begun, go_on = threading.Event(), threading.Event()

    def work(batch: list[int]) -> Result:
        begun.append(batch)
        has_begun.set()
        assert go_on.wait(10)
        return Result(batch)

    with batches_of(work) as batches:
        for number in range(3):
            batches.submit([number])
        assert has_begun.wait(10)
        batches.drop_waiting()
        assert len(batches) == 1
        batches.submit([3])
        threading.Timer(0.1, go_on.set).start()
    assert begun == [[0]]
