# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store: what a save leaves behind when it succeeds, fails, or is killed."""

import errno
import fcntl
import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crashmover.crash import Crash, Kind, Part
from crashmover.errors import (
    CrashChanged,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.fs import durable, forcing, locks
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    broken,
    contents,
    crash_of,
    observed,
    read,
    whole_or_none,
    without,
)

LEAF = Path("20071025/name/0b/ba")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def names(root: Path) -> set[str]:
    """What the files of the crash's directory are called, less its id."""
    leaf = root / LEAF
    return {path.name.replace(CRASH_ID, "") for path in leaf.iterdir()} if leaf.exists() else set()


class WatchedForcing(forcing.Forcing):
    """Forces to the disk, looks at each time, and may fail.

    :param fail: the number of the call that fails
    """

    def __init__(
        self, root_fd: int, look: Callable[[], None], *, together: bool, fail: int = 0
    ) -> None:
        super().__init__(root_fd, together=together)
        self._look = look
        self._fail = fail
        self._do: Callable[[], object] = lambda: None
        self.calls = 0
        self._has_dumps = False

    def before_the_last(self, do: Callable[[], object]) -> None:
        """Do this when all is in place."""
        self._do = do

    def finish(self, places: Sequence[tuple[str, ...]], *, new: bool) -> None:
        self.calls += 1
        self._look()
        if self._has_dumps:
            assert not new  # directories may have been made before that
            self._do()
        self._has_dumps |= new
        if self.calls == self._fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().finish(places, new=new)


class WatchedStorage(FSPermanentStorage):
    """Tells what is in place each time before it is forced to the disk."""

    def __init__(self, root: Path, *, whole: bool, fail: int = 0) -> None:
        super().__init__(root)
        self.seen: list[set[str]] = []
        self._whole = whole
        self._fail = fail

    def _forcing(self, root_fd: int, crashes: int) -> WatchedForcing:
        look = lambda: self.seen.append(names(self.root))  # noqa: E731
        return WatchedForcing(root_fd, look, together=self._whole, fail=self._fail)


both_ways = pytest.mark.parametrize("whole", [False, True], ids=["each file", "file system"])


# The order


@both_ways
def test_the_raw_crash_is_put_in_place_when_all_else_is_on_the_disk(
    root: Path, whole: bool
) -> None:
    storage = WatchedStorage(root, whole=whole)
    storage.save_crash(crash_of(contents()))
    dumps = {".dump", ".upload_file_minidump_browser.dump"}
    waiting = {"..json.tmp", "..jsonz.tmp"}
    assert storage.seen == [dumps | waiting, dumps | {".json", ".jsonz"}]
    assert names(root) == dumps | {".json", ".jsonz"}


@both_ways
def test_a_crash_is_out_of_sight_while_its_dumps_are_exchanged(root: Path, whole: bool) -> None:
    storage = WatchedStorage(root, whole=whole)
    storage.save_crash(crash_of(contents("a")))
    storage.seen.clear()
    storage.save_crash(crash_of(without(contents("b"), BROWSER, PROCESSED)))
    dumps = {".dump", ".upload_file_minidump_browser.dump"}
    assert storage.seen == [
        dumps | {"..dump.tmp", ".jsonz", "..json.tmp"},
        {".dump", ".jsonz", "..json.tmp"},
        {".dump", ".jsonz", ".json"},
    ]


@both_ways
def test_a_crash_with_the_same_dumps_stays_in_sight(root: Path, whole: bool) -> None:
    storage = WatchedStorage(root, whole=whole)
    storage.save_crash(crash_of(contents()))
    storage.seen.clear()
    storage.save_crash(crash_of(contents()))
    assert all(".json" in seen for seen in storage.seen)


def test_every_file_is_forced_to_the_disk_by_itself_where_not_all_of_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: set[int] = set()
    fsync = os.fsync

    def watched(fd: int) -> None:
        forced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    WatchedStorage(root, whole=False).save_crash(crash_of(contents()))
    assert {path.stat().st_ino for path in (root / LEAF).iterdir()} <= forced
    assert {path.stat().st_ino for path in root.rglob("*")} <= forced


def test_a_crash_that_is_saved_twice_in_a_group_is_as_it_was_saved_last(root: Path) -> None:
    with FSPermanentStorage(root) as storage:
        crashes = [crash_of(contents(v), i) for v in "ab" for i in (CRASH_ID, NEIGHBOUR)]
        assert storage.save_crashes(crashes) == [None] * 4
        for crash_id in (CRASH_ID, NEIGHBOUR):
            assert read(storage, crash_id) == contents("b")


# Failures


