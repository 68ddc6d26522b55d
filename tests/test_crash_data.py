# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashData: one piece of a crash, for the middleware."""

from collections.abc import Iterator

import pytest

from crashmover.crash import Crash, Kind, Part
from crashmover.crash_data import DATATYPES, CrashData
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    DumpNotFound,
    InvalidCrashID,
    InvalidDumpName,
)
from crashmover.external.memory import InMemoryCrashStorage

ID = "0bba929f-8721-460c-dead-a43c22071025"
OTHER_ID = "1bba929f-8721-460c-dead-a43c22071025"

RAW = {"ProductName": "Firefox", "uuid": ID}
PROCESSED = {"uuid": ID, "signature": "a", "email": "x@y", "json_dump": {"sensitive": 1, "ok": 2}}
REDACTED = {"uuid": ID, "signature": "a", "json_dump": {"ok": 2}}
DUMPS = {"upload_file_minidump": b"MDMP\0\xff", "memory_report": b""}


@pytest.fixture
def storage() -> Iterator[InMemoryCrashStorage]:
    with InMemoryCrashStorage() as storage:
        yield storage


@pytest.fixture
def whole(storage: InMemoryCrashStorage) -> InMemoryCrashStorage:
    """A store with one whole crash."""
    storage.save_raw_and_processed(RAW, DUMPS, PROCESSED, ID)
    return storage


def state(storage: InMemoryCrashStorage) -> list[tuple[str, bytes]]:
    return [
        (crash_id + part.label, part.read())
        for crash_id in storage.new_crashes()
        for part in storage.load_crash(crash_id).parts
    ]


@pytest.mark.parametrize(
    ("datatype", "name", "expected"),
    [
        ("meta", None, RAW),
        ("processed", None, REDACTED),
        ("unredacted", None, PROCESSED),
        ("raw", None, (b"MDMP\0\xff", "application/octet-stream")),
        ("raw", "", (b"MDMP\0\xff", "application/octet-stream")),
        ("raw", "dump", (b"MDMP\0\xff", "application/octet-stream")),
        ("raw", "upload_file_minidump", (b"MDMP\0\xff", "application/octet-stream")),
        ("raw", "memory_report", (b"", "application/octet-stream")),
    ],
)
def test_every_piece_is_handed_out_by_its_datatype(
    whole: InMemoryCrashStorage, datatype: str, name: str | None, expected: object
) -> None:
    before = state(whole)
    assert CrashData(whole).get(ID, datatype, name) == expected
    assert state(whole) == before


def test_redacting_one_answer_leaves_the_next_whole(whole: InMemoryCrashStorage) -> None:
    data = CrashData(whole)
    assert data.get(ID, "processed") == REDACTED
    assert data.get(ID, "unredacted") == PROCESSED


@pytest.mark.parametrize("datatype", DATATYPES)
def test_no_such_crash_is_said_whatever_piece_is_asked_for(
    whole: InMemoryCrashStorage, datatype: str
) -> None:
    with pytest.raises(CrashIDNotFound) as caught:
        CrashData(whole).get(OTHER_ID, datatype)
    assert type(caught.value) is CrashIDNotFound
    assert caught.value.crash_id == OTHER_ID


def test_a_dump_that_the_crash_has_not_is_said_by_name(whole: InMemoryCrashStorage) -> None:
    with pytest.raises(DumpNotFound, match=f"{ID}: no dump nosuch"):
        CrashData(whole).get(ID, "raw", "nosuch")


@pytest.mark.parametrize("datatype", ["processed", "unredacted"])
def test_a_crash_that_is_not_processed_yet_has_no_processed_crash(
    storage: InMemoryCrashStorage, datatype: str
) -> None:
    storage.save_raw_crash(RAW, DUMPS, ID)
    with pytest.raises(CrashIDNotFound, match=ID):
        CrashData(storage).get(ID, datatype)


@pytest.mark.parametrize("datatype", ["meta", "raw"])
def test_a_processed_crash_alone_has_neither_annotations_nor_dumps(
    storage: InMemoryCrashStorage, datatype: str
) -> None:
    storage.save_processed(PROCESSED)
    with pytest.raises(CrashIDNotFound, match=ID):
        CrashData(storage).get(ID, datatype)
    assert CrashData(storage).get(ID, "unredacted") == PROCESSED


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("crash_id", ["", f"{ID}\n", f"bp-{ID}", ID.upper(), f"{ID[:-6]}260230"])
def test_what_is_no_crash_id_is_refused(
    whole: InMemoryCrashStorage, crash_id: str, datatype: str
) -> None:
    with pytest.raises(InvalidCrashID):
        CrashData(whole).get(crash_id, datatype)


@pytest.mark.parametrize("datatype", ["", "dump", "RAW", "raw_crash", "processed "])
def test_an_unknown_datatype_is_refused_with_those_there_are(
    whole: InMemoryCrashStorage, datatype: str
) -> None:
    with pytest.raises(ValueError, match="raw, meta, processed, unredacted, not") as caught:
        CrashData(whole).get(ID, datatype)
    assert repr(datatype) in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a\n", "raw_crash"])
def test_a_bad_name_of_a_dump_is_refused(whole: InMemoryCrashStorage, name: str) -> None:
    with pytest.raises(InvalidDumpName):
        CrashData(whole).get(ID, "raw", name)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_corrupt_and_never_an_empty_crash(
    storage: InMemoryCrashStorage, body: bytes
) -> None:
    parts = [Part.of_bytes(Kind.RAW_CRASH, body), Part.of_bytes(Kind.PROCESSED_CRASH, body)]
    storage.save_crash(Crash(ID, parts))
    for datatype in ("meta", "processed", "unredacted"):
        with pytest.raises(CorruptCrash, match=f"memory:: {ID}: "):
            CrashData(storage).get(ID, datatype)
