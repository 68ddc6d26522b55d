# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A queue in a file whose clock is set, or was wrong: no crash id is hidden for long."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crashmover import open_queue
from crashmover.external.crashqueue_base import Delivery, QueueName
from crashmover.external.sqlite.crashqueue import SQLiteCrashQueue
from crashmover.testing.queues import new_ids
from tests.cli_helpers import run
from tests.conftest import Figures
from tests.test_sqlite_queue import Clock
from tests.test_sqlite_queue import clock as clock

STANDARD = QueueName.STANDARD
LEASE = 10.0

SCHEMA_OF_0_1 = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    visible_at REAL NOT NULL,             -- seconds since 1970; later than now: leased
    deliveries INTEGER NOT NULL DEFAULT 0 -- how often it was handed out
);
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (queue, visible_at, id);
"""


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SQLiteCrashQueue]:
    with SQLiteCrashQueue(tmp_path / "queue.db", lease=LEASE) as queue:
        queue.create()
        yield queue


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [delivery.crash_id for delivery in deliveries]


OFF = [45.0, 3600.0, 3 * 86400.0, 40 * 365 * 86400.0]
"""Seconds by which a clock was wrong."""


@pytest.mark.parametrize("off", [*OFF, *(-seconds for seconds in OFF)])
def test_what_is_published_by_a_wrong_clock_is_handed_out_at_once(
    queue: SQLiteCrashQueue, clock: Clock, off: float, figures: Figures
) -> None:
    right, wrong, later = new_ids(3)
    queue.publish(STANDARD, [right])
    clock.now += off
    queue.publish(STANDARD, [wrong])
    clock.now -= off
    queue.publish(STANDARD, [later])
    assert ids_of(queue.pull()) == [right, wrong, later]
    figures(clocks=1, crash_ids=3)


@pytest.mark.parametrize("off", OFF)
def test_a_lease_of_a_clock_that_was_ahead_has_ended(
    queue: SQLiteCrashQueue, clock: Clock, off: float, figures: Figures
) -> None:
    ids = new_ids(3)
    queue.publish(STANDARD, ids)
    clock.now += off
    deliveries = queue.pull()
    queue.extend(deliveries[:1], LEASE)
    queue.nack(deliveries[2:])
    clock.now -= off
    assert sorted(ids_of(queue.pull())) == sorted(ids)
    figures(clocks=1, crash_ids=3)


@pytest.mark.parametrize("off", OFF)
def test_a_lease_of_a_clock_that_was_behind_ends_at_once(
    queue: SQLiteCrashQueue, clock: Clock, off: float
) -> None:
    ids = new_ids(2)
    queue.publish(STANDARD, ids)
    clock.now -= off
    late = queue.pull()
    clock.now += off
    again = queue.pull()
    assert ids_of(again) == ids
    assert queue.ack_messages(late) == 2  # they are not its own any more
    assert queue.ack_messages(again) == 0


@pytest.mark.parametrize("by", [-1.0, -LEASE / 2, -0.9 * LEASE])
def test_a_clock_that_is_set_back_a_little_ends_no_lease(
    queue: SQLiteCrashQueue, clock: Clock, by: float
) -> None:
    queue.publish(STANDARD, new_ids(1))
    deliveries = queue.pull()
    clock.now += by
    assert queue.pull() == []
    queue.extend(deliveries, LEASE)
    assert queue.pull() == []
    clock.now += 2 * LEASE
    assert len(queue.pull()) == 1


def test_a_lease_that_is_extended_for_longer_is_kept(queue: SQLiteCrashQueue, clock: Clock) -> None:
    queue.publish(STANDARD, new_ids(1))
    queue.extend(queue.pull(), 1000 * LEASE)
    clock.now += 999 * LEASE
    assert queue.pull() == []


def test_the_order_does_not_depend_on_the_clock(queue: SQLiteCrashQueue, clock: Clock) -> None:
    ids = new_ids(6)
    for crash_id, off in zip(ids, (0, -500, 500, 0, 1e9, -1e9), strict=True):
        clock.now += off
        queue.publish(STANDARD, [crash_id])
        clock.now -= off
    assert ids_of(queue.pull()) == ids


# Files that version 0.1 has made


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA_OF_0_1)
    return path


def put(path: Path, crash_id: str, visible_at: float, deliveries: int = 0) -> None:
    insert = "INSERT INTO messages (queue, body, visible_at, deliveries) VALUES ('standard',?,?,?)"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(insert, (crash_id.encode(), visible_at, deliveries))


def test_a_file_of_version_0_1_is_used_as_it_is(old: Path, clock: Clock) -> None:
    ids = new_ids(5)
    put(old, ids[0], clock.now - 5)  # published
    put(old, ids[1], clock.now + 3 * 86400)  # published while the clock was ahead
    put(old, ids[2], clock.now + 30)  # the same, by less than a lease
    put(old, ids[3], clock.now + 3 * 86400, 1)  # leased while the clock was ahead
    put(old, ids[4], clock.now + 30, 1)  # leased now
    with SQLiteCrashQueue(old) as queue:
        found = queue.pull()
        assert ids_of(found) == ids[:4]
        assert [delivery.attempt for delivery in found] == [1, 1, 1, 2]
        queue.ack(found[:2])
        queue.nack(found[2:3])
        queue.give_back(found[3:])
        again = queue.pull()
        assert [(d.crash_id, d.attempt) for d in again] == [(ids[3], 2), (ids[2], 2)]
        clock.now += 61
        assert len(queue.pull()) == 3


def test_version_0_1_can_go_on_with_the_file(old: Path) -> None:
    """Its statements, to the letter."""
    with SQLiteCrashQueue(old) as queue:
        queue.publish(STANDARD, new_ids(2))
        queue.nack(queue.pull(max_messages=1))
    take = """
        UPDATE messages SET visible_at = ?, deliveries = deliveries + 1
        WHERE id IN (
            SELECT id FROM messages WHERE queue = ? AND visible_at <= ? AND length(body) <= ?
            ORDER BY visible_at, id LIMIT ?
        )
        RETURNING id, CAST(body AS BLOB), deliveries
    """
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        insert = "INSERT INTO messages (queue, body, visible_at) VALUES (?, ?, ?)"
        connection.execute(insert, ("standard", new_ids(1)[0].encode(), 1000.0))
        rows = connection.execute(take, (2000.0, "standard", 1000.0, 1024, 10)).fetchall()
    assert sorted(deliveries for _, _, deliveries in rows) == [1, 1, 2]


# What is said


def test_doctor_says_that_times_are_ahead(old: Path, clock: Clock) -> None:
    for crash_id in new_ids(3):
        put(old, crash_id, clock.now + 3 * 86400, 1)
    with SQLiteCrashQueue(old) as queue:
        [warning] = queue.diagnose()
        assert warning.startswith("3 crash ids have a time that is up to 3 days, 0:00:00 ahead")
        queue.pull()
        assert queue.diagnose() == []


def test_the_commands_find_what_was_published_by_a_clock_that_was_ahead(old: Path) -> None:
    ids = new_ids(3)
    for crash_id in ids:
        put(old, crash_id, 4e9)  # in the year 2096
    uri = f"sqlite:{old}"
    with open_queue(uri) as queue:
        [warning] = queue.diagnose()
        assert "ahead" in warning
    done = run("doctor", "-q", uri)
    assert (done.exit_code, done.stdout.split()[0]) == (0, "warn")
    done = run("queue-pull", "-q", uri, "--wait", "0")
    assert (done.exit_code, done.stdout.split()) == (0, ids)
