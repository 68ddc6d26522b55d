# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crash ids: what is one, how people type it, and what it says of itself."""

import datetime as dt
from collections.abc import Callable
from itertools import chain, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crashmover import crashid
from crashmover.errors import InvalidCrashID

ID = "0bba929f-8721-460c-dead-a43c22071025"
OTHER_ID = "1bba929f-8721-460c-dead-a43c22071025"
REPORT = "https://crash-stats.mozilla.org/report/index/"

quick = settings(deadline=None, max_examples=100)
days = st.dates(dt.date(2000, 1, 1), dt.date(2099, 12, 31))


@st.composite
def crash_ids(draw: st.DrawFn) -> str:
    """Any crash id, whatever its depth digit."""
    digits = draw(st.text("0123456789abcdef", min_size=26, max_size=26))
    digits += f"{draw(days):%y%m%d}"
    cuts = (0, 8, 12, 16, 20, 32)
    return "-".join(digits[a:b] for a, b in pairwise(cuts))


@st.composite
def nearly_crash_ids(draw: st.DrawFn) -> str:
    """A crash id with a few characters replaced."""
    text = list(draw(crash_ids()))
    for _ in range(draw(st.integers(1, 3))):
        text[draw(st.integers(0, 35))] = draw(st.text(max_size=2))
    return "".join(text)


texts = st.one_of(st.text(), nearly_crash_ids(), st.builds("{}{}".format, crash_ids(), st.text()))

NO_IDS = {
    "empty": "",
    "too short": ID[:-1],
    "too long": ID + "5",
    "no dashes": ID.replace("-", ""),
    "a dash elsewhere": "0bba929-f8721-460c-dead-a43c22071025",
    "no hex": "g" + ID[1:],
    "two ids": f"{ID} {OTHER_ID}",
    "two ids with a comma": f"{ID},{OTHER_ID}",
    "two ids without anything between": ID + OTHER_ID,
    "full-width digit": ID[:-1] + "\uff15",
    "Arabic digit": ID[:-1] + "\u0665",
    "superscript digit": ID[:-1] + "\u00b2",
    "Cyrillic a": ID.replace("a", "\u0430"),
    "non-breaking hyphens": ID.replace("-", "\u2011"),
    "zero-width space inside": ID[:8] + "\u200b" + ID[8:],
    "newline inside": ID[:8] + "\n" + ID[8:],
    "null at the end": ID + "\0",
    "underscore in the date": ID[:-2] + "_5",
    "blank in the date": ID[:-2] + " 5",
    "sign in the date": ID[:-2] + "+5",
    "hex letter in the date": ID[:-1] + "a",
    "URL without one": REPORT,
    "the id as a host": f"https://{ID}",
    "path of a file": f"/var/crashes/{ID}",
    "prefix twice": f"bp-bp-{ID}",
    "another prefix": f"xx-{ID}",
}

IMPOSSIBLE_DATES = ["260230", "250229", "000000", "260001", "261301", "260100", "260132", "999999"]


@pytest.mark.parametrize("depth_digit", "0123456789abcdef")
def test_an_id_may_have_any_hex_digit_as_depth_digit(depth_digit: str) -> None:
    crash_id = f"{ID[:-7]}{depth_digit}{ID[-6:]}"
    assert crashid.validate(crash_id) == crash_id
    assert crashid.depth_digit(crash_id) == depth_digit


@pytest.mark.parametrize("text", NO_IDS.values(), ids=NO_IDS)
def test_what_is_no_id_is_neither_valid_nor_parsed(text: str) -> None:
    assert not crashid.is_valid(text)
    with pytest.raises(InvalidCrashID, match=r"\Anot a crash id: .*\Z"):
        crashid.validate(text)
    with pytest.raises(InvalidCrashID, match=r"\Anot a crash id: .*\Z"):
        crashid.parse(text)


@pytest.mark.parametrize("date", IMPOSSIBLE_DATES)
@pytest.mark.parametrize("check", [crashid.validate, crashid.parse])
def test_a_date_that_no_calendar_has_is_refused_and_said_to_be_so(
    check: Callable[[str], str], date: str
) -> None:
    with pytest.raises(InvalidCrashID, match=f"{date}.*date"):
        check(ID[:-6] + date)


@pytest.mark.parametrize("date", ["240229", "000229", "000101", "991231"])
def test_leap_days_and_the_ends_of_the_century_are_dates(date: str) -> None:
    assert crashid.is_valid(ID[:-6] + date)


@pytest.mark.parametrize("value", [None, 7, ID.encode(), [ID]])
def test_what_is_no_text_is_no_id(value: str) -> None:
    assert not crashid.is_valid(value)
    with pytest.raises(InvalidCrashID):
        crashid.validate(value)


@pytest.mark.parametrize(
    "text",
    [ID.upper(), f"{ID}\n", f"\n{ID}", f"{ID}\r", f" {ID}", f"bp-{ID}", f"{REPORT}{ID}"],
    ids=ascii,
)
def test_machines_must_send_an_id_to_the_letter(text: str) -> None:
    with pytest.raises(InvalidCrashID):
        crashid.validate(text)


@pytest.mark.parametrize(
    "text",
    [
        ID,
        ID.upper(),
        f"  {ID}\t",
        f"{ID}\r\n",
        f"\u00a0{ID}\u00a0",
        f"bp-{ID}",
        f"BP-{ID.upper()}",
        f"{REPORT}{ID}",
        f"{REPORT.upper()}{ID.upper()}",
        f"{REPORT}bp-{ID}",
        f"{REPORT}{ID}/",
        f"{REPORT}{ID}?page=2",
        f"{REPORT}{ID}#tab-bugzilla",
        f"{REPORT}{ID}/?page=2&x=%20#allthreads",
        f"http://localhost:8000/report/index/{ID}",
        f"https://localhost/{ID}",
    ],
    ids=ascii,
)
def test_people_may_type_an_id_with_blanks_in_capitals_prefixed_or_as_a_report_url(
    text: str,
) -> None:
    assert crashid.parse(text) == ID


