# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store on a disk that is full: of bytes, or of files.

The disk is one in memory (tmpfs), which root may make as small as it takes.  What anybody may
try is a limit to the size of a file (``RLIMIT_FSIZE``).
"""

import errno
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytest

from crashmover.errors import CrashChanged, CrashIDNotFound, StorageError, StorageUnavailable
from crashmover.external.fs import locks
from crashmover.external.fs.crashstorage import FSPermanentStorage
from tests.cli_helpers import (
    MAIN_DUMP,
    Sample,
    by_crash_id,
    is_harmless,
    manifest,
    processed_crash,
    put,
    run_process,
    sample,
    stored,
    without_risks,
)
from tests.conftest import Figures, missing, wanted
from tests.fs_faults import temporary_files

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LARGE = {"bytes": 64 << 20, "inodes": 100_000}
_STEPS = 10  # from no room at all to nearly enough

Ended = subprocess.CompletedProcess[bytes]
Outcomes = dict[str, dict[str, Any]]


def some_crashes(count: int) -> list[Sample]:
    """Crashes with dumps of no to several pages of memory, always the same."""
    rng = random.Random(6)
    return [
        sample(
            n,
            leaf=("0bba", "c0de")[n % 2],
            depth="0214"[n % 4],
            dumps={MAIN_DUMP: rng.randbytes(n % 5 * 3000), "memory_report": rng.randbytes(n)},
            processed=processed_crash(note=rng.randbytes(n * 20).hex()) if n % 3 else None,
        )
        for n in range(count)
    ]


CRASHES = some_crashes(48)


def copy(source: Path, *options: str | Path, limit: int | None = None) -> tuple[Ended, Outcomes]:
    """Copy; return how it ended, and what was reported of each crash.

    :param limit: to the bytes of a file
    """
    prefix = [] if limit is None else limited(limit)
    ended = run_process("copy", "-s", source, *options, "--report", "/dev/stdout", prefix=prefix)
    return ended, by_crash_id(ended.stdout.splitlines())


def limited(size: int) -> list[str]:
    """What runs a command that can make no file larger than that."""
    code = (
        "import os, resource, sys;"
        "limit, *command = sys.argv[1:];"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)));"
        "os.execv(command[0], command)"
    )
    return [sys.executable, "-c", code, str(size)]


def broken_promises(
    ended: Ended, outcomes: Outcomes, source: Path, destination: Path, why: str
) -> Iterator[str]:
    """Yield what is wrong after a copy for which there was not enough room.

    :param why: what must be said of each crash that was not copied
    """
    there = stored(destination) if destination.exists() else {}
    left = stored(source)
    arrived: set[str] = set()
    for crash in CRASHES:
        status = outcomes.get(crash.crash_id, {"status": "not said"})["status"]
        files = manifest(crash)
        if status in ("copied", "skipped"):
            arrived |= files.keys()
        elif files.items() - left.items():
            yield f"{crash.crash_id} is {status} and not in the source any more"
        if status in ("copied", "skipped") and files.items() - there.items():
            yield f"{crash.crash_id} is {status} and not there"
    if strays := there.keys() - arrived:
        yield f"there is what was not reported: {sorted(strays)}"
    if destination.exists() and (temporary := temporary_files(destination)):
        yield f"left over: {temporary}"
    yield from badly_said(ended, outcomes, why)


def badly_said(ended: Ended, outcomes: Outcomes, why: str) -> Iterator[str]:
    """Yield what is wrong with what was said: a line for each crash that was not copied, and
    the summary."""
    *lines, summary = without_risks(ended.stderr).splitlines()
    failed = sorted(i for i, outcome in outcomes.items() if outcome["status"] == "failed")
    if ended.returncode not in (1, 4) or not failed:
        yield f"exit code {ended.returncode}, failed {len(failed)}"
    if sorted(line.partition(": failed: ")[0] for line in lines) != failed:
        yield "not each crash is named once"
    if not all(line.endswith(why) for line in lines) or not all(map(is_harmless, lines)):
        yield "it is not said why"
    if f"failed {len(failed)};" not in summary:
        yield f"the summary is {summary}"


# Files that can be no larger than that


def test_what_is_too_large_for_a_file_is_not_copied_and_all_else_is(
    tmp_path: Path, figures: Figures
) -> None:
    source, destination = put(tmp_path / "source", *CRASHES), tmp_path / "destination"
    seen: Counter[str] = Counter()
    there: set[str] = set()
    for limit in (0, 3500, 9500):
        ended, outcomes = copy(source, "-d", destination, limit=limit)
        fitting = {crash.crash_id for crash in CRASHES if largest_file(source, crash) <= limit}
        copied = {i for i, outcome in outcomes.items() if outcome["status"] == "copied"}
        assert copied == fitting - there
        broken = list(broken_promises(ended, outcomes, source, destination, "File too large"))
        assert not broken, f"limit {limit}: {broken}"
        there |= fitting
        seen.update(outcome["status"] for outcome in outcomes.values())
    assert 0 < len(there) < len(CRASHES)
    ended, _ = copy(source, "-d", destination)
    assert (ended.returncode, stored(destination)) == (0, manifest(*CRASHES))
    figures(limits=3, **seen)


def largest_file(root: Path, crash: Sample) -> int:
    return max(crash.path(root, suffix).stat().st_size for suffix in crash.parts)


def test_a_save_of_what_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    crash = sample(dumps={MAIN_DUMP: bytes(5000)})
    destination = tmp_path / "destination"
    ended = run_process(*save(crash, tmp_path, destination), prefix=limited(4999))
    assert_refused_for(ended, "File too large")
    assert stored(destination) == {}
    assert run_process(*save(crash, tmp_path, destination), prefix=limited(5000)).returncode == 0
    assert stored(destination) == manifest(crash)


def save(crash: Sample, directory: Path, destination: Path) -> list[str | Path]:
    """Write a crash's parts to files, and return the command that saves it from these."""
    command: list[str | Path] = ["save", "-d", destination, crash.crash_id]
    parts = {"raw": crash.raw, **crash.dumps, "processed": crash.processed}
    for name, data in parts.items():
        if data is not None:
            file = directory / name
            file.write_bytes(data)
            is_dump = name in crash.dumps
            command += ["--dump", f"{name}={file}"] if is_dump else [f"--{name}-crash", file]
    return command


