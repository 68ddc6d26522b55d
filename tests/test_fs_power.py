# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store on a disk that loses its power: at each call of a save in turn.

What is on the disk is seen when it is mounted again.
"""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover import FSPermanentStorage
from crashmover.testing import BROWSER, CRASH_ID, Contents, contents, crash_of, read
from tests import fs_faults, odd_mounts
from tests.conftest import DISKS, Figures, wanted
from tests.disks import FLAGS, Disk, mounted
from tests.fs_faults import POWER_CUT, SCENARIOS
from tests.odd_mounts import behind

COUNT = 12


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "mounted"
    root.mkdir()
    with mounted(request, request.param, tmp_path / "image", root) as disk:
        yield disk


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
            disk.lose_power(FLAGS[flag])
        else:
            disk.unmount()
            disk.mount()
        seen[fs_faults.what_is_there(scenario, root)] += 1
        faults = list(fs_faults.broken_promises(scenario, root, done=exit_code == 0))
        assert not faults, f"call {number}: {faults}"
        assert list(fs_faults.unfinished(scenario, root)) == [], f"call {number}"
        shutil.rmtree(root)
    figures(calls=number, **seen)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["new", "replaced", "added"])
@pytest.mark.parametrize("kind", ["bindfs", "sshfs"])
def test_what_was_saved_through_fuse_survives_the_power_of_the_disk_below(
    disk: Disk, request: pytest.FixtureRequest, figures: Figures, kind: str, last: str
) -> None:
    """These cannot force a directory, and the kernel says that it is done."""
    wanted(request, kind)
    ids = [f"{n:08x}{CRASH_ID[8:]}" for n in range(COUNT)]
    saves = {"new": contents("a"), "replaced": contents("b"), "added": {BROWSER: b"added"}}
    expected: Contents = {}
    with odd_mounts.mount(kind, disk.root) as there:
        storage = FSPermanentStorage(there / "store")
        for name, parts in saves.items():
            saved = storage.save_crashes([crash_of(parts, crash_id) for crash_id in ids])
            assert saved == [None] * COUNT
            expected |= parts
            if name == last:
                break
    disk.lose_power(FLAGS["at once"])
    storage = FSPermanentStorage(behind(there) / "store")
    assert [read(storage, crash_id) for crash_id in ids] == [expected] * COUNT
    figures(saved=COUNT)


def cut(*args: str | Path | int) -> int:
    command = [sys.executable, "-m", "tests.fs_faults", "cut", *map(str, args)]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode
