# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Real mounts: what they cannot promise is said or refused, and the rest works."""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from crashmover import FSPermanentStorage
from crashmover.testing import CRASH_ID, contents, crash_of
from tests.cli_helpers import run
from tests.conftest import Figures, missing, wanted
from tests.mounting import CannotMount, command, image_of, loop_device, mounted, own_mounts
from tests.odd_mounts import Lend, behind, files_below

pytestmark = pytest.mark.slow

COUNT = 40
LOCKS = "locks do not reach other mounts of its files"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    crashes = [crash_of(contents(), f"{n:08x}{CRASH_ID[8:]}") for n in range(COUNT)]
    FSPermanentStorage(root).save_crashes(crashes)
    return root


def warnings(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "warning: fs://" in line]


@pytest.mark.parametrize("kind", ["bindfs", "sshfs"])
def test_locks_that_do_not_meet_are_warned_of(
    lend: Lend, source: Path, tmp_path: Path, kind: str, figures: Figures
) -> None:
    there = lend(kind)
    done = run("copy", "-s", source, "-d", there / "a", "--verify")
    assert done.exit_code == 0
    assert f"copied {COUNT}" in done.stderr
    [warning] = warnings(done.stderr)
    assert LOCKS in warning
    back = run("copy", "-s", there / "a", "-d", tmp_path / "back", "--remove-source")
    assert f"copied {COUNT}" in back.stderr
    [warning] = warnings(back.stderr)
    assert LOCKS in warning and "is seen late" in warning
    assert files_below(behind(there)) == []
    # It is true: this lock is not seen by the other way to the same file.
    (there / "lock").write_text("")
    with (there / "lock").open() as one, (behind(there) / "lock").open() as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    figures(moved=COUNT)


def test_a_late_upload_is_warned_of(lend: Lend, source: Path, figures: Figures) -> None:
    there = lend("rclone", "--vfs-cache-mode", "writes", "--vfs-write-back", "3s")
    done = run("copy", "-s", source, "-d", there / "a", "--remove-source")
    assert done.exit_code == 0
    [warning] = warnings(done.stderr)
    assert "what is reported as saved, and removed from its source, may not be uploaded" in warning
    assert files_below(behind(there)) == []  # it is true
    assert files_below(source) == []
    deadline = time.monotonic() + 30
    while len(list(FSPermanentStorage(behind(there) / "a").new_crashes())) < COUNT:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    figures(late=COUNT)


def test_a_mount_without_a_cache_is_read_and_not_saved_to(
    lend: Lend, source: Path, tmp_path: Path
) -> None:
    there = lend("rclone", "--dir-cache-time", "10ms")
    raw = tmp_path / "raw.json"
    raw.write_text("{}")
    for words in (
        ("copy", "-s", source, "-d", there / "a"),
        ("copy", "-s", source, "-d", there / "a", "--remove-source"),
        ("save", "-d", there / "a", "--raw-crash", raw),
        ("doctor", "-d", there / "a"),
    ):
        done = run(*words)
        assert done.exit_code == 4
        text = done.stdout if words[0] == "doctor" else done.stderr
        assert text.count("a file cannot be read there while it is written; with rclone, use") == 1
    assert files_below(there) == files_below(behind(there)) == []
    assert len(list(FSPermanentStorage(source).new_crashes())) == COUNT
    run("copy", "-s", source, "-d", behind(there) / "b")
    done = run("copy", "-s", there / "b", "-d", tmp_path / "back", "--verify")
    assert f"copied {COUNT}" in done.stderr


@pytest.fixture
def btrfs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of that kind."""
    wanted(request, "btrfs")
    with ExitStack() as stack:
        try:
            if why := own_mounts():
                raise CannotMount(why)
            image = image_of(tmp_path / "image", 128, "mkfs.btrfs", "-q")
            device = stack.enter_context(loop_device(image))
            disk = stack.enter_context(mounted(tmp_path / "disk", "mount", device))
        except CannotMount as error:
            missing("btrfs", error)
        yield disk


def test_a_read_only_snapshot_is_called_so(btrfs: Path, source: Path, tmp_path: Path) -> None:
    command("btrfs", "subvolume", "create", btrfs / "crashes")
    run("copy", "-s", source, "-d", btrfs / "crashes", "--limit", "3")
    command("btrfs", "subvolume", "snapshot", "-r", btrfs / "crashes", btrfs / "snapshot")
    raw = tmp_path / "raw.json"
    raw.write_text("{}")
    for words in (
        ("copy", "-s", source, "-d", btrfs / "snapshot"),
        ("copy", "-s", btrfs / "snapshot", "-d", tmp_path / "back", "--remove-source"),
        ("save", "-d", btrfs / "snapshot", "--raw-crash", raw),
        ("remove", "-s", btrfs / "snapshot", CRASH_ID),
        ("doctor", "-d", btrfs / "snapshot"),
    ):
        done = run(*words)
        assert done.exit_code == 4, (words, done.stderr)
        assert (done.stdout + done.stderr).count("Read-only file system") == 1
    assert len(list(FSPermanentStorage(btrfs / "snapshot").new_crashes())) == 3
    immutable = btrfs / "immutable"
    immutable.mkdir()
    subprocess.run(["chattr", "+i", immutable], check=True)
    done = run("copy", "-s", source, "-d", immutable)
    subprocess.run(["chattr", "-i", immutable], check=True)
    assert (done.exit_code, done.stderr.count("Operation not permitted")) == (4, 1)
    assert os.listdir(immutable) == []