def assert_refused_for(ended: Ended, why: str) -> None:
    said = without_risks(ended.stderr)
    assert (ended.returncode, ended.stdout) == (1, b""), said
    assert said.startswith("crashmover: fs:") and said.endswith(f": {why}\n"), said
    assert said.count("\n") == 1


# Removing, where no file can be made


@pytest.fixture
def no_file_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the making of a temporary file fail, as on a disk that is full of files."""

    def refuse(*_args: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(locks, "_open_or_create", refuse)


@pytest.mark.usefixtures("no_file_can_be_made")
def test_a_crash_can_be_removed_where_no_file_can_be_made(tmp_path: Path) -> None:
    kept, removed = sample(1), sample(2, processed=b"{}")
    root = put(tmp_path / "store", kept, removed)
    with FSPermanentStorage(root) as storage:
        storage.remove(removed.crash_id)
        with pytest.raises(CrashIDNotFound):
            storage.remove(removed.crash_id)
    assert stored(root) == manifest(kept)


@pytest.mark.usefixtures("no_file_can_be_made")
@pytest.mark.parametrize("change", [None, ".json", ".jsonz"])
def test_a_crash_that_was_loaded_is_removed_there_if_it_is_the_same(
    tmp_path: Path, change: str | None
) -> None:
    crash = sample(processed=b"{}")
    root = put(tmp_path / "store", crash)
    with FSPermanentStorage(root) as storage:
        loaded = storage.load_crash(crash.crash_id)
        if change:
            file = crash.path(root).with_suffix(change)
            file.rename(tmp_path / "old")
            file.write_bytes((tmp_path / "old").read_bytes())
        with pytest.raises(CrashChanged) if change else nullcontext():
            storage.remove_loaded(loaded)
    assert stored(root) == (manifest(crash) if change else {})


@pytest.mark.usefixtures("no_file_can_be_made")
@pytest.mark.parametrize(
    ("what", "error"), [("another name", StorageError), ("a lock", StorageUnavailable)]
)
def test_what_cannot_be_removed_there_stays_as_it_is(
    tmp_path: Path, what: str, error: type[StorageError]
) -> None:
    crash = sample()
    root = put(tmp_path / "store", crash)
    if what == "another name":  # of a file that would be hurt by what is done to a lock
        (tmp_path / "backup").hardlink_to(crash.path(root))
    else:  # which another process has just made
        crash.path(root).with_name(f".{crash.crash_id}.json.tmp").touch()
    before = stored(root)
    with FSPermanentStorage(root) as storage, pytest.raises(error) as caught:
        storage.remove(crash.crash_id)
    assert type(caught.value) is error
    assert stored(root) == before


# A disk that is full


class Tmpfs:
    """A disk in memory, which has as much room as one likes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self._do("mount", "-t", "tmpfs", "-o", self._options(), "crashmover-test", root)
        (root / "something").write_bytes(bytes(1))  # as no limit at all is written as 0

    @property
    def used(self) -> dict[str, int]:
        """What is taken: pages, and files with directories."""
        found = os.statvfs(self.root)
        pages = (found.f_blocks - found.f_bfree) * found.f_frsize // _PAGE
        return {"bytes": pages, "inodes": found.f_files - found.f_ffree}

    def leave(self, what: str, room: int) -> None:
        """Let there be room for so many pages, or files, and no more."""
        most = self.used[what] + room
        self._remount(**{what: most * _PAGE if what == "bytes" else most})

    def grow(self) -> None:
        """Let there be room again."""
        self._remount()

    def unmount(self) -> None:
        self._do("umount", self.root)
        self.root.rmdir()

    def _remount(self, **limits: int) -> None:
        self._do("mount", "-o", f"remount,{self._options(**limits)}", self.root)

    def _options(self, **limits: int) -> str:
        most = _LARGE | limits
        return f"size={most['bytes']},nr_inodes={most['inodes']}"

    def _do(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def tmpfs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tmpfs]:
    wanted(request, "tmpfs")
    try:
        disk = Tmpfs(tmp_path / "mounted")
    except (OSError, subprocess.CalledProcessError) as error:
        missing("tmpfs", error)
    try:
        yield disk
    finally:
        disk.unmount()


