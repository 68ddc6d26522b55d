# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which crashes: the days that people type, and files of crash ids."""

import datetime as dt
import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crashmover.errors import InvalidCrashID
from crashmover.idset import CrashIDs
from crashmover.selection import parse_day

TODAY = dt.date(2026, 11, 24)
IDS = [f"0bba929f-8721-460c-dead-a43{n}22071025" for n in range(3)]

quick = settings(deadline=None, max_examples=100)


# Days


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-20", dt.date(2026, 11, 20)),
        ("2024-02-29", dt.date(2024, 2, 29)),
        ("2027-01-01", dt.date(2027, 1, 1)),
        ("today", dt.date(2026, 11, 24)),
        ("0d", dt.date(2026, 11, 24)),
        ("yesterday", dt.date(2026, 11, 23)),
        ("1d", dt.date(2026, 11, 23)),
        ("7d", dt.date(2026, 11, 17)),
        ("007d", dt.date(2026, 11, 17)),
        ("365d", dt.date(2025, 11, 24)),
        (" Today\n", dt.date(2026, 11, 24)),
        ("YESTERDAY", dt.date(2026, 11, 23)),
        ("7D", dt.date(2026, 11, 17)),
    ],
)
def test_a_day_is_a_date_or_so_many_days_ago(text: str, day: dt.date) -> None:
    assert parse_day(text, TODAY) == day


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-02-30",
        "2026-13-01",
        "2026-11-2",
        "26-11-2026",
        "20261120",
        "2026/11/20",
        "2026-W47-5",
        "2026-11-20T00:00",
        "0000-00-00",
        "d",
        "-1d",
        "1.5d",
        "7",
        "7 d",
        "7days",
        "1000000d",
        "\u0667d",
        "\uff12026-11-20",
    ],
    ids=ascii,
)
def test_anything_else_is_no_day(text: str) -> None:
    with pytest.raises(ValueError):
        parse_day(text, TODAY)


@pytest.mark.usefixtures("far_zone")
def test_today_is_utcs_today() -> None:
    before = dt.datetime.now(dt.UTC).date()
    today = parse_day("today")
    assert before <= today <= dt.datetime.now(dt.UTC).date()


@quick
@given(st.text() | st.from_regex(r"[0-9]{1,5}d|[0-9]{4}-[0-9]{2}-[0-9]{2}"))
@example("99999d")
def test_any_text_is_a_day_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(parse_day(text, TODAY), dt.date)


# Files of crash ids


def ids_in(text: str) -> list[str]:
    """The ids in a file of this text."""
    with CrashIDs() as ids:
        ids.add_lines(io.StringIO(text, newline=""), "ids.txt")
        crash_ids = list(ids)
        assert len(ids) == len(crash_ids)
    return crash_ids


@pytest.mark.parametrize(
    "text",
    [
        "{0}\n{1}\n{2}\n",
        "{0}\n{1}\n{2}",
        "{0}\r\n{1}\r\n{2}\r\n",
        "\n\n{0}\n  \n\t\n{1}\n\r\n{2}\n\n",
        "# first\n{0}\n{1}\n#{0}\n  # last\n{2}\n#",
        "{0} # why\n{1}\t#why\n{2}   #\n",
        "  {0}\n\t{1}  \n {2}\t\r\n",
        "bp-{0}\nhttps://crash-stats.mozilla.org/report/index/{1}#tab-details\n{2} # x\n",
        "https://localhost/{0}?a=1\nhttps://localhost/{1}/ # why\n{2}\n",
        "\ufeff{0}\n{1}\n{2}\n",
        "\ufeff# made by an editor\r\n{0}\r\n{1}\r\n{2}\r\n",
    ],
    ids=ascii,
)
def test_ids_are_one_a_line_among_blank_lines_and_comments(text: str) -> None:
    assert ids_in(text.format(*IDS)) == IDS


