# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage: the tables, as plain SQL sees them, on a real server."""

import datetime as dt
import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import BinaryIO

import psycopg
import pytest

from crashmover import crashid
from crashmover.crash import MAIN_DUMP, Crash, Kind, Part
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    ReadFailed,
    broken,
    contents,
    crash_of,
    read,
    without,
)
from tests.conftest import UseAWS
from tests.servers.database import Database
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server
from tests.store_helpers import peak_of_copy

MIB = 1 << 20
LARGE = 5 * MIB + 1  # more than is saved with others, in six rows


@pytest.fixture
def storage(database: Database) -> Iterator[CrashStorageBase]:
    with open_storage(database.uri) as storage:
        yield storage


def large(data: bytes = bytes(LARGE)) -> Crash:
    dump = Part(*MAIN, lambda: io.BytesIO(data), len(data))
    return Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump])


# The tables


def test_the_rows_hold_the_bytes_as_they_are(database: Database, storage: CrashStorageBase) -> None:
    storage.save_crash(crash_of(contents()))
    rows = database.rows("SELECT crash_id::text, kind, name, chunk, data FROM crash_parts")
    assert {row[0] for row in rows} == {CRASH_ID}
    assert {(Kind(kind), name): data for _, kind, name, _, data in rows} == contents()


