# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A PostgreSQL store that refuses as a whole: one line for a run, not one for each crash; and
``doctor`` knows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from crashmover import open_storage
from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.postgresql.crashstorage import PostgreSQLCrashStorage
from crashmover.testing import contents, crash_of
from tests.cli_helpers import run
from tests.conftest import Figures, wanted
from tests.servers.database import Database
from tests.servers.postgresql import PostgreSQL
from tests.test_two_stores_postgresql import EverywherePostgreSQL

CRASHES = 90  # more than two batches
IDS = [f"0bba{n:04x}-8721-460c-dead-a43c22261118" for n in range(CRASHES)]


@pytest.fixture
def postgresql_server(each_postgresql: PostgreSQL) -> PostgreSQL:
    return each_postgresql


@pytest.fixture
def storage(database: Database) -> Iterator[CrashStorageBase]:
    with open_storage(database.uri) as storage:
        storage.save_crash(crash_of(contents()))
        yield storage


@pytest.fixture
def source(tmp_path: Path) -> str:
    with open_storage(str(tmp_path / "source")) as source:
        source.save_crashes([crash_of(contents(), each) for each in IDS])
    return str(tmp_path / "source")


def lines_of(words: Sequence[str | Path], code: int = 4) -> list[str]:
    """Run a command that ends with this code; return what it says, but for the summary."""
    ended = run(*words)
    assert ended.exit_code == code, (words, ended.stdout, ended.stderr)
    said = (ended.stdout + ended.stderr).splitlines()
    return [line for line in said if not line.startswith(("copied ", "removed ", "would copy"))]


def refused(words: Sequence[str | Path], reason: str) -> None:
    """Run a command; it must end with exit code 4, and say why in one line."""
    [line] = lines_of(words)
    assert line.startswith("crashmover: ") and reason in line, line


