# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Settling: whether a file has not changed since a directory was listed.

Each save gives the raw crash's file a new change time, by the file system's clock.  So a crash is
as it was listed if its change time does not lie between the listing and now.  This machine's clock
is the file system's on a local disk.  On a server's disk the lock tells the time: a process has
just made its file there.
"""

import os
import time
from typing import NamedTuple

from crashmover.external.fs.mounts import is_local

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


class Moment(NamedTuple):
    """A moment by a file system's clock, in nanoseconds.

    :param earliest: it was not before
    :param latest: no file that was changed until then has a later time; None: not known
    """

    earliest: int
    latest: int | None


def now_at(dir_fd: int, lock: Lock | None = None) -> Moment:
    """Return the time by the clock of a directory's file system.

    :param lock: in that directory; until it is let go, other processes do not touch its crash
    """
    if lock:
        changed = os.fstat(lock.fd).st_ctime_ns
        return Moment(changed, changed)
    now = time.time_ns()
    return Moment(now, now) if is_local(dir_fd) else Moment(now - ELSEWHERE_NS, None)


def has_settled(changed_ns: int, listed: Moment, now: Moment) -> bool:
    """Return True if a file with that change time has not changed between these moments.

    A time that is ahead of the clock comes from a clock that was wrong, and from before.
    """
    listed_ns = listed.earliest - SETTLED_NS
    if now.earliest < listed_ns:  # the clock was set back in between
        return False
    is_ahead = now.latest is not None and changed_ns > now.latest + SETTLED_NS
    return changed_ns < listed_ns or is_ahead


class Rest(NamedTuple):
    """The state of a directory that has not changed since this process first saw it so.

    :param state: its own times, which change with every file that is made in it or removed
    :param since_ns: by this machine's monotonic clock
    """

    state: tuple[int, int]
    since_ns: int


def rest_of(dir_fd: int, before: Rest | None) -> Rest:
    """Return the state of a directory.

    :param before: what this returned earlier for that directory
    """
    status = os.fstat(dir_fd)
    state = status.st_mtime_ns, status.st_ctime_ns
    if before and before.state == state:
        return before
    return Rest(state, time.monotonic_ns())
