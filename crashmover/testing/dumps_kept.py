# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of saving a raw crash beside the dumps that are there."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from crashmover.crash import Crash
from crashmover.dumps import DumpsMapping, FileDumpsMapping, MemoryDumpsMapping
from crashmover.errors import CrashIDNotFound, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing.samples import (
    BROWSER,
    CRASH_ID,
    MAIN,
    PROCESSED,
    RAW,
    Contents,
    ReadFailed,
    broken,
    contents,
    crash_of,
    read,
    whole_or_none,
    without,
)

_PROCESSED = {"uuid": CRASH_ID, "signature": "new"}
_NEW_RAW = {"ProductName": "new"}


def _new(version: str = "new") -> Contents:
    return {RAW: json.dumps({"ProductName": version}).encode()}


def _raised(error: BaseException | None, kind: type[Exception]) -> bool:
    """Whether that is of this kind, in each store of several."""
    if isinstance(error, ExceptionGroup):
        return all(_raised(each, kind) for each in error.exceptions)
    return isinstance(error, kind)


class KeepingDumpsConformance:
    """`save_keeping_dumps`, and None for the dumps in the API of Socorro."""

    def test_none_keeps_the_dumps(self, storage: CrashStorageBase) -> None:
        saves: list[Callable[[], None]] = [
            lambda: storage.save_raw_crash(_NEW_RAW, None, CRASH_ID),
            lambda: storage.save_raw_crash_with_file_dumps(_NEW_RAW, None, CRASH_ID),
            lambda: storage.save_raw_and_processed(_NEW_RAW, None, _PROCESSED, CRASH_ID),
        ]
        for save in saves:
            storage.save_crash(crash_of(without(contents(), PROCESSED)))
            for _ in range(2):
                save()
                kept = {MAIN: contents()[MAIN], BROWSER: contents()[BROWSER]}
                assert without(read(storage), PROCESSED) == _new() | kept
                assert storage.get_raw_crash(CRASH_ID) == _NEW_RAW
        assert storage.get_unredacted_processed(CRASH_ID) == _PROCESSED

    def test_an_empty_mapping_removes_the_dumps(self, storage: CrashStorageBase) -> None:
        mappings: list[DumpsMapping] = [{}, MemoryDumpsMapping(), FileDumpsMapping()]
        for empty in mappings:
            storage.save_crash(crash_of(contents()))
            storage.save_raw_crash(_NEW_RAW, empty, CRASH_ID)
            assert without(read(storage), PROCESSED) == _new()
            storage.save_crash(crash_of(contents()))
            storage.save_raw_and_processed(_NEW_RAW, empty, _PROCESSED, CRASH_ID)
            assert without(read(storage), PROCESSED) == _new()

    def test_a_crash_that_is_missing_is_saved_without_dumps(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_raw_and_processed(_NEW_RAW, None, _PROCESSED, CRASH_ID)
        assert without(read(storage), PROCESSED) == _new()
        assert storage.get_unredacted_processed(CRASH_ID) == _PROCESSED

    def test_the_processed_crash_stays_where_none_is_given(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents()))
        storage.save_raw_crash(_NEW_RAW, None, CRASH_ID)
        assert read(storage) == contents() | _new()

    def test_kept_dumps_can_be_replaced_and_added_to(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(without(contents("a"), BROWSER, PROCESSED)))
        storage.save_raw_crash(_NEW_RAW, None, CRASH_ID)
        storage.save_crash(crash_of({BROWSER: b"late"}))
        assert read(storage) == _new() | {MAIN: contents("a")[MAIN], BROWSER: b"late"}
        storage.save_raw_crash({"ProductName": "newer"}, None, CRASH_ID)
        kept = _new("newer") | {MAIN: contents("a")[MAIN], BROWSER: b"late"}
        assert read(storage) == kept
        storage.save_crash(crash_of(kept))  # the same once more
        assert read(storage) == kept
        storage.save_crash(crash_of(contents("b")))
        assert read(storage) == contents("b")

    def test_a_crash_with_kept_dumps_is_removed_whole(self, storage: CrashStorageBase) -> None:
        removals: list[Callable[[], None]] = [
            lambda: storage.remove(CRASH_ID),
            lambda: storage.remove_loaded(_read_through(storage)),
        ]
        for remove in removals:
            storage.save_crash(crash_of(contents()))
            storage.save_raw_crash(_NEW_RAW, None, CRASH_ID)
            remove()
            with pytest.raises(CrashIDNotFound):
                storage.load_crash(CRASH_ID)
            storage.save_crash(crash_of({RAW: b"{}"}))
            assert read(storage) == {RAW: b"{}"}
            storage.remove(CRASH_ID)

    def test_a_raw_crash_that_cannot_be_read_changes_nothing(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        for is_there in (True, False):
            with pytest.raises(Exception) as caught:
                storage.save_keeping_dumps(Crash(CRASH_ID, [broken(RAW, b"x" * 100, after=5)]))
            assert _raised(caught.value, ReadFailed)
            if is_there:
                assert read(storage) == contents()
                storage.remove(CRASH_ID)
        assert not storage.has_crash(CRASH_ID)

    def test_a_reader_never_sees_a_crash_without_its_kept_dumps(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(without(contents(), PROCESSED)))
        dumps = without(contents(), RAW, PROCESSED)
        states = [without(contents(), PROCESSED), *(_new(v) | dumps for v in "abcdef")]
        seen = 0
        with ThreadPoolExecutor(1) as pool:
            saving = pool.submit(_save_in_turn, storage, "abcdef")
            while not saving.done() or not seen:
                try:
                    assert whole_or_none(storage, *states)
                    seen += 1
                except StorageUnavailable:  # it was replaced while it was read
                    continue
            saving.result()
        assert read(storage) == _new("f") | dumps

    def test_savers_that_race_lose_no_dump_and_mix_none(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(without(contents("a"), PROCESSED)))
        versions = "abcd"
        dumps = [without(contents(v), RAW, PROCESSED) for v in versions]
        raws = [contents(v)[RAW] for v in versions] + [_new(v)[RAW] for v in "uvwx"]

        def replace(version: str) -> None:
            storage.save_crash(crash_of(without(contents(version), PROCESSED)))

        def keep(version: str) -> None:
            storage.save_keeping_dumps(crash_of(_new(version)))

        for _ in range(3):
            with ThreadPoolExecutor(8) as pool:
                saves = [pool.submit(replace, v) for v in versions]
                saves += [pool.submit(keep, v) for v in "uvwx"]
            errors = [error for each in saves if (error := each.exception())]
            assert all(_raised(error, StorageUnavailable) for error in errors)
            for store in storage.stores:
                found = read(store)
                assert without(found, RAW) in dumps
                assert found[RAW] in raws

    def test_of_one_that_creates_and_one_that_keeps_the_dumps_stay(
        self, storage: CrashStorageBase
    ) -> None:
        whole = without(contents(), PROCESSED)

        def create() -> object:
            return storage.create_crashes([crash_of(whole)])[0]

        def keep() -> None:
            storage.save_keeping_dumps(crash_of(_new()))

        for _ in range(5):
            with ThreadPoolExecutor(2) as pool:
                created, kept = pool.submit(create), pool.submit(keep)
            if created.result() is None and len(storage.stores) == 1:
                expected = [whole, whole | _new()]
                assert kept.exception() or read(storage) == expected[1]
                assert read(storage) in expected
            storage.remove(CRASH_ID)

    def test_a_large_dump_is_kept(self, storage: CrashStorageBase) -> None:
        large = crash_of(_new("a") | {MAIN: bytes(range(256)) * 50_000})
        storage.save_crash(large)
        storage.save_raw_crash(_NEW_RAW, None, CRASH_ID)
        assert read(storage) == _new() | {MAIN: bytes(range(256)) * 50_000}


def _save_in_turn(storage: CrashStorageBase, versions: str) -> None:
    for version in versions:
        storage.save_keeping_dumps(crash_of(_new(version)))


def _read_through(storage: CrashStorageBase) -> Crash:
    """Return the crash, each part of which was read."""
    crash = storage.load_crash(CRASH_ID)
    for part in crash.parts:
        part.read()
    return crash
