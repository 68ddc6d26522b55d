# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Two processes at one crash id in a bucket that understands conditions, in every order in which
their requests can come, and killed before each of them.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from crashmover.errors import (
    CrashExists,
    CrashIDNotFound,
    StorageUnavailable,
)
from crashmover.external.s3.crashstorage import S3CrashStorage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
    without,
)
from tests.conftest import Figures
from tests.interleaving import Order, Process, before_request, orders
from tests.s3_in_memory import Bucket, open_bucket

OURS, THEIRS = (without(contents(version), PROCESSED) for version in "ab")
FEWER = without(OURS, BROWSER)  # the same raw crash
OTHER_DUMP = OURS | {MAIN: b"another"}
OLD = without(contents("old"), PROCESSED)


class SharedBucket(Bucket):
    """A bucket of several processes, each of which is held before each of its requests, and finds
    out by itself what the server understands."""

    def ask(self, verb: str, key: str, crash_id: str) -> None:
        before_request()


class Stores:
    """A bucket, and processes that each have a store of their own on it."""

    def __init__(self, *there: Contents) -> None:
        self.bucket = SharedBucket()
        for state in there:
            self.open().save_crash(crash_of(state))

    def open(self) -> S3CrashStorage:
        return open_bucket(self.bucket)

    def create(self, state: Contents) -> Callable[[], None]:
        def create() -> None:
            [error] = self.open().create_crashes([crash_of(state)])
            if error:
                raise error

        return create

    def save(self, state: Contents) -> Callable[[], None]:
        return lambda: self.open().save_crash(crash_of(state))

    def found(self) -> Contents | None:
        """What a reader sees; a torn crash raises."""
        try:
            return read(self.open())
        except CrashIDNotFound:
            return None


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crashmover.external.s3.saving.time.sleep", lambda _seconds: None)


Doing = Callable[[Stores], Sequence[Callable[[], None]]]


def outcomes(
    doing: Doing,
    stores: Callable[[], Stores] = Stores,
    *,
    most: int = 2,
    killed_before: int | None = None,
) -> Iterator[tuple[Stores, list[Process], Order]]:
    """Do this in every order; yield what became of it.

    :param stores: what is there before
    :param most: interruptions
    :param killed_before: the request before which the first is killed
    """
    for order in orders(most):
        place = stores()
        first, *others = doing(place)
        processes = [Process(first, killed_before), *map(Process, others)]
        order.run(processes)
        yield place, processes, order


def only_harmless(processes: Sequence[Process]) -> bool:
    """Whether those that failed were told that somebody else was quicker, or is at it."""
    errors = [process.error for process in processes if process.error]
    return all(isinstance(error, CrashExists | StorageUnavailable) for error in errors)


def succeeded(process: Process) -> bool:
    return process.error is None and not process.was_killed


ALL = pytest.mark.parametrize("most", [2, pytest.param(3, marks=pytest.mark.slow)])
PAIRS = pytest.mark.parametrize(
    "states",
    [(OURS, THEIRS), (OURS, OURS), (OURS, FEWER), (FEWER, OURS), (OURS, OTHER_DUMP)],
    ids=["different", "same", "fewer", "more", "other-dump"],
)


@ALL
@PAIRS
def test_of_two_that_create_a_crash_what_one_has_brought_is_there(
    states: Sequence[Contents], most: int, figures: Figures
) -> None:
    seen: Counter[str] = Counter()

    def create(stores: Stores) -> list[Callable[[], None]]:
        return [stores.create(state) for state in states]

    for stores, processes, order in outcomes(create, most=most):
        found = stores.found()
        brought = [s for s, p in zip(states, processes, strict=True) if succeeded(p)]
        assert all(state == found for state in brought), order.taken
        assert only_harmless(processes), order.taken
        seen.update(orders=1, brought=len(brought))
    assert seen["brought"]
    figures(**seen)


