# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store with other file systems mounted below its root: each is made durable."""

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover import Crash, FSPermanentStorage, Kind, Part
from crashmover.external.fs import durable, forcing
from tests.cli_helpers import run
from tests.conftest import DISKS, Figures
from tests.disks import FLAGS, Disk, mounted

DAY = dt.date(2026, 11, 18)
PLACES = {"a day": "20261118", "its branch": "20261118/name", "a leaf": "20261118/name/aa/aa"}
COUNTS = {"one": 1, "a group": 12}


def crash_id(number: int, day: dt.date = DAY) -> str:
    return f"aaaa{number:04x}-8721-460c-dead-a43c22{day:%y%m%d}"


def crash(number: int, day: dt.date = DAY, *kinds: Kind) -> Crash:
    parts = [
        Part.of_bytes(Kind.RAW_CRASH, b'{"ProductName": "Firefox"}'),
        Part.of_bytes(Kind.DUMP, b"MDMP" * 5000, "upload_file_minidump"),
        Part.of_bytes(Kind.PROCESSED_CRASH, b'{"signature": "OOM"}'),
    ]
    wanted = [part for part in parts if not kinds or part.kind in kinds]
    return Crash(crash_id(number, day), wanted)


def parts_of(storage: FSPermanentStorage, number: int) -> int:
    return len(storage.load_crash(crash_id(number)).parts)


@pytest.fixture(params=DISKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path, kind: str, place: str) -> Iterator[Disk]:
    """A disk that is mounted below the root of a store, which is on another file system."""
    where = tmp_path / "store" / PLACES[place]
    where.mkdir(parents=True)
    with mounted(request, kind, tmp_path / "image", where) as disk:
        yield disk


slow = pytest.mark.slow
counts = pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)


@slow
@counts
def test_what_was_saved_on_a_disk_below_the_root_survives_its_power(
    disk: Disk, tmp_path: Path, count: int, figures: Figures
) -> None:
    storage = FSPermanentStorage(tmp_path / "store")
    other = DAY + dt.timedelta(days=1)
    both = [crash(n, day) for n in range(count) for day in (DAY, other)]
    assert storage.save_crashes(both) == [None] * len(both)
    disk.lose_power(FLAGS["at once"])
    assert [parts_of(storage, n) for n in range(count)] == [3] * count
    figures(saved=count)


@slow
@counts
def test_so_does_a_processed_crash_or_a_dump_that_is_added(
    disk: Disk, tmp_path: Path, count: int, figures: Figures
) -> None:
    storage = FSPermanentStorage(tmp_path / "store")
    storage.save_crashes([crash(n, DAY, Kind.RAW_CRASH) for n in range(count)])
    os.sync()
    later = [crash(n, DAY, Kind.PROCESSED_CRASH) for n in range(count)]
    assert storage.create_crashes(later) == [None] * count
    added = [crash(n, DAY, Kind.DUMP) for n in range(count)]
    assert storage.save_crashes(added) == [None] * count
    disk.lose_power(FLAGS["at once"])
    assert [parts_of(storage, n) for n in range(count)] == [3] * count
    figures(added=count)


@slow
@counts
@pytest.mark.parametrize("whole", [False, True], ids=["by their ids", "the whole day"])
def test_what_was_removed_there_stays_removed(
    disk: Disk, tmp_path: Path, count: int, whole: bool, figures: Figures
) -> None:
    storage = FSPermanentStorage(tmp_path / "store")
    storage.save_crashes([crash(n) for n in range(count)])
    os.sync()
    if whole:
        removed = list(storage.remove_days(DAY, DAY))
        assert [error for _, error in removed] == [None] * count
    else:
        assert storage.remove_crashes([crash_id(n) for n in range(count)]) == [None] * count
    disk.lose_power(FLAGS["at once"])
    assert list(storage.new_crashes()) == []
    assert not [path for path in (tmp_path / "store").rglob("aaaa*") if path.is_file()]
    figures(removed=count)


@slow
@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_a_move_to_a_disk_below_the_root_loses_nothing(
    disk: Disk, tmp_path: Path, flag: int, figures: Figures
) -> None:
    source = FSPermanentStorage(tmp_path / "source")
    source.save_crashes([crash(n) for n in range(15)])
    done = run(
        "copy", "-s", str(source.root), "-d", tmp_path / "store", "--verify", "--remove-source"
    )
    assert done.exit_code == 0, done.stderr
    disk.lose_power(flag)
    storage = FSPermanentStorage(tmp_path / "store")
    assert [parts_of(storage, n) for n in range(15)] == [3] * 15
    assert list(source.new_crashes()) == []
    figures(moved=15)


def test_each_file_system_that_was_written_to_is_forced_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device of a directory tells: here, that of some is made another."""
    asked: list[int] = []
    names = [("20261117", "name"), ("20261118", "name"), ("20261119", "name")]
    for where in names:
        tmp_path.joinpath(*where).mkdir(parents=True)

    def sync(fd: int) -> None:
        asked.append(os.fstat(fd).st_ino)

    real = os.fstat
    inodes = [tmp_path.joinpath(*where).stat().st_ino for where in names]
    other = inodes[1:]

    def fstat(fd: int) -> os.stat_result:
        found = real(fd)
        if found.st_ino not in other:
            return found
        fields = list(found)
        fields[2] = found.st_dev + 1 + other.index(found.st_ino)
        return os.stat_result(fields)

    with durable.opened(durable.open_root(tmp_path)) as root_fd:
        monkeypatch.setattr(forcing, "can_sync_file_system", lambda fd: True)
        monkeypatch.setattr(forcing, "sync_file_system", sync)
        monkeypatch.setattr(os, "fstat", fstat)
        with forcing.Forcing(root_fd, together=True) as forced:
            for where in names[:2]:
                with durable.opened(durable.walk_down(root_fd, where)) as dir_fd:
                    assert not forced.begin(where, dir_fd)
            forced.finish(names[1:2], new=True)
            assert asked == inodes[1:2]
            asked.clear()
            forced.finish(names[:2], new=False)
    assert sorted(asked) == sorted([tmp_path.stat().st_ino, inodes[1]])
