# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Emptying: crashes are removed, or all of a day, and made durable together.

Forcing a removal to the disk takes long.  Each crash is still removed by itself, under its lock, as
`removing` does it.  So a save meanwhile, or a kill in the middle, is the same case as with one
crash.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby, islice
from operator import attrgetter

from crashmover import crashid
from crashmover.crash import MARKERS, Kind
from crashmover.errors import CrashChanged
from crashmover.external.fs import durable
from crashmover.external.fs.catalog import at_place, is_between
from crashmover.external.fs.durable import opened
from crashmover.external.fs.finding import is_collectors_link, open_directory
from crashmover.external.fs.forcing import Forcing
from crashmover.external.fs.layouts import ID_LENGTH, Layout, Where
from crashmover.external.fs.locks import CrashLocks
from crashmover.external.fs.removing import CrashRemoval, Seen
from crashmover.external.fs.settling import SETTLED_NS, now_at
from crashmover.external.fs.tree import Tree

_TOGETHER = 512  # crashes of a day that are made final at once

_id_of = attrgetter("crash_id")
_place_of = attrgetter("where")


@dataclass(frozen=True)
class Emptying:
    """Removes crashes, in one run.

    :param root_fd: the root, open before anything is removed
    :param forcing: gives what makes the removal of so many durable
    """

    tree: Tree
    root_fd: int
    forcing: Callable[[int], Forcing]

    def crashes(self, removals: Sequence[CrashRemoval]) -> None:
        """Remove these crashes, and the directories that are left empty."""
        places = set[Where]()
        with self.forcing(len(removals)) as forcing:
            for removal in removals:
                try:
                    removal.check(self.root_fd)
                    for where in self.tree.layout.directories(removal.crash_id):
                        with (
                            suppress(FileNotFoundError),
                            opened(open_directory(self.root_fd, where)) as dir_fd,
                        ):
                            forcing.begin(where, dir_fd)
                            if removal.remove_from(dir_fd, where):
                                places.add(where)
                except (OSError, CrashChanged) as error:
                    removal.error = error
            self._force(forcing, places, removals)
        for where in places:
            with suppress(OSError):  # and those above it, as long as they are empty
                for depth in range(len(where), 0, -1):
                    _remove_empty(self.root_fd, where[:depth])

    def days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool]
    ) -> Iterator[CrashRemoval]:
        """Remove the crashes of these days; yield, in order, those that were visible, and those of
        which something could not be removed.

        :raises OSError: at the end, where a directory could not be looked into
        """
        failures: list[OSError] = []
        for name in sorted(durable.names(self.root_fd)):
            is_wanted = crashid.parse_day_name(name) and is_between(name, since, until)
            if is_wanted and not is_stopped():
                day = _Day(self.tree.layout, self.root_fd, name)
                yield from self._empty(day, is_stopped)
                failures += day.failures
        if failures:
            raise failures[0]

    def _empty(self, day: "_Day", is_stopped: Callable[[], bool]) -> Iterator[CrashRemoval]:
        by_id = groupby(sorted(day.seen, key=_id_of), key=_id_of)
        each = (list(seen) for _, seen in by_id)
        while not is_stopped() and (batch := list(islice(each, _TOGETHER))):
            for removal in self._together(batch):
                if removal.was_visible or removal.error:
                    yield removal
        day.remove_empty()

    def _together(self, batch: list[list[Seen]]) -> Iterable[CrashRemoval]:
        """Remove what was seen of some crashes, directory by directory, and make that durable."""
        crash_ids = [seen[0].crash_id for seen in batch]
        removals = {crash_id: CrashRemoval(self.tree, crash_id) for crash_id in crash_ids}
        places = set[Where]()
        everything = sorted(chain.from_iterable(batch), key=_place_of)
        with self.forcing(len(batch)) as forcing:
            for where, seen in groupby(everything, key=_place_of):
                places.add(where)
                found = [(each, removals[each.crash_id]) for each in seen]
                try:
                    with opened(durable.walk_down(self.root_fd, where)) as dir_fd:
                        forcing.begin(where, dir_fd)
                        for each, removal in found:
                            self._remove_seen(dir_fd, each, removal)
                except FileNotFoundError:  # another process has removed them, and the directory
                    continue
                except OSError as error:
                    for _, removal in found:
                        removal.error = error
            self._force(forcing, places, removals.values())
        return removals.values()

    def _remove_seen(self, dir_fd: int, seen: Seen, removal: CrashRemoval) -> None:
        try:
            removal.remove_seen(dir_fd, seen)
        except FileNotFoundError:
            return
        except OSError as error:
            removal.error = error
            return
        if seen.is_left_over:
            locks = CrashLocks(dir_fd, self.tree.layout, seen.crash_id)
            for kind in MARKERS:
                with suppress(OSError):
                    locks.clear(kind, without_lock=kind is Kind.RAW_CRASH)

    def _force(
        self, forcing: Forcing, places: set[Where], removals: Iterable[CrashRemoval]
    ) -> None:
        """Force what was removed to the disk."""
        try:
            for where in filter(forcing.is_single, places):
                self._force_one(where)
            forcing.finish_file_systems(places)
        except OSError as error:  # it is not known which are gone for good
            for removal in removals:
                if removal.was_there:
                    removal.error = removal.error or error

    def _force_one(self, where: Where) -> None:
        """Force a directory to the disk; if another process has just removed it, what it was in."""
        for depth in range(len(where), -1, -1):
            with (
                suppress(FileNotFoundError),
                opened(durable.walk_down(self.root_fd, where[:depth])) as dir_fd,
            ):
                os.fsync(dir_fd)
                return


