# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What is SQLite's own: the file, its leases by the clock, and what is wrong with it."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crashmover import open_queue
from crashmover.errors import InvalidURI, QueueError, QueueUnavailable
from crashmover.external.crashqueue_base import CrashQueueBase, Delivery, QueueName
from crashmover.external.sqlite import crashqueue
from crashmover.external.sqlite.crashqueue import SQLiteCrashQueue
from crashmover.testing.queues import new_ids

PRIORITY, STANDARD, REPROCESSING = QueueName


class Clock:
    """Stands in for the module `time`: its time stands until somebody moves it."""

    now = 1_700_000_000.25

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(crashqueue, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "not" / "there" / "queue.db"


@pytest.fixture
def queue(path: Path) -> Iterator[SQLiteCrashQueue]:
    with SQLiteCrashQueue(path, lease=10.0) as queue:
        queue.create()
        yield queue


def receive(queue: CrashQueueBase, *names: QueueName, most: int = 100) -> list[Delivery]:
    return queue.receive_messages(names or (STANDARD,), most, 0.0)


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [delivery.crash_id for delivery in deliveries]


def every_call(queue: SQLiteCrashQueue) -> list[Callable[[], object]]:
    """Each way of using the queue."""
    delivery = Delivery(STANDARD, new_ids(1)[0], None, (1, 1))
    return [
        queue.verify_access,
        lambda: queue.send_messages(STANDARD, [b"x"]),
        lambda: receive(queue),
        lambda: queue.ack_messages([delivery]),
        lambda: queue.nack_messages([delivery]),
        lambda: queue.extend_messages([delivery], 5),
    ]


# URIs


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("sqlite:", "^sqlite: the path of a file is missing: sqlite:///DIRECTORY/FILE$"),
        ("sqlite:///", "the path of a file is missing"),
        ("sqlite:///directory/", "the path of a file is missing"),
        ("sqlite://host/queue.db", "host"),
        ("sqlite://user@/queue.db", "user"),
        ("sqlite://:secret@/queue.db", "password"),
        ("sqlite://:80/queue.db", "port"),
        ("sqlite:///queue.db?lease=0", "lease"),
        ("sqlite:///queue.db?lease=long", "lease"),
        ("sqlite:///queue.db?timeout=5", "timeout"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused(uri: str, why: str) -> None:
    with pytest.raises(InvalidURI, match=why):
        open_queue(uri)


def test_options_are_those_of_the_uri(tmp_path: Path) -> None:
    uri = f"sqlite://{tmp_path}/queue.db?lease=7.5&quarantine={tmp_path}/bad.jsonl"
    with open_queue(uri) as queue:
        queue.create()
        assert (queue.uri, queue.lease, queue.first_lease) == (uri, 7.5, 7.5)
        queue.send_messages(STANDARD, [b"no-crash-id"])
        assert queue.pull() == []
    assert (tmp_path / "queue.db").exists()
    assert (tmp_path / "bad.jsonl").exists()


def test_by_its_path_it_is_called_by_its_path_and_leases_for_a_minute() -> None:
    queue = SQLiteCrashQueue("queue.db")
    assert (queue.uri, queue.lease, queue.first_lease) == ("sqlite:queue.db", 60.0, 60.0)


# The file


def test_the_file_is_made_once_with_the_directories_above_it(path: Path) -> None:
    with SQLiteCrashQueue(path) as queue:
        assert queue.create() == [str(path)]
        queue.publish(STANDARD, new_ids(1))
        assert queue.create() == []
    with SQLiteCrashQueue(path) as queue:
        assert queue.create() == []
        assert len(queue.pull()) == 1


def test_a_file_may_have_a_name_that_is_special_in_a_uri(tmp_path: Path) -> None:
    path = tmp_path / "a queue?mode=memory#1%20.db"
    with SQLiteCrashQueue(path) as queue:
        assert queue.create() == [str(path)]
        queue.publish(STANDARD, new_ids(1))
    assert path.exists()


def test_where_something_is_in_the_way_no_queue_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    queue = SQLiteCrashQueue(tmp_path / "file" / "queue.db")
    with pytest.raises(QueueError, match=r"file/queue\.db: Not a directory|: File exists"):
        queue.create()


@pytest.mark.parametrize("is_empty", [False, True], ids=["no file", "no tables"])
def test_a_queue_that_is_not_there_is_said_not_to_be_and_is_not_made(
    tmp_path: Path, is_empty: bool
) -> None:
    path = tmp_path / "queue.db"
    if is_empty:
        path.touch()
    with SQLiteCrashQueue(path) as queue:
        for call in every_call(queue):
            with pytest.raises(QueueError) as caught:
                call()
            assert str(caught.value) == f"sqlite:{path}: no such queue; --create makes it"
            assert not isinstance(caught.value, QueueUnavailable)
    assert path.exists() is is_empty


def test_a_file_that_is_none_of_sqlite_s_is_said_to_be_so_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_text("something else, of some length" * 100)
    with SQLiteCrashQueue(path) as queue:
        for call in (queue.create, *every_call(queue)):
            with pytest.raises(QueueError, match=f"sqlite:{path}: file is not a database"):
                call()
    assert path.read_text().startswith("something else")


def test_whatever_else_is_wrong_with_the_file_is_said(path: Path) -> None:
    path.mkdir(parents=True)
    with SQLiteCrashQueue(path) as queue:
        for call in (queue.create, *every_call(queue)):
            with pytest.raises(QueueError, match=f"^sqlite:{path}: unable to open database file$"):
                call()


def test_a_queue_that_another_keeps_busy_may_be_tried_again(
    queue: SQLiteCrashQueue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.close()
    monkeypatch.setattr(crashqueue, "_BUSY", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in every_call(queue):
            with pytest.raises(QueueUnavailable, match=f"{path}: another process keeps it busy"):
                call()
        other.execute("COMMIT")
    for call in every_call(queue):
        call()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that are opened."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    return opened


def test_what_is_published_is_forced_to_the_disk(
    connections: list[sqlite3.Connection], path: Path
) -> None:
    full = 2
    for create in (True, False):
        with SQLiteCrashQueue(path) as queue:
            if create:
                queue.create()
            queue.publish(STANDARD, new_ids(1))
            assert connections[-1].execute("PRAGMA synchronous").fetchone() == (full,)
            assert connections[-1].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(connections) == 2  # one for each queue, however often it is used


def test_a_queue_that_was_closed_opens_its_file_again(
    queue: SQLiteCrashQueue, connections: list[sqlite3.Connection]
) -> None:
    ids = new_ids(1)
    queue.publish(STANDARD, ids)
    for _ in range(2):
        queue.close()
    assert ids_of(queue.pull()) == ids
    assert len(connections) == 1
    queue.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connections[0].execute("SELECT 1")


def test_a_queue_that_one_thread_has_opened_is_used_and_closed_by_others(
    queue: SQLiteCrashQueue,
) -> None:
    ids = new_ids(1)
    queue.publish(STANDARD, ids)
    with ThreadPoolExecutor(1) as other:
        deliveries = other.submit(receive, queue).result()
        assert ids_of(deliveries) == ids
        other.submit(queue.ack, deliveries).result()
        other.submit(queue.close).result()
    assert receive(queue) == []


def test_of_what_cannot_all_be_published_nothing_is(queue: SQLiteCrashQueue) -> None:
    [good] = new_ids(1)
    bodies: list[Any] = [good.encode(), object()]
    with pytest.raises(QueueError, match=r"queue\.db: "):
        queue.send_messages(STANDARD, bodies)
    assert receive(queue) == []
    queue.publish(STANDARD, [good])  # and it is still of use
    assert ids_of(receive(queue)) == [good]


def test_two_that_have_the_file_open_share_its_queues(queue: SQLiteCrashQueue, path: Path) -> None:
    ids = new_ids(4)
    with SQLiteCrashQueue(path) as other:
        other.publish(STANDARD, ids)
        mine, theirs = receive(queue, most=2), receive(other)
        assert (ids_of(mine), ids_of(theirs)) == (ids[:2], ids[2:])
        assert other.ack_messages(mine) == 0
        assert queue.ack_messages([*mine, *theirs]) == 2


# Leases


def test_what_is_handed_out_is_ours_until_its_lease_ends(
    queue: SQLiteCrashQueue, clock: Clock
) -> None:
    ids = new_ids(2)
    queue.publish(STANDARD, ids)
    first = receive(queue)
    assert (ids_of(first), [delivery.attempt for delivery in first]) == (ids, [1, 1])
    clock.now += 9.5
    assert receive(queue) == []
    clock.now += 0.5
    again = receive(queue)
    assert (ids_of(again), [delivery.attempt for delivery in again]) == (ids, [2, 2])
    assert {delivery.handle for delivery in first}.isdisjoint(d.handle for d in again)


def test_an_extension_counts_from_now(queue: SQLiteCrashQueue, clock: Clock) -> None:
    queue.publish(STANDARD, new_ids(1))
    deliveries = receive(queue)
    clock.now += 5
    queue.extend_messages(deliveries, 20.0)
    clock.now += 19.5
    assert receive(queue) == []
    clock.now += 0.5
    assert len(receive(queue)) == 1


def test_what_is_given_back_waits_behind_what_was_published_before(
    queue: SQLiteCrashQueue, clock: Clock
) -> None:
    first, second, third = new_ids(3)
    queue.publish(STANDARD, [first])
    clock.now += 1
    queue.publish(STANDARD, [second])
    clock.now += 1
    deliveries = receive(queue, most=1)
    queue.nack_messages(deliveries)
    clock.now += 1
    queue.publish(STANDARD, [third])
    assert ids_of(deliveries) == [first]
    for crash_id in (second, first, third):
        assert ids_of(receive(queue, most=1)) == [crash_id]
    assert receive(queue) == []


def test_what_others_have_by_now_is_left_alone(queue: SQLiteCrashQueue, clock: Clock) -> None:
    queue.publish(STANDARD, new_ids(2))
    late = receive(queue)
    clock.now += 10
    ours = receive(queue)
    assert queue.ack_messages(late) == 2
    queue.nack_messages(late)
    queue.extend_messages(late, 1000.0)
    assert receive(queue) == []
    clock.now += 10
    again = receive(queue)
    assert ids_of(again) == ids_of(ours)
    assert queue.ack_messages([*again, *late]) == 2
    clock.now += 1000
    assert receive(queue) == []


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [1, 0, 0]), (3, [3, 0, 0]), (5, [3, 2, 0]), (8, [3, 3, 2])]
)
def test_the_first_queue_is_emptied_before_the_next_is_looked_at(
    queue: SQLiteCrashQueue, most: int, expected: list[int]
) -> None:
    order = [STANDARD, PRIORITY, REPROCESSING]
    for name in order:
        queue.publish(name, new_ids(3))
    names = [delivery.queue for delivery in receive(queue, *order, most=most)]
    assert [names.count(name) for name in order] == expected
    assert len(receive(queue, *order)) == 9 - most


def test_messages_come_in_the_order_in_which_they_were_published(queue: SQLiteCrashQueue) -> None:
    ids = new_ids(50)
    queue.publish(STANDARD, ids)
    found = [*receive(queue, most=20), *receive(queue)]
    assert ids_of(found) == ids
    assert [delivery.body for delivery in found] == ids
