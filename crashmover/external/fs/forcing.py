# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Forcing what was written to the disk: file by file, or the whole file system at once."""

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Protocol

from crashmover.external.fs import durable

# Where syncfs is known to write everything and to report what it could not write.  Not
# FUSE: the kernel does not pass syncfs on to it.  Numbers: statfs(2).
_SYNCFS_TYPES = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0x01021994,  # tmpfs
}
_SYNCFS_REPORTS_ERRORS = (5, 8)  # the first Linux that does: syncfs(2)


class Sync(Protocol):
    """How a group of saves is made durable."""

    each_file: bool
    """Whether every file must be forced to the disk as it is written."""

    def directories(self, below: Sequence[tuple[str, ...]], *, new: bool) -> None:
        """Return when all that was written and renamed in these directories is durable.

        :param new: whether the directories themselves may be new
        """


class SyncFiles:
    """Every file and every directory by itself: works everywhere, and waits for nobody
    else's data."""

    each_file = True

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def directories(self, below: Sequence[tuple[str, ...]], *, new: bool) -> None:
        """Force each of these; new ones with all above them, which another process may just
        have made."""
        tops = {names[:depth] for names in below for depth in range(len(names))} if new else set()
        for names in {*tops, *below}:
            with durable.opened(durable.walk_down(self._root_fd, names)) as fd:
                os.fsync(fd)


class SyncFileSystem:
    """The whole file system at once: many files for the price of one.

    The descriptor must be open before anything is written: errors are counted from there.
    """

    each_file = False

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def directories(self, below: Sequence[tuple[str, ...]], *, new: bool) -> None:
        """Force all of it."""
        if _libc().syncfs(self._root_fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def can_sync_file_system(fd: int) -> bool:
    """Whether `SyncFileSystem` keeps its promise on the file system that `fd` is on."""
    if sys.platform != "linux" or _kernel() < _SYNCFS_REPORTS_ERRORS:
        return False
    buffer = (ctypes.c_long * 64)()  # struct statfs begins with f_type, a long
    if _libc().fstatfs(fd, buffer) != 0:
        return False
    return buffer[0] & 0xFFFFFFFF in _SYNCFS_TYPES


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _kernel() -> tuple[int, ...]:
    return tuple(int(digits) for digits in os.uname().release.split("-")[0].split(".")[:2])
