# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Finding: in which directories of a store a crash lies.

The collectors of 2013 to 2017 left a link where the older layout has the crash's own directory.  It
is named by the crash id, and leads to the directory of the minute in which the crash came:
``../../../date/01/37_10``.  Source of the rule: Mozilla Socorro, ``FSLegacyDatedRadixTreeStorage``.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress

from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layouts import Layout, Where
from crashmover.external.fs.syscalls import is_local

_COLLECTORS_TARGET = re.compile(r"(\.\./)+[^./][^/]*/[0-9]{2}/[0-9]{2}_[0-9]+/?", re.ASCII)


def directories(root_fd: int, layout: Layout, crash_id: str) -> Iterator[tuple[Where, int]]:
    """Yield each of the directories that may have the crash, open, if it is there."""
    for leaf in layout.leaves(crash_id):
        with suppress(FileNotFoundError), opened(durable.walk_down(root_fd, leaf)) as fd:
            yield leaf, fd
            with opened(open_directory(fd, (crash_id,))) as own_fd:
                yield (*leaf, crash_id), own_fd


def find(root_fd: int, layout: Layout, crash_id: str, kind: Kind) -> Where | None:
    """Return the directory that has the part without which no reader sees that kind."""
    name = layout.file_name(crash_id, kind.marker)
    for where, dir_fd in directories(root_fd, layout, crash_id):
        if status_if_there(dir_fd, name):
            return where
    return None


def status_if_there(dir_fd: int, name: str) -> os.stat_result | None:
    """Return the status of a crash's file; None if it is missing.

    While a process replaces a file, exFAT by FUSE calls it missing for a moment.  So what is
    missing is looked for again where the file system is not a usual local one.
    """
    with suppress(FileNotFoundError):
        return durable.status(dir_fd, name)
    with suppress(FileNotFoundError):
        return None if is_local(dir_fd) else durable.status(dir_fd, name)
    return None


def open_directory(root_fd: int, where: Where) -> int:
    """Open the directory that is `where` below the root.  If a collector's link is in its place, it
    is missing: `FileNotFoundError`."""
    try:
        return durable.walk_down(root_fd, where)
    except OSError as error:
        if error.errno == errno.ELOOP:
            with suppress(OSError), opened(durable.walk_down(root_fd, where[:-1])) as above_fd:
                if is_collectors_link(above_fd, where[-1]):
                    error = FileNotFoundError(errno.ENOENT, "a collector's link")
        raise error from None


def is_collectors_link(dir_fd: int, name: str) -> bool:
    """Return True if `name` in an open directory is such a link; no link is followed."""
    with suppress(OSError):
        return _COLLECTORS_TARGET.fullmatch(os.readlink(name, dir_fd=dir_fd)) is not None
    return False
