# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Grounds: the file systems and mounts that people keep stores on, for the tests to run over.

A test gets a directory on a ground by the fixture ``ground``.  A process mounts each ground once,
when a test first needs it, and unmounts it when the tests end.  A server is a ground, too: it would
be another class beside `FileSystem`.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from tests import odd_mounts
from tests.mounting import CannotMount, image_of, mounted, own_mounts

STORE = "store"
"""The root of a store in the directory that a test gets."""

_DAYS = ("20071025", "20261120")  # of the crashes of most tests
_IMAGE_MB = 400  # XFS takes no less than 300

Lend = Callable[[], AbstractContextManager[Path]]
"""Lends a new directory."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a store can lie on, and what a test must know about it.

    :param needs: the names that one can opt out by, of `tests.conftest.DISKS` and ``TOOLS``
    :param programs: each by its name, or by the paths where it may be
    :param not_kept: how the name of a test begins that cannot pass there -> the reason
    """

    name: str
    needs: tuple[str, ...]
    programs: tuple[tuple[str, ...], ...] = ()
    not_kept: Mapping[str, str] = field(default_factory=dict)

    def lacking(self) -> str:
        """Return what this machine lacks; ``""`` if it can be tried."""
        missing = [names[0] for names in self.programs if not any(map(shutil.which, names))]
        return own_mounts() or (f"{', '.join(missing)} is missing" if missing else "")


@dataclass(frozen=True, kw_only=True)
class FileSystem(Ground):
    """A file system, or a view of one.

    :param mount: mounts it below an empty directory, and yields what lends directories on it
    """

    mount: Callable[[Path], AbstractContextManager[Lend]]


@contextmanager
def new_directory(parent: Path) -> Iterator[Path]:
    """Lend a directory, and delete it with all that is in it."""
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# How each is mounted


def _disk(kind: str) -> Callable[[Path], AbstractContextManager[Lend]]:
    @contextmanager
    def mount(base: Path) -> Iterator[Lend]:
        image = image_of(base / "image", _IMAGE_MB, f"mkfs.{kind}", "-q")
        with mounted(base / "disk", "mount", "-o", "loop", image) as disk:
            yield partial(new_directory, disk)

    return mount


@contextmanager
def _tmpfs(base: Path) -> Iterator[Lend]:
    with mounted(base / "memory", "mount", "-t", "tmpfs", "crashmover-test") as memory:
        yield partial(new_directory, memory)


@contextmanager
def _days_elsewhere(base: Path) -> Iterator[Lend]:
    """The store is on one disk, and some of its days are on another."""
    for name in ("one", "other"):
        (base / name).mkdir()
    with _disk("ext4")(base / "one") as lend, _disk("ext4")(base / "other") as lend_other:

        @contextmanager
        def lend_with_days() -> Iterator[Path]:
            with lend() as directory, ExitStack() as stack:
                for day in _DAYS:
                    there = stack.enter_context(lend_other())
                    at = directory / STORE / day
                    stack.enter_context(mounted(at, "mount", "--bind", there))
                yield directory

        yield lend_with_days


def _odd(kind: str, *options: str) -> Callable[[Path], AbstractContextManager[Lend]]:
    @contextmanager
    def mount(base: Path) -> Iterator[Lend]:
        with odd_mounts.mount(kind, base, *options) as top:
            yield partial(new_directory, top)

    return mount


# The table


def _programs(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


_SSHFS_PROGRAMS = (("sshfs",), odd_mounts.SFTP_SERVERS)

_BY_NAME = {
    "test_eight_that_save_the_same_ids_tear_no_crash[1-": "libfuse opens by name: a file that is"
    " replaced by the same is missing for a moment to a process that opens it then",
}
_BY_SECONDS = {
    "test_a_dump_is_the_same_for_all_who_read_it": "its times are in seconds: of two saves of one"
    " dump within a second, of the same length, it does not tell that there were two",
}

FILE_SYSTEMS = [
    FileSystem(
        name="btrfs", needs=("btrfs",), programs=_programs("mkfs.btrfs"), mount=_odd("btrfs")
    ),
    FileSystem(
        name="overlay-on-btrfs",
        needs=("btrfs", "overlay"),
        programs=_programs("mkfs.btrfs"),
        mount=_odd("overlay"),
    ),
    FileSystem(name="xfs", needs=("xfs",), programs=_programs("mkfs.xfs"), mount=_disk("xfs")),
    FileSystem(
        name="ext4-days-on-another",
        needs=("ext4",),
        programs=_programs("mkfs.ext4"),
        mount=_days_elsewhere,
    ),
    FileSystem(name="tmpfs", needs=("tmpfs",), mount=_tmpfs),
    FileSystem(
        name="bindfs",
        needs=("bindfs",),
        programs=_programs("bindfs"),
        mount=_odd("bindfs"),
        not_kept=_BY_NAME,
    ),
    FileSystem(
        name="sshfs",
        needs=("sshfs",),
        programs=_SSHFS_PROGRAMS,
        mount=_odd("sshfs"),
        not_kept=_BY_NAME | _BY_SECONDS,
    ),
    FileSystem(
        name="sshfs-dir_cache=no",
        needs=("sshfs",),
        programs=_SSHFS_PROGRAMS,
        mount=_odd("sshfs", "-o", "dir_cache=no"),
        not_kept=_BY_NAME | _BY_SECONDS,
    ),
    FileSystem(
        name="exfat",
        needs=("exfat",),
        programs=_programs("mkfs.exfat", "mount.exfat-fuse"),
        mount=_odd("exfat"),
        not_kept=_BY_NAME | _BY_SECONDS,
    ),
    FileSystem(
        name="ntfs-3g",
        needs=("ntfs-3g",),
        programs=_programs("mkntfs", "ntfs-3g"),
        mount=_odd("ntfs-3g"),
        not_kept=_BY_NAME,
    ),
]


class Lender:
    """Mounts grounds when they are needed, and unmounts them all in the end.

    :param new_base: makes an empty directory, by a name, to mount a ground below
    """

    def __init__(self, new_base: Callable[[str], Path]) -> None:
        self._new_base = new_base
        self._stack = ExitStack()
        self._mounted: dict[str, Lend | CannotMount] = {}

    def lend(self, ground: FileSystem) -> AbstractContextManager[Path]:
        """Lend a new directory on a ground.

        :raises CannotMount: the ground cannot be mounted here; it is tried only once
        """
        if ground.name not in self._mounted:
            try:
                if why := ground.lacking():
                    raise CannotMount(why)
                mount = ground.mount(self._new_base(ground.name))
                self._mounted[ground.name] = self._stack.enter_context(mount)
            except CannotMount as error:
                self._mounted[ground.name] = error
        found = self._mounted[ground.name]
        if isinstance(found, CannotMount):
            raise found
        return found()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()
