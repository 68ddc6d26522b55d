# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The layout of the file system, bit for bit: where a crash lies, and what a file name says."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashmover.crash import MAIN_DUMP, Kind
from crashmover.errors import InvalidDumpName
from crashmover.external.fs.layouts import Layout

ID = "0bba929f-8721-460c-dead-a43c22071025"

OTHER_NAMES = Layout(
    name_branch_base="date",
    json_file_suffix=".raw",
    jsonz_file_suffix=".processed",
    dump_file_suffix=".mini",
    dump_field="memory_report",
)
JSON_DUMPS = Layout(json_file_suffix=".raw", dump_file_suffix=".json")
LAYOUTS = [Layout(), OTHER_NAMES, JSON_DUMPS]

quick = settings(deadline=None, max_examples=100)
dump_names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", fullmatch=True).filter(
    lambda name: name not in ("dump", "raw_crash", "dump_names", "processed_crash", "crash_report")
)


def with_digit(digit: str) -> str:
    return f"{ID[:-7]}{digit}{ID[-6:]}"


def paths(crash_id: str, layout: Layout) -> list[str]:
    return ["/".join(where) for where in layout.directories(crash_id)]


# Directories


def test_the_example_of_the_documentation_lies_where_it_says() -> None:
    assert paths(ID, Layout())[0] == "20071025/name/0b/ba"


@pytest.mark.parametrize(
    ("digit", "leaves"),
    [
        ("0", ["", "/0b/ba/92/9f"]),
        ("1", ["/0b"]),
        ("2", ["/0b/ba"]),
        ("3", ["/0b/ba/92"]),
        ("4", ["/0b/ba/92/9f"]),
        ("5", ["/0b/ba", "/0b/ba/92/9f/-8"]),
        ("6", ["/0b/ba", "/0b/ba/92/9f/-8/72"]),
        ("7", ["/0b/ba", "/0b/ba/92/9f/-8/72/1-"]),
        ("8", ["/0b/ba", "/0b/ba/92/9f/-8/72/1-/46"]),
        ("9", ["/0b/ba", "/0b/ba/92/9f/-8/72/1-/46/0c"]),
        *((digit, ["/0b/ba"]) for digit in "abcdef"),
    ],
)
def test_the_depth_digit_says_how_deep_a_crash_lies(digit: str, leaves: list[str]) -> None:
    crash_id = with_digit(digit)
    expected: list[str] = []
    for leaf in leaves:
        at_leaf = f"20071025/name{leaf}"
        expected += [at_leaf, f"{at_leaf}/{crash_id}"]
    assert paths(crash_id, Layout()) == expected


def test_digit_0_is_written_flat_and_read_flat_then_four_deep() -> None:
    flat, flat_by_id, deep, deep_by_id = paths(with_digit("0"), Layout())
    assert flat == "20071025/name"
    assert flat_by_id == f"20071025/name/{with_digit('0')}"
    assert deep == "20071025/name/0b/ba/92/9f"
    assert deep_by_id == f"20071025/name/0b/ba/92/9f/{with_digit('0')}"


@pytest.mark.parametrize("digit", "0123456789abcdef")
def test_the_older_form_has_one_more_directory_named_by_the_id(digit: str) -> None:
    crash_id = with_digit(digit)
    found = paths(crash_id, OTHER_NAMES)
    assert found[1::2] == [f"{where}/{crash_id}" for where in found[::2]]


@pytest.mark.parametrize(
    ("date", "day"), [("000101", "20000101"), ("240229", "20240229"), ("991231", "20991231")]
)
def test_the_day_of_the_id_is_the_day_of_the_directory(date: str, day: str) -> None:
    assert Layout().directories(f"{ID[:-6]}{date}")[0] == (day, "name", "0b", "ba")


def test_the_directory_below_the_day_may_have_another_name() -> None:
    assert paths(ID, OTHER_NAMES) == ["20071025/date/0b/ba", f"20071025/date/0b/ba/{ID}"]


# File names


