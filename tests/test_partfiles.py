# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Files that are written from pieces, and from other files."""

import errno
import io
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash, StorageError
from crashmover.partfiles import FileWriter, open_file
from crashmover.parts import PUMP

DATA = random.Random(5).randbytes(3 * PUMP + 17)

Write = Callable[[int, memoryview], int]
Copy = Callable[[int, int, int], int]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FileWriter]:
    with (tmp_path / "target").open("wb", buffering=0) as file:
        yield FileWriter(file.fileno())


def written(tmp_path: Path) -> bytes:
    return (tmp_path / "target").read_bytes()


def part_of(path: Path, size: int | None = len(DATA)) -> Part:
    """Return a part that is a file, and of which something was announced."""

    def explain(error: OSError) -> Exception:
        return StorageError(f"source: {error.strerror}")

    return Part(Kind.DUMP, "", lambda: open_file(path, explain), size)


def test_everything_is_written_however_little_is_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[bytes] = []

    def take_three(fd: int, piece: memoryview) -> int:
        assert fd == 7
        taken.append(bytes(piece[:3]))
        return len(taken[-1])

    monkeypatch.setattr(os, "write", take_three)
    FileWriter(7)(memoryview(b"0123456789"))
    assert taken == [b"012", b"345", b"678", b"9"]


def test_a_file_is_copied_by_the_system(
    source: Path, writer: FileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object) -> int:
        raise AssertionError("it came through our memory")

    monkeypatch.setattr(os, "write", never)
    part_of(source).pump(writer)
    assert written(tmp_path) == DATA


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EIO])
@pytest.mark.parametrize("before", [0, 1, PUMP, len(DATA)])
def test_what_the_system_does_not_copy_is_read_and_written(
    source: Path,
    writer: FileWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    number: int,
) -> None:
    copy = os.copy_file_range

    def copy_some(from_fd: int, to_fd: int, most: int) -> int:
        if room := before - os.lseek(from_fd, 0, os.SEEK_CUR):
            return copy(from_fd, to_fd, min(room, most, 1000))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", copy_some)
    part_of(source).pump(writer)
    assert written(tmp_path) == DATA


def test_an_end_that_comes_too_soon_is_not_believed(
    source: Path, writer: FileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of some file systems, of files whose size they do not know."""
    monkeypatch.setattr(os, "copy_file_range", lambda *_args: 0)
    part_of(source).pump(writer)
    assert written(tmp_path) == DATA
    with pytest.raises(CorruptCrash):
        part_of(source, 0).pump(writer)


def test_an_end_in_the_middle_is_not_believed_either(
    source: Path, writer: FileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, ends = os.copy_file_range, [1000, 0]
    monkeypatch.setattr(
        os, "copy_file_range", lambda old, new, _most: (n := ends.pop(0)) and copy(old, new, n)
    )
    part_of(source).pump(writer)
    assert (written(tmp_path), ends) == (DATA, [])


def test_elsewhere_nothing_is_asked_of_the_system(
    source: Path, writer: FileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "copy_file_range")
    part_of(source).pump(writer)
    assert written(tmp_path) == DATA


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 0])
def test_a_file_that_is_not_as_long_as_announced_is_noticed(
    source: Path, writer: FileWriter, size: int
) -> None:
    with pytest.raises(CorruptCrash):
        part_of(source, size).pump(writer)


def test_what_cannot_be_written_is_the_error_of_the_target(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    with (
        (tmp_path / "target").open("rb") as not_to_write,
        pytest.raises(OSError, match="Bad file descriptor") as caught,
    ):
        part_of(source).pump(FileWriter(not_to_write.fileno()))
    assert type(caught.value) is OSError


def test_what_cannot_be_read_is_the_error_of_the_source(source: Path, writer: FileWriter) -> None:
    def explain(error: OSError) -> Exception:
        return StorageError(f"source: {error.strerror}")

    fd = os.open(source, os.O_WRONLY)
    with pytest.raises(StorageError, match="source: Bad file descriptor"):
        Part(Kind.DUMP, "", lambda: open_file(fd, explain), len(DATA)).pump(writer)


def test_another_kind_of_file_is_not_asked_for_a_descriptor(
    writer: FileWriter, tmp_path: Path
) -> None:
    class Other(io.RawIOBase):
        def __init__(self) -> None:
            self.left = io.BytesIO(DATA)

        def read(self, size: int = -1, /) -> bytes:
            return self.left.read(size)

    Part(Kind.DUMP, "", lambda: Other(), len(DATA)).pump(writer)  # type: ignore[arg-type,return-value]
    assert written(tmp_path) == DATA
