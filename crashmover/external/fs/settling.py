# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Settling: whether a file has not changed since its directory was listed.

Each save gives the raw crash's file a new change time, by the file system's clock.  So a crash is
as it was listed unless its change time lies between the listing and now.  On a local disk, this
machine's clock is the file system's.  On a server's disk a lock tells the time: a process has just
made its file there.
"""

import os
import time
from typing import NamedTuple

from crashmover.external.fs.syscalls import is_local

SETTLED_NS = 2_000_000_000
"""Nanoseconds that a change time may be off: the clock ticks coarsely, that of FAT in 2 s."""

ELSEWHERE_NS = 60_000_000_000
"""Nanoseconds that a server's clock may be behind this machine's, and that a client may answer from
its cache: NFS does for 60 s (acdirmax, nfs(5)), sshfs for 20 s (dcache_timeout).  `doctor` warns of
clocks that differ by more."""


class Lock(NamedTuple):
    """The lock that this process holds of a crash: a file in the crash's directory.

    :param was_left: whether a process that died had left the file
    :param turned: whether it was a file of the crash, which has been renamed
    """

    name: str
    fd: int
    was_left: bool = False
    turned: bool = False


def now_at(dir_fd: int, lock: Lock | None = None) -> int:
    """Return the time by the clock of a directory's file system, in nanoseconds; or an earlier one
    if this process cannot know it better.

    :param lock: in that directory; until it is let go, other processes do not touch its crash
    """
    if lock:
        return os.fstat(lock.fd).st_ctime_ns
    return time.time_ns() - (0 if is_local(dir_fd) else ELSEWHERE_NS)


def has_settled(changed_ns: int, listed_ns: int, dir_fd: int, lock: Lock | None) -> bool:
    """Return True if a file with that change time is as it was when its directory was listed.

    :param listed_ns: what `now_at` returned before the listing
    :param lock: of the file's crash, if this process holds it
    """
    now_ns = now_at(dir_fd, lock)
    if now_ns < listed_ns - SETTLED_NS:  # the clock was set back in between
        return False
    return changed_ns < listed_ns - SETTLED_NS or _is_ahead(changed_ns, now_ns, dir_fd, lock)


def _is_ahead(changed_ns: int, now_ns: int, dir_fd: int, lock: Lock | None) -> bool:
    """Return True if a change time comes from a clock that was wrong, and so from before.

    The lock tells the file system's clock.  Without one, this machine's is taken for it on a local
    disk, unless the directory's own change time is ahead of that, too.
    """
    latest_ns = now_ns + SETTLED_NS
    if changed_ns <= latest_ns:
        return False
    return lock is not None or (is_local(dir_fd) and os.fstat(dir_fd).st_ctime_ns <= latest_ns)


class Rest(NamedTuple):
    """The state of a directory that has not changed since this process first saw it so.

    :param state: its own times, which change with every file that is made in it or removed
    :param since_ns: by this machine's monotonic clock
    """

    state: tuple[int, int]
    since_ns: int


def rest_of(dir_fd: int, before: Rest | None) -> Rest:
    """Return the state of a directory; `before` is what this returned earlier for it."""
    status = os.fstat(dir_fd)
    state = status.st_mtime_ns, status.st_ctime_ns
    if before and before.state == state:
        return before
    return Rest(state, time.monotonic_ns())
