# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage: a whole week is dropped where it can be, and deleted where not."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from crashmover.crash import Kind
from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase, Removed
from crashmover.external.postgresql import removing
from crashmover.external.postgresql import schema as schemas
from crashmover.external.postgresql.connection_context import Connection
from crashmover.registry import open_storage
from crashmover.testing import MAIN, PROCESSED, RAW, contents, crash_of, read
from tests.servers.database import Database

MONDAY = dt.date(2026, 11, 16)
SUNDAY = dt.date(2026, 11, 22)
DAYS = ("261115", "261116", "261119", "261122", "261123")
IDS = [f"0bba929f-8721-460c-dead-a43c22{day}" for day in DAYS]
OF_WEEK = IDS[1:4]
PARTITION = "crash_parts_20261116"


@pytest.fixture
def storage(database: Database) -> Iterator[CrashStorageBase]:
    with open_storage(database.uri) as storage:
        for crash_id in IDS:
            storage.save_crash(crash_of(contents(), crash_id))
        storage.save_crash(crash_of({PROCESSED: b"{}"}, IDS[1][:-7] + "1261116"))
        yield storage


def has_partition(database: Database) -> bool:
    query = "SELECT to_regclass(%s) IS NOT NULL"
    [(found,)] = database.rows(query, f"{database.schema}.{PARTITION}")
    return bool(found)


def remove_week(storage: CrashStorageBase) -> None:
    """Remove the crashes of the week, all of which must go and be said."""
    processed_only = IDS[1][:-7] + "1261116"
    removed = list(storage.remove_days(MONDAY, SUNDAY))
    expected = [processed_only, *OF_WEEK]
    assert removed == [(crash_id, None) for crash_id in expected]
    assert list(storage.all_crashes(dt.date.min, dt.date.max)) == [IDS[0], IDS[4]]
    assert read(storage, IDS[0]) == read(storage, IDS[4]) == contents()


def test_a_whole_week_is_dropped_and_made_anew_by_whoever_saves_then(
    database: Database, storage: CrashStorageBase
) -> None:
    with open_storage(database.uri) as other:
        other.save_crash(crash_of(contents(), IDS[2]))  # it knows of the partition
        remove_week(storage)
        assert not has_partition(database)
        other.save_crash(crash_of(contents("b"), IDS[2]))
        storage.save_crash(crash_of(contents("c"), IDS[1]))
        assert read(storage, IDS[2]) == contents("b")
        assert read(other, IDS[1]) == contents("c")
    assert has_partition(database)


@pytest.mark.parametrize(("first", "last"), [(1, 6), (0, 5), (-3, 5)])
def test_of_a_week_that_is_not_whole_the_rest_stays(
    database: Database, storage: CrashStorageBase, first: int, last: int
) -> None:
    since, until = (MONDAY + dt.timedelta(days=number) for number in (first, last))
    gone = [i for i in IDS if f"{since:%y%m%d}" <= i[-6:] <= f"{until:%y%m%d}"]
    removed = [crash_id for crash_id, error in storage.remove_days(since, until) if error is None]
    assert [crash_id for crash_id in removed if crash_id in IDS] == gone
    assert has_partition(database)
    assert [i for i in IDS if storage.has_crash(i)] == [i for i in IDS if i not in gone]


# Where it cannot be dropped


def test_who_may_not_drop_a_partition_deletes(
    database: Database, storage: CrashStorageBase
) -> None:
    role = database.role()
    for line in schemas.script(database.schema).splitlines():
        if line.startswith("-- GRANT"):
            database.run(
                line[3:]
                .replace("reader, writer", role)
                .replace("writer", role)
                .replace("reader", role)
            )
    with open_storage(database.uri_of(role)) as other:
        remove_week(other)
    assert has_partition(database)


def test_whoever_reads_for_long_is_not_waited_for(
    database: Database, storage: CrashStorageBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "_PATIENCE", "SET LOCAL lock_timeout = '50ms'")
    with database.connection.transaction():
        database.rows("SELECT count(*) FROM raw_crashes")
        remove_week(storage)
    assert has_partition(database)


@pytest.mark.parametrize(
    ("crash_id", "date"),
    [
        ("0bba929f-8721-460c-dead-a43c22261130", "2026-11-18Z"),  # of another day
        ("0bba929f-8721-460c-dead-a43c22261399", "2026-11-18Z"),  # of none
        (IDS[2], "2026-11-19 12:00Z"),  # not at midnight
    ],
)
def test_rows_that_are_no_crashes_of_ours_stay(
    database: Database, storage: CrashStorageBase, crash_id: str, date: str
) -> None:
    row = f"('{date}', '{crash_id}', 'raw_crash', '', 0, 'x')"
    database.run(f"INSERT INTO crash_parts VALUES {row}")
    remove_week(storage)
    count = f"SELECT count(*) FROM {PARTITION}"
    assert database.rows(count) == [(1,)]


def test_a_table_that_is_no_partition_stays(database: Database, storage: CrashStorageBase) -> None:
    database.run(f"ALTER TABLE crash_parts DETACH PARTITION {PARTITION}")
    removed: list[Removed] = []
    for since, until in ((MONDAY, SUNDAY), (dt.date.min, dt.date.max)):
        with pytest.raises(StorageError, match=f"not removed: .*{PARTITION} is not attached"):
            removed.extend(storage.remove_days(since, until))
    assert removed == [(IDS[0], None), (IDS[4], None)]
    assert has_partition(database)


def test_whether_it_was_dropped_is_not_known_when_the_answer_is_lost(
    database: Database, storage: CrashStorageBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = removing.Remover._drop

    def and_hang_up(
        self: removing.Remover, connection: Connection, monday: dt.date
    ) -> removing.Week | None:
        week = drop(self, connection, monday)
        pid = connection.info.backend_pid
        database.rows("SELECT pg_terminate_backend(%s)", pid)
        while database.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid):
            pass  # it is on its way out
        return week

    with monkeypatch.context() as patch:
        patch.setattr(removing.Remover, "_drop", and_hang_up)
        removed = list(storage.remove_days(MONDAY, SUNDAY))
    assert [crash_id for crash_id, _ in removed if crash_id in IDS] == OF_WEEK
    assert all(isinstance(error, StorageUnavailable) for _, error in removed)
    remove_week(storage)


# Beside others


@pytest.mark.parametrize("until", [SUNDAY, SUNDAY - dt.timedelta(days=1)], ids=["drop", "delete"])
def test_who_saves_meanwhile_saves_whole_crashes_or_has_them_removed(
    database: Database, until: dt.date
) -> None:
    ids = [f"0bba{n:04x}-8721-460c-dead-a43c22261118" for n in range(12)]
    parts = {RAW: b"{}", MAIN: b"MDMP", PROCESSED: b"{}"}
    removed: Counter[str] = Counter()
    with open_storage(database.uri) as saver, open_storage(database.uri) as remover:

        def save() -> None:
            for turn in range(10):
                some = ids[turn % 3 :: 3]
                results = saver.save_crashes([crash_of(parts, each) for each in some])
                assert not any(results), results

        with ThreadPoolExecutor(1) as pool:
            saving = pool.submit(save)
            while not saving.done():
                for crash_id, error in remover.remove_days(MONDAY, until):
                    assert error is None
                    removed[crash_id] += 1
            saving.result()
        for crash_id in ids:
            if saver.has_crash(crash_id):
                assert read(saver, crash_id) == parts
            else:
                assert removed[crash_id]
                assert not saver.has_crash(crash_id, Kind.PROCESSED_CRASH)
