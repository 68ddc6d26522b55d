# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What each role promises: a source, a listed source, a destination."""

import datetime as dt
import io
from collections.abc import Callable

import pytest

from crashmover import crashid
from crashmover.crash import ALL_KINDS, COLLECTED, MARKERS, Crash, Kind, Part
from crashmover.errors import CrashIDNotFound, CrashMoverError, InvalidCrashID, StorageError
from crashmover.external.roles import CrashDestination, CrashSource, ListedSource
from crashmover.testing.samples import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    ReadFailed,
    contents,
    contents_of,
    crash_of,
    read,
    some_ids,
    some_kinds,
    with_broken,
    without,
)

Put = Callable[[Crash], object]
"""Puts a crash where the source under test finds it, by the test's own means."""

Held = Callable[[], Contents]
"""Returns all that the destination under test has of the crash `CRASH_ID`, by the test's own means;
nothing, where there is nothing of it."""

INVALID_IDS = (
    CRASH_ID + "\n",
    CRASH_ID.upper(),
    "../" + CRASH_ID,
    "",
    CRASH_ID[:-6] + "071332",
)


class SourceConformance:
    """The promises of `CrashSource`; give it fixtures `source` and `put`."""

    def test_bytes_out_are_bytes_in(self, source: CrashSource, put: Put) -> None:
        every_byte = bytes(range(256))
        odd = {RAW: b'{"a": 1, "a": 2, "\xff": 1e999} \x00 \n', MAIN: every_byte, BROWSER: b""}
        saved = (contents(), odd | {PROCESSED: b"not JSON\r\n\x00\xff"}, {RAW: b""})
        for crash_id, parts in zip(some_ids(), saved, strict=False):
            put(crash_of(parts, crash_id))
            assert read(source, crash_id) == parts

    def test_what_is_not_there_is_not_found(self, source: CrashSource, put: Put) -> None:
        put(crash_of(contents(), NEIGHBOUR))
        assert not source.has_crash(CRASH_ID)
        for kinds in (ALL_KINDS, *({kind} for kind in Kind)):
            with pytest.raises(CrashIDNotFound) as caught:
                source.load_crash(CRASH_ID, kinds)
            assert caught.value.crash_id == CRASH_ID

    def test_only_the_kinds_asked_for_are_loaded(self, source: CrashSource, put: Put) -> None:
        put(crash_of(contents()))
        for kinds in some_kinds():
            loaded = {part.key for part in source.load_crash(CRASH_ID, kinds).parts}
            assert loaded == {key for key in contents() if key[0] in kinds}

    def test_a_part_is_there_as_far_as_its_marker_is(self, source: CrashSource, put: Put) -> None:
        for crash_id, marker in zip(some_ids(), MARKERS, strict=False):
            put(crash_of(contents_of(marker), crash_id))
            for kind in Kind:
                assert source.has_crash(crash_id, kind) is (kind.marker is marker)

    def test_a_size_that_is_told_is_true(self, source: CrashSource, put: Put) -> None:
        put(crash_of(contents()))
        for part in source.load_crash(CRASH_ID).parts:
            assert part.size in (None, len(contents()[part.key]))

    def test_where_a_part_lies_is_said_on_one_line_or_not_at_all(
        self, source: CrashSource, put: Put
    ) -> None:
        put(crash_of(contents()))
        said = [part.location for part in source.load_crash(CRASH_ID).parts]
        locations = [location for location in said if location is not None]
        assert all(location and location.isprintable() for location in locations)
        assert len(set(locations)) == len(locations)

    def test_a_part_can_be_opened_again_and_at_the_same_time(
        self, source: CrashSource, put: Put
    ) -> None:
        put(crash_of(contents()))
        for part in source.load_crash(CRASH_ID).parts:
            with part.open() as one, part.open() as other:
                assert one.read(10) == other.read(10) == contents()[part.key][:10]
            assert part.read() == contents()[part.key]

    def test_crashes_loaded_together_are_those_that_are_loaded_one_by_one(
        self, source: CrashSource, put: Put
    ) -> None:
        ids = [f"0bba{n:04x}-8721-460c-dead-a43c22071025" for n in range(8)]
        missing, *there = ids[3], *ids[:3], *ids[4:]
        for crash_id in there:
            put(crash_of(contents(crash_id), crash_id))
        asked = [ids[n] for n in (5, 0, 7, 3, 1, 6, 2, 4)]
        for kinds in (ALL_KINDS, {Kind.RAW_CRASH}, {Kind.PROCESSED_CRASH}):
            found = list(source.load_crashes(asked, kinds))
            assert len(found) == len(asked)
            for crash_id, crash in zip(asked, found, strict=True):
                if crash_id == missing:
                    assert isinstance(crash, CrashIDNotFound)
                    assert crash.crash_id == missing
                    continue
                assert isinstance(crash, Crash)
                assert crash.crash_id == crash_id
                alone = source.load_crash(crash_id, kinds)
                parts = {part.key: part.read() for part in crash.parts}
                assert parts == {part.key: part.read() for part in alone.parts}
                assert parts == {k: v for k, v in contents(crash_id).items() if k[0] in kinds}
        assert list(source.load_crashes([])) == []

    def test_ids_that_are_invalid_are_refused(self, source: CrashSource) -> None:
        calls = (source.load_crash, source.has_crash, source.get_raw_crash)
        for bad in INVALID_IDS:
            for call in calls:
                with pytest.raises(InvalidCrashID):
                    call(bad)


