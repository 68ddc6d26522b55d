# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Removing a crash, and what is left of one.

The lock under which a crash is removed is a file, as every lock here, and a disk may have no room
for another file: just when somebody wants to remove crashes from it.  Then the file that is to be
removed first becomes the lock.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.layout import Layout, Where
from crashmover.external.fs.listing import Listings, generation

_FULL = {errno.ENOSPC, errno.EDQUOT}
_RENAME_NOREPLACE = 1  # from linux/fs.h


class Removal:
    """Removes a crash from one directory after the other.

    :param listings: of the store
    :param root_fd: its root, open
    :param is_listed: whether these listings have just been begun: then it need not be looked
        again for dumps that have no raw crash
    """

    def __init__(
        self,
        layout: Layout,
        listings: Listings,
        root_fd: int,
        crash_id: str,
        *,
        is_listed: bool = False,
    ) -> None:
        self.crash_id = crash_id
        self.was_there = False
        """Whether there was anything of it."""
        self.was_visible = False
        """Whether there was a raw or processed crash."""
        self.error: OSError | None = None
        """Why it is not known to be gone; for whoever removes several."""
        self._layout = layout
        self._listings = listings
        self._root_fd = root_fd
        self._is_listed = is_listed

    def __call__(self, where: Where) -> bool:
        """Remove what lies in that directory, the raw crash first, and the directories that are
        left empty; return whether there was anything."""
        if not self.take_out(where, os.fsync):
            return False
        remove_empty(self._root_fd, where)
        return True

    def take_out(self, where: Where, force: Callable[[int], None] = lambda _: None) -> bool:
        """As a call, but the directories stay.

        :param force: is given the directory, open, to force it to the disk
        """
        try:
            with durable.opened(durable.walk_down(self._root_fd, where)) as dir_fd:
                names = self._names(dir_fd, where, self._is_listed)
                if not names:
                    return False
                with locked(dir_fd, self._layout, self.crash_id, names[0]) as found:
                    # Whoever dies and leaves dumps that have no raw crash leaves the lock too.
                    now = self._names(dir_fd, where, self._is_listed and not found)
                    self.was_visible |= not all(map(self._layout.is_dump, [*names, *now]))
                    for name in now:
                        durable.remove_file(dir_fd, name)
                        durable.remove_file(dir_fd, durable.temporary_name(name))
                force(dir_fd)
        except FileNotFoundError:
            return False
        self.was_there = True
        return True

    def _names(self, dir_fd: int, where: Where, no_orphans: bool) -> list[str]:
        """Return the crash's files in a directory, the raw crash first."""
        state = None
        marker = self._layout.file_name(self.crash_id, Kind.RAW_CRASH)
        with suppress(FileNotFoundError):
            state = generation(durable.status(dir_fd, marker))
        listed = self._listings.names_of(self.crash_id, state, dir_fd, where, no_orphans=no_orphans)
        single = [marker, self._layout.file_name(self.crash_id, Kind.PROCESSED_CRASH)]
        names = [name for name in single if durable.exists(dir_fd, name)]
        return names + [name for name in listed if self._layout.is_dump(name)]


def remove_empty(root_fd: int, where: Where) -> None:
    """Remove a directory and those above it, up to the root, as long as they are empty."""
    for depth in range(len(where), 0, -1):
        try:
            with durable.opened(durable.walk_down(root_fd, where[: depth - 1])) as parent_fd:
                os.rmdir(where[depth - 1], dir_fd=parent_fd)
        except OSError:
            return


@contextmanager
def locked(dir_fd: int, layout: Layout, crash_id: str, first: str) -> Iterator[bool]:
    """Hold the lock of a crash, and remove it in the end; where what was to be done was not, it
    stays there, as if somebody had died.  Give whether somebody had.

    :param first: the file that is removed first, and may be gone already when this is entered
    """
    name = durable.temporary_name(layout.file_name(crash_id, Kind.RAW_CRASH))
    fd, found = _lock(dir_fd, name, first)
    with durable.opened(fd):
        if found:
            remove_left_over(dir_fd, layout, crash_id)
        yield found
        durable.remove_file(dir_fd, name)


def remove_left_over(dir_fd: int, layout: Layout, crash_id: str) -> None:
    """Remove, as far as can be, the temporary files of a crash's dumps, which the lock of its raw
    crash covers: somebody has left them who died, and the next to save the crash may not have
    the same dumps."""
    for name in os.listdir(dir_fd):
        final = name[1:].removesuffix(durable.TEMPORARY)
        is_temporary = name == durable.temporary_name(final)
        if is_temporary and final.startswith(crash_id) and layout.is_dump(final):
            with suppress(OSError):
                durable.remove_file(dir_fd, name)


def _lock(dir_fd: int, name: str, first: str) -> tuple[int, bool]:
    try:
        return durable.lock(dir_fd, name)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return _turned_into_lock(dir_fd, name, first, error), False


def _turned_into_lock(dir_fd: int, name: str, first: str, full: OSError) -> int:
    """Lock a file and rename it; nobody takes notice of what has a temporary name."""
    fd = os.open(first, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    with durable.closed_on_error(fd):
        if os.fstat(fd).st_nlink > 1:  # which is refused as a lock
            raise full
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _rename_to_nothing(dir_fd, first, name, full)
        if not durable.is_same_file(fd, dir_fd, name):
            raise BlockingIOError(errno.EAGAIN, "another process has just saved it")
    return fd


def _rename_to_nothing(dir_fd: int, old: str, new: str, full: OSError) -> None:
    """Give a file a name that nothing has; raise `full` where the system cannot do that."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise full
    if rename(dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        if number != errno.EEXIST:
            raise full
        raise BlockingIOError(errno.EAGAIN, "another process is saving it")
