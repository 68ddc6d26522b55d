# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Removing one crash: from one directory after the other, under its lock, the raw crash first."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from crashmover.crash import MARKERS, Crash, Kind
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
    """Removes a crash from one directory after the other."""

    _needs_locks = False  # also that of a processed crash which is saved by itself

    def __init__(self, tree: Tree, crash_id: str) -> None:
        self.crash_id = crash_id
        self.was_there = False
        """Whether there was anything of it."""
        self.was_visible = False
        """Whether there was a raw or processed crash."""
        self.error: OSError | CrashChanged | None = None
        """Why it is not known to be gone."""
        self._tree = tree
        self._layout = tree.layout

    def check(self, root_fd: int) -> None:
        """Check all directories, before anything is removed from any."""

    def remove_from(self, dir_fd: int, where: Where) -> bool:
        """Remove the crash's files from an open directory, the raw crash first; return whether
        there were any."""
        names = self._raw_crash_or_names(dir_fd, where)
        locks = self._locks(dir_fd)
        if not names:
            for kind in MARKERS:  # left by a removal whose process died at its very end
                with suppress(OSError):
                    locks.clear(kind)
            return False
        self._check_dumps(dir_fd, names, lambda: self._beside(dir_fd, where))
        with locks.of_removal(names[0]) as lock, locks.of_processed(is_needed=self._needs_locks):
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
        """Remove from an open directory what was seen there; or, where that has changed since,
        what is there now."""
        names = [self.crash_id + suffix for suffix in seen.suffixes]
        if not names:
            return
        self._check_dumps(dir_fd, names, lambda: seen.beside)
        before = self._raw_crash(dir_fd)
        is_same = seen.has_settled(before)
        with self._locks(dir_fd).of_removal(names[0], turn=is_same) as lock:
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
        them.

        :param names: of the crash's files, the raw crash first
        :param beside: returns the name of a file that is not the store's; "" if there is none
        """
        raw_crash = self._layout.file_name(self.crash_id, Kind.RAW_CRASH)
        if names[0] == raw_crash or not any(map(self._layout.is_dump, names)):
            return
        is_left_over = durable.exists(dir_fd, durable.temporary_name(raw_crash))
        if not is_left_over and (other := beside()):
            reason = f"its dumps may be those of {other}: is that suffix ?json_file_suffix=?"
            raise OSError(errno.EEXIST, reason)

    def _beside(self, dir_fd: int, where: Where) -> str:
        listed = self._tree.indexes.names_of(self.crash_id, None, dir_fd, where)
        return min((name for name in listed if not self._layout.is_known(name)), default="")

    def _other(self, dir_fd: int, where: Where, names: list[str]) -> str:
        """Return the one among these files that must not be removed; "" if there is none."""
        return ""

    def _locks(self, dir_fd: int) -> CrashLocks:
        return CrashLocks(dir_fd, self._layout, self.crash_id)

    def _raw_crash(self, dir_fd: int) -> os.stat_result | None:
        with suppress(FileNotFoundError):
            return durable.status(dir_fd, self._layout.file_name(self.crash_id, Kind.RAW_CRASH))
        return None

    def _raw_crash_or_names(self, dir_fd: int, where: Where) -> list[str]:
        """Return the raw crash's file alone, if it is there: all will be listed under its lock.
        Else return the crash's files, as `_names`."""
        raw_crash = self._layout.file_name(self.crash_id, Kind.RAW_CRASH)
        return [raw_crash] if durable.exists(dir_fd, raw_crash) else self._names(dir_fd, where)

    def _names(self, dir_fd: int, where: Where, lock: Lock | None = None) -> list[str]:
        """Return the crash's files in a directory, the raw crash first.

        :param lock: the crash's, once this process holds it
        """
        status = self._raw_crash(dir_fd)
        # A process that died may have added dumps to what had settled, and then left the lock.
        state = generation(status) if status and not (lock and lock.was_left) else None
        listed = self._tree.indexes.names_of(self.crash_id, state, dir_fd, where, lock)
        single = [self._layout.file_name(self.crash_id, kind) for kind in MARKERS]
        names = [name for name in single if durable.exists(dir_fd, name)]
        return names + [name for name in listed if self._layout.is_dump(name)]


class LoadedRemoval(CrashRemoval):
    """Removes the files that a crash was loaded from; `CrashChanged` where there are others."""

    _needs_locks = True

    def __init__(self, tree: Tree, crash: Crash) -> None:
        super().__init__(tree, crash.crash_id)
        self._states = {part.state for part in crash.parts}

    def check(self, root_fd: int) -> None:
        for where in self._layout.directories(self.crash_id):
            with (
                suppress(FileNotFoundError),
                durable.opened(open_directory(root_fd, where)) as dir_fd,
            ):
                if other := self._other(dir_fd, where, self._names(dir_fd, where)):
                    raise CrashChanged(self.crash_id, other)

    def _other(self, dir_fd: int, where: Where, names: list[str]) -> str:
        for name in names:
            # A program that removes one at this moment goes by no lock.
            with suppress(FileNotFoundError):
                if state_of(durable.status(dir_fd, name)) not in self._states:
                    return os.path.join(*where, name)
        return ""


def _is_same(before: os.stat_result | None, after: os.stat_result | None) -> bool:
    """Return True if a raw crash has not been touched, as a save that adds dumps does.

    Its change time is another when it has become the lock.
    """
    if before is None or after is None:
        return before is after
    return (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
