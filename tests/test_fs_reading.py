# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Reading a crash out of the directory that it was found in, held open or by its path."""

import copy
import errno
import gc
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from crashmover import crashid
from crashmover.crash import Crash, Kind
from crashmover.engine.mover import Mover, Status
from crashmover.errors import CrashChanged, StorageError, StorageUnavailable
from crashmover.external.fs import durable, locks
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import BROWSER, CRASH_ID, MAIN, contents, crash_of, read
from tests.cli_helpers import run_process

COUNT = 3 * durable.MOST_HELD


@pytest.fixture
def storage(tmp_path: Path) -> FSPermanentStorage:
    gc.collect()  # or a crash of another test, which an exception refers to, may hold one still
    return FSPermanentStorage(tmp_path / "store")


def directories_open() -> list[str]:
    """The directories of the store that this process has open."""
    paths = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # what has just been listed
            paths.append(os.readlink(f"/proc/self/fd/{fd}"))
    # From the root, it is of a mount that another test has had.
    return [path for path in paths if "/store/" in path and not path.startswith("/store/")]


def file_of(crash: Crash, key: tuple[Kind, str]) -> Path:
    """Return where a part of it lies."""
    part = crash.part(*key)
    assert part
    assert part.location
    return Path(part.location)


@contextmanager
def no_further_file() -> Iterator[None]:
    """No file can be opened, as where too many are."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_args: object, **_kwargs: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        patch.setattr(os, "dup", refuse)
        yield


def save_many(storage: FSPermanentStorage) -> list[str]:
    crash_ids = [crashid.create() for _ in range(COUNT)]
    errors = storage.save_crashes([crash_of(contents("a"), crash_id) for crash_id in crash_ids])
    assert not any(errors)
    return crash_ids


def test_so_many_directories_are_held_and_no_more(storage: FSPermanentStorage) -> None:
    crash_ids = save_many(storage)
    before = len(directories_open())
    crashes = [storage.load_crash(crash_id) for crash_id in crash_ids]
    assert len(directories_open()) == before + durable.MOST_HELD
    for crash in crashes:
        assert {part.key: part.read() for part in crash.parts} == contents("a")
    assert len(directories_open()) == before + durable.MOST_HELD
    del crashes, crash
    assert len(directories_open()) == before


def test_one_that_is_let_go_makes_room_for_another(storage: FSPermanentStorage) -> None:
    for crash_id in save_many(storage):
        part = storage.load_crash(crash_id).parts[0]
        assert len(directories_open()) == 1
        del part
    assert not directories_open()


def test_what_has_been_copied_is_let_go_at_once(
    storage: FSPermanentStorage, tmp_path: Path
) -> None:
    """And not when somebody looks for what refers to itself, which is seldom."""
    crash_ids = save_many(storage)
    gc.collect()
    gc.disable()
    try:
        with Mover(storage, FSPermanentStorage(tmp_path / "copy"), workers=1) as mover:
            outcomes = list(mover.run(crash_ids))
        assert not directories_open()
    finally:
        gc.enable()
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}


def test_where_none_can_be_held_a_crash_is_read_by_its_path(storage: FSPermanentStorage) -> None:
    storage.save_crash(crash_of(contents("a")))
    with no_further_file():
        crash = storage.load_crash(CRASH_ID)
    assert not directories_open()
    assert {part.key: part.read() for part in crash.parts} == contents("a")
    assert not directories_open()


@pytest.mark.parametrize("most_held", [0, 1])
@pytest.mark.parametrize("key", [MAIN, BROWSER])
def test_a_crash_whose_directory_is_gone_was_removed(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch, most_held: int, key: object
) -> None:
    monkeypatch.setattr(durable, "MOST_HELD", most_held)
    storage.save_crash(crash_of(contents("a")))
    [part] = [part for part in storage.load_crash(CRASH_ID).parts if part.key == key]
    assert len(directories_open()) == most_held
    shutil.rmtree(storage.root)
    with pytest.raises(StorageUnavailable, match="replaced or removed"):
        part.read()


def test_a_directory_that_a_file_server_has_not_any_more_is_gone(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_crash(crash_of(contents("a")))
    [part] = storage.load_crash(CRASH_ID).dumps[:1]

    def stale(*_args: object, **_kwargs: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", stale)
        with pytest.raises(StorageUnavailable, match="replaced or removed"):
            part.read()
    assert part.read() == contents("a")[part.key]


def test_a_link_that_has_taken_the_place_of_a_file_is_refused(
    storage: FSPermanentStorage, tmp_path: Path
) -> None:
    storage.save_crash(crash_of(contents("a")))
    crash = storage.load_crash(CRASH_ID)
    [part] = [part for part in crash.parts if part.key == MAIN]
    path = file_of(crash, MAIN)
    secret = tmp_path / "secret"
    path.rename(secret)
    path.symlink_to(secret)
    with pytest.raises(StorageError, match="symbolic link"):
        part.read()


def test_a_store_that_is_exchanged_for_another_does_not_lose_the_other_s_crash(
    storage: FSPermanentStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is in the directory that is held; what would be removed is in the other."""
    another = {key: data[::-1] for key, data in contents("a").items()}
    storage.save_crash(crash_of(contents("a")))
    load = storage.load_crash

    def then_exchange(crash_id: str, kinds: Set[Kind]) -> Crash:
        monkeypatch.setattr(storage, "load_crash", load)
        crash = load(crash_id, kinds)
        storage.root.rename(tmp_path / "old")
        FSPermanentStorage(storage.root).save_crash(crash_of(another))
        return crash

    monkeypatch.setattr(storage, "load_crash", then_exchange)
    destination = FSPermanentStorage(tmp_path / "destination")
    [outcome] = Mover(storage, destination, remove_source=True, workers=1).run([CRASH_ID])
    assert re.search("copied, not removed: .* is not what was loaded", str(outcome.error))
    assert (read(destination), read(storage)) == (contents("a"), another)


