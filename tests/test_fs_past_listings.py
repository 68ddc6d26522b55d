# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A listing of a directory that is older than what is in it is not taken for what is there."""

import datetime as dt
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crashmover.external.fs
from crashmover.crash import Kind
from crashmover.errors import CrashChanged, StorageUnavailable
from crashmover.external.fs import directory_index, durable, locks
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
)
from tests.cli_helpers import run
from tests.fs_faults import temporary_files
from tests.past_listings import btrfs_listings, hidden

OLD: Contents = {RAW: b'"old"', MAIN: b"old"}
NEW: Contents = {RAW: b'"new"', MAIN: b"new"}
OTHER: Contents = {RAW: b'"other"', MAIN: b"other", BROWSER: b"other", (Kind.DUMP, "x"): b"other"}

Act = Callable[[FSPermanentStorage], object]


@pytest.fixture(params=[0, 70], ids=["few", "many"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> FSPermanentStorage:
    """A store with a crash; it and a neighbour share a directory, with others or not."""
    storage = FSPermanentStorage(tmp_path / "store")
    storage.save_crashes([crash_of(OLD), crash_of(OLD, NEIGHBOUR)])
    for n in range(request.param):
        (leaf_of(storage) / f"{CRASH_ID[:-12]}{n:06d}{CRASH_ID[-6:]}.txt").touch()
    return storage


def leaf_of(storage: FSPermanentStorage) -> Path:
    return storage.root.joinpath(*storage.layout.leaves(CRASH_ID)[0])


def files_of(storage: FSPermanentStorage) -> list[str]:
    return sorted(path.name for path in leaf_of(storage).glob(f"*{CRASH_ID}*"))


def before_lock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let another do something just before the next lock is taken: its directory is open."""
    lock = locks.lock

    def late(*args: Any, **kwargs: Any) -> tuple[int, bool]:
        monkeypatch.setattr(locks, "lock", lock)
        act()
        return lock(*args, **kwargs)

    monkeypatch.setattr(locks, "lock", late)


# As Btrfs lists


def test_a_save_that_waited_for_another_leaves_none_of_its_dumps(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    btrfs_listings(monkeypatch)
    before_lock(monkeypatch, lambda: FSPermanentStorage(storage.root).save_crash(crash_of(OTHER)))
    storage.save_crash(crash_of(NEW))
    assert read(storage) == NEW
    assert files_of(storage) == [f"{CRASH_ID}.dump", f"{CRASH_ID}.json"]


def empty(storage: FSPermanentStorage) -> object:
    return list(storage.remove_days(dt.date.min, dt.date.max))


@pytest.mark.parametrize(
    "act",
    [
        lambda storage: storage.remove(CRASH_ID),
        lambda storage: storage.remove_crashes([CRASH_ID]),
        empty,
    ],
    ids=["remove", "remove_crashes", "remove_days"],
)
def test_a_removal_that_waited_for_a_save_leaves_none_of_its_dumps(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    btrfs_listings(monkeypatch)
    before_lock(monkeypatch, lambda: FSPermanentStorage(storage.root).save_crash(crash_of(OTHER)))
    act(storage)
    assert files_of(storage) == []


def test_a_removal_of_what_was_loaded_notices_what_was_saved_since(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    btrfs_listings(monkeypatch)
    loaded = storage.load_crash(CRASH_ID)
    late = crash_of({BROWSER: b"late"})
    before_lock(monkeypatch, lambda: FSPermanentStorage(storage.root).save_crash(late))
    with pytest.raises(CrashChanged):
        storage.remove_loaded(loaded)
    assert read(storage) == OLD | {BROWSER: b"late"}


@pytest.mark.parametrize(
    "act",
    [
        lambda storage: storage.save_crash(crash_of(NEW)),
        lambda storage: storage.remove(CRASH_ID),
        empty,
    ],
    ids=["save", "remove", "remove_days"],
)
def test_what_a_process_left_that_died_since_is_cleared_away(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    def die() -> None:
        for name in (f"{CRASH_ID}.json", f"{CRASH_ID}.dump", f"{CRASH_ID}.late.dump"):
            (leaf_of(storage) / durable.temporary_name(name)).write_bytes(b"left")

    btrfs_listings(monkeypatch)
    before_lock(monkeypatch, die)
    act(storage)
    assert temporary_files(storage.root) == []


def test_a_reader_finds_all_dumps_of_the_raw_crash_that_it_found(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash is replaced when the reader has opened its directory."""
    btrfs_listings(monkeypatch)
    status = durable.status

    def late(dir_fd: int, name: str) -> os.stat_result:
        monkeypatch.setattr(durable, "status", status)
        FSPermanentStorage(storage.root).save_crash(crash_of(OTHER))
        return status(dir_fd, name)

    monkeypatch.setattr(durable, "status", late)
    assert read(storage) == OTHER


def test_only_one_function_lists_a_descriptor() -> None:
    [folder] = map(Path, crashmover.external.fs.__path__)
    found = {
        path.name: re.findall(r"\b(scandir|listdir|walk|fwalk|iterdir)\((\w*)", path.read_text())
        for path in folder.glob("*.py")
    }
    assert {name: calls for name, calls in found.items() if calls} == {
        "durable.py": [("scandir", "fd")],
        "surroundings.py": [("scandir", "directory")],  # by its path
    }


# As the cache of a mount lists


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_index, "_PATIENCE_S", 0.05)


OUTDATED = f"the listing of its directory is older than {CRASH_ID}.json; wait, or mount it without"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kinds", [{Kind.DUMP}, {Kind.RAW_CRASH, Kind.DUMP}])
def test_a_crash_that_is_not_listed_yet_is_not_read_without_its_dumps(
    storage: FSPermanentStorage, kinds: set[Kind]
) -> None:
    with hidden(lambda name: name.startswith(CRASH_ID)) as names:
        with pytest.raises(StorageUnavailable, match=OUTDATED):
            storage.load_crash(CRASH_ID, kinds)
        assert names.count(f"{CRASH_ID}.json") > 2, "it is listed again and again"
        assert read(storage, NEIGHBOUR) == OLD
    assert read(storage) == OLD


def test_a_listing_that_comes_late_is_waited_for(storage: FSPermanentStorage) -> None:
    hides = iter([True] * 8)
    with hidden(lambda name: name.startswith(CRASH_ID) and next(hides, False)):
        assert read(storage) == OLD
    assert next(hides, None) is None


@pytest.mark.usefixtures("impatient")
def test_a_copy_does_not_take_a_crash_that_is_not_listed_yet(
    storage: FSPermanentStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    places = ("-s", storage.root, "-d", tmp_path / "to")
    with hidden(lambda name: name.startswith(CRASH_ID)):
        done = run("copy", *places, "--workers", "1", CRASH_ID, NEIGHBOUR)
    assert done.exit_code == 1
    assert [line for line in done.stderr.splitlines() if OUTDATED in line]
    with FSPermanentStorage(tmp_path / "to") as copied:
        assert list(copied.new_crashes()) == [NEIGHBOUR]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "act",
    [
        lambda storage: storage.save_crash(crash_of(OTHER)),
        lambda storage: storage.remove(CRASH_ID),
        lambda storage: storage.remove_loaded(storage.load_crash(CRASH_ID)),
    ],
    ids=["save", "remove", "remove_loaded"],
)
def test_a_listing_that_lacks_the_lock_changes_nothing(
    storage: FSPermanentStorage, act: Act
) -> None:
    before = files_of(storage)
    with (
        hidden(lambda name: name in (f".{CRASH_ID}.json.tmp", f"{CRASH_ID}.x.dump")),
        pytest.raises(StorageUnavailable, match="listing of its directory is older than"),
    ):
        act(storage)
    assert read(storage) == OLD
    assert files_of(storage) in (before, sorted([*before, f".{CRASH_ID}.json.tmp"]))
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()
    assert temporary_files(storage.root) == []
