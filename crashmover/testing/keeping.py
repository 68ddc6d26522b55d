# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of what it keeps: listing, removing, and the API of Socorro."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from crashmover.crash import MARKERS, Kind
from crashmover.dumps import FileDumpsMapping, MemoryDumpsMapping
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    DumpNotFound,
    InvalidCrashID,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing.roles import INVALID_IDS
from crashmover.testing.samples import (
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    contents,
    crash_of,
    read,
    some_ids,
)


class KeepingConformance:
    """Removing, and the store itself."""

    # Removing

    def test_removing_takes_all_of_the_crash_and_nothing_else(
        self, storage: CrashStorageBase
    ) -> None:
        for crash_id in (CRASH_ID, NEIGHBOUR, CRASH_ID[:-7] + "0071025"):
            storage.save_crash(crash_of(contents(), crash_id))
        storage.remove(CRASH_ID)
        assert not storage.has_crash(CRASH_ID)
        assert not storage.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)
        assert read(storage, NEIGHBOUR) == contents()
        assert read(storage, CRASH_ID[:-7] + "0071025") == contents()
        storage.save_crash(crash_of({RAW: b"{}"}))
        assert read(storage) == {RAW: b"{}"}

    def test_removing_what_is_not_there_is_said(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents(), NEIGHBOUR))
        with pytest.raises(CrashIDNotFound):
            storage.remove(CRASH_ID)
        storage.save_crash(crash_of(contents()))
        storage.remove(CRASH_ID)
        with pytest.raises(CrashIDNotFound):
            storage.remove(CRASH_ID)
        assert read(storage, NEIGHBOUR) == contents()

    def test_what_was_removed_is_not_listed(self, storage: CrashStorageBase) -> None:
        ids = some_ids()
        storage.save_crashes([crash_of({RAW: b"{}"}, crash_id) for crash_id in ids])
        storage.remove(ids[3])
        assert list(storage.new_crashes()) == ids[:3] + ids[4:]

    def test_ids_that_are_invalid_are_not_removed(self, storage: CrashStorageBase) -> None:
        for bad in INVALID_IDS:
            with pytest.raises(InvalidCrashID):
                storage.remove(bad)

    def test_a_processed_crash_alone_can_be_removed(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of({PROCESSED: b"{}"}))
        storage.remove(CRASH_ID)
        assert not storage.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)

    # The store itself

    def test_an_empty_store_lists_nothing_and_can_be_used(self, storage: CrashStorageBase) -> None:
        assert list(storage.new_crashes()) == []
        storage.verify_access(write=True)
        storage.save_crash(crash_of({RAW: b"{}"}))
        storage.verify_access()

    def test_a_probe_of_saving_is_seen_by_nobody_and_leaves_nothing(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        seen: set[str] = set()
        done = Event()

        def look() -> None:
            while not done.is_set():
                for kind in MARKERS:
                    seen.update(storage.new_crashes(kind=kind))

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                times = [storage.probe_write() for _ in range(3)]
            finally:
                done.set()
            looking.result()
        for kind in MARKERS:
            seen.update(storage.new_crashes(kind=kind))
        assert seen == {CRASH_ID}
        assert read(storage) == contents()
        assert all(time is None or time.tzinfo for time in (*times, storage.clock()))

    def test_it_says_what_it_is(self, storage: CrashStorageBase) -> None:
        assert storage.uri
        assert storage.uri in repr(storage)
        assert storage.identity() == storage.identity()
        tuning = storage.tuning
        assert tuning.workers >= 1
        assert tuning.batch >= 1
        assert all(1 <= tuning.batch_for(n) <= tuning.batch for n in (1, 3, 100, 5000))
        for store in storage.stores:
            assert store.stores == (store,)


class SocorroConformance:
    """The methods of Socorro's crash storage."""

    def test_dumps_are_saved_from_memory_and_from_files(
        self, storage: CrashStorageBase, tmp_path: Path
    ) -> None:
        file = tmp_path / "a.dmp"
        file.write_bytes(b"dump")
        files = {"upload_file_minidump": str(file)}
        saves: list[Callable[[], None]] = [
            lambda: storage.save_raw_crash({}, {"": b"dump"}, CRASH_ID),
            lambda: storage.save_raw_crash({}, MemoryDumpsMapping(dump=b"dump"), CRASH_ID),
            lambda: storage.save_raw_crash({}, FileDumpsMapping(files), CRASH_ID),
            lambda: storage.save_raw_crash_with_file_dumps({}, files, CRASH_ID),
        ]
        for save in saves:
            save()
            assert read(storage) == {RAW: b"{}", MAIN: b"dump"}
            storage.remove(CRASH_ID)
        storage.save_raw_crash({}, None, CRASH_ID)
        assert read(storage) == {RAW: b"{}"}

    def test_crashes_come_back_as_python_values(
        self, storage: CrashStorageBase, tmp_path: Path
    ) -> None:
        raw = {"ProductName": "Größe 火狐", "metadata": {"n": [1, None]}}
        processed = {"uuid": CRASH_ID, "url": "secret", "signature": "OOM | small"}
        dumps = {"upload_file_minidump": b"one", "memory_report": b"two"}
        storage.save_raw_and_processed(raw, dumps, processed, CRASH_ID)
        assert storage.get_raw_crash(CRASH_ID) == raw
        assert storage.get_unredacted_processed(CRASH_ID) == processed
        assert storage.get_processed(CRASH_ID) == {"uuid": CRASH_ID, "signature": "OOM | small"}
        assert storage.get_raw_dump(CRASH_ID) == b"one"
        assert storage.get_raw_dump(CRASH_ID, "memory_report") == b"two"
        assert storage.get_raw_dumps(CRASH_ID) == dumps
        files = storage.get_raw_dumps_as_files(CRASH_ID, tmp_path)
        assert {name: Path(path).read_bytes() for name, path in files.items()} == dumps
        assert all(Path(path).parent == tmp_path for path in files.values())

    def test_a_processed_crash_is_saved_by_its_uuid(self, storage: CrashStorageBase) -> None:
        when = dt.datetime(2026, 11, 20, 8, 30, tzinfo=dt.UTC)
        storage.save_processed({"uuid": CRASH_ID, "date_processed": when})
        saved = storage.get_unredacted_processed(CRASH_ID)
        assert saved == {"uuid": CRASH_ID, "date_processed": when.isoformat()}
        with pytest.raises(InvalidCrashID):
            storage.save_processed({"signature": "no uuid"})
        with pytest.raises(ValueError, match="another crash"):
            storage.save_raw_and_processed({}, None, {"uuid": NEIGHBOUR}, CRASH_ID)
        assert not storage.has_crash(CRASH_ID)

    def test_what_a_crash_lacks_is_not_found(self, storage: CrashStorageBase) -> None:
        for get in (storage.get_raw_crash, storage.get_raw_dump, storage.get_raw_dumps):
            with pytest.raises(CrashIDNotFound):
                get(CRASH_ID)
        storage.save_raw_crash({}, {"memory_report": b"x"}, CRASH_ID)
        for name in (None, "other"):
            with pytest.raises(DumpNotFound):
                storage.get_raw_dump(CRASH_ID, name)
        for get in (storage.get_processed, storage.get_unredacted_processed):
            with pytest.raises(CrashIDNotFound):
                get(CRASH_ID)

    def test_json_that_is_none_is_said_to_be_corrupt(self, storage: CrashStorageBase) -> None:
        for bad in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"):
            storage.save_crash(crash_of({RAW: bad, PROCESSED: bad}))
            for get in (storage.get_raw_crash, storage.get_processed):
                with pytest.raises(CorruptCrash) as caught:
                    get(CRASH_ID)
                assert caught.value.crash_id == CRASH_ID
            assert read(storage) == {RAW: bad, PROCESSED: bad}