@both_ways
@pytest.mark.parametrize("fail", [1, 2])
def test_what_cannot_be_forced_to_the_disk_is_not_saved(root: Path, whole: bool, fail: int) -> None:
    crashes = [crash_of(contents(), crash_id) for crash_id in (CRASH_ID, NEIGHBOUR)]
    storage = WatchedStorage(root, whole=whole, fail=fail)
    errors = storage.save_crashes(crashes)
    assert [str(error) for error in errors] == [
        f"fs://{root}: {crash.crash_id}: cannot be saved: Input/output error" for crash in crashes
    ]
    assert names(root) == set()
    assert list(FSPermanentStorage(root).new_crashes()) == []
    assert FSPermanentStorage(root).save_crashes(crashes) == [None, None]


def test_many_that_are_replaced_are_put_out_of_sight_together(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{number:08x}{CRASH_ID[8:]}" for number in range(40)]
    storage = WatchedStorage(root, whole=True)
    for version, forced in ("a", 2), ("b", 3), ("b", 2):
        storage.seen.clear()
        with monkeypatch.context() as patch:
            if version == "b":
                patch.setattr(os, "fsync", None)  # none of them by itself
            crashes = [crash_of(contents(version), crash_id) for crash_id in ids]
            assert storage.save_crashes(crashes) == [None] * 40
        assert len(storage.seen) == forced
        assert all(read(storage, crash_id) == contents(version) for crash_id in ids)


@both_ways
@pytest.mark.parametrize("fail", [1, 2, 3])
def test_what_cannot_be_forced_to_the_disk_does_not_tear_the_crash_before(
    root: Path, whole: bool, fail: int
) -> None:
    # The second has the same dumps: it is not put out of sight, and forced twice only.
    for new in (contents("b"), contents("a") | {RAW: b"[]"})[: 1 if fail == 3 else 2]:
        FSPermanentStorage(root).save_crash(crash_of(contents("a")))
        with pytest.raises(StorageError):
            WatchedStorage(root, whole=whole, fail=fail).save_crash(crash_of(new))
        with FSPermanentStorage(root) as storage:
            # The processed crash is a file by itself, exchanged in one step.
            states = [
                old | {PROCESSED: contents(v)[PROCESSED]}
                for old in (contents("a"), new)
                for v in "ab"
            ]
            assert whole_or_none(storage, *states)
        assert not any(name.endswith(".tmp") for name in names(root))


@both_ways
@pytest.mark.parametrize("fail", [1, 2])
@pytest.mark.parametrize(
    "new", [{PROCESSED: b"{}"}, contents() | {RAW: b"[]"}], ids=["processed", "raw"]
)
def test_what_is_exchanged_in_one_step_is_not_lost_when_it_cannot_be_forced_to_the_disk(
    root: Path, whole: bool, fail: int, new: Contents
) -> None:
    FSPermanentStorage(root).save_crash(crash_of(contents()))
    with pytest.raises(StorageError, match="Input/output error"):
        WatchedStorage(root, whole=whole, fail=fail).save_crash(crash_of(new))
    assert read(FSPermanentStorage(root)) in (contents(), contents() | new)


@both_ways
@pytest.mark.parametrize("fail", [1, 2])
def test_dumps_that_cannot_be_forced_to_the_disk_go_again_and_none_that_was_there(
    root: Path, whole: bool, fail: int
) -> None:
    FSPermanentStorage(root).save_crash(crash_of(without(contents(), BROWSER)))
    more = {MAIN: b"another", BROWSER: b"more"}
    with pytest.raises(StorageError, match="Input/output error"):
        WatchedStorage(root, whole=whole, fail=fail).save_crash(crash_of(more))
    found = read(FSPermanentStorage(root))
    assert found.pop(MAIN) in (contents()[MAIN], b"another")
    assert found == without(contents(), BROWSER, MAIN)
    assert names(root) == {".json", ".dump", ".jsonz"}


def test_dumps_are_not_added_to_a_crash_that_goes_meanwhile(root: Path) -> None:
    storage = FSPermanentStorage(root)
    storage.save_crash(crash_of({RAW: b"{}"}))
    marker = root / LEAF / f"{CRASH_ID}.json"
    late = observed(MAIN, b"MDMP", lambda: marker.unlink(missing_ok=True))
    with pytest.raises(StorageUnavailable) as caught:
        storage.save_crash(Crash(CRASH_ID, [late]))
    reason = "cannot be saved: its raw crash was removed"
    assert str(caught.value) == f"fs://{root}: {CRASH_ID}: {reason}"
    assert names(root) == set()


@pytest.mark.parametrize("bad", list(contents()))
@pytest.mark.parametrize("after", [0, 20])
def test_a_part_that_cannot_be_read_leaves_no_file(
    root: Path, bad: tuple[object, str], after: int
) -> None:
    with FSPermanentStorage(root) as storage:
        storage.save_crash(crash_of(contents(), NEIGHBOUR))
        before = names(root)
        parts = [
            broken(key, data, after=after) if key == bad else Part.of_bytes(key[0], data, key[1])
            for key, data in contents().items()
        ]
        with pytest.raises(Exception, match="at "):
            storage.save_crash(Crash(CRASH_ID, parts))
        assert names(root) == before
        assert read(storage, NEIGHBOUR) == contents()


def test_a_root_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    storage = FSPermanentStorage(tmp_path / "file" / "root")
    with pytest.raises(StorageDenied, match="cannot be saved: Not a directory"):
        storage.save_crash(crash_of(contents()))
    assert (tmp_path / "file").read_text() == "precious"


def test_dumps_of_a_save_that_died_are_not_taken_into_the_next(root: Path) -> None:
    leaf = root / LEAF
    leaf.mkdir(parents=True)
    (leaf / f".{CRASH_ID}.json.tmp").write_bytes(b"half a raw crash")
    (leaf / f"{CRASH_ID}.stale.dump").write_bytes(b"of the save that died")
    with FSPermanentStorage(root) as storage:
        storage.save_crash(crash_of({RAW: b"{}", MAIN: b"new"}))
        assert read(storage) == {RAW: b"{}", MAIN: b"new"}
    assert names(root) == {".json", ".dump"}


# Locks


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with durable.opened(os.open(tmp_path, os.O_RDONLY)) as fd:
        yield fd


def test_a_lock_that_is_held_is_waited_for_and_not_for_ever(directory: int) -> None:
    held, found = locks.lock(directory, "lock")
    assert not found
    with pytest.raises(BlockingIOError) as caught:
        locks.lock(directory, "lock", timeout=0.05)
    assert caught.value.args == (errno.EAGAIN, "another process is saving it")
    os.close(held)
    again, found = locks.lock(directory, "lock", timeout=0)
    assert found
    os.close(again)


def test_a_save_waits_until_another_has_let_go(root: Path) -> None:
    storage = FSPermanentStorage(root)
    (root / LEAF).mkdir(parents=True)
    path = root / LEAF / f".{CRASH_ID}.json.tmp"
    with path.open("wb") as file, ThreadPoolExecutor(1) as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        saving = pool.submit(storage.save_crash, crash_of(contents()))
        with pytest.raises(TimeoutError):
            saving.result(0.2)
        assert not storage.has_crash(CRASH_ID)
        fcntl.flock(file, fcntl.LOCK_UN)
        saving.result(10)
    assert read(storage) == contents()


@pytest.mark.parametrize(
    ("held", "parts"), [(".json", {PROCESSED: b"{}"}), (".jsonz", {RAW: b"{}", MAIN: b"MDMP"})]
)
def test_a_processed_crash_and_the_rest_do_not_wait_for_each_other(
    root: Path, held: str, parts: Contents
) -> None:
    storage = FSPermanentStorage(root)
    storage.save_crash(crash_of(contents()))
    with durable.opened(os.open(root / LEAF, os.O_RDONLY)) as directory:
        fd, _ = locks.lock(directory, durable.temporary_name(f"{CRASH_ID}{held}"))
        with durable.opened(fd):
            storage.save_crash(crash_of(parts))
    assert parts.items() <= read(storage).items()


@both_ways
@pytest.mark.parametrize("suffix", [".json", ".jsonz"])
def test_the_lock_of_whoever_comes_next_is_left_alone(root: Path, whole: bool, suffix: str) -> None:
    lock = root / LEAF / durable.temporary_name(f"{CRASH_ID}{suffix}")

    class Overtaken(WatchedStorage):
        def _forcing(self, root_fd: int, crashes: int) -> WatchedForcing:
            watched = super()._forcing(root_fd, crashes)
            watched.before_the_last(lambda: lock.write_bytes(b"of the next"))
            return watched

    Overtaken(root, whole=whole).save_crash(crash_of(contents()))
    assert lock.read_bytes() == b"of the next"


@pytest.mark.parametrize("plant", ["symlink", "hard link"])
def test_a_link_under_the_temporary_name_is_refused(root: Path, tmp_path: Path, plant: str) -> None:
    (root / LEAF).mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    path = root / LEAF / f".{CRASH_ID}.json.tmp"
    path.symlink_to(precious) if plant == "symlink" else path.hardlink_to(precious)
    with pytest.raises(StorageDenied):
        FSPermanentStorage(root).save_crash(crash_of(contents()))
    assert precious.read_bytes() == b"precious"


RACER = """
import sys
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import contents, crash_of
storage = FSPermanentStorage(sys.argv[1])
for _ in range(10):
    storage.save_crash(crash_of(contents(sys.argv[2])))
"""


def test_processes_that_save_one_crash_do_not_mix(root: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, root, version], stderr=subprocess.PIPE)
        for version in "abcd"
    ]
    for racer in racers:
        _, said = racer.communicate()
        assert racer.returncode == 0, said
    with FSPermanentStorage(root) as storage:
        found = read(storage)
    states = [without(contents(version), PROCESSED) for version in "abcd"]
    assert without(found, PROCESSED) in states
    assert names(root) == {".json", ".jsonz", ".dump", ".upload_file_minidump_browser.dump"}


