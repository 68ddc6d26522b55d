# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mounts: which file systems this process sees, and which promises cannot be kept on them.

Source of ``/proc/self/mountinfo``: proc_pid_mountinfo(5).  Sources of what kinds of file systems
do: sshfs(1); bindfs(1), ``--enable-lock-forwarding``; rclone's page on ``rclone mount``,
``--dir-cache-time`` and ``--vfs-write-back``; nfs(5), ``acdirmax`` and ``local_lock``; flock(2), on
NFS and SMB; mount.cifs(8), ``actimeo`` and ``nobrl``; the README of virtiofsd, ``--cache`` and
``--remote-locks``; ``docs/semantics.md`` of gcsfuse.  sshfs, bindfs and rclone were also tried.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from crashmover import crashid

_MOUNTINFO = Path("/proc/self/mountinfo")
_IN_MEMORY = {"tmpfs", "ramfs"}
_ESCAPED = re.compile(r"\\([0-7]{3})")


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

    def risk(self) -> str:
        """Return why what is written here may be lost if the power fails; "" if it is kept."""
        if self.kind in _IN_MEMORY:
            lost = "in memory: what is saved there is gone at a restart"
            return f"{self.point} is a {self.kind}, {lost}"
        if self.kind == "overlay" and "volatile" in self.options:
            lost = "what is saved there may be gone after a crash of the system"
            return f"{self.point} is an overlay that is mounted volatile: {lost}"
        return ""


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
    """Yield the mount that a store is on, and those of its days, or below its days.  The last parts
    of its directory may still be missing."""
    found = mounts()
    root = Path(os.path.realpath(directory))
    if mount := at(root, found):
        yield mount
    latest = {mount.point: mount for mount in found}  # of several at one place, it hides the others
    for names in dict.fromkeys(below(root, found)):
        if crashid.parse_day_name(names[0]):
            yield latest[root / PurePath(*names)]


def at(path: PurePath, found: list[Mount]) -> Mount | None:
    """Return the mount that an absolute path without links lies on; None if that is not known."""
    over = [mount for mount in reversed(found) if path.is_relative_to(mount.point)]
    # The deepest, and of several at one place the latest, which hides the others.
    return max(over, key=lambda mount: len(mount.point.parts), default=None)


def kind_at(path: PurePath, found: list[Mount]) -> str:
    """Return the kind of the file system that a path lies on; ``""`` where that is not known."""
    mount = at(path, found)
    return mount.kind if mount else ""


def below(root: PurePath, found: list[Mount]) -> Iterator[tuple[str, ...]]:
    """Yield where below such a path other file systems are mounted, as names from there down."""
    for mount in found:
        if mount.point != root and mount.point.is_relative_to(root):
            yield mount.point.relative_to(root).parts


# Which promises they cannot keep

_NATIVE = ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "reiserfs", "xfs", "zfs")
DISKS = frozenset((*_NATIVE, "overlay", "ramfs", "tmpfs"))
"""The kinds of file systems that have modes, locks and fsync as POSIX defines them."""

_OTHER_MOUNTS = "other mounts of its files"
_OTHER_MACHINES = "other machines"
_SERVER = "processes on the server itself"
_HOST = "the host, nor other guests"


@dataclass(frozen=True)
class Ground:
    """What a kind of file system cannot promise.

    :param locks_miss: which processes do not see a lock that is taken here; "": all see it
    :param late_s: after how many seconds, at most, it shows what other processes change behind it;
        0: at once; None: not known
    :param uploads_later: whether fsync returns before the bytes are where they are kept
    """

    locks_miss: str = ""
    late_s: int | None = 0
    uploads_later: bool = False

    def of_saving(self) -> list[str]:
        """Return the warnings for processes that save here."""
        texts = []
        if self.uploads_later:
            texts.append(
                "what is reported as saved, and removed from its source, may not be uploaded yet,"
                " and is lost if this machine fails"
            )
        return texts + self.of_removing()

    def of_removing(self) -> list[str]:
        """Return the warnings for processes that remove here."""
        if not self.locks_miss:
            return []
        return [f"locks do not reach {self.locks_miss}: save and remove through this mount only"]

    def of_reading(self) -> list[str]:
        """Return the warnings for processes that read here."""
        if self.late_s == 0:
            return []
        late = "late" if self.late_s is None else f"late, by up to {self.late_s} s"
        return [
            f"what other processes change is seen {late}: a crash that is replaced meanwhile may be"
            " read as a mixture"
        ]


