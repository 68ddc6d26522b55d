# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Budget: bytes of bodies in memory, shared by threads."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from crashmover.external.bucket.budget import Budget
from crashmover.pool import Pool


class Held:
    """What a share ends with."""


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_never_more_is_held_than_there_is() -> None:
    budget, rng = Budget(100), random.Random(1)
    held, highest, lock = 0, 0, threading.Lock()

    def hold(count: int) -> None:
        nonlocal held, highest
        with budget.take(count):
            with lock:
                held += min(count, 100)
                highest = max(highest, held)
            time.sleep(0.0001)
            with lock:
                held -= min(count, 100)

    with Pool(50, "test") as pool:
        list(pool.map(hold, [rng.randint(1, 130) for _ in range(2000)]))
    assert 90 < highest <= 100
    assert budget.has(100) and not budget.has(101)


def test_the_first_that_came_is_the_first_served() -> None:
    budget = Budget(10)
    order: list[int] = []

    def take(number: int, count: int) -> None:
        with budget.take(count):
            order.append(number)

    with budget.take(8):
        threads = [in_thread(lambda: take(0, 10))]  # a small one must not pass it for ever
        wait_until(lambda: len(budget._waiting) == 1)
        threads.append(in_thread(lambda: take(1, 1)))
        wait_until(lambda: len(budget._waiting) == 2)
        assert order == []
        assert budget.take_now(1) is None
    for thread in threads:
        thread.join(10)
    assert order == [0, 1]


def test_after_its_patience_a_thread_goes_on_all_the_same() -> None:
    budget = Budget(10)
    with ExitStack() as stack:
        for _ in range(3):  # in one thread: nothing would ever end
            stack.enter_context(budget.take(7, patience=0.01))
        assert not budget.has(0)
        assert budget.take_now(1) is None
    assert budget.has(10)


def test_a_share_can_grow_and_shrink() -> None:
    budget = Budget(10)
    with budget.take(6) as share:
        share.resize(1)
        assert budget.has(9) and not budget.has(10)
        share.resize(12)
        assert not budget.has(0)
    assert budget.has(10)


def test_a_share_ends_with_what_was_made_of_it() -> None:
    budget = Budget(10)
    held = Held()
    budget.take(6).end_with(held)
    assert budget.take_now(5) is None
    del held
    assert budget.has(10)
