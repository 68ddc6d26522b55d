# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Disks that lose their power: each is a file that root mounts.

The kernel's own means (``FS_IOC_SHUTDOWN``) takes the power away: nothing more gets to the disk.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import DISKS, wanted
from tests.mounting import CannotMount, command, image_of, unmount

FLAGS = {"after its journal was flushed": 1, "at once": 2}  # of FS_IOC_SHUTDOWN
_IMAGE_MB = 320  # as small as XFS will have it


class Disk:
    """A disk of a kind that can be taken away and mounted again.

    :param image: the file that holds it
    :param root: the directory that it is mounted at
    """

    def __init__(self, kind: str, image: Path, root: Path) -> None:
        self.root = root
        self._image = image_of(image, _IMAGE_MB, f"mkfs.{kind}", "-q")
        self.mount()

    def mount(self) -> None:
        """Mount it."""
        command("mount", "-o", "loop", self._image, self.root)

    def unmount(self) -> None:
        """Unmount it; nothing may use it any more."""
        command("umount", self.root)

    def lose_power(self, flag: int) -> None:
        """Take the power away, and mount the disk again."""
        from tests.fs_faults import POWER_CUT

        code = f"from tests.fs_faults import cut_power; cut_power({str(self.root)!r}, {flag})"
        assert subprocess.run([sys.executable, "-c", code]).returncode == POWER_CUT
        self.unmount()
        self.mount()


@contextmanager
def mounted(request: pytest.FixtureRequest, kind: str, image: Path, root: Path) -> Iterator[Disk]:
    """Lend a disk of a kind, mounted at a directory that is there."""
    wanted(request, kind)
    try:
        disk = Disk(kind, image, root)
    except CannotMount as error:
        pytest.fail(
            f"no disk can be made here: {error}; be root, and apt install {DISKS[kind]};"
            f" or leave its tests out: --without {kind}",
            pytrace=False,
        )
    try:
        yield disk
    finally:
        unmount(root)
