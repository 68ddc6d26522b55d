# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Socorro's callers of 2019 and of today: short programs that use its method names alone, on every
store; and what Socorro's own tests expect of them."""

import logging
import os
import sys
from collections import UserDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from crashmover import crashid, registry
from crashmover.crash import Crash, Kind
from crashmover.dumps import FileDumpsMapping
from crashmover.errors import (
    CrashIDNotFound,
    PolyCrashStorageError,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.redaction import Redactor
from crashmover.testing import CRASH_ID, MAIN, RAW, contents, crash_of, read
from tests.conftest import Figures, mostly_slow, new_uri

DUMPS = {"upload_file_minidump": b"MDMP main", "memory_report": b"report"}
STORES = ["fs", "memory", "s3_strict", "s3_signed", "fake_gcs", "postgresql", "poly"]
QUICK = [each for each in STORES if each != "fake_gcs"]
IDS = [crashid.create(depth=depth) for depth in range(5)]


def open_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> CrashStorageBase:
    if kind == "fs":
        return FSPermanentStorage(tmp_path / "crashes")
    if kind == "memory":
        return InMemoryCrashStorage()
    if kind == "poly":
        return PolyCrashStorage([InMemoryCrashStorage(), FSPermanentStorage(tmp_path / "other")])
    return registry.open_storage(new_uri(request, kind))


@pytest.fixture(params=mostly_slow(STORES, QUICK))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> CrashStorageBase:
    storage = open_store(request.param, request, tmp_path)
    request.addfinalizer(storage.close)
    return storage


def processor_of_2019(source: Any, destination: Any, crash_id: str) -> None:
    """Process a crash as the processor of 2019 did."""
    raw_crash = source.get_raw_crash(crash_id)
    dumps = source.get_raw_dumps_as_files(crash_id)
    try:
        processed = source.get_unredacted_processed(crash_id)
    except CrashIDNotFound:
        processed = {}
    try:
        raw_crash["rules"] = "were here"
        sizes = {name: os.path.getsize(path) for name, path in dumps.items()}
        processed |= {"uuid": crash_id, "sizes": sizes, "url": "secret"}
        destination.save_raw_and_processed(raw_crash, None, processed, crash_id)
        destination.ack_crash(crash_id)
    finally:
        for path in dumps.values():
            assert "TEMPORARY" in path
            os.unlink(path)


def processor_of_2026(source: Any, destination: Any, crash_id: str, tmpdir: str) -> None:
    """Process a crash as the processor of today does."""
    raw_crash = source.get_raw_crash(crash_id)
    dumps = source.get_dumps_as_files(crash_id, tmpdir)
    try:
        processed = source.get_processed_crash(crash_id)
    except CrashIDNotFound:
        processed = {}
    sizes = {name: os.path.getsize(path) for name, path in dumps.items()}
    processed |= {"uuid": crash_id, "sizes": sizes, "url": "secret"}
    destination.save_processed_crash(raw_crash, processed)


@pytest.mark.parametrize("year", [2019, 2026])
def test_a_processor_keeps_every_dump(
    storage: CrashStorageBase, year: int, tmp_path: Path, figures: Figures
) -> None:
    for crash_id in IDS:
        storage.save_raw_crash({"ProductName": "Firefox"}, DUMPS, crash_id)
        for _ in range(2):  # and processes it again
            if year == 2019:
                processor_of_2019(storage, storage, crash_id)
            else:
                processor_of_2026(storage, storage, crash_id, str(tmp_path))
        assert storage.get_raw_dumps(crash_id) == storage.get_dumps(crash_id) == DUMPS
        sizes = {name: len(dump) for name, dump in DUMPS.items()}
        saved = {"uuid": crash_id, "sizes": sizes, "url": "secret"}
        assert storage.get_processed_crash(crash_id) == saved
        assert "url" not in storage.get_processed(crash_id)
        raw = {"ProductName": "Firefox"} | ({"rules": "were here"} if year == 2019 else {})
        assert storage.get_raw_crash(crash_id) == raw
    assert set(storage.new_crashes()) == set(IDS)
    figures(crashes_processed_twice=len(IDS), dumps_kept=len(IDS) * len(DUMPS))


def test_a_crash_is_catalogued_and_deleted(storage: CrashStorageBase) -> None:
    assert storage.catalog_crash(CRASH_ID) == []
    storage.save_processed({"uuid": CRASH_ID})
    schemes = [store.uri.partition(":")[0] for store in storage.stores]
    assert storage.catalog_crash(CRASH_ID) == sorted(f"{s}_processed_crash" for s in schemes)
    storage.save_raw_crash({}, DUMPS, CRASH_ID)
    words = ["dump_memory_report", "dump_upload_file_minidump", "processed_crash", "raw_crash"]
    expected = sorted(f"{scheme}_{word}" for scheme in schemes for word in words)
    assert storage.catalog_crash(CRASH_ID) == expected
    storage.delete_crash(CRASH_ID)
    assert storage.catalog_crash(CRASH_ID) == []
    with pytest.raises(CrashIDNotFound):
        storage.delete_crash(CRASH_ID)
    assert storage.exceptions_eligible_for_retry == (StorageUnavailable,)
    assert storage.is_mutator() is False


@pytest.mark.parametrize("kind", mostly_slow([each for each in STORES if each != "poly"], QUICK))
def test_a_crash_is_never_missing_while_its_dumps_are_kept(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with open_store(kind, request, tmp_path) as storage, ThreadPoolExecutor(1) as pool:
        storage.save_crash(crash_of(contents()))

        def save() -> None:
            for number in range(10):
                storage.save_raw_crash({"number": number}, None, CRASH_ID)

        saving = pool.submit(save)
        while not saving.done():
            assert storage.has_crash(CRASH_ID)
        saving.result()
        assert read(storage) == contents() | {RAW: b'{"number": 9}'}


@pytest.mark.parametrize("older", ["00/00/00/00", "CRASH_ID", "00/00/00/00/CRASH_ID"])
def test_dumps_at_an_older_place_are_kept(older: str, tmp_path: Path) -> None:
    crash_id = "00000000-8721-460c-dead-a43c20071025"
    storage = FSPermanentStorage(tmp_path)
    where = tmp_path / "20071025" / "name" / older.replace("CRASH_ID", crash_id)
    where.mkdir(parents=True)
    (where / f"{crash_id}.json").write_bytes(b"{}")
    (where / f"{crash_id}.dump").write_bytes(b"MDMP")
    for version in (1, 2):
        storage.save_raw_and_processed(
            {"v": version}, None, {"uuid": crash_id, "v": version}, crash_id
        )
        assert storage.get_raw_crash(crash_id) == {"v": version}
        assert storage.get_processed(crash_id)["v"] == version
        assert storage.get_raw_dumps(crash_id) == {"upload_file_minidump": b"MDMP"}
    assert list(storage.new_crashes()) == [crash_id]


def test_of_several_stores_each_keeps_its_own_dumps() -> None:
    stores = [InMemoryCrashStorage() for _ in range(3)]
    stores[0].save_raw_crash({}, {"": b"one"}, CRASH_ID)
    stores[1].save_raw_crash({}, {"": b"two"}, CRASH_ID)
    with PolyCrashStorage(stores) as poly:
        poly.save_raw_crash({"new": 1}, None, CRASH_ID)
    dumps = [dict(store.get_dumps(CRASH_ID)) for store in stores]
    assert dumps == [{MAIN[1]: b"one"}, {MAIN[1]: b"two"}, {}]
    assert all(store.get_raw_crash(CRASH_ID) == {"new": 1} for store in stores)


# Files


def test_temporary_files_are_private_and_a_failure_leaves_none(tmp_path: Path) -> None:
    storage = InMemoryCrashStorage()
    storage.save_raw_crash({}, DUMPS, CRASH_ID)
    files = storage.get_raw_dumps_as_files(CRASH_ID)
    assert isinstance(files, FileDumpsMapping)
    directory = Path(files["memory_report"]).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    storage.temporary_directory = tmp_path
    assert Path(storage.get_raw_dumps_as_files(CRASH_ID)["memory_report"]).parent == tmp_path
    (tmp_path / f"{CRASH_ID}.memory_report.TEMPORARY.dump").unlink()
    (tmp_path / f"{CRASH_ID}.upload_file_minidump.TEMPORARY.dump").unlink()

    class Breaks(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Any = frozenset(Kind)) -> Crash:
            def fail() -> Any:
                raise StorageError("unreadable")

            first, second = storage.load_crash(crash_id, kinds).parts
            return Crash(crash_id, [first, type(second)(second.kind, second.name, fail)])

    with pytest.raises(StorageError, match="unreadable"):
        Breaks().get_dumps_as_files(CRASH_ID, tmp_path)
    assert list(tmp_path.iterdir()) == []


# The error of several stores


def test_the_error_of_several_stores_is_a_sequence(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(InMemoryCrashStorage):
        def save_keeping_dumps(self, crash: Crash) -> None:
            raise NameError("dwight")

    good = InMemoryCrashStorage()
    poly = PolyCrashStorage([Fails(), good, Fails()])
    with poly, pytest.raises(PolyCrashStorageError) as caught:
        poly.save_raw_and_processed({}, None, {"uuid": CRASH_ID}, CRASH_ID)
    error = caught.value
    assert good.has_crash(CRASH_ID)
    assert error.has_exceptions()
    assert bool(error)
    assert len(error) == len(error.exceptions) == 2
    for each in error:  # as the processor of 2019 does
        logging.error("failed", exc_info=each)
    assert [each[0] for each in error] == [NameError, NameError]
    assert str(error[0][1]) == str(error[-1].value) == "dwight"
    assert [each.value for each in error[:]] == list(error.exceptions)
    assert error[0] in error
    assert caplog.text.count("NameError: dwight") == 2
    with pytest.raises(IndexError):
        error[2]
    try:
        raise NameError("fred")
    except NameError as one:
        assert PolyCrashStorageError([one])[0] == sys.exc_info()


# The redactor


class Dotted(UserDict[str, Any]):
    """A mapping that is no dict, as Socorro's `DotDict` is."""


@pytest.mark.parametrize("make", [dict, Dotted])
def test_a_redactor_that_is_called_redacts_in_place(make: Callable[..., Any]) -> None:
    inner = make(sensitive=1, beside=2)
    crash = make(url="x", email="x", json_dump=inner, memory_info=None, uuid="x")
    assert Redactor()(crash) is crash
    assert dict(crash) == {"json_dump": inner, "uuid": "x"}
    assert dict(inner) == {"beside": 2}


@pytest.mark.parametrize("blocked", [None, "text", 7, [{"sensitive": 1}]], ids=ascii)
def test_what_is_on_the_way_never_stops_it(blocked: object) -> None:
    crash = {"json_dump": blocked, "memory_info": 1, "url": 2}
    Redactor()(crash)
    assert crash == {"json_dump": blocked}


def test_what_cannot_be_changed_is_replaced_or_refused() -> None:
    fixed = MappingProxyType({"sensitive": 1, "beside": 2})
    crash = {
        "json_dump": fixed,
        "upload_file_minidump_browser": MappingProxyType({"json_dump": fixed}),
    }
    Redactor()(crash)
    assert crash["json_dump"] == {"beside": 2}
    assert crash["upload_file_minidump_browser"] == {"json_dump": {"beside": 2}}
    assert dict(fixed) == {"sensitive": 1, "beside": 2}
    with pytest.raises(TypeError, match="use redact"):
        Redactor()(fixed)  # type: ignore[type-var]


@pytest.mark.parametrize("raw_crash", [None, [], "{}", b"{}"])
def test_a_raw_crash_that_is_no_mapping_is_refused_and_nothing_is_changed(
    storage: CrashStorageBase, raw_crash: Any
) -> None:
    storage.save_crash(crash_of(contents()))
    with pytest.raises(TypeError, match="raw_crash is a mapping, not"):
        storage.save_raw_crash(raw_crash, None, CRASH_ID)
    with pytest.raises(TypeError, match="raw_crash is a mapping, not"):
        storage.save_raw_and_processed(raw_crash, {}, {"uuid": CRASH_ID}, CRASH_ID)
    assert read(storage) == contents()


def test_mappings_that_are_no_dict_are_saved(storage: CrashStorageBase) -> None:
    raw_crash: UserDict[str, Any] = UserDict(metadata=MappingProxyType({"collector_notes": []}))
    processed: UserDict[str, Any] = UserDict(uuid=CRASH_ID, json_dump=UserDict())
    storage.save_raw_and_processed(raw_crash, None, processed, CRASH_ID)
    assert storage.get_raw_crash(CRASH_ID) == {"metadata": {"collector_notes": []}}
    assert storage.get_processed_crash(CRASH_ID) == {"uuid": CRASH_ID, "json_dump": {}}