@pytest.fixture
def verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the look at a store before a copy find nothing wrong; later ones are real."""
    verify: Callable[..., None] = PostgreSQLCrashStorage.verify_access
    calls: list[bool] = []

    def verify_access(self: PostgreSQLCrashStorage, *, write: bool = False) -> None:
        calls.append(write)
        if len(calls) > 1:
            verify(self, write=write)

    monkeypatch.setattr(PostgreSQLCrashStorage, "verify_access", verify_access)


# Read-only


@contextmanager
def role_with(database: Database, setting: str, value: str) -> Iterator[str]:
    """The URI of a role that may do everything, with a setting of its own."""
    role = database.role()
    database.run(f"ALTER ROLE {role} SUPERUSER")
    database.run(f"ALTER ROLE {role} SET {setting} = '{value}'")
    yield database.uri_of(role)
    database.run(f"DROP ROLE {role}")


@pytest.mark.parametrize("has_tables", [True, False])
def test_a_read_only_role_is_refused_once(
    database: Database, source: str, tmp_path: Path, has_tables: bool
) -> None:
    if has_tables:
        with open_storage(database.uri) as storage:
            storage.save_crash(crash_of(contents(), IDS[0]))
    with role_with(database, "default_transaction_read_only", "on") as uri:
        reason = "the database is read-only: default_transaction_read_only is on"
        refused(["copy", "-s", source, "-d", uri], reason)
        refused(["copy", "-s", source, "-d", uri, "--dry-run"], reason)
        refused(["copy", "-s", source, "-d", uri, "--existing", "overwrite", IDS[0]], reason)
        raw = tmp_path / "raw.json"
        raw.write_text("{}")
        [line] = lines_of(["save", "-d", uri, "--raw-crash", raw, IDS[1]])
        assert "read-only" in line
        [line, _] = lines_of(["doctor", "-d", uri], 4)
        assert reason in line
        with open_storage(uri) as other:
            with pytest.raises(StorageDenied, match="read-only"):
                other.save_crash(crash_of(contents(), IDS[2]))
            with pytest.raises(StorageDenied, match="read-only"):
                other.verify_access(write=True)
        if has_tables:
            out = f"{tmp_path / 'out'}"
            refused(["remove", "-s", uri, IDS[0]], reason)
            refused(["remove", "-s", uri, "--since=2026-11-16", "--until=2026-11-22"], reason)
            refused(["copy", "-s", uri, "-d", out, "--remove-source"], reason)
            assert run("copy", "-s", uri, "-d", out, "--verify").exit_code == 0
            assert run("doctor", "-s", uri).exit_code == 0
        else:
            refused(["list", "-s", uri], "there are no tables of crashmover in the schema")


def test_a_standby_is_refused_once(
    request: pytest.FixtureRequest, source: str, tmp_path: Path
) -> None:
    wanted(request, "postgresql")
    with EverywherePostgreSQL() as primary:
        with open_storage(primary.uri(schema="crashes")) as storage:
            storage.save_crash(crash_of(contents()))
        primary.stop()
        with EverywherePostgreSQL(primary, standby=True) as standby:
            reason = "the database is read-only: it is a standby; use its primary"
            for schema in ("without_tables", "crashes"):
                uri = standby.uri(schema=schema)
                refused(["copy", "-s", source, "-d", uri], reason)
                refused(["copy", "-s", source, "-d", uri, "--dry-run"], reason)
                assert reason in lines_of(["doctor", "-d", uri])[0]
            refused(["remove", "-s", uri, IDS[0]], reason)
            assert run("copy", "-s", uri, "-d", tmp_path / "out", "--verify").exit_code == 0
            assert "warn" not in run("doctor", "-s", uri).stdout


def test_what_turns_read_only_meanwhile_ends_the_run(
    database: Database,
    storage: CrashStorageBase,
    source: str,
    verified_once: None,
    figures: Figures,
) -> None:
    with role_with(database, "default_transaction_read_only", "on") as uri:
        lines = lines_of(["copy", "-s", source, "-d", uri, "--workers", "1", *IDS])
    assert lines[-1].startswith("crashmover: ") and "the database is read-only" in lines[-1]
    assert len(lines) <= 1 + 2 * storage.tuning.batch  # what was in hand
    figures(crashes=CRASHES, lines=len(lines))


# What the server says of its state


def refuse(database: Database, code: str, text: str) -> None:
    """Let every INSERT fail with this code."""
    database.run(f"""
        CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{text}' USING ERRCODE = '{code}'; END $$;
        DROP TRIGGER IF EXISTS refuse ON crash_parts;
        CREATE TRIGGER refuse BEFORE INSERT ON crash_parts
            FOR EACH ROW EXECUTE FUNCTION refuse();
    """)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("53100", "could not extend file: No space left on device"),
        ("53200", "out of shared memory"),
    ],
)
def test_a_server_without_room_or_memory_ends_the_run(
    database: Database, storage: CrashStorageBase, source: str, code: str, reason: str
) -> None:
    refuse(database, code, reason)
    lines = lines_of(["copy", "-s", source, "-d", database.uri, "--workers", "1"])
    assert lines[-1].startswith("crashmover: ") and reason in lines[-1]
    assert len(lines) <= 1 + 2 * storage.tuning.batch  # what was in hand
    with pytest.raises(StorageError, match=reason):
        storage.save_crash(crash_of(contents(), IDS[0]))
    with pytest.raises(StorageError, match=reason):
        storage.verify_access(write=True)
    storage.verify_access(write=True)  # that may have passed; the next save tells
    database.run("DROP TRIGGER refuse ON crash_parts")
    storage.save_crash(crash_of(contents(), IDS[0]))
    storage.verify_access(write=True)


@pytest.mark.parametrize("code", ["53200", "53300", "55006", "57P05", "40001", "25P04"])
def test_what_may_pass_is_tried_again(
    database: Database, storage: CrashStorageBase, code: str
) -> None:
    refuse(database, code, "not now")
    with pytest.raises(StorageUnavailable, match="not now"):
        storage.save_crash(crash_of(contents(), IDS[0]))
    database.run("DROP TRIGGER refuse ON crash_parts")
    storage.save_crash(crash_of(contents(), IDS[0]))


# Locks


@contextmanager
def locked(database: Database, mode: str) -> Iterator[None]:
    with database.server.connect() as holder, holder.transaction():
        lock = f"LOCK TABLE ONLY {database.schema}.crash_parts IN {mode} MODE"
        holder.execute(lock.encode())
        yield


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "SHARE"])
def test_a_table_that_another_session_keeps_locked_ends_the_run(
    database: Database, storage: CrashStorageBase, source: str, mode: str, figures: Figures
) -> None:
    """From its start, and while it goes on."""
    uri = f"{database.uri}&timeout=1"
    with locked(database, mode):
        [line] = lines_of(["copy", "-s", source, "-d", uri])
        assert "another session keeps" in line
        if mode == "ACCESS EXCLUSIVE":
            refused(["list", "-s", uri], "another session keeps")
            with open_storage(uri) as other, pytest.raises(StorageUnavailable, match="locked"):
                other.verify_access()
    figures(runs=1)


@pytest.mark.slow
def test_a_table_that_is_locked_meanwhile_ends_the_run(
    database: Database,
    storage: CrashStorageBase,
    source: str,
    verified_once: None,
    figures: Figures,
) -> None:
    uri = f"{database.uri}&timeout=0.5"
    with locked(database, "SHARE"):
        lines = lines_of(["copy", "-s", source, "-d", uri, "--workers", "1", *IDS])
    assert lines[-1].startswith("crashmover: ") and "another session keeps" in lines[-1]
    assert len(lines) <= 1 + 2 * storage.tuning.batch  # what was in hand
    figures(crashes=CRASHES, lines=len(lines))


def test_a_lock_timeout_of_the_role_is_said(
    database: Database, storage: CrashStorageBase, source: str
) -> None:
    with role_with(database, "lock_timeout", "100ms") as uri, locked(database, "SHARE"):
        [line] = lines_of(["copy", "-s", source, "-d", uri])
        assert "another session keeps" in line


def test_what_is_in_the_way_of_the_tables_ends_the_run(database: Database, source: str) -> None:
    """Only the attempt to make them tells that: each crash in hand fails, and no other is begun."""
    database.run(f"CREATE SCHEMA IF NOT EXISTS {database.schema}")
    database.run(f"CREATE TABLE {database.schema}.raw_crashes (x integer)")
    *crashes, last = lines_of(["copy", "-s", source, "-d", database.uri])
    assert len(crashes) == len(IDS)
    assert last.startswith("crashmover: ") and '"raw_crashes" is not a view' in last
    assert "name another with ?schema=" in last


# Limits


LIMITS = {
    "statement_timeout": ("2s", "statement_timeout is 2 s"),
    "lock_timeout": ("20ms", "lock_timeout is 0.02 s"),
    "idle_in_transaction_session_timeout": ("1s", "idle_in_transaction_session_timeout is 1 s"),
    "transaction_timeout": ("1500ms", "transaction_timeout is 1.5 s"),
    "plan_cache_mode": ("force_generic_plan", "plan_cache_mode is force_generic_plan"),
}


@pytest.mark.parametrize("setting", LIMITS)
def test_limits_that_keep_crashes_from_arriving_are_warned_of(
    database: Database, storage: CrashStorageBase, setting: str
) -> None:
    value, expected = LIMITS[setting]
    if setting == "transaction_timeout" and storage_version(database) < 17:
        with pytest.raises(psycopg.errors.UndefinedObject):
            database.run(f"SET {setting} = '{value}'")
        return
    with role_with(database, setting, value) as uri:
        ended = run("doctor", "-d", uri)
        assert (ended.exit_code, expected in ended.stdout) == (0, True), ended.stdout
        assert run("doctor", "-d", uri, "--json").stdout.count(expected) == 1
        role = uri.split("//")[1].split(":")[0]
        # A reader is not warned of what only matters to those who save.
        database.run(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        is_of_readers = setting in ("statement_timeout", "plan_cache_mode")
        assert (expected in run("doctor", "-s", uri).stdout) == is_of_readers
        database.run(f"ALTER ROLE {role} RESET default_transaction_read_only")
        database.run(f"ALTER ROLE {role} NOSUPERUSER")
        database.run(f"GRANT pg_read_all_data TO {role}")
        said = run("doctor", "-s", uri).stdout
        assert (expected in said) == is_of_readers, said
        database.run(f"REVOKE pg_read_all_data FROM {role}")
        database.run(f"ALTER ROLE {role} SUPERUSER")
        database.run(f"ALTER ROLE {role} SET {setting} TO DEFAULT")
        assert expected not in run("doctor", "-d", uri).stdout


def test_wide_limits_are_no_matter(database: Database, storage: CrashStorageBase) -> None:
    for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        with role_with(database, setting, "5min") as uri:
            assert setting not in run("doctor", "-d", uri).stdout


def storage_version(database: Database) -> int:
    [(version,)] = database.rows("SELECT current_setting('server_version_num')::int / 10000")
    return int(version)


def test_a_plain_store_has_nothing_to_warn_of(
    database: Database, storage: CrashStorageBase
) -> None:
    assert list(storage.diagnose()) == []
    assert "warn" not in run("doctor", "-d", database.uri).stdout
