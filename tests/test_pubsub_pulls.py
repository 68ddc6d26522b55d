# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A consumer of Pub/Sub that has ended hides nothing from the next one, and one that was killed
hides what it had for a minute."""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crashmover import open_queue
from crashmover.external.crashqueue_base import QueueName
from crashmover.testing.queues import new_ids
from tests.cli_helpers import TIMEOUT, run_process, start
from tests.conftest import Figures
from tests.servers import pubsub
from tests.servers.late_pubsub import LatePubSub
from tests.servers.pubsub import Emulator

LATE = 8.0
"""Seconds after the end of its wait in which a command has ended, on a machine that is busy."""


@pytest.fixture(scope="module")
def late() -> Iterator[LatePubSub]:
    with LatePubSub() as server:
        yield server


@pytest.fixture(scope="module")
def stubborn() -> Iterator[LatePubSub]:
    """A server that answers a pull no sooner than its client gives it up."""
    with LatePubSub(margin=-1.0) as server:
        yield server


_SLOW = [pytest.mark.slow, pytest.mark.skipif(not pubsub.has_emulator(), reason="not installed")]


@pytest.fixture(params=["late", pytest.param("emulator", marks=_SLOW)])
def uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Queues that are new, at a server whose pulls go on without their client."""
    if request.param == "emulator":
        server: Any = request.getfixturevalue("google_emulator")
    else:
        server = request.getfixturevalue("late")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
    uri = server.uri()
    with open_queue(uri) as queue:
        queue.create()
    yield uri


@pytest.fixture(scope="module")
def google_emulator() -> Iterator[Emulator]:
    with Emulator() as server:
        yield server


def publish(uri: str, count: int = 20, name: QueueName = QueueName.STANDARD) -> list[str]:
    ids = new_ids(count)
    with open_queue(uri) as queue:
        queue.publish(name, ids)
    return sorted(ids)


def pulled(uri: str, count: int) -> list[str]:
    """Return what a new consumer gets, up to so many, and takes off the queue."""
    with open_queue(uri) as queue:
        found = queue.pull(wait=2.0)
        while len(found) < count and (more := queue.pull()):
            found += more
        queue.ack(found)
    return sorted(delivery.crash_id for delivery in found)


def consumer(command: str, uri: str, tmp_path: Path, *options: str) -> list[str | Path]:
    """Return the command line of a consumer of the queue."""
    if command == "queue-pull":
        return [command, "-q", uri, *options]
    (tmp_path / "source").mkdir()
    return [command, "-s", tmp_path / "source", "-d", tmp_path / "to", "-q", uri, *options]


@pytest.mark.parametrize("command", ["queue-pull", pytest.param("copy", marks=pytest.mark.slow)])
@pytest.mark.parametrize("wait", [0, 1.4])
def test_a_run_that_found_nothing_hides_nothing(
    uri: str, tmp_path: Path, command: str, wait: float, figures: Figures
) -> None:
    args = consumer(command, uri, tmp_path, "--wait", str(wait))
    begun = time.monotonic()
    done = run_process(*args)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < max(wait, 1.0) + LATE
    ids = publish(uri)
    assert pulled(uri, len(ids)) == ids
    figures(runs=1, crash_ids=len(ids))


def test_what_a_limit_leaves_is_there_at_once(uri: str, figures: Figures) -> None:
    ids = publish(uri)
    done = run_process("queue-pull", "-q", uri, "--limit", "3")
    printed = done.stdout.decode().split()
    assert (done.returncode, len(printed)) == (0, 3)
    more = publish(uri)
    left = sorted({*ids, *more} - set(printed))
    assert pulled(uri, len(left)) == left
    figures(runs=1, crash_ids=len(ids + more))


@pytest.mark.parametrize("command", ["queue-pull", pytest.param("copy", marks=pytest.mark.slow)])
def test_one_that_follows_and_is_stopped_hides_nothing(
    uri: str, tmp_path: Path, command: str, figures: Figures
) -> None:
    with start(*consumer(command, uri, tmp_path, "--follow")) as process:
        time.sleep(1.7)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert time.monotonic() - begun < LATE
    ids = publish(uri)
    assert pulled(uri, len(ids)) == ids
    figures(runs=1, crash_ids=len(ids))


@pytest.mark.slow
def test_one_that_is_killed_hides_for_two_seconds_at_most(uri: str) -> None:
    with start("queue-pull", "-q", uri, "--follow") as process:
        time.sleep(2)
        process.kill()
        process.communicate(timeout=TIMEOUT)
    time.sleep(2.2)
    ids = publish(uri)
    assert pulled(uri, len(ids)) == ids


