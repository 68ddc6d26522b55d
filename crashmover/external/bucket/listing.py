# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Catalog: which crashes a bucket holds, from listings, in the order of days and ids."""

import datetime as dt
import heapq
from collections.abc import Iterable, Iterator, Set
from functools import partial
from itertools import chain, islice
from posixpath import basename
from threading import Lock
from time import monotonic
from typing import NamedTuple

from crashmover import crashid
from crashmover.errors import StorageError
from crashmover.external.bucket import layouts
from crashmover.external.bucket.ahead import begun_ahead
from crashmover.external.bucket.client import BucketClient, Pages
from crashmover.external.bucket.layouts import OLD_RAW_CRASHES, RAW_CRASHES, BucketLayout
from crashmover.external.passed_over import PassedOver
from crashmover.idset import CrashIDs
from crashmover.pool import Pool

_PAGE = 1000
_LISTINGS_AT_ONCE = 16
_MOMENT = 60.0  # seconds for which a listing is believed
_SPANS = 16  # pages that are remembered


class MissingCache:
    """Where listings have just found that there is no crash: what need not be asked again."""

    def __init__(self) -> None:
        self._days: _Days | None = None
        self._spans: tuple[_Span, ...] = ()  # never changed: another thread may read it
        self._asked: tuple[set[str], set[str]] = (set(), set())  # lately, and before
        self._begun = monotonic()
        self._lock = Lock()

    def add_days(self, since: dt.date, until: dt.date, found: set[dt.date]) -> None:
        """Take note that of these days only those that were found have crashes."""
        self._days = _Days(monotonic(), since, until, frozenset(found))

    def add_span(
        self, when: float, day: dt.date, after: str, last: str | None, found: Iterable[str]
    ) -> None:
        """Take note of the names behind one name up to another, or of a day's last ones.

        :param when: the monotonic time before they were listed
        """
        span = _Span(when, day, after, last, frozenset(found))
        self._spans = (*self._spans[1 - _SPANS :], span)

    def take(self, crash_id: str) -> bool:
        """Return True if the crash was not there a moment ago.  True only once for each: the
        caller is going to save it."""
        now = monotonic()
        with self._lock:
            if now > self._begun + _MOMENT:
                self._asked, self._begun = (set(), self._asked[0]), now
            lately, before = self._asked
            if crash_id in lately or crash_id in before:
                return False
            lately.add(crash_id)
        return self._has(crash_id, now - _MOMENT)

    def _has(self, crash_id: str, since: float) -> bool:
        day, days = crashid.date_of(crash_id), self._days
        if days and days.when > since and days.since <= day <= days.until and day not in days.found:
            return True
        return any(span.when > since and span.lacks(day, crash_id) for span in self._spans)


class _Days(NamedTuple):
    when: float
    since: dt.date
    until: dt.date
    found: frozenset[dt.date]


class _Span(NamedTuple):
    when: float
    day: dt.date
    after: str
    last: str | None
    found: frozenset[str]

    def lacks(self, day: dt.date, crash_id: str) -> bool:
        """Return True if the crash would be here, and is not."""
        is_within = self.after < crash_id and (self.last is None or crash_id <= self.last)
        return self.day == day and is_within and crash_id not in self.found


class _DayListing(NamedTuple):
    """A listing of a day's directory that has begun."""

    place: str
    day: dt.date
    when: float
    pages: Pages