@pytest.mark.parametrize(
    ("kind", "name", "usual", "other"),
    [
        (Kind.RAW_CRASH, "", f"{ID}.json", f"{ID}.raw"),
        (Kind.PROCESSED_CRASH, "", f"{ID}.jsonz", f"{ID}.processed"),
        (Kind.DUMP, MAIN_DUMP, f"{ID}.dump", f"{ID}.upload_file_minidump.mini"),
        (Kind.DUMP, "memory_report", f"{ID}.memory_report.dump", f"{ID}.mini"),
        (Kind.DUMP, "flash.1", f"{ID}.flash.1.dump", f"{ID}.flash.1.mini"),
        (Kind.DUMP, "json", f"{ID}.json.dump", f"{ID}.json.mini"),
    ],
)
def test_a_file_is_named_by_its_crash_and_its_part(
    kind: Kind, name: str, usual: str, other: str
) -> None:
    assert Layout().file_name(ID, kind, name) == usual
    assert OTHER_NAMES.file_name(ID, kind, name) == other


@quick
@given(st.sampled_from(LAYOUTS), dump_names)
def test_a_dump_is_told_by_its_file_name_and_so_is_its_name(layout: Layout, name: str) -> None:
    file_name = layout.file_name(ID, Kind.DUMP, name)
    assert layout.is_dump(file_name)
    assert layout.dump_name(file_name) == name
    assert file_name not in (
        layout.file_name(ID, Kind.RAW_CRASH),
        layout.file_name(ID, Kind.PROCESSED_CRASH),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_other_files_of_a_crash_are_no_dumps(layout: Layout) -> None:
    assert not layout.is_dump(layout.file_name(ID, Kind.RAW_CRASH))
    assert not layout.is_dump(layout.file_name(ID, Kind.PROCESSED_CRASH))


@pytest.mark.parametrize(
    "file_name", [ID, f"{ID}dump", f"{ID}.dumpx", f"{ID}.dump.tmp", f"{ID}x.dump", f"{ID}.dump\n"]
)
def test_foreign_files_beside_a_crash_are_no_dumps(file_name: str) -> None:
    assert not Layout().is_dump(file_name)


def test_a_dump_that_another_program_called_dump_is_the_main_one() -> None:
    assert Layout().dump_name(f"{ID}.dump.dump") == MAIN_DUMP


@pytest.mark.parametrize("name", ["", ".x", "a b", "raw_crash", "\u00e9", "a" * 101, "a\n"])
def test_a_file_with_a_name_that_no_dump_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidDumpName):
        Layout().dump_name(f"{ID}.{name}.dump")


# Options


def test_the_usual_names_are_those_of_todays_collectors() -> None:
    assert asdict(Layout()) == {
        "name_branch_base": "name",
        "json_file_suffix": ".json",
        "jsonz_file_suffix": ".jsonz",
        "dump_file_suffix": ".dump",
        "dump_field": "upload_file_minidump",
    }


@pytest.mark.parametrize("name", ["", "dump"])
def test_the_main_dump_may_be_called_by_any_of_its_names(name: str) -> None:
    assert Layout(dump_field=name) == Layout()


@pytest.mark.parametrize(
    "options",
    [
        {"name_branch_base": ""},
        {"name_branch_base": "."},
        {"name_branch_base": ".."},
        {"name_branch_base": ".hidden"},
        {"name_branch_base": "a/b"},
        {"name_branch_base": "/"},
        {"name_branch_base": "a\0"},
        *(
            {option: suffix}
            for option in ("json_file_suffix", "jsonz_file_suffix", "dump_file_suffix")
            for suffix in ("", "json", "./json", "../json", ".\0")
        ),
        {"json_file_suffix": ".jsonz"},
        {"json_file_suffix": ".dump"},
        {"dump_file_suffix": ".jsonz"},
        {"json_file_suffix": ".raw.dump"},
        {"jsonz_file_suffix": ".x.dump"},
        {"dump_field": "a/b"},
        {"dump_field": "raw_crash"},
    ],
    ids=ascii,
)
def test_names_that_would_lead_elsewhere_or_be_confused_are_refused(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ValueError):
        Layout(**options)
