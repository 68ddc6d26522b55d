# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crash ids from a queue: when each is acknowledged or given back, and when no more come."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from crashmover import selection
from crashmover.errors import QueueError
from crashmover.external.crashqueue_base import Delivery, QueueName
from crashmover.external.memory import InMemoryCrashQueue
from crashmover.selection import QueuedIDs
from crashmover.testing.queues import new_ids


class Watched(InMemoryCrashQueue):
    """A queue that takes note of what is asked of it.

    :param fails: the names of the methods that raise an error
    """

    def __init__(self) -> None:
        super().__init__()
        self.pulls: list[tuple[int, float]] = []
        self.acked: list[str] = []
        self.nacked: list[str] = []
        self.given_back: list[str] = []
        self.fails: set[str] = set()

    def pull(
        self, queues: Any = None, max_messages: int = 1000, wait: float = 0.0
    ) -> list[Delivery]:
        self.pulls.append((max_messages, wait))
        return super().pull(queues, max_messages, 0.0)

    def pull_arrived(self, max_messages: int = 1000) -> list[Delivery]:
        self.pulls.append((max_messages, 0.0))
        return super().pull_arrived(max_messages)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if "ack" in self.fails:
            raise QueueError("not confirmed")
        super().ack(deliveries)
        self.acked += [delivery.crash_id for delivery in deliveries]

    def nack(self, deliveries: Sequence[Delivery]) -> None:
        super().nack(deliveries)
        self.nacked += [delivery.crash_id for delivery in deliveries]

    def give_back(self, deliveries: Sequence[Delivery] | None = None) -> None:
        super().give_back(deliveries)
        self.given_back += [delivery.crash_id for delivery in deliveries or ()]


