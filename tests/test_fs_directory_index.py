# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What lies in a directory: found again by crash id, and small, however much there is."""

import os
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from uuid import UUID

import pytest

from crashmover.external.fs import directory_index as module
from crashmover.external.fs.directory_index import DirectoryIndex, IndexCache, generation

IDS = [f"0bba929f-{n:04x}-460c-dead-a43c20071025" for n in range(600)]
SETTLED = 4_000_000_000  # nanoseconds, and more than it takes


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def listing_of(path: Path) -> DirectoryIndex:
    with opened(path) as fd:
        return DirectoryIndex(fd)


def test_the_files_of_each_crash_are_found_with_their_inodes(tmp_path: Path) -> None:
    suffixes = (".json", ".dump", ".jsonz", ".upload_file_minidump_browser.dump", "")
    names = {crash_id: [crash_id + s for s in suffixes[: n % 5]] for n, crash_id in enumerate(IDS)}
    names[IDS[9]] += [f"{IDS[9]}.a b.dump", f"{IDS[9]}.crème.dump", f"{IDS[9]}.\udcff.dump"]
    for name in chain.from_iterable(names.values()):
        (tmp_path / name).touch()
    for foreign in ("README", f".{IDS[0]}.json.tmp", f"x{IDS[1]}", f"{IDS[2]}.json~", "é" * 50):
        (tmp_path / foreign).touch()
    (tmp_path / "0b").mkdir()
    found = listing_of(tmp_path)
    names[IDS[2]].append(f"{IDS[2]}.json~")
    for crash_id in IDS:
        files = {name: (tmp_path / name).stat().st_ino for name in names[crash_id] if name[36:]}
        assert found.files_of(crash_id) == files
    assert found.files_of(IDS[0].replace("dead", "beef")) == {}


def test_no_crash_is_found_across_two_others(tmp_path: Path) -> None:
    first = "ab071025-0001-460c-dead-000000071025"
    (tmp_path / f"{first}.json").touch()
    found = listing_of(tmp_path)
    inode = (tmp_path / f"{first}.json").stat().st_ino
    packed = bytes.fromhex(first.replace("-", "")) + bytes(4) + inode.to_bytes(8, sys.byteorder)
    for start in range(1, 13):
        across = str(UUID(bytes=packed[start : start + 16]))
        assert found.files_of(across) == {}
    assert found.files_of(first) == {f"{first}.json": inode}


def test_a_file_takes_less_memory_than_its_name_is_long(tmp_path: Path) -> None:
    for crash_id in IDS:
        (tmp_path / f"{crash_id}.json").touch()
        (tmp_path / f"{crash_id}.dump").touch()
    tracemalloc.start()
    try:
        found = listing_of(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.file_count == 2 * len(IDS)
    assert peak / found.file_count < 36


class Directories:
    """Large directories, of which it is known how often they are listed."""

    def __init__(self, root: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = [root / str(n) for n in range(count)]
        for path in self.paths:
            path.mkdir()
            for crash_id in IDS[:100]:
                (path / f"{crash_id}.json").touch()
        self.indexes = IndexCache(".json")
        self.taken = 0
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now + SETTLED)
        monkeypatch.setattr(module, "DirectoryIndex", self._take)

    def _take(self, dir_fd: int, expected: str) -> DirectoryIndex:
        self.taken += 1
        return DirectoryIndex(dir_fd, expected)

    def ask(self, *numbers: int) -> int:
        """Ask for a crash of each of these; return how many directories were listed."""
        before = self.taken
        for number in numbers:
            path = self.paths[number]
            state = generation((path / f"{IDS[5]}.json").stat())
            with opened(path) as fd:
                names = self.indexes.names_of(IDS[5], state, fd, (str(number),))
            assert names == [f"{IDS[5]}.json"]
        return self.taken - before


def test_large_directories_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = Directories(tmp_path, 18, monkeypatch)
    assert directories.ask(*range(16)) == 16
    assert directories.ask(*range(16), *range(16)) == 0
    assert directories.ask(16, 17, 16, 17, 15) == 2
    assert directories.ask(0, 1) == 2


def test_what_is_remembered_is_bounded_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = Directories(tmp_path, 4, monkeypatch)
    monkeypatch.setattr(module, "_KEPT_BYTES", 2 * 3000)  # of 100 files and a suffix each
    assert directories.ask(0, 1, 0, 1) == 2
    assert directories.ask(2, 1, 2) == 1
    assert directories.ask(0) == 1
    monkeypatch.setattr(module, "_KEPT_BYTES", 1500)  # the last one is kept, however large
    assert directories.ask(3, 3, 3) == 1
    assert directories.ask(2, 3) == 2


def test_one_that_is_done_with_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_USEFUL_FOR", 5)
    directories = Directories(tmp_path, 2, monkeypatch)
    assert directories.ask(0, *[1] * 5) == 2
    assert directories.ask(0) == 0, "it may be asked for in between"
    assert directories.ask(*[1] * 6, 0) == 1


def test_one_that_is_done_with_is_forgotten_among_small_directories_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_USEFUL_FOR", 5)
    directories = Directories(tmp_path, 2, monkeypatch)
    for crash_id in IDS[10:100]:
        (directories.paths[1] / f"{crash_id}.json").unlink()
    assert directories.ask(0, *[1] * 6) == 1
    assert directories.ask(0) == 1


@pytest.mark.parametrize("others", [0, 60, 61, 62, 63, 64, 100])
def test_the_files_of_a_crash_are_the_same_among_few_and_among_many(
    tmp_path: Path, others: int
) -> None:
    names = [f"{IDS[5]}.json", f"{IDS[5]}.a b.dump", f"{IDS[5]}.\udcff.dump", f"{IDS[5]}.x.dump"]
    for name in names[:3]:
        (tmp_path / name).touch()
    (tmp_path / names[3]).symlink_to(names[0])
    (tmp_path / f"{IDS[5]}.y.dump").mkdir()
    (tmp_path / IDS[5]).mkdir()
    for crash_id in IDS[100 : 100 + others]:
        (tmp_path / f"{crash_id}.json").touch()
    with opened(tmp_path) as fd:
        found = IndexCache(".json").names_of(IDS[5], None, fd, ("here",))
    assert sorted(found) == sorted(names) == sorted(listing_of(tmp_path).files_of(IDS[5]))
