# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine: what becomes of a crash, whatever the stores do."""

import datetime as dt
import hashlib
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Set
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from crashmover import mover as mover_module
from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind, Part
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.tuning import Tuning
from crashmover.mover import Existing, Mover, Outcome, Status
from crashmover.redactor import Redactor
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
from crashmover.workers import drop_what_waits
from tests.faulty import FaultyStorage, all_down, denied, fill, unavailable

AT_ONCE = RetryPolicy(wait=0, wait_max=0)


def store_of(*crashes: Crash) -> InMemoryCrashStorage:
    storage = InMemoryCrashStorage()
    for crash in crashes:
        storage.save_crash(crash)
    return storage


def some_crashes(number: int) -> list[Crash]:
    ids = (f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(number))
    return [crash_of(contents(crash_id), crash_id) for crash_id in ids]


def move(
    source: CrashStorageBase, destination: CrashStorageBase, *crash_ids: str, **options: Any
) -> list[Outcome]:
    mover = Mover(source, destination, retry=AT_ONCE, **options)
    return sorted(mover.run(crash_ids or (CRASH_ID,)), key=lambda outcome: outcome.crash_id)


def move_all(
    source: CrashStorageBase, destination: CrashStorageBase, **options: Any
) -> list[Outcome]:
    """Move as a copy of a range of days does: by listings."""
    mover = Mover(source, destination, retry=AT_ONCE, **options)

    def listings(store: CrashStorageBase) -> Iterator[str]:
        return store.new_crashes(kind=mover.marker)

    return list(mover.run(listings(source), listings))


# Copying


def test_a_crash_is_copied_whole() -> None:
    source, destination = store_of(crash_of(contents())), InMemoryCrashStorage()
    [outcome] = move(source, destination)
    size = sum(map(len, contents().values()))
    assert outcome == Outcome(CRASH_ID, Status.COPIED, parts=4, bytes=size)
    assert read(destination) == contents()
    assert read(source) == contents()


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({Kind.RAW_CRASH}, {RAW}),
        ({Kind.RAW_CRASH, Kind.DUMP}, {RAW, MAIN, BROWSER}),
        (ALL_KINDS, {RAW, MAIN, BROWSER, PROCESSED}),
    ],
)
def test_only_the_kinds_asked_for_are_copied(kinds: Set[Kind], expected: set[Any]) -> None:
    destination = InMemoryCrashStorage()
    move(store_of(crash_of(contents())), destination, kinds=kinds)
    assert read(destination).keys() == expected


def test_a_processed_crash_that_came_later_is_copied_by_its_kind() -> None:
    source = store_of(crash_of(contents()))
    destination = store_of(crash_of(without(contents(), PROCESSED)))
    kinds = {Kind.PROCESSED_CRASH}
    assert move_all(source, destination)[0].status is Status.SKIPPED
    assert move_all(source, destination, kinds=kinds)[0].status is Status.COPIED
    assert read(destination) == contents()
    assert move_all(source, destination, kinds=kinds)[0].status is Status.SKIPPED
    assert move(source, destination, kinds=kinds)[0].status is Status.SKIPPED


def test_dumps_alone_are_copied_where_they_are_lacking() -> None:
    source = store_of(crash_of(contents()))
    destination = store_of(crash_of(without(contents(), BROWSER)))
    for expected in (Status.COPIED, Status.SKIPPED):
        [outcome] = move(source, destination, kinds={Kind.DUMP})
        assert outcome.status is expected
    assert read(destination) == contents()


def test_each_destination_gets_what_it_lacks() -> None:
    source = store_of(*some_crashes(4))
    has_some, has_none = store_of(*some_crashes(2)), InMemoryCrashStorage()
    nested = PolyCrashStorage([has_some, PolyCrashStorage([has_none])])
    outcomes = move_all(source, nested)
    assert [outcome.status for outcome in outcomes] == [Status.COPIED] * 4
    for store in (has_some, has_none):
        assert list(store.new_crashes()) == list(source.new_crashes())
    assert {outcome.status for outcome in move_all(source, nested)} == {Status.SKIPPED}