@pytest.mark.parametrize("name", ["{}.json", "{}.late.dump", "{}.dump"])
def test_a_file_that_lies_where_no_reader_looks_is_not_removed_with_the_crash(
    storage: FSPermanentStorage, name: str
) -> None:
    """In the directory that a crash has to itself in the older form."""
    storage.save_crash(crash_of(contents("a")))
    crash = storage.load_crash(CRASH_ID)
    own = file_of(crash, MAIN).parent / CRASH_ID
    own.mkdir()
    hidden = own / name.format(CRASH_ID)
    hidden.write_bytes(b"{}")
    where = re.escape(str(hidden.relative_to(storage.root)))
    with pytest.raises(CrashChanged, match=f"^{storage.uri}: {CRASH_ID}: {where} is not what"):
        storage.remove_loaded(crash)
    assert read(storage) == contents("a")
    assert hidden.read_bytes() == b"{}"
    hidden.unlink()
    own.rmdir()
    storage.remove_loaded(crash)
    assert not list(storage.root.iterdir())


@pytest.mark.parametrize("is_replaced", [True, False])
def test_what_changes_before_the_crash_is_locked_is_not_removed(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    storage.save_crash(crash_of(contents("a")))
    crash = storage.load_crash(CRASH_ID)
    path, lock = file_of(crash, MAIN), locks.lock

    def late(dir_fd: int, name: str) -> tuple[int, bool]:
        monkeypatch.setattr(locks, "lock", lock)
        path.unlink()
        if is_replaced:
            path.write_bytes(contents("a")[MAIN])
        return lock(dir_fd, name)

    monkeypatch.setattr(locks, "lock", late)
    if is_replaced:
        with pytest.raises(CrashChanged):
            storage.remove_loaded(crash)
        assert read(storage) == contents("a")
        assert not [path for path in storage.root.rglob("*") if path.name.startswith(".")]
    else:
        storage.remove_loaded(crash)
        assert not list(storage.root.iterdir())


def test_a_file_that_somebody_removes_at_that_moment_is_no_other(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.save_crash(crash_of(contents("a")))
    crash = storage.load_crash(CRASH_ID)
    path, status = file_of(crash, MAIN), durable.status

    def late(dir_fd: int, name: str) -> os.stat_result:
        if name == path.name:
            path.unlink(missing_ok=True)
        return status(dir_fd, name)

    monkeypatch.setattr(durable, "status", late)
    storage.remove_loaded(crash)
    assert not list(storage.root.iterdir())


@pytest.mark.parametrize("limit", [96, 64])
def test_where_few_files_may_be_open_there_is_room_to_save(
    storage: FSPermanentStorage, tmp_path: Path, limit: int
) -> None:
    crash_ids = save_many(storage)
    few = ("sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh")
    result = run_process("copy", "-s", storage.root, "-d", tmp_path / "copies", prefix=few)
    assert (result.returncode, result.stdout) == (0, b"")
    assert list(FSPermanentStorage(tmp_path / "copies").new_crashes()) == sorted(crash_ids)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda crash: pickle.loads(pickle.dumps(crash))])
def test_a_copy_of_a_crash_holds_nothing_and_can_be_read(
    storage: FSPermanentStorage, copied: Callable[[Crash], Crash]
) -> None:
    storage.save_crash(crash_of(contents("a")))
    crash = storage.load_crash(CRASH_ID)
    another = copied(crash)
    assert len(directories_open()) == 1
    for each in (another, crash):
        assert {part.key: part.read() for part in each.parts} == contents("a")
    del crash, another, each
    assert not directories_open()