class Clock:
    """A clock that stands until somebody moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def queue() -> Iterator[Watched]:
    with Watched() as queue:
        yield queue


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(selection, "monotonic", clock)
    return clock


def queued_ids(
    queue: Watched, *crash_ids: str, wait: float | None = 0.0, batch_size: int = 10, **options: Any
) -> QueuedIDs:
    """Return the crash ids of a queue, in which these are."""
    queue.publish(QueueName.STANDARD, crash_ids)
    return QueuedIDs(queue, batch_size=batch_size, wait=wait, **options)


def taken(queued: QueuedIDs) -> list[str]:
    """Take all that there are for now."""
    return list(iter(lambda: next(queued, None), None))


def has_ended(queued: QueuedIDs) -> bool:
    """Whether there is nothing now, and will not be."""
    try:
        assert next(queued) is None
    except StopIteration:
        return True
    return False


# What is done


def test_what_is_done_is_acknowledged_then_and_not_before(queue: Watched) -> None:
    ids = new_ids(3)
    queued = queued_ids(queue, *ids)
    assert taken(queued) == ids
    assert not has_ended(queued)
    assert queue.acked == []
    queued.settle(ids[1], True)
    assert not has_ended(queued)
    assert queue.acked == [ids[1]]
    for crash_id in (ids[0], ids[2]):
        queued.settle(crash_id, True)
    assert has_ended(queued)
    assert (sorted(queue.acked), queue.nacked) == (sorted(ids), [])


def test_what_comes_twice_is_handed_out_once_and_acknowledged_twice(queue: Watched) -> None:
    [crash_id] = new_ids(1)
    queued = queued_ids(queue, crash_id, crash_id)
    assert taken(queued) == [crash_id]
    queue.publish(QueueName.STANDARD, [crash_id])
    assert taken(queued) == []
    queued.settle(crash_id, True)
    assert has_ended(queued)
    assert queue.acked == [crash_id] * 3


def test_what_comes_again_after_it_was_done_is_handed_out_again(queue: Watched) -> None:
    [crash_id] = new_ids(1)
    queued = queued_ids(queue, crash_id)
    assert taken(queued) == [crash_id]
    queued.settle(crash_id, True)
    queue.publish(QueueName.STANDARD, [crash_id])
    assert taken(queued) == [crash_id]


def test_what_was_not_taken_does_no_harm_when_it_is_settled(queue: Watched) -> None:
    queued = queued_ids(queue)
    for is_done, crash_id in zip((True, False), new_ids(2), strict=True):
        queued.settle(crash_id, is_done)
    assert has_ended(queued)
    queued.close()
    assert (queue.acked, queue.nacked) == ([], [])


# What failed


@pytest.mark.usefixtures("clock")
def test_what_failed_is_given_back_at_the_end_and_is_not_tried_again_before(
    queue: Watched,
) -> None:
    [crash_id] = new_ids(1)
    queued = queued_ids(queue, crash_id, crash_id)
    assert taken(queued) == [crash_id]
    queued.settle(crash_id, False)
    queue.publish(QueueName.STANDARD, [crash_id])
    assert taken(queued) == []
    assert has_ended(queued)
    assert (queue.acked, queue.nacked) == ([], [])
    queued.close()
    assert (queue.acked, queue.nacked) == ([], [crash_id] * 3)
    assert len(queue.pull()) == 3


def test_in_a_run_without_an_end_what_failed_is_given_back_after_a_minute(
    queue: Watched, clock: Clock
) -> None:
    first, second = new_ids(2)
    queued = queued_ids(queue, first, second, wait=None)
    assert taken(queued) == [first, second]
    queued.settle(first, False)
    clock.now += 30
    queued.settle(second, False)
    clock.now += 29
    assert taken(queued) == []
    assert queue.nacked == []
    clock.now += 1
    assert taken(queued) == [first]
    assert queue.nacked == [first]
    clock.now += 30
    assert taken(queued) == [second]
    assert (queue.nacked, queue.acked) == ([first, second], [])


def test_all_that_is_due_at_the_same_time_is_given_back(queue: Watched, clock: Clock) -> None:
    ids = new_ids(3)
    queued = queued_ids(queue, *ids, wait=None)
    for crash_id in taken(queued):
        queued.settle(crash_id, False)
    clock.now += 60
    assert taken(queued) == ids
    assert queue.nacked == ids


def test_in_a_run_with_an_end_what_failed_is_kept_however_long_it_takes(
    queue: Watched, clock: Clock
) -> None:
    ids = new_ids(2)
    queued = queued_ids(queue, *ids, wait=1.0)
    assert taken(queued) == ids
    queued.settle(ids[0], False)
    clock.now += 3600
    assert not has_ended(queued)
    assert queue.nacked == []


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("wait", [5.0, None])
@pytest.mark.parametrize("most", [3, 4])
def test_where_too_much_has_failed_a_run_that_has_an_end_ends(
    queue: Watched, wait: float | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_MOST_FAILED", most)
    ids = new_ids(5)
    queued = queued_ids(queue, *ids, wait=wait, batch_size=2)
    seen: list[str] = []
    while (crash_id := next(queued, None)) is not None:
        seen.append(crash_id)
        queued.settle(crash_id, False)
    # Those that were pulled together with the last that is allowed to fail are tried too.
    assert seen == (ids[:4] if wait else ids)
    assert has_ended(queued) is (wait is not None)
    queued.close()
    assert sorted(queue.nacked) == sorted(seen)
    assert len(queue.pull()) == 5


# The end


def test_at_the_end_all_that_is_not_done_is_given_back_once(queue: Watched) -> None:
    ids = new_ids(5)
    queued = queued_ids(queue, *ids)
    for crash_id in ids[:4]:
        assert next(queued) == crash_id
    queued.settle(ids[0], True)
    queued.settle(ids[1], False)
    for _ in range(2):  # the second time, nothing is left
        queued.close()
        assert queue.acked == [ids[0]]
        assert queue.nacked == [ids[1]]
        assert sorted(queue.given_back) == sorted(ids[2:])
    assert sorted(d.crash_id for d in queue.pull()) == sorted(ids[1:])
    assert taken(queued) == []


def test_all_is_given_back_though_the_queue_does_not_confirm_what_is_done(
    queue: Watched,
) -> None:
    ids = new_ids(3)
    queued = queued_ids(queue, *ids)
    assert taken(queued) == ids
    queued.settle(ids[0], True)
    queued.settle(ids[1], False)
    queue.fails = {"ack"}
    with pytest.raises(QueueError, match="not confirmed"):
        queued.close()
    assert (queue.nacked, queue.given_back) == ([ids[1]], [ids[2]])


def test_where_a_store_is_down_what_failed_is_given_back_too(queue: Watched) -> None:
    ids = new_ids(3)
    queued = queued_ids(queue, *ids)
    assert taken(queued) == ids
    queued.settle(ids[0], False)
    queued.close(is_outage=True)
    assert (queue.nacked, sorted(queue.given_back)) == ([], sorted(ids))
    assert [delivery.attempt for delivery in queue.pull()] == [1, 1, 1]


def test_what_is_due_is_given_back_though_the_queue_does_not_confirm_what_is_done(
    queue: Watched, clock: Clock
) -> None:
    done, failed = new_ids(2)
    queued = queued_ids(queue, done, failed, wait=None)
    assert taken(queued) == [done, failed]
    queued.settle(failed, False)
    clock.now += 60
    queued.settle(done, True)
    queue.fails = {"ack"}
    with pytest.raises(QueueError, match="not confirmed"):
        next(queued)
    assert queue.nacked == [failed]


def test_where_everything_is_to_be_kept_what_is_done_is_given_back_too(queue: Watched) -> None:
    ids = new_ids(3)
    queued = queued_ids(queue, *ids, keep=True)
    assert taken(queued) == ids
    for crash_id in ids:
        queued.settle(crash_id, True)
    assert has_ended(queued)
    queued.close()
    assert (queue.acked, queue.nacked, sorted(queue.given_back)) == ([], [], sorted(ids))


def test_a_run_ends_when_nothing_has_come_for_as_long_as_is_waited(
    queue: Watched, clock: Clock
) -> None:
    first, second = new_ids(2)
    queued = queued_ids(queue, first, wait=5.0)
    assert taken(queued) == [first]
    clock.now += 100
    assert not has_ended(queued)  # for one is in hand
    queued.settle(first, True)
    for seconds in (4.5, 0.25):
        clock.now += seconds
        assert not has_ended(queued)
    queue.publish(QueueName.STANDARD, [second])
    assert taken(queued) == [second]
    queued.settle(second, False)
    clock.now += 4.75
    assert not has_ended(queued)
    clock.now += 0.25
    assert has_ended(queued)


def test_a_run_without_an_end_does_not_end(queue: Watched, clock: Clock) -> None:
    queued = queued_ids(queue, wait=None)
    for _ in range(3):
        clock.now += 1e6
        assert not has_ended(queued)


# How the queue is asked


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("wait", "seconds"), [(0.0, 0.0), (0.2, 0.2), (9.0, 0.5), (None, 0.5)])
def test_an_empty_queue_is_waited_for_in_steps_but_not_beside_what_is_in_hand(
    queue: Watched, wait: float | None, seconds: float
) -> None:
    ids = new_ids(3)
    queued = queued_ids(queue, *ids, wait=wait, batch_size=2)
    assert taken(queued) == ids
    assert queue.pulls == [(2, seconds), (2, 0.0), (2, 0.0)]
    for crash_id in ids:
        queued.settle(crash_id, True)
    has_ended(queued)
    assert queue.pulls[3:] == [(2, seconds)]
