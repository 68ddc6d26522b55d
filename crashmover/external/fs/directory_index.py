# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Directory index: a directory's files by crash id, kept where that is safe.

Finding a crash's dumps means listing its directory.  A hundred thousand crashes may share it, and
listing it anew for each of them would take hours.
"""

import errno
import os
import re
import struct
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from threading import Lock as ThreadLock
from typing import TypeVar

from crashmover.external.fs import durable
from crashmover.external.fs.layouts import ID_LENGTH, Where
from crashmover.external.fs.settling import SETTLED_NS, Lock, Rest, has_settled, now_at, rest_of
from crashmover.external.fs.syscalls import has_directory_times

_FEW = 64  # files; a directory that has no more is listed again in no time
_KEPT = 16  # directories
_KEPT_BYTES = 16_000_000  # of them, together; one directory may take more
_USEFUL_FOR = 1000  # further crashes: a caller that goes from day to day does not come back

_PATIENCE_S = 5.0  # for a cached listing: five tries of the mover take longer than sshfs's 20 s
_PAUSE_S = 0.01  # before the second listing, and doubled before each further one
_PAUSE_MAX_S = 0.5

_UNTOLD = (0, 0xFFFFFFFF)  # what FUSE lists as inode number where the file system tells none
_T = TypeVar("_T")

_FILE = struct.Struct("=16sIQ")  # the id without its hyphens, the suffix's number, the inode
_ID = re.compile("[0-9a-f]{8}" + "-[0-9a-f]{4}" * 3 + "-[0-9a-f]{12}")
_SUFFIX = 200  # bytes that a suffix takes in memory, with its number
_BUCKET = 4  # the byte of a packed id that is not among those of its directory

Generation = tuple[int, int]
"""The inode and change time of a raw crash's file: what tells one saved state from the next."""


def generation(status: os.stat_result) -> Generation:
    return status.st_ino, status.st_ctime_ns


def state_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from any other of its name, be it in another directory that has
    been put in the place of its own."""
    return status.st_dev, *generation(status)


class DirectoryIndex:
    """The files in an open directory whose names begin with the shape of a crash id.

    There may be a million files, and several processes that each list them.  So each takes 28
    bytes: a `_FILE`, in the bucket of the ids that have the same two digits at one place.

    :param expected: the name of another file to look for
    """

    def __init__(self, dir_fd: int, expected: str = "") -> None:
        self.file_count = 0
        self.has_expected = False
        self._number_of: dict[str, int] = {}  # a suffix of file names
        self._buckets: defaultdict[int, bytearray] = defaultdict(bytearray)
        with durable.entries(dir_fd) as entries:
            for entry in entries:
                name = entry.name
                if name == expected:
                    self.has_expected = True
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
        """How many bytes it takes in memory, roughly."""
        return _FILE.size * self.file_count + _SUFFIX * len(self._suffixes)


def _packed(name: str) -> bytes | None:
    """Return the id that a name begins with, in 16 bytes; None if it begins with another text."""
    return bytes.fromhex(name[:ID_LENGTH].replace("-", "")) if _ID.match(name) else None


def files_anew(dir_fd: int, start: str, expected: str) -> list[str]:
    """Return the names of an open directory's files that begin with `start`, as `_anew` does."""

    def look() -> list[str] | None:
        with durable.entries(dir_fd) as found:
            return _files_among(list(found), start, expected)

    return _anew(dir_fd, expected, look)


def _files_among(entries: "list[os.DirEntry[str]]", start: str, expected: str) -> list[str] | None:
    """Return the files that begin with `start`; None if `expected` is not there."""
    if expected and all(entry.name != expected for entry in entries):
        return None
    return [
        entry.name
        for entry in entries
        if entry.name.startswith(start)
        and len(entry.name) > ID_LENGTH
        and not entry.is_dir(follow_symlinks=False)
    ]


def _anew(dir_fd: int, expected: str, look: Callable[[], _T | None]) -> _T:
    """Return what `look` finds in an open directory, once that is no older than a file there.

    A file server's client may list a directory from its cache.

    :param expected: the name of that file
    :param look: lists the directory; returns None if `expected` is not listed
    :raises BlockingIOError: another process has removed the file
    :raises OSError: the directory's listing stays older than the file
    """
    deadline = time.monotonic() + _PATIENCE_S
    pause = _PAUSE_S
    while (found := look()) is None:
        if not durable.exists(dir_fd, expected):
            raise BlockingIOError(errno.EAGAIN, "another process is replacing or removing it")
        if time.monotonic() > deadline:
            reason = f"the listing of its directory is older than {expected}"
            raise OSError(
                errno.EAGAIN, f"{reason}; wait, or mount it without a cache of directories"
            )
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_MAX_S)
    return found


