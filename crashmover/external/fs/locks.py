# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Locks: a process that saves or removes a crash holds the crash's lock, a file beside its own.

The lock of a crash is the file that becomes its raw crash, under its temporary name, and is locked
with ``flock``.  So two processes do not save one crash at the same time.  A processed crash that
is saved by itself has a lock of its own.

A process that is killed leaves its lock.  The next save or removal of the crash finds this stale
lock, and clears away what the process left.

A disk may have no room for a lock, just when crashes are to be removed from it.  Then the file
that is to be removed first becomes the lock.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.directory_index import files_anew
from crashmover.external.fs.layouts import Layout
from crashmover.external.fs.settling import Lock
from crashmover.external.fs.syscalls import rename_to_new

LOCK_TIMEOUT_S = 30.0  # to wait for another process that is saving the same crash
_PAUSE_S = 0.01

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.ELOOP}  # the last, of what `durable` refuses
_TO_LOCK = os.O_RDWR | durable.NO_LINK
_SAVING = "another process is saving it"


@dataclass(frozen=True)
class CrashLocks:
    """The locks of one crash in one directory, which is open."""

    dir_fd: int
    layout: Layout
    crash_id: str

    def name(self, kind: Kind) -> str:
        """Return the name of the lock of a raw or processed crash."""
        return durable.temporary_name(self.layout.file_name(self.crash_id, kind))

    @contextmanager
    def of_removal(self, first: str, *, turn: bool = False) -> Iterator[Lock]:
        """Hold the lock of the raw crash, and remove it in the end.

        Where the removal fails, the lock stays, as if the process had died.

        :param first: the file that is removed first, and may be gone already when this is entered
        :param turn: make that file the lock if possible: ext4 takes long to make a file
        """
        name = self.name(Kind.RAW_CRASH)
        lock = _taken_or_turned(self.dir_fd, name, first, turn)
        with durable.opened(lock.fd):
            if lock.was_left:
                self.remove_left_over()
            yield lock
            durable.remove_file(self.dir_fd, name)

    @contextmanager
    def of_processed(self, *, is_needed: bool) -> Iterator[None]:
        """Hold the lock of the processed crash, and remove it in the end.

        A full disk has no room for it, and hardly any for a process that would save one.

        :param is_needed: False: a lock that this process may not take is removed
        """
        name = self.name(Kind.PROCESSED_CRASH)
        try:
            fd, _ = lock(self.dir_fd, name)
        except OSError as error:
            is_not_ours = error.errno in _NOT_OURS and not is_needed
            if error.errno not in _FULL and not is_not_ours:
                raise
            yield
            if is_not_ours:
                durable.remove_file(self.dir_fd, name)
            return
        with durable.opened(fd):
            try:
                yield
            finally:
                durable.remove_file(self.dir_fd, name)

    def remove_left_over(self) -> None:
        """Remove the temporary files of dumps that a process which died has left, as far as
        possible: the next save may have other dumps.  The raw crash's lock is held."""
        for name in files_anew(self.dir_fd, f".{self.crash_id}", self.name(Kind.RAW_CRASH)):
            final = durable.final_name(name)
            if final is not None and self.layout.is_dump(final):
                with suppress(OSError):
                    durable.remove_file(self.dir_fd, name)

    def clear(self, kind: Kind, *, without_lock: bool = False) -> None:
        """Remove a stale lock, and what the process that died under it left.

        :param kind: of the part whose lock it is
        :param without_lock: also where only other files were left
        :raises OSError: there is none, or a process holds it, or a file cannot be removed
        """
        name = self.name(kind)
        fd = lock(self.dir_fd, name, 0.0)[0] if without_lock else _stale(self.dir_fd, name)
        with durable.opened(fd):
            if kind is Kind.RAW_CRASH:
                if not durable.exists(self.dir_fd, self.layout.file_name(self.crash_id, kind)):
                    self._remove_dumps(name)  # or the next save would take them for its own
                self.remove_left_over()
            durable.remove_file(self.dir_fd, name)

    def _remove_dumps(self, lock_name: str) -> None:
        found = files_anew(self.dir_fd, self.crash_id, lock_name)
        for file in filter(self.layout.is_dump, found):
            durable.remove_file(self.dir_fd, file)


