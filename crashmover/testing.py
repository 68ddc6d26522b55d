# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The conformance suite: what every store promises, as tests.

A backend of your own joins with five lines (pytest is needed: the ``testing`` extra)::

    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def storage(self) -> Iterator[CrashStorageBase]:
            with MyStorage() as storage:
                yield storage

The fixture gives a store that is empty and that can be written to.
"""

import datetime as dt
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from crashmover import crashid
from crashmover.crash import (
    ALL_KINDS,
    MAIN_DUMP,
    Crash,
    FileDumpsMapping,
    Kind,
    MemoryDumpsMapping,
    Part,
)
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    CrashMoverError,
    DumpNotFound,
    InvalidCrashID,
    InvalidDumpName,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase

Key = tuple[Kind, str]
Contents = dict[Key, bytes]

RAW: Key = (Kind.RAW_CRASH, "")
MAIN: Key = (Kind.DUMP, MAIN_DUMP)
BROWSER: Key = (Kind.DUMP, "upload_file_minidump_browser")
PROCESSED: Key = (Kind.PROCESSED_CRASH, "")

CRASH_ID = "0bba929f-8721-460c-dead-a43c22071025"
NEIGHBOUR = "0bba929f-8721-460c-dead-b43c22071025"
"""A crash that file systems keep in the same directory."""

AT_ONCE = 8 << 20
"""How much of a part a store may ask for at a time."""

LARGE = 3 * AT_ONCE + 1


class ReadFailed(Exception):
    """What a broken part raises."""


# Making crashes


def contents(version: str = "a") -> Contents:
    """What a crash of every kind of part holds; another for every `version`."""
    return {
        RAW: json.dumps({"ProductName": "Firefox", "version": version}).encode(),
        MAIN: b"MDMP" + bytes(range(256)) * 40 + version.encode(),
        BROWSER: version.encode() * 1000,
        PROCESSED: json.dumps({"signature": version, "uuid": CRASH_ID}).encode(),
    }


def crash_of(parts: Contents, crash_id: str = CRASH_ID) -> Crash:
    """Return the crash of these contents."""
    return Crash(crash_id, [Part.of_bytes(k, data, name) for (k, name), data in parts.items()])


def without(parts: Contents, *keys: Key) -> Contents:
    """Return the contents less some parts."""
    return {key: data for key, data in parts.items() if key not in keys}


def read(storage: CrashStorageBase, crash_id: str = CRASH_ID) -> Contents:
    """Return all that a store has of a crash."""
    return {part.key: part.read() for part in storage.load_crash(crash_id).parts}


def whole_or_none(storage: CrashStorageBase, *states: Contents) -> bool:
    """Whether a reader sees one of these states of the crash, or no crash."""
    try:
        return read(storage) in states
    except CrashIDNotFound:
        return True


def observed(key: Key, data: bytes, notice: Callable[[], None]) -> Part:
    """A part that calls `notice` whenever somebody begins to read it."""

    def opened() -> AbstractContextManager[BinaryIO]:
        notice()
        return io.BytesIO(data)

    return Part(*key, opened, len(data))


def broken(key: Key, data: bytes, *, after: int) -> Part:
    """A part of which no more than `after` bytes can be read."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= after:
                raise ReadFailed(f"at {self.tell()}")
            return super().read(min(after - self.tell(), size if size and size > 0 else after))

    return Part(*key, lambda: Broken(data), len(data))


