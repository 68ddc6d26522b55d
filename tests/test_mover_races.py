# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes that somebody else saves after the mover has looked, and before it saves."""

from collections.abc import Callable, Sequence

import pytest

from crashmover.crash import Crash
from crashmover.delivery import Status
from crashmover.errors import StorageUnavailable
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.mover import Existing, Mover, Outcome
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    PROCESSED,
    Contents,
    contents,
    crash_of,
    read,
    without,
)

AT_ONCE = RetryPolicy(wait=0, wait_max=0)
OURS, THEIRS = contents("a"), contents("b")
FEWER = without(OURS, BROWSER)
LATER = OURS | {PROCESSED: THEIRS[PROCESSED]}


class Overtaken(InMemoryCrashStorage):
    """A store in which something happens after it was looked at, once."""

    def __init__(self, happening: Callable[["Overtaken"], None]) -> None:
        super().__init__()
        self._happening = [happening]

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        while self._happening:
            self._happening.pop()(self)
        return super().create_crashes(crashes)

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        while self._happening:
            self._happening.pop()(self)
        return super().save_crashes(crashes)


def overtaken_by(theirs: Contents) -> Overtaken:
    return Overtaken(lambda store: store.save_crash(crash_of(theirs)))


def source() -> InMemoryCrashStorage:
    store = InMemoryCrashStorage()
    store.save_crash(crash_of(OURS))
    return store


def move(
    here: InMemoryCrashStorage, there: InMemoryCrashStorage, existing: Existing, verify: bool
) -> Outcome:
    mover = Mover(here, there, existing=existing, verify=verify, remove_source=True, retry=AT_ONCE)
    [outcome] = mover.run([CRASH_ID])
    return outcome


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("existing", [Existing.SKIP, Existing.COMPARE])
def test_the_same_from_somebody_else_is_as_good_as_ours(existing: Existing, verify: bool) -> None:
    here, there = source(), overtaken_by(OURS)
    outcome = move(here, there, existing, verify)
    assert (outcome.status, outcome.parts) == (Status.COPIED, len(OURS))
    assert read(there) == OURS
    assert not here.has_crash(CRASH_ID)


@pytest.mark.parametrize(
    ("existing", "verify", "theirs", "status"),
    [
        (Existing.SKIP, False, THEIRS, Status.SKIPPED),
        (Existing.SKIP, False, FEWER, Status.SKIPPED),
        (Existing.SKIP, True, THEIRS, Status.CONFLICT),
        (Existing.SKIP, True, FEWER, Status.CONFLICT),
        (Existing.COMPARE, False, THEIRS, Status.CONFLICT),
        (Existing.COMPARE, True, THEIRS, Status.CONFLICT),
        (Existing.COMPARE, False, FEWER, Status.FAILED),
        (Existing.COMPARE, False, LATER, Status.FAILED),
    ],
)
def test_what_differs_from_ours_stays_and_so_does_the_source(
    existing: Existing, verify: bool, theirs: Contents, status: Status
) -> None:
    here, there = source(), overtaken_by(theirs)
    outcome = move(here, there, existing, verify)
    assert (outcome.status, outcome.parts, outcome.bytes) == (status, 0, 0)
    assert (outcome.error is None) == (status is Status.SKIPPED)
    assert read(there) == theirs
    assert read(here) == OURS


@pytest.mark.parametrize("theirs", [FEWER, LATER])
def test_what_somebody_else_left_out_the_next_run_brings(theirs: Contents) -> None:
    here, there = source(), overtaken_by(theirs)
    first = move(here, there, Existing.COMPARE, verify=False)
    assert first.error == "memory:: somebody else has saved it"
    assert move(here, there, Existing.COMPARE, verify=False).status is Status.COPIED
    assert read(there) == OURS
    assert not here.has_crash(CRASH_ID)


def test_what_was_saved_and_removed_meanwhile_the_next_run_brings() -> None:
    class Fleeting(Overtaken):
        def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
            results = super().create_crashes(crashes)
            if any(results):
                self.remove(CRASH_ID)
            return results

    here, there = source(), Fleeting(lambda store: store.save_crash(crash_of(THEIRS)))
    assert move(here, there, Existing.SKIP, verify=False).status is Status.FAILED
    assert read(here) == OURS
    assert move(here, there, Existing.SKIP, verify=False).status is Status.COPIED
    assert read(there) == OURS


def test_overwriting_replaces_what_somebody_else_has_just_saved() -> None:
    here, there = source(), overtaken_by(THEIRS)
    assert move(here, there, Existing.OVERWRITE, verify=False).status is Status.COPIED
    assert read(there) == OURS


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("existing", list(Existing))
def test_a_save_of_which_only_the_answer_was_lost_is_ours(existing: Existing, verify: bool) -> None:
    def saved_and_not_answered(store: Overtaken) -> None:
        store.save_crash(crash_of(OURS))
        raise StorageUnavailable("the connection broke off", uri=store.uri)

    here, there = source(), Overtaken(saved_and_not_answered)
    outcome = move(here, there, existing, verify)
    assert (outcome.status, outcome.attempts, outcome.parts) == (Status.COPIED, 2, len(OURS))
    assert read(there) == OURS
    assert not here.has_crash(CRASH_ID)
