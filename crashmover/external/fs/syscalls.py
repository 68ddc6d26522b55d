# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""System calls that Python does not have: openat2, statx, syncfs, renameat2 and fstatfs.

openat2 opens what lies several directories down, following no symbolic link on the way: one call
for what takes two for every directory otherwise.  fstatfs tells the type of a file system, and so
what is known of it.
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

_AT_FDCWD = -100  # from linux/fcntl.h: the working directory
_EMPTY_PATH = 0x1000  # the descriptor itself
_FORCE_SYNC = 0x2000
_BASIC_STATS = 0x7FF  # from linux/stat.h
_STATX_SIZE = 256  # bytes

_RENAME_NOREPLACE = 1  # from linux/fs.h


@cache
def libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None, use_errno=True)


def _failure(path: str | None = None) -> OSError:
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
    try:
        os.close(open_below(_AT_FDCWD, os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _UNKNOWN
    return True


def open_below(dir_fd: int, path: str, flags: int) -> int:
    """Open what is at `path` below an open directory; ELOOP if a symbolic link is in it."""
    how = _how(flags)
    fd: int = _syscall()(_SYS_OPENAT2, dir_fd, os.fsencode(path), how, ctypes.sizeof(_OpenHow))
    if fd < 0:
        raise _failure(path)
    return fd


@cache  # which keeps what the pointer points to
def _how(flags: int) -> "ctypes._Pointer[_OpenHow]":
    return ctypes.pointer(_OpenHow(flags, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH))


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
    """Force all of the file system that an open file is on to the disk: syncfs(2).  Raise OSError
    if something could not be written since the file was opened."""
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


# fstatfs(2)

# Where syncfs is known to write everything and to report what it could not write.  Not
# FUSE: the kernel does not pass syncfs on to it.
SYNCFS_TYPES = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0x01021994,  # tmpfs
}

# The file systems whose files only this machine's kernel changes.
_LOCAL_TYPES = SYNCFS_TYPES | {
    0xCA451A4E,  # bcachefs
    0x3153464A,  # JFS
    0x52654973,  # ReiserFS
    0x4D44,  # FAT
    0x2011BAB0,  # exFAT
    0x7366746E,  # NTFS
    0x858458F6,  # ramfs
    0x794C7630,  # overlay
}
_NFS = 0x6969
_FUSE = 0x65735546


def file_system_type(fd: int) -> int | None:
    """Return the number of the file system's type: statfs(2); None if the system does not tell."""
    if sys.platform != "linux":
        return None
    buffer = (ctypes.c_long * 64)()  # struct statfs begins with f_type, a long
    return None if libc().fstatfs(fd, buffer) != 0 else buffer[0] & 0xFFFFFFFF


def is_local(fd: int) -> bool:
    """Return True if an open file is on a file system that only this machine's kernel changes.

    Its times are by this machine's clock, and what it says of a file is never out of date.  This
    is not so for FUSE and network file systems, nor where the system does not tell.
    """
    return file_system_type(fd) in _LOCAL_TYPES


def has_directory_times(fd: int) -> bool:
    """Return True if a directory's times change whenever a file is made in it or removed.  Some
    FUSE file systems, such as rclone's mount, do not keep them."""
    return file_system_type(fd) in _LOCAL_TYPES | {_NFS}


def is_fuse(fd: int) -> bool:
    """Return True if an open file is on a FUSE file system."""
    return file_system_type(fd) == _FUSE
