# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQL's connections: refused, lost, stopped; kept and lent; and the URIs they come from."""

import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from crashmover import crashid
from crashmover.engine.mover import Mover, Outcome, Status
from crashmover.errors import (
    CrashIDNotFound,
    InvalidURI,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.postgresql.connection_context import ConnectionContext, conninfo_of
from crashmover.external.tuning import Tuning
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy
from crashmover.testing import CRASH_ID, contents, crash_of, read
from crashmover.uri import StorageURI
from tests.servers.postgresql import PostgreSQL
from tests.store_helpers import every_call

CANARY = "cAnArYsEcReT0123456789"


def context_of(server: PostgreSQL, timeout: float = 5, **query: str) -> ConnectionContext:
    uri = StorageURI.parse(server.uri(**query))
    return ConnectionContext(conninfo_of(uri, set()), str(uri), timeout)


@pytest.fixture
def context(postgresql_server: PostgreSQL) -> Iterator[ConnectionContext]:
    with context_of(postgresql_server) as context:
        yield context


@pytest.fixture
def storage(postgresql_server: PostgreSQL) -> Iterator[CrashStorageBase]:
    uri = postgresql_server.uri(schema=postgresql_server.new_name(), timeout="1")
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents()))
        yield storage


def number_of(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    return connection.info.backend_pid


# Refused


def test_a_wrong_password_is_refused_and_not_shown(postgresql_server: PostgreSQL) -> None:
    uri = postgresql_server.uri().replace(postgresql_server.password, CANARY)
    with open_storage(uri) as storage:
        for call in every_call(storage):
            with pytest.raises(StorageDenied, match="password authentication failed") as caught:
                call()
            shown = "".join(traceback.format_exception(caught.value)) + repr(storage)
            assert CANARY not in shown
            assert str(caught.value).startswith(f"{storage.uri}: ")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("/postgres", "/no-such", 'database "no-such" does not exist'),
        ("//crashmover:", "//nobody:", "password authentication failed"),
        ("/postgres", "/postgres?sslmode=require", "does not support SSL"),
        ("{password}", "", "no password supplied"),
    ],
    ids=["database", "user", "TLS", "no password"],
)
def test_a_refusal_is_final(postgresql_server: PostgreSQL, old: str, new: str, reason: str) -> None:
    uri = postgresql_server.uri().replace(old.format(password=postgresql_server.password), new)
    with open_storage(uri) as storage, pytest.raises(StorageDenied, match=reason):
        storage.verify_access()


# Out of reach


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("127.0.0.1:1", "(?i)connection refused"),
        ("nohost.invalid", "failed to resolve host 'nohost.invalid'"),
        ("%2Fnowhere", "No such file or directory"),
        ("127.0.0.1:1,127.0.0.1:2", "(?i)connection refused"),
    ],
)
def test_a_server_out_of_reach_is_said_in_one_line(where: str, reason: str) -> None:
    with open_storage(f"postgresql://me:{CANARY}@{where}/crashes") as storage:
        for call in every_call(storage):
            with pytest.raises(StorageUnavailable, match=reason) as caught:
                call()
            assert "\n" not in str(caught.value)
            assert CANARY not in str(caught.value)


def test_a_server_that_stops_answering_ends_each_call_at_its_deadline(
    own_postgresql: PostgreSQL,
) -> None:
    uri = own_postgresql.uri(timeout="0.5", connect_timeout="2")

    def tried(call: Callable[[], object]) -> float:
        begun = time.monotonic()
        with pytest.raises(StorageUnavailable, match=r"no answer in time|timeout"):
            call()
        return time.monotonic() - begun

    with ExitStack() as stack:
        storages = [stack.enter_context(open_storage(uri)) for _ in range(10)]
        storages[0].save_crash(crash_of(contents()))
        calls = [every_call(each)[number] for number, each in enumerate(storages[:-1])]
        assert len(calls) == len(every_call(storages[0]))
        for storage in storages[:-1]:
            list(storage.new_crashes())  # so that a connection is kept
        own_postgresql.pause()
        # Of the last no connection is kept: it cannot even connect.
        with ThreadPoolExecutor(len(storages)) as pool:
            assert max(pool.map(tried, [*calls, storages[-1].verify_access])) < 5


