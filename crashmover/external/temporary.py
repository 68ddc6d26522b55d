# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A directory for the temporary files of this process."""

import atexit
import os
import shutil
import tempfile
from functools import cache


def private_directory() -> str:
    """Return a directory that no other user can read or write.  It is made at the first call, and
    is removed with all that is in it when this process ends."""
    return _directory_of(os.getpid())  # a process that was forked gets its own


@cache
def _directory_of(pid: int) -> str:
    directory = tempfile.mkdtemp(prefix="crashmover-")
    atexit.register(_remove, directory, pid)
    return directory


def _remove(directory: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)
