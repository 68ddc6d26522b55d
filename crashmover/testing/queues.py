# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The conformance suite of queues: what every one promises, as tests."""

import base64
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from crashmover import crashid
from crashmover.errors import InvalidCrashID, QueueError
from crashmover.external.crashqueue_base import BATCH, CrashQueueBase, Delivery, QueueName

WAIT = 5.0
EMPTY = 0.3  # seconds that a queue must have nothing for
RULES = "regenerate_signature"
MALFORMED = [
    b"no-crash-id",
    b"0bba929f-8721-460c-dead-a43c22071025\n",
    b"0bba929f-8721-460c-dead-a43c22071025:",
    b"0bba929f-8721-460c-dead-a43c22071025:../rules",
    b"0BBA929F-8721-460C-DEAD-A43C22071025",
    b"0bba929f-8721-460c-dead-a43c22999999",
    b"\xff\x00",
    "0bba929f-8721-460c-dead-a43c2207102\uff15".encode(),
    b"x" * 100_000,
]
"""Bodies of messages that name no crash."""


def new_ids(count: int) -> list[str]:
    """Return so many crash ids."""
    return [crashid.create() for _ in range(count)]


def pull_all(queue: CrashQueueBase, count: int, **options: object) -> list[Delivery]:
    """Return so many deliveries, and no more.

    A queue may hand out fewer at once than there are.
    """
    found: list[Delivery] = []
    deadline = time.monotonic() + 6 * WAIT
    while len(found) < count and time.monotonic() < deadline:
        found += queue.pull(max_messages=count - len(found), wait=WAIT, **options)  # type: ignore[arg-type]
    return found


