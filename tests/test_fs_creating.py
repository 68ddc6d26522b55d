# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Creating a crash in a directory: beside another save of it, and beside what is no crash."""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind, Part
from crashmover.errors import CrashExists, CrashIDNotFound, StorageUnavailable
from crashmover.external.fs import forcing, locks
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import CRASH_ID, MAIN, RAW, contents, crash_of, read
from tests.cli_helpers import snapshot


class LastForce:
    """Holds whoever is about to force a crash to the disk that is visible already."""

    def __init__(self, fails: bool) -> None:
        self.has_come = threading.Event()
        self.may_go_on = threading.Event()
        self._fails = fails
        self._is_first = True
        self._finish = forcing.Forcing.finish

    def __call__(
        self, forced: forcing.Forcing, places: Sequence[tuple[str, ...]], *, new: bool
    ) -> None:
        if not new and self._is_first:
            self._is_first = False
            self.has_come.set()
            assert self.may_go_on.wait(20)
            if self._fails:
                raise OSError(errno.EIO, "Input/output error")
        self._finish(forced, places, new=new)


Patch = Callable[[bool], LastForce]


@pytest.fixture
def last_force(monkeypatch: pytest.MonkeyPatch) -> Patch:
    def patch(fails: bool) -> LastForce:
        force = LastForce(fails)
        monkeypatch.setattr(
            forcing.Forcing,
            "finish",
            lambda forced, places, *, new: force(forced, places, new=new),
        )
        return force

    return patch


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_not_final_yet_is_waited_for(
    tmp_path: Path, last_force: Patch, fails: bool
) -> None:
    force = last_force(fails)
    ours, theirs = contents("a"), contents("b")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(FSPermanentStorage(tmp_path).save_crashes, [crash_of(theirs)])
        assert force.has_come.wait(20)
        storage = FSPermanentStorage(tmp_path)
        assert storage.has_crash(CRASH_ID)
        second = pool.submit(storage.create_crashes, [crash_of(ours)])
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        force.may_go_on.set()
        assert (first.result() == [None]) != fails
        [error] = second.result()
    assert error is None if fails else isinstance(error, CrashExists)
    assert read(storage) == (ours if fails else theirs)


def test_what_does_not_become_final_is_not_waited_for_for_ever(
    tmp_path: Path, last_force: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.wait_for_unlocked, "__defaults__", (0.1,))
    force = last_force(False)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(FSPermanentStorage(tmp_path).save_crashes, [crash_of(contents("b"))])
        assert force.has_come.wait(20)
        [error] = FSPermanentStorage(tmp_path).create_crashes([crash_of(contents("a"))])
        force.may_go_on.set()
    assert isinstance(error, StorageUnavailable)
    assert error.reason == "cannot be saved: another process is saving it"


@pytest.mark.parametrize("crash_id", [CRASH_ID, CRASH_ID[:-7] + "0" + CRASH_ID[-6:]])
def test_a_crash_that_lies_where_older_stores_had_it_is_there(
    tmp_path: Path, crash_id: str
) -> None:
    storage = FSPermanentStorage(tmp_path)
    for place in storage.layout.directories(crash_id)[1:]:
        where = tmp_path.joinpath(*place)
        where.mkdir(parents=True)
        (where / f"{crash_id}.json").write_text("{}")
        before = snapshot(tmp_path).keys()
        [error] = storage.create_crashes([crash_of(contents(), crash_id)])
        assert isinstance(error, CrashExists)
        assert snapshot(tmp_path).keys() == before
        storage.remove(crash_id)


# The dumps of a crash that is new have their own names at once


def saving(look: Callable[[], None]) -> Crash:
    """Return a crash of which the last part is read when the other dump has been written."""

    def chunks() -> Iterator[bytes]:
        look()
        yield b"{}"

    dump = Part.of_bytes(Kind.DUMP, b"dump", MAIN[1])
    return Crash(CRASH_ID, [dump, Part.of_chunks(Kind.RAW_CRASH, chunks)])


def dump_in(root: Path) -> Path:
    [path] = root.rglob(f"{CRASH_ID}.dump")
    return path


def test_nobody_takes_notice_of_a_dump_before_its_raw_crash_is_there(tmp_path: Path) -> None:
    def look() -> None:
        assert dump_in(tmp_path).read_bytes() == b"dump"
        with FSPermanentStorage(tmp_path) as another:
            assert not another.has_crash(CRASH_ID)
            assert not list(another.new_crashes())
            for kinds in (ALL_KINDS, {Kind.DUMP}):
                with pytest.raises(CrashIDNotFound):
                    another.load_crash(CRASH_ID, kinds)

    with FSPermanentStorage(tmp_path) as storage:
        storage.save_crash(saving(look))
        assert read(storage) == {RAW: b"{}", MAIN: b"dump"}


@pytest.mark.parametrize("create", [False, True])
def test_a_dump_of_no_crash_gives_way(tmp_path: Path, create: bool) -> None:
    with FSPermanentStorage(tmp_path) as storage:
        storage.save_crash(crash_of({RAW: b"{}", MAIN: b"longer than the other"}))
        next(tmp_path.rglob(f"{CRASH_ID}.json")).unlink()  # by somebody who is not us
        save = storage.create_crashes if create else storage.save_crashes
        assert save([crash_of({RAW: b"[]", MAIN: b"dump"})]) == [None]
        assert read(storage) == {RAW: b"[]", MAIN: b"dump"}


def test_a_dump_that_somebody_removes_meanwhile_is_missed(tmp_path: Path) -> None:
    with FSPermanentStorage(tmp_path) as storage:
        with pytest.raises(StorageUnavailable, match="a dump was removed while it was saved"):
            storage.save_crash(saving(lambda: dump_in(tmp_path).unlink()))
        assert not storage.has_crash(CRASH_ID)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_raw_crash_that_somebody_puts_there_meanwhile_is_replaced(tmp_path: Path) -> None:
    def put() -> None:
        dump = dump_in(tmp_path)
        dump.with_suffix(".json").write_bytes(b"of somebody who knows no lock")
        dump.with_suffix(".memory_report.dump").write_bytes(b"theirs")

    with FSPermanentStorage(tmp_path) as storage:
        storage.save_crash(saving(put))
        assert read(storage) == {RAW: b"{}", MAIN: b"dump"}
