# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Three destinations of which each in turn fails, and each two: in every way, at every moment.

The others get everything.  What did not arrive everywhere stays in the source, and in the queue;
and when the store that failed is well again, another run completes it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import combinations, product

import pytest

from crashmover.engine.mover import Existing, Mover, Outcome, Status
from crashmover.errors import PolyCrashStorageError, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashQueue
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.roles import ListedSource
from crashmover.selection import QueuedIDs
from crashmover.testing import Contents, contents
from tests.conftest import Figures
from tests.faulty import FaultyStorage, denied, unavailable
from tests.moving import AT_ONCE, some_crashes, store_of

CRASHES = some_crashes(8)
IDS = [crash.crash_id for crash in CRASHES]
NAMES = ("a", "b", "c")


def full(uri: str) -> StorageError:
    return StorageError("cannot be saved: No space left on device", uri=uri)


class Failing(FaultyStorage):
    """A store of which some calls fail after some others did not.

    :param healthy_for: how many of these calls go well first
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.uri = f"memory:{name}"
        self.healthy_for = 0

    def fall_ill(self, failing: set[str], error: StorageError, healthy_for: int) -> None:
        self.failing, self.error, self.healthy_for = failing, error, healthy_for

    def recover(self) -> None:
        self.failing = set()

    def _call(self, name: str) -> None:
        with self._counting:
            is_well = name in self.failing and self.healthy_for > 0
            self.healthy_for -= is_well
        if not is_well:
            super()._call(name)


class Place:
    """A source, a queue of its crashes, and three destinations of which some fail."""

    def __init__(self, failing: tuple[str, ...]) -> None:
        self.source = store_of(*CRASHES)
        self.queue = InMemoryCrashQueue()
        self.destinations = {name: Failing(name) for name in NAMES}
        self.failing = [self.destinations[name] for name in failing]
        self.well = [store for store in self.destinations.values() if store not in self.failing]
        self.queue.publish("standard", IDS)

    def mover(self, existing: Existing) -> Mover:
        poly = PolyCrashStorage(list(self.destinations.values()))
        return Mover(
            self.source, poly, remove_source=True, existing=existing, workers=1, retry=AT_ONCE
        )

    def left_in_queue(self) -> list[str]:
        """What is in the queue; it is given back at once."""
        found = self.queue.pull(max_messages=1000)
        self.queue.nack(found)
        return sorted(delivery.crash_id for delivery in found)

    def everywhere(self, crash_id: str) -> bool:
        return all(has(store, crash_id) for store in self.destinations.values())


def has(store: CrashStorageBase, crash_id: str) -> bool:
    """Whether a store has the crash, byte for byte, whatever it is told to say."""
    crashes: dict[str, Contents] = vars(store)["_crashes"]
    return crashes.get(crash_id) == contents(crash_id)


# How the crashes are named

Run = Callable[[Place, Existing], list[Outcome]]


def by_id(place: Place, existing: Existing) -> list[Outcome]:
    mover = place.mover(existing)
    mover.verify_access()
    return list(mover.run(list(place.source.new_crashes())))


def by_listing(place: Place, existing: Existing) -> list[Outcome]:
    def listings(store: ListedSource) -> Iterator[str]:
        return store.new_crashes()

    mover = place.mover(existing)
    mover.verify_access()
    return list(mover.run(listings(place.source), listings))


def by_queue(place: Place, existing: Existing) -> list[Outcome]:
    mover = place.mover(existing)
    mover.verify_access()
    outcomes: list[Outcome] = []
    with closing(QueuedIDs(place.queue, batch_size=mover.batch_size, wait=0.0)) as queued:
        for outcome in mover.run(queued, ahead=1):
            queued.settle(outcome.crash_id, outcome.error is None)
            outcomes.append(outcome)
    return outcomes


RUNS: list[Run] = [by_id, by_listing, by_queue]


# What fails

DOWN = "verify_access"  # with this, all of the store is found to be down
CALLS = [
    {"create_crashes"},
    {"create_crashes", DOWN},
    {"has_crash"},
    {"has_crash", DOWN},
    {"new_crashes"},
    {DOWN},
]
ERRORS = [unavailable, denied, full]
WHO = [*combinations(NAMES, 1), *combinations(NAMES, 2)]


def moments(call: set[str]) -> range:
    """After how many calls it fails, at first at once."""
    once = call in ({"new_crashes"}, {DOWN})  # of these there is but one
    return range(1 if once else len(IDS) + 2)


CASES = [
    (who, call, error, healthy_for)
    for who, call, error in product(WHO, CALLS, ERRORS)
    for healthy_for in moments(call)
]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("one_in", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_a_destination_that_fails_costs_the_others_nothing_and_nothing_is_lost(
    figures: Figures, run: Run, one_in: int
) -> None:
    seen: Counter[str] = Counter()
    for who, call, error, healthy_for in CASES[::one_in]:
        place = Place(who)
        for store in place.failing:
            store.fall_ill(call, error(store.uri), healthy_for)
        seen["runs"] += 1
        broken = [*broken_at_first(place, run, seen), *broken_in_the_end(place, run)]
        how = f"{who}, {sorted(call)}, {error.__name__}, after {healthy_for}"
        assert not broken, f"{how}: {broken}"
    assert seen["removed"] and seen["failed"] >= len(IDS)
    figures(**seen)


def broken_at_first(place: Place, run: Run, seen: Counter[str]) -> Iterator[str]:
    """Run while stores fail; yield what is wrong then."""
    outcomes = run(place, Existing.SKIP)
    queued = place.left_in_queue() if run is by_queue else IDS
    if sorted(outcome.crash_id for outcome in outcomes) != IDS:
        yield "not every crash is accounted for"
    for outcome in outcomes:
        crash_id = outcome.crash_id
        seen[outcome.status.value] += 1
        if not all(has(store, crash_id) for store in place.well):
            yield f"{crash_id} is not at the others"
        is_everywhere = place.everywhere(crash_id)
        if not is_everywhere and not has(place.source, crash_id):
            yield f"{crash_id} is lost"
        if not is_everywhere and crash_id not in queued:
            yield f"{crash_id} was acked"
        if outcome.status is (Status.FAILED if is_everywhere else Status.COPIED):
            yield f"{crash_id} is {outcome.status}"
        if outcome.status is Status.COPIED:
            seen["removed"] += not has(place.source, crash_id)
        yield from badly_blamed(place, outcome)


def badly_blamed(place: Place, outcome: Outcome) -> Iterator[str]:
    """Yield the stores that have the crash and are blamed, or have it not and are not."""
    for store in place.destinations.values():
        is_blamed = (outcome.error or "").count(f"{store.uri}: ")
        if is_blamed != (not has(store, outcome.crash_id)):
            yield f"{store.uri} is blamed {is_blamed} times: {outcome}"


def broken_in_the_end(place: Place, run: Run) -> Iterator[str]:
    """Let the stores be well again, and run once more; yield what is wrong then."""
    for store in place.failing:
        store.recover()
    left = [crash_id for crash_id in IDS if has(place.source, crash_id)]
    outcomes = run(place, Existing.COMPARE)
    lost = [crash_id for crash_id in IDS if not place.everywhere(crash_id)]
    if lost:
        yield f"{lost} are not everywhere in the end"
    if remaining := list(place.source.new_crashes()):
        yield f"{remaining} are still in the source"
    if run is by_queue and (queued := place.left_in_queue()):
        yield f"{queued} are still in the queue"
    for outcome in outcomes:
        # What had been removed from the source has been acked, and is named by nobody.
        if outcome.error or outcome.crash_id not in left:
            yield f"{outcome}"


# The store itself


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("error", ERRORS)
def test_a_store_of_stores_saves_to_those_that_are_well_and_names_those_that_are_not(
    figures: Figures, who: tuple[str, ...], error: Callable[[str], StorageError]
) -> None:
    place = Place(who)
    poly = PolyCrashStorage(list(place.destinations.values()))
    for store in place.failing:
        store.fall_ill({"save_crash", "save_crashes"}, error(store.uri), 0)
    for crash in CRASHES:
        with pytest.raises(PolyCrashStorageError) as caught:
            poly.save_crash(crash)
        assert [store.error for store in place.failing] == list(caught.value.exceptions)
        assert all(has(store, crash.crash_id) for store in place.well)
    for store in place.failing:
        store.recover()
    assert poly.save_crashes(CRASHES) == [None] * len(CRASHES)
    assert all(map(place.everywhere, IDS))
    figures(saves=len(CRASHES))
