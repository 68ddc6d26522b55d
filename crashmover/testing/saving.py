# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of saving: the bytes, and whole crashes or none."""

import datetime as dt
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

import pytest

from crashmover import crashid
from crashmover.crash import (
    MAIN_DUMP,
    Crash,
    Kind,
    Part,
)
from crashmover.errors import (
    CrashIDNotFound,
    InvalidDumpName,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing.samples import (
    AT_ONCE,
    CRASH_ID,
    LARGE,
    MAIN,
    PROCESSED,
    RAW,
    Contents,
    Pattern,
    contents,
    crash_of,
    observed,
    read,
    with_broken,
    without,
)


class SavingConformance:
    """Saving and loading one crash, and several."""

    # Saving and loading

    def test_saving_twice_is_saving_once(self, storage: CrashStorageBase) -> None:
        for _ in range(2):
            storage.save_crash(crash_of(contents()))
            assert read(storage) == contents()
            assert list(storage.new_crashes()) == [CRASH_ID]

    def test_a_processed_crash_is_found_by_itself(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of({PROCESSED: b"{}"}))
        assert storage.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)
        [part] = storage.load_crash(CRASH_ID, {Kind.PROCESSED_CRASH}).parts
        assert part.read() == b"{}"
        assert not storage.has_crash(CRASH_ID)
        with pytest.raises(CrashIDNotFound):
            storage.load_crash(CRASH_ID)

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