class ListedSourceConformance(SourceConformance):
    """The promises of `ListedSource`; give it fixtures `source` and `put`."""

    def test_crashes_are_listed_by_day_and_id(self, source: ListedSource, put: Put) -> None:
        ids = some_ids()
        for crash_id in reversed(ids):
            put(crash_of({RAW: b"{}", MAIN: b"x"}, crash_id))
        listing = source.new_crashes()
        assert next(listing) == ids[0]
        assert [ids[0], *listing] == ids

    def test_both_days_of_a_range_are_in_it(self, source: ListedSource, put: Put) -> None:
        ids = some_ids()
        for crash_id in ids:
            put(crash_of({RAW: b"{}"}, crash_id))
        days = sorted({crashid.date_of(crash_id) for crash_id in ids})
        for since in (None, *days):
            for until in (None, *days):
                first, last = since or dt.date.min, until or dt.date.max
                expected = [i for i in ids if first <= crashid.date_of(i) <= last]
                assert list(source.new_crashes(since, until)) == expected

    def test_raw_and_processed_crashes_are_listed_apart(
        self, source: ListedSource, put: Put
    ) -> None:
        ids = some_ids()
        for number, crash_id in enumerate(ids):
            parts = [{RAW: b"{}"}, {PROCESSED: b"{}"}, {RAW: b"{}", PROCESSED: b"{}"}][number % 3]
            put(crash_of(parts, crash_id))
        raw = [crash_id for number, crash_id in enumerate(ids) if number % 3 != 1]
        processed = [crash_id for number, crash_id in enumerate(ids) if number % 3 != 0]
        assert list(source.new_crashes()) == raw
        assert list(source.new_crashes(kind=Kind.PROCESSED_CRASH)) == processed

    def test_a_listing_is_of_what_says_that_a_crash_is_there(
        self, source: ListedSource, put: Put
    ) -> None:
        for crash_id, marker in zip(some_ids(), MARKERS, strict=False):
            put(crash_of(contents_of(marker), crash_id))
            assert list(source.new_crashes(kind=marker)) == [crash_id]
        for kind in ALL_KINDS - {*MARKERS}:
            with pytest.raises(ValueError, match=kind):
                list(source.new_crashes(kind=kind))

    def test_the_size_of_a_crash_is_that_of_all_its_parts(
        self, source: ListedSource, put: Put
    ) -> None:
        some = (
            {RAW: b"{}"},
            contents(),
            without(contents(), PROCESSED),
            {PROCESSED: b"alone"},
            {RAW: b"", MAIN: b"", BROWSER: bytes(100_000)},
        )
        ids = some_ids()
        sizes: dict[Kind, list[tuple[str, int]]] = {marker: [] for marker in MARKERS}
        for number, crash_id in enumerate(ids):
            parts = some[number % len(some)]
            put(crash_of(parts, crash_id))
            if RAW in parts:
                sizes[Kind.RAW_CRASH].append((crash_id, sum(map(len, parts.values()))))
            if PROCESSED in parts:
                sizes[Kind.PROCESSED_CRASH].append((crash_id, len(parts[PROCESSED])))
        for kind, expected in sizes.items():
            assert list(source.crash_sizes(kind=kind)) == expected
        day = crashid.date_of(ids[0])
        of_day = [each for each in sizes[Kind.RAW_CRASH] if crashid.date_of(each[0]) == day]
        assert list(source.crash_sizes(day, day)) == of_day


