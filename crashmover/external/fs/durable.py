# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Files that are there in whole and for good, or not at all.

A file is written under a temporary name in the directory where it will be, forced to the
disk, and renamed; or, where nobody takes notice of it yet, under its own.  Directories are
stepped into one by one, never through a symbolic link.

The temporary name is a function of the final one and is locked (``flock``) while it is in
use: that keeps two processes from saving one crash at the same time, and when a process is
killed, what it left is taken over by the next save of that crash instead of piling up.

Whatever goes wrong here is an `OSError`; `FSPermanentStorage` says what it means.
"""

import errno
import fcntl
import os
import resource
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

from crashmover.external.fs import syscalls

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another process that is saving the same crash."""

MOST_HELD = 64
"""Directories that a process holds at a time."""

TEMPORARY = ".tmp"
"""What a temporary name ends with."""

_SHARE_HELD = 1 / 8  # of the files that may be open: a save takes three for each of a batch

_PRIVATE = 0o600  # the mode of a new file, where nothing else is said

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a FIFO under a crash's name must not hang us; regular files ignore it.
_NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_CHUNK = 1 << 20

UNABLE = frozenset(
    (errno.EACCES, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
)
"""What a file system answers to a valid call on a file of our own that it does not have."""


def refused(what: str) -> OSError:
    """The error for something that is there, and that we will not follow or touch."""
    return OSError(errno.ELOOP, what)


# Directories


def step(parent_fd: int, name: str) -> int:
    """Open the directory `name` in another; a symbolic link is refused."""
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    except NotADirectoryError:
        raise refused(f"{name} is a symbolic link or no directory") from None


def walk_down(root_fd: int, names: Sequence[str]) -> int:
    """Open the directory that is `names` below another."""
    if syscalls.has_openat2():
        try:
            return syscalls.open_below(root_fd, "/".join(names) or ".", _DIRECTORY)
        except FileNotFoundError:
            raise
        except OSError:  # whatever it is, the other way says it, and where
            pass
    current = os.dup(root_fd)
    for name in names:
        try:
            following = step(current, name)
        finally:
            os.close(current)
        current = following
    return current


def make_down(root_fd: int, names: Sequence[str], mode: int) -> int:
    """Open the directory that is `names` below another, making what is missing."""
    try:
        return walk_down(root_fd, names)
    except FileNotFoundError:
        if not names:
            raise
    with opened(make_down(root_fd, names[:-1], mode)) as parent_fd:
        return _make(parent_fd, names[-1], mode)


def _make(parent_fd: int, name: str, mode: int) -> int:
    """Make a directory and open it."""
    try:
        os.mkdir(name, mode, dir_fd=parent_fd)
    except FileExistsError:  # somebody else was quicker
        return step(parent_fd, name)
    fd = step(parent_fd, name)
    permissions = stat.S_IMODE(os.fstat(fd).st_mode)
    if permissions & 0o777 != mode:  # the process's own umask took something away
        with closed_on_error(fd):
            set_mode(fd, permissions & ~0o777 | mode)
    return fd


def set_mode(fd: int, mode: int) -> bool:
    """Set the mode of an open file or directory; return False if the file system refuses that."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        return False
    return True


class opened:
    """Close a descriptor in the end: ``with opened(fd): ...``.

    No generator, as there are many of these for every crash.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)


class closed_on_error(opened):
    """Close a descriptor unless all is well."""

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            os.close(self._fd)


