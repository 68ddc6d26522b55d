# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""statx(2): the status of an open file, from the server that has it and not from a cache.

A FUSE or network mount answers a plain stat from the kernel's cache: FUSE for a second, NFS for up
to a minute.  NFS asks the server when a file is opened (close-to-open consistency, nfs(5)); FUSE
does not.  Python does not have this call.
"""

import ctypes
import os
import sys
from functools import cache

_EMPTY_PATH = 0x1000  # from linux/fcntl.h: the descriptor itself
_FORCE_SYNC = 0x2000
_BASIC_STATS = 0x7FF  # from linux/stat.h
_STATX_SIZE = 256  # bytes


def status_from_server(fd: int) -> os.stat_result:
    """Return the status of an open file; from a cache only where the system has no statx."""
    if statx := _statx():
        buffer = ctypes.create_string_buffer(_STATX_SIZE)
        statx(fd, b"", _EMPTY_PATH | _FORCE_SYNC, _BASIC_STATS, buffer)  # this fills the cache
    return os.fstat(fd)


@cache
def _statx() -> "ctypes._NamedFuncPointer | None":
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if function:
        function.argtypes = (
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_char_p,
        )
    return function