def test_a_missing_crash_is_missing_and_never_an_empty_save() -> None:
    destination = InMemoryCrashStorage()
    [outcome] = move(store_of(crash_of(contents(), NEIGHBOUR)), destination)
    assert outcome == Outcome(CRASH_ID, Status.MISSING, error="memory:: no such crash")
    assert list(destination.new_crashes()) == []


def test_redacted_copies_lack_what_is_protected() -> None:
    processed = b'{"uuid": "x", "url": "secret", "json_dump": {"sensitive": 1, "threads": []}}'
    source = store_of(crash_of(contents() | {PROCESSED: processed}))
    destination = InMemoryCrashStorage()
    move(source, destination, redactor=Redactor(), verify=True)
    assert json.loads(read(destination)[PROCESSED]) == {"uuid": "x", "json_dump": {"threads": []}}
    assert read(destination)[RAW] == contents()[RAW]
    [outcome] = move(source, destination, redactor=Redactor(), existing=Existing.COMPARE)
    assert outcome.status is Status.SKIPPED


def test_what_cannot_be_redacted_is_not_copied() -> None:
    source = store_of(crash_of(contents() | {PROCESSED: b"not JSON"}))
    destination = InMemoryCrashStorage()
    [outcome] = move(source, destination, redactor=Redactor())
    assert outcome.status is Status.FAILED
    assert outcome.error == "memory:: processed_crash is not JSON"
    assert not destination.has_crash(CRASH_ID)


def test_a_dry_run_changes_nothing() -> None:
    source, destination = store_of(*some_crashes(3)), store_of(*some_crashes(1))
    outcomes = move_all(source, destination, dry_run=True, remove_source=True)
    assert [outcome.status for outcome in outcomes].count(Status.WOULD_COPY) == 2
    assert outcomes[-1].parts == 4
    assert outcomes[-1].bytes > 10_000
    assert len(list(destination.new_crashes())) == 1
    assert len(list(source.new_crashes())) == 3


# What the destination has


def difference(new: Contents) -> tuple[InMemoryCrashStorage, InMemoryCrashStorage]:
    """Return a source, and a destination that has the crash with other contents."""
    return store_of(crash_of(contents())), store_of(crash_of(new))


@pytest.mark.parametrize(
    ("there", "status", "parts", "after"),
    [
        (contents(), Status.SKIPPED, 0, contents()),
        (contents() | {PROCESSED: b"{}"}, Status.COPIED, 1, contents()),
        (without(contents(), PROCESSED), Status.COPIED, 1, contents()),
        (without(contents(), BROWSER), Status.COPIED, 1, contents()),
        (contents() | {RAW: b"{}"}, Status.CONFLICT, 0, contents() | {RAW: b"{}"}),
        (contents() | {MAIN: b"x"}, Status.CONFLICT, 0, contents() | {MAIN: b"x"}),
        (
            contents() | {(Kind.DUMP, "more"): b"x"},
            Status.CONFLICT,
            0,
            contents() | {(Kind.DUMP, "more"): b"x"},
        ),
    ],
    ids=["same", "processed", "no processed", "no dump", "raw", "dump", "extra dump"],
)
def test_comparing_mends_what_it_may_and_reports_the_rest(
    there: Contents, status: Status, parts: int, after: Contents
) -> None:
    source, destination = difference(there)
    [outcome] = move(source, destination, existing=Existing.COMPARE, verify=True)
    assert (outcome.status, outcome.parts) == (status, parts)
    assert (outcome.error is None) == (status is not Status.CONFLICT)
    assert read(destination) == after
    assert read(source) == contents()


def test_overwriting_does_not_look() -> None:
    source, destination = difference(contents("b"))
    [outcome] = move(source, destination, existing=Existing.OVERWRITE)
    assert outcome.status is Status.COPIED
    assert read(destination) == contents()


def test_skipping_does_not_touch() -> None:
    source, destination = difference(contents("b"))
    assert move(source, destination)[0].status is Status.SKIPPED
    assert read(destination) == contents("b")


def test_a_listing_costs_no_request_for_a_crash() -> None:
    destination = FaultyStorage()
    for crash in some_crashes(50):
        destination.save_crash(crash)
    destination.calls.clear()
    outcomes = move_all(store_of(*some_crashes(50)), destination)
    assert [outcome.status for outcome in outcomes] == [Status.SKIPPED] * 50
    assert {call.split(",")[0] for call in destination.calls} == {"new_crashes"}