class Catalog:
    """The crashes of some days.

    :param layout: of the bucket
    :param since: the first day
    :param until: the last day
    :param missing: is told what is not there
    :param sizes: gets the bytes of each raw crash that is listed where it is written, by its id;
        the caller takes them out
    """

    def __init__(
        self,
        client: BucketClient,
        layout: BucketLayout,
        since: dt.date,
        until: dt.date,
        missing: MissingCache,
        sizes: dict[str, int] | None = None,
    ) -> None:
        self.passed_over = PassedOver()
        """What looks like a crash, and was not yielded."""
        self._client = client
        self._layout = layout
        self._missing = missing
        self._sizes = sizes
        self._since = since
        self._until = until

    def raw_crashes(self) -> Iterator[str]:
        """Yield the ids of those that have a raw crash, at any of its keys, each once.

        What lies in directories of days is listed lazily, day by day; what lies elsewhere,
        as in old buckets, is listed first and waits on disk.
        """
        with CrashIDs() as others:
            if self._layout.reads_older:
                with self._client.rounds() as begin:
                    undated = begin(partial(self._list_undated, others))
                    old = begin(partial(self._client.list_directory, OLD_RAW_CRASHES))
                    days, (directories, _) = undated(), old()
                old_days = self._days(directories)
                self._list_by_start(filter(layouts.is_entropy, directories), others)
            else:
                days, old_days = self._days(self._client.list_directory(RAW_CRASHES)[0]), set()
            self._missing.add_days(self._since, self._until, days | old_days)
            yield from crashid.merged(self._dated(days, old_days), others.by_day())

    def processed_crashes(self) -> Iterator[str]:
        """Yield the ids of those that have a processed crash.

        Their keys have no day in them: all are listed, however few days are asked for.
        """
        with CrashIDs() as ids:
            for page in self._pages(layouts.PROCESSED_CRASHES):
                ids.add(*self._of_range(name for name, _, _ in page))
            yield from ids.by_day()

    def _pages(self, directory: str) -> Pages:
        """Yield what is in a directory, page by page, with names in place of keys, from the first
        that may be a crash id: before that are keys that stand for the directory itself, and
        such as the client cannot read."""
        for page in self._client.list_objects(directory, f"{directory}/0"):
            yield [(key[len(directory) + 1 :], size, checksum) for key, size, checksum in page]

    # In directories of days

    def _days(self, directories: Iterable[str]) -> set[dt.date]:
        names = list(directories)
        self._note_impossible(names)
        days = filter(None, map(crashid.parse_day_name, names))
        return {day for day in days if self._since <= day <= self._until}

    def _note_impossible(self, directories: Iterable[str]) -> None:
        """Count the directories of days that no calendar has."""
        first, last = crashid.day_name(self._since), crashid.day_name(self._until)
        for name in directories:
            if crashid.is_impossible_day(name) and first.zfill(8) <= name <= last:
                self.passed_over.note(name, "", "a day that no calendar has")

    def _dated(self, days: Set[dt.date], old_days: Set[dt.date]) -> Iterator[str]:
        """Yield the ids of what lies in directories of days, day by day."""
        places = ((RAW_CRASHES, days), (OLD_RAW_CRASHES, old_days))
        found = {
            day: [(place, day) for place, there in places if day in there]
            for day in sorted(days | old_days)
        }
        begun = begun_ahead(self._begin, [*chain.from_iterable(found.values())])
        for of_day in found.values():
            listings = islice(begun, len(of_day))
            yield from heapq.merge(*map(self._of_directory, listings))

    def _begin(self, where: tuple[str, dt.date]) -> "_DayListing":
        place, day = where
        when, pages = monotonic(), self._pages(f"{place}/{crashid.day_name(day)}")
        first = list(islice(pages, 1))
        return _DayListing(place, day, when, chain(first, pages))

    def _of_directory(self, listing: "_DayListing") -> Iterator[str]:
        place, day, when, pages = listing
        last, seen = "", when
        is_written = place == RAW_CRASHES  # what is saved is saved here
        for page in pages:
            names = [name for name, _, _ in page]
            if is_written:
                if self._sizes is not None:
                    self._sizes.update((name, size) for name, size, _ in page)
                self._missing.add_span(when, day, last, names[-1], names)
            for name in names:
                if name < last:  # then neither merging nor going on after a page is possible
                    reason = "the server lists its keys out of order: name the crash ids instead"
                    raise StorageError(reason, uri=self._client.uri)
                last = name
                if crashid.is_valid(name) and crashid.date_of(name) == day:
                    yield name
                else:
                    self.passed_over.note_id(name, f"{place}/{crashid.day_name(day)}")
            seen, when = when, monotonic()  # before this page was asked for, and the next one
        if is_written:
            self._missing.add_span(seen, day, last, None, ())

    # Elsewhere

    def _list_undated(self, ids: CrashIDs) -> set[dt.date]:
        """Add the crashes beside the directories of days; return these days.

        A bucket that has any such crash has some past all days: one look there tells whether
        one listing of all that is beside the directories is short.
        """
        pages = self._client.list_keys(RAW_CRASHES, layouts.PAST_ALL_DAYS, surely=False)
        page = next(pages, [])
        if len(page) >= _PAGE:
            return self._days(self._walk(ids))
        directories, names = self._client.list_directory(RAW_CRASHES)
        ids.add(*self._of_range(names))
        return self._days(directories)

    def _walk(self, ids: CrashIDs) -> list[str]:
        """As `BucketClient.list_directory`, a page at a time, however many there are."""
        directories: list[str] = []
        after: str | None = ""
        while after is not None:
            pages = self._client.list_keys(RAW_CRASHES, after)
            after = None
            for page in pages:
                names = [key[len(RAW_CRASHES) + 1 :] for key in page]
                below = next((name for name in names if "/" in name), None)
                ids.add(*self._of_range(names[: names.index(below)] if below else names))
                if below:
                    directories.append(below.partition("/")[0])
                    # A key that is behind every key in the directory: 0 comes after the slash.
                    after = f"{RAW_CRASHES}/{directories[-1]}0"
                    break
        return directories

    def _list_by_start(self, starts: Iterable[str], ids: CrashIDs) -> None:
        """Add the crashes that lie in directories by the start of their ids."""
        with Pool(_LISTINGS_AT_ONCE, "list") as pool:
            for found in pool.map(self._of_start, starts):
                ids.add(*found)

    def _of_start(self, start: str) -> list[str]:
        directory = f"{OLD_RAW_CRASHES}/{start}"
        last_day = crashid.day_name(self._until)
        found: list[str] = []
        for page in self._client.list_keys(
            directory, f"{directory}/{crashid.day_name(self._since)}"
        ):
            there = set(page)
            names = self._of_range(map(basename, page))
            found += [name for name in names if self._layout.raw_crash_keys(name)[1] in there]
            if page[-1].split("/")[-2] > last_day:
                break
        return found

    def _of_range(self, names: Iterable[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            if not crashid.is_valid(name):
                self.passed_over.note_id(name, "")
            elif self._since <= crashid.date_of(name) <= self._until:
                found.append(name)
        return found
