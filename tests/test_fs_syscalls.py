# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Opening what lies several directories down: by one call, and where there is no such call."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from crashmover.external.fs import durable, syscalls

NAMES = ("20071025", "name", "0b", "ba")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_CLOEXEC

needs_the_call = pytest.mark.skipif(not syscalls.has_openat2(), reason="this system has no openat2")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a file four directories down, and the same elsewhere."""
    for name in ("root", "elsewhere"):
        leaf = tmp_path.joinpath(name, *NAMES)
        leaf.mkdir(parents=True)
        (leaf / "file").write_text(name)
    return tmp_path / "root"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    with durable.opened(os.open(root, DIRECTORY)) as fd:
        yield fd


@pytest.fixture(params=[pytest.param(True, marks=needs_the_call), False], ids=["with", "without"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the call is used.  An older kernel cannot be had here: this stands for one."""
    monkeypatch.setattr(syscalls, "has_openat2", lambda: request.param)
    return bool(request.param)


def link(root: Path, depth: int) -> None:
    """Put a link in the place of a directory on the way, to the same one elsewhere."""
    path = root.joinpath(*NAMES[:depth])
    path.rename(root / "moved")
    path.symlink_to(root.parent.joinpath("elsewhere", *NAMES[:depth]))


def open_file(root_fd: int, names: tuple[str, ...], name: str) -> tuple[int, os.stat_result]:
    with durable.opened(durable.walk_down(root_fd, names)) as fd:
        return durable.open_regular(fd, name)


def text_of(fd: int) -> str:
    with os.fdopen(fd) as file:
        return file.read()


def open_files() -> set[tuple[str, str]]:
    """The descriptors of this process, and what each is of; other tests may have dropped some."""
    files = set[tuple[str, str]]()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            files.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return files


# The call


@needs_the_call
def test_what_is_there_is_opened(root: Path, root_fd: int) -> None:
    path = "/".join(NAMES)
    with durable.opened(syscalls.open_below(root_fd, path, DIRECTORY)) as fd:
        assert os.path.samestat(os.fstat(fd), root.joinpath(*NAMES).stat())
        assert not os.get_inheritable(fd)
    with durable.opened(syscalls.open_below(root_fd, ".", DIRECTORY)) as fd:
        assert os.path.samestat(os.fstat(fd), root.stat())
    assert text_of(syscalls.open_below(root_fd, f"{path}/file", FILE)) == "root"


@needs_the_call
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("last", ["", "/file"], ids=["directory", "file"])
def test_a_link_anywhere_on_the_way_is_refused(
    root: Path, root_fd: int, depth: int, last: str
) -> None:
    link(root, depth)
    with pytest.raises(OSError) as caught:
        syscalls.open_below(root_fd, "/".join(NAMES) + last, FILE)
    assert caught.value.errno == errno.ELOOP


@needs_the_call
@pytest.mark.parametrize("to", ["file", "none", "."], ids=["file", "dangling", "directory"])
def test_a_link_at_the_end_is_refused(root: Path, root_fd: int, to: str) -> None:
    root.joinpath(*NAMES, "link").symlink_to(to)
    with pytest.raises(OSError) as caught:
        syscalls.open_below(root_fd, "/".join((*NAMES, "link")), FILE)
    assert caught.value.errno == errno.ELOOP


@needs_the_call
@pytest.mark.parametrize("path", ["none", "20071025/none/0b", "/".join((*NAMES, "none"))])
def test_a_missing_step_is_not_found(root_fd: int, path: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        syscalls.open_below(root_fd, path, FILE)
    assert caught.value.filename == path


@needs_the_call
@pytest.mark.parametrize("path", ["..", "20071025/../../elsewhere", "/etc/passwd"])
def test_nothing_outside_is_opened(root_fd: int, path: str) -> None:
    with pytest.raises(OSError) as caught:
        syscalls.open_below(root_fd, path, FILE)
    assert caught.value.errno == errno.EXDEV


# With the call and without it


@pytest.mark.usefixtures("either_way")
def test_directories_and_files_are_opened_either_way(root: Path, root_fd: int) -> None:
    for depth in range(len(NAMES) + 1):
        with durable.opened(durable.walk_down(root_fd, NAMES[:depth])) as fd:
            assert os.path.samestat(os.fstat(fd), root.joinpath(*NAMES[:depth]).stat())
    fd, status = open_file(root_fd, NAMES, "file")
    assert status == os.fstat(fd)
    assert text_of(fd) == "root"


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_link_on_the_way_is_named_either_way(root: Path, root_fd: int, depth: int) -> None:
    link(root, depth)
    before = open_files()
    for opening in (
        lambda: durable.walk_down(root_fd, NAMES),
        lambda: open_file(root_fd, NAMES, "file"),
    ):
        with pytest.raises(OSError, match=f"{NAMES[depth - 1]} is a symbolic link") as caught:
            opening()
        assert caught.value.errno == errno.ELOOP
    assert open_files() <= before


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_file_on_the_way_is_named_either_way(root: Path, root_fd: int, depth: int) -> None:
    path = root.joinpath(*NAMES[: depth + 1])
    path.rename(root / "moved")
    path.write_text("no directory")
    before = open_files()
    with pytest.raises(OSError, match=f"{NAMES[depth]} is a symbolic link or no directory"):
        durable.walk_down(root_fd, NAMES)
    assert open_files() <= before


@pytest.mark.usefixtures("either_way")
def test_what_is_missing_is_not_found_either_way(root_fd: int) -> None:
    before = open_files()
    with pytest.raises(FileNotFoundError):
        durable.walk_down(root_fd, (*NAMES[:2], "none", "ba"))
    with pytest.raises(FileNotFoundError):
        open_file(root_fd, (*NAMES[:2], "none", "ba"), "file")
    with pytest.raises(FileNotFoundError):
        open_file(root_fd, NAMES, "none")
    assert open_files() <= before


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_what_is_no_regular_file_is_refused_either_way(root: Path, root_fd: int, what: str) -> None:
    path = root.joinpath(*NAMES, "trap")
    if what == "link":
        path.symlink_to("file")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = open_files()
    with pytest.raises(OSError, match=r"trap is (a symbolic link|no regular file)") as caught:
        open_file(root_fd, NAMES, "trap")
    assert caught.value.errno == errno.ELOOP
    assert open_files() <= before
