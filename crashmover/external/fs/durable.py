# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Durable files and directories: each is there in whole and for good, or not at all.

A file is written under a temporary name in the directory where it will be, forced to the disk, and
renamed.  Where no reader looks for it yet, it is written under its own name.  Directories are
entered one by one, never through a symbolic link.

The temporary name is a function of the final one.  When a process is killed, the next save of that
crash takes over what the process left.

Whatever goes wrong here is an `OSError`; `FSPermanentStorage` says what it means.
"""

import errno
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

from crashmover.external.fs import syscalls

MOST_HELD = 64  # directories that a process holds at a time
_SHARE_HELD = 1 / 8  # of the files that may be open: a save takes three for each of a batch

PRIVATE = 0o600  # the mode of a new file, unless another is given
_TEMPORARY = ".tmp"
_CHUNK = 1 << 20  # bytes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How to open a file.  O_NONBLOCK: a FIFO under a crash's name must not hang this process, and
regular files ignore it."""

UNABLE = frozenset(
    (errno.EACCES, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
)
"""What a file system answers to a valid call, on a file of this process, that it does not have."""


def refused(what: str) -> OSError:
    """Return the error for what is there, and is not to be followed or touched."""
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
    except FileExistsError:  # another process was quicker
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
    """Close a descriptor in the end.  No generator, as there are many of these for every crash."""

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
    """A directory that stays open as long as this object lives."""

    __slots__ = ("fd",)
    _all: ClassVar[set[int]] = set()

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._all.add(fd)

    @classmethod
    def of(cls, dir_fd: int) -> Self | None:
        """Hold a directory that is open; return None if about `MOST_HELD` are held, or few further
        files may be open: other work needs those."""
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
        """Pickle None: a copy, in this process or another, is read by its path."""
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
    """Open a file to read it, and return its status too; `refused` if it is no regular file."""
    try:
        fd = os.open(name, os.O_RDONLY | NO_LINK, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused(f"{name} is a symbolic link") from None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise refused(f"{name} is no regular file")
    return fd, found


def status(dir_fd: int | None, name: str | Path) -> os.stat_result:
    """Return the status of what has that name in an open directory, be it a symbolic link; or of
    what is at that path, without one."""
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def exists(dir_fd: int | None, name: str | Path) -> bool:
    """Return True if anything is there, as `status` finds it; raise OSError if that cannot be
    known, as below a mount whose server is gone."""
    try:
        status(dir_fd, name)
    except FileNotFoundError:
        return False
    return True


def temporary_name(name: str) -> str:
    """Return what a file is called until it is whole; readers ignore names with a dot first."""
    return f".{name}{_TEMPORARY}"


def final_name(name: str) -> str | None:
    """Return what a file will be called that has this temporary name; None if it has none."""
    is_temporary = name.startswith(".") and name.endswith(_TEMPORARY)
    return name[1 : -len(_TEMPORARY)] if is_temporary else None


def create_new(dir_fd: int, name: str, mode: int = PRIVATE) -> int:
    """Open the file `name`, which is not there yet; `FileExistsError` if it is.

    :param mode: of the file, less what the process's own umask takes away
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK
    return os.open(name, flags, mode, dir_fd=dir_fd)


def is_same_file(fd: int, dir_fd: int, name: str) -> bool:
    """Return True if the open file is the one of that name."""
    return os.path.samestat(os.fstat(fd), status(dir_fd, name))


def rename(dir_fd: int, old: str, new: str) -> None:
    """Give a file another name in its directory, in place of what has that name."""
    os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def same_bytes(dir_fd: int, name: str, other: str) -> bool:
    """Return True if two files of a directory have the same bytes."""
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