def test_what_a_listing_lacks_is_saved_without_a_further_look() -> None:
    destination = FaultyStorage()
    for crash in some_crashes(3):
        destination.save_crash(crash)
    destination.calls.clear()
    outcomes = move_all(store_of(*some_crashes(10)), destination)
    assert [outcome.status for outcome in outcomes].count(Status.COPIED) == 7
    asked = {call for call in destination.calls if not call.startswith("new_crashes")}
    assert asked == {"create_crashes", "save_crash"}
    assert destination.calls.count("save_crash") == 7


def test_without_a_listing_each_crash_is_looked_for() -> None:
    destination = FaultyStorage()
    for crash in some_crashes(3):
        destination.save_crash(crash)
    destination.calls.clear()
    outcomes = move(
        store_of(*some_crashes(10)), destination, *(crash.crash_id for crash in some_crashes(10))
    )
    assert [outcome.status for outcome in outcomes].count(Status.COPIED) == 7
    assert destination.calls.count("has_crash") == 10
    assert destination.calls.count("save_crash") == 7
    assert "new_crashes" not in destination.calls


def test_of_two_destinations_each_is_known_by_its_own_listing() -> None:
    has_some, has_none = FaultyStorage(), FaultyStorage()
    for crash in some_crashes(3):
        has_some.save_crash(crash)
    has_some.calls.clear()
    move_all(store_of(*some_crashes(5)), PolyCrashStorage([has_some, has_none]))
    for destination, lacking in ((has_some, 2), (has_none, 5)):
        assert destination.calls.count("save_crash") == lacking
        assert {"has_crash", "load_crash"}.isdisjoint(destination.calls)


@pytest.mark.parametrize(
    "options",
    [{"verify": True}, {"existing": Existing.COMPARE}],
    ids=["verify", "compare"],
)
def test_what_is_compared_is_loaded_whatever_a_listing_says(options: dict[str, Any]) -> None:
    destination = FaultyStorage()
    outcomes = move_all(store_of(*some_crashes(4)), destination, **options)
    assert [outcome.status for outcome in outcomes] == [Status.COPIED] * 4
    assert destination.calls.count("load_crash") >= 4


def test_a_crash_that_came_after_its_listing_is_not_replaced_and_never_torn() -> None:
    """A listing is as old as the run: what has been saved meanwhile shows in the end."""
    source, destination = store_of(*some_crashes(3)), InMemoryCrashStorage()
    mover = Mover(source, destination, retry=AT_ONCE)

    def listings(_store: CrashStorageBase) -> Iterator[str]:
        return iter(())

    for crash in some_crashes(2):
        destination.save_crash(crash)
    outcomes = list(mover.run(source.new_crashes(), listings))
    assert [outcome.status for outcome in outcomes] == [Status.COPIED] * 3
    for crash in some_crashes(3):
        assert read(destination, crash.crash_id) == contents(crash.crash_id)


# Verifying


