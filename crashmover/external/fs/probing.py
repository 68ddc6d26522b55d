# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Probing: what a save needs is tried, and what was tried is taken away again.

No directory of a day is made for it, nor the root: another process, which found it there, would be
in trouble when it is removed again.  Readers ignore the names of the files and the directory.
"""

import datetime as dt
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.modes import Modes, NotKept
from crashmover.external.fs.mounts import DISKS, mounts_of
from crashmover.external.fs.staging import StagedSave
from crashmover.external.fs.tree import Tree
from crashmover.external.probing import probe_crash

_BYTES = b"crashmover"


def look(root: Path, *, write: bool) -> None:
    """Check that a directory can be read; or that files can be made there, once what is missing is
    made; raise OSError if not."""
    there = root
    while write and not durable.exists(None, there):  # but not where a link leads to
        there = there.parent
    os.close(durable.open_root(there))
    if write and not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise _why_not_writable(there)


def _why_not_writable(directory: Path) -> OSError:
    """Return the error of making a file in a directory that `os.access` has found not writable.

    It only says that, and statvfs does not know of a read-only snapshot or subvolume of Btrfs.  A
    file without a name (O_TMPFILE) is refused with the reason, and leaves nothing where it is not.
    """
    number = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
    try:
        os.close(os.open(directory, os.O_RDWR | getattr(os, "O_TMPFILE", 0) | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EPERM):
            number = error.errno
    return OSError(number, os.strerror(number))


# All the steps of a save but the last, in a hidden directory


def probe(tree: Tree) -> dt.datetime:
    """Write where a crash of today would be saved, or where the first directory would be made that
    is missing there, and take it away again; return the time by the file system's clock."""
    crash = probe_crash()
    where = tree.layout.leaves(crash.crash_id)[0]
    with (
        opened(_deepest(tree.root, where)) as above_fd,
        _hidden_directory(above_fd, tree.modes.directory) as dir_fd,
    ):
        save = StagedSave(crash, tree, (), os.dup(dir_fd))
        try:
            save.write(os.fstat(dir_fd).st_dev, force=True)
            save.publish_dumps()
            os.fsync(dir_fd)
            os.fsync(above_fd)
            return save.time_of_dumps()
        finally:
            save.undo()
            save.close()


def _deepest(root: Path, where: Where = ()) -> int:
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
    """Make a directory, and remove it in the end."""
    name = _new_name()
    os.mkdir(name, mode, dir_fd=above_fd)
    try:
        with opened(durable.step(above_fd, name)) as fd:
            yield fd
    finally:
        with suppress(OSError):
            os.rmdir(name, dir_fd=above_fd)


def _new_name() -> str:
    return durable.temporary_name(f"probe-{secrets.token_hex(8)}")


# One file, on each file system that is not one of the usual disks


def try_file_systems(tree: Tree) -> list[str]:
    """Return what is otherwise than it should be, though crashes can be saved below the root; raise
    `NotKept` if they cannot be saved safely, or not with the umask that was asked for."""
    differences: list[str] = []
    for number, mount in enumerate(mounts_of(tree.root)):
        if mount.kind in DISKS:
            continue
        try:
            with opened(_deepest(Path(mount.point) if number else tree.root)) as dir_fd:
                differences += _try_file_system(dir_fd, tree.modes)
        except NotKept:
            raise
        except OSError:  # such as a full disk: it is in the way of saves only, and they say so
            continue
    return list(dict.fromkeys(differences))


def _try_file_system(dir_fd: int, modes: Modes) -> list[str]:
    name, other = _new_name(), _new_name()
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
            return modes.differences(fd)
    finally:
        for each in (name, other):  # closed before: rclone brings back what is open
            durable.remove_file(dir_fd, each)


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
