# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""File systems that list the past, and mounts that answer from a cache: the races on them."""

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from crashmover.crash import Kind
from crashmover.errors import CrashIDNotFound, StorageUnavailable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import (
    CRASH_ID,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
)
from tests.cli_helpers import run
from tests.conftest import Figures
from tests.odd_mounts import Lend, behind, files_below

pytestmark = pytest.mark.slow

RACES = 5
SECONDS = 5.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([FSPermanentStorage.__module__])


def dump(name: str) -> tuple[Kind, str]:
    return Kind.DUMP, name


def version(name: str) -> Contents:
    """A crash of which the dumps tell by their names and bytes which save they are of."""
    data = name.encode() * 1000
    return {RAW: b'{"v": "%s"}' % name.encode(), dump("both"): data, dump(f"only_{name}"): data}


def save(root: Path, name: str, start: Event) -> None:
    start.wait()
    FSPermanentStorage(root).save_crash(crash_of(version(name)))


def remove(root: Path, _name: str, start: Event) -> None:
    start.wait()
    time.sleep(0.002)
    FSPermanentStorage(root).remove(CRASH_ID)


def race(root: Path, *acts: tuple[Callable[[Path, str, Event], None], str]) -> None:
    """Let processes do something at the same moment."""
    start = _context.Event()
    processes = [_context.Process(target=act, args=(root, name, start)) for act, name in acts]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [("btrfs", []), ("overlay", []), ("sshfs", ["-o", "dir_cache=no"]), ("sshfs", [])],
)
def test_no_race_leaves_dumps_of_two_saves_or_of_none(
    lend: Lend, kind: str, options: list[str], figures: Figures
) -> None:
    root = lend(kind, *options) / "store"
    storage = FSPermanentStorage(root)
    storage.save_crash(crash_of(contents(), NEIGHBOUR))  # it keeps the directory
    for _ in range(RACES):
        race(root, (save, "a"), (save, "b"), (save, "c"))
        assert read(storage) in [version(name) for name in "abc"]
        race(root, (save, "d"), (remove, ""))
        files = {path.name for path in files_below(root) if path.name.startswith(CRASH_ID)}
        names = {f"{CRASH_ID}.json", f"{CRASH_ID}.both.dump", f"{CRASH_ID}.only_d.dump"}
        assert files in (set(), names)
    figures(races=2 * RACES)


@pytest.mark.parametrize("days", [False, True])
def test_what_is_removed_through_sshfs_without_its_cache_is_gone(
    lend: Lend, days: bool, figures: Figures
) -> None:
    there = lend("sshfs", "-o", "dir_cache=no")
    ids = [f"{n:08x}{CRASH_ID[8:]}" for n in range(6)]
    FSPermanentStorage(there / "a").save_crashes([crash_of(contents(), each) for each in ids])
    which = ["--since", "2007-10-25", "--until", "2007-10-25"] if days else ids
    done = run("remove", "--yes", "-s", there / "a", *which)
    assert done.exit_code == 0, done.stderr
    assert files_below(behind(there)) == []
    figures(removed=len(ids))


def test_what_the_server_has_saved_since_is_copied_through_sshfs_with_its_dumps(
    lend: Lend, tmp_path: Path, figures: Figures
) -> None:
    """Its cache lists a directory for 20 s as it was."""
    there = lend("sshfs")
    server = FSPermanentStorage(behind(there) / "a")
    server.save_crash(crash_of(contents(), NEIGHBOUR))
    mounted = FSPermanentStorage(there / "a")
    assert read(mounted, NEIGHBOUR) == contents()
    server.save_crash(crash_of(contents()))
    with pytest.raises(StorageUnavailable, match="the listing of its directory is older than"):
        mounted.load_crash(CRASH_ID)
    done = run("copy", "-s", there / "a", "-d", tmp_path / "to", CRASH_ID)
    assert done.exit_code == 0, done.stderr
    assert read(FSPermanentStorage(tmp_path / "to")) == contents()
    figures(copied=1)


def replace_again_and_again(root: Path, start: Event) -> None:
    storage = FSPermanentStorage(root)
    while not start.is_set():
        for name in "ab":
            storage.save_crash(crash_of(version(name)))
            time.sleep(0.003)


@pytest.mark.parametrize("kind", ["bindfs", "btrfs", "overlay"])
def test_no_reader_finds_parts_of_two_saves(lend: Lend, kind: str, figures: Figures) -> None:
    """Through bindfs, what is replaced on the disk below it; its cache is that of the kernel."""
    there = lend(kind)
    saved = (behind(there) if kind == "bindfs" else there) / "store"
    FSPermanentStorage(saved).save_crash(crash_of(version("a")))
    stop = _context.Event()
    process = _context.Process(target=replace_again_and_again, args=(saved, stop))
    process.start()
    found: Counter[str] = Counter()
    deadline = time.monotonic() + SECONDS
    storage = FSPermanentStorage(there / "store")
    try:
        while time.monotonic() < deadline:
            try:
                parts = read(storage)
            except (CrashIDNotFound, StorageUnavailable):
                found["in_between"] += 1
            else:
                found["whole" if parts in (version("a"), version("b")) else "torn"] += 1
    finally:
        stop.set()
        process.join()
    assert found["whole"] > 10
    assert found["torn"] == 0
    figures(**found)


@pytest.mark.parametrize("kind", ["bindfs", "exfat"])
def test_a_crash_that_is_replaced_through_the_same_mount_is_never_missing(
    lend: Lend, kind: str, figures: Figures
) -> None:
    """libfuse calls a file missing that is replaced between its look-up and its opening."""
    root = lend(kind) / "store"
    same = {RAW: b"{}", dump("x"): b"x", PROCESSED: b"{}"}
    storage = FSPermanentStorage(root)
    storage.save_crash(crash_of(same))
    stop = _context.Event()
    process = _context.Process(target=save_again_and_again, args=(root, same, stop))
    process.start()
    looks = 0
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            assert storage.has_crash(CRASH_ID)
            with suppress(StorageUnavailable):  # told to try again
                assert storage.load_crash(CRASH_ID).processed_crash
            looks += 1
    finally:
        stop.set()
        process.join()
    assert looks > 10
    figures(looks=looks)


def save_again_and_again(root: Path, parts: Contents, stop: Event) -> None:
    storage = FSPermanentStorage(root)
    while not stop.is_set():
        storage.save_crash(crash_of(parts))


def test_a_large_directory_is_read_through_sshfs_by_few_listings(
    lend: Lend, tmp_path: Path, figures: Figures
) -> None:
    """sshfs lists no inode numbers.  What is older than its cache may be has settled."""
    there = lend("sshfs")
    ids = [f"{n:08x}-8721-460c-dead-a43c20071025" for n in range(200)]
    server = FSPermanentStorage(behind(there) / "a")
    server.save_crashes([crash_of({RAW: b"{}", dump("x"): b"x"}, each) for each in ids])
    old = time.time() - 3600  # SFTP knows no change times, sshfs shows these in their place
    for path in files_below(behind(there)):
        os.utime(path, (old, old))
    counted: Counter[str] = Counter()
    sys.addaudithook(lambda event, _args: counted.update([event] if event == "os.scandir" else []))
    storage = FSPermanentStorage(there / "a")
    for crash_id in ids:
        assert len(storage.load_crash(crash_id).parts) == 2
    assert counted["os.scandir"] <= 2
    figures(loaded=len(ids), listings=counted["os.scandir"])