slow = pytest.mark.slow
full_of = pytest.mark.parametrize("what", ["bytes", "inodes"])
_NO_SPACE = "No space left on device"


def steps(needed: int, most: int = _STEPS) -> list[int]:
    """Rooms from none to nearly what is needed."""
    return sorted({(needed - 1) * step // (most - 1) for step in range(most)})


def taken_by_all(disk: Tmpfs, source: Path, what: str) -> int:
    """How much room a copy of all takes."""
    before = disk.used[what]
    root = disk.root / "all"
    assert copy(source, "-d", root)[0].returncode == 0
    taken = disk.used[what] - before
    remove_all(root)
    return taken


def remove_all(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    root.rmdir()


@slow
@full_of
@pytest.mark.parametrize("removing", [[], ["--remove-source"]], ids=["", "removing"])
def test_what_a_full_disk_has_no_room_for_is_said_and_copied_when_there_is_room(
    tmpfs: Tmpfs, tmp_path: Path, figures: Figures, what: str, removing: list[str]
) -> None:
    source = put(tmp_path / "source", *CRASHES)
    needed = taken_by_all(tmpfs, source, what)
    seen: Counter[str] = Counter()
    destination = tmpfs.root / "destination"
    for room in steps(needed):
        put(source, *CRASHES)
        tmpfs.leave(what, room)
        ended, outcomes = copy(source, "-d", destination, *removing)
        broken = list(broken_promises(ended, outcomes, source, destination, _NO_SPACE))
        seen.update(outcome["status"] for outcome in outcomes.values())
        tmpfs.grow()
        ended, _ = copy(source, "-d", destination, *removing)
        if (ended.returncode, stored(destination)) != (0, manifest(*CRASHES)):
            broken.append(f"a rerun does not complete it: {ended.stderr.decode()}")
        if stored(source) != ({} if removing else manifest(*CRASHES)):
            broken.append("the source is not what it should be then")
        assert not broken, f"room for {room} {what} of {needed}: {broken}"
        remove_all(destination)
    assert seen["copied"] and seen["failed"] >= len(CRASHES)
    figures(disks=len(steps(needed)), **seen)


@slow
@full_of
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
def test_a_save_to_a_full_disk_leaves_what_was_there(
    tmpfs: Tmpfs, tmp_path: Path, figures: Figures, what: str, replaced: bool
) -> None:
    old, new = (
        sample(dumps={MAIN_DUMP: letter * 9000, name: letter}, processed=processed_crash(v=name))
        for letter, name in [(b"a", "memory_report"), (b"b", "upload_file_minidump_browser")]
    )
    root = tmpfs.root / "destination"
    before = [old] if replaced else []
    needed = 0
    while True:
        put(root, *before)
        tmpfs.leave(what, needed)
        ended = run_process(*save(new, tmp_path, root))
        tmpfs.grow()
        if ended.returncode == 0:
            break
        assert_refused_for(ended, _NO_SPACE)
        assert stored(root) == manifest(*before), f"room for {needed} {what}"
        assert run_process(*save(new, tmp_path, root)).returncode == 0
        assert stored(root) == manifest(new), f"room for {needed} {what}"
        remove_all(root)
        needed += 1
    assert stored(root) == manifest(new)
    assert needed >= 4
    figures(refused=needed)


@slow
@full_of
def test_a_source_that_is_full_can_be_emptied(
    tmpfs: Tmpfs, tmp_path: Path, figures: Figures, what: str
) -> None:
    source, destination = put(tmpfs.root / "source", *CRASHES), tmp_path / "destination"
    tmpfs.leave(what, 0)
    ended, _ = copy(source, "-d", destination, "--remove-source")
    assert ended.returncode == 0, ended.stderr.decode()
    assert stored(destination) == manifest(*CRASHES)
    assert stored(source) == {}
    figures(removed=len(CRASHES))


@slow
@full_of
def test_of_a_source_that_is_full_each_kind_of_crash_can_be_removed(
    tmpfs: Tmpfs, what: str
) -> None:
    root = put(tmpfs.root / "source", *CRASHES[:4])
    CRASHES[1].path(root).unlink()  # its processed crash is there by itself
    with FSPermanentStorage(root) as storage:
        for crash in CRASHES[:4]:
            tmpfs.leave(what, 0)
            storage.remove(crash.crash_id)
            assert not any(crash.crash_id in name for name in stored(root))
    assert temporary_files(root) == []


@slow
@full_of
def test_of_three_destinations_one_may_be_full(
    tmpfs: Tmpfs, tmp_path: Path, figures: Figures, what: str
) -> None:
    source = put(tmp_path / "source", *CRASHES)
    full, others = tmpfs.root / "full", [tmp_path / "one", tmp_path / "other"]
    tmpfs.leave(what, taken_by_all(tmpfs, source, what) // 2)
    destinations = ("-d", others[0], "-d", full, "-d", others[1])
    ended, outcomes = copy(source, *destinations, "--remove-source")
    broken = list(broken_promises(ended, outcomes, source, full, _NO_SPACE))
    assert not broken, ended.stderr.decode()
    assert [stored(root) for root in others] == [manifest(*CRASHES)] * 2
    tmpfs.grow()
    options = ("--remove-source", "--existing", "compare")
    assert copy(source, *destinations, *options)[0].returncode == 0
    assert stored(full) == manifest(*CRASHES) and stored(source) == {}
    figures(failed=sum(outcome["status"] == "failed" for outcome in outcomes.values()))
