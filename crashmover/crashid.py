# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crash ids: what one is, how people type it, what it says of itself, and their order.

A crash id is 36 characters of lower-case hex, ``8-4-4-4-12``::

    0bba929f-8721-460c-dead-a43c22071025
                                 ^ the depth digit: how deep file systems file it
                                  ^^^^^^ yymmdd: the day the crash was collected

Source of the rule: Mozilla Socorro, ``socorro/lib/libooid.py``.
"""

import datetime as dt
import heapq
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby

from crashmover.errors import InvalidCrashID

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{6}[0-9]{6}"
_STRICT = re.compile(_ID)
_TYPED = re.compile(rf"(?:bp-)?({_ID})")
_URL = re.compile(rf"https?://\S*/(?:bp-)?({_ID})(?:[/?#]\S*)?")
_DAY_NAME = re.compile(r"[0-9]{8}", re.ASCII)

DEFAULT_DEPTH = 2


def validate(crash_id: str) -> str:
    """Return `crash_id` unchanged if it is one, to the letter.

    The check for what machines send: queue messages, file names, JSON.

    :raises InvalidCrashID: it is not 36 characters of the right shape, or its
        last six are not a day of the calendar
    """
    if not isinstance(crash_id, str):
        raise InvalidCrashID(crash_id)
    return _validate(crash_id)


@lru_cache(maxsize=1024)  # a crash is asked for at every step of its way
def _validate(crash_id: str) -> str:
    if not _STRICT.fullmatch(crash_id):
        raise InvalidCrashID(crash_id)
    try:
        date_of(crash_id)
    except ValueError:
        raise InvalidCrashID(crash_id, "its last six digits are no date (yymmdd)") from None
    return crash_id


def is_valid(crash_id: str) -> bool:
    """Return True if `validate` accepts it."""
    try:
        validate(crash_id)
    except InvalidCrashID:
        return False
    return True


def parse(text: str) -> str:
    """Return the crash id in what a person typed or pasted.

    Strips blanks, folds upper case, and accepts ``bp-ID`` and the URL of a report
    (``https://crash-stats.mozilla.org/report/index/ID``).

    :raises InvalidCrashID: there is no crash id in it
    """
    if is_valid(text):  # like nearly every line of a list
        return text
    typed = text.strip().lower() if text.strip().isascii() else ""
    match = _TYPED.fullmatch(typed) or _URL.fullmatch(typed)
    if match is None:
        raise InvalidCrashID(text)
    if len(set(_STRICT.findall(typed))) > 1:
        raise InvalidCrashID(text, "there are several in it")
    return validate(match.group(1))


def create(date: dt.date | None = None, depth: int = DEFAULT_DEPTH) -> str:
    """Return a new, random crash id.

    :param date: the day it is of; today in UTC when not given
    :param depth: how many directories deep file systems file it, 0 to 4
    :raises ValueError: the day is of another century, or `depth` is invalid
    """
    if not 0 <= depth <= 4:
        raise ValueError(f"depth is 0 to 4, not {depth}")
    if date and date.year // 100 != 20:
        raise ValueError(f"a crash id cannot say the year {date.year}")
    import uuid  # which takes longer to import than all else here

    date = date or dt.datetime.now(dt.UTC).date()
    return f"{str(uuid.uuid4())[:-7]}{depth}{date:%y%m%d}"


def date_of(crash_id: str) -> dt.date:
    """Return the day in a crash id that is valid."""
    return _day(crash_id[-6:])


@lru_cache(maxsize=1024)
def _day(digits: str) -> dt.date:
    return dt.date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))


def depth_digit(crash_id: str) -> str:
    """Return the digit (or letter) that says how deep file systems file the crash."""
    return crash_id[-7]


def sort_key(crash_id: str) -> str:
    """Order crash ids by day, then by id: the order in which every store lists them."""
    return crash_id[-6:] + crash_id


def merged(*listings: Iterable[str]) -> Iterator[str]:
    """Yield the ids of some listings, in order, each once.

    :param listings: each in the order of `sort_key`
    """
    for crash_id, _ in groupby(heapq.merge(*listings, key=sort_key)):
        yield crash_id


# Stores name the directory of a day YYYYMMDD.


def day_name(day: dt.date) -> str:
    """Return the name of a day's directory."""
    return f"{day.year:04}{day:%m%d}"


def parse_day_name(name: str) -> dt.date | None:
    """Return the day whose directory has this name; None if it is the name of no day."""
    if not _DAY_NAME.fullmatch(name):
        return None
    try:
        return dt.date(int(name[:4]), int(name[4:6]), int(name[6:]))
    except ValueError:
        return None


def is_impossible_day(name: str) -> bool:
    """Return True if a name has the digits of a day that no calendar has."""
    return _DAY_NAME.fullmatch(name) is not None and parse_day_name(name) is None
