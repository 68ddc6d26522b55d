# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Probing: all the steps of a save but the last, in a hidden directory.

No directory of a day is made for it, nor the root: another process, which found it there, would be
in trouble when it is removed again.
"""

import datetime as dt
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layouts import Layout, Where
from crashmover.external.fs.modes import Modes
from crashmover.external.fs.staging import StagedSave
from crashmover.external.probing import probe_crash


def probe(root: Path, layout: Layout, modes: Modes) -> dt.datetime:
    """Write where a crash of today would be saved, or where the first directory would be made that
    is missing there, and take it away again; return what time it was by the file system's clock.

    :raises OSError: that cannot be done
    """
    crash = probe_crash()
    where = layout.directories(crash.crash_id)[0]
    with (
        opened(deepest(root, where)) as above_fd,
        _hidden_directory(above_fd, modes.directory) as dir_fd,
    ):
        save = StagedSave(crash, layout, modes, where, os.dup(dir_fd))
        try:
            save.write(os.fstat(dir_fd).st_dev, force=True)
            save.publish_dumps()
            os.fsync(dir_fd)
            os.fsync(above_fd)
            return save.time_of_dumps()
        finally:
            save.undo()
            save.close()


def deepest(root: Path, where: Where = ()) -> int:
    """Open the last directory on the way to `where` that is there."""
    try:
        root_fd = durable.open_root(root)
    except FileNotFoundError:
        return durable.open_root(next(path for path in root.parents if path.exists()))
    with opened(root_fd):
        for depth in range(len(where), 0, -1):
            with suppress(FileNotFoundError):
                return durable.walk_down(root_fd, where[:depth])
        return os.dup(root_fd)


@contextmanager
def _hidden_directory(above_fd: int, mode: int) -> Iterator[int]:
    """Make a directory, whose name readers ignore, and remove it in the end."""
    name = durable.temporary_name(f"probe-{secrets.token_hex(8)}")
    os.mkdir(name, mode, dir_fd=above_fd)
    try:
        with opened(durable.step(above_fd, name)) as fd:
            yield fd
    finally:
        with suppress(OSError):
            os.rmdir(name, dir_fd=above_fd)
