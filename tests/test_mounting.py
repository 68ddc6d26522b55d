# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What tests mount is unmounted, even if the run is killed; a ground that is not here is said."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests import grounds, mounting
from tests.conftest import DISKS, TOOLS, grounds_here, missing, wanted

RUN = """
import sys
from pathlib import Path
from tests.grounds import FILE_SYSTEMS, Lender

def new_base(name):
    base = Path(sys.argv[1]) / name
    base.mkdir()
    return base

with Lender(new_base) as lender:
    for ground in FILE_SYSTEMS:
        if ground.name in sys.argv[2:]:
            lender.lend(ground).__enter__()
    print("ready", flush=True)
    sys.stdin.read()
"""
MOUNTED = ("btrfs", "bindfs", "sshfs", "exfat")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_no_mount_no_device_and_no_server(
    request: pytest.FixtureRequest, tmp_path: Path, how: signal.Signals
) -> None:
    for name in MOUNTED:
        wanted(request, name)
    for ground in grounds.FILE_SYSTEMS:
        if ground.name in MOUNTED and (why := ground.lacking()):
            missing(ground.needs[0], why)
    line = [sys.executable, "-c", RUN, str(tmp_path), *MOUNTED]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        assert len(in_use(tmp_path)) >= len(MOUNTED)
        process.send_signal(how)
        process.wait(30)
    deadline = time.monotonic() + 10  # the kernel takes a moment
    while in_use(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert in_use(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def in_use(directory: Path) -> list[str]:
    """Return the devices over files below a directory, and the servers that mount there."""
    devices = mounting.command("losetup", "-a", "-O", "BACK-FILE", "-n").splitlines()
    return [line for line in [*devices, *servers()] if str(directory) in line]


def servers() -> Iterator[str]:
    """Yield the command line of each process that is no Python."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if "python" not in line:
                yield line


def test_a_ground_that_cannot_be_mounted_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounds, "own_mounts", lambda: "")
    tried: list[Path] = []

    def refuse(base: Path) -> "ExitStack[bool | None]":
        tried.append(base)
        raise mounting.CannotMount("mount: unknown file system")

    ground = replace(grounds.FILE_SYSTEMS[0], programs=(), mount=refuse)  # type: ignore[arg-type]
    with grounds.Lender(lambda name: tmp_path / name) as lender:
        for _ in range(2):
            with pytest.raises(mounting.CannotMount, match="unknown file system"):
                lender.lend(ground)
    assert tried == [tmp_path / ground.name]


def test_what_a_ground_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounds, "own_mounts", lambda: "")
    lacks = replace(grounds.FILE_SYSTEMS[0], programs=(("true",), ("no-such-program", "/no/such")))
    assert lacks.lacking() == "no-such-program is missing"
    assert replace(lacks, programs=(("/no/such", "true"),)).lacking() == ""
    monkeypatch.setattr(grounds, "own_mounts", lambda: "be root")
    assert lacks.lacking() == "be root"


def test_the_name_of_each_ground_is_its_own_and_all_it_needs_can_be_opted_out_of() -> None:
    names = [ground.name for ground in grounds.FILE_SYSTEMS]
    assert len(set(names)) == len(names)
    assert {name for ground in grounds.FILE_SYSTEMS for name in ground.needs} <= {*DISKS, *TOOLS}


def test_the_header_of_a_run_names_each_ground(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRASHMOVER_TEST_WITHOUT", "")
    monkeypatch.setattr(grounds, "own_mounts", lambda: "be root")
    names = ", ".join(ground.name for ground in grounds.FILE_SYSTEMS)
    header = "grounds: none; not here: "
    if not request.config.getoption("--without"):
        assert grounds_here(request.config) == f"{header}{names} (be root)"
    monkeypatch.setenv("CRASHMOVER_TEST_WITHOUT", "sshfs")
    assert "sshfs, sshfs-dir_cache=no (without sshfs)" in grounds_here(request.config)
