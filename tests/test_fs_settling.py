# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A large directory is listed a few times, and not for each crash; and what has changed is seen."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashmover.external.fs import directory_index, durable, locks, settling
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.fs.settling import ELSEWHERE_NS, Lock, has_settled, now_at
from crashmover.testing import BROWSER, MAIN, RAW, crash_of, read

IDS = [f"{n:08x}-8721-460c-dead-a43c20071025" for n in range(100)]  # in one directory
SETTLED_NS = 50_000_000
HOUR_NS = 3_600_000_000_000


class Listened:
    """How often directories were listed; a hook cannot be taken away again."""

    count = 0
    is_there = False

    @classmethod
    def hear(cls, event: str, _args: object) -> None:
        cls.count += event == "os.scandir"


class TooMany(Exception):
    """There were more listings than a test expects."""


@contextmanager
def few_listings(most: int) -> Iterator[None]:
    if not Listened.is_there:
        sys.addaudithook(Listened.hear)
        Listened.is_there = True
    before = Listened.count
    yield
    if Listened.count - before > most:
        raise TooMany


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FSPermanentStorage:
    """A store with a large directory; a crash settles soon."""
    for module in (settling, directory_index):
        monkeypatch.setattr(module, "SETTLED_NS", SETTLED_NS)
    storage = FSPermanentStorage(tmp_path)
    storage.save_crashes([crash_of({RAW: b"1", MAIN: b"1"}, crash_id) for crash_id in IDS])
    return storage


def settle() -> None:
    time.sleep(3 * SETTLED_NS / 1e9)


def replace_all(storage: FSPermanentStorage, data: bytes) -> None:
    parts = {RAW: data, BROWSER: data}
    assert not any(storage.save_crashes([crash_of(parts, crash_id) for crash_id in IDS]))


def test_crashes_are_replaced_by_few_listings(storage: FSPermanentStorage) -> None:
    for data in (b"2", b"3"):
        settle()
        with few_listings(2):
            replace_all(storage, data)
    assert all(read(storage, crash_id) == {RAW: b"3", BROWSER: b"3"} for crash_id in IDS)
    assert not list(storage.root.rglob("*a43c20071025.dump"))


def test_crashes_are_loaded_and_removed_by_few_listings(storage: FSPermanentStorage) -> None:
    settle()
    with few_listings(2):
        for crash_id in IDS:
            crash = storage.load_crash(crash_id)
            assert {part.name for part in crash.parts} == {"", "upload_file_minidump"}
            storage.remove_loaded(crash)
    assert not list(storage.root.iterdir())


def test_what_another_process_adds_or_replaces_is_seen(storage: FSPermanentStorage) -> None:
    other = FSPermanentStorage(storage.root)
    settle()
    replace_all(storage, b"2")  # the listing of before is kept
    settle()
    read(storage, IDS[0])
    other.save_crash(crash_of({BROWSER: b"late"}, IDS[0]))
    other.save_crash(crash_of({RAW: b"x", MAIN: b"x"}, IDS[1]))
    assert read(storage, IDS[0])[BROWSER] == b"late"
    for crash_id in IDS[:2]:
        storage.save_crash(crash_of({RAW: b"3"}, crash_id))
        assert read(storage, crash_id) == {RAW: b"3"}
    assert not [path for path in storage.root.rglob(f"{IDS[0]}*") if path.suffix == ".dump"]


def set_clock(monkeypatch: pytest.MonkeyPatch, offset_ns: int) -> None:
    """Let this machine's clock differ from the file system's."""
    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + offset_ns)


def test_a_clock_that_is_behind_that_of_the_file_system_costs_few_listings(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are dated ahead then, the directory too; the lock tells the time."""
    set_clock(monkeypatch, -HOUR_NS)
    settle()
    with few_listings(2):
        replace_all(storage, b"2")


def test_files_dated_ahead_in_a_directory_that_rests_cost_few_listings(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, -HOUR_NS)
    storage.load_crash(IDS[0])
    settle()
    storage.load_crash(IDS[0])
    with few_listings(0):
        for crash_id in IDS:
            storage.load_crash(crash_id)
    FSPermanentStorage(storage.root).save_crash(crash_of({RAW: b"x", BROWSER: b"x"}, IDS[7]))
    assert read(storage, IDS[7]) == {RAW: b"x", BROWSER: b"x"}


def test_a_server_whose_clock_is_behind_is_no_reason_to_trust_a_listing(
    storage: FSPermanentStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "is_local", lambda _fd: False)
    settle()
    set_clock(monkeypatch, HOUR_NS // 120)  # half a minute
    storage.load_crash(IDS[0])
    with pytest.raises(TooMany), few_listings(2):
        for crash_id in IDS[:3]:
            storage.load_crash(crash_id)


@pytest.mark.parametrize(
    ("changed_s", "is_settled"),
    [(-10, True), (-3, True), (-1, False), (0, False), (30, False), (61, False), (63, True)],
)
def test_what_changed_between_the_listing_and_the_lock_has_not_settled(
    tmp_path: Path, changed_s: int, is_settled: bool
) -> None:
    """It was listed a minute ago."""
    with durable.opened(durable.open_root(tmp_path)) as dir_fd:
        lock = Lock("lock", locks.lock(dir_fd, "lock")[0])
        now = now_at(dir_fd, lock)
        listed = now - 60_000_000_000
        changed = listed + changed_s * 1_000_000_000
        assert has_settled(changed, listed, dir_fd, lock) == is_settled
        assert not has_settled(changed, now + HOUR_NS, dir_fd, lock), "the clock was set back"
        os.close(lock.fd)


def test_the_time_on_a_server_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "is_local", lambda _fd: False)
    with durable.opened(durable.open_root(tmp_path)) as dir_fd:
        assert now_at(dir_fd) <= time.time_ns() - ELSEWHERE_NS
        assert not has_settled(time.time_ns() + HOUR_NS, 0, dir_fd, None)
