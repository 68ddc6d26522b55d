# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of saving: the bytes, and whole crashes or none."""

import datetime as dt
import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

import pytest

from crashmover import crashid
from crashmover.crash import (
    ALL_KINDS,
    COLLECTED,
    MAIN_DUMP,
    MARKERS,
    Crash,
    Kind,
    Part,
)
from crashmover.errors import (
    CrashIDNotFound,
    CrashMoverError,
    InvalidCrashID,
    InvalidDumpName,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing.samples import (
    AT_ONCE,
    BROWSER,
    CRASH_ID,
    LARGE,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    Pattern,
    ReadFailed,
    contents,
    contents_of,
    crash_of,
    observed,
    read,
    some_kinds,
    whole_or_none,
    with_broken,
    without,
)


class SavingConformance:
    """Saving and loading one crash, and several."""

    # Saving and loading

    def test_bytes_out_are_bytes_in(self, storage: CrashStorageBase) -> None:
        every_byte = bytes(range(256))
        odd = {RAW: b'{"a": 1, "a": 2, "\xff": 1e999} \x00 \n', MAIN: every_byte, BROWSER: b""}
        for parts in (contents(), odd | {PROCESSED: b"not JSON\r\n\x00\xff"}, {RAW: b""}):
            storage.save_crash(crash_of(parts))
            assert read(storage) == parts
            storage.remove(CRASH_ID)

    def test_what_is_not_there_is_not_found(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents(), NEIGHBOUR))
        assert not storage.has_crash(CRASH_ID)
        for kinds in (ALL_KINDS, *({kind} for kind in Kind)):
            with pytest.raises(CrashIDNotFound) as caught:
                storage.load_crash(CRASH_ID, kinds)
            assert caught.value.crash_id == CRASH_ID

    def test_only_the_kinds_asked_for_are_loaded(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents()))
        for kinds in some_kinds():
            loaded = {part.key for part in storage.load_crash(CRASH_ID, kinds).parts}
            assert loaded == {key for key in contents() if key[0] in kinds}

    def test_a_size_that_is_told_is_true(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents()))
        for part in storage.load_crash(CRASH_ID).parts:
            assert part.size in (None, len(contents()[part.key]))

    def test_where_a_part_lies_is_said_on_one_line_or_not_at_all(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        said = [part.location for part in storage.load_crash(CRASH_ID).parts]
        locations = [location for location in said if location is not None]
        assert all(location and location.isprintable() for location in locations)
        assert len(set(locations)) == len(locations)

    def test_a_part_can_be_opened_again_and_at_the_same_time(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        for part in storage.load_crash(CRASH_ID).parts:
            with part.open() as one, part.open() as other:
                assert one.read(10) == other.read(10) == contents()[part.key][:10]
            assert part.read() == contents()[part.key]

    def test_saving_twice_is_saving_once(self, storage: CrashStorageBase) -> None:
        for _ in range(2):
            storage.save_crash(crash_of(contents()))
            assert read(storage) == contents()
            assert list(storage.new_crashes()) == [CRASH_ID]

    def test_a_raw_crash_replaces_the_raw_crash_and_all_dumps(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents("a")))
        new = without(contents("b"), BROWSER, PROCESSED)
        storage.save_crash(crash_of(new))
        assert read(storage) == new | {PROCESSED: contents("a")[PROCESSED]}

    def test_a_raw_crash_with_the_same_dumps_is_replaced(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents("a")))
        new = contents("a") | {RAW: b'{"another": true}'}
        storage.save_crash(crash_of(new))
        assert read(storage) == new

    def test_a_processed_crash_touches_only_itself(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents("a")))
        storage.save_crash(crash_of({PROCESSED: b"{}"}))
        assert read(storage) == contents("a") | {PROCESSED: b"{}"}

    def test_what_a_collector_makes_is_replaced_together(self, storage: CrashStorageBase) -> None:
        old, new = contents("a"), contents("b")
        for kinds in some_kinds():
            if Kind.RAW_CRASH not in kinds:
                continue
            storage.save_crash(crash_of(old))
            storage.save_crash(crash_of({key: new[key] for key in new if key[0] in kinds}))
            kept = {key: old[key] for key in old if key[0] not in COLLECTED}
            assert read(storage) == kept | {key: new[key] for key in new if key[0] in kinds}

    def test_a_part_is_there_as_far_as_its_marker_is(self, storage: CrashStorageBase) -> None:
        for marker in MARKERS:
            storage.save_crash(crash_of(contents_of(marker)))
            for kind in Kind:
                assert storage.has_crash(CRASH_ID, kind) is (kind.marker is marker)
            for listed in MARKERS:
                found = list(storage.new_crashes(kind=listed))
                assert found == ([CRASH_ID] if listed is marker else [])
            storage.remove(CRASH_ID)

    def test_a_listing_is_of_what_says_that_a_crash_is_there(
        self, storage: CrashStorageBase
    ) -> None:
        for kind in ALL_KINDS - {*MARKERS}:
            with pytest.raises(ValueError, match=kind):
                list(storage.new_crashes(kind=kind))

    def test_a_processed_crash_is_found_by_itself(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of({PROCESSED: b"{}"}))
        assert storage.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)
        [part] = storage.load_crash(CRASH_ID, {Kind.PROCESSED_CRASH}).parts
        assert part.read() == b"{}"
        assert not storage.has_crash(CRASH_ID)
        with pytest.raises(CrashIDNotFound):
            storage.load_crash(CRASH_ID)

    def test_dumps_alone_are_added_to_the_raw_crash(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(without(contents(), BROWSER)))
        storage.save_crash(crash_of({BROWSER: b"late"}))
        assert read(storage) == contents() | {BROWSER: b"late"}

    def test_dumps_alone_need_a_raw_crash(self, storage: CrashStorageBase) -> None:
        [error] = storage.save_crashes([crash_of({MAIN: b"lost"})])
        assert isinstance(error, StorageError)
        storage.save_crash(crash_of({RAW: b"{}"}))
        assert read(storage) == {RAW: b"{}"}

    def test_a_crash_of_nothing_is_refused(self, storage: CrashStorageBase) -> None:
        [error] = storage.save_crashes([Crash(CRASH_ID, [])])
        assert isinstance(error, CrashMoverError)
        assert not storage.has_crash(CRASH_ID)

    def test_the_main_dump_has_one_name(self, storage: CrashStorageBase) -> None:
        for name in ("", "dump", MAIN_DUMP):
            part = Part.of_bytes(Kind.DUMP, name.encode(), name)
            storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), part]))
            assert read(storage) == {RAW: b"{}", MAIN: name.encode()}
            for asked in (None, "", "dump", MAIN_DUMP):
                assert storage.get_raw_dump(CRASH_ID, asked) == name.encode()

    def test_names_that_are_paths_or_reserved_are_refused(self, storage: CrashStorageBase) -> None:
        for name in ("../x", "a/b", ".x", "dump_names", "raw_crash", "x\n", "x" * 101, "ü"):
            with pytest.raises(InvalidDumpName):
                storage.save_raw_crash({}, {name: b""}, CRASH_ID)
            with pytest.raises(InvalidDumpName):
                storage.get_raw_dump(CRASH_ID, name)
        assert not storage.has_crash(CRASH_ID)

    def test_ids_that_are_none_are_refused(self, storage: CrashStorageBase) -> None:
        calls: list[Callable[[str], object]] = [
            storage.load_crash,
            storage.has_crash,
            storage.remove,
            storage.get_raw_crash,
        ]
        for bad in (
            CRASH_ID + "\n",
            CRASH_ID.upper(),
            "../" + CRASH_ID,
            "",
            CRASH_ID[:-6] + "071332",
        ):
            for call in calls:
                with pytest.raises(InvalidCrashID):
                    call(bad)

    # Several crashes

    def test_each_crash_of_a_batch_has_its_own_result(self, storage: CrashStorageBase) -> None:
        ids = [crashid.create(dt.date(2026, 11, 20), depth) for depth in range(5)] * 4
        ids = [crash_id[:8] + f"-{n:04x}" + crash_id[13:] for n, crash_id in enumerate(ids)]
        crashes = [crash_of(contents(crash_id), crash_id) for crash_id in ids]
        crashes[7] = with_broken(contents(), MAIN, 5, ids[7])
        results = storage.save_crashes(crashes)
        assert [error is None for error in results] == [n != 7 for n in range(len(ids))]
        for n, crash_id in enumerate(ids):
            assert storage.has_crash(crash_id) == (n != 7)
            assert n == 7 or read(storage, crash_id) == contents(crash_id)

    def test_crashes_loaded_together_are_those_that_are_loaded_one_by_one(
        self, storage: CrashStorageBase
    ) -> None:
        ids = [f"0bba{n:04x}-8721-460c-dead-a43c22071025" for n in range(8)]
        missing, *there = ids[3], *ids[:3], *ids[4:]
        storage.save_crashes([crash_of(contents(crash_id), crash_id) for crash_id in there])
        asked = [ids[n] for n in (5, 0, 7, 3, 1, 6, 2, 4)]
        for kinds in (ALL_KINDS, {Kind.RAW_CRASH}, {Kind.PROCESSED_CRASH}):
            found = list(storage.load_crashes(asked, kinds))
            assert len(found) == len(asked)
            for crash_id, crash in zip(asked, found, strict=True):
                if crash_id == missing:
                    assert isinstance(crash, CrashIDNotFound)
                    assert crash.crash_id == missing
                    continue
                assert isinstance(crash, Crash)
                assert crash.crash_id == crash_id
                alone = storage.load_crash(crash_id, kinds)
                parts = {part.key: part.read() for part in crash.parts}
                assert parts == {part.key: part.read() for part in alone.parts}
                assert parts == {k: v for k, v in contents(crash_id).items() if k[0] in kinds}
        assert list(storage.load_crashes([])) == []

    def test_a_batch_may_hold_a_crash_twice(self, storage: CrashStorageBase) -> None:
        crashes = [crash_of(contents(version)) for version in "ab"]
        assert storage.save_crashes(crashes) == [None, None]
        assert read(storage) == contents("b")

    def test_an_empty_batch_is_no_work(self, storage: CrashStorageBase) -> None:
        assert storage.save_crashes([]) == []

    def test_many_threads_use_one_store(self, storage: CrashStorageBase) -> None:
        ids = [f"0bba{n:04x}-8721-460c-dead-a43c22071025" for n in range(24)]

        def there_and_back(crash_id: str) -> Contents:
            storage.save_crash(crash_of(contents(crash_id), crash_id))
            return read(storage, crash_id)

        with ThreadPoolExecutor(8) as pool:
            for crash_id, parts in zip(ids, pool.map(there_and_back, ids), strict=True):
                assert parts == contents(crash_id)
        assert list(storage.new_crashes()) == ids

    def test_large_parts_stream(self, storage: CrashStorageBase) -> None:
        dump = Part(*MAIN, lambda: cast(BinaryIO, Pattern(LARGE)), LARGE)
        storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
        digest = hashlib.sha256()
        for chunk in storage.find_dump(CRASH_ID).chunks():
            assert len(chunk) <= AT_ONCE
            digest.update(chunk)
        assert digest.digest() == hashlib.sha256(bytes(LARGE)).digest()


