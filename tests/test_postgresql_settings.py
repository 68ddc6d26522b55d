# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage, whatever a role or a database sets for its sessions: what was reported
is on the disk, and no transaction works on a snapshot from before its lock."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crashmover import Crash, FSPermanentStorage, Kind, Part, open_storage
from crashmover.errors import CrashChanged
from crashmover.external.postgresql.connection_context import ConnectionContext, conninfo_of
from crashmover.external.postgresql.tables import lock
from crashmover.testing import CRASH_ID, contents, crash_of
from crashmover.uri import StorageURI
from tests.cli_helpers import run
from tests.conftest import Figures
from tests.servers.postgresql import PostgreSQL

ISOLATION = ("read committed", "repeatable read", "serializable")
PLACES = ("role", "database", "PGOPTIONS", "URI")


def ids(count: int) -> list[str]:
    return [f"{n:08x}{CRASH_ID[8:]}" for n in range(count)]


def set_for(server: PostgreSQL, place: str, name: str, value: str) -> None:
    of = {"role": f"ROLE {server.user}", "database": "DATABASE postgres"}[place]
    with server.connect() as connection:
        connection.execute(f"ALTER {of} SET {name} = '{value}'".encode())


@pytest.mark.parametrize("place", PLACES)
def test_what_was_moved_survives_the_server_whatever_commits_wait_for(
    own_postgresql: PostgreSQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    figures: Figures,
) -> None:
    """With a long ``wal_writer_delay``: in its time, a commit that does not wait is lost."""
    with own_postgresql.connect() as connection:
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    uri = own_postgresql.uri()
    option = "-c synchronous_commit=off"
    if place == "URI":
        uri = own_postgresql.uri(options=option)
    elif place == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", option)
    else:
        set_for(own_postgresql, place, "synchronous_commit", "off")
    source = FSPermanentStorage(tmp_path)
    source.save_crashes([crash_of(contents(), crash_id) for crash_id in ids(30)])
    done = run("copy", "-s", tmp_path, "-d", uri, "--verify", "--remove-source")
    own_postgresql.crash()
    assert (done.exit_code, list(source.new_crashes())) == (0, []), done.stderr
    own_postgresql.start()
    monkeypatch.delenv("PGOPTIONS", raising=False)
    with open_storage(own_postgresql.uri()) as storage:
        assert list(storage.new_crashes()) == ids(30)
    figures(moved=30)


@pytest.mark.parametrize("place", ["role", "database"])
def test_what_was_removed_stays_removed(own_postgresql: PostgreSQL, place: str) -> None:
    with own_postgresql.connect() as connection:
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    set_for(own_postgresql, place, "synchronous_commit", "off")
    with open_storage(own_postgresql.uri()) as storage:
        storage.save_crashes([crash_of(contents(), crash_id) for crash_id in ids(3)])
        first, second, third = ids(3)
        storage.remove(first)
        loaded = storage.load_crash(second)
        assert all(part.read() for part in loaded.parts)
        storage.remove_loaded(loaded)
    own_postgresql.crash()
    own_postgresql.start()
    with open_storage(own_postgresql.uri()) as storage:
        assert list(storage.new_crashes()) == [third]


@pytest.mark.parametrize("value", ["off", "local", "remote_write", "remote_apply", "on"])
def test_only_what_does_not_wait_for_the_disk_is_changed_and_only_for_the_transaction(
    postgresql_server: PostgreSQL, value: str
) -> None:
    context = ConnectionContext(conninfo_of(StorageURI.parse(postgresql_server.uri()), set()))
    with context() as connection:
        connection.execute(f"SET synchronous_commit = {value}".encode())
        with connection.transaction():
            lock(connection, [CRASH_ID])
            within = connection.execute("SHOW synchronous_commit").fetchone()
        after = connection.execute("SHOW synchronous_commit").fetchone()
    assert within == ("on" if value == "off" else value,)
    assert after == (value,)
    context.close()


@pytest.fixture(params=ISOLATION)
def isolated(request: pytest.FixtureRequest, postgresql_server: PostgreSQL) -> str:
    """The URI of a database that has this level of isolation by default."""
    name = postgresql_server.new_database()
    with postgresql_server.connect() as connection:
        setting = f"default_transaction_isolation = '{request.param}'"
        connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    return postgresql_server.uri(name)


def test_a_dump_that_is_added_while_a_removal_waits_stays(isolated: str) -> None:
    """With a snapshot from before the lock, the removal would not see the dump, and leave it
    behind without its raw crash."""
    holds, may_go_on = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        holds.set()
        assert may_go_on.wait(20)
        yield b"MDMP2"

    added = Part.of_chunks(Kind.DUMP, chunks, "memory_report", 5)
    with (
        open_storage(isolated) as one,
        open_storage(isolated) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        one.save_crash(crash_of(contents()))
        loaded = other.load_crash(CRASH_ID)
        assert all(part.read() for part in loaded.parts)
        saving = pool.submit(one.save_crash, Crash(CRASH_ID, [added]))
        assert holds.wait(20)
        removing = pool.submit(other.remove_loaded, loaded)
        time.sleep(0.5)
        may_go_on.set()
        saving.result()
        with pytest.raises(CrashChanged):
            removing.result()
        names = {part.name for part in one.load_crash(CRASH_ID).dumps}
    assert "memory_report" in names


def test_many_save_the_first_crashes_of_a_week_at_once(isolated: str, figures: Figures) -> None:
    with open_storage(isolated) as storage:
        storage.save_crash(crash_of(contents(), f"{CRASH_ID[:-6]}070101"))  # makes the tables
    days = [f"{CRASH_ID[:-6]}07{month:02}15" for month in range(2, 10)]
    with ThreadPoolExecutor(8) as pool:
        for crash_id in days:
            begun = threading.Barrier(8)

            def save(
                number: int, crash_id: str = crash_id, begun: threading.Barrier = begun
            ) -> None:
                with open_storage(isolated) as storage:
                    storage.verify_access(write=True)
                    begun.wait(20)
                    storage.save_crash(crash_of(contents(), f"{number:08x}{crash_id[8:]}"))

            list(pool.map(save, range(8)))
    with open_storage(isolated) as storage:
        assert len(list(storage.new_crashes())) == 1 + 8 * len(days)
    figures(saved=8 * len(days))


def test_copies_race_whatever_is_the_default(isolated: str, tmp_path: Path) -> None:
    FSPermanentStorage(tmp_path).save_crashes([crash_of(contents(), each) for each in ids(60)])
    command = [sys.executable, "-m", "crashmover", "copy", "--verify", "-d", isolated]
    copies = [subprocess.Popen([*command, "-s", tmp_path]) for _ in range(3)]
    assert [copy.wait(60) for copy in copies] == [0] * 3
