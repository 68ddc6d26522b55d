# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What lies in a directory, by crash id, and remembered where that is safe.

Finding a crash's dumps means listing its directory, which it may share with a hundred
thousand others; to list that anew for each of them would take hours.
"""

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock

from crashmover.external.fs.layout import ID_LENGTH

_WORTH_KEEPING = 32  # crashes; a smaller directory is listed again in no time
_KEPT = 16  # directories

# A file's times come from a clock that ticks coarsely, on a server perhaps: a listing is
# trusted only for crashes that had been there for a while when it was made.
_SETTLED_NS = 2_000_000_000

Generation = tuple[int, int]
"""The inode and change time of a raw crash's file: another for every save."""


def generation(status: os.stat_result) -> Generation:
    """What tells one saved state of a crash from the next."""
    return status.st_ino, status.st_ctime_ns


@dataclass(slots=True)
class Listing:
    """The names in one directory.

    :param suffixes: crash id -> what follows it in the names of its files
    :param markers: crash id -> the inode of its raw crash
    """

    taken_ns: int
    suffixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    markers: dict[str, int] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)

    @classmethod
    def take(cls, dir_fd: int, marker_suffix: str) -> "Listing":
        """List an open directory; names that begin with a dot are nobody's."""
        listing = cls(time.time_ns())
        suffixes = listing.suffixes
        with os.scandir(dir_fd) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    listing.directories.append(name)
                elif len(name) > ID_LENGTH:
                    crash_id, suffix = name[:ID_LENGTH], name[ID_LENGTH:]
                    # Nearly all crashes have one of a few sets of suffixes: share them.
                    suffixes[crash_id] = _appended(suffixes.get(crash_id, ()), suffix)
                    if suffix == marker_suffix:
                        listing.markers[crash_id] = entry.inode()
        return listing

    def holds(self, crash_id: str, now: Generation) -> bool:
        """Whether what it says of a crash still stands, its raw crash being `now`."""
        inode, changed_ns = now
        settled = changed_ns < self.taken_ns - _SETTLED_NS
        return settled and self.markers.get(crash_id) == inode


@lru_cache(maxsize=4096)
def _appended(suffixes: tuple[str, ...], suffix: str) -> tuple[str, ...]:
    return (*suffixes, suffix)


class Listings:
    """The listings of the last few large directories.

    :param marker_suffix: what follows the id in the name of a raw crash
    """

    def __init__(self, marker_suffix: str) -> None:
        self._marker_suffix = marker_suffix
        self._kept: OrderedDict[tuple[str, ...], Listing] = OrderedDict()
        self._lock = Lock()

    def take(self, dir_fd: int, where: tuple[str, ...]) -> Listing:
        """List the open directory `where` anew."""
        listing = Listing.take(dir_fd, self._marker_suffix)
        if len(listing.suffixes) >= _WORTH_KEEPING:
            with self._lock:
                self._kept[where] = listing
                self._kept.move_to_end(where)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return listing

    def names_of(
        self, crash_id: str, now: Generation | None, dir_fd: int, where: tuple[str, ...]
    ) -> list[str]:
        """Return the file names of a crash in the open directory `where`.

        :param now: the state of its raw crash there; None if it has none
        """
        with self._lock:
            listing = self._kept.get(where)
        if listing is None or now is None or not listing.holds(crash_id, now):
            listing = self.take(dir_fd, where)
        return [crash_id + suffix for suffix in listing.suffixes.get(crash_id, ())]