class QueueConformance:
    """The promises of `CrashQueueBase`; give it fixtures `queue`, one that is empty, and
    `quarantine`, the path of its quarantine file."""

    def test_a_crash_id_comes_out_as_it_went_in(self, queue: CrashQueueBase) -> None:
        [crash_id] = new_ids(1)
        queue.publish("standard", [crash_id])
        [delivery] = queue.pull(wait=WAIT)
        assert (delivery.queue, delivery.crash_id, delivery.ruleset) == ("standard", crash_id, None)

    def test_an_empty_queue_has_nothing(self, queue: CrashQueueBase) -> None:
        assert queue.pull(wait=EMPTY) == []

    def test_a_ruleset_is_kept(self, queue: CrashQueueBase) -> None:
        [crash_id] = new_ids(1)
        queue.publish("reprocessing", [f"{crash_id}:{RULES}"])
        [delivery] = queue.pull(["reprocessing"], wait=WAIT)
        assert (delivery.crash_id, delivery.ruleset) == (crash_id, RULES)
        assert delivery.body == f"{crash_id}:{RULES}"

    @pytest.mark.parametrize("name", list(QueueName))
    def test_queues_are_apart(self, queue: CrashQueueBase, name: QueueName) -> None:
        queue.publish(name, new_ids(1))
        others = [other for other in QueueName if other != name]
        assert queue.pull(others, wait=EMPTY) == []
        assert len(queue.pull([name], wait=WAIT)) == 1

    def test_more_than_a_request_can_carry_arrives(self, queue: CrashQueueBase) -> None:
        ids = new_ids(2 * BATCH + 1)
        queue.publish("standard", ids)
        deliveries = pull_all(queue, len(ids))
        assert sorted(d.crash_id for d in deliveries) == sorted(ids)
        queue.ack(deliveries)
        assert queue.pull(wait=EMPTY) == []

    def test_no_more_than_asked_for_is_handed_out(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(5))
        assert len(queue.pull(max_messages=2, wait=WAIT)) <= 2

    def test_nothing_is_published_if_one_is_no_crash_id(self, queue: CrashQueueBase) -> None:
        with pytest.raises(InvalidCrashID):
            queue.publish("standard", [*new_ids(1), "no-crash-id"])
        assert queue.pull(wait=EMPTY) == []

    @pytest.mark.parametrize("name", ["", "other", "../standard"])
    def test_an_unknown_queue_is_an_error(self, queue: CrashQueueBase, name: str) -> None:
        with pytest.raises(ValueError, match="QueueName"):
            queue.publish(name, new_ids(1))

    def test_what_is_acked_does_not_come_again(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(3))
        queue.ack(pull_all(queue, 3))
        assert queue.pull(wait=EMPTY) == []

    def test_what_is_nacked_comes_again(self, queue: CrashQueueBase) -> None:
        ids = new_ids(3)
        queue.publish("standard", ids)
        first, second, third = pull_all(queue, 3)
        queue.ack([first])
        queue.nack([second, third])
        again = pull_all(queue, 2)
        assert {d.crash_id for d in again} == {second.crash_id, third.crash_id}

    def test_what_is_handed_out_is_not_handed_out_again_meanwhile(
        self, queue: CrashQueueBase
    ) -> None:
        queue.publish("standard", new_ids(2))
        assert len(pull_all(queue, 2)) == 2
        assert queue.pull(wait=EMPTY) == []

    def test_priority_is_served_first(self, queue: CrashQueueBase) -> None:
        for name in ("reprocessing", "standard", "priority"):
            queue.publish(name, new_ids(1))
        served = []
        for _ in range(3):
            # Time for all of them to be ready, wherever the queue is.
            served += queue.pull(max_messages=1, wait=WAIT)
        assert {d.queue for d in served} == set(QueueName)

    def test_no_queue_starves(self, queue: CrashQueueBase) -> None:
        for name in ("standard", "reprocessing"):
            queue.publish(name, new_ids(1))
        queue.publish("priority", new_ids(60))
        served = pull_one_by_one(queue, 50)
        assert {d.queue for d in served} == set(QueueName)

    def test_a_probe_is_dropped(self, queue: CrashQueueBase, quarantine: Path) -> None:
        queue.send_messages(QueueName.STANDARD, [b"test"])
        assert queue.pull(wait=EMPTY) == []
        assert queue.pull(wait=EMPTY) == []
        assert not quarantine.exists()

    def test_what_is_malformed_is_kept_in_a_file(
        self, queue: CrashQueueBase, quarantine: Path
    ) -> None:
        queue.send_messages(QueueName.STANDARD, MALFORMED)
        queue.publish("standard", new_ids(1))
        assert len(pull_all(queue, 1)) == 1
        kept: list[bytes] = []
        deadline = time.monotonic() + 6 * WAIT
        while len(kept) < len(MALFORMED) and time.monotonic() < deadline:
            assert queue.pull(wait=EMPTY) == []
            text = quarantine.read_text("utf-8") if quarantine.exists() else ""
            lines = list(map(json.loads, text.splitlines()))
            assert all(line["queue"] == "standard" for line in lines)
            kept = [base64.b64decode(line["body"]) for line in lines]
        assert sorted(kept) == sorted(MALFORMED)
        assert quarantine.stat().st_mode & 0o777 == 0o600
        assert queue.pull(wait=EMPTY) == []

    def test_what_cannot_be_kept_is_not_acked(
        self, queue: CrashQueueBase, quarantine: Path
    ) -> None:
        quarantine.mkdir(parents=True)
        queue.send_messages(QueueName.STANDARD, [b"no-crash-id"])
        with pytest.raises(QueueError, match="cannot be written"):
            queue.pull(wait=WAIT)
        assert not any(quarantine.iterdir())

    def test_what_cannot_be_kept_does_not_hold_up_the_others(
        self, queue: CrashQueueBase, quarantine: Path
    ) -> None:
        quarantine.mkdir(parents=True)
        ids = new_ids(3)
        queue.send_messages(QueueName.STANDARD, [b"no-crash-id", *(i.encode() for i in ids)])
        found: list[str] = []
        with suppress(QueueError):  # where the malformed one comes alone
            found += [d.crash_id for d in pull_all(queue, 3)]
        assert sorted(found) == sorted(ids)

    def test_it_gives_what_a_processor_takes(self, queue: CrashQueueBase) -> None:
        ids = new_ids(3)
        queue.publish("standard", ids)
        seen: list[str] = []
        deadline = time.monotonic() + WAIT
        while len(seen) < 3 and time.monotonic() < deadline:
            for (crash_id,), options in queue:
                seen.append(crash_id)
                options["finished_func"]()
        assert sorted(seen) == sorted(ids)
        assert queue.pull(wait=EMPTY) == []

    def test_a_processor_gets_what_waits_at_its_first_call(self, queue: CrashQueueBase) -> None:
        ids = new_ids(25)
        queue.publish("standard", ids)
        time.sleep(EMPTY)  # time for them to be ready, wherever the queue is
        seen: list[str] = []
        for (crash_id,), options in queue:
            seen.append(crash_id)
            options["finished_func"]()
        assert sorted(seen) == sorted(ids)

    def test_what_a_processor_has_not_taken_is_given_back(self, queue: CrashQueueBase) -> None:
        ids = new_ids(5)
        queue.publish("standard", ids)
        time.sleep(EMPTY)
        iterator = queue.new_crashes()
        (taken,), options = next(iterator)
        iterator.close()  # type: ignore[attr-defined]
        options["finished_func"]()
        assert {d.crash_id for d in pull_all(queue, 4)} == set(ids) - {taken}

    def test_what_is_given_back_comes_again(self, queue: CrashQueueBase) -> None:
        ids = new_ids(3)
        queue.publish("standard", ids)
        first, *others = pull_all(queue, 3)
        queue.give_back(others)
        again = pull_all(queue, 2)
        assert sorted(d.crash_id for d in again) == sorted(d.crash_id for d in others)
        queue.ack([first])
        queue.give_back()
        assert len(pull_all(queue, 2)) == 2

    def test_what_has_arrived_is_had_without_waiting(self, queue: CrashQueueBase) -> None:
        ids = new_ids(3)
        queue.publish("standard", ids)
        found: list[Delivery] = []
        deadline = time.monotonic() + WAIT
        while len(found) < 3 and time.monotonic() < deadline:
            begun = time.monotonic()
            found += queue.pull_arrived()
            assert time.monotonic() - begun < WAIT / 2
            time.sleep(0.05)
        assert sorted(d.crash_id for d in found) == sorted(ids)

    def test_a_quarantine_that_cannot_be_written_is_found_out(
        self, queue: CrashQueueBase, quarantine: Path
    ) -> None:
        assert queue.diagnose_quarantine() == []
        assert not quarantine.exists()
        quarantine.mkdir(parents=True)
        [warning] = queue.diagnose_quarantine()
        assert str(quarantine) in warning and "?quarantine=" in warning

    def test_many_threads_get_each_crash_id_once(self, queue: CrashQueueBase) -> None:
        ids = new_ids(200)
        queue.publish("standard", ids)
        got: list[str] = []

        def work() -> None:
            while deliveries := queue.pull(max_messages=7, wait=1):
                got.extend(d.crash_id for d in deliveries)
                queue.ack(deliveries)

        in_threads(work, 4)
        assert sorted(got) == sorted(ids)

    def test_its_text_and_repr_name_it(self, queue: CrashQueueBase) -> None:
        assert queue.uri in repr(queue)

    def test_what_is_there_is_made_only_once(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(1))
        assert queue.create() == []
        assert len(queue.pull(wait=WAIT)) == 1

    def test_it_can_be_read(self, queue: CrashQueueBase) -> None:
        queue.verify_access()

    def test_a_diagnosis_adds_nothing_and_takes_nothing(self, queue: CrashQueueBase) -> None:
        ids = new_ids(2)
        queue.publish("standard", ids)
        assert queue.diagnose() == []
        found = pull_all(queue, 2)
        assert sorted(delivery.crash_id for delivery in found) == sorted(ids)
        queue.ack(found)
        assert queue.pull(wait=EMPTY) == []