class WholenessConformance:
    """A reader sees a whole crash or none."""

    def test_the_crash_is_visible_only_when_all_of_it_is_saved(
        self, storage: CrashStorageBase
    ) -> None:
        seen: list[bool] = []

        def notice() -> None:
            # Of several stores as one, some may be finished; the one that reads is not.
            seen.append(all(store.has_crash(CRASH_ID) for store in storage.stores))

        parts = [observed(key, data, notice) for key, data in contents().items()]
        storage.save_crash(Crash(CRASH_ID, parts))
        assert len(seen) >= len(parts)
        assert not any(seen)
        assert storage.has_crash(CRASH_ID)

    def test_a_save_that_fails_leaves_nothing_to_see(self, storage: CrashStorageBase) -> None:
        for bad in contents():
            for after in (0, 5):
                with pytest.raises((ReadFailed, StorageError)):
                    storage.save_crash(with_broken(contents(), bad, after))
                assert not storage.has_crash(CRASH_ID)
                assert not storage.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)
                assert list(storage.new_crashes()) == []
        # What was left, if anything, is not taken for a part of the crash that comes after.
        storage.save_crash(crash_of({RAW: b"{}"}))
        assert read(storage) == {RAW: b"{}"}

    def test_a_save_that_fails_does_not_tear_the_crash_before(
        self, storage: CrashStorageBase
    ) -> None:
        old, new = contents("a"), contents("b")
        for bad in contents():
            storage.save_crash(crash_of(old))
            with pytest.raises((ReadFailed, StorageError)):
                storage.save_crash(with_broken(new, bad, 5))
            assert whole_or_none(storage, old)
        storage.save_crash(crash_of(new))
        assert read(storage) == new

    def test_a_part_that_is_not_as_long_as_announced_is_refused(
        self, storage: CrashStorageBase
    ) -> None:
        for announced in (3, 5):
            dump = Part(*MAIN, lambda: io.BytesIO(b"four"), announced)
            with pytest.raises(StorageError):
                storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
            assert not storage.has_crash(CRASH_ID)

    def test_a_reader_never_sees_half_of_two_crashes(self, storage: CrashStorageBase) -> None:
        states = [contents(version) for version in "ab"]
        for state in states:
            del state[PROCESSED]
        storage.save_crash(crash_of(states[0]))
        done = threading.Event()

        def save_in_turn() -> None:
            try:
                for turn in range(12):
                    storage.save_crash(crash_of(states[turn % 2]))
            finally:
                done.set()

        torn: list[Contents] = []
        with ThreadPoolExecutor(1) as pool:
            saver = pool.submit(save_in_turn)
            while not done.is_set():
                try:
                    if (state := read(storage)) not in states:
                        torn.append(state)
                except StorageError:
                    continue  # gone, or replaced while it was read: the reader was told
            saver.result()
        assert not torn
        assert read(storage) == states[1]

    def test_savers_of_one_crash_do_not_mix(self, storage: CrashStorageBase) -> None:
        states = [without(contents(version), PROCESSED) for version in "abcd"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda state: storage.save_crash(crash_of(state)), states * 3))
        for store in storage.stores:
            assert read(store) in states