@dataclass(slots=True)
class _Kept:
    """An index that is kept, and what shows that it still holds.

    :param listed_ns: what `now_at` returned before it was made
    :param rest: the directory's state before it was made; None where that shows nothing
    :param has_rested: whether a change after that would have changed the directory's times
    :param turn: when it was last asked for
    """

    index: DirectoryIndex
    listed_ns: int
    rest: Rest | None
    has_rested: bool
    turn: int

    def holds(self, now: Generation, dir_fd: int, lock: Lock | None) -> bool:
        """Return True if the crash whose raw crash is in that state has the files listed."""
        if has_settled(now[1], self.listed_ns, dir_fd, lock):
            return True
        return self.has_rested and rest_of(dir_fd, self.rest) is self.rest


class IndexCache:
    """The indexes of the last few large directories that were of use.

    :param marker_suffix: what follows the id in the name of a raw crash
    """

    def __init__(self, marker_suffix: str) -> None:
        self._marker_suffix = marker_suffix
        self._kept: OrderedDict[Where, _Kept] = OrderedDict()
        self._turn = 0
        self._lock = ThreadLock()

    def __reduce__(self) -> "tuple[type[IndexCache], tuple[str]]":
        """Pickle no indexes: a copy of a crash, in this process or another, begins anew."""
        return IndexCache, (self._marker_suffix,)

    def names_of(
        self,
        crash_id: str,
        now: Generation | None,
        dir_fd: int,
        where: Where,
        lock: Lock | None = None,
    ) -> list[str]:
        """Return the file names of a crash in the open directory `where`.

        :param now: the state of its raw crash there; None if it has none, or to list anew
        :param lock: its lock there, if this process holds that
        :raises OSError: the directory is only listed as it was before the raw crash or the lock
            was there, as from the cache of a mount
        """
        marker = crash_id + self._marker_suffix
        kept = self._find(where)
        if kept and now and kept.holds(now, dir_fd, lock):
            files = kept.index.files_of(crash_id)
            if files.get(marker) in (now[0], *_UNTOLD):
                return list(files)
        expected = lock.name if lock else marker if now else ""
        return _anew(dir_fd, expected, lambda: self._look(crash_id, dir_fd, where, expected, lock))

    def _look(
        self, crash_id: str, dir_fd: int, where: Where, expected: str, lock: Lock | None
    ) -> list[str] | None:
        """List the directory; return None if `expected` is not listed."""
        with durable.entries(dir_fd) as entries:
            first = list(islice(entries, _FEW + 1))
            if len(first) <= _FEW:
                return _files_among(first, crash_id, expected)
        index = self._list(dir_fd, where, expected, lock)
        return list(index.files_of(crash_id)) if index else None

    def _find(self, where: Where) -> _Kept | None:
        with self._lock:
            self._turn += 1
            if kept := self._kept.get(where):
                kept.turn = self._turn
                self._kept.move_to_end(where)
            self._forget()
            return kept

    def _list(
        self, dir_fd: int, where: Where, expected: str, lock: Lock | None
    ) -> DirectoryIndex | None:
        """List the open directory `where` anew; return None if `expected` is not listed."""
        before = self._kept.get(where)
        listed_ns = now_at(dir_fd, lock)
        rest = None
        if has_directory_times(dir_fd):
            rest = rest_of(dir_fd, before.rest if before else None)
        has_rested = rest is not None and time.monotonic_ns() - rest.since_ns > SETTLED_NS
        index = DirectoryIndex(dir_fd, expected)
        if expected and not index.has_expected:
            return None
        if index.file_count > _FEW:
            with self._lock:
                self._kept[where] = _Kept(index, listed_ns, rest, has_rested, self._turn)
                self._kept.move_to_end(where)
                self._forget()
        return index

    def _forget(self) -> None:
        """Forget indexes beyond the bounds, and those that no caller has asked for lately."""
        while self._kept:
            size = sum(kept.index.size for kept in self._kept.values())
            is_too_much = len(self._kept) > 1 and size > _KEPT_BYTES
            is_stale = next(iter(self._kept.values())).turn < self._turn - _USEFUL_FOR
            if not (is_stale or is_too_much or len(self._kept) > _KEPT):
                return
            self._kept.popitem(last=False)