class DestinationConformance:
    """The promises of `CrashDestination`; give it fixtures `destination` and `held`."""

    def test_what_is_saved_is_there_to_the_byte(
        self, destination: CrashDestination, held: Held
    ) -> None:
        assert held() == {}
        odd = {MAIN: bytes(range(256)), BROWSER: b"", PROCESSED: b"not JSON\r\n\x00\xff"}
        for parts in (contents(), contents() | odd):
            destination.save_crash(crash_of(parts))
            assert held() == parts

    def test_what_a_collector_makes_is_replaced_together(
        self, destination: CrashDestination, held: Held
    ) -> None:
        old, new = contents("a"), contents("b")
        for kinds in some_kinds():
            if Kind.RAW_CRASH not in kinds:
                continue
            destination.save_crash(crash_of(old))
            destination.save_crash(crash_of({key: new[key] for key in new if key[0] in kinds}))
            kept = {key: old[key] for key in old if key[0] not in COLLECTED}
            assert held() == kept | {key: new[key] for key in new if key[0] in kinds}

    def test_a_raw_crash_replaces_the_raw_crash_and_all_dumps(
        self, destination: CrashDestination, held: Held
    ) -> None:
        destination.save_crash(crash_of(contents("a")))
        new = without(contents("b"), BROWSER, PROCESSED)
        destination.save_crash(crash_of(new))
        assert held() == new | {PROCESSED: contents("a")[PROCESSED]}

    def test_a_raw_crash_with_the_same_dumps_is_replaced(
        self, destination: CrashDestination, held: Held
    ) -> None:
        destination.save_crash(crash_of(contents("a")))
        new = contents("a") | {RAW: b'{"another": true}'}
        destination.save_crash(crash_of(new))
        assert held() == new

    def test_a_processed_crash_touches_only_itself(
        self, destination: CrashDestination, held: Held
    ) -> None:
        destination.save_crash(crash_of(contents("a")))
        destination.save_crash(crash_of({PROCESSED: b"{}"}))
        assert held() == contents("a") | {PROCESSED: b"{}"}

    def test_dumps_alone_are_added_to_the_raw_crash(
        self, destination: CrashDestination, held: Held
    ) -> None:
        destination.save_crash(crash_of(without(contents(), BROWSER)))
        destination.save_crash(crash_of({BROWSER: b"late"}))
        assert held() == contents() | {BROWSER: b"late"}

    def test_dumps_alone_need_a_raw_crash(self, destination: CrashDestination, held: Held) -> None:
        [error] = destination.save_crashes([crash_of({MAIN: b"lost"})])
        assert isinstance(error, StorageError)
        destination.save_crash(crash_of({RAW: b"{}"}))
        assert held() == {RAW: b"{}"}

    def test_a_crash_of_nothing_is_refused(self, destination: CrashDestination, held: Held) -> None:
        [error] = destination.save_crashes([Crash(CRASH_ID, [])])
        assert isinstance(error, CrashMoverError)
        assert held() == {}

    def test_a_batch_may_hold_a_crash_twice(
        self, destination: CrashDestination, held: Held
    ) -> None:
        crashes = [crash_of(contents(version)) for version in "ab"]
        assert destination.save_crashes(crashes) == [None, None]
        assert held() == contents("b")

    def test_an_empty_batch_is_no_work(self, destination: CrashDestination) -> None:
        assert destination.save_crashes([]) == []

    def test_a_save_that_fails_leaves_nothing_to_see(
        self, destination: CrashDestination, held: Held
    ) -> None:
        for bad in contents():
            for after in (0, 5):
                with pytest.raises((ReadFailed, StorageError)):
                    destination.save_crash(with_broken(contents(), bad, after))
                assert held() == {}
        # What was left, if anything, is not taken for a part of the crash that comes after.
        destination.save_crash(crash_of({RAW: b"{}"}))
        assert held() == {RAW: b"{}"}

    def test_a_save_that_fails_does_not_tear_the_crash_before(
        self, destination: CrashDestination, held: Held
    ) -> None:
        old, new = contents("a"), contents("b")
        for bad in contents():
            destination.save_crash(crash_of(old))
            with pytest.raises((ReadFailed, StorageError)):
                destination.save_crash(with_broken(new, bad, 5))
            now = held()
            assert now == old or RAW not in now
        destination.save_crash(crash_of(new))
        assert held() == new

    def test_a_part_that_is_not_as_long_as_announced_is_refused(
        self, destination: CrashDestination, held: Held
    ) -> None:
        for announced in (3, 5):
            dump = Part(*MAIN, lambda: io.BytesIO(b"four"), announced)
            with pytest.raises(StorageError):
                destination.save_crash(
                    Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump])
                )
            assert held() == {}

    def test_a_probe_of_saving_leaves_nothing(
        self, destination: CrashDestination, held: Held
    ) -> None:
        destination.verify_access(write=True)
        destination.save_crash(crash_of(contents()))
        times = [destination.probe_write() for _ in range(3)]
        assert held() == contents()
        assert all(time is None or time.tzinfo for time in (*times, destination.clock()))