class LeaseConformance:
    """What becomes of leases; `queue` is one whose leases are short: `first_lease` says how."""

    def test_a_lease_ends(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(1))
        [first] = queue.pull(wait=WAIT)
        [again] = queue.pull(wait=3 * queue.first_lease)
        assert again.crash_id == first.crash_id

    def test_an_extended_lease_does_not_end(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(1))
        deliveries = queue.pull(wait=WAIT)
        queue.extend(deliveries, 60)
        assert queue.pull(wait=1.5 * queue.first_lease) == []

    def test_what_is_held_is_kept(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(2))
        with queue.keeping_leases():
            first, second = pull_all(queue, 2)
            queue.ack([first])
            assert queue.pull(wait=3 * queue.first_lease) == []
            queue.ack([second])
        assert queue.pull(wait=1.5 * queue.first_lease) == []

    def test_what_a_processor_works_on_is_kept(self, queue: CrashQueueBase) -> None:
        queue.publish("standard", new_ids(3))
        time.sleep(EMPTY)
        finish = [options["finished_func"] for _, options in queue]
        assert len(finish) == 3
        assert queue.pull(wait=2.5 * queue.first_lease) == []
        for finished_func in finish:
            finished_func()
        assert queue.pull(wait=1.5 * queue.first_lease) == []

    def test_what_a_processor_never_finishes_comes_again(self, queue: CrashQueueBase) -> None:
        queue.handed_out_for = queue.first_lease
        queue.lease = queue.first_lease
        ids = new_ids(1)
        queue.publish("standard", ids)
        time.sleep(EMPTY)
        assert [crash_id for (crash_id,), _ in queue] == ids
        again = queue.pull(wait=4 * queue.first_lease)
        assert [delivery.crash_id for delivery in again] == ids


def pull_one_by_one(queue: CrashQueueBase, count: int) -> list[Delivery]:
    """Return so many deliveries, pulled one at a time and acked."""
    served: list[Delivery] = []
    for _ in range(count):
        deliveries = queue.pull(max_messages=1, wait=WAIT)
        queue.ack(deliveries)
        served += deliveries
    return served


def in_threads(work: Callable[[], None], count: int) -> None:
    """Run it in so many threads at once."""
    threads = [Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
