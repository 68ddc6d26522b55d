# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine: when a crash is removed from the source, and when not."""

import re
from pathlib import Path
from typing import Any

import pytest

from crashmover.crash import Crash, Kind
from crashmover.engine.mover import Existing, Mover, Status
from crashmover.errors import (
    CrashIDNotFound,
)
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.redaction import Redactor
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    PROCESSED,
    contents,
    crash_of,
    read,
    without,
)
from tests.faulty import FaultyStorage, denied
from tests.moving import AT_ONCE, difference, move, move_all, some_crashes, store_of


def test_the_source_is_removed_when_every_destination_has_the_crash() -> None:
    source = store_of(*some_crashes(5))
    destinations = [InMemoryCrashStorage(), InMemoryCrashStorage()]
    move_all(source, PolyCrashStorage(destinations), remove_source=True)
    assert list(source.new_crashes()) == []
    assert all(len(list(store.new_crashes())) == 5 for store in destinations)


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        ({}, False),
        ({"verify": True}, True),
        ({"existing": Existing.COMPARE}, True),
        ({"existing": Existing.OVERWRITE}, True),
    ],
)
def test_a_crash_that_was_skipped_by_its_marker_alone_is_not_removed(
    options: dict[str, Any], removed: bool
) -> None:
    for by_listing in (False, True):
        source, destination = difference(contents())
        (move_all if by_listing else move)(source, destination, remove_source=True, **options)
        assert source.has_crash(CRASH_ID) is not removed


def test_the_source_is_kept_when_one_destination_skipped_the_crash() -> None:
    source, has_it = difference(contents())
    poly = PolyCrashStorage([InMemoryCrashStorage(), has_it])
    for run in (move, move_all):
        assert run(source, poly, remove_source=True)[0].status in (Status.COPIED, Status.SKIPPED)
        assert source.has_crash(CRASH_ID)


def test_the_source_is_kept_when_one_destination_failed() -> None:
    source = store_of(crash_of(contents()))
    good = InMemoryCrashStorage()
    poly = PolyCrashStorage([good, FaultyStorage("create_crashes", error=denied())])
    [outcome] = move(source, poly, remove_source=True)
    assert outcome.status is Status.FAILED
    assert read(source) == read(good) == contents()


def test_the_source_is_kept_when_it_has_changed_since() -> None:
    source = store_of(crash_of(without(contents(), PROCESSED)))

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            super().save_crash(crash)
            source.save_crash(crash_of({PROCESSED: b"{}"}))

    [outcome] = move(source, Slow(), remove_source=True)
    assert outcome.error == "memory:: copied, not removed: what is there is not what was loaded"
    assert source.has_crash(CRASH_ID)


def test_a_source_that_is_the_same_though_it_was_saved_again_is_removed(tmp_path: Path) -> None:
    """A directory store tells the two apart, and who wants the crash moved does not."""
    source = FSPermanentStorage(tmp_path / "source")
    source.save_crash(crash_of(contents()))

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            super().save_crash(crash)
            source.save_crash(crash_of(contents()))

    destination = Slow()
    [outcome] = move(source, destination, remove_source=True)
    assert (outcome.status, outcome.error) == (Status.COPIED, None)
    assert read(destination) == contents()
    assert not source.has_crash(CRASH_ID)


@pytest.mark.parametrize("lost", [True, False])
def test_a_source_that_has_changed_is_held_against_every_destination(
    tmp_path: Path, lost: bool
) -> None:
    first, second = InMemoryCrashStorage(), InMemoryCrashStorage()

    class SavedAgain(FSPermanentStorage):
        def remove_loaded(self, crash: Crash) -> None:
            self.save_crash(crash_of(contents()))
            second.remove(CRASH_ID)
            if not lost:
                second.save_crash(crash_of(without(contents(), BROWSER)))
            super().remove_loaded(crash)

    source = SavedAgain(tmp_path / "source")
    source.save_crash(crash_of(contents()))
    [outcome] = move(source, PolyCrashStorage([first, second]), remove_source=True)
    assert re.search("copied, not removed: .* is not what was loaded", str(outcome.error))
    assert read(source) == contents()


