# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Pool: threads, as many as the system grants."""

import gc
import threading
import time
from concurrent.futures import Future
from threading import Event, Thread, current_thread

import pytest

from crashmover.pool import Pool


@pytest.fixture(params=[0, 1, 2])
def granted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many threads can be started; each further one fails as it does in Python."""
    most: int = request.param
    start = Thread.start
    started: list[Thread] = []

    def limited(thread: Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(Thread, "start", limited)
    return most


def test_all_is_done_by_the_threads_there_are(granted: int) -> None:
    with Pool(4, "test") as pool:
        futures = [pool.submit(current_thread) for _ in range(100)]
        names = {future.result().name for future in futures}
        assert list(pool.map(abs, range(-50, 0))) == list(range(50, 0, -1))
    assert len(names) <= max(1, granted)
    assert (threading.main_thread().name in names) is (granted == 0)


def test_what_fails_is_raised_by_its_future(granted: int) -> None:
    with Pool(2, "test") as pool:
        assert isinstance(pool.submit(int, "x").exception(), ValueError)
        assert pool.submit(int, "7").result() == 7


def test_threads_start_as_they_are_needed_and_end_with_the_pool() -> None:
    before = threading.active_count()
    end = Event()
    pool = Pool(3, "test")
    assert threading.active_count() == before
    futures = [pool.submit(end.wait) for _ in range(5)]
    assert threading.active_count() == before + 3
    end.set()
    pool.shutdown()
    assert all(future.result() for future in futures)
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        pool.submit(end.wait)


def test_a_pool_grows_and_shrinks_while_it_works() -> None:
    before = threading.active_count()
    end = Event()
    pool = Pool(2, "test")
    futures = [pool.submit(end.wait) for _ in range(8)]
    assert threading.active_count() == before + 2
    pool.most = 5
    futures += [pool.submit(end.wait) for _ in range(8)]
    assert threading.active_count() == before + 5
    pool.most = 1
    end.set()
    assert all(future.result() for future in futures)
    deadline = time.monotonic() + 10
    while threading.active_count() > before + 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.active_count() == before + 1
    pool.most = 3
    together = threading.Barrier(3, timeout=10)
    for future in [pool.submit(together.wait) for _ in range(3)]:
        future.result()
    pool.shutdown()
    assert threading.active_count() == before


def test_threads_that_were_idle_often_do_not_keep_a_pool_from_growing() -> None:
    with Pool(1, "test") as pool:
        for _ in range(20):
            pool.submit(time.sleep, 0.001).result()
        pool.most = 3
        together = threading.Barrier(3, timeout=10)
        for future in [pool.submit(together.wait) for _ in range(3)]:
            future.result()


def test_what_was_not_begun_can_be_cancelled() -> None:
    end, begun = Event(), Event()
    pool = Pool(1, "test")

    def first() -> bool:
        begun.set()
        return end.wait(10)

    running = pool.submit(first)
    assert begun.wait(10)
    waiting: list[Future[bool]] = [pool.submit(end.wait) for _ in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    end.set()
    assert running.result() and all(future.cancelled() for future in waiting)


def test_a_pool_that_is_dropped_ends_its_threads() -> None:
    pool = Pool(2, "test")
    thread = pool.submit(current_thread).result()
    del pool
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