@ALL
@PAIRS
@pytest.mark.parametrize("before", [None, OLD, OURS], ids=["nothing", "old", "ours"])
def test_what_replaces_stays_whatever_is_created_meanwhile(
    states: Sequence[Contents], before: Contents | None, most: int, figures: Figures
) -> None:
    def create_and_save(stores: Stores) -> list[Callable[[], None]]:
        return [stores.create(states[0]), stores.save(states[1])]

    count = 0
    there = partial(Stores, *filter(None, [before]))
    for stores, (created, saved), order in outcomes(create_and_save, there, most=most):
        assert only_harmless([created, saved]), order.taken
        found = stores.found()
        assert found == states[1] if succeeded(saved) else found in (*states, before), order.taken
        count += 1
    figures(orders=count)


@ALL
@PAIRS
def test_whoever_is_killed_while_creating_tears_nothing_and_is_completed(
    states: Sequence[Contents], most: int, figures: Figures
) -> None:
    """The second may not have its way where the first could still go on."""
    seen: Counter[str] = Counter()

    def create(stores: Stores) -> list[Callable[[], None]]:
        return [stores.create(state) for state in states]

    for request in itertools.count():
        runs = list(outcomes(create, most=most - 1, killed_before=request))
        for stores, processes, order in runs:
            how = f"killed before {request}, {order.taken}"
            found = stores.found()
            assert found in (None, *states), how
            assert not succeeded(processes[1]) or found == states[1], how
            assert only_harmless(processes), how
            rerun = Process(stores.create(states[0]))
            Order([]).run([rerun])
            assert stores.found() in states or not only_harmless([rerun]) or states[1] != OURS
            seen.update(runs=1)
        if not any(processes[0].was_killed for _, processes, _ in runs):
            break
    assert seen["runs"] > request
    figures(**seen)


@ALL
@pytest.mark.parametrize("there", [OLD, THEIRS, FEWER], ids=["old", "different", "fewer"])
def test_of_another_crash_that_is_removed_while_one_is_created_nothing_is_left(
    there: Contents, most: int, figures: Figures
) -> None:
    def create_and_remove(stores: Stores) -> list[Callable[[], None]]:
        return [stores.create(OURS), lambda: stores.open().remove(CRASH_ID)]

    count = 0
    for stores, processes, order in outcomes(create_and_remove, partial(Stores, there), most=most):
        found = stores.found()
        assert found == OURS if succeeded(processes[0]) else found in (None, there), order.taken
        assert only_harmless(processes[:1]), order.taken
        count += 1
    figures(orders=count)


@ALL
def test_of_a_dump_that_two_create_at_a_time_one_is_there(most: int, figures: Figures) -> None:
    dumps: list[Contents] = [{MAIN: b"one"}, {MAIN: b"other"}]

    def create(stores: Stores) -> list[Callable[[], None]]:
        return [stores.create(each) for each in dumps]

    count = 0
    for stores, processes, order in outcomes(create, partial(Stores, {RAW: b"{}"}), most=most):
        found = stores.found() or {}
        for state, process in zip(dumps, processes, strict=True):
            assert not succeeded(process) or state.items() <= found.items(), order.taken
        assert only_harmless(processes), order.taken
        count += 1
    figures(orders=count)


@ALL
@PAIRS
@pytest.mark.parametrize("before", [None, OLD], ids=["nothing", "old"])
def test_of_two_that_replace_a_crash_the_last_is_there(
    states: Sequence[Contents], before: Contents | None, most: int, figures: Figures
) -> None:
    def save(stores: Stores) -> list[Callable[[], None]]:
        return [stores.save(state) for state in states]

    count = 0
    there = partial(Stores, *filter(None, [before]))
    for stores, processes, order in outcomes(save, there, most=most):
        assert stores.found() in states, order.taken
        assert only_harmless(processes), order.taken
        count += 1
    figures(orders=count)
