# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Modes: what a file system does not keep is said, and what was asked for and is not kept is
refused before anything is saved."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashmover import FSPermanentStorage
from crashmover.errors import StorageDenied
from crashmover.external.fs import modes, mounts
from crashmover.testing import CRASH_ID, contents, crash_of
from tests.cli_helpers import run
from tests.conftest import Figures
from tests.odd_mounts import Lend, files_below, modes_below

COUNT = 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    crashes = [crash_of(contents(), f"{n:08x}{CRASH_ID[8:]}") for n in range(COUNT)]
    FSPermanentStorage(root).save_crashes(crashes)
    return root


@pytest.fixture
def process_umask() -> Iterator[Callable[[int], int]]:
    """Set the umask of the process, until the test ends."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the system calls a mount of an unknown kind."""
    there = tmp_path / "odd"
    there.mkdir()
    file = tmp_path / "mountinfo"
    file.write_text(f"30 22 0:30 / {there} rw - fuse.odd odd rw\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", file)
    return there


def refused(source: Path, destination: str, root: Path) -> None:
    """Assert that nothing is saved, in one line, by either command; and nothing is left."""
    raw = source.with_name("raw.json")
    raw.write_text("{}")
    for command in (
        ("copy", "-s", source, "-d", destination),
        ("save", "-d", destination, "--raw-crash", raw),
    ):
        done = run(*map(str, command))
        assert done.exit_code == 4
        [line] = [line for line in done.stderr.splitlines() if "warning" not in line]
        assert "cannot be saved to: files there get mode" in line
        assert "umask" in line
        assert files_below(root) == []
    checked = run("doctor", "-d", destination)
    assert checked.exit_code == 4
    assert checked.stdout.startswith("failed ")
    assert files_below(root) == []


# Without a mount: what fchmod may do


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_refused_chmod_that_was_not_needed_is_passed_over(
    source: Path,
    odd: Path,
    monkeypatch: pytest.MonkeyPatch,
    process_umask: Callable[[int], int],
    number: int,
) -> None:
    def refuse(_fd: int, _mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchmod", refuse)
    done = run("copy", "-s", source, "-d", odd / "a")
    assert done.exit_code == 0
    assert "mode" not in done.stderr
    assert modes_below(odd / "a") == {0o644}
    asked = run("copy", "-s", source, "-d", f"{odd}/b?umask=077")
    assert asked.exit_code == 0
    assert modes_below(odd / "b") == {0o600}
    process_umask(0o077)
    warned = run("copy", "-s", source, "-d", odd / "c")
    assert warned.exit_code == 0
    assert warned.stderr.count("files there get mode 0600 and not 0644: the mount decides") == 1
    refused(source, f"{odd}/d?umask=027", odd / "d")


def test_a_chmod_that_fails_otherwise_fails_the_save(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int, _mode: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fchmod", fail)
    [error] = FSPermanentStorage(odd).save_crashes([crash_of(contents())])
    assert "Input/output error" in str(error)


def test_a_chmod_that_does_nothing_is_noticed(
    source: Path, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "mode_of", lambda _fd: 0o777)
    done = run("copy", "-s", source, "-d", odd / "a")
    assert done.exit_code == 0
    assert done.stderr.count("files there get mode 0777 and not 0644: the mount decides") == 1
    refused(source, f"{odd}/b?umask=077", odd / "b")
    # Without a mover, the save itself refuses.
    storage = FSPermanentStorage(odd / "c", umask=0o027)
    errors = storage.save_crashes(
        [crash_of(contents(), f"{n:08x}{CRASH_ID[8:]}") for n in range(3)]
    )
    assert {type(error) for error in errors} == {StorageDenied}
    assert files_below(odd / "c") == []
    assert FSPermanentStorage(odd / "d").save_crashes([crash_of(contents())]) == [None]


CALLS = {
    "fcntl.flock": "locked",
    "os.fsync": "forced to the disk",
    "os.rename": "renamed",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_what_a_save_needs_is_tried_before_the_first(
    source: Path, odd: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    module, _, name = call.partition(".")
    monkeypatch.setattr({"os": os, "fcntl": fcntl}[module], name, refuse)
    done = run("copy", "-s", source, "-d", odd)
    assert done.exit_code == 4
    text = f"cannot be saved to: files cannot be {CALLS[call]} there: {os.strerror(number)}"
    assert done.stderr.splitlines()[-1] == f"crashmover: fs://{odd}: {text}"
    assert files_below(odd) == []


def test_a_full_disk_is_in_the_way_of_saves_only(
    source: Path, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("copy", "-s", source, "-d", odd)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = run("copy", "-s", source, "-d", odd)
    assert done.exit_code == 0, done.stderr
    assert f"skipped {COUNT}" in done.stderr


def test_a_usual_disk_is_not_tried(source: Path, tmp_path: Path) -> None:
    storage = FSPermanentStorage(tmp_path / "a", umask=0o077)
    before = os.stat(tmp_path).st_mtime_ns
    assert storage.try_saving() == []
    assert os.stat(tmp_path).st_mtime_ns == before
    assert storage.save_crashes([crash_of(contents())]) == [None]
    assert modes_below(tmp_path / "a") == {0o600}


# On real mounts


@pytest.mark.slow
def test_where_chmod_is_refused_crashes_are_saved_all_the_same(
    source: Path, lend: Lend, process_umask: Callable[[int], int], figures: Figures
) -> None:
    there = lend("bindfs", "--chmod-deny")
    assert run("doctor", "-d", there).exit_code == 0
    done = run("copy", "-s", source, "-d", there / "a", "--verify")
    assert done.exit_code == 0
    assert f"copied {COUNT}" in done.stderr
    assert modes_below(there / "a") == {0o644}
    assert run("copy", "-s", source, "-d", f"{there}/b?umask=077").exit_code == 0
    assert modes_below(there / "b") == {0o600}
    process_umask(0o077)
    warned = run("copy", "-s", source, "-d", there / "c")
    assert warned.stderr.count("files there get mode 0600 and not 0644") == 1
    refused(source, f"{there}/d?umask=027", there / "d")
    figures(copied=3 * COUNT, refused=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exfat", "ntfs-3g"])
def test_where_the_mount_decides_a_warning_says_so(
    source: Path, lend: Lend, kind: str, figures: Figures
) -> None:
    there = lend(kind)
    done = run("copy", "-s", source, "-d", there / "a", "--verify")
    assert done.exit_code == 0
    assert done.stderr.count("files there get mode 0777 and not 0644: the mount decides") == 1
    assert "locks" not in done.stderr
    assert run("doctor", "-d", there / "a").stdout.startswith("warn ")
    refused(source, f"{there}/b?umask=077", there / "b")
    [error] = FSPermanentStorage(there / "c", umask=0o077).save_crashes([crash_of(contents())])
    assert isinstance(error, StorageDenied)
    assert files_below(there / "c") == []
    figures(copied=COUNT, refused=4)


@pytest.mark.slow
def test_a_mount_with_the_modes_that_were_asked_for_is_well(source: Path, lend: Lend) -> None:
    there = lend("exfat", "-o", "umask=077")
    done = run("copy", "-s", source, "-d", f"{there}/a?umask=077")
    assert done.exit_code == 0, done.stderr
    assert {mode & 0o077 for mode in modes_below(there / "a")} == {0}
