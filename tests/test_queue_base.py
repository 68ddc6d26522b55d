# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What is the same for all queues, over a backend that answers as a test tells it to."""

import base64
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from crashmover.errors import (
    CrashIdsFailedToPublish,
    InvalidCrashID,
    QueueError,
    QueueUnavailable,
)
from crashmover.external import crashqueue_base
from crashmover.external.crashqueue_base import (
    BATCH,
    CrashQueueBase,
    Delivery,
    Message,
    QueueName,
    parse_body,
)
from crashmover.retry import RetryPolicy
from crashmover.testing.queues import new_ids
from crashmover.uri import StorageURI

STANDARD = QueueName.STANDARD
DOWN = QueueUnavailable("does not answer")
REFUSED = QueueError("refused")
SLOW = 60.0  # seconds after which a test gives up to wait: a machine may stand still for some


class Scripted(CrashQueueBase):
    """A queue that takes note of what is asked of it.

    :param quarantine: where it puts what is malformed
    """

    uri = "scripted:"
    retry = RetryPolicy(wait=0, wait_max=0)

    def __init__(self, quarantine: Path | None = None) -> None:
        super().__init__(quarantine)
        self.asked: list[tuple[str, list[str]]] = []
        self.seconds: list[float] = []
        self.pulls: list[tuple[list[QueueName], int, float]] = []
        self.inbox: list[list[Message]] = []
        self.errors: dict[str, list[QueueError | None]] = {}  # by method, each for one call
        self.late = 0
        self.dead_letters: set[QueueName] = set()
        self.asked_of: set[QueueName] = set()

    def _note(self, method: str, texts: list[str]) -> None:
        self.asked.append((method, texts))
        errors = self.errors.get(method)
        if errors and (error := errors.pop(0)):
            raise error

    def _note_of(self, method: str, deliveries: Sequence[Delivery]) -> None:
        self.asked_of |= {delivery.queue for delivery in deliveries}
        self._note(method, [str(delivery.handle) for delivery in deliveries])

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        raise NotImplementedError

    def send_messages(self, queue: QueueName, bodies: Sequence[bytes]) -> None:
        self._note(f"send to {queue}", [body.decode() for body in bodies])

    def receive_messages(
        self, queues: Sequence[QueueName], max_messages: int, wait: float
    ) -> list[Delivery]:
        self.pulls.append((list(queues), max_messages, wait))
        return self.accept(self.inbox.pop(0) if self.inbox else [])

    def ack_messages(self, deliveries: Sequence[Delivery]) -> int:
        self._note_of("ack", deliveries)
        return self.late

    def nack_messages(self, deliveries: Sequence[Delivery]) -> None:
        self._note_of("nack", deliveries)

    def extend_messages(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        self.seconds.append(seconds)
        self._note_of("extend", deliveries)

    def has_dead_letters(self, queue: QueueName) -> bool:
        return queue in self.dead_letters

    def close(self) -> None:
        self._note("close", [])


class Clock:
    """A clock that stands until somebody moves it, and tells how often it was read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._count = 0
        self._read = threading.Condition()

    def __call__(self) -> float:
        with self._read:
            self._count += 1
            self._read.notify_all()
            return self.now

    def wait_for_reads(self, number: int) -> None:
        with self._read:
            goal = self._count + number
            assert self._read.wait_for(lambda: self._count >= goal, SLOW)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(crashqueue_base, "monotonic", clock)
    return clock


@pytest.fixture
def queue(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path / "state" / "quarantine.jsonl")


def messages(*bodies: str, first: int = 0) -> list[Message]:
    """Messages of these bodies, their handles numbered."""
    return [Message(STANDARD, body.encode(), n) for n, body in enumerate(bodies, first)]


def held(queue: Scripted, count: int) -> list[Delivery]:
    """Pull so many crash ids."""
    queue.inbox.append(messages(*new_ids(count)))
    return queue.pull()


def handles(numbers: Sequence[int]) -> list[str]:
    return [str(number) for number in numbers]


FULL = [handles(range(BATCH)), handles(range(BATCH, 2 * BATCH)), handles([2 * BATCH])]
"""The handles of two full batches and one more."""


# Bodies


@pytest.mark.parametrize("ruleset", [None, "a", "regenerate_signature", "A-1.b_c", "x" * 100])
def test_a_body_is_a_crash_id_and_may_name_a_ruleset(ruleset: str | None) -> None:
    [crash_id] = new_ids(1)
    body = f"{crash_id}:{ruleset}" if ruleset else crash_id
    assert parse_body(body) == (crash_id, ruleset)
    assert Delivery(STANDARD, crash_id, ruleset, 1).body == body


@pytest.mark.parametrize("ruleset", ["", "x" * 101, "a b", "a:b", "a/b", "a\n", "\u00e9", "a,b"])
def test_what_follows_the_colon_must_be_the_name_of_a_ruleset(ruleset: str) -> None:
    body = f"{new_ids(1)[0]}:{ruleset}"
    with pytest.raises(InvalidCrashID, match="colon is not the name of a ruleset") as caught:
        parse_body(body)
    assert ascii(body[:20])[1:-1] in str(caught.value)


@pytest.mark.parametrize("text", ["", ":", ":rules", "test", "no-crash-id:rules"])
def test_what_is_no_crash_id_is_none_whatever_follows(text: str) -> None:
    with pytest.raises(InvalidCrashID):
        parse_body(text)


# Publishing


@pytest.mark.parametrize("name", [STANDARD, "priority"])
def test_many_are_published_in_order_and_in_batches(queue: Scripted, name: str) -> None:
    ids = new_ids(2 * BATCH + 1)
    queue.publish(name, ids)
    assert [method for method, _ in queue.asked] == [f"send to {name}"] * 3
    assert [bodies for _, bodies in queue.asked] == [ids[:BATCH], ids[BATCH:-1], ids[-1:]]


def test_nothing_is_sent_where_there_is_nothing_or_one_is_no_crash_id(queue: Scripted) -> None:
    queue.publish(STANDARD, [])
    with pytest.raises(InvalidCrashID):
        queue.publish(STANDARD, [*new_ids(2 * BATCH), "no-crash-id"])
    assert queue.asked == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_exactly_those_that_were_not_confirmed_are_named(queue: Scripted, failing: int) -> None:
    ids = new_ids(2 * BATCH + 1)
    queue.errors["send to standard"] = [*[None] * failing, REFUSED]
    with pytest.raises(CrashIdsFailedToPublish) as caught:
        queue.publish(STANDARD, ids)
    assert caught.value.crash_ids == ids[failing * BATCH :]
    assert caught.value.__cause__ is REFUSED
    assert str(caught.value).endswith("crash ids were not published: refused")
    assert len(queue.asked) == failing + 1  # after the first that fails, none is tried


def test_what_fails_in_passing_is_tried_again(queue: Scripted) -> None:
    ids = new_ids(1)
    every = ("send to standard", "ack", "nack", "extend")
    queue.errors = {method: [DOWN, DOWN] for method in every}
    queue.publish(STANDARD, ids)
    deliveries = held(queue, 1)
    queue.extend(deliveries, 5)
    queue.ack(deliveries)
    queue.nack(deliveries)
    assert [method for method, _ in queue.asked] == [
        method for method in ("send to standard", "extend", "ack", "nack") for _ in range(3)
    ]


def test_what_goes_on_failing_is_an_error(queue: Scripted) -> None:
    deliveries = held(queue, 1)
    for call in (queue.ack, queue.nack, lambda d: queue.extend(d, 5)):
        queue.errors = {method: [DOWN] * 99 for method in ("ack", "nack", "extend")}
        with pytest.raises(QueueUnavailable):
            call(deliveries)


# Pulling


def test_a_pull_asks_for_as_much_as_it_is_told_and_returns_what_it_finds_at_once(
    queue: Scripted, clock: Clock
) -> None:
    [first, second] = new_ids(2)
    queue.inbox = [
        [
            Message(STANDARD, f"{first}:rules".encode(), "a", 3),
            Message(QueueName.PRIORITY, second.encode(), ("b", 1)),
        ]
    ]
    assert queue.pull(max_messages=7, wait=5.0) == [
        Delivery(STANDARD, first, "rules", "a", 3),
        Delivery(QueueName.PRIORITY, second, None, ("b", 1), 0),
    ]
    assert queue.pulls == [(list(QueueName), 7, 5.0)]
    assert queue.pull() == []
    assert queue.pulls[1:] == [(list(QueueName), BATCH, 0.0)]


def test_an_empty_queue_is_asked_again_until_the_time_is_over(
    queue: Scripted, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            clock.now += timeout
            return False

    monkeypatch.setattr(threading, "Event", Waiting)
    assert queue.pull(wait=0.25) == []
    assert [round(wait, 2) for _, _, wait in queue.pulls] == [0.25, 0.15, 0.05, 0.0]
    assert [round(wait, 2) for wait in waits] == [0.1, 0.1, 0.05]
    queue.inbox = [[], messages(*new_ids(1))]
    assert len(queue.pull(wait=0.25)) == 1
    assert len(queue.pulls) == 6


def test_priority_comes_first_and_now_and_then_another(queue: Scripted) -> None:
    for _ in range(60):
        queue.pull()
    asked = [names for names, _, _ in queue.pulls]
    assert all(sorted(names) == sorted(QueueName) for names in asked)
    firsts = [names[0] for names in asked]
    for start in range(0, 60, 10):
        assert firsts[start : start + 10].count(QueueName.PRIORITY) == 9
    assert firsts.count(STANDARD) == firsts.count(QueueName.REPROCESSING) == 3
    # Whichever comes first, the others follow by rank.
    assert all(names[1:] == [n for n in QueueName if n != names[0]] for names in asked)


@pytest.mark.parametrize("names", [["reprocessing"], ["reprocessing", STANDARD]])
def test_only_the_queues_that_are_named_are_pulled_from(
    queue: Scripted, names: list[QueueName | str]
) -> None:
    for _ in range(20):
        queue.pull(names)
    firsts = [asked[0] for asked, _, _ in queue.pulls]
    assert all(sorted(asked) == sorted(map(QueueName, names)) for asked, _, _ in queue.pulls)
    assert firsts.count(QueueName.REPROCESSING) == (20 if len(names) == 1 else 2)


# What is malformed


def test_a_probe_is_taken_off_the_queue_and_not_kept(queue: Scripted, tmp_path: Path) -> None:
    queue.inbox = [messages("test", *new_ids(1))]
    [delivery] = queue.pull()
    assert delivery.handle == 1
    assert (queue.asked, queue.asked_of) == ([("ack", ["0"])], {STANDARD})
    assert list(tmp_path.iterdir()) == []


def test_what_is_malformed_is_acknowledged_when_it_is_on_the_disk(
    queue: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state" / "quarantine.jsonl"
    kept: list[str] = []

    class Watched(Scripted):
        def ack_messages(self, deliveries: Sequence[Delivery]) -> int:
            kept.append(path.read_text("utf-8"))
            return super().ack_messages(deliveries)

    queue = Watched(path)
    bodies = [b"no-crash-id", b"\xff\x00"]
    good = new_ids(1)[0].encode()
    queue.inbox = [[Message(STANDARD, body, n) for n, body in enumerate([*bodies, good])]]
    assert [delivery.handle for delivery in queue.pull()] == [2]
    assert queue.asked == [("ack", ["0"]), ("ack", ["1"])]
    lines = [json.loads(line) for line in kept[-1].splitlines()]
    assert len(kept[0].splitlines()) == 1
    assert [(line["uri"], line["queue"]) for line in lines] == [("scripted:", "standard")] * 2
    assert [base64.b64decode(line["body"]) for line in lines] == bodies
    assert f"scripted:: standard: a malformed message, now in {path}" in caplog.messages


def test_what_cannot_be_kept_stays_and_the_others_are_handed_out(
    queue: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("in the way")
    bad = [messages("no-crash-id", first=7), messages("no-crash-id", *new_ids(2), "nor-this")]
    queue.inbox = bad
    with pytest.raises(QueueError, match="cannot be written"):
        queue.pull()
    assert len(queue.pull()) == 2
    assert queue.asked == []
    stays = [text for text in caplog.messages if "a malformed message stays: quarantine" in text]
    assert len(stays) == 3 and all(text.startswith("scripted:: ") for text in stays)


def test_what_is_malformed_is_left_to_a_policy_for_dead_letters(
    queue: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue.dead_letters = {STANDARD}
    queue.inbox = [messages("no-crash-id", "test")]
    assert queue.pull() == []
    assert queue.asked == [("nack", ["0"]), ("ack", ["1"])]
    assert queue.asked_of == {STANDARD}
    assert list(tmp_path.iterdir()) == []
    said = "scripted:: standard: a malformed message, left to its dead-letter policy"
    assert caplog.messages == [said]


# What is held


def test_acks_nacks_and_extensions_go_in_batches(queue: Scripted) -> None:
    deliveries = held(queue, 2 * BATCH + 1)
    queue.extend(deliveries, 77.0)
    queue.ack(deliveries)
    queue.nack(deliveries)
    assert queue.asked == [
        (method, batch) for method in ("extend", "ack", "nack") for batch in FULL
    ]
    assert queue.seconds == [77.0] * 3


def test_nothing_is_asked_for_nothing(queue: Scripted) -> None:
    for call in (queue.ack, queue.nack, lambda none: queue.extend(none, 5)):
        call([])
    queue.give_back()
    assert queue.asked == []


def test_all_that_is_held_is_given_back_and_no_more(queue: Scripted) -> None:
    first, second, third, fourth = held(queue, 4)
    queue.ack([first])
    queue.nack([third])
    queue.ack([first])  # as one does whose answer was lost
    queue.asked.clear()
    for _ in range(2):  # the second time, nothing is held
        queue.give_back()
    assert queue.asked == [("nack", handles([1, 3]))]
    assert (second.handle, fourth.handle) == (1, 3)


def test_what_an_ack_was_asked_for_is_held_no_more_though_it_failed(queue: Scripted) -> None:
    deliveries = held(queue, 2)
    queue.errors = {"ack": [REFUSED], "nack": [REFUSED]}
    with pytest.raises(QueueError, match="refused"):
        queue.ack(deliveries[:1])
    with pytest.raises(QueueError, match="refused"):
        queue.nack(deliveries[1:])
    queue.asked.clear()
    queue.give_back()
    assert queue.asked == []


def test_acks_that_come_too_late_are_counted_and_told(
    queue: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    queue.ack(held(queue, 1))
    assert caplog.messages == []
    queue.late = 2
    queue.ack(held(queue, 2 * BATCH + 1))
    assert caplog.messages == [
        "scripted:: 6 acknowledgements came too late; these will be handed out again"
    ]
    assert caplog.records[0].levelno == logging.WARNING


# Leases


@pytest.fixture
def short(queue: Scripted) -> Scripted:
    """A queue that is looked at often, whose leases are short at first."""
    queue.first_lease, queue.lease = 0.03, 30.0
    return queue


def test_a_lease_is_extended_at_a_third_of_it(short: Scripted, clock: Clock) -> None:
    with short.keeping_leases():
        held(short, 2)
        clock.wait_for_reads(4)
        assert short.asked == []
        clock.now += 0.011
        clock.wait_for_reads(4)
        assert short.asked == [("extend", ["0", "1"])]
        clock.now += 9.9
        clock.wait_for_reads(4)
        assert len(short.asked) == 1
        clock.now += 0.2
        clock.wait_for_reads(4)
        assert short.asked[1:] == [("extend", ["0", "1"])]
    assert short.seconds == [30.0, 30.0]


def test_what_is_acked_nacked_or_given_back_is_not_extended(short: Scripted, clock: Clock) -> None:
    with short.keeping_leases():
        deliveries = held(short, 3)
        short.ack(deliveries[:1])
        short.nack(deliveries[1:2])
        clock.now += 1
        clock.wait_for_reads(4)
        assert short.asked[2:] == [("extend", ["2"])]
        short.give_back()
        clock.now += 100
        clock.wait_for_reads(4)
    assert [method for method, _ in short.asked] == ["ack", "nack", "extend", "nack"]


def test_what_is_acked_while_it_is_extended_is_not_held_again(
    short: Scripted, clock: Clock
) -> None:
    class Acking(Scripted):
        def extend_messages(self, deliveries: Sequence[Delivery], seconds: float) -> None:
            super().extend_messages(deliveries, seconds)
            self.ack(deliveries[:1])

    queue = Acking()
    queue.first_lease, queue.lease = 0.03, 30.0
    with queue.keeping_leases():
        held(queue, 2)
        clock.now += 1
        clock.wait_for_reads(4)
    queue.give_back()
    assert queue.asked == [("extend", ["0", "1"]), ("ack", ["0"]), ("nack", ["1"])]


def test_many_leases_are_extended_in_batches_and_one_that_fails_soon_again(
    short: Scripted, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "crashmover")
    short.errors = {"extend": [None, DOWN]}
    with short.keeping_leases():
        held(short, 2 * BATCH + 1)
        clock.now += 1
        clock.wait_for_reads(12)
        assert [batch for _, batch in short.asked] == FULL
        assert caplog.messages == ["scripted:: leases could not be extended: does not answer"]
        clock.now += 4.9
        clock.wait_for_reads(4)
        assert len(short.asked) == 3
        clock.now += 0.2
        clock.wait_for_reads(4)
        assert short.asked[3:] == [("extend", FULL[1])]


def test_a_lease_that_is_short_is_tried_again_before_it_ends(short: Scripted, clock: Clock) -> None:
    short.lease = 6.0
    short.errors = {"extend": [REFUSED]}
    with short.keeping_leases():
        held(short, 1)
        clock.now += 1
        clock.wait_for_reads(4)
        clock.now += 1.1
        clock.wait_for_reads(4)
    assert len(short.asked) == 2


def test_leases_are_kept_until_it_is_over_and_no_longer(short: Scripted, clock: Clock) -> None:
    def keepers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "leases"]

    with pytest.raises(ZeroDivisionError), short.keeping_leases():
        assert keepers() == ["leases"]
        raise ZeroDivisionError
    assert keepers() == []
    held(short, 1)
    clock.now += 100
    assert short.asked == []


# As Socorro's processor takes it


def test_a_processor_gets_bodies_and_acknowledges_them_itself(queue: Scripted) -> None:
    first, second = new_ids(2)
    queue.inbox = [messages(f"{first}:rules", second), messages(first, first=2)]
    taken = []
    for (body,), options in queue:
        taken.append(body)
        assert set(options) == {"finished_func"}
        if body != second:
            options["finished_func"]()
    assert taken == [f"{first}:rules", second, first]
    assert queue.asked == [("ack", ["0"]), ("ack", ["2"])]


def test_it_is_closed_when_its_block_ends(queue: Scripted) -> None:
    with queue as entered:
        assert (entered, queue.asked) == (queue, [])
    assert queue.asked == [("close", [])]
    assert repr(queue) == "<Scripted scripted:>"


def test_where_there_is_nothing_to_make_nothing_is_made(queue: Scripted) -> None:
    assert queue.create() == []
    queue.verify_access()
    assert not CrashQueueBase.has_dead_letters(queue, STANDARD)