class HeldDirectory:
    """A directory that stays open as long as somebody has this."""

    __slots__ = ("fd",)
    _all: ClassVar[set[int]] = set()

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._all.add(fd)

    @classmethod
    def of(cls, dir_fd: int) -> Self | None:
        """Hold a directory that is open; None where enough of them are held, or no further file
        may be open: there are other uses for those."""
        if len(cls._all) >= MOST_HELD:
            return None
        try:
            fd = os.dup(dir_fd)
        except OSError:
            return None
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most != resource.RLIM_INFINITY and fd >= most * _SHARE_HELD:
            os.close(fd)
            return None
        return cls(fd)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copy, in this process or another, holds nothing: it is read by its path."""
        return type(None), ()

    def __del__(self) -> None:
        self._all.discard(self.fd)
        os.close(self.fd)


@contextmanager
def entries(dir_fd: int) -> Iterator[Iterator["os.DirEntry[str]"]]:
    """List an open directory, as it is now.

    The directory is opened anew, because a descriptor may list the past.  Btrfs (since Linux 6.5)
    and an overlay over it list what there was when the descriptor was opened.  sshfs lists a
    descriptor only once.
    """
    fd = step(dir_fd, ".")
    try:
        with os.scandir(fd) as found:
            yield found
    finally:
        with suppress(OSError):  # nothing was written by it
            os.close(fd)


def names(dir_fd: int) -> list[str]:
    """Return the names in an open directory, as `entries` lists them."""
    with entries(dir_fd) as found:
        return [entry.name for entry in found]


def make_root(path: Path, mode: int) -> int:
    """Open a directory by its path, making it and its parents, durably, where missing."""
    try:
        return os.open(path, _DIRECTORY)
    except FileNotFoundError:
        with opened(make_root(path.parent, mode)) as parent_fd:
            fd = _make(parent_fd, path.name, mode)
            os.fsync(parent_fd)
            return fd


def open_root(path: Path) -> int:
    """Open a directory by its path."""
    return os.open(path, _DIRECTORY)


# Files


def open_regular(dir_fd: int, name: str) -> tuple[int, os.stat_result]:
    """Open a file to read it, and return its status too; what is no regular file (a link, a
    FIFO) is refused."""
    try:
        fd = os.open(name, os.O_RDONLY | _NO_LINK, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused(f"{name} is a symbolic link") from None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise refused(f"{name} is no regular file")
    return fd, found


def status(dir_fd: int, name: str) -> os.stat_result:
    """Return the status of what has that name, be it a symbolic link."""
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def exists(dir_fd: int, name: str) -> bool:
    """Whether anything has that name."""
    try:
        status(dir_fd, name)
    except FileNotFoundError:
        return False
    return True


def temporary_name(name: str) -> str:
    """What a file is called until it is whole; readers ignore names with a dot first."""
    return f".{name}{TEMPORARY}"


def lock(
    dir_fd: int, name: str, timeout: float = LOCK_TIMEOUT, *, mode: int = _PRIVATE
) -> tuple[int, bool]:
    """Open and lock the file `name`, empty; return its descriptor and whether it was there
    before, left by a process that died.

    :param mode: of a new file, less what the process's own umask takes away
    :raises BlockingIOError: somebody else holds it, and went on holding it
    """
    deadline = time.monotonic() + timeout
    while True:
        fd, found = _open_or_create(dir_fd, name, mode)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(fd, dir_fd, name):
                if found:
                    os.ftruncate(fd, 0)
                return fd, found
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise BlockingIOError(errno.EAGAIN, "another process is saving it") from None
            time.sleep(0.01)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def wait_for_unlocked(dir_fd: int, name: str, timeout: float = LOCK_TIMEOUT) -> bool:
    """Return when nobody holds the lock of a file; at once, and False, where there is no file.

    :raises BlockingIOError: somebody went on holding it
    """
    try:
        fd, _ = open_regular(dir_fd, name)
    except FileNotFoundError:
        return False
    deadline = time.monotonic() + timeout
    with opened(fd):
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BlockingIOError(errno.EAGAIN, "another process is saving it") from None
            time.sleep(0.01)


def create_new(dir_fd: int, name: str, mode: int = _PRIVATE) -> int:
    """Open the file `name`, which is not there yet.

    :param mode: of the file, less what the process's own umask takes away
    :raises FileExistsError: it is
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK
    return os.open(name, flags, mode, dir_fd=dir_fd)


def create(dir_fd: int, name: str, mode: int = _PRIVATE) -> int:
    """Open the file `name`, empty, where a lock on another keeps all other processes from it."""
    fd, found = _open_or_create(dir_fd, name, mode)
    if found:  # a process has died that held that lock
        with closed_on_error(fd):
            if not _is_still(fd, dir_fd, name):
                raise BlockingIOError(errno.EAGAIN, f"{name} is removed again and again")
            os.ftruncate(fd, 0)
    return fd


def _open_or_create(dir_fd: int, name: str, mode: int) -> tuple[int, bool]:
    while True:
        try:
            return create_new(dir_fd, name, mode), False
        except FileExistsError:
            pass
        with suppress(FileNotFoundError):
            return os.open(name, os.O_RDWR | _NO_LINK, dir_fd=dir_fd), True


def _is_still(fd: int, dir_fd: int, name: str) -> bool:
    """Whether the open file is the one of that name, and has no other name to be hurt by."""
    ours = os.fstat(fd)
    if not stat.S_ISREG(ours.st_mode) or ours.st_nlink > 1:
        raise refused(f"{name} is not a temporary file of ours")
    try:
        return os.path.samestat(ours, status(dir_fd, name))
    except FileNotFoundError:
        return False


def is_same_file(fd: int, dir_fd: int, name: str) -> bool:
    """Whether the open file is the one of that name."""
    return os.path.samestat(os.fstat(fd), status(dir_fd, name))


def rename(dir_fd: int, old: str, new: str) -> None:
    """Give a file another name in the same directory, in place of what has that name."""
    os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def same_bytes(dir_fd: int, name: str, other: str) -> bool:
    """Whether two files of a directory hold the same."""
    with (
        os.fdopen(open_regular(dir_fd, name)[0], "rb", buffering=0) as file,
        os.fdopen(open_regular(dir_fd, other)[0], "rb", buffering=0) as another,
    ):
        while chunk := file.read(_CHUNK):
            if chunk != another.read(_CHUNK):
                return False
        return not another.read(1)


def remove_file(dir_fd: int, name: str) -> bool:
    """Remove a file; return whether there was one."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True
