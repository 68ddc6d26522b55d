# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Undated: the directories of a bucket whose keys have a crash id and no day in them.

They are listed from one crash to another, all at the same time, and a large one in several ranges.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, pairwise
from math import ceil
from threading import Lock
from typing import NamedTuple

from crashmover import crashid
from crashmover.crash import Kind
from crashmover.errors import StorageError
from crashmover.external.bucket.client import BucketClient, Listed
from crashmover.external.bucket.layouts import DUMP_NAMES, PROCESSED_CRASHES, BucketLayout
from crashmover.external.bucket.sizetable import SizeTable
from crashmover.pool import Pool

_FIRST = 3  # pages of a directory, by which its size is known or guessed
_RANGE = 8  # pages that are listed one after the other
_RANGES = 16  # of a directory, at most

Page = list[Listed]
"""With the names of objects, which as a rule are crash ids, in place of their keys."""

_Add = Callable[[SizeTable, Page], None]


class Undated:
    """The directories of lists of dumps, of dumps and of processed crashes.

    :param layout: of the bucket
    :param kind: `PROCESSED_CRASH`, where only the directory of processed crashes counts
    :param pool: lists them.  The first pages of each are on their way from now on
    """

    def __init__(self, client: BucketClient, layout: BucketLayout, kind: Kind, pool: Pool) -> None:
        self._client = client
        self._layout = layout
        self._pool = pool
        self._lock = Lock()
        self._left = 0  # pages that may still be listed
        self._begun = [self._begin(PROCESSED_CRASHES, SizeTable.add_processed)]
        self._dumps: Future[dict[str, Future[_Directory]]] | None = None
        if kind is Kind.RAW_CRASH:
            self._begun.append(self._begin(DUMP_NAMES, SizeTable.add_lists))
            self._dumps = pool.submit(self._begin_dumps)

    def fill(self, table: SizeTable, most: int) -> bool:
        """Take note of what there is of the crashes in a table.  Return False, with a part of that
        at most, where it would take more pages than `most`, or has taken as many.

        :raises StorageError: the directories cannot be listed
        """
        dumps = self._dumps.result() if self._dumps else {}
        directories = [begun.result() for begun in chain(self._begun, dumps.values())]
        low, high = min(table.rows), max(table.rows)
        if sum(each.pages_between(low, high) for each in directories) > most:
            return False
        for each in directories:
            for page in each.pages:
                each.add(table, page)
        self._left = most
        ranges = [part for each in directories for part in each.ranges(low, high)]
        listed = [self._pool.submit(self._list, table, part) for part in ranges]
        try:
            are_complete = [each.result() for each in listed]
        except StorageError:
            self.stop()
            wait(listed)
            raise
        return all(are_complete)

    def stop(self) -> None:
        """List no further page."""
        self._left = 0

    def _begin_dumps(self) -> "dict[str, Future[_Directory]]":
        """Begin with each directory of dumps; return them by the names of the dumps."""
        directories, _ = self._client.list_directory("v1")
        found = {self._layout.dump_name(directory): f"v1/{directory}" for directory in directories}
        return {
            name: self._begin(path, partial(_add_dumps, name))
            for name, path in found.items()
            if name is not None
        }

    def _begin(self, path: str, add: _Add) -> "Future[_Directory]":
        return self._pool.submit(self._first_pages, path, add)

    def _first_pages(self, path: str, add: _Add) -> "_Directory":
        return _Directory(path, add, list(islice(self._pages(path, "0"), _FIRST)))

    def _list(self, table: SizeTable, part: "_Range") -> bool:
        """List a range; return False where no more pages may be listed."""
        for page in self._pages(part.directory.path, part.after):
            within = page if page[-1][0] <= part.last else [x for x in page if x[0] <= part.last]
            with self._lock:
                part.directory.add(table, within)
                self._left -= 1
                if self._left < 0:
                    return False
            if page[-1][0] >= part.last:
                break
        return True

    def _pages(self, path: str, after: str) -> Iterator[Page]:
        """Yield what a directory has behind this name.

        :raises StorageError: not in its order, so that a range does not end where it seems to
        """
        last = after
        for page in self._client.list_objects(path, f"{path}/{after}"):
            named = [(key[len(path) + 1 :], size, checksum) for key, size, checksum in page]
            if any(one >= other for one, other in pairwise([last, *(each[0] for each in named)])):
                raise StorageError("the server lists its keys out of order", uri=self._client.uri)
            last = named[-1][0]
            yield named


@dataclass
class _Directory:
    """A directory with an object for each of many crashes.

    :param add: takes note of a page
    :param pages: its first pages; fewer than `_FIRST` are all
    """

    path: str
    add: _Add
    pages: list[Page]

    def pages_between(self, low: str, high: str) -> float:
        """Guess how many more pages there are between two crashes, by how far the first reach."""
        ids = [name for page in self.pages for name, _, _ in page if crashid.is_valid(name)]
        if len(self.pages) < _FIRST or not ids or ids[-1] >= high:
            return 0
        first, last = _number(ids[0]), _number(ids[-1])
        return (_number(high) - max(last, _number(low))) * len(self.pages) / max(1, last - first)

    def ranges(self, low: str, high: str) -> "list[_Range]":
        """Return what is to be listed of it to know all between two crashes: several ranges, where
        that may be many pages."""
        last = self.pages[-1][-1][0] if self.pages else ""
        if len(self.pages) < _FIRST or last >= high:
            return []
        count = min(_RANGES, max(1, ceil(self.pages_between(low, high) / _RANGE)))
        begin, end = _number(low if low > last else last), _number(high)
        bounds = [_id_at(begin + (end - begin) * n // count) for n in range(1, count)]
        starts, ends = [max(last, low[:-1]), *bounds], [*bounds, high]
        return [_Range(self, *each) for each in zip(starts, ends, strict=True)]


class _Range(NamedTuple):
    """What a directory has behind one name up to another, which is included."""

    directory: _Directory
    after: str
    last: str


def _add_dumps(name: str, table: SizeTable, page: Page) -> None:
    table.add_dumps(name, page)


def _number(crash_id: str) -> int:
    """Return the number that an id is in hex.  Ids are spread evenly over all that there are."""
    return int(crash_id.replace("-", ""), 16)


def _id_at(number: int) -> str:
    """Return the text of the id, of whatever day, that is this number."""
    digits = f"{number:032x}"
    steps = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(steps)
