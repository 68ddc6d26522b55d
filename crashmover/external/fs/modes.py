# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Modes and owners: which users may use what is saved, and whether the file system keeps that.

Some file systems refuse `chmod` (SMB, WebDAV, buckets by FUSE).  Others accept it and do nothing
(exFAT and NTFS by FUSE, rclone mounts): there the mount decides.  Root may write everywhere, and
leaves files that are its own.
"""

import errno
import os
import pwd
import stat
from pathlib import Path

from crashmover.external.fs import durable

DEFAULT_UMASK = 0o022


class NotKept(PermissionError):
    """The file system cannot do what a save needs, or does not keep the umask asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EPERM, text)


class Modes:
    """The modes of new files and directories.

    :param umask: what they are made without; None: `DEFAULT_UMASK`, where the file system keeps it
    :raises ValueError: `umask` would keep the owner out
    """

    def __init__(self, umask: int | None) -> None:
        mask = DEFAULT_UMASK if umask is None else umask
        if not 0 <= mask <= 0o077:
            raise ValueError("umask is 000 to 077: the owner must be able to use the files")
        self.file = 0o666 & ~mask
        self.directory = 0o777 & ~mask
        self._is_asked = umask is not None
        self._keeping: set[int] = set()  # devices that were found to keep the mode of a file

    def set(self, fd: int, device: int) -> None:
        """Set the mode of a new file.

        The first file on each device is looked at, where a umask was asked for: a private file that
        others may read must not be written.

        :param device: the number of the file system that the file is on
        :raises NotKept: the file system does not keep the umask that was asked for
        """
        has_set = durable.set_mode(fd, self.file)
        if not self._is_asked or (has_set and device in self._keeping):
            return
        found = mode_of(fd)
        if (found ^ self.file) & 0o077:  # of the owner's bits, NTFS and exFAT keep one more
            raise NotKept(
                f"files there get mode {found:04o}, and umask asks for {self.file:04o};"
                " mount it with that mode, or leave out umask"
            )
        self._keeping.add(device)

    def differences(self, fd: int) -> list[str]:
        """Return how the mode of a new file, after `set`, is not as it should be."""
        found = mode_of(fd)
        if found == self.file:
            return []
        return [f"files there get mode {found:04o} and not {self.file:04o}: the mount decides"]


def mode_of(fd: int) -> int:
    """Return the permissions of an open file: of the owner, the group, and others."""
    return stat.S_IMODE(os.fstat(fd).st_mode) & 0o777


def another_owner(directory: Path) -> str | None:
    """Return the owner of a directory, if this process is root's and the directory is not."""
    try:
        owner = os.stat(directory).st_uid
    except OSError:  # what is missing will be made, and the save says the rest
        return None
    if os.geteuid() != 0 or owner == 0:
        return None
    try:
        return f"the user {pwd.getpwuid(owner).pw_name}"
    except KeyError:
        return f"the user {owner}"
