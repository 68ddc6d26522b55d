# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What lies in a directory, by crash id, and remembered where that is safe.

Finding a crash's dumps means listing its directory, which it may share with a hundred
thousand others; to list that anew for each of them would take hours.
"""

import os
import re
import struct
import time
from collections import OrderedDict, defaultdict
from itertools import islice
from threading import Lock

from crashmover.external.fs.layout import ID_LENGTH, Where

_FEW = 64  # files; a directory that has no more is listed again in no time
_KEPT = 16  # directories
_KEPT_BYTES = 16_000_000  # of them, together; one directory may take more
_USEFUL_FOR = 1000  # further crashes: who goes from day to day does not come back

# A file's times come from a clock that ticks coarsely, on a server perhaps: a listing is
# trusted only for crashes that had been there for a while when it was made.
SETTLED_NS = 2_000_000_000

_FILE = struct.Struct("=16sIQ")  # the id without its hyphens, the suffix's number, the inode
_ID = re.compile("[0-9a-f]{8}" + "-[0-9a-f]{4}" * 3 + "-[0-9a-f]{12}")
_SUFFIX = 200  # bytes that a suffix takes: a few, or a name that everybody makes up anew
_BUCKET = 4  # the byte of a packed id that is not among those of its directory

Generation = tuple[int, int]
"""The inode and change time of a raw crash's file: another for every save."""


def generation(status: os.stat_result) -> Generation:
    """What tells one saved state of a crash from the next."""
    return status.st_ino, status.st_ctime_ns


def state_of(status: os.stat_result) -> tuple[int, ...]:
    """What tells a file from any other of its name: also from one in another directory that has
    been put in the place of its own."""
    return status.st_dev, *generation(status)


class Listing:
    """The files in an open directory, but for names that do not begin with what has the shape of
    a crash id: these are nobody's.

    As there may be a million files, and several processes that each list them, they are kept
    as 28 bytes each, to be searched: `_FILE`, in one bucket for the ids that have the same two
    digits somewhere.
    """

    def __init__(self, dir_fd: int) -> None:
        self.file_count = 0
        self._taken_ns = time.time_ns()
        self._number_of: dict[str, int] = {}  # a suffix of file names
        self._buckets: defaultdict[int, bytearray] = defaultdict(bytearray)
        with os.scandir(dir_fd) as entries:
            for entry in entries:
                name = entry.name
                if len(name) <= ID_LENGTH or entry.is_dir(follow_symlinks=False):
                    continue
                if packed := _packed(name):
                    number = self._number_of.setdefault(name[ID_LENGTH:], len(self._number_of))
                    self._buckets[packed[_BUCKET]] += _FILE.pack(packed, number, entry.inode())
                    self.file_count += 1
        self._suffixes = list(self._number_of)

    def files_of(self, crash_id: str) -> dict[str, int]:
        """Return the names of a crash's files, and the inode of each."""
        files: dict[str, int] = {}
        packed = _packed(crash_id)
        bucket = self._buckets.get(packed[_BUCKET]) if packed else None
        if not packed or not bucket:
            return files
        at = bucket.find(packed)
        while at >= 0:
            if at % _FILE.size == 0:  # or it is found across two others
                _, number, inode = _FILE.unpack_from(bucket, at)
                files[crash_id + self._suffixes[number]] = inode
            at = bucket.find(packed, at + 1)
        return files

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory."""
        return _FILE.size * self.file_count + _SUFFIX * len(self._suffixes)

    def has_settled(self, now: Generation) -> bool:
        """Whether what is now in that state had been there for a while."""
        return now[1] < self._taken_ns - SETTLED_NS


def _packed(name: str) -> bytes | None:
    """Return the id that a name begins with, in 16 bytes; None where that is none."""
    return bytes.fromhex(name[:ID_LENGTH].replace("-", "")) if _ID.match(name) else None


def _among_few(dir_fd: int, crash_id: str) -> list[str] | None:
    """Return the file names of a crash, where the directory has few; None where it has many."""
    with os.scandir(dir_fd) as entries:
        first = list(islice(entries, _FEW + 1))
    if len(first) > _FEW:
        return None
    return [
        entry.name
        for entry in first
        if entry.name.startswith(crash_id)
        and len(entry.name) > ID_LENGTH
        and not entry.is_dir(follow_symlinks=False)
    ]


class Listings:
    """The listings of the last few large directories that were of use.

    :param marker_suffix: what follows the id in the name of a raw crash
    """

    def __init__(self, marker_suffix: str) -> None:
        self._marker_suffix = marker_suffix
        self._kept: OrderedDict[Where, tuple[Listing, int]] = OrderedDict()  # and its last turn
        self._turn = 0
        self._lock = Lock()

    def __reduce__(self) -> "tuple[type[Listings], tuple[str]]":
        """A copy of a crash, in this process or another, remembers for itself."""
        return Listings, (self._marker_suffix,)

    def names_of(
        self, crash_id: str, now: Generation | None, dir_fd: int, where: Where
    ) -> list[str]:
        """Return the file names of a crash in the open directory `where`.

        :param now: the state of its raw crash there; None if it has none
        """
        listing = self._find(where)
        if listing and now and listing.has_settled(now):
            files = listing.files_of(crash_id)
            if files.get(crash_id + self._marker_suffix) == now[0]:
                return list(files)
        few = _among_few(dir_fd, crash_id)
        return list(self._take(dir_fd, where).files_of(crash_id)) if few is None else few

    def _find(self, where: Where) -> Listing | None:
        with self._lock:
            self._turn += 1
            listing, _ = self._kept.get(where, (None, 0))
            if listing:
                self._kept[where] = listing, self._turn
                self._kept.move_to_end(where)
            self._forget()
            return listing

    def _take(self, dir_fd: int, where: Where) -> Listing:
        """List the open directory `where` anew."""
        listing = Listing(dir_fd)
        if listing.file_count > _FEW:
            with self._lock:
                self._kept[where] = listing, self._turn
                self._kept.move_to_end(where)
                self._forget()
        return listing

    def _forget(self) -> None:
        """Forget those that are too many, and those that nobody has asked for lately."""
        while self._kept:
            size = sum(listing.size for listing, _ in self._kept.values())
            is_too_much = len(self._kept) > 1 and size > _KEPT_BYTES
            _, last_turn = next(iter(self._kept.values()))
            is_stale = last_turn < self._turn - _USEFUL_FOR
            if not (is_stale or is_too_much or len(self._kept) > _KEPT):
                return
            self._kept.popitem(last=False)
