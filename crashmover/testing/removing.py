# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of removing a crash as it was loaded, and many at once: by their ids, or by
days."""

import datetime as dt

import pytest

from crashmover import crashid
from crashmover.crash import MARKERS, Kind
from crashmover.errors import CrashChanged, CrashIDNotFound
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing.samples import (
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
    some_ids,
    without,
)

_SUNDAY = dt.date(2026, 11, 15)


class RemovingConformance:
    """Removing a crash that was loaded, several crashes, and whole days."""

    def test_a_crash_is_removed_that_is_as_it_was_loaded(self, storage: CrashStorageBase) -> None:
        for crash_id in (CRASH_ID, NEIGHBOUR):
            storage.save_crash(crash_of(contents(), crash_id))
        crash = storage.load_crash(CRASH_ID)
        storage.remove_loaded(crash)
        assert _listed(storage) == [NEIGHBOUR]
        with pytest.raises(CrashIDNotFound):
            storage.remove_loaded(crash)
        neighbour = storage.load_crash(NEIGHBOUR)
        assert {part.key: part.read() for part in neighbour.parts} == contents()
        storage.remove_loaded(neighbour)
        assert _listed(storage) == []

    def test_a_crash_that_has_changed_since_it_was_loaded_stays(
        self, storage: CrashStorageBase
    ) -> None:
        for change in (
            contents("another"),
            without(contents("another"), PROCESSED, BROWSER),
            {MAIN: b"another"},
            {(Kind.DUMP, "late"): b"late"},
            {PROCESSED: b"{}"},
        ):
            storage.save_crash(crash_of(contents()))
            crash = storage.load_crash(CRASH_ID)
            assert {part.key: part.read() for part in crash.parts} == contents()
            storage.save_crash(crash_of(change))
            there = read(storage)
            with pytest.raises(CrashChanged, match="is not what was loaded"):
                storage.remove_loaded(crash)
            assert read(storage) == there

    def test_several_crashes_are_removed_and_each_has_its_own_result(
        self, storage: CrashStorageBase
    ) -> None:
        ids = some_ids()[::8]
        for crash_id in ids[:6]:
            storage.save_crash(crash_of(contents(), crash_id))
        wanted = [ids[7], ids[5], ids[0], ids[8]]
        results = storage.remove_crashes(wanted)
        assert [type(each) for each in results] == [
            CrashIDNotFound if crash_id in ids[6:] else type(None) for crash_id in wanted
        ]
        assert _listed(storage) == [each for each in ids[:6] if each not in wanted]
        assert all(read(storage, each) == contents() for each in _listed(storage))
        assert storage.remove_crashes([]) == []

    def test_a_day_is_removed_with_all_its_crashes_and_no_other(
        self, storage: CrashStorageBase
    ) -> None:
        saved = _save_of_every_kind(storage, some_ids()[::8])
        days = sorted({crashid.date_of(crash_id) for crash_id in saved})
        gone = [each for each in saved if crashid.date_of(each) == days[1]]
        assert list(storage.remove_days(days[1], days[1])) == [(each, None) for each in gone]
        _assert_left(storage, saved, gone)
        assert list(storage.remove_days(days[1], days[1])) == []
        storage.save_crash(crash_of({RAW: b"{}"}, gone[0]))
        assert read(storage, gone[0]) == {RAW: b"{}"}

    def test_both_ends_of_a_range_are_removed_and_nothing_beside_them(
        self, storage: CrashStorageBase
    ) -> None:
        """From a Sunday to a Sunday: a whole week, and a part of the one before."""
        days = [_SUNDAY + dt.timedelta(days=days) for days in (-1, 0, 1, 7, 8)]
        saved = _save_of_every_kind(storage, [each for day in days for each in _ids_of(day)])
        gone = [each for each in saved if days[1] <= crashid.date_of(each) <= days[3]]
        removed = list(storage.remove_days(days[1], days[3]))
        assert removed == [(each, None) for each in gone]
        _assert_left(storage, saved, gone)
        rest = storage.remove_days(dt.date.min, dt.date.max)
        assert [each for each, _ in rest] == [each for each in saved if each not in gone]
        assert list(storage.all_crashes(dt.date.min, dt.date.max)) == []

    def test_days_without_crashes_are_removed_without_a_word(
        self, storage: CrashStorageBase
    ) -> None:
        day = dt.date(2026, 11, 20)
        assert list(storage.remove_days(dt.date.min, dt.date.max)) == []
        saved = _save_of_every_kind(storage, _ids_of(day))
        for since, until in (
            (day - dt.timedelta(days=9), day - dt.timedelta(days=1)),
            (day + dt.timedelta(days=1), dt.date.max),
            (day, day - dt.timedelta(days=1)),
        ):
            assert list(storage.remove_days(since, until)) == []
        _assert_left(storage, saved, [])

    def test_who_is_told_to_stop_removes_no_more_and_says_all_that_is_gone(
        self, storage: CrashStorageBase
    ) -> None:
        saved = _save_of_every_kind(storage, some_ids()[::12])
        assert list(storage.remove_days(dt.date.min, dt.date.max, lambda: True)) == []
        _assert_left(storage, saved, [])
        gone: list[str] = []
        for crash_id, error in storage.remove_days(dt.date.min, dt.date.max, lambda: bool(gone)):
            assert error is None
            gone.append(crash_id)
        assert gone == list(saved)[: len(gone)]
        _assert_left(storage, saved, gone)


def _ids_of(day: dt.date) -> list[str]:
    return [f"0bba{n:04x}-8721-460c-dead-a43c2{2 * n}{day:%y%m%d}" for n in range(2)]


def _save_of_every_kind(storage: CrashStorageBase, ids: list[str]) -> dict[str, Contents]:
    """Save raw crashes with their dumps, processed crashes, and both; return what they hold."""
    all_parts = contents()
    kinds = [without(all_parts, PROCESSED), {PROCESSED: all_parts[PROCESSED]}, all_parts]
    saved = {crash_id: kinds[number % 3] for number, crash_id in enumerate(ids)}
    results = storage.save_crashes([crash_of(parts, each) for each, parts in saved.items()])
    assert not any(results), results
    return saved


def _listed(storage: CrashStorageBase) -> list[str]:
    return list(storage.all_crashes(dt.date.min, dt.date.max))


def _assert_left(storage: CrashStorageBase, saved: dict[str, Contents], gone: list[str]) -> None:
    """Of these crashes all are as they were saved, but those that are gone."""
    assert _listed(storage) == [each for each in saved if each not in gone]
    for crash_id, parts in saved.items():
        there = [kind for kind in MARKERS if (kind, "") in parts]
        found = [kind for kind in there if storage.has_crash(crash_id, kind)]
        assert found == ([] if crash_id in gone else there)
        if found and RAW in parts:
            assert read(storage, crash_id) == parts
