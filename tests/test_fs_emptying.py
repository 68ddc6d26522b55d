# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store: days are emptied of all that is the store's, and of nothing else.

What becomes of a day when the one who empties it is killed, or a call fails, is in
`tests.test_fs_faults`, and when the power fails, in `tests.test_fs_power`.
"""

import datetime as dt
import errno
import fcntl
import os
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from crashmover import crashid, open_storage
from crashmover.crash import Kind
from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.fs import directory_index, emptying, forcing, locks, removing, settling
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import (
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
    without,
)
from tests.cli_helpers import manifest, put, sample, snapshot, stored

DAY = crashid.date_of(CRASH_ID)
LEAF = Path("20071025/name/0b/ba")
FLAT_ID = CRASH_ID[:-7] + "0071025"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> Iterator[FSPermanentStorage]:
    with FSPermanentStorage(root) as storage:
        yield storage


def empty(storage: FSPermanentStorage, day: dt.date = DAY) -> list[str]:
    """Remove the crashes of a day, all of which must go; return which these were."""
    removed = list(storage.remove_days(day, day))
    assert [error for _, error in removed if error] == []
    return [crash_id for crash_id, _ in removed]


# What goes, and what stays


def test_an_emptied_day_leaves_no_directory(storage: FSPermanentStorage, root: Path) -> None:
    for crash_id in (CRASH_ID, NEIGHBOUR, FLAT_ID, CRASH_ID[:-7] + "4071025"):
        storage.save_crash(crash_of(contents(), crash_id))
    assert len(empty(storage)) == 4
    assert list(root.iterdir()) == []


def test_what_is_not_the_store_s_stays_and_nothing_else(
    storage: FSPermanentStorage, root: Path
) -> None:
    for crash_id in (CRASH_ID, NEIGHBOUR, FLAT_ID):
        storage.save_crash(crash_of(contents(), crash_id))
    foreign = [
        LEAF / "README",
        LEAF / ".hidden",
        LEAF / f"{CRASH_ID}.json~",
        LEAF / f"{CRASH_ID}.txt",
        LEAF / f"ff{CRASH_ID[2:]}.json",  # belongs in another leaf
        LEAF / f"{CRASH_ID[:-6]}071026.json",  # belongs to another day
        LEAF / "notes" / f"{NEIGHBOUR}.json",
        Path("20071025/date/0b/ba") / f"{CRASH_ID}.json",
        Path("20071025/name/0b/ba/92/9f/00") / f"{FLAT_ID}.json",  # too deep
        Path("2007102５/name/0b/ba") / f"{CRASH_ID}.json",
        Path("lost+found/x"),
    ]
    for path in foreign:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("{}")
    (root / "20071025/name/empty").mkdir()
    assert sorted(empty(storage)) == sorted([CRASH_ID, NEIGHBOUR, FLAT_ID])
    assert stored(root).keys() == set(map(str, foreign))
    assert (root / "20071025/name/empty").exists()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_link_on_the_way_is_not_followed_and_the_rest_is_removed(
    storage: FSPermanentStorage, root: Path, tmp_path: Path, depth: int
) -> None:
    elsewhere = tmp_path / "elsewhere"
    with FSPermanentStorage(elsewhere) as other:
        other.save_crash(crash_of(contents()))
    link = root.joinpath(*LEAF.parts[:depth])
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere.joinpath(*LEAF.parts[:depth]))
    before = snapshot(elsewhere)
    later = CRASH_ID[:-6] + "071026"
    storage.save_crash(crash_of(contents(), later))
    removed: list[str] = []
    with pytest.raises(StorageDenied, match=r"cannot be listed: .* is a symbolic link"):
        for crash_id, error in storage.remove_days(DAY, crashid.date_of(later)):
            assert error is None
            removed.append(crash_id)
    assert removed == [later]
    assert snapshot(elsewhere) == before
    assert link.is_symlink()


def test_a_link_in_place_of_a_file_is_removed_and_what_it_names_stays(
    storage: FSPermanentStorage, root: Path, tmp_path: Path
) -> None:
    storage.save_crash(crash_of(contents()))
    (tmp_path / "secret").write_bytes(b"secret")
    (root / LEAF / f"{CRASH_ID}.dump").unlink()
    (root / LEAF / f"{CRASH_ID}.dump").symlink_to(tmp_path / "secret")
    assert empty(storage) == [CRASH_ID]
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("crash_id", "directory"),
    [
        (FLAT_ID, "20071025/name"),
        (FLAT_ID, f"20071025/name/{FLAT_ID}"),
        (FLAT_ID, f"20071025/name/0b/ba/92/9f/{FLAT_ID}"),
        (CRASH_ID, f"{LEAF}/{CRASH_ID}"),
        (CRASH_ID[:-7] + "f071025", f"{LEAF}"),
    ],
)
def test_every_form_is_removed_and_each_crash_is_said_once(
    storage: FSPermanentStorage, root: Path, crash_id: str, directory: str
) -> None:
    storage.save_crash(crash_of(contents(), crash_id))  # and so it lies in two places, or one
    (root / directory).mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".dump", ".jsonz"):
        (root / directory / f"{crash_id}{suffix}").write_bytes(b"{}")
    assert empty(storage) == [crash_id]
    assert list(root.iterdir()) == []


def test_the_names_of_a_layout_are_its_own(root: Path) -> None:
    usual = put(root, sample(1, processed=b"{}"))
    before = stored(usual)
    uri = f"{root}?name_branch_base=date&json_file_suffix=.raw&dump_file_suffix=.mini"
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents(), sample(1).crash_id))
        day = crashid.date_of(sample(1).crash_id)
        assert [each for each, _ in storage.remove_days(day, day)] == [sample(1).crash_id]
    assert stored(root) == before


# What somebody has left who died


def test_what_is_left_of_crashes_is_cleared_away_without_a_word(
    storage: FSPermanentStorage, root: Path
) -> None:
    storage.save_crash(crash_of(contents()))
    left = [
        LEAF / f".{NEIGHBOUR}.json.tmp",
        LEAF / f".{NEIGHBOUR}.dump.tmp",
        LEAF / f"{NEIGHBOUR}.memory_report.dump",  # of which the raw crash never came
        LEAF / f".{CRASH_ID}.jsonz.tmp",
        Path("20071025/name/0c/00") / f".0c00{CRASH_ID[4:]}.jsonz.tmp",
        Path("20071025/name/0d/00") / f"0d00{CRASH_ID[4:]}.dump",
        Path("20071025/name") / FLAT_ID / f".{FLAT_ID}.dump.tmp",
    ]
    for path in left:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"half")
    (root / "20071025/name/ee").mkdir()
    assert empty(storage) == [CRASH_ID]
    assert list(root.iterdir()) == []


def test_what_another_process_is_saving_is_left_to_it(
    storage: FSPermanentStorage, root: Path
) -> None:
    storage.save_crash(crash_of(contents()))
    lock = root / LEAF / f".{NEIGHBOUR}.json.tmp"
    dump = root / LEAF / f".{NEIGHBOUR}.dump.tmp"
    dump.write_bytes(b"half")
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert empty(storage) == [CRASH_ID]
        assert lock.exists() and dump.exists()
    assert empty(storage) == []
    assert list(root.iterdir()) == []


def test_a_crash_that_somebody_holds_is_named_and_the_others_go(
    storage: FSPermanentStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.lock, "__defaults__", (0.0,))  # its patience
    for crash_id in (CRASH_ID, NEIGHBOUR):
        storage.save_crash(crash_of(contents(), crash_id))
    with (root / LEAF / f".{CRASH_ID}.json.tmp").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (held, error), (gone, none) = storage.remove_days(DAY, DAY)
    assert (held, gone, none) == (CRASH_ID, NEIGHBOUR, None)
    assert isinstance(error, StorageUnavailable)
    assert str(error).endswith(f"{CRASH_ID}: cannot be removed: another process is saving it")
    assert read(storage) == contents()


# How


def many(count: int) -> dict[str, Contents]:
    """Crashes of which some share a directory, and some lie flat."""
    parts = [without(contents(), PROCESSED), {PROCESSED: b"{}"}, contents()]
    return {
        f"0bb{n % 16:x}{n:04x}-8721-460c-dead-a43c2{'02'[n % 2]}071025": parts[n % 3]
        for n in range(count)
    }


@pytest.mark.parametrize("whole", [True, False], ids=["file system", "each directory"])
def test_many_are_forced_to_the_disk_at_once_and_said_after_that(
    root: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(emptying, "_TOGETHER", 20)
    calls: Counter[str] = Counter()
    said = 0

    class Watched(forcing.Forcing):
        def finish_file_systems(self, places: Collection[tuple[str, ...]]) -> None:
            calls["at once"] += 1
            assert all(map(self.is_single, places)) != whole
            assert len(stored(root)) < before  # they are gone,
            assert said == 20 * (calls["at once"] - 1)  # and not said

    class Storage(FSPermanentStorage):
        def _forcing(self, root_fd: int, crashes: int) -> forcing.Forcing:
            return Watched(root_fd, together=whole)

    def fsync(fd: int) -> None:
        calls["each"] += 1

    saved = many(50)
    with Storage(root) as storage:
        FSPermanentStorage(root).save_crashes([crash_of(parts, i) for i, parts in saved.items()])
        before = len(stored(root))
        monkeypatch.setattr(os, "fsync", fsync)
        for _crash_id, error in storage.remove_days(DAY, DAY):
            assert error is None
            said += 1
    assert said == 50
    assert calls["at once"] == 3
    assert (calls["each"] > 3) != whole


def test_a_disk_that_fails_takes_nothing_for_gone(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_crashes([crash_of(parts, crash_id) for crash_id, parts in many(20).items()])

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(forcing.Forcing, "finish_file_systems", fail)
        patch.setattr(os, "fsync", fail)
        errors = [error for _, error in storage.remove_days(DAY, DAY)]
    assert len(errors) == 20
    assert all(isinstance(e, StorageError) and "Input/output error" in str(e) for e in errors)


def test_a_directory_that_another_has_just_removed_is_no_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Storage(FSPermanentStorage):
        def _forcing(self, root_fd: int, crashes: int) -> forcing.Forcing:
            return forcing.Forcing(root_fd, together=False)

    fsync = os.fsync
    seen: list[os.stat_result] = []

    def removed_before(fd: int) -> None:
        seen.append(os.fstat(fd))
        fsync(fd)

    with Storage(root) as storage:
        storage.save_crash(crash_of(contents()))
        take_out = removing.CrashRemoval.remove_seen

        def and_then(self: removing.CrashRemoval, dir_fd: int, seen: removing.Seen) -> None:
            take_out(self, dir_fd, seen)
            (root / LEAF).rmdir()

        monkeypatch.setattr(removing.CrashRemoval, "remove_seen", and_then)
        above = (root / LEAF).parent.stat()
        monkeypatch.setattr(os, "fsync", removed_before)
        assert empty(storage) == [CRASH_ID]
    assert [os.path.samestat(each, above) for each in seen] == [True]


@pytest.mark.parametrize("settled_ns", [settling.SETTLED_NS, -(10**18)], ids=["new", "old"])
def test_a_full_disk_is_emptied(
    storage: FSPermanentStorage, root: Path, monkeypatch: pytest.MonkeyPatch, settled_ns: int
) -> None:
    monkeypatch.setattr(emptying, "SETTLED_NS", settled_ns)
    storage.save_crashes([crash_of(parts, crash_id) for crash_id, parts in many(20).items()])

    def refuse(*_args: object) -> tuple[int, bool]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(locks, "_open_or_create", refuse)
    assert sorted(empty(storage)) == sorted(many(20))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("what", ["linked", "no such call", "read-only"])
def test_where_a_file_cannot_become_the_lock_there_is_one_beside_it(
    storage: FSPermanentStorage,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    def no_such_call(*_args: object) -> NoReturn:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(emptying, "SETTLED_NS", -(10**18))  # all has settled
    storage.save_crash(crash_of(contents()))
    raw_crash = root / LEAF / f"{CRASH_ID}.json"
    if what == "linked":
        (tmp_path / "backup").hardlink_to(raw_crash)
    elif what == "read-only":
        monkeypatch.setattr(locks, "_TO_LOCK", os.O_RDWR | os.O_DIRECTORY)  # root may anything
    else:
        monkeypatch.setattr(locks, "rename_to_new", no_such_call)
    assert empty(storage) == [CRASH_ID]
    assert list(root.iterdir()) == []
    if what == "linked":
        assert (tmp_path / "backup").read_bytes() == contents()[RAW]


def test_dumps_that_come_after_a_look_go_too(
    storage: FSPermanentStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the crash had been there for long."""
    storage.save_crash(crash_of({RAW: b"{}"}))
    long_ago = 10**9
    monkeypatch.setattr(emptying, "SETTLED_NS", -(10**18))  # all has settled
    os.utime(root / LEAF / f"{CRASH_ID}.json", ns=(long_ago, long_ago))
    take_out = removing.CrashRemoval.remove_seen

    def add_first(self: removing.CrashRemoval, dir_fd: int, seen: removing.Seen) -> None:
        assert seen.suffixes == (".json",)
        turned = locks._turned_into_lock

        def add(*args: Any) -> int:
            storage.save_crash(crash_of({MAIN: b"late"}))
            return turned(*args)

        with monkeypatch.context() as patch:
            patch.setattr(locks, "_turned_into_lock", add)
            take_out(self, dir_fd, seen)

    monkeypatch.setattr(removing.CrashRemoval, "remove_seen", add_first)
    assert empty(storage) == [CRASH_ID]
    assert list(root.iterdir()) == []


