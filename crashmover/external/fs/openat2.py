# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""openat2(2): open what lies several directories down, following no symbolic link on the way.

One call for what takes two for every directory otherwise.  Python does not have it.
"""

import ctypes
import errno
import os
import sys
from functools import cache

# From linux/openat2.h; the number of the call is the same on all but a few old kinds of machine,
# where it is nobody's, and the other way is gone.
_SYS_OPENAT2 = 437
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_UNKNOWN = {errno.ENOSYS, errno.EPERM}  # before Linux 5.6; a sandbox that does not know it


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def is_there() -> bool:
    """Whether this system has the call."""
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
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
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
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    function.argtypes = (
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    return function