def test_threads_do_not_wait_in_turn_for_a_server_that_stopped(
    own_postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    uri = own_postgresql.uri(timeout="2", connect_timeout="2")
    ids = [crashid.create() for _ in range(6)]
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents()))
        own_postgresql.pause()
        begun = time.monotonic()
        with ThreadPoolExecutor(len(ids)) as pool:
            results = list(pool.map(lambda i: storage.save_crashes([crash_of(contents(), i)]), ids))
        assert time.monotonic() - begun < 5
    assert all(isinstance(error, StorageUnavailable) for [error] in results)
    assert not caplog.records  # the driver does not say it once more


def test_the_time_to_connect_comes_from_the_environment_too(
    own_postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    own_postgresql.pause()
    begun = time.monotonic()
    with open_storage(own_postgresql.uri()) as storage, pytest.raises(StorageUnavailable):
        storage.verify_access()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "option",
    [
        "sslmode=nosuch",
        "connect_timeout=soon",
        "service=nosuch",
        "hostaddr=nosuch",
        "target_session_attrs=nosuch",
        "options=-c%20nosuch%3D1",
        "keepalives=maybe",
    ],
)
def test_an_option_that_libpq_does_not_understand_is_not_tried_again(
    postgresql_server: PostgreSQL, option: str
) -> None:
    uri = f"{postgresql_server.uri()}?{option}"
    with open_storage(uri) as storage, pytest.raises(StorageDenied) as caught:
        storage.verify_access()
    assert postgresql_server.password not in str(caught.value)


def test_a_server_that_stops_in_the_middle_of_a_body_is_said(own_postgresql: PostgreSQL) -> None:
    with open_storage(own_postgresql.uri(timeout="0.5")) as storage:
        storage.save_crash(crash_of(contents()))
        crash = storage.load_crash(CRASH_ID)
        own_postgresql.pause()
        with pytest.raises(StorageUnavailable, match="no answer in time"):
            crash.parts[0].read()


def test_a_statement_that_waits_for_a_lock_ends_at_its_deadline(
    postgresql_server: PostgreSQL, storage: CrashStorageBase
) -> None:
    schema = storage.schema  # type: ignore[attr-defined]
    with postgresql_server.connect() as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {schema}.crash_parts")
        with pytest.raises(StorageUnavailable, match="no answer in time"):
            storage.has_crash(CRASH_ID)
    assert storage.has_crash(CRASH_ID)


# Lost, and found again


def test_a_connection_that_the_server_ended_is_replaced(
    postgresql_server: PostgreSQL, storage: CrashStorageBase
) -> None:
    for call in (
        lambda: read(storage),
        lambda: storage.save_crash(crash_of(contents())),
        lambda: list(storage.new_crashes()),
    ):
        call()
        with postgresql_server.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid != pg_backend_pid() AND backend_type = 'client backend'"
            )
            query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            while connection.execute(query).fetchone() != (1,):
                time.sleep(0.01)
        call()


def test_a_server_that_was_restarted_is_found_again(own_postgresql: PostgreSQL) -> None:
    with open_storage(own_postgresql.uri()) as storage:
        storage.save_crash(crash_of(contents()))
        own_postgresql.stop()
        with pytest.raises(StorageUnavailable):
            storage.load_crash(CRASH_ID)
        own_postgresql.start()
        assert read(storage) == contents()


def test_a_server_that_starts_is_waited_for(own_postgresql: PostgreSQL) -> None:
    """A process that lost its server in the middle goes on when it is back."""
    with open_storage(own_postgresql.uri()) as storage:
        storage.save_crash(crash_of(contents()))
        own_postgresql.kill()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(RetryPolicy().call, lambda: read(storage))
            time.sleep(0.3)  # in which it tries, and fails
            own_postgresql.start()
            assert reading.result() == contents()


def test_a_copy_goes_on_where_the_server_stopped(own_postgresql: PostgreSQL) -> None:
    source = InMemoryCrashStorage()
    ids = [f"0bba{n:04x}-8721-460c-dead-a43c22071025" for n in range(200)]
    for crash_id in ids:
        source.save_crash(crash_of(contents(crash_id), crash_id))
    outcomes: list[Outcome] = []
    with open_storage(own_postgresql.uri()) as storage:
        storage.tuning = Tuning(batch=5)
        with pytest.raises(StorageUnavailable):
            for outcome in Mover(source, storage, retry=RetryPolicy(1)).run(ids):
                outcomes.append(outcome)
                if len(outcomes) == 20:
                    own_postgresql.kill()
        own_postgresql.start()
        copied = {outcome.crash_id for outcome in outcomes if outcome.status is Status.COPIED}
        assert 20 <= len(copied) < len(ids)
        assert copied <= set(storage.new_crashes())
        for outcome in Mover(source, storage).run(ids):
            assert outcome.status in (Status.COPIED, Status.SKIPPED)
        for crash_id in ids:
            assert read(storage, crash_id) == contents(crash_id)