def test_a_large_directory_is_not_listed_for_each_of_its_crashes(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for processed crashes either, which have no raw crash to tell by that nothing has
    changed."""
    ids = [f"{n:08x}-8721-460c-dead-a43c20071025" for n in range(200)]
    storage.save_crashes([crash_of({PROCESSED: b"{}"}, each) for each in ids])
    listed: list[object] = []
    scandir = os.scandir

    def counting(path: int) -> "os._ScandirIterator[str]":
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    assert empty(storage) == ids
    assert len(listed) <= 3


def test_crashes_that_are_named_are_removed_with_their_directories(
    storage: FSPermanentStorage, root: Path
) -> None:
    saved = many(30)
    storage.save_crashes([crash_of(parts, crash_id) for crash_id, parts in saved.items()])
    assert storage.remove_crashes(list(saved)) == [None] * 30
    assert list(root.iterdir()) == []


# Beside others


def test_who_saves_meanwhile_saves_whole_crashes_or_has_them_removed(root: Path) -> None:
    ids = [f"0bba{n:04x}-8721-460c-dead-a43c2{'02'[n % 2]}071025" for n in range(40)]
    parts = {RAW: b"{}", MAIN: b"MDMP", PROCESSED: b"{}"}
    removed: Counter[str] = Counter()
    saved: Counter[str] = Counter()
    with FSPermanentStorage(root) as storage, FSPermanentStorage(root) as other:

        def save() -> None:
            for _ in range(4):
                for at in range(0, len(ids), 10):
                    some = ids[at : at + 10]
                    results = storage.save_crashes([crash_of(parts, each) for each in some])
                    assert not any(map(is_a_mistake, results)), results
                    saved.update(i for i, e in zip(some, results, strict=True) if e is None)

        with ThreadPoolExecutor(1) as pool:
            saving = pool.submit(save)
            while not saving.done():
                removed.update(empty(other))
            saving.result()
        for crash_id in ids:
            raw, processed = (storage.has_crash(crash_id, k) for k in MARKERS)
            if raw:
                assert read(storage, crash_id)[MAIN] == b"MDMP"
            if not raw or not processed:  # it was saved, and then removed
                assert removed[crash_id] or not saved[crash_id]
        empty(other)
    assert list(root.iterdir()) == []


MARKERS = (Kind.RAW_CRASH, Kind.PROCESSED_CRASH)


def is_a_mistake(error: Exception | None) -> bool:
    """Whether a save fails otherwise than because its directory has just been removed."""
    return error is not None and not isinstance(error, StorageError)


def test_a_crash_that_is_removed_while_it_is_looked_at_is_worth_another_try(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_crash(crash_of(contents()))
    names_of = directory_index.IndexCache.names_of

    def and_empty(self: directory_index.IndexCache, *args: Any) -> list[str]:
        names = names_of(self, *args)
        with monkeypatch.context() as patch:
            patch.setattr(directory_index.IndexCache, "names_of", names_of)
            assert empty(storage) == [CRASH_ID]
        return names

    monkeypatch.setattr(directory_index.IndexCache, "names_of", and_empty)
    with pytest.raises(StorageUnavailable, match="replaced or removed while it was read"):
        storage.load_crash(CRASH_ID)


def test_the_neighbouring_days_are_not_touched(root: Path) -> None:
    crashes = [sample(n, day=day) for n, day in enumerate(("261119", "261120", "261121"))]
    put(root, *crashes)
    kept = {name: state for name, state in snapshot(root).items() if "20261120" not in name}
    with FSPermanentStorage(root) as storage:
        assert empty(storage, dt.date(2026, 11, 20)) == [crashes[1].crash_id]
    assert stored(root) == manifest(crashes[0], crashes[2])
    after = snapshot(root)
    assert {name: after[name] for name in kept if name != "."} == {
        name: state for name, state in kept.items() if name != "."
    }
