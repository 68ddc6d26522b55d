# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Finding: in which directories of a store a crash lies."""

import os
from collections.abc import Iterator
from contextlib import suppress

from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layouts import Layout, Where
from crashmover.external.fs.links import open_directory
from crashmover.external.fs.mounts import is_local


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
