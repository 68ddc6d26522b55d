# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Forcing what was written to the disk: file by file, or the whole file system at once."""

import os
import sys
from collections.abc import Collection, Sequence
from functools import cache
from typing import Self

from crashmover.external.fs import durable
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.syscalls import (
    SYNCFS_TYPES,
    file_system_type,
    is_fuse,
    sync_file_system,
)

_SYNCFS_REPORTS_ERRORS = (5, 8)  # the first Linux that does: syncfs(2)


class Forcing:
    """Makes saves and removals durable: a whole file system at once, or file by file.

    Below the root there may be other file systems, such as a disk that is mounted at a day.  Each
    is forced by itself, through a descriptor that was open before any file was written there: the
    kernel reports errors from then on.  A context manager, which closes these descriptors.

    :param root_fd: the store's root, open before anything is written
    :param together: whether to force whole file systems, where that is known to work; else each
        file and each directory by itself
    """

    def __init__(self, root_fd: int, *, together: bool) -> None:
        self._root_fd = root_fd
        self._together = together
        self._devices: dict[Where, int] = {}
        # For each device a descriptor on it; None: its files are forced one by one.
        self._fds: dict[int, int | None] = {}
        self._fuse: set[int] = set()  # those of them that are FUSE
        if together:
            self._add_file_system(root_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for fd in filter(None, self._fds.values()):
            os.close(fd)

    def begin(self, where: Where, dir_fd: int) -> bool:
        """Take note of an open directory before something is written to it, or removed from it;
        return whether each file must be forced as it is written."""
        device = self._devices[where] = self._add_file_system(dir_fd)
        return self._fds[device] is None

    def device(self, where: Where) -> int:
        """Return the number of the file system that a directory is on, which was begun."""
        return self._devices[where]

    def _add_file_system(self, dir_fd: int) -> int:
        """Return which file system a directory is on; hold a descriptor on each."""
        device = os.fstat(dir_fd).st_dev
        if device not in self._fds:
            is_known = self._together and can_sync_file_system(dir_fd)
            self._fds[device] = os.dup(dir_fd) if is_known else None
            if is_fuse(dir_fd):
                self._fuse.add(device)
        return device

    def finish(self, places: Sequence[Where], *, new: bool) -> None:
        """Return when all that was written and renamed in these directories is durable.

        :param places: directories that were begun
        :param new: whether the directories themselves may be new, and those above them
        """
        single = [where for where in places if self.is_single(where)]
        tops = {names[:depth] for names in single for depth in range(len(names))} if new else set()
        for names in {*tops, *single}:
            with durable.opened(durable.walk_down(self._root_fd, names)) as fd:
                os.fsync(fd)
        self.finish_file_systems(places)

    def finish_file_systems(self, places: Collection[Where]) -> None:
        """As `finish`, but for directories that are forced one by one: these are the caller's."""
        for device in {self._devices[where] for where in places if where in self._devices}:
            fd = self._fds[device]
            if fd is not None:
                sync_file_system(fd)

    def is_single(self, where: Where) -> bool:
        """Whether a directory is to be forced by itself, with its files."""
        device = self._devices.get(where)
        return device is None or self._fds[device] is None

    def forgets_names(self, where: Where) -> bool:
        """Return True if forcing a directory that was begun may do nothing: most FUSE file systems
        (bindfs, mergerfs, sshfs) cannot do that, and the kernel then says that it is done."""
        return self._devices[where] in self._fuse


def can_sync_file_system(fd: int) -> bool:
    """Whether syncfs makes everything durable on the file system that `fd` is on."""
    if sys.platform != "linux" or _kernel() < _SYNCFS_REPORTS_ERRORS:
        return False
    return file_system_type(fd) in SYNCFS_TYPES


@cache
def _kernel() -> tuple[int, ...]:
    return tuple(int(digits) for digits in os.uname().release.split("-")[0].split(".")[:2])
