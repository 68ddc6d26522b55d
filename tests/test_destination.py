# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a destination is brought, what it is asked, and what is said of it."""

from collections.abc import Sequence, Set
from typing import Any

import pytest

from crashmover.comparison import MeasuredCrash
from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.destination import Destination, DestinationResult
from crashmover.engine.plan import CopyOptions, Existing
from crashmover.errors import (
    CorruptCrash,
    CrashConflict,
    CrashMoverError,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
    without,
)
from tests.faulty import FaultyStorage, denied, unavailable

AT_ONCE = RetryPolicy(wait=0, wait_max=0)


def destination_of(
    store: CrashStorageBase,
    *,
    kinds: Set[Kind] = ALL_KINDS,
    existing: Existing = Existing.SKIP,
    verify: bool = False,
) -> Destination:
    return Destination(store, CopyOptions(kinds, existing, verify), AT_ONCE)


def save_at(store: CrashStorageBase, *crashes: Crash, **options: Any) -> list[DestinationResult]:
    """Copy crashes of which it is not known whether they are there."""
    measured = [MeasuredCrash(crash, hashing=False) for crash in crashes]
    return destination_of(store, **options).copy([(crash, False) for crash in measured])


def holding(parts: Contents, store: FaultyStorage | None = None) -> FaultyStorage:
    """Return a store that has the crash."""
    store = FaultyStorage() if store is None else store
    InMemoryCrashStorage.save_crash(store, crash_of(parts))
    return store


def only(parts: Contents, kinds: Set[Kind]) -> Contents:
    return {key: data for key, data in parts.items() if key[0] in kinds}


# What is there


@pytest.mark.parametrize("kinds", [{Kind.RAW_CRASH}, {Kind.RAW_CRASH, Kind.PROCESSED_CRASH}])
def test_overwriting_a_raw_crash_alone_costs_no_dump(kinds: Set[Kind]) -> None:
    store = holding(contents("old"))
    new = only(contents("new"), kinds)
    [result] = save_at(store, crash_of(new), kinds=kinds, existing=Existing.OVERWRITE)
    assert (result.error, result.saved) == (None, set(new))
    assert read(store) == contents("old") | new


def test_overwriting_a_raw_crash_that_is_not_there_saves_it() -> None:
    store, new = FaultyStorage(), {RAW: b"{}"}
    [result] = save_at(store, crash_of(new), kinds={Kind.RAW_CRASH}, existing=Existing.OVERWRITE)
    assert (result.error, read(store)) == (None, new)


@pytest.mark.parametrize("existing", [Existing.COMPARE, Existing.SKIP])
def test_what_is_not_copied_is_not_compared(existing: Existing) -> None:
    store = holding(contents())
    kinds = {Kind.RAW_CRASH}
    crash = crash_of(only(contents(), kinds))
    [result] = save_at(store, crash, kinds=kinds, existing=existing, verify=True)
    assert (result.error, result.saved, result.is_whole) == (None, set(), True)


def test_a_processed_crash_is_looked_for_by_itself() -> None:
    store = holding(without(contents(), PROCESSED))
    new = {PROCESSED: contents()[PROCESSED]}
    for saved in ({PROCESSED}, set()):
        [result] = save_at(store, crash_of(new), kinds={Kind.PROCESSED_CRASH})
        assert (result.error, result.saved) == (None, saved)
    assert read(store) == contents()


def test_dumps_are_not_there_where_their_crash_is_not() -> None:
    [result] = save_at(FaultyStorage(), crash_of({MAIN: b"MDMP"}), kinds={Kind.DUMP})
    assert isinstance(result.error, StorageError)
    assert "no raw crash to add dumps to" in str(result.error)


# What is said


@pytest.mark.parametrize("is_rotten", [False, True])
def test_what_is_not_the_same_is_said_with_its_crash_and_its_store(is_rotten: bool) -> None:
    class Rotting(FaultyStorage):
        def save_crash(self, crash: Crash) -> None:
            holding(contents() | {MAIN: b"rotten"}, self)

    store = Rotting() if is_rotten else holding(contents() | {MAIN: b"other"})
    [result] = save_at(store, crash_of(contents()), verify=True)
    error = result.error
    assert isinstance(error, CorruptCrash if is_rotten else CrashConflict)
    assert (error.crash_id, error.uri) == (CRASH_ID, "memory:faulty")
    assert f"different: {MAIN[1]}" in str(error)


# When the store fails


