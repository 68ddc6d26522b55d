# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Trial: whether a file system that is not one of the usual disks does what a save needs.

One small file is made, tried and removed.  Readers ignore its name.
"""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.grounds import DISKS
from crashmover.external.fs.modes import Modes, NotKept
from crashmover.external.fs.mounts import mounts_of
from crashmover.external.fs.probing import deepest

_BYTES = b"crashmover"


def try_file_systems(root: Path, modes: Modes) -> list[str]:
    """Return what is otherwise than it should be, though crashes can be saved below a root.

    :raises NotKept: as `try_file_system`
    """
    differences: list[str] = []
    for number, mount in enumerate(mounts_of(root)):
        if mount.kind in DISKS:
            continue
        try:
            with opened(deepest(Path(mount.point) if number else root)) as dir_fd:
                differences += try_file_system(dir_fd, modes)
        except NotKept:
            raise
        except OSError:  # such as a full disk: it is in the way of saves only, and they say so
            continue
    return list(dict.fromkeys(differences))


def try_file_system(dir_fd: int, modes: Modes) -> list[str]:
    """Return what is otherwise than it should be, though crashes can be saved.

    :param dir_fd: a directory, open
    :raises NotKept: crashes cannot be saved safely there, or not with the umask that was asked for
    :raises OSError: no file can be made there
    """
    name, other = (durable.temporary_name(f"probe-{secrets.token_hex(8)}") for _ in range(2))
    fd = durable.create_new(dir_fd, name, modes.file)
    try:
        with opened(fd):
            _require("locked", lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
            os.write(fd, _BYTES)
            _require_reading_back(fd)
            modes.set(fd, os.fstat(dir_fd).st_dev)
            _require("forced to the disk", lambda: os.fsync(fd))
            _require("renamed", lambda: durable.rename(dir_fd, name, other))
            _require("forced to the disk with their directory", lambda: os.fsync(dir_fd))
            difference = modes.difference(fd)
    finally:
        for each in (name, other):  # closed before: rclone brings back what is open
            durable.remove_file(dir_fd, each)
    return [difference] if difference else []


def _require(what: str, do: Callable[[], None]) -> None:
    """Raise `NotKept` if the file system does not have a call; pass other errors on."""
    try:
        do()
    except OSError as error:
        if error.errno in durable.UNABLE:
            raise NotKept(f"files cannot be {what} there: {error.strerror}") from error
        raise


def _require_reading_back(fd: int) -> None:
    """Raise where a file can only be written once, from its start to its end.

    Such a mount uploads a file when it is closed, which is too late for an error.  It brings back
    what was removed while it was open.  Seen of rclone without a cache.
    """
    try:
        found = os.pread(fd, len(_BYTES), 0)
    except OSError:
        found = b""
    if found != _BYTES:
        raise NotKept(
            "a file cannot be read there while it is written; with rclone, use"
            " --vfs-cache-mode writes"
        )