def test_capitals_in_a_file_are_folded() -> None:
    assert ids_in("\n".join(crash_id.upper() for crash_id in IDS)) == IDS


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n\n", "\r\n"], ids=ascii)
def test_a_file_may_have_no_ids(text: str) -> None:
    assert ids_in(text) == []


def test_an_id_that_is_there_twice_comes_once_where_it_was_first() -> None:
    assert ids_in("{1}\n{0}\nbp-{1}\n{2}\n{0}\n".format(*IDS)) == [IDS[1], IDS[0], IDS[2]]


def test_ids_come_in_the_order_in_which_they_were_added_wherever_they_are_from() -> None:
    with CrashIDs() as ids:
        ids.add(IDS[2])
        ids.add_lines([IDS[1], IDS[2]], "one.txt")
        ids.add_lines([IDS[0]], "other.txt")
        ids.add(IDS[1])
        assert list(ids) == [IDS[2], IDS[1], IDS[0]]
        assert len(ids) == 3


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "{0} {1}",
        "{0},{1}",
        "{0}#comment",
        "{0}\0",
        "\ufeff{0}",
        "\ufffd",
        "../{0}",
        "-",
    ],
    ids=ascii,
)
def test_a_bad_line_is_refused_by_name_and_number(bad: str) -> None:
    bad = bad.format(*IDS)
    with pytest.raises(InvalidCrashID) as caught:
        ids_in(f"# comment\n\n{IDS[0]}\n{bad}\n{IDS[1]}\n")
    text = str(caught.value)
    assert "ids.txt, line 4" in text
    assert ascii(bad)[1:20] in ascii(text).replace("\\\\", "\\")
    assert text.isprintable()


@pytest.mark.parametrize(("number", "text"), [(1, "x\n{0}\n"), (3, "{0}\n{1}\nx"), (2, "{0}\r\nx")])
def test_lines_are_numbered_from_one(number: int, text: str) -> None:
    with pytest.raises(InvalidCrashID, match=f"ids.txt, line {number}"):
        ids_in(text.format(*IDS))


def test_a_bad_date_in_a_file_is_said_to_be_one() -> None:
    with pytest.raises(InvalidCrashID, match="date") as caught:
        ids_in(f"{IDS[0][:-6]}260230\n")
    assert "ids.txt, line 1" in str(caught.value)


def test_a_long_line_is_not_shown_at_length() -> None:
    with pytest.raises(InvalidCrashID) as caught:
        ids_in("x" * 100_000)
    assert len(str(caught.value)) < 200


def test_a_failing_read_is_raised_as_it_is() -> None:
    def lines() -> Iterator[str]:
        yield IDS[0]
        raise OSError(5, "Input/output error")

    with CrashIDs() as ids, pytest.raises(OSError, match="Input/output error"):
        ids.add_lines(lines(), "ids.txt")


def test_the_ids_of_a_file_can_be_gone_through_again() -> None:
    with CrashIDs() as ids:
        ids.add_lines(IDS, "ids.txt")
        assert list(ids) == list(ids) == IDS


def test_the_file_may_go_once_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(IDS), "utf-8")
    with CrashIDs() as ids:
        with path.open(encoding="utf-8") as lines:
            ids.add_lines(lines, str(path))
        path.unlink()
        assert list(ids) == IDS


@quick
@given(st.lists(st.sampled_from([*IDS, "", "# x", "bp-" + IDS[0], "  ", "x", "\x1c"])))
def test_a_file_gives_each_id_it_has_once_or_none_at_all(lines: list[str]) -> None:
    expected = [IDS[0] if "bp-" in line else line for line in lines if line.strip("# x\x1c")]
    try:
        assert ids_in("\n".join(lines)) == list(dict.fromkeys(expected))
    except InvalidCrashID:
        assert "x" in lines


def test_ids_are_given_by_day_too() -> None:
    early = IDS[0][:-6] + "071024"
    with CrashIDs() as ids:
        ids.add(*IDS, early, IDS[0])
        assert (list(ids), list(ids.by_day()), len(ids)) == ([*IDS, early], [early, *IDS], 4)