_SOUND = Ground()
_LAYER = Ground(_OTHER_MOUNTS, 1)
_SHARED = Ground(_HOST, 1)
_UNKNOWN = Ground(_OTHER_MOUNTS, None)

_GROUNDS = {
    **dict.fromkeys(("nfs", "nfs4"), Ground(_SERVER, 60)),
    **dict.fromkeys(("smb", "smb2", "smb3", "cifs", "smbfs"), Ground(_SERVER, 1)),
    "9p": Ground(_HOST),
    "sshfs": Ground(_OTHER_MOUNTS, 20),
    "rclone": Ground(_OTHER_MOUNTS, 300, uploads_later=True),
    "gcsfuse": Ground(_OTHER_MOUNTS, 60),
    **dict.fromkeys(("bindfs", "mergerfs", "fuse-overlayfs", "unionfs"), _LAYER),
    **dict.fromkeys(("encfs", "gocryptfs", "cryfs", "securefs"), _LAYER),
    **dict.fromkeys(("virtiofs", "vboxsf", "vmhgfs", "vmhgfs-fuse", "prl_fs"), _SHARED),
    **dict.fromkeys(("fakeowner", "osxfs", "grpcfuse", "drvfs", "wslfs"), _SHARED),
    **dict.fromkeys(("afs", "beegfs", "coda", "davfs"), _UNKNOWN),
    # These have locks that hold for all machines, and caches that know of each other.
    **dict.fromkeys(("ceph", "ceph-fuse", "gfs2", "gpfs", "lustre", "ocfs2"), _SOUND),
    # A disk of this machine, by FUSE.
    **dict.fromkeys(("fuseblk", "ntfs", "ntfs-3g", "exfat", "ext2", "fuse2fs"), _SOUND),
}

_OWN_LOCKS = {"local_lock=all", "local_lock=flock", "localflock", "localflocks", "nobrl", "nolock"}
_NO_CACHE = {"noac", "acdirmax=0", "actimeo=0", "cache=none"}


def risks_of_saving(found: Iterable[Mount]) -> list[str]:
    """Return what may be lost, or mixed, of what is saved or removed on these mounts."""
    forgetting, rest = [], []
    for mount in found:
        if risk := mount.risk():
            forgetting.append(risk)
        else:
            rest.append((mount, _ground_of(mount).of_saving()))
    return forgetting + _texts(rest)


def risks_of_reading(found: Iterable[Mount], *, removing: bool) -> list[str]:
    """Return what may be read late, or mixed, on these mounts.

    :param removing: whether crashes are removed there, too
    """
    rest = []
    for mount in found:
        ground = _ground_of(mount)
        rest.append((mount, ground.of_reading() + (ground.of_removing() if removing else [])))
    return _texts(rest)


def _texts(risks: list[tuple[Mount, list[str]]]) -> list[str]:
    """Return each text once, with the places that it is about: each day may be a mount."""
    places: dict[tuple[str, str], list[PurePath]] = {}
    for mount, texts in risks:
        if texts:
            places.setdefault((mount.kind, "; ".join(texts)), []).append(mount.point)
    found = []
    for (kind, text), points in places.items():
        more = f" and {len(points) - 1} more" if points[1:] else ""
        found.append(f"the mount {points[0]}{more}, of {kind}: {text}")
    return found


def _ground_of(mount: Mount) -> Ground:
    """Return what a mount cannot promise.  An unknown kind of FUSE is taken for a network mount."""
    is_unknown = mount.kind.startswith("fuse") and not _is_image(mount)
    usual = _UNKNOWN if is_unknown else _SOUND
    ground = _GROUNDS.get(mount.kind.removeprefix("fuse."), usual)
    if mount.options & _OWN_LOCKS:
        ground = replace(ground, locks_miss=_OTHER_MACHINES)
    if mount.options & _NO_CACHE:
        ground = replace(ground, late_s=0)
    return ground


def _is_image(mount: Mount) -> bool:
    """Return True if FUSE shows a disk that is a file, such as an image of NTFS."""
    with suppress(OSError):
        return mount.source.startswith("/") and stat.S_ISREG(os.stat(mount.source).st_mode)
    return False