def test_verifying_reads_back_what_was_saved() -> None:
    class Rotting(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            super().save_crash(crash)
            self._crashes[crash.crash_id][MAIN] += b"!"

    source = store_of(crash_of(contents()))
    [outcome] = move(source, Rotting(), verify=True, remove_source=True)
    assert outcome.status is Status.FAILED
    assert outcome.error == f"memory:: read back and not the same: different: {MAIN_DUMP}"
    assert read(source) == contents()
    [unverified] = move(source, Rotting())
    assert unverified.status is Status.COPIED


def test_verifying_finds_what_was_skipped_and_is_not_the_same() -> None:
    source, destination = difference(contents() | {MAIN: b"x"})
    [outcome] = move(source, destination, verify=True)
    assert outcome.status is Status.CONFLICT
    assert read(destination)[MAIN] == b"x"


def checked(*, dumps: Contents, checksums: object) -> Crash:
    raw = json.dumps({"metadata": {"dump_checksums": checksums}}).encode()
    return crash_of({RAW: raw} | dumps)


GOOD = hashlib.sha256(b"dump").hexdigest()


@pytest.mark.parametrize(
    ("checksums", "error"),
    [
        ({MAIN_DUMP: GOOD}, None),
        ({"dump": GOOD.upper()}, None),
        ({MAIN_DUMP: "0" * 32}, None),  # an MD5 of old: says nothing
        ({MAIN_DUMP: GOOD[:-1] + "\n"}, None),
        (["not", "a", "mapping"], None),
        ({MAIN_DUMP: "0" * 64}, "memory:: dump upload_file_minidump does not match its checksum"),
        ({MAIN_DUMP: GOOD, "lost": GOOD}, "memory:: dump lost is missing"),
    ],
)
def test_dumps_are_held_against_the_collector_s_checksums(
    checksums: object, error: str | None
) -> None:
    source = store_of(checked(dumps={MAIN: b"dump"}, checksums=checksums))
    [outcome] = move(source, InMemoryCrashStorage(), verify=True, remove_source=True)
    if error is None:
        assert (outcome.status, outcome.error) == (Status.COPIED, None)
        assert not source.has_crash(CRASH_ID)
    else:
        assert outcome.status is Status.FAILED
        assert (outcome.error or "").startswith(error)
        assert source.has_crash(CRASH_ID)


# Removing the source


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


# When stores fail


def test_what_fails_in_passing_is_tried_again() -> None:
    source = FaultyStorage("load_crash", times=2)
    source.save_crash(crash_of(contents()))
    destination = FaultyStorage("create_crashes", times=2)
    [outcome] = move(source, destination)
    assert (outcome.status, outcome.attempts) == (Status.COPIED, 3)
    assert read(destination) == contents()


def test_only_what_failed_is_tried_again() -> None:
    class Flaky(InMemoryCrashStorage):
        tuning = Tuning(batch=8)
        saved: list[str]

        def __init__(self) -> None:
            super().__init__()
            self.saved = []

        def save_crash(self, crash: Crash) -> None:
            self.saved.append(crash.crash_id)
            if self.saved.count(crash.crash_id) == 1 and crash.crash_id.startswith("00000003"):
                raise unavailable()
            super().save_crash(crash)

    destination = Flaky()
    outcomes = move_all(store_of(*some_crashes(8)), destination)
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}
    assert len(destination.saved) == 9


def test_what_is_denied_is_not_tried_again() -> None:
    destination = FaultyStorage("create_crashes", error=denied())
    [outcome] = move(store_of(crash_of(contents())), destination)
    assert (outcome.status, outcome.error) == (Status.FAILED, "memory:faulty: access denied")
    assert destination.calls.count("create_crashes") == 1


def test_a_part_that_cannot_be_read_is_the_source_s_failure() -> None:
    class Unreadable(InMemoryCrashStorage):
        uri = "memory:unreadable"

        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            short = Part(*MAIN, lambda: io.BytesIO(b"four"), 5)
            return Crash(crash_id, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), short])

    destination = InMemoryCrashStorage()
    [outcome] = move(Unreadable(), destination)
    assert outcome.status is Status.FAILED
    expected = "memory:unreadable: dump upload_file_minidump: read 4 bytes of 5"
    assert outcome.error == expected
    assert not destination.has_crash(CRASH_ID)


def test_a_crash_that_is_replaced_while_it_is_copied_is_copied_as_it_is_then(
    tmp_path: Path,
) -> None:
    source = FSPermanentStorage(tmp_path)
    source.save_crash(crash_of(contents("a")))

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            if read(source) == contents("a"):
                source.save_crash(crash_of(contents("b")))
            super().save_crash(crash)

    destination = Slow()
    [outcome] = move(source, destination, verify=True)
    assert outcome.status is Status.COPIED
    assert read(destination) == contents("b")


def test_a_source_that_goes_down_ends_the_run() -> None:
    source = FaultyStorage()
    for crash in some_crashes(500):
        source.save_crash(crash)
    source.failing = {"load_crash", "verify_access"}
    with pytest.raises(StorageUnavailable):
        list(Mover(source, InMemoryCrashStorage(), retry=AT_ONCE).run(source.new_crashes()))
    assert source.calls.count("load_crash") < 500


