# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Where the parts of a crash lie in a bucket, to the letter."""

import datetime as dt

import pytest

from crashmover import crashid
from crashmover.errors import CorruptCrash
from crashmover.external.bucket import layouts
from crashmover.external.bucket.layouts import SOCORRO as keys

CRASH_ID = "0bba929f-8721-460c-dead-a43c22071025"


def test_a_raw_crash_is_looked_for_at_the_new_key_and_then_at_the_older_ones() -> None:
    assert keys.raw_crash_keys(CRASH_ID) == (
        "v1/raw_crash/20071025/0bba929f-8721-460c-dead-a43c22071025",
        "v2/raw_crash/0bb/20071025/0bba929f-8721-460c-dead-a43c22071025",
        "v2/raw_crash/20071025/0bba929f-8721-460c-dead-a43c22071025",
        "v1/raw_crash/0bba929f-8721-460c-dead-a43c22071025",
    )


def test_the_other_parts_have_one_key_each() -> None:
    assert keys.dump_names_key(CRASH_ID) == f"v1/dump_names/{CRASH_ID}"
    assert keys.processed_crash_key(CRASH_ID) == f"v1/processed_crash/{CRASH_ID}"
    assert keys.dump_key(CRASH_ID, "upload_file_minidump") == f"v1/dump/{CRASH_ID}"
    assert keys.dump_key(CRASH_ID, "memory_report") == f"v1/memory_report/{CRASH_ID}"
    name = "upload_file_minidump_browser"
    assert keys.dump_key(CRASH_ID, name) == f"v1/{name}/{CRASH_ID}"


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("20071025", dt.date(2007, 10, 25)),
        ("20240229", dt.date(2024, 2, 29)),
        ("20230229", None),
        ("00000000", None),
        ("2007102", None),
        ("200710251", None),
        ("2007102\n", None),
        ("２0071025", None),
        ("0bba929f", None),
        ("", None),
    ],
)
def test_a_directory_is_a_day_or_is_not(name: str, day: dt.date | None) -> None:
    assert crashid.parse_day_name(name) == day
    if day:
        assert crashid.day_name(day) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("0bb", True), ("fff", True), ("0b", False), ("0bbb", False), ("0BB", False), ("ggg", False)],
)
def test_a_directory_is_the_start_of_ids_or_is_not(name: str, expected: bool) -> None:
    assert layouts.is_entropy(name) is expected


def test_the_list_of_dumps_is_sorted_json_of_canonical_names() -> None:
    data = layouts.format_dump_names(["upload_file_minidump", "memory_report"])
    assert data == b'["memory_report", "upload_file_minidump"]'
    assert layouts.format_dump_names([]) == b"[]"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"[]", []),
        (b'["dump"]', ["upload_file_minidump"]),
        (b'["upload_file_minidump"]', ["upload_file_minidump"]),
        (b'[""]', ["upload_file_minidump"]),
        (b'["dump", "upload_file_minidump"]', ["upload_file_minidump"]),
        (b'["memory_report", "dump"]', ["memory_report", "upload_file_minidump"]),
    ],
)
def test_the_main_dump_may_go_by_either_name(data: bytes, names: list[str]) -> None:
    assert layouts.parse_dump_names(data) == names


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b'"dump"',
        b"[1]",
        b"[[]]",
        b'["../x"]',
        b'["raw_crash"]',
        b'["x\\n"]',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_list_of_dumps_that_is_none_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptCrash, match="dump_names"):
        layouts.parse_dump_names(data)
