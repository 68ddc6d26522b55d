# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Emptying: many crashes are removed, or all of a day, and what takes long is done once for all.

What takes long is to force a removal to the disk.  Each crash is still removed by itself, under
its lock, as `removing` does it: so nobody who saves one meanwhile, and nobody who is killed in
the middle, makes another case than there is with one crash.
"""

import datetime as dt
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layout import ID_LENGTH, RADIX, Layout, Where
from crashmover.external.fs.listing import Listing, Listings
from crashmover.external.fs.removing import Removal, remove_empty, remove_left_over
from crashmover.external.fs.walking import MAX_DEPTH, at_place, is_within

_TOGETHER = 256  # crashes of a day that are made final at once
_LOCKED = (Kind.RAW_CRASH, Kind.PROCESSED_CRASH)


class Emptying:
    """Removes crashes, in one run.

    :param root_fd: the store's directory, open before anything is removed
    :param sync: gives what forces the removal of so many to the disk
    """

    def __init__(self, layout: Layout, root_fd: int, sync: Callable[[int], durable.Sync]) -> None:
        self._layout = layout
        self._root_fd = root_fd
        self._sync = sync

    def remove(self, crash_ids: Sequence[str]) -> list[Removal]:
        """Remove these crashes, and the directories that are left empty."""
        removals, places = self._together(crash_ids, self._new_listings())
        for where in places:
            remove_empty(self._root_fd, where)
        return removals

    def days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool]
    ) -> Iterator[Removal]:
        """Remove the crashes of these days; yield, in order, those that were visible, and those of
        which something could not be removed.

        :raises OSError: at the end, where a directory could not be looked into
        """
        failures: list[OSError] = []
        for name in sorted(os.listdir(self._root_fd)):
            if is_within(name, since, until) and not is_stopped():
                day = _Day(self._layout, self._root_fd, name)
                yield from self._empty(day, is_stopped)
                failures += day.failures
        if failures:
            raise failures[0]

    def _empty(self, day: "_Day", is_stopped: Callable[[], bool]) -> Iterator[Removal]:
        crash_ids = iter(sorted(day.crash_ids))
        listings = self._new_listings()
        while not is_stopped() and (batch := list(islice(crash_ids, _TOGETHER))):
            removals, _ = self._together(batch, listings)
            for removal in removals:
                if removal.error is None:
                    for where in day.left_over.get(removal.crash_id, ()):
                        self._clear(removal.crash_id, where)
                if removal.was_visible or removal.error:
                    yield removal
        day.remove_empty()

    def _new_listings(self) -> Listings:
        return Listings(self._layout.json_file_suffix)

    def _together(
        self, crash_ids: Sequence[str], listings: Listings
    ) -> tuple[list[Removal], set[Where]]:
        """Remove crashes and force that to the disk; return what became of each, and where some
        were."""
        places: set[Where] = set()
        removals: list[Removal] = []
        sync = self._sync(len(crash_ids))
        for crash_id in crash_ids:
            removal = Removal(self._layout, listings, self._root_fd, crash_id, is_listed=True)
            removals.append(removal)
            try:
                places |= {w for w in self._layout.directories(crash_id) if removal.take_out(w)}
            except OSError as error:
                removal.error = error
        try:
            self._force(sync, places)
        except OSError as error:  # nobody knows which are gone for good
            for removal in removals:
                if removal.was_there:
                    removal.error = removal.error or error
        return removals, places

    def _force(self, sync: durable.Sync, places: set[Where]) -> None:
        if places and not sync.each_file:
            sync.directories((), new=False)
        elif sync.each_file:
            for where in places:
                self._force_one(where)

    def _force_one(self, where: Where) -> None:
        """Force a directory to the disk; where another process has just removed it, what it was
        in."""
        for depth in range(len(where), -1, -1):
            with (
                suppress(FileNotFoundError),
                opened(durable.walk_down(self._root_fd, where[:depth])) as dir_fd,
            ):
                os.fsync(dir_fd)
                return

    def _clear(self, crash_id: str, where: Where) -> None:
        """Remove, as far as can be, what somebody has left of a crash who died; what is held by
        somebody is in use."""
        names = [self._layout.file_name(crash_id, kind) for kind in _LOCKED]
        with suppress(OSError), opened(durable.walk_down(self._root_fd, where)) as dir_fd:
            for name in names:
                with suppress(OSError):
                    self._clear_one(dir_fd, crash_id, name, is_raw=name == names[0])

    def _clear_one(self, dir_fd: int, crash_id: str, name: str, *, is_raw: bool) -> None:
        lock = durable.temporary_name(name)
        if not is_raw and not durable.exists(dir_fd, lock):
            return
        fd, _ = durable.lock(dir_fd, lock, 0.0)
        with opened(fd):
            if is_raw:
                if not durable.exists(dir_fd, name):  # or the next save would take them for its own
                    for file in filter(self._layout.is_dump, Listing(dir_fd).files_of(crash_id)):
                        durable.remove_file(dir_fd, file)
                remove_left_over(dir_fd, self._layout, crash_id)
            durable.remove_file(dir_fd, lock)


class _Day:
    """What lies in the directory of a day.  A directory that cannot be entered, or something else
    in its place, hides what is in it and no more.

    :param root_fd: the store's directory
    """

    def __init__(self, layout: Layout, root_fd: int, name: str) -> None:
        self.crash_ids: set[str] = set()
        """Of which there is anything, visible or not."""
        self.left_over: defaultdict[str, set[Where]] = defaultdict(set)
        """Of which there are temporary files, and where."""
        self.failures: list[OSError] = []
        self._layout = layout
        self._root_fd = root_fd
        self._directories: list[Where] = [(name,)]
        self._suffixes = {layout.json_file_suffix, layout.jsonz_file_suffix}
        self._look_into((name, layout.name_branch_base))

    def remove_empty(self) -> None:
        """Remove the directories that are empty now, of those that were there."""
        for where in reversed(self._directories):
            with (
                suppress(OSError),
                opened(durable.walk_down(self._root_fd, where[:-1])) as above_fd,
            ):
                os.rmdir(where[-1], dir_fd=above_fd)

    def _look_into(self, where: Where) -> None:
        try:
            with (
                opened(durable.walk_down(self._root_fd, where)) as dir_fd,
                os.scandir(dir_fd) as entries,
            ):
                below = [entry.name for entry in entries if self._note(entry, where)]
        except FileNotFoundError:
            return
        except OSError as error:
            self.failures.append(at_place(error, where))
            return
        self._directories.append(where)
        for name in below:
            self._look_into((*where, name))

    def _note(self, entry: "os.DirEntry[str]", where: Where) -> bool:
        """Take note of a file; return whether it is a directory of ours, or in place of one."""
        name = entry.name
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and len(name) <= ID_LENGTH):
            return self._is_ours(name, where)
        final = name[1:].removesuffix(durable.TEMPORARY)
        is_temporary = name == durable.temporary_name(final)
        if not is_temporary:
            final = name
        crash_id, suffix = final[:ID_LENGTH], final[ID_LENGTH:]
        is_part = suffix in self._suffixes or self._layout.is_dump(final)
        if is_part and self._layout.belongs(crash_id, where):
            self.crash_ids.add(crash_id)
            if is_temporary:
                self.left_over[crash_id].add(where)
        return False

    def _is_ours(self, name: str, where: Where) -> bool:
        """Whether there may be crashes in a directory of that name."""
        if len(name) == ID_LENGTH:  # the older form
            return self._layout.belongs(name, where)
        above = where[2:]
        is_way = len(above) < MAX_DEPTH and all(map(RADIX.fullmatch, above))
        return is_way and RADIX.fullmatch(name) is not None