def test_a_destination_that_is_down_stops_the_run_only_when_it_is_the_last() -> None:
    good = InMemoryCrashStorage()
    source = store_of(*some_crashes(20))
    mover = Mover(source, PolyCrashStorage([all_down(), good]), retry=AT_ONCE)
    mover.verify_access()
    outcomes = list(mover.run(source.new_crashes()))
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}
    assert {outcome.error for outcome in outcomes} == {"memory:faulty: connection refused"}
    assert list(good.new_crashes()) == list(source.new_crashes())
    with pytest.raises(StorageError):
        Mover(source, PolyCrashStorage([all_down(), all_down()]), retry=AT_ONCE).verify_access()


def test_a_destination_that_goes_down_on_the_way_is_not_tried_for_every_crash() -> None:
    source = store_of(*some_crashes(200))
    down = FaultyStorage("create_crashes", "verify_access")
    with pytest.raises(StorageUnavailable):
        list(Mover(source, down, retry=AT_ONCE).run(source.new_crashes()))
    assert down.calls.count("create_crashes") <= 5 * down.tuning.workers


@pytest.mark.parametrize("error", [unavailable(), denied()])
@pytest.mark.parametrize(
    ("failing", "options"),
    [
        ("has_crash", {}),
        ("load_crash", {"existing": Existing.COMPARE}),
        ("load_crash", {"verify": True}),
    ],
)
def test_a_destination_that_cannot_be_asked_is_not_asked_for_every_crash(
    failing: str, options: dict[str, Any], error: StorageError
) -> None:
    source = store_of(*some_crashes(200))
    down = FaultyStorage(failing, "verify_access", error=error)
    with pytest.raises(type(error)):
        list(Mover(source, down, retry=AT_ONCE, **options).run(source.new_crashes()))
    assert down.calls.count(failing) <= 5 * down.tuning.workers


def test_a_source_that_goes_down_is_not_asked_for_the_rest_of_a_batch() -> None:
    class Batching(InMemoryCrashStorage):
        tuning = Tuning(batch=100)

    source = FaultyStorage("load_crash", "verify_access")
    with pytest.raises(StorageUnavailable):
        list(Mover(source, Batching(), retry=AT_ONCE).run(c.crash_id for c in some_crashes(200)))
    assert source.calls.count("load_crash") <= 5 * source.tuning.workers


def test_a_source_that_cannot_be_listed_to_its_end_is_an_error_at_the_end() -> None:
    source = FaultyStorage("new_crashes, after one")
    for crash in some_crashes(3):
        source.save_crash(crash)
    destination = InMemoryCrashStorage()
    outcomes: list[Outcome] = []
    mover = Mover(source, destination, retry=AT_ONCE)
    with pytest.raises(StorageUnavailable):
        for outcome in mover.run(source.new_crashes()):
            outcomes.append(outcome)
    assert [outcome.status for outcome in outcomes] == [Status.COPIED]
    assert len(list(destination.new_crashes())) == 1


def test_a_destination_that_cannot_be_listed_gets_nothing_overwritten() -> None:
    source, destination = store_of(*some_crashes(3)), FaultyStorage("new_crashes, after one")
    for crash in some_crashes(2):
        destination.save_crash(crash_of(contents("theirs"), crash.crash_id))
    with pytest.raises(StorageUnavailable):
        move_all(source, destination)
    for crash in some_crashes(2):
        assert read(destination, crash.crash_id) == contents("theirs")