# Lending


def test_a_connection_is_used_again(context: ConnectionContext) -> None:
    with context() as connection:
        first = number_of(connection)
    with context() as connection:
        assert number_of(connection) == first
        with context() as other:  # while the first is in use
            assert number_of(other) != first


def test_a_transaction_is_committed_or_rolled_back(context: ConnectionContext) -> None:
    with context() as connection:
        connection.execute("CREATE TEMPORARY TABLE seen (number int)")
    with context.transaction() as connection:
        connection.execute("INSERT INTO seen VALUES (1)")
    with pytest.raises(RuntimeError), context.transaction() as connection:
        connection.execute("INSERT INTO seen VALUES (2)")
        raise RuntimeError
    with context() as connection:
        assert connection.execute("SELECT number FROM seen").fetchall() == [(1,)]


def test_a_connection_left_in_the_middle_is_not_lent_again(context: ConnectionContext) -> None:
    with context() as connection:
        first = number_of(connection)
        connection.cursor().execute("BEGIN")
    with context() as connection:
        assert number_of(connection) != first


def test_what_goes_wrong_is_said_in_our_words(context: ConnectionContext) -> None:
    with pytest.raises(StorageError, match="division by zero") as caught, context(CRASH_ID) as c:
        c.execute("SELECT 1/0")
    assert caught.value.crash_id == CRASH_ID
    assert caught.value.uri == context.uri
    assert isinstance(caught.value.__cause__, psycopg.Error)
    with context() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("40001", StorageUnavailable),
        ("40P01", StorageUnavailable),
        ("53200", StorageUnavailable),
        ("53300", StorageUnavailable),
        ("55006", StorageUnavailable),
        ("57P05", StorageUnavailable),
        ("57P03", StorageUnavailable),
        ("08006", StorageUnavailable),
        ("55P03", StorageUnavailable),
        ("57014", StorageUnavailable),
        ("42501", StorageDenied),
        ("28000", StorageDenied),
        ("25006", StorageDenied),
        ("53100", StorageDenied),
        ("53400", StorageDenied),
    ],
)
def test_it_knows_what_can_be_tried_again(
    context: ConnectionContext, code: str, kind: type[StorageError]
) -> None:
    with pytest.raises(kind), context() as connection:
        connection.execute(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$")


@pytest.mark.parametrize("code", ["22012", "XX000", "58030"])
def test_what_is_neither_is_a_failure_of_the_crash(context: ConnectionContext, code: str) -> None:
    with pytest.raises(StorageError) as caught, context() as connection:
        connection.execute(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$")
    assert type(caught.value) is StorageError


def test_closing_closes_what_is_kept(postgresql_server: PostgreSQL) -> None:
    context = context_of(postgresql_server, application_name="closing")
    with context() as first, context() as second:
        numbers = [number_of(first), number_of(second)]
    context.close()
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
    with postgresql_server.connect() as connection:
        deadline = time.monotonic() + 5
        while connection.execute(query, (numbers,)).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_many_threads_share_a_context(context: ConnectionContext) -> None:
    def ask(number: int) -> object:
        with context() as connection:
            return connection.execute("SELECT %s", (number,)).fetchone()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == [(number,) for number in range(200)]


# URIs


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://", {}),
        ("postgresql:///crashes", {"dbname": "crashes"}),
        ("postgresql://me@h:5433/x", {"user": "me", "host": "h", "port": "5433", "dbname": "x"}),
        ("postgresql://me:p%40s%2F@h", {"user": "me", "password": "p@s/", "host": "h"}),
        ("postgresql://[::1]:5432/x", {"host": "::1", "port": "5432", "dbname": "x"}),
        ("postgresql://%2Frun%2Fpostgresql/x", {"host": "/run/postgresql", "dbname": "x"}),
        ("postgresql:///x?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "x"}),
        ("postgresql://a:1,b:2/x", {"host": "a,b", "port": "1,2", "dbname": "x"}),
        ("postgresql://a,b:2/x", {"host": "a,b", "port": ",2", "dbname": "x"}),
        ("postgresql://a%2Cb:2/x", {"host": "a,b", "port": ",2", "dbname": "x"}),
        ("postgresql://me@[::1]:1,b", {"user": "me", "host": "::1,b", "port": "1,"}),
        (
            "postgresql://h?sslmode=verify-full&target_session_attrs=read-write",
            {"host": "h", "sslmode": "verify-full", "target_session_attrs": "read-write"},
        ),
    ],
)
def test_every_uri_of_libpq_is_understood(uri: str, expected: dict[str, str]) -> None:
    parsed = StorageURI.parse(uri)
    assert conninfo_of(parsed, {"schema"}) == expected
    if "password" not in expected:
        assert conninfo_of(StorageURI.parse(str(parsed)), {"schema"}) == expected


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgresql://h/x?colour=red", "unknown option 'colour'; there are schema, timeout, and"),
        ("postgresql://h/x?dbname=y", "dbname is given twice"),
        ("postgresql://h:port/x", "its host or port is not one"),
        ("postgresql://a:1,b:c/x", "a host or a port is not one"),
        ("postgresql://h/x?schema=Crashes", "a schema's name is a-z"),
        ("postgresql://h/x?schema=a;b", "a schema's name is a-z"),
        ("postgresql://h/x?timeout=0", "timeout: it is a number of seconds"),
        ("postgresql://h/x?timeout=long", "timeout: it is a number of seconds"),
        (f"postgresql://me:a%00{CANARY}@h/x", "a character in it that no value can have"),
        ("postgresql://h/x?application_name=a%00b", "a character in it that no value can have"),
        (f"postgresql://me:a/{CANARY}@h/x", "write / ? and @ in a password|host or port"),
    ],
)
def test_a_bad_uri_is_a_usage_error_that_repeats_no_secret(uri: str, reason: str) -> None:
    with pytest.raises(InvalidURI, match=reason) as caught:
        open_storage(uri)
    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown.replace(uri, "")


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://me:{CANARY}@127.0.0.1:1/x",
        f"postgresql://127.0.0.1:1/x?password={CANARY}&user=me",
        f"postgresql://127.0.0.1:1/x?sslpassword={CANARY}",
        f"postgresql://127.0.0.1:1/x?scram_client_key={CANARY}",
        f"postgresql://me:{CANARY}@127.0.0.1:1,127.0.0.1:2/x",
    ],
)
def test_no_secret_is_shown(uri: str) -> None:
    storage = open_storage(uri)
    with pytest.raises(StorageUnavailable) as caught:
        storage.verify_access()
    shown = [str(storage.uri), repr(storage), str(caught.value), repr(caught.value)]
    shown += traceback.format_exception(caught.value)
    assert CANARY not in "".join(shown)


