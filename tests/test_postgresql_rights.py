# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage: who may make its tables, save and read; what is said to who may not."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest

from crashmover.errors import StorageDenied
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.postgresql import schema as schemas
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, contents, crash_of, read
from tests.servers.database import Database
from tests.servers.postgresql import PostgreSQL

OF_ANOTHER_WEEK = "0bba0000-8721-460c-dead-a43c22261118"


@pytest.fixture
def storage(database: Database) -> Iterator[CrashStorageBase]:
    with open_storage(database.uri) as storage:
        yield storage


def test_the_script_makes_what_the_first_save_makes(database: Database) -> None:
    command = [sys.executable, "-m", "crashmover.external.postgresql", "--schema", database.schema]
    script = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert script == schemas.script(database.schema)
    for _ in range(2):  # it may be run again
        database.run(script)
    with open_storage(database.uri) as storage:
        storage.verify_access()
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()


@pytest.mark.parametrize("name", ["Crashes", "pg_x", "a b", "", "x" * 64, 'x"y', "x;", "1x"])
def test_a_schema_with_an_odd_name_is_refused(name: str) -> None:
    command = [sys.executable, "-m", "crashmover.external.postgresql", "--schema", name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a schema's name is a-z, 0-9 and _" in done.stderr


def test_a_schema_may_be_called_by_a_word_of_sql(postgresql_server: PostgreSQL) -> None:
    uri = postgresql_server.uri(postgresql_server.new_database(), schema="user")
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()


def test_who_may_not_make_tables_is_told_how_to_get_them(database: Database) -> None:
    role = database.role()
    with open_storage(database.uri_of(role)) as storage:
        calls: list[Callable[[], object]] = [
            lambda: storage.verify_access(write=True),
            lambda: storage.save_crash(crash_of(contents())),
        ]
        for call in calls:
            with pytest.raises(StorageDenied, match=r"python -m crashmover\.external\.postgresql"):
                call()
        assert list(storage.new_crashes()) == []
        with pytest.raises(StorageDenied, match="there are no tables of crashmover in the schema"):
            storage.verify_access()


def test_with_the_grants_of_the_script_one_may_save_and_get_partitions(
    database: Database,
) -> None:
    writer, reader = database.role(), database.role()
    script = schemas.script(database.schema)
    grants = [line[3:] for line in script.splitlines() if line.startswith("-- GRANT")]
    database.run(script)
    for grant in grants:
        database.run(grant.replace("reader", reader).replace("writer", writer))
    with open_storage(database.uri_of(writer)) as storage:
        storage.verify_access(write=True)
        for crash_id in (CRASH_ID, OF_ANOTHER_WEEK):
            storage.save_crash(crash_of(contents(), crash_id))
        storage.remove(CRASH_ID)
    with open_storage(database.uri_of(reader)) as storage:
        storage.verify_access()
        assert read(storage, OF_ANOTHER_WEEK) == contents()
        with pytest.raises(StorageDenied, match="no right to SELECT, INSERT and DELETE"):
            storage.verify_access(write=True)
        calls: list[Callable[[], object]] = [
            lambda: storage.save_crash(crash_of(contents())),
            lambda: storage.remove(OF_ANOTHER_WEEK),
        ]
        for call in calls:
            with pytest.raises(StorageDenied, match="permission denied"):
                call()
    query = f"SELECT count(*) FROM {database.schema}.raw_crashes"
    with psycopg.connect(database.uri_of(reader).split("?")[0]) as connection:
        assert connection.execute(query).fetchone() == (1,)


def test_who_may_save_and_not_make_partitions_is_told_in_advance(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    writer = database.role()
    database.run(f"GRANT USAGE ON SCHEMA {database.schema} TO {writer}")
    database.run(f"GRANT SELECT, INSERT, DELETE ON crash_parts TO {writer}")
    no_right = pytest.raises(StorageDenied, match=r"no right to EXECUTE .*make_partition")
    with open_storage(database.uri_of(writer)) as other, no_right:
        other.verify_access(write=True)


def test_a_table_that_is_in_the_way_is_named(database: Database) -> None:
    database.run(f"CREATE SCHEMA {database.schema}")
    database.run("CREATE TABLE raw_crashes (uuid uuid, raw_crash json)")
    in_the_way = pytest.raises(StorageDenied, match=r"raw_crashes.* name another with \?schema=")
    with open_storage(database.uri) as storage, in_the_way:
        storage.save_crash(crash_of(contents()))
    assert database.rows("SELECT to_regclass('crash_parts')") == [(None,)]


def test_tables_of_another_version_are_left_alone(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    database.run("COMMENT ON TABLE crash_parts IS 'crashmover schema 99'")
    with open_storage(database.uri) as other:
        calls: list[Callable[[], object]] = [
            other.verify_access,
            lambda: other.save_crash(crash_of(contents("b"))),
        ]
        for call in calls:
            with pytest.raises(StorageDenied, match="not of this version"):
                call()
    assert read(storage) == contents()


def test_a_database_that_is_read_only_is_said(database: Database) -> None:
    with open_storage(database.uri) as storage:
        storage.save_crash(crash_of(contents()))
    uri = f"{database.uri}&options=-c%20default_transaction_read_only%3Don"
    with open_storage(uri) as storage:
        storage.verify_access()
        with pytest.raises(StorageDenied, match="the database is read-only"):
            storage.verify_access(write=True)
        with pytest.raises(StorageDenied, match="read-only"):
            storage.save_crash(crash_of(contents()))