def test_a_listing_that_fails_takes_nothing_from_what_is_in_hand() -> None:
    failing = threading.Event()

    class Slow(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            assert failing.wait(20)
            return super().load_crash(crash_id, kinds)

    def listing() -> Iterator[str]:
        yield from source.new_crashes()
        failing.set()
        raise denied()

    source = Slow()
    fill(source, some_crashes(2))
    outcomes = []
    mover = Mover(source, InMemoryCrashStorage(), retry=AT_ONCE, workers=1)
    with pytest.raises(StorageDenied):
        for outcome in mover.run(listing(), ahead=3):
            outcomes.append(outcome.status)
    assert outcomes == [Status.COPIED] * 2


def test_whoever_stops_a_run_does_not_wait_for_what_no_worker_has_begun_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped = threading.Event()
    drop = drop_what_waits

    def dropping(*args: Any) -> None:
        drop(*args)
        dropped.set()

    class Slow(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            assert crash_id == first or dropped.wait(20)
            return super().load_crash(crash_id, kinds)

    monkeypatch.setattr(mover_module, "drop_what_waits", dropping)
    source, destination = Slow(), InMemoryCrashStorage()
    fill(source, some_crashes(5))
    first, *_ = source.new_crashes()
    mover = Mover(source, destination, retry=AT_ONCE, workers=1)
    outcomes = []
    for outcome in mover.run(source.new_crashes(), ahead=5):
        mover.stop()
        outcomes.append(outcome.status)
    assert outcomes in ([Status.COPIED], [Status.COPIED] * 2)  # the second may have been begun
    assert len(list(destination.new_crashes())) == len(outcomes)


def test_a_destination_of_which_one_directory_cannot_be_listed_gets_all_else() -> None:
    class Odd(FaultyStorage):
        def new_crashes(self, *_args: object, **_kwargs: object) -> Iterator[str]:
            yield from ()
            raise denied()

    crashes = some_crashes(3)
    destination = Odd()
    fill(destination, crashes[:1])
    outcomes = move_all(store_of(*crashes), destination)
    assert sorted(outcome.status for outcome in outcomes) == ["copied", "copied", "skipped"]


BY_PROCESSES = """
import os, sys
from crashmover.errors import StorageUnavailable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.mover import Mover
from crashmover.retry import RetryPolicy
class Destination(FSPermanentStorage):
    def new_crashes(self, *args, **kwargs):
        yield next(super().new_crashes(*args, **kwargs))
        raise StorageUnavailable("connection refused", uri=self.uri)
source, destination = FSPermanentStorage(sys.argv[1]), Destination(sys.argv[2])
listings = lambda store: store.new_crashes()
with Mover(source, destination, retry=RetryPolicy(wait=0, wait_max=0)) as mover:
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        print(len(children.read().split()), flush=True)
    outcomes = mover.run(listings(source), listings)
    try:
        for outcome in outcomes:
            print(outcome.status)
    except StorageUnavailable as error:
        print(error)
"""


@pytest.fixture
def said_by_processes(tmp_path: Path) -> list[str]:
    """What a copy says whose workers are processes, and whose destination cannot be listed to
    its end: how they are, and what became of each crash and of the run."""
    source, destination = (FSPermanentStorage(tmp_path / name) for name in ("from", "to"))
    for crash in some_crashes(3):
        source.save_crash(crash)
    for crash in some_crashes(2):
        destination.save_crash(crash_of(contents("theirs"), crash.crash_id))
    command = [sys.executable, "-c", BY_PROCESSES, str(source.root), str(destination.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")


@only_linux
def test_a_destination_that_processes_cannot_list_gets_nothing_overwritten(
    said_by_processes: list[str], tmp_path: Path
) -> None:
    assert int(said_by_processes[0]) > 1
    destination = FSPermanentStorage(tmp_path / "to")
    for crash in some_crashes(2):
        assert read(destination, crash.crash_id) == contents("theirs")


@only_linux
def test_a_destination_that_cannot_be_listed_is_an_error_beside_processes_too(
    said_by_processes: list[str], tmp_path: Path
) -> None:
    assert said_by_processes[-1] == f"fs://{tmp_path}/to: connection refused"


def test_an_exception_that_nobody_expects_is_a_failed_crash() -> None:
    class Buggy(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            raise ZeroDivisionError("bug")

    [outcome] = move(store_of(crash_of(contents())), Buggy())
    assert (outcome.status, outcome.error) == (Status.FAILED, "ZeroDivisionError: bug")


# The run


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


def test_corrupt_is_not_retried() -> None:
    source = FaultyStorage("load_crash", error=CorruptCrash("torn", uri="memory:faulty"))
    source.save_crash(crash_of(contents()))
    [outcome] = move(source, InMemoryCrashStorage())
    assert (outcome.status, outcome.error) == (Status.FAILED, "memory:faulty: torn")
    assert source.calls.count("load_crash") == 1


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
