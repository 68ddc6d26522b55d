# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What lies in a directory, by crash id, and remembered where that is safe.

Finding a crash's dumps means listing its directory, which it may share with a hundred
thousand others; to list that anew for each of them would take hours.
"""

import os
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from functools import cache
from threading import Lock

from crashmover.external.fs.layout import ID_LENGTH, Where

_WORTH_KEEPING = 64  # files; a smaller directory is listed again in no time
_KEPT = 16  # directories
_KEPT_FILES = 500_000  # in them, of about 70 bytes each; one directory may have more

# A file's times come from a clock that ticks coarsely, on a server perhaps: a listing is
# trusted only for crashes that had been there for a while when it was made.
SETTLED_NS = 2_000_000_000

_BUCKET = slice(9, 11)  # of an id: two digits that are not among those of its directory

Generation = tuple[int, int]
"""The inode and change time of a raw crash's file: another for every save."""


def generation(status: os.stat_result) -> Generation:
    """What tells one saved state of a crash from the next."""
    return status.st_ino, status.st_ctime_ns


class Listing:
    """What is in an open directory, but for names that begin with a dot: these are nobody's.

    As there may be a million files, and several processes that each list them, their names
    are kept as bytes to be searched: ``\\0NAME/INODE\\0NAME/INODE\\0``, one such bucket for
    the ids that have the same two digits somewhere.
    """

    def __init__(self, dir_fd: int) -> None:
        self.directories: list[str] = []
        self.file_count = 0
        self._taken_ns = time.time_ns()
        self._buckets: defaultdict[str, bytearray] = defaultdict(lambda: bytearray(b"\0"))
        with os.scandir(dir_fd) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self.directories.append(name)
                elif entry.is_symlink() and len(name) <= ID_LENGTH:
                    self.directories.append(name)  # in place of one: refused by who steps into it
                elif len(name) > ID_LENGTH:
                    file = f"{name}/{entry.inode()}\0"
                    self._buckets[name[_BUCKET]] += file.encode(errors="surrogateescape")
                    self.file_count += 1

    def crash_ids(self, suffix: str) -> Iterator[str]:
        """Yield what may be the ids of those that have a file ``ID + suffix``."""
        ids_in = _id_before(suffix).findall
        for bucket in self._buckets.values():
            for found in ids_in(bucket):
                yield found.decode()

    def files_of(self, crash_id: str) -> dict[str, int]:
        """Return the names of a crash's files, and the inode of each."""
        files: dict[str, int] = {}
        bucket = self._buckets.get(crash_id[_BUCKET], b"")
        start = b"\0" + crash_id.encode()
        at = bucket.find(start)
        while at >= 0:
            end = bucket.index(b"\0", at + 1)
            name, inode = bytes(bucket[at + 1 : end]).split(b"/")
            files[name.decode(errors="surrogateescape")] = int(inode)
            at = bucket.find(start, end)
        return files

    def has_settled(self, now: Generation) -> bool:
        """Whether what is now in that state had been there for a while."""
        return now[1] < self._taken_ns - SETTLED_NS


@cache
def _id_before(suffix: str) -> re.Pattern[bytes]:
    return re.compile(rb"\0([0-9a-f-]{%d})%b/" % (ID_LENGTH, re.escape(os.fsencode(suffix))))


class Listings:
    """The listings of the last few large directories.

    :param marker_suffix: what follows the id in the name of a raw crash
    """

    def __init__(self, marker_suffix: str) -> None:
        self._marker_suffix = marker_suffix
        self._kept: OrderedDict[Where, Listing] = OrderedDict()
        self._lock = Lock()

    def names_of(
        self, crash_id: str, now: Generation | None, dir_fd: int, where: Where
    ) -> list[str]:
        """Return the file names of a crash in the open directory `where`.

        :param now: the state of its raw crash there; None if it has none
        """
        with self._lock:
            listing = self._kept.get(where)
        if listing and now and listing.has_settled(now):
            files = listing.files_of(crash_id)
            if files.get(crash_id + self._marker_suffix) == now[0]:
                return list(files)
        return list(self._take(dir_fd, where).files_of(crash_id))

    def _take(self, dir_fd: int, where: Where) -> Listing:
        """List the open directory `where` anew."""
        listing = Listing(dir_fd)
        if listing.file_count >= _WORTH_KEEPING:
            with self._lock:
                self._kept[where] = listing
                self._kept.move_to_end(where)
                while len(self._kept) > 1 and self._are_too_many():
                    self._kept.popitem(last=False)
        return listing

    def _are_too_many(self) -> bool:
        files = sum(listing.file_count for listing in self._kept.values())
        return len(self._kept) > _KEPT or files > _KEPT_FILES