def test_a_source_that_changes_while_it_is_held_against_the_destinations_stays(
    tmp_path: Path,
) -> None:
    class SavedAgain(FSPermanentStorage):
        versions = iter("ab")  # the same, and then another

        def remove_loaded(self, crash: Crash) -> None:
            self.save_crash(crash_of(contents(next(self.versions))))
            super().remove_loaded(crash)

    source, destination = SavedAgain(tmp_path / "source"), InMemoryCrashStorage()
    source.save_crash(crash_of(contents("a")))
    [outcome] = move(source, destination, remove_source=True)
    assert re.search("copied, not removed: .* is not what was loaded", str(outcome.error))
    assert (read(source), read(destination)) == (contents("b"), contents("a"))


def test_a_source_of_which_something_else_is_left_is_no_crash_that_was_never_there(
    tmp_path: Path,
) -> None:
    """Its removal had succeeded, and the answer was lost."""

    class Late(FSPermanentStorage):
        def remove_loaded(self, crash: Crash) -> None:
            self.remove(crash.crash_id)
            self.save_crash(crash_of({PROCESSED: b"{}"}))
            super().remove_loaded(crash)

    source, destination = Late(tmp_path / "source"), InMemoryCrashStorage()
    source.save_crash(crash_of(contents()))
    [outcome] = move(source, destination, remove_source=True)
    assert re.search("copied, not removed: .*jsonz is not what was loaded", str(outcome.error))
    assert source.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)


def test_a_source_that_cannot_be_removed_is_a_failure() -> None:
    source = FaultyStorage("remove", error=denied())
    source.save_crash(crash_of(contents()))
    [outcome] = move(source, InMemoryCrashStorage(), remove_source=True)
    assert (outcome.status, outcome.error) == (Status.FAILED, "memory:faulty: access denied")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kinds": {Kind.RAW_CRASH}}, "a source can be removed only when all kinds of parts are"),
        ({"redactor": Redactor()}, "a source cannot be removed when the copy is redacted"),
        ({"kinds": set()}, "no kinds of parts to copy"),
    ],
)
def test_what_would_lose_data_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        Mover(InMemoryCrashStorage(), InMemoryCrashStorage(), remove_source=True, **options)


def test_a_store_is_not_copied_to_itself() -> None:
    one, other = InMemoryCrashStorage(), InMemoryCrashStorage()
    with pytest.raises(ValueError, match=r"^source and destination are the same store$"):
        Mover(one, one)
    with pytest.raises(ValueError, match="same store"):
        Mover(one, PolyCrashStorage([other, one]), remove_source=True)
    with pytest.raises(ValueError, match=r"^a source can be removed only when it is one store$"):
        Mover(PolyCrashStorage([one, other]), InMemoryCrashStorage(), remove_source=True)
    Mover(PolyCrashStorage([one, other]), one)  # brings what `one` lacks


@pytest.mark.parametrize("failing", ["load_crash", "remove"])
def test_a_crash_that_somebody_else_has_removed_is_not_said_to_be_moved(failing: str) -> None:
    source = FaultyStorage(error=CrashIDNotFound(CRASH_ID, uri="memory:faulty"))
    source.save_crash(crash_of(contents()))

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            super().save_crash(crash)
            source.failing = {failing}

    [outcome] = move(source, Slow(), remove_source=True)
    assert (outcome.status, outcome.error) == (Status.FAILED, "memory:faulty: no such crash")


def test_a_removal_of_which_only_the_answer_was_lost_is_done() -> None:
    class Forgetful(FaultyStorage):
        def remove(self, crash_id: str) -> None:
            InMemoryCrashStorage.remove(self, crash_id)
            self._call("remove")

    source, [crash] = Forgetful("remove", times=1), some_crashes(1)
    source.save_crash(crash)
    destination = InMemoryCrashStorage()
    mover = Mover(source, destination, remove_source=True, workers=1, retry=AT_ONCE)
    [outcome] = mover.run([crash.crash_id])
    assert (outcome.status, list(source.new_crashes())) == (Status.COPIED, [])
    assert destination.has_crash(crash.crash_id)
