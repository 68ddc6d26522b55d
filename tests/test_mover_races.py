# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes that somebody else saves after the mover has looked, and before it saves."""

from collections.abc import Callable, Sequence, Set

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.copying import Status
from crashmover.engine.mover import Existing, Mover, Outcome
from crashmover.errors import CrashExists, StorageUnavailable
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.tuning import Tuning
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    PROCESSED,
    RAW,
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
def test_what_somebody_else_left_out_is_brought(theirs: Contents) -> None:
    here, there = source(), overtaken_by(theirs)
    outcome = move(here, there, Existing.COMPARE, verify=False)
    assert (outcome.status, outcome.parts) == (Status.COPIED, 1)
    assert read(there) == OURS
    assert not here.has_crash(CRASH_ID)


def test_a_dump_that_somebody_else_did_not_add_is_added() -> None:
    """Dumps alone have no marker: that one of them is there says nothing of the others."""
    here, there = source(), overtaken_by({BROWSER: OURS[BROWSER]})
    there.save_crash(crash_of({RAW: OURS[RAW]}))
    mover = Mover(here, there, kinds={Kind.DUMP}, retry=AT_ONCE)
    [outcome] = mover.run([CRASH_ID])
    assert (outcome.status, outcome.parts) == (Status.COPIED, 1)
    assert read(there) == without(OURS, PROCESSED)


@pytest.mark.parametrize(("times", "status"), [(1, Status.COPIED), (9, Status.FAILED)])
def test_what_is_saved_and_removed_again_by_somebody_else_is_brought(
    times: int, status: Status
) -> None:
    class Fleeting(Overtaken):
        left = times

        def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
            if not self.left:
                return super().create_crashes(crashes)
            self.left -= 1
            return [CrashExists(crash.crash_id, uri=self.uri) for crash in crashes]

    here, there = source(), Fleeting(lambda _: None)
    outcome = move(here, there, Existing.SKIP, verify=False)
    assert outcome.status is status
    assert outcome.error in (None, "memory:: it is there already")
    assert here.has_crash(CRASH_ID) != there.has_crash(CRASH_ID)


def test_a_store_that_is_down_is_not_asked_what_somebody_else_has_saved() -> None:
    class GoesDown(InMemoryCrashStorage):
        tuning = Tuning(batch=20)
        looks = 0

        def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
            return [CrashExists(crash.crash_id, uri=self.uri) for crash in crashes]

        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            self.looks += 1
            raise StorageUnavailable("no answer in time", uri=self.uri)

        def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
            return False

        def verify_access(self, *, write: bool = False) -> None:
            raise StorageUnavailable("no answer in time", uri=self.uri)

    here, there = source(), GoesDown()
    ids = [CRASH_ID[:8] + f"-{n:04x}" + CRASH_ID[13:] for n in range(20)]
    for crash_id in ids:
        here.save_crash(crash_of(OURS, crash_id))
    with pytest.raises(StorageUnavailable):
        list(Mover(here, there, retry=AT_ONCE, workers=1).run(ids))
    assert there.looks == AT_ONCE.attempts


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
