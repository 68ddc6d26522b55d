# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Two or three processes at one crash id in a bucket, in every order in which their requests can
come, killed before each of them, and with each of them failing once.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from crashmover.crash import Part
from crashmover.errors import CrashExists, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.retry import RetryPolicy
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
from tests.bucket_in_memory import HONOURING, Bucket, open_bucket
from tests.conftest import Figures
from tests.interleaving import Order, Process, before_request, current, orders

OURS, THEIRS = (without(contents(version), PROCESSED) for version in "ab")
FEWER = without(OURS, BROWSER)  # the same raw crash
OTHER_DUMP = OURS | {MAIN: b"another"}
OLD = without(contents("old"), PROCESSED)
RETRY = RetryPolicy(attempts=3, wait=0, wait_max=0)


class SharedBucket(Bucket):
    """A bucket of several processes, each of which is held before each of its requests, and finds
    out by itself what the server understands."""

    failures = 0

    def ask(self, verb: str, key: str) -> None:
        before_request()


class FailingBucket(SharedBucket):
    """One that fails once, at a request of the first process, if that puts something.

    :param number: of the request, counted from 0
    :param is_put: whether it is carried out all the same
    """

    def __init__(self, create: str, number: int, *, is_put: bool) -> None:
        super().__init__(create)
        self._number = number
        self._is_put = is_put

    def put(self, key: str, body: bytes | Part, **options: Any) -> str | None:
        process = current()
        is_due = process and process.number == 0 and process.requests == self._number
        if self.failures or not is_due:
            return super().put(key, body, **options)
        self.failures += 1
        if self._is_put:
            super().put(key, body, **options)
        raise StorageUnavailable("503", crash_id=CRASH_ID, uri="s3://bucket")


class Stores:
    """A bucket, and processes that each have a store of their own on it, and try again what fails
    in passing.

    :param bucket: of which, else it is one that understands conditions
    """

    def __init__(self, *there: Contents, bucket: SharedBucket | None = None) -> None:
        self.bucket = bucket or SharedBucket()
        for state in there:
            self.open().save_crash(crash_of(state))

    def open(self) -> BucketCrashStorage:
        return open_bucket(self.bucket)

    def create(self, state: Contents) -> Callable[[], None]:
        def create_in(storage: BucketCrashStorage) -> None:
            [error] = storage.create_crashes([crash_of(state)])
            if error:
                raise error

        def create() -> None:
            storage = self.open()
            RETRY.call(lambda: create_in(storage))

        return create

    def save(self, state: Contents) -> Callable[[], None]:
        def save() -> None:
            storage = self.open()
            RETRY.call(lambda: storage.save_crash(crash_of(state)))

        return save

    def found(self) -> Contents | None:
        """What a reader sees; a torn crash raises."""
        try:
            return read(self.open())
        except CrashIDNotFound:
            return None


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crashmover.external.bucket.putting.time.sleep", lambda _seconds: None)


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
        processes = [Process(work, number) for number, work in enumerate(doing(place))]
        processes[0].killed_before = killed_before
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


# Where conditions are not known, and where requests fail


TWO = list(itertools.combinations_with_replacement(("create", "save"), 2))
THREE = list(itertools.combinations_with_replacement(("create", "save"), 3))
THIRD = THEIRS | {MAIN: b"third"}
DIFFERENT = [(OURS, THEIRS, THIRD), (OURS, OTHER_DUMP, FEWER)]
ALIKE = [(OURS, FEWER, OLD), (FEWER, OURS, OLD), (OURS, OURS, OLD)]


def slow(sets: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Mark sets of parameters."""
    return [pytest.param(*each, marks=pytest.mark.slow) for each in sets]


def acts(how: Sequence[str], states: Sequence[Contents]) -> Doing:
    """Let each of as many processes do one of these with one of those."""
    pairs = list(zip(how, states, strict=False))
    return lambda stores: [getattr(stores, act)(state) for act, state in pairs]


@pytest.mark.parametrize(
    ("how", "states", "before", "most"),
    [
        *itertools.product(TWO, DIFFERENT, [None], [2]),
        *slow(itertools.product(TWO, ALIKE, [None], [2])),
        *slow(itertools.product(TWO, DIFFERENT + ALIKE, [OLD], [2])),
        *slow(itertools.product(TWO, DIFFERENT + ALIKE, [None], [3])),
        *slow(itertools.product(THREE, DIFFERENT, [None], [2])),
    ],
)
def test_where_conditions_are_not_known_all_of_one_crash_is_there(
    how: Sequence[str],
    states: Sequence[Contents],
    before: Contents | None,
    most: int,
    figures: Figures,
) -> None:
    def start() -> Stores:
        return Stores(*filter(None, [before]), bucket=SharedBucket("ignores"))

    count = 0
    for stores, processes, order in outcomes(acts(how, states), start, most=most):
        brought = [s for s, p in zip(states, processes, strict=False) if succeeded(p)]
        assert stores.found() in (brought or (before,)), order.taken
        assert only_harmless(processes), order.taken
        count += 1
    figures(orders=count)


@pytest.mark.parametrize("is_put", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("how", "states", "server"),
    [
        *itertools.product(TWO[:2], DIFFERENT[:1], ["ignores", "honours"]),
        *slow(itertools.product(TWO[:2], DIFFERENT[:1], ["amazon"])),
        *slow(itertools.product(TWO[:2], DIFFERENT[1:] + ALIKE, ["ignores", *HONOURING])),
        *slow(itertools.product([("save", "create"), TWO[2]], DIFFERENT, ["ignores", *HONOURING])),
    ],
)
def test_what_fails_and_is_tried_again_tears_nothing_that_others_save(
    how: Sequence[str],
    states: Sequence[Contents],
    server: str,
    is_put: bool,
    figures: Figures,
) -> None:
    """The first of two is told once that a request has failed."""
    count = 0
    for number in range(25):
        start = partial(FailingBucket, server, number, is_put=is_put)
        runs = outcomes(acts(how, states), lambda: Stores(bucket=start()), most=1)  # noqa: B023
        for stores, processes, order in runs:
            assert stores.found() in (None, *states), (number, order.taken)
            assert only_harmless(processes), (number, order.taken)
            count += stores.bucket.failures
    assert count
    figures(failures=count)
