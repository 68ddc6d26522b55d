# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""System calls that Python does not have: openat2, statx, syncfs, renameat2 and fstatfs.

openat2 opens what lies several directories down, following no symbolic link on the way: one call
for what takes two for every directory otherwise.
"""

import ctypes
import errno
import os
import sys
from functools import cache

# From linux/openat2.h.  The number of the call is the same on all but a few old kinds of machine.
# There, no call has it, and directories are opened one by one.
_SYS_OPENAT2 = 437
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_UNKNOWN = {errno.ENOSYS, errno.EPERM}  # before Linux 5.6; a sandbox that does not know it

_EMPTY_PATH = 0x1000  # from linux/fcntl.h: the descriptor itself
_FORCE_SYNC = 0x2000
_BASIC_STATS = 0x7FF  # from linux/stat.h
_STATX_SIZE = 256  # bytes

_RENAME_NOREPLACE = 1  # from linux/fs.h


@cache
def libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None, use_errno=True)


def _failure(path: str | None = None) -> OSError:
    """Return the error of the call that has just failed."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


# openat2(2)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def has_openat2() -> bool:
    """Return True if this system has the call."""
    if sys.platform != "linux":
        return False
    fd = _openat2(os.fsencode(os.curdir), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if fd < 0:
        return ctypes.get_errno() not in _UNKNOWN
    os.close(fd)
    return True


def open_below(dir_fd: int, path: str, flags: int) -> int:
    """Open what is at `path` below an open directory.

    :raises OSError: ELOOP where something on the way, or the last of it, is a symbolic link
    """
    fd = _openat2(os.fsencode(path), flags, dir_fd)
    if fd < 0:
        raise _failure(path)
    return fd


def _openat2(path: bytes, flags: int, dir_fd: int = -100) -> int:  # AT_FDCWD
    how, size = _how(flags)
    fd: int = _syscall()(_SYS_OPENAT2, dir_fd, path, how, size)
    return fd


@cache
def _how(flags: int) -> tuple[ctypes.c_void_p, int]:
    # Kept for ever, as what the pointer points to must be.
    how = _OpenHow(flags, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    _kept.append(how)
    return ctypes.c_void_p(ctypes.addressof(how)), ctypes.sizeof(how)


_kept: list[_OpenHow] = []


@cache
def _syscall() -> "ctypes._NamedFuncPointer":
    function = libc().syscall
    function.restype = ctypes.c_long
    types = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    function.argtypes = types
    return function


# The other calls


def status_from_server(fd: int) -> os.stat_result:
    """Return the status of an open file; from a cache only where the system has no statx(2).

    A FUSE or network mount answers a plain stat from the kernel's cache: FUSE for a second, NFS
    for up to a minute.  NFS asks the server when a file is opened (close-to-open consistency,
    nfs(5)); FUSE does not.
    """
    if statx := _statx():
        buffer = ctypes.create_string_buffer(_STATX_SIZE)
        statx(fd, b"", _EMPTY_PATH | _FORCE_SYNC, _BASIC_STATS, buffer)  # this fills the cache
    return os.fstat(fd)


@cache
def _statx() -> "ctypes._NamedFuncPointer | None":
    if sys.platform != "linux":
        return None
    function = getattr(libc(), "statx", None)
    if function:
        types = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
        function.argtypes = types
    return function


def sync_file_system(fd: int) -> None:
    """Force all of the file system that an open file is on to the disk: syncfs(2).

    :raises OSError: something could not be written since the file was opened
    """
    if libc().syncfs(fd) != 0:
        raise _failure()


def rename_to_new(dir_fd: int, old: str, new: str) -> None:
    """Give a file a name in the same directory that nothing has: renameat2(2).

    :raises FileExistsError: something has it
    :raises OSError: the system or the file system does not have the call
    """
    rename = getattr(libc(), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), _RENAME_NOREPLACE) != 0:
        raise _failure()


def file_system_type(fd: int) -> int | None:
    """Return the number of the file system's type, as in statfs(2); None where the system does
    not tell."""
    if sys.platform != "linux":
        return None
    buffer = (ctypes.c_long * 64)()  # struct statfs begins with f_type, a long
    return None if libc().fstatfs(fd, buffer) != 0 else buffer[0] & 0xFFFFFFFF
