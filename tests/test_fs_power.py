# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store on a disk that loses its power: at each call of a save in turn.

The disk is a file, mounted where root may do so; the power is taken away by the kernel's own
means for that (``FS_IOC_SHUTDOWN``), which lets nothing more get to the disk.  What is there
is seen when it is mounted again.
"""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fs_faults
from tests.conftest import DISKS, Figures, wanted
from tests.fs_faults import POWER_CUT, SCENARIOS

FLAGS = {"after its journal was flushed": 1, "at once": 2}  # of FS_IOC_SHUTDOWN
_IMAGE = 320 << 20  # bytes; as small as XFS will have it


class Disk:
    """A disk of a kind that can be taken away and mounted again."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.root = directory / "mounted"
        self._image = directory / "image"
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_IMAGE)
        _run(f"mkfs.{kind}", "-q", self._image)
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.root)

    def unmount(self) -> None:
        _run("umount", self.root)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    kind = request.param
    wanted(request, kind)
    try:
        disk = Disk(kind, tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.fail(
            f"no disk can be made here: {error}; be root, and apt install {DISKS[kind]};"
            f" or leave its tests out: --without {kind}",
            pytrace=False,
        )
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_whenever_the_power_fails_no_crash_is_torn_and_what_was_saved_is_there(
    disk: Disk, figures: Figures, name: str, flag: str
) -> None:
    scenario = SCENARIOS[name]
    seen: Counter[str] = Counter()
    number, exit_code = 0, POWER_CUT
    while exit_code == POWER_CUT:
        number += 1
        root = disk.root / str(number)
        fs_faults.prepare(scenario, root)
        exit_code = cut(name, root, number, FLAGS[flag])
        if exit_code != POWER_CUT:  # it was saved; now, too, the power fails
            assert exit_code == 0
            assert cut_now(root, FLAGS[flag]) == POWER_CUT
        disk.unmount()
        disk.mount()
        seen[fs_faults.what_is_there(scenario, root)] += 1
        faults = list(fs_faults.broken_promises(scenario, root, done=exit_code == 0))
        assert not faults, f"call {number}: {faults}"
        assert list(fs_faults.unfinished(scenario, root)) == [], f"call {number}"
        shutil.rmtree(root)
    figures(calls=number, **seen)


def cut(*args: str | Path | int) -> int:
    command = [sys.executable, "-m", "tests.fs_faults", "cut", *map(str, args)]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode


def cut_now(root: Path, flag: int) -> int:
    code = f"from tests.fs_faults import cut_power; cut_power({str(root)!r}, {flag})"
    return subprocess.run([sys.executable, "-c", code]).returncode