def test_a_password_file_is_read(
    postgresql_server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = postgresql_server
    file = tmp_path / "pgpass"
    file.write_text(f"{server.host}:{server.port}:*:{server.user}:{server.password}\n")
    file.chmod(0o600)
    uri = f"postgresql://{server.user}@{server.host}:{server.port}/postgres"
    with open_storage(f"{uri}?passfile={file}&schema=nothing") as storage:
        assert list(storage.new_crashes()) == []
    monkeypatch.setenv("PGPASSWORD", server.password)
    uri += "?passfile=/dev/null&schema=nothing"
    with open_storage(uri) as storage, pytest.raises(CrashIDNotFound):
        storage.load_crash(CRASH_ID)


def test_two_uris_of_one_database_are_one_store() -> None:
    same = ["postgresql://me@h/x", "postgresql://me:pw@h:5432/x", "postgres:///x?host=h&user=me"]
    assert len({open_storage(uri).identity() for uri in same}) == 1
    others = ["postgresql://me@h/y", "postgresql://me@h/x?schema=other", "postgresql://me@h:1/x"]
    assert len({open_storage(uri).identity() for uri in (same[0], *others)}) == 4


def test_older_versions_of_the_driver_have_strings_for_some_types() -> None:
    """psycopg 3.2.1 has, so no annotation may compute with them."""
    program = (
        "import psycopg.abc as abc; abc.Buffer = abc.Params = abc.Query = 'bytes | str';"
        " import crashmover.external.postgresql.crashstorage"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