def lock(
    dir_fd: int, name: str, timeout: float = LOCK_TIMEOUT_S, *, mode: int = durable.PRIVATE
) -> tuple[int, bool]:
    """Open and lock the file `name`, empty; return its descriptor, and whether it was there
    before: a stale lock.

    :param mode: of a new file, less what the process's own umask takes away
    :raises BlockingIOError: another process holds it, for the whole of the timeout
    """
    deadline = time.monotonic() + timeout
    while True:
        fd, found = _open_or_create(dir_fd, name, mode)
        with durable.closed_on_error(fd):
            if _is_flocked(fd, fcntl.LOCK_EX, deadline) and _is_still(fd, dir_fd, name):
                if found:
                    os.ftruncate(fd, 0)
                return fd, found
        os.close(fd)


def _stale(dir_fd: int, name: str) -> int:
    """Open and lock a file that no process holds; raise OSError if there is none such."""
    fd = os.open(name, _TO_LOCK, dir_fd=dir_fd)
    with durable.closed_on_error(fd):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(fd, dir_fd, name):  # the process that held it has put it in place
            raise BlockingIOError(errno.EAGAIN, _SAVING)
    return fd


def wait_for_unlocked(dir_fd: int, name: str, timeout: float = LOCK_TIMEOUT_S) -> bool:
    """Return True when no process holds the lock of a file; False, at once, if it is missing.

    :raises BlockingIOError: a process holds it, for the whole of the timeout
    """
    try:
        fd, _ = durable.open_regular(dir_fd, name)
    except FileNotFoundError:
        return False
    deadline = time.monotonic() + timeout
    with durable.opened(fd):
        while not _is_flocked(fd, fcntl.LOCK_SH, deadline):
            pass
    return True


def _is_flocked(fd: int, how: int, deadline: float) -> bool:
    """Lock an open file; return False, after a pause, where another process holds the lock."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        if time.monotonic() > deadline:
            raise BlockingIOError(errno.EAGAIN, _SAVING) from None
        time.sleep(_PAUSE_S)
        return False
    return True


def create(dir_fd: int, name: str, mode: int = durable.PRIVATE) -> int:
    """Open the file `name`, empty, where a lock on another file keeps other processes from it."""
    fd, found = _open_or_create(dir_fd, name, mode)
    if found:  # the process that held that lock has died
        with durable.closed_on_error(fd):
            if not _is_still(fd, dir_fd, name):
                raise BlockingIOError(errno.EAGAIN, f"{name} is removed again and again")
            os.ftruncate(fd, 0)
    return fd


def _open_or_create(dir_fd: int, name: str, mode: int) -> tuple[int, bool]:
    while True:
        try:
            return durable.create_new(dir_fd, name, mode), False
        except FileExistsError:
            pass
        with suppress(FileNotFoundError):
            return os.open(name, _TO_LOCK, dir_fd=dir_fd), True


def _is_still(fd: int, dir_fd: int, name: str) -> bool:
    """Return True if the open file is the one of that name; raise OSError if it has another name,
    too, or is no regular file: it is no file of ours."""
    ours = os.fstat(fd)
    if not stat.S_ISREG(ours.st_mode) or ours.st_nlink > 1:
        raise durable.refused(f"{name} is not a temporary file of ours")
    try:
        return os.path.samestat(ours, durable.status(dir_fd, name))
    except FileNotFoundError:
        return False


# On a full disk


def _taken_or_turned(dir_fd: int, name: str, first: str, turn: bool) -> Lock:
    if turn:
        with suppress(OSError):  # whatever it is, the other way gets over it, or says it
            return Lock(name, _turned_into_lock(dir_fd, name, first), turned=True)
    try:
        return Lock(name, *lock(dir_fd, name))
    except OSError as error:
        if error.errno not in _FULL or turn:
            raise
        return Lock(name, _turned_into_lock(dir_fd, name, first, error), turned=True)


def _turned_into_lock(dir_fd: int, name: str, first: str, full: OSError | None = None) -> int:
    """Lock a file and rename it: readers ignore a temporary name.  Raise `full` if that is not
    possible."""
    full = full or OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fd = os.open(first, _TO_LOCK, dir_fd=dir_fd)
    with durable.closed_on_error(fd):
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # `_is_still` refuses these
            raise full
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            rename_to_new(dir_fd, first, name)
        except FileExistsError:
            raise BlockingIOError(errno.EAGAIN, _SAVING) from None
        except OSError:
            raise full from None
        if not durable.is_same_file(fd, dir_fd, name):
            raise BlockingIOError(errno.EAGAIN, "another process has just saved it")
    return fd