def test_what_fails_for_good_does_not_keep_the_others_from_being_tried_again() -> None:
    class Mixed(FaultyStorage):
        def save_crash(self, crash: Crash) -> None:
            self._call("save_crash")
            if crash.crash_id == CRASH_ID:
                raise CorruptCrash("torn", crash_id=CRASH_ID)
            if self.calls.count("save_crash") == 2:
                raise unavailable()
            InMemoryCrashStorage.save_crash(self, crash)

    store = Mixed()
    bad, good = save_at(store, crash_of(contents()), crash_of(contents(), NEIGHBOUR))
    assert (type(bad.error), bad.attempts) == (CorruptCrash, 1)
    assert (good.error, good.attempts) == (None, 2)
    assert list(store.new_crashes()) == [NEIGHBOUR]


def test_what_a_client_has_tried_already_does_not_keep_the_others_from_being_tried_again() -> None:
    class Mixed(FaultyStorage):
        def save_crash(self, crash: Crash) -> None:
            self._call("save_crash")
            if crash.crash_id == CRASH_ID:
                error = unavailable()
                error.was_retried = True
                raise error
            if self.calls.count("save_crash") == 2:
                raise unavailable()
            InMemoryCrashStorage.save_crash(self, crash)

    store = Mixed()
    destination = destination_of(store)
    crashes = crash_of(contents()), crash_of(contents(), NEIGHBOUR)
    measured = [(MeasuredCrash(crash, hashing=False), True) for crash in crashes]
    tired, good = destination.copy(measured)
    assert (type(tired.error), tired.attempts) == (StorageUnavailable, 1)
    assert (good.error, good.attempts) == (None, 2)
    assert store.calls.count("verify_access, to write") == 1


def test_a_crash_that_was_not_saved_does_not_keep_the_others_from_being_verified() -> None:
    class Rotting(FaultyStorage):
        def save_crash(self, crash: Crash) -> None:
            if crash.crash_id == CRASH_ID:
                raise CorruptCrash("torn", crash_id=CRASH_ID)
            rotten = crash_of(without(contents(), BROWSER), crash.crash_id)
            InMemoryCrashStorage.save_crash(self, rotten)

    crashes = crash_of(contents()), crash_of(contents(), NEIGHBOUR)
    unsaved, rotten = save_at(Rotting(), *crashes, verify=True)
    assert "torn" in str(unsaved.error)
    assert f"read back and not the same: missing: {BROWSER[1]}" in str(rotten.error)


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_a_store_that_does_not_answer_for_each_crash_has_saved_none(answers: int) -> None:
    class Silent(FaultyStorage):
        def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
            return [None] * answers

    results = save_at(Silent(), crash_of(contents()), crash_of(contents(), NEIGHBOUR))
    assert None not in {result.error for result in results}


@pytest.mark.parametrize("error", [unavailable(), denied()])
@pytest.mark.parametrize("failing", ["verify_access", "verify_access, to write"])
def test_a_store_that_cannot_be_written_to_is_down(failing: str, error: StorageError) -> None:
    destination = destination_of(FaultyStorage(failing, error=error))
    destination.verify_access()
    assert destination.guard.down is error


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("create_crashes", {}),
        ("has_crash", {}),
        ("load_crash", {"existing": Existing.OVERWRITE, "verify": True}),
    ],
    ids=["saved", "asked", "read back"],
)
def test_a_store_that_fails_is_down_if_it_cannot_be_written_to(
    call: str, options: dict[str, Any]
) -> None:
    for writing, is_down in ((set[str](), False), ({"verify_access, to write"}, True)):
        store = FaultyStorage(call, *writing)
        destination = destination_of(store, **options)
        crash = MeasuredCrash(crash_of(contents()), hashing=False)
        [result] = destination.copy([(crash, False)])
        assert isinstance(result.error, StorageUnavailable)
        assert (destination.guard.down is not None) is is_down


def test_a_store_that_raises_what_no_store_should_is_looked_at() -> None:
    class Raw(FaultyStorage):
        def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
            raise ConnectionResetError("reset")

    destination = destination_of(Raw("verify_access, to write"))
    crash = MeasuredCrash(crash_of(contents()), hashing=False)
    [result] = destination.copy([(crash, True)])
    assert isinstance(result.error, ConnectionResetError)
    assert destination.guard.down


def test_a_store_that_is_down_is_asked_and_given_nothing() -> None:
    store = FaultyStorage()
    destination = destination_of(store)
    destination.guard.down = unavailable()
    crash = MeasuredCrash(crash_of(contents()), hashing=False)
    for is_lacking in (False, True):
        [result] = destination.copy([(crash, is_lacking)])
        assert isinstance(result.error, CrashMoverError)
    assert store.calls == []