@pytest.mark.parametrize("end", ["/", "?page=2", "#tab"])
def test_only_a_url_goes_on_after_the_id(end: str) -> None:
    with pytest.raises(InvalidCrashID):
        crashid.parse(ID + end)


@pytest.mark.parametrize("between", ["/", "?next=/", "#/", "/?next=https://localhost/"])
def test_a_url_with_two_ids_is_refused_for_nobody_knows_which_is_meant(between: str) -> None:
    with pytest.raises(InvalidCrashID):
        crashid.parse(f"{REPORT}{ID}{between}{OTHER_ID}")


@quick
@given(crash_ids())
def test_every_id_is_valid_and_parsed_as_itself(crash_id: str) -> None:
    assert crashid.validate(crash_id) == crash_id
    assert crashid.parse(crash_id) == crash_id


@quick
@given(
    crash_ids(),
    st.sampled_from(["", "bp-", REPORT, f"{REPORT}bp-"]),
    st.booleans(),
    st.text(" \t\r\n\v\f", max_size=3),
)
def test_an_id_is_found_again_in_whatever_people_make_of_it(
    crash_id: str, prefix: str, capitals: bool, blanks: str
) -> None:
    typed = prefix + crash_id
    assert crashid.parse(blanks + (typed.upper() if capitals else typed) + blanks) == crash_id


@quick
@given(texts)
@example(ID + "\n")
@example("\u0130" * 36)  # a capital whose lower case is two characters
def test_any_text_is_an_id_or_is_refused_in_one_short_line(text: str) -> None:
    try:
        assert crashid.is_valid(crashid.parse(text))
    except InvalidCrashID as error:
        assert str(error).isprintable()
        assert len(str(error)) < 200


@quick
@given(texts)
def test_whoever_is_valid_is_36_ascii_characters_with_a_date(text: str) -> None:
    if crashid.is_valid(text):
        assert len(text) == 36 and text.isascii()
        assert f"{crashid.date_of(text):%y%m%d}" == text[-6:]


def test_a_bad_id_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="not a crash id: 'nonsense'"):
        crashid.parse("nonsense")


def test_the_parts_of_an_id_are_as_documented() -> None:
    assert crashid.date_of(ID) == dt.date(2007, 10, 25)
    assert crashid.depth_digit(ID) == "2"


@quick
@given(days, st.integers(0, 4))
def test_a_new_id_says_the_day_and_the_depth_it_was_made_with(day: dt.date, depth: int) -> None:
    crash_id = crashid.create(day, depth)
    assert crashid.validate(crash_id) == crash_id
    assert crashid.date_of(crash_id) == day
    assert crashid.depth_digit(crash_id) == str(depth)


@pytest.mark.usefixtures("far_zone")
def test_a_new_id_is_of_today_in_utc_two_deep_and_like_no_other() -> None:
    before = dt.datetime.now(dt.UTC).date()
    crash_ids = {crashid.create() for _ in range(100)}
    after = dt.datetime.now(dt.UTC).date()
    assert len(crash_ids) == 100
    assert {crashid.date_of(crash_id) for crash_id in crash_ids} <= {before, after}
    assert {crashid.depth_digit(crash_id) for crash_id in crash_ids} == {"2"}


@pytest.mark.parametrize("depth", [-1, 5, 10])
def test_a_depth_that_no_digit_stands_for_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth is 0 to 4, not {depth}"):
        crashid.create(depth=depth)


@pytest.mark.parametrize("day", [dt.date(1999, 12, 31), dt.date(2100, 1, 1)])
def test_a_day_of_another_century_is_refused_for_an_id_cannot_say_it(day: dt.date) -> None:
    with pytest.raises(ValueError, match=f"cannot say the year {day.year}"):
        crashid.create(day)


@quick
@given(st.lists(crash_ids()))
def test_ids_are_ordered_by_day_and_then_by_id(crash_ids: list[str]) -> None:
    in_order = sorted(crash_ids, key=crashid.sort_key)
    assert in_order == sorted(crash_ids, key=lambda one: (crashid.date_of(one), one))


@quick
@given(st.lists(st.lists(crash_ids())))
def test_listings_are_merged_in_order_each_id_once(listings: list[list[str]]) -> None:
    in_order = [sorted(each, key=crashid.sort_key) for each in listings]
    merged = list(crashid.merged(*in_order))
    assert merged == sorted(set(chain(*listings)), key=crashid.sort_key)


# The directories of days


@quick
@given(st.dates())
def test_a_directory_named_by_a_day_gives_it(day: dt.date) -> None:
    name = f"{day.year:04}{day:%m%d}"
    assert (crashid.day_name(day), crashid.parse_day_name(name)) == (name, day)
    assert not crashid.is_impossible_day(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "name",
        "2007102",
        "200710255",
        "20070230",
        "20071301",
        "00000101",
        "20071025\n",
        "2007-10-25",
        "+2007102",
        "2007102\u0665",
        "\uff12\uff10\uff10\uff17\uff11\uff10\uff12\uff15",
    ],
    ids=ascii,
)
def test_a_directory_named_otherwise_is_no_day(name: str) -> None:
    assert crashid.parse_day_name(name) is None
    assert crashid.is_impossible_day(name) == (len(name) == 8 and name.isascii() and name.isdigit())
