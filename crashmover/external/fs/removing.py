# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Removing one crash: from one directory after the other, under its lock, the raw crash first."""

import errno
import os
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass

from crashmover.crash import MARKERS, Kind
from crashmover.errors import CrashChanged
from crashmover.external.fs import durable
from crashmover.external.fs.directory_index import generation, state_of
from crashmover.external.fs.finding import open_directory
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.locks import CrashLocks
from crashmover.external.fs.settling import Lock
from crashmover.external.fs.tree import Tree


@dataclass(slots=True)
class Seen:
    """What a directory had of a crash when it was looked into.

    :param settled_ns: what has not changed since then was seen as it is
    :param suffixes: what follows the crash id in the names of its files, the raw crash's first
    :param inode: the raw crash's; 0 if there was none
    :param is_left_over: whether there was also a temporary file
    :param beside: a file of another suffix than the store's; "" if there was none
    """

    crash_id: str
    where: Where
    settled_ns: int
    suffixes: tuple[str, ...] = ()
    inode: int = 0
    is_left_over: bool = False
    beside: str = ""

    def has_settled(self, now: os.stat_result | None) -> bool:
        """Return True if that is so where the raw crash is in that state."""
        if now is None:
            return self.inode == 0
        return now.st_ino == self.inode and now.st_ctime_ns < self.settled_ns


class CrashRemoval:
    """Removes a crash from one directory after the other.

    :param states: of the files that may be removed, by `state_of`: those that the crash was loaded
        from; if there are others of it, `CrashChanged` is raised.  None: all may be
    """

    def __init__(self, tree: Tree, crash_id: str, states: Set[object] | None = None) -> None:
        self.crash_id = crash_id
        self.was_there = False
        """Whether there was anything of it."""
        self.was_visible = False
        """Whether there was a raw or processed crash."""
        self.error: OSError | CrashChanged | None = None
        """Why it is not known to be gone."""
        self._states = states
        self._tree = tree
        self._layout = tree.layout
        self._marker = tree.layout.file_name(crash_id, Kind.RAW_CRASH)

    def check(self, root_fd: int) -> None:
        """Check all directories, before anything is removed from any."""
        if self._states is None:
            return
        for where in self._layout.directories(self.crash_id):
            with (
                suppress(FileNotFoundError),
                durable.opened(open_directory(root_fd, where)) as dir_fd,
            ):
                if other := self._other(dir_fd, where, self._names(dir_fd, where)):
                    raise CrashChanged(self.crash_id, other)

    def remove_from(self, dir_fd: int, where: Where) -> bool:
        """Remove the files in an open directory, the raw crash first; return whether it had any."""
        names = [self._marker]  # if it is there, all will be listed under its lock
        if not durable.exists(dir_fd, self._marker):
            names = self._names(dir_fd, where)
        locks = CrashLocks(dir_fd, self._layout, self.crash_id)
        if not names:
            for kind in MARKERS:  # left by a removal whose process died at its very end
                with suppress(OSError):
                    locks.clear(kind)
            return False
        self._check_dumps(dir_fd, names, lambda: self._beside(dir_fd, where))
        is_needed = self._states is not None
        with locks.of_removal(names[0]) as lock, locks.of_processed(is_needed=is_needed):
            now = self._names(dir_fd, where, lock)
            # On a full disk the first is the lock by now, and all have been looked at.
            other = "" if lock.turned else self._other(dir_fd, where, now)
            for name in () if other else now:
                durable.remove_file(dir_fd, name)
                if self._layout.is_dump(name):
                    durable.remove_file(dir_fd, durable.temporary_name(name))
        if other:
            raise CrashChanged(self.crash_id, other)
        self.was_there = True
        return True

    def remove_seen(self, dir_fd: int, seen: Seen) -> None:
        """Remove what was seen in an open directory, or what is there now if it has changed."""
        names = [self.crash_id + suffix for suffix in seen.suffixes]
        if not names:
            return
        self._check_dumps(dir_fd, names, lambda: seen.beside)
        before = self._raw_crash(dir_fd)
        is_same = seen.has_settled(before)
        locks = CrashLocks(dir_fd, self._layout, self.crash_id)
        with locks.of_removal(names[0], turn=is_same) as lock:
            held = os.fstat(lock.fd)
            after = held if held.st_ino == seen.inode else self._raw_crash(dir_fd)
            # A process that dies and leaves dumps that have no raw crash leaves the lock, too.
            is_same = is_same and not lock.was_left and _is_same(before, after)
            now = names if is_same else self._names(dir_fd, seen.where, lock)
            for name in now:
                durable.remove_file(dir_fd, name)
        self.was_there = True
        self.was_visible |= not all(map(self._layout.is_dump, {*names, *now}))

    def _check_dumps(self, dir_fd: int, names: list[str], beside: Callable[[], str]) -> None:
        """Raise OSError where dumps may belong to a raw crash that has another suffix than the
        store's.  Dumps that a save or removal of ours has left have the raw crash's lock beside
        them."""
        if names[0] == self._marker or not any(map(self._layout.is_dump, names)):
            return
        is_left_over = durable.exists(dir_fd, durable.temporary_name(self._marker))
        if not is_left_over and (other := beside()):
            reason = f"its dumps may be those of {other}: is that suffix ?json_file_suffix=?"
            raise OSError(errno.EEXIST, reason)

    def _beside(self, dir_fd: int, where: Where) -> str:
        listed = self._tree.indexes.names_of(self.crash_id, None, dir_fd, where)
        return min((name for name in listed if not self._layout.is_known(name)), default="")

    def _other(self, dir_fd: int, where: Where, names: list[str]) -> str:
        """Return the one among these files that must not be removed; "" if there is none."""
        if self._states is None:
            return ""
        for name in names:
            # A program that removes one at this moment goes by no lock.
            with suppress(FileNotFoundError):
                if state_of(durable.status(dir_fd, name)) not in self._states:
                    return os.path.join(*where, name)
        return ""

    def _raw_crash(self, dir_fd: int) -> os.stat_result | None:
        with suppress(FileNotFoundError):
            return durable.status(dir_fd, self._marker)
        return None

    def _names(self, dir_fd: int, where: Where, lock: Lock | None = None) -> list[str]:
        """Return the crash's files in a directory, the raw crash first.  A `lock` is the crash's,
        once this process holds it."""
        status = self._raw_crash(dir_fd)
        # A process that died may have added dumps to what had settled, and then left the lock.
        state = generation(status) if status and not (lock and lock.was_left) else None
        listed = self._tree.indexes.names_of(self.crash_id, state, dir_fd, where, lock)
        single = [self._layout.file_name(self.crash_id, kind) for kind in MARKERS]
        names = [name for name in single if durable.exists(dir_fd, name)]
        return names + [name for name in listed if self._layout.is_dump(name)]


def _is_same(before: os.stat_result | None, after: os.stat_result | None) -> bool:
    """Return True if a raw crash has not been touched, as a save that adds dumps does.  Its change
    time is another when it has become the lock."""
    if before is None or after is None:
        return before is after
    return (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