def test_where_a_part_lies_is_what_its_rows_have_in_common(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    found = {}
    for part in storage.load_crash(CRASH_ID).parts:
        table, *conditions = (part.location or "").split()
        where = " AND ".join(["crash_id = %s", *conditions])
        [(data,)] = database.rows(f"SELECT data FROM {table} WHERE {where}", CRASH_ID)
        found[part.key] = data
    assert found == contents()


def test_a_large_part_lies_in_rows_of_a_mebibyte(
    database: Database, storage: CrashStorageBase
) -> None:
    data = bytes(range(256)) * (LARGE // 256) + b"!"
    storage.save_crash(large(data))
    sizes = "SELECT octet_length(data) FROM crash_parts WHERE kind = 'dump' ORDER BY chunk"
    assert [size for (size,) in database.rows(sizes)] == [MIB] * 5 + [len(data) % MIB]
    assert storage.get_raw_dump(CRASH_ID) == data


def test_the_views_have_the_names_and_columns_that_people_use(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    query = "SELECT raw_crash->>'ProductName', date_processed FROM raw_crashes WHERE uuid = %s"
    midnight = dt.datetime(2007, 10, 25, tzinfo=dt.UTC)
    assert database.rows(query, CRASH_ID) == [("Firefox", midnight)]
    query = "SELECT processed_crash->>'signature' FROM processed_crashes WHERE uuid = %s"
    assert database.rows(query, CRASH_ID) == [("a",)]
    types = (
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
    )
    for view, column in (("raw_crashes", "raw_crash"), ("processed_crashes", "processed_crash")):
        assert database.rows(types, database.schema, view) == [
            ("uuid", "uuid"),
            (column, "json"),
            ("date_processed", "timestamp with time zone"),
        ]


# Partitions


def _partitions(database: Database) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
    return sorted(name for (name,) in database.rows(query, f"{database.schema}.crash_parts"))


def _id(day: str, number: int = 0) -> str:
    return f"0bba{number:04x}-8721-460c-dead-a43c22{day}"


def test_a_week_has_a_partition_named_by_its_monday(
    database: Database, storage: CrashStorageBase
) -> None:
    for day in ("261115", "261116", "261122", "261123", "270101"):
        storage.save_crash(crash_of(contents(), _id(day)))
    assert _partitions(database) == [
        f"crash_parts_{monday}" for monday in ("20261109", "20261116", "20261123", "20261228")
    ]
    counts = "SELECT tableoid::regclass::text, count(DISTINCT crash_id) FROM crash_parts GROUP BY 1"
    assert dict(database.rows(counts))["crash_parts_20261116"] == 2


def test_a_range_of_dates_looks_at_its_weeks_only(
    database: Database, storage: CrashStorageBase
) -> None:
    for day in ("261110", "261118", "261125"):
        storage.save_crash(crash_of(contents(), _id(day)))
    for view in ("raw_crashes", "processed_crashes"):
        plan = database.rows(
            f"EXPLAIN SELECT count(*) FROM {view}"
            " WHERE date_processed >= '2026-11-17Z' AND date_processed < '2026-11-19Z'"
        )
        text = "\n".join(line for (line,) in plan)
        assert "crash_parts_20261116" in text
        assert "crash_parts_20261109" not in text
        assert "crash_parts_20261123" not in text


def test_dropping_a_partition_is_retention(database: Database, storage: CrashStorageBase) -> None:
    for day in ("261110", "261118"):
        storage.save_crash(crash_of(contents(), _id(day)))
    database.run("DROP TABLE crash_parts_20261109")
    assert list(storage.new_crashes()) == [_id("261118")]
    storage.save_crash(crash_of(contents("b"), _id("261110")))  # which makes it again
    assert read(storage, _id("261110")) == contents("b")


def test_a_partition_that_is_detached_is_not_passed_over(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    database.run("ALTER TABLE crash_parts DETACH PARTITION crash_parts_20071022")
    with pytest.raises(StorageError, match="crash_parts_20071022 is not attached to"):
        storage.save_crash(crash_of(contents()))


def test_many_may_make_the_tables_and_a_partition_at_once(database: Database) -> None:
    def save(number: int) -> None:
        with open_storage(database.uri) as storage:
            storage.save_crash(crash_of(contents(), _id("261118", number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(8)))
    assert _partitions(database) == ["crash_parts_20261116"]
    assert database.rows("SELECT count(*) FROM raw_crashes") == [(8,)]


def test_many_sessions_may_make_one_partition_at_once(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    weeks = [dt.date(2026, 1, 5) + dt.timedelta(weeks=number) for number in range(20)]
    together = Barrier(4)

    def make(_session: int) -> None:
        with database.server.connect() as connection:
            for week in weeks:
                together.wait(30)
                connection.execute(f"SELECT {database.schema}.make_partition(%s)", (week,))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))
    assert len(_partitions(database)) == 1 + len(weeks)


def test_nobody_waits_for_a_partition_to_be_made(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    with database.connection.transaction():
        assert database.rows("SELECT count(*) FROM raw_crashes") == [(1,)]  # and go on reading
        with open_storage(f"{database.uri}&timeout=5") as other:
            other.save_crash(crash_of(contents(), _id("261118")))


# Crashes


def test_a_crash_that_is_replaced_while_it_is_read_is_said(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(large())
    loaded = storage.load_crash(CRASH_ID)
    with loaded.dumps[0].open() as file:
        assert file.read(10) == bytes(10)
        with open_storage(database.uri) as other:
            other.save_crash(large(b"x" * LARGE))
        with pytest.raises(StorageUnavailable, match="replaced or removed"):
            while file.read(MIB):
                pass
    storage.remove(CRASH_ID)
    for part in loaded.parts:
        with pytest.raises(StorageUnavailable, match="replaced or removed"):
            part.read()


def test_a_missing_piece_is_an_error(database: Database, storage: CrashStorageBase) -> None:
    storage.save_crash(large())
    database.run("DELETE FROM crash_parts WHERE kind = 'dump' AND chunk = 2")
    with pytest.raises(CorruptCrash, match="upload_file_minidump: a piece of it is missing"):
        storage.load_crash(CRASH_ID)


def test_what_no_store_would_save_is_said(database: Database, storage: CrashStorageBase) -> None:
    storage.save_crash(crash_of(contents()))
    database.run("UPDATE crash_parts SET name = '../x' WHERE kind = 'dump' AND name LIKE '%r'")
    with pytest.raises(CorruptCrash, match="not a dump name"):
        storage.load_crash(CRASH_ID)


def test_rows_that_are_no_crashes_are_not_listed(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    insert = "INSERT INTO crash_parts VALUES (%s, %s, 'raw_crash', '', 0, '')"
    day = dt.datetime(2007, 10, 25, tzinfo=dt.UTC)
    other_day = day + dt.timedelta(days=1)
    odd_time = day + dt.timedelta(hours=1)
    for date, crash_id in (
        (day, "00000000-0000-0000-0000-000000999999"),
        (other_day, NEIGHBOUR),
        (odd_time, NEIGHBOUR),
    ):
        database.connection.execute(insert, (date, crash_id))
    assert list(storage.new_crashes()) == [CRASH_ID]


def test_a_crash_at_fault_does_not_take_its_batch_along(
    database: Database, storage: CrashStorageBase
) -> None:
    """The database refuses one of them."""
    storage.save_crash(crash_of(contents()))
    database.run("ALTER TABLE crash_parts ADD CHECK (data != 'refuse me'::bytea)")
    crashes = [crash_of(contents(), _id("071025", number)) for number in range(5)]
    crashes[2] = crash_of({RAW: b"refuse me"}, _id("071025", 2))
    errors = storage.save_crashes(crashes)
    assert [error is None for error in errors] == [True, True, False, True, True]
    assert isinstance(errors[2], StorageError)
    assert errors[2].crash_id == _id("071025", 2)
    assert len(list(storage.new_crashes())) == 5


def test_a_batch_of_every_kind_is_saved(storage: CrashStorageBase) -> None:
    crashes = [
        crash_of({RAW: b"{}"}, _id("071025", 1)),
        large(),
        crash_of({PROCESSED: b"{}"}, _id("071025", 1)),
        crash_of({MAIN: b"late"}, _id("071025", 1)),
        crash_of(contents(), _id("261118", 2)),
        Crash(_id("071025", 3), []),
        Crash(_id("071025", 4), [broken(RAW, bytes(LARGE), after=LARGE - 1)]),
        crash_of({BROWSER: b"lost"}, _id("071025", 5)),
    ]
    errors = storage.save_crashes(crashes)
    assert [type(error).__name__ for error in errors[:5]] == ["NoneType"] * 5
    assert [type(error) for error in errors[6:]] == [ReadFailed, CrashIDNotFound]
    assert read(storage, _id("071025", 1)) == {RAW: b"{}", MAIN: b"late", PROCESSED: b"{}"}
    assert len(list(storage.new_crashes())) == 3


def test_parts_of_unknown_size_are_saved_whatever_it_is(storage: CrashStorageBase) -> None:
    for size in (0, 10, LARGE):
        dump = Part(*MAIN, lambda size=size: io.BytesIO(bytes(size)))  # type: ignore[misc]
        storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
        assert storage.get_raw_dump(CRASH_ID) == bytes(size)


def test_more_than_a_page_is_listed(database: Database, storage: CrashStorageBase) -> None:
    ids = [_id(day, number) for day in ("071025", "261118") for number in range(1100)]
    storage.save_crashes([crash_of({RAW: b"{}"}, crash_id) for crash_id in reversed(ids)])
    assert list(storage.new_crashes()) == ids
    day = crashid.date_of(ids[-1])
    assert list(storage.new_crashes(day, day)) == ids[1100:]


@pytest.mark.slow
def test_large_dumps_move_in_little_memory(database: Database, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    with dump.open("wb") as file:
        file.truncate(300 << 20)
    with open_storage(str(tmp_path / "source")) as source:
        for number in range(3):
            parts = [Part.of_bytes(Kind.RAW_CRASH, b"{}"), Part.of_file(Kind.DUMP, dump, MAIN_DUMP)]
            source.save_crash(Crash(_id("071025", number), parts))
    for where in (
        (str(tmp_path / "source"), database.uri),
        (database.uri, str(tmp_path / "back")),
    ):
        assert peak_of_copy(*where) < 150 << 20


@pytest.mark.slow
def test_many_threads_save_in_little_memory(
    database: Database, s3_signed: S3Server, aws: UseAWS, tmp_path: Path
) -> None:
    source, bucket = str(tmp_path), aws(s3_signed).uri(s3_signed.new_bucket())
    data = {RAW: b"{}", MAIN: bytes(900 << 10)}
    with open_storage(source) as storage:
        crashes = [crash_of(data, _id("071025", number)) for number in range(600)]
        assert not any(storage.save_crashes(crashes))
    peak_of_copy(source, bucket)
    assert peak_of_copy(bucket, database.uri) < 150 << 20  # by threads, as out of a bucket


def test_a_large_crash_that_breaks_off_leaves_nothing(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(without(contents(), PROCESSED)))
    bad = broken(MAIN, bytes(LARGE), after=LARGE - 1)
    for size in (LARGE, None):
        dump = Part(bad.kind, bad.name, bad.open, size)
        with pytest.raises(ReadFailed):
            storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
        assert read(storage) == without(contents(), PROCESSED)
    assert database.rows("SELECT count(*) FROM crash_parts") == [(3,)]


def test_a_part_that_cannot_be_read_keeps_its_own_error(storage: CrashStorageBase) -> None:
    error = psycopg.OperationalError("of a source that is a database, too")

    def open_nothing() -> BinaryIO:
        raise error

    for size in (1, LARGE):
        dump = Part(*MAIN, open_nothing, size)
        with pytest.raises(psycopg.OperationalError) as caught:
            storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
        assert caught.value is error
        assert not storage.has_crash(CRASH_ID)


def test_removing_waits_for_who_saves_the_same_crash(storage: CrashStorageBase) -> None:
    storage.save_crash(crash_of(contents()))
    storage.remove(CRASH_ID)
    begun, go_on = Event(), Event()

    def open_slowly() -> BinaryIO:
        begun.set()
        assert go_on.wait(30)
        return io.BytesIO(bytes(LARGE))

    crash = Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), Part(*MAIN, open_slowly, LARGE)])
    with ThreadPoolExecutor(2) as pool:
        saving = pool.submit(storage.save_crash, crash)
        assert begun.wait(30)
        removing = pool.submit(storage.remove, CRASH_ID)
        with pytest.raises(TimeoutError):  # it waits
            removing.result(0.2)
        go_on.set()
        saving.result(30)
        removing.result(30)
    assert not storage.has_crash(CRASH_ID)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_the_encoding_of_the_database_does_not_matter(
    postgresql_server: PostgreSQL, encoding: str
) -> None:
    name = postgresql_server.new_name()
    options = f"ENCODING {encoding} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    with postgresql_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} {options}")
    parts = contents() | {RAW: '{"ProductName": "Größe"}'.encode()}
    with open_storage(postgresql_server.uri(name)) as storage:
        storage.save_crash(crash_of(parts))
        assert read(storage) == parts
        assert list(storage.new_crashes()) == [CRASH_ID]


@pytest.mark.parametrize(("kind", "name"), [("raw_crash", "x"), ("dump", ""), ("other", "")])
def test_the_table_refuses_parts_that_no_crash_has(
    database: Database, storage: CrashStorageBase, kind: str, name: str
) -> None:
    storage.save_crash(crash_of(contents()))
    insert = "INSERT INTO crash_parts SELECT date_processed, crash_id, %s, %s, 1, '' FROM raw"
    with pytest.raises(psycopg.errors.CheckViolation):
        database.connection.execute(
            "WITH raw AS (SELECT * FROM crash_parts WHERE kind = 'raw_crash') " + insert,
            (kind, name),
        )


FORKING = """
import os, sys
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, contents, crash_of, read
def session():
    with storage._context() as connection:
        return connection.info.backend_pid
with open_storage(sys.argv[1]) as storage:
    storage.save_crash(crash_of(contents()))
    loaded, kept = storage.load_crash(CRASH_ID), session()
    for _ in range(2):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                assert read(storage) == contents()
                assert loaded.parts[0].read()
                assert session() == session() != kept
                storage.save_crash(crash_of(contents("child")))
                storage.close()
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert session() == kept
        assert read(storage) == contents("child")
        storage.save_crash(crash_of(contents()))
        loaded = storage.load_crash(CRASH_ID)
print("done")
"""


def test_a_process_that_was_forked_leaves_the_connections_that_were_kept_alone(
    database: Database,
) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKING, database.uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")
