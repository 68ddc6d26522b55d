# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The steps of the file-system store, each by itself: what it does, and what it refuses."""

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from crashmover.external.fs import durable, forcing, locks, syscalls

EXT4, FUSE = 0xEF53, 0x65735546
NEGATIVE = 0x9123683E - (1 << 32)  # Btrfs, where a long has 32 bits


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with durable.opened(os.open(tmp_path, os.O_RDONLY)) as fd:
        yield fd


# Forcing to the disk


class System:
    """Stands in for the C library.

    :param kind: of the file system
    :param fails: whether its calls fail
    """

    def __init__(self, kind: int = EXT4, *, fails: bool = False) -> None:
        self._kind = kind
        self._fails = fails
        self.asked: list[int] = []
        self.synced: list[int] = []

    def fstatfs(self, fd: int, buffer: Any) -> int:
        self.asked.append(fd)
        buffer[0] = self._kind
        return -1 if self._fails else 0

    def syncfs(self, fd: int) -> int:
        self.synced.append(fd)
        ctypes.set_errno(errno.EIO if self._fails else 0)
        return -1 if self._fails else 0


@pytest.mark.parametrize(
    ("platform", "kernel", "system", "expected"),
    [
        ("linux", (6, 1), System(), True),
        ("linux", (5, 8), System(), True),
        ("linux", (5, 7), System(), False),
        ("linux", (4, 19), System(), False),
        ("linux", (6, 1), System(FUSE), False),
        ("linux", (6, 1), System(NEGATIVE), True),
        ("linux", (6, 1), System(fails=True), False),
        ("darwin", (22, 1), System(), False),
    ],
)
def test_a_whole_file_system_is_forced_only_where_that_says_what_it_could_not_write(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    kernel: tuple[int, ...],
    system: System,
    expected: bool,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(forcing, "_kernel", lambda: kernel)
    monkeypatch.setattr(syscalls, "libc", lambda: system)
    assert forcing.can_sync_file_system(7) is expected
    assert set(system.asked) <= {7}


def test_what_could_not_be_forced_is_an_error(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forcing, "can_sync_file_system", lambda fd: True)
    for fails in (False, True):
        system = System(fails=fails)
        monkeypatch.setattr(syscalls, "libc", lambda system=system: system)
        with forcing.Forcing(directory, together=True) as forced:
            assert not forced.begin(("a",), directory)
            if fails:
                with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
                    forced.finish([("a",)], new=True)
                assert caught.value.errno == errno.EIO
            else:
                forced.finish([("a",)], new=True)
            assert len(system.synced) == 1


def test_a_file_system_where_nothing_was_begun_is_not_forced(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(fails=True)
    monkeypatch.setattr(syscalls, "libc", lambda: system)
    with forcing.Forcing(directory, together=True) as forced:
        forced.finish([], new=False)


@pytest.mark.skipif(sys.platform != "linux", reason="nowhere else is there such a call")
def test_the_kernel_is_asked_for_the_file_system_that_is_meant(directory: int) -> None:
    with forcing.Forcing(directory, together=True) as forced:
        forced.begin((), directory)
        forced.finish([()], new=False)
    closed = os.dup(directory)
    os.close(closed)
    assert not forcing.can_sync_file_system(closed)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        forcing.Forcing(closed, together=True)


def test_the_directories_themselves_are_forced_only_where_they_may_be_new(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = [("a", "b", "c"), ("a", "b", "d")]
    for names in below:
        tmp_path.joinpath(*names).mkdir(parents=True)
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: forced.append(os.fstat(fd).st_ino))
    for new, expected in ((False, below), (True, [(), ("a",), ("a", "b"), *below])):
        forced.clear()
        with forcing.Forcing(directory, together=False) as each:
            each.finish(below, new=new)
        assert sorted(forced) == sorted(
            tmp_path.joinpath(*names).stat().st_ino for names in expected
        )


# Directories


def test_directories_that_somebody_else_makes_meanwhile_are_used(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def too_late(name: str, *args: Any, **options: Any) -> None:
        mkdir(name, *args, **options)
        raise FileExistsError(errno.EEXIST, "somebody was quicker", name)

    monkeypatch.setattr(os, "mkdir", too_late)
    with durable.opened(durable.make_down(directory, ("a", "b"), 0o750)) as made:
        assert os.path.samestat(os.fstat(made), (tmp_path / "a" / "b").stat())
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750


@pytest.mark.parametrize("plant", ["file", "link"])
def test_what_is_no_directory_is_not_stepped_into(
    directory: int, tmp_path: Path, plant: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    if plant == "file":
        (tmp_path / "a").touch()
    else:
        (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    for call in (durable.walk_down, lambda fd, names: durable.make_down(fd, names, 0o700)):
        with pytest.raises(OSError, match="a is a symbolic link or no directory") as caught:
            call(directory, ("a", "b"))
        assert caught.value.errno == errno.ELOOP
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_descriptor_is_left_open_whatever_goes_wrong(directory: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "a" / "fifo")
    (tmp_path / "a" / "file").write_bytes(b"x")
    (tmp_path / "a" / "other").hardlink_to(tmp_path / "a" / "file")

    def everything() -> None:
        with durable.opened(durable.walk_down(directory, ("a",))) as fd:
            for name in ("fifo", "none", "file"):
                with suppress(OSError):
                    os.close(durable.open_regular(fd, name)[0])
            for name in ("file", "fifo"):  # which has two names; which is no file
                with pytest.raises(OSError, match="not a temporary file of ours"):
                    locks.create(fd, name)
                with pytest.raises(OSError, match="not a temporary file of ours"):
                    locks.lock(fd, name)
            assert durable.same_bytes(fd, "file", "other")
        with pytest.raises(FileNotFoundError):
            durable.walk_down(directory, ("a", "b", "c"))

    everything()
    before = sorted(os.listdir("/dev/fd"))
    everything()
    assert sorted(os.listdir("/dev/fd")) == before


# Files


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (b"", b"", True),
        (b"x", b"x", True),
        (b"x", b"y", False),
        (b"", b"x", False),
        (b"x", b"", False),
        (bytes(3 << 20), bytes(3 << 20), True),
        (bytes(3 << 20), bytes((3 << 20) - 1) + b"x", False),
        (bytes(1 << 20), bytes((1 << 20) + 1), False),
        (bytes((1 << 20) + 1), bytes(1 << 20), False),
    ],
)
def test_files_are_the_same_when_every_byte_is(
    directory: int, tmp_path: Path, one: bytes, other: bytes, expected: bool
) -> None:
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "other").write_bytes(other)
    assert durable.same_bytes(directory, "one", "other") is expected


def test_removing_says_whether_there_was_a_file(directory: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    assert durable.exists(directory, "file")
    assert durable.remove_file(directory, "file")
    assert not durable.remove_file(directory, "file")
    assert not durable.exists(directory, "file")
    with pytest.raises(OSError):
        durable.remove_file(directory, "directory")


@pytest.mark.parametrize("left", [None, b"half"])
def test_what_a_lock_finds_is_emptied_and_is_ours_alone(
    directory: int, tmp_path: Path, left: bytes | None
) -> None:
    name = durable.temporary_name("x")
    assert name == ".x.tmp"
    path = tmp_path / name
    for is_lock in (True, False):
        path.unlink(missing_ok=True)
        if left is not None:
            path.write_bytes(left)
            path.chmod(0o600)
        if is_lock:
            fd, found = locks.lock(directory, name)
            assert found is (left is not None)
        else:
            fd = locks.create(directory, name)
        with durable.opened(fd):
            assert (os.fstat(fd).st_size, os.get_inheritable(fd)) == (0, False)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lock_whose_file_was_removed_is_taken_anew(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, taken = tmp_path / "lock", fcntl.flock, count()

    def after_a_removal(fd: int, how: int) -> None:
        if next(taken) < 2:
            path.unlink()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", after_a_removal)
    fd, found = locks.lock(directory, "lock")
    with durable.opened(fd):
        assert not found
        assert os.path.samestat(os.fstat(fd), path.stat())
    assert next(taken) == 3
