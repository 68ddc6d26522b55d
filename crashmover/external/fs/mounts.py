# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mounts: which file systems this process sees, by ``/proc/self/mountinfo``, and which forget.

Source of the form: proc_pid_mountinfo(5).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from crashmover import crashid
from crashmover.external.fs.syscalls import file_system_type

_MOUNTINFO = Path("/proc/self/mountinfo")
_IN_MEMORY = {"tmpfs", "ramfs"}
_ESCAPED = re.compile(r"\\([0-7]{3})")

# The file systems whose files only this machine's kernel changes.  Numbers: statfs(2).
_LOCAL_TYPES = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xCA451A4E,  # bcachefs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0x3153464A,  # JFS
    0x52654973,  # ReiserFS
    0x4D44,  # FAT
    0x2011BAB0,  # exFAT
    0x7366746E,  # NTFS
    0x01021994,  # tmpfs
    0x858458F6,  # ramfs
    0x794C7630,  # overlay
}
_NFS = 0x6969
_FUSE = 0x65735546


@dataclass(frozen=True)
class Mount:
    """A file system at a place.

    :param point: an absolute path without links
    :param kind: such as ``ext4``, ``nfs4``, ``fuse.sshfs``
    :param options: of the file system, such as ``volatile``
    :param source: what is mounted: a device, a server's directory, or only a name
    """

    point: PurePath
    kind: str
    options: frozenset[str] = frozenset()
    source: str = ""

    def risk(self) -> str | None:
        """Return why what is written here may be lost when the power fails; None if no reason is
        known."""
        if self.kind in _IN_MEMORY:
            kept = "what is saved there is gone at a restart"
            return f"{self.point} is a {self.kind}, in memory: {kept}"
        if self.kind == "overlay" and "volatile" in self.options:
            return (
                f"{self.point} is an overlay that is mounted volatile: what is saved there"
                " may be gone after a crash of the system"
            )
        return None


def is_local(fd: int) -> bool:
    """Return True if an open file is on a file system that only this machine's kernel changes.

    Its times are by this machine's clock, and what it says of a file is never out of date.  This
    is not so for FUSE and network file systems, nor where the system does not tell.
    """
    return file_system_type(fd) in _LOCAL_TYPES


def has_directory_times(fd: int) -> bool:
    """Return True if a directory's times change whenever a file is made in it or removed.

    Some FUSE file systems, such as rclone's mount, do not keep them.
    """
    return file_system_type(fd) in _LOCAL_TYPES | {_NFS}


def is_fuse(fd: int) -> bool:
    """Return True if an open file is on a FUSE file system."""
    return file_system_type(fd) == _FUSE


def mounts() -> list[Mount]:
    """Return the mounts, the oldest first; none on a system that does not tell them."""
    try:
        text = _MOUNTINFO.read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    lines = text.split("\n")  # a name may have what splitlines takes for the end of a line
    return list(filter(None, map(_parse, lines)))


def _parse(line: str) -> Mount | None:
    before, _, after = line.partition(" - ")
    fields, (kind, _, more) = before.split(" "), after.partition(" ")
    if len(fields) < 5 or not kind:
        return None
    source, _, options = more.partition(" ")
    return Mount(
        PurePath(_unescaped(fields[4])), kind, frozenset(options.split(",")), _unescaped(source)
    )


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda code: chr(int(code[1], 8)), text)


def mounts_of(directory: Path) -> Iterator[Mount]:
    """Yield the mount that a store is on, and those of its days, or below its days.

    :param directory: the store's, of which the last parts may still be missing
    """
    found = mounts()
    root = Path(os.path.realpath(directory))
    if mount := at(root, found):
        yield mount
    latest = {mount.point: mount for mount in found}  # of several at one place, it hides the others
    for names in dict.fromkeys(below(root, found)):
        if crashid.parse_day_name(names[0]):
            yield latest[root / PurePath(*names)]


def at(path: PurePath, found: list[Mount]) -> Mount | None:
    """Return the mount that a path lies on; None where that is not known.

    :param path: absolute, without links
    """
    over = [mount for mount in reversed(found) if path.is_relative_to(mount.point)]
    # The deepest, and of several at one place the latest, which hides the others.
    return max(over, key=lambda mount: len(mount.point.parts), default=None)


def kind_at(path: PurePath, found: list[Mount]) -> str:
    """Return the kind of the file system that a path lies on; ``""`` where that is not known."""
    mount = at(path, found)
    return mount.kind if mount else ""


def below(root: PurePath, found: list[Mount]) -> Iterator[tuple[str, ...]]:
    """Yield where below a directory other file systems are mounted, as names from there down.

    :param root: absolute, without links
    """
    for mount in found:
        if mount.point != root and mount.point.is_relative_to(root):
            yield mount.point.relative_to(root).parts