def _remove_empty(root_fd: int, where: Where) -> None:
    """Remove a directory, if it is empty."""
    with opened(durable.walk_down(root_fd, where[:-1])) as above_fd:
        os.rmdir(where[-1], dir_fd=above_fd)


class _Day:
    """What lies in the directory of a day.  A directory that cannot be entered, or something else
    in its place, hides what is in it and no more."""

    def __init__(self, layout: Layout, root_fd: int, name: str) -> None:
        self.seen: list[Seen] = []
        """What there is of each crash, visible or not, and where."""
        self.failures: list[OSError] = []
        self._layout = layout
        self._root_fd = root_fd
        self._directories: list[Where] = [(name,)]
        self._order = {layout.json_file_suffix: 0, layout.jsonz_file_suffix: 1}  # others: 2
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._settled_ns = 0
        self._look_into(layout.top(name))

    def remove_empty(self) -> None:
        """Remove the directories that are empty now, of those that were there."""
        for where in reversed(self._directories):
            with suppress(OSError):
                _remove_empty(self._root_fd, where)

    def _look_into(self, where: Where) -> None:
        try:
            with opened(durable.walk_down(self._root_fd, where)) as dir_fd:
                self._settled_ns = now_at(dir_fd) - SETTLED_NS
                with durable.entries(dir_fd) as entries:
                    below = self._look_at(dir_fd, entries, where)
        except FileNotFoundError:
            return
        except OSError as error:
            self.failures.append(at_place(error, where))
            return
        self._directories.append(where)
        for name in below:
            self._look_into((*where, name))

    def _look_at(
        self, dir_fd: int, entries: Iterable["os.DirEntry[str]"], where: Where
    ) -> list[str]:
        """Take note of the crashes in a directory; return the directories of ours, and what is in
        place of one."""
        seen: dict[str, Seen] = {}
        below: list[str] = []
        for entry in entries:
            name = entry.name
            is_link = len(name) <= ID_LENGTH and entry.is_symlink()
            if is_link or entry.is_dir(follow_symlinks=False):
                is_passed_over = is_link and is_collectors_link(dir_fd, name)
                is_id = len(name) == ID_LENGTH  # as in the older form
                is_ours = (self._layout.belongs if is_id else self._layout.leads_on)(name, where)
                if is_ours and not is_passed_over:
                    below.append(name)
                continue
            final = durable.final_name(name)
            file = name if final is None else final
            crash_id, suffix = file[:ID_LENGTH], file[ID_LENGTH:]
            crash = seen.get(crash_id)
            if crash is None:
                crash = seen[crash_id] = Seen(crash_id, where, self._settled_ns)
            if not self._layout.is_known(file):
                if suffix.startswith(".") and final is None:
                    crash.beside = min(file, crash.beside or file)
            elif final is not None:
                crash.is_left_over = True
            else:
                crash.suffixes += (suffix,)
                if suffix == self._layout.json_file_suffix:
                    crash.inode = entry.inode()
        for crash in seen.values():
            is_something = crash.suffixes or crash.is_left_over
            if is_something and self._layout.belongs(crash.crash_id, where):
                found = tuple(sorted(crash.suffixes, key=lambda s: (self._order.get(s, 2), s)))
                crash.suffixes = self._known.setdefault(found, found)  # one object for all
                self.seen.append(crash)
        return below
