# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine: what arrives, and what becomes of what is there."""

import hashlib
import json
from collections.abc import Iterator, Set
from typing import Any

import pytest

from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind
from crashmover.engine.mover import Existing, Mover, Outcome, Status
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.roles import ListedSource
from crashmover.redaction import Redactor
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
from tests.faulty import FaultyStorage
from tests.moving import AT_ONCE, difference, move, move_all, some_crashes, store_of

MIXED = without(contents(), PROCESSED) | {MAIN: b"x"}
MORE = contents() | {(Kind.DUMP, "more"): b"x"}


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


@pytest.mark.parametrize(
    ("there", "status", "parts", "after"),
    [
        (contents(), Status.SKIPPED, 0, contents()),
        (contents() | {PROCESSED: b"{}"}, Status.COPIED, 1, contents()),
        (without(contents(), PROCESSED), Status.COPIED, 1, contents()),
        (without(contents(), BROWSER), Status.COPIED, 1, contents()),
        (contents() | {RAW: b"{}"}, Status.CONFLICT, 0, contents() | {RAW: b"{}"}),
        (contents() | {MAIN: b"x"}, Status.CONFLICT, 0, contents() | {MAIN: b"x"}),
        (MIXED, Status.CONFLICT, 0, MIXED),
        (MORE, Status.CONFLICT, 0, MORE),
    ],
    ids=["same", "processed", "no processed", "no dump", "raw", "dump", "mixed", "extra dump"],
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


@pytest.mark.parametrize("there", [contents("b"), {RAW: b"{}"}, MIXED, MORE])
def test_overwriting_does_not_look(there: Contents) -> None:
    source, destination = difference(there)
    [outcome] = move(source, destination, existing=Existing.OVERWRITE)
    assert outcome.status is Status.COPIED
    assert read(destination) == contents()


@pytest.mark.parametrize("by_listing", [False, True])
@pytest.mark.parametrize("there", [contents("b"), {RAW: b"{}"}, MIXED, MORE])
def test_skipping_does_not_touch(there: Contents, by_listing: bool) -> None:
    source, destination = difference(there)
    [outcome] = (move_all if by_listing else move)(source, destination)
    assert outcome.status is Status.SKIPPED
    assert read(destination) == there


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

    def listings(_store: ListedSource) -> Iterator[str]:
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


@pytest.mark.parametrize(
    "there",
    [
        contents() | {MAIN: b"x"},
        contents() | {RAW: b"{}"},
        contents() | {PROCESSED: b"{}"},
        without(contents(), BROWSER),
        MORE,
    ],
    ids=["dump", "raw", "processed", "no dump", "extra dump"],
)
def test_verifying_finds_what_was_skipped_and_is_not_the_same(there: Contents) -> None:
    source, destination = difference(there)
    [outcome] = move(source, destination, verify=True, remove_source=True)
    assert outcome.status is Status.CONFLICT
    assert read(destination) == there
    assert read(source) == contents()


def checked(*, dumps: Contents, metadata: object) -> Crash:
    return crash_of({RAW: json.dumps({"metadata": metadata}).encode()} | dumps)


GOOD = hashlib.sha256(b"dump").hexdigest()


@pytest.mark.parametrize(
    ("checksums", "error"),
    [
        ({MAIN_DUMP: GOOD}, None),
        ({"dump": GOOD.upper()}, None),
        (None, None),
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
    source = store_of(checked(dumps={MAIN: b"dump"}, metadata={"dump_checksums": checksums}))
    [outcome] = move(source, InMemoryCrashStorage(), verify=True, remove_source=True)
    if error is None:
        assert (outcome.status, outcome.error) == (Status.COPIED, None)
        assert not source.has_crash(CRASH_ID)
    else:
        assert outcome.status is Status.FAILED
        assert (outcome.error or "").startswith(error)
        assert source.has_crash(CRASH_ID)


@pytest.mark.parametrize("metadata", [None, {}, "metadata"])
def test_a_raw_crash_without_checksums_is_verified_by_what_is_read_back(metadata: object) -> None:
    source = store_of(checked(dumps={MAIN: b"dump"}, metadata=metadata))
    [outcome] = move(source, InMemoryCrashStorage(), verify=True)
    assert outcome.status is Status.COPIED


@pytest.mark.parametrize("kinds", [{Kind.RAW_CRASH}, ALL_KINDS - {Kind.DUMP}])
def test_dumps_that_are_not_copied_are_not_held_against_their_checksums(kinds: Set[Kind]) -> None:
    source = store_of(checked(dumps={}, metadata={"dump_checksums": {MAIN_DUMP: GOOD}}))
    [outcome] = move(source, InMemoryCrashStorage(), verify=True, kinds=kinds)
    assert outcome.status is Status.COPIED
