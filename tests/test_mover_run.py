# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine: how a run goes on: lazily, side by side, to a limit, until it is stopped."""

import datetime as dt
import threading
from collections.abc import Iterator, Set
from itertools import count
from typing import Any

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.batches import Batches
from crashmover.engine.mover import Mover, Status
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.testing import (
    contents,
    crash_of,
)
from tests.faulty import fill
from tests.moving import AT_ONCE, move, move_all, some_crashes, store_of


def test_the_run_is_lazy() -> None:
    taken = []

    def endless() -> Iterator[str]:
        for n in count():
            taken.append(n)
            yield f"{n:08x}-8721-460c-dead-a43c22071025"

    source = InMemoryCrashStorage()
    run = Mover(source, InMemoryCrashStorage(), workers=2, retry=AT_ONCE).run(endless())
    assert next(run).status is Status.MISSING
    assert len(taken) <= 20
    run.close()  # type: ignore[attr-defined]


def test_what_comes_while_others_are_in_hand_is_begun_at_once() -> None:
    together = threading.Barrier(2, timeout=10)

    class Meeting(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            together.wait()
            return super().load_crash(crash_id, kinds)

    crashes, source, destination = some_crashes(4), Meeting(), InMemoryCrashStorage()
    fill(source, crashes)
    ids = [crash.crash_id for crash in crashes]
    mover = Mover(source, destination, workers=2, retry=AT_ONCE)
    outcomes = mover.run([None, ids[0], None, None, ids[1], None, *ids[2:], None])
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}
    assert list(destination.new_crashes()) == ids


def test_destinations_are_brought_a_crash_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)

    class Meeting(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            together.wait()
            super().save_crash(crash)

    poly = PolyCrashStorage([Meeting(), Meeting()])
    outcomes = move_all(store_of(*some_crashes(2)), poly, workers=1)
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)

    class Meeting(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            together.wait()
            return super().load_crash(crash_id, kinds)

    source = Meeting()
    fill(source, some_crashes(8))
    outcomes = move_all(source, InMemoryCrashStorage(), workers=4)
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}


@pytest.mark.parametrize("by_listing", [False, True])
def test_a_limit_counts_what_is_not_skipped(by_listing: bool) -> None:
    source, destination = store_of(*some_crashes(10)), store_of(*some_crashes(4))
    ids = list(source.new_crashes())
    for expected in (7, 10, 10):
        if by_listing:
            move_all(source, destination, limit=3)
        else:
            move(source, destination, *ids, limit=3)
        assert len(list(destination.new_crashes())) == expected


def test_stopping_finishes_what_is_in_hand() -> None:
    source, destination = store_of(*some_crashes(300)), InMemoryCrashStorage()
    mover = Mover(source, destination, workers=2)
    outcomes = []
    for outcome in mover.run(source.new_crashes()):
        outcomes.append(outcome)
        mover.stop()
    assert 1 <= len(outcomes) <= 10
    assert {outcome.crash_id for outcome in outcomes} == set(destination.new_crashes())


def test_dates_do_not_matter_to_the_listing() -> None:
    ids = [f"{n:08x}-8721-460c-dead-a43c22{day}" for n in (2, 1) for day in ("261120", "071025")]
    source = store_of(*(crash_of(contents(), crash_id) for crash_id in ids))
    destination = store_of(crash_of(contents(), ids[1]), crash_of(contents(), ids[2]))
    statuses = {outcome.crash_id: outcome.status for outcome in move_all(source, destination)}
    assert [statuses[crash_id] for crash_id in ids] == [
        Status.COPIED,
        Status.SKIPPED,
        Status.SKIPPED,
        Status.COPIED,
    ]
    assert list(source.new_crashes(dt.date(2026, 11, 20))) == [ids[2], ids[0]]


@pytest.mark.parametrize("is_closed", [False, True], ids=["stopped", "closed"])
def test_a_run_that_is_ended_does_not_wait_for_what_no_worker_has_begun_with(
    is_closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = threading.Event()
    drop = Batches.drop_waiting

    def dropping(batches: Batches[Any, Any]) -> None:
        drop(batches)
        dropped.set()

    class Slow(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            assert crash_id == first or dropped.wait(20)
            return super().load_crash(crash_id, kinds)

    monkeypatch.setattr(Batches, "drop_waiting", dropping)
    source, destination = Slow(), InMemoryCrashStorage()
    fill(source, some_crashes(5))
    first, *_ = source.new_crashes()
    mover = Mover(source, destination, retry=AT_ONCE, workers=1)
    outcomes = []
    run = mover.run(source.new_crashes(), ahead=5)
    for outcome in run:
        outcomes.append(outcome.status)
        mover.stop()
        if is_closed:
            run.close()  # type: ignore[attr-defined]
    assert outcomes in ([Status.COPIED], [Status.COPIED] * 2)  # the second may have been begun
    saved = len(list(destination.new_crashes()))
    assert saved in (1, 2) if is_closed else saved == len(outcomes)