def test_the_lock_of_a_removal_stays_until_all_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FSPermanentStorage(root)
    storage.save_crash(crash_of(contents()))
    before = [path for path in root.rglob("*") if path.is_file()]
    remove_file, removed = durable.remove_file, []

    def notice(dir_fd: int, name: str) -> bool:
        lock = durable.temporary_name(storage.layout.file_name(CRASH_ID, Kind.RAW_CRASH))
        removed.append((name, durable.exists(dir_fd, lock)))
        return remove_file(dir_fd, name)

    monkeypatch.setattr(durable, "remove_file", notice)
    storage.remove(CRASH_ID)
    files = {path.name for path in before}
    assert files < {name for name, _ in removed}
    assert all(is_locked for _, is_locked in removed)


@pytest.mark.parametrize("suffix", [".json", ".jsonz"])
def test_a_lock_that_has_just_been_let_go_is_not_taken_for_one_that_was_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Who held it has put it in place, and another has made a new one."""
    storage = FSPermanentStorage(root)
    (root / LEAF).mkdir(parents=True)
    name = durable.temporary_name(CRASH_ID + suffix)
    (root / LEAF / name).touch()
    flock = fcntl.flock

    def late(fd: int, how: int) -> None:
        if (root / LEAF / CRASH_ID).with_suffix(".new").exists():
            return flock(fd, how)
        (root / LEAF / name).rename((root / LEAF / CRASH_ID).with_suffix(".new"))
        (root / LEAF / name).touch()
        return flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(CrashIDNotFound):
        storage.remove(CRASH_ID)
    assert (root / LEAF / name).exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_removal_waits_for_who_saves_a_processed_crash(root: Path, is_there: bool) -> None:
    storage = FSPermanentStorage(root)
    parts = contents() if is_there else without(contents(), PROCESSED)
    storage.save_crash(crash_of(parts))
    crash = storage.load_crash(CRASH_ID)
    directory = next(root.rglob("*.json")).parent
    final = storage.layout.file_name(CRASH_ID, Kind.PROCESSED_CRASH)
    with (
        ThreadPoolExecutor(1) as pool,
        durable.opened(durable.open_root(directory)) as dir_fd,
        durable.opened(locks.lock(dir_fd, durable.temporary_name(final))[0]) as fd,
    ):
        removing = pool.submit(storage.remove_loaded, crash)
        with pytest.raises(TimeoutError):
            removing.result(0.2)
        os.write(fd, gzip.compress(b"{}"))
        durable.rename(dir_fd, durable.temporary_name(final), final)
    with pytest.raises(CrashChanged, match=f"{final} is not what was loaded"):
        removing.result()
    assert read(storage) == parts | {PROCESSED: b"{}"}
    storage.remove_loaded(storage.load_crash(CRASH_ID))
    assert not list(root.iterdir())


def test_removing_and_saving_at_the_same_time_tears_nothing(root: Path) -> None:
    storage = FSPermanentStorage(root)

    def remove() -> None:
        for _ in range(40):
            try:
                storage.remove(CRASH_ID)
            except CrashIDNotFound:
                continue

    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(remove)
        for turn in range(20):
            storage.save_crash(crash_of(contents("ab"[turn % 2])))
        removing.result()
    assert whole_or_none(storage, contents("b"))
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()


# Errors and what they mean


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, StorageDenied),
        (errno.EROFS, StorageDenied),
        (errno.ESTALE, StorageUnavailable),
        (errno.EMFILE, StorageUnavailable),
        (errno.ENOSPC, StorageError),
        (errno.EIO, StorageError),
    ],
)
def test_what_an_error_of_the_system_means(
    root: Path, number: int, kind: type[StorageError]
) -> None:
    class Failing(FSPermanentStorage):
        def _forcing(self, root_fd: int, crashes: int) -> forcing.Forcing:
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as caught:
        Failing(root).save_crash(crash_of(contents()))
    assert type(caught.value) is kind
    assert str(caught.value) == f"fs://{root}: {CRASH_ID}: cannot be saved: {os.strerror(number)}"