@pytest.mark.parametrize("wait", [0.0, 0.4, 1.5])
def test_a_queue_that_is_closed_hides_nothing(uri: str, wait: float) -> None:
    with open_queue(uri) as queue:
        assert queue.pull(wait=wait) == []
        queue.pull_arrived()  # leaves a request on its way
        begun = time.monotonic()
    assert time.monotonic() - begun < LATE
    ids = publish(uri)
    assert pulled(uri, len(ids)) == ids


def test_what_comes_while_a_queue_is_closed_is_given_back(uri: str) -> None:
    with open_queue(uri) as queue:
        queue.pull_arrived()
        ids = publish(uri)
    assert pulled(uri, len(ids)) == ids


def test_a_server_that_never_answers_in_time_delays_the_end_by_seconds(
    stubborn: LatePubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", stubborn.address)
    with open_queue(stubborn.uri()) as queue:
        queue.create()
        assert queue.pull() == []
        queue.pull_arrived()
        begun = time.monotonic()
    assert time.monotonic() - begun < LATE


# What waits at the first call


@pytest.mark.parametrize("name", list(QueueName))
def test_the_first_pull_gives_what_waits(uri: str, name: QueueName, figures: Figures) -> None:
    ids = publish(uri, 20, name)
    with open_queue(uri) as queue:
        found = queue.pull(max_messages=100)
        queue.ack(found)
    assert sorted(delivery.crash_id for delivery in found) == ids
    figures(crash_ids=len(ids))


def test_a_processor_gets_what_waits_at_its_first_call(uri: str, figures: Figures) -> None:
    ids = publish(uri, 25)
    found = []
    with open_queue(uri) as queue:
        for (crash_id,), options in queue:
            found.append(crash_id)
            options["finished_func"]()
    assert sorted(found) == ids
    figures(crash_ids=len(ids))


def test_what_a_processor_has_not_taken_is_given_back(uri: str) -> None:
    ids = publish(uri, 25)
    with open_queue(uri) as queue:
        for (_crash_id,), options in queue:
            options["finished_func"]()
            break
        gc.collect()
        rest = pulled(uri, 24)
    assert len(rest) == 24 and set(rest) < set(ids)


def test_what_a_processor_has_not_taken_is_given_back_when_its_queue_is_closed(uri: str) -> None:
    ids = publish(uri, 25)
    with open_queue(uri) as queue:
        iterator = iter(queue)
        (_crash_id,), options = next(iterator)
        options["finished_func"]()
    rest = pulled(uri, 24)
    assert len(rest) == 24 and set(rest) < set(ids)


# Leases


@pytest.fixture
def late_uri(late: LatePubSub, monkeypatch: pytest.MonkeyPatch) -> str:
    """Queues as --create makes them, at a server that tells what leases are left."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", late.address)
    late.kept.clear()
    late.modified.clear()
    uri = late.uri()
    with open_queue(uri) as queue:
        queue.create()
    return uri


def test_a_subscription_that_we_make_leaves_other_consumers_ten_minutes(
    late: LatePubSub, late_uri: str
) -> None:
    prefix = late_uri.rpartition("/")[2]
    ours = [seconds for name, seconds in late.deadlines.items() if prefix in name]
    assert ours == [600] * 3


@pytest.mark.parametrize("way", ["copying", "iterating"])
def test_our_own_leases_are_of_a_minute_whatever_the_subscription_says(
    late: LatePubSub, late_uri: str, way: str
) -> None:
    publish(late_uri, 5)
    with open_queue(late_uri) as queue:
        if way == "copying":
            with queue.keeping_leases():
                assert len(queue.pull(wait=5)) == 5
                wait_until(lambda: max(late.leases()) <= 60)
        else:
            iterator = iter(queue)
            next(iterator)
            wait_until(lambda: max(late.leases()) <= 60)
    # What was not handed out is given back when the queue is closed.
    assert len(late.leases()) == (5 if way == "copying" else 1)
    assert late.modified[0] == (5, 60)


def test_a_worker_that_is_killed_hides_what_it_had_for_a_minute(
    late: LatePubSub, late_uri: str
) -> None:
    publish(late_uri, 5)
    with start("queue-pull", "-q", late_uri, "--no-ack", "--wait", "60") as process:
        wait_until(lambda: len(late.modified) > 0)
        process.kill()
        process.communicate(timeout=TIMEOUT)
    leases = late.leases()
    assert len(leases) == 5 and max(leases) <= 60


def test_what_is_given_back_is_not_leased_again(late: LatePubSub, late_uri: str) -> None:
    publish(late_uri, 50)
    with open_queue(late_uri) as queue, queue.keeping_leases():
        for _ in range(10):
            found = queue.pull(max_messages=10)
            time.sleep(queue.extend_every)  # so that an extension is on its way, perhaps
            queue.nack(found)
        queue.give_back()
        wait_until(lambda: late.waiting() == 50)
        time.sleep(2 * queue.extend_every)
        assert late.waiting() == 50


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