class _Pattern(io.RawIOBase):
    """A large file that nobody has to keep; it refuses to be read in one piece."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None, "a part was read in one piece"
        assert 0 < size <= AT_ONCE, f"{size} bytes of a part were asked for at once"
        count = min(size, self._left)
        self._left -= count
        return bytes(count)


class StorageConformance:
    """The promises of `CrashStorageBase`; give it a fixture `storage`."""

    # Saving and loading

    def test_bytes_out_are_bytes_in(self, storage: CrashStorageBase) -> None:
        every_byte = bytes(range(256))
        odd = {RAW: b'{"a": 1, "a": 2, "\xff": 1e999} \x00', MAIN: every_byte, BROWSER: b""}
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
        for kinds in ({Kind.RAW_CRASH}, {Kind.DUMP}, {Kind.PROCESSED_CRASH}, ALL_KINDS):
            loaded = {part.key for part in storage.load_crash(CRASH_ID, kinds).parts}
            assert loaded == {key for key in contents() if key[0] in kinds}

    def test_a_size_that_is_told_is_true(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents()))
        for part in storage.load_crash(CRASH_ID).parts:
            assert part.size in (None, len(contents()[part.key]))

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

    # Whole or none

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
                    storage.save_crash(_with_broken(contents(), bad, after))
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
                storage.save_crash(_with_broken(new, bad, 5))
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

    # Several crashes

    def test_each_crash_of_a_batch_has_its_own_result(self, storage: CrashStorageBase) -> None:
        ids = [crashid.create(dt.date(2026, 11, 20), depth) for depth in range(5)] * 4
        ids = [crash_id[:8] + f"-{n:04x}" + crash_id[13:] for n, crash_id in enumerate(ids)]
        crashes = [crash_of(contents(crash_id), crash_id) for crash_id in ids]
        crashes[7] = _with_broken(contents(), MAIN, 5, ids[7])
        results = storage.save_crashes(crashes)
        assert [error is None for error in results] == [n != 7 for n in range(len(ids))]
        for n, crash_id in enumerate(ids):
            assert storage.has_crash(crash_id) == (n != 7)
            assert n == 7 or read(storage, crash_id) == contents(crash_id)

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
        dump = Part(*MAIN, lambda: cast(BinaryIO, _Pattern(LARGE)), LARGE)
        storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
        digest = hashlib.sha256()
        for chunk in storage.find_dump(CRASH_ID).chunks():
            assert len(chunk) <= AT_ONCE
            digest.update(chunk)
        assert digest.digest() == hashlib.sha256(bytes(LARGE)).digest()

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

    def test_a_processed_crash_alone_can_be_removed(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of({PROCESSED: b"{}"}))
        storage.remove(CRASH_ID)
        assert not storage.has_crash(CRASH_ID, Kind.PROCESSED_CRASH)

    # Listing

    def test_crashes_are_listed_by_day_and_id(self, storage: CrashStorageBase) -> None:
        ids = _some_ids()
        for crash_id in reversed(ids):
            storage.save_crash(crash_of({RAW: b"{}", MAIN: b"x"}, crash_id))
        listing = storage.new_crashes()
        assert next(listing) == ids[0]
        assert [ids[0], *listing] == ids
        storage.remove(ids[3])
        assert list(storage.new_crashes()) == ids[:3] + ids[4:]

    def test_both_days_of_a_range_are_in_it(self, storage: CrashStorageBase) -> None:
        ids = _some_ids()
        for crash_id in ids:
            storage.save_crash(crash_of({RAW: b"{}"}, crash_id))
        days = sorted({crashid.date_of(crash_id) for crash_id in ids})
        for since in (None, *days):
            for until in (None, *days):
                first, last = since or dt.date.min, until or dt.date.max
                expected = [i for i in ids if first <= crashid.date_of(i) <= last]
                assert list(storage.new_crashes(since, until)) == expected

    def test_raw_and_processed_crashes_are_listed_apart(self, storage: CrashStorageBase) -> None:
        ids = _some_ids()
        for number, crash_id in enumerate(ids):
            parts = [{RAW: b"{}"}, {PROCESSED: b"{}"}, {RAW: b"{}", PROCESSED: b"{}"}][number % 3]
            storage.save_crash(crash_of(parts, crash_id))
        raw = [crash_id for number, crash_id in enumerate(ids) if number % 3 != 1]
        processed = [crash_id for number, crash_id in enumerate(ids) if number % 3 != 0]
        assert list(storage.new_crashes()) == raw
        assert list(storage.new_crashes(kind=Kind.PROCESSED_CRASH)) == processed

    # The store itself

    def test_an_empty_store_lists_nothing_and_can_be_used(self, storage: CrashStorageBase) -> None:
        assert list(storage.new_crashes()) == []
        storage.verify_access(write=True)
        storage.save_crash(crash_of({RAW: b"{}"}))
        storage.verify_access()

    def test_it_says_what_it_is(self, storage: CrashStorageBase) -> None:
        assert storage.uri
        assert storage.uri in repr(storage)
        assert storage.identity() == storage.identity()
        assert storage.workers >= 1
        assert storage.batch_size >= 1
        for store in storage.stores:
            assert store.stores == (store,)

    # The API of Socorro's crash storage

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


def _with_broken(parts: Contents, bad: Key, after: int, crash_id: str = CRASH_ID) -> Crash:
    return Crash(
        crash_id,
        [
            broken(key, data, after=after) if key == bad else Part.of_bytes(key[0], data, key[1])
            for key, data in parts.items()
        ],
    )


def _some_ids() -> list[str]:
    """Crash ids of three days and of every depth, in the order in which they are listed."""
    days = ("071025", "260101", "261120")
    starts = ("00000000", "0bba929f", "0bbb0000", "ff00aa11")
    return [
        f"{start}-8721-460c-dead-a43c2{depth}{day}"
        for day in days
        for start in starts
        for depth in "01234a"
    ]


def all_cases() -> Iterator[str]:
    """Yield the names of the promises."""
    return (name for name in vars(StorageConformance) if name.startswith("test_"))
