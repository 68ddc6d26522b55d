# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQL behind PgBouncer: a server connection that another client had before and has after."""

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest

from crashmover.crash import Crash
from crashmover.errors import StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.postgresql import pgerrors
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy
from crashmover.testing import CRASH_ID, StorageConformance, contents, crash_of, read
from tests.cli_helpers import put, run, run_process, samples
from tests.conftest import Figures, missing, wanted
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import MissingServer
from tests.store_helpers import every_call

PoolerOf = Callable[..., AbstractContextManager[PgBouncer]]

OTHER = f"1{CRASH_ID[1:]}"
STATE = re.compile(  # what would outlive a transaction, or be found by a name
    r"(?i)execute (?!<unnamed>)\w+:|\bSET (?!LOCAL|TRANSACTION)\w+ *(=|TO\b)|\bLISTEN\b|WITH HOLD"
    r"|\bTEMP(ORARY)?\b|\bpg_(try_)?advisory_lock\b|\bPREPARE\b|\bDEALLOCATE\b|\bDISCARD\b"
)


@pytest.fixture
def pooler_of(request: pytest.FixtureRequest) -> PoolerOf:
    """Start a pooler before a server."""
    wanted(request, "pgbouncer")

    @contextmanager
    def start(
        server: PostgreSQL, pool_size: int, mode: str = "transaction", **settings: str | int
    ) -> Iterator[PgBouncer]:
        try:
            pooler = PgBouncer(server, pool_size, mode, **settings)
        except MissingServer as error:
            missing("pgbouncer", error)
        with pooler:
            yield pooler

    return start


class Holder:
    """Another client of the pool, in a transaction: it has one of the server connections."""

    def __init__(self, uri: str) -> None:
        self._connection = psycopg.connect(uri, prepare_threshold=None)
        self._connection.execute("SELECT 1")

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()


# Without a pooler


def test_no_statement_leaves_anything_in_the_session(
    own_postgresql: PostgreSQL, figures: Figures
) -> None:
    """As the log of the server has them: each has no name, and sets nothing for the session."""
    with own_postgresql.connect() as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
    with open_storage(own_postgresql.uri()) as storage:
        storage.clock()
        storage.identity()
        storage.is_same_store(storage, probe=True)
        list(storage.durability_risks())
        for _ in range(3):  # psycopg prepares what it has executed before
            storage.save_crashes([crash_of(contents(), each) for each in (CRASH_ID, OTHER)])
            storage.create_crashes([crash_of(contents())])
            raw_crash = crash_of(contents()).raw_crash
            assert raw_crash
            storage.save_keeping_dumps(Crash(CRASH_ID, [raw_crash]))
            loaded = list(storage.load_crashes([CRASH_ID, OTHER]))
            for crash in loaded:
                assert not isinstance(crash, Exception)
                assert all(part.read() for part in crash.parts)
                storage.remove_loaded(crash)
            for call in every_call(storage):
                storage.save_crash(crash_of(contents()))
                call()
    log = (own_postgresql.directory / "log").read_text()
    statements = [line for line in log.splitlines() if re.search("LOG:  (statement|execute)", line)]
    ours = [line for line in statements if "ALTER SYSTEM" not in line]
    assert len(ours) > 100
    assert [line for line in ours if STATE.search(line)] == []
    figures(statements=len(ours), named=0)


# Behind one


@pytest.mark.slow
class TestTransactionMode(StorageConformance):
    @pytest.fixture
    def storage(
        self, postgresql_server: PostgreSQL, pooler_of: PoolerOf
    ) -> Iterator[CrashStorageBase]:
        with (
            pooler_of(postgresql_server, 3) as pooler,
            open_storage(pooler.uri(schema=postgresql_server.new_name())) as storage,
        ):
            yield storage


@pytest.mark.slow
class TestSessionMode(StorageConformance):
    @pytest.fixture
    def storage(
        self, postgresql_server: PostgreSQL, pooler_of: PoolerOf
    ) -> Iterator[CrashStorageBase]:
        with (
            pooler_of(postgresql_server, 10, "session") as pooler,
            open_storage(pooler.uri(schema=postgresql_server.new_name())) as storage,
        ):
            yield storage


@pytest.mark.slow
def test_reading_does_not_delete(
    postgresql_server: PostgreSQL, pooler_of: PoolerOf, figures: Figures
) -> None:
    """A writer and a reader have each of two server connections in turn.  Were their statements
    prepared, by numbers, the reader would execute the writer's."""
    schema = postgresql_server.new_name()
    kept = [f"{n:08x}{CRASH_ID[8:]}" for n in range(2, 20)]
    reads = 0
    with (
        pooler_of(postgresql_server, 2) as pooler,
        open_storage(postgresql_server.uri(schema=schema)) as direct,
        open_storage(pooler.uri(schema=schema)) as writer,
        open_storage(pooler.uri(schema=schema)) as reader,
    ):
        direct.save_crashes([crash_of(contents(), each) for each in kept])
        for turn in range(10):
            with Holder(pooler.uri()):
                for _ in range(turn % 3):
                    writer.save_crash(crash_of(contents(), OTHER))
            for crash_id in kept:
                with Holder(pooler.uri()):
                    assert reader.has_crash(crash_id)
                    assert read(reader, crash_id) == contents()
                    reads += 1
        assert set(direct.new_crashes()) == {*kept, OTHER}
        assert all(read(direct, crash_id) == contents() for crash_id in kept)
    figures(read=reads, deleted=0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_copies_into_two_schemas_race(
    postgresql_server: PostgreSQL, pooler_of: PoolerOf, tmp_path: Path, mode: str, figures: Figures
) -> None:
    """Their statements have the same text, but for the name of the schema."""
    crashes = samples(160)
    copied = 0
    with pooler_of(postgresql_server, 12, mode) as pooler:
        for turn in range(3):
            schemas = [postgresql_server.new_name() for _ in range(2)]
            sources = [tmp_path / f"{turn}-{number}" for number in range(2)]
            halves = [crashes[:100], crashes[60:]]
            for source, half in zip(sources, halves, strict=True):
                put(source, *half)
            uris = [pooler.uri(schema=schema) for schema in schemas]
            more = [[], ["--verify"], ["--verify", "--remove-source"]][turn]
            lines = [
                ["copy", "-s", os.fspath(source), "-d", uri, *more]
                for source, uri in zip(sources, uris, strict=True)
            ]
            with ThreadPoolExecutor(2) as pool:
                done = list(pool.map(lambda line: run_process(*line), lines))
            assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
            for schema, half, uri, source in zip(schemas, halves, uris, sources, strict=True):
                with open_storage(postgresql_server.uri(schema=schema)) as storage:
                    assert set(storage.new_crashes()) == {each.crash_id for each in half}
                put(source, *half)
                done = [run_process("check", "-s", os.fspath(source), "-d", uri, "--digest")]
                assert done[0].returncode == 0, done[0].stderr
                copied += len(half)
            days = ("--since", "2026-11-16", "--until", "2026-11-22", "--yes")
            ended = run_process("remove", "-s", uris[0], *days)
            assert ended.returncode == 0, ended.stderr
            assert run("list", "-s", postgresql_server.uri(schema=schemas[0])).stdout == ""
            listed = run("list", "-s", postgresql_server.uri(schema=schemas[1])).stdout
            assert len(listed.split()) == len(halves[1])
    figures(copied=copied, elsewhere=0, lost=0)


@pytest.mark.slow
def test_a_pooler_in_statement_mode_ends_every_command_in_one_line(
    postgresql_server: PostgreSQL, pooler_of: PoolerOf, tmp_path: Path, figures: Figures
) -> None:
    schema = postgresql_server.new_name()
    crashes = samples(60)
    source, direct = put(tmp_path / "source", *crashes), postgresql_server.uri(schema=schema)
    assert run("copy", "-s", source, "-d", direct, "--limit", "30").exit_code == 0
    ended = 0
    with pooler_of(postgresql_server, 4, "statement") as pooler:
        uri = pooler.uri(schema=schema)
        days = ("--since", "2026-11-16", "--until", "2026-11-22")
        for line in (
            ["copy", "-s", source, "-d", uri],
            ["copy", "-s", uri, "-d", tmp_path / "out", *days],
            ["copy", "-s", source, "-d", uri, "--verify", "--remove-source"],
            ["check", "-s", source, "-d", uri],
            ["remove", "-s", uri, *days, "--yes"],
            ["doctor", "-d", uri],
        ):
            done = run_process(*line)
            said = (done.stdout if line[0] == "doctor" else done.stderr).decode()
            about = [each for each in said.splitlines() if "statement pooling mode" in each]
            assert done.returncode == 4, (line, said)
            assert len(about) == 1, (line, said)
            assert "pool_mode = transaction or session" in about[0]
            assert len(said.splitlines()) == 1 or line[0] == "doctor"
            ended += 1
    with open_storage(direct) as storage:
        assert len(list(storage.new_crashes())) == 30
    figures(commands=ended)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["URI", "PGOPTIONS"])
def test_a_startup_parameter_that_a_pooler_refuses_is_said_with_a_way_out(
    postgresql_server: PostgreSQL, pooler_of: PoolerOf, tmp_path: Path, by: str
) -> None:
    source = put(tmp_path, *samples(5))
    option = "-c statement_timeout=9000"
    with pooler_of(postgresql_server, 4) as pooler:
        if by == "URI":
            done = run_process("copy", "-s", source, "-d", pooler.uri(options=option))
        else:
            done = run_process("copy", "-s", source, "-d", pooler.uri(), PGOPTIONS=option)
    said = done.stderr.decode()
    assert (done.returncode, len(said.splitlines())) == (4, 1), said
    assert "unsupported startup parameter: options" in said
    assert "ignore_startup_parameters" in said


def test_what_a_pooler_refuses_is_known_by_its_words() -> None:
    """Not all were seen: PgBouncer 1.18 says the first and the third."""
    for code, text in (
        ("", "unsupported startup parameter: options"),
        ("08P01", "unsupported startup parameter in options: search_path"),
        ("08P01", "transaction blocks not allowed in statement pooling mode"),
        ("26000", 'prepared statement "x" does not exist'),
        ("42P05", 'prepared statement "x" already exists'),
    ):
        assert pgerrors.advice(code, text), text
    for code, text in (("08P01", "query_wait_timeout"), ("", "no more connections allowed")):
        assert pgerrors.advice(code, text) is None


@pytest.mark.slow
def test_what_passes_is_tried_again_behind_a_pooler(
    own_postgresql: PostgreSQL, pooler_of: PoolerOf
) -> None:
    """It is full for a moment, or the server is away for a moment."""
    with (
        pooler_of(own_postgresql, 1, query_wait_timeout=1, server_login_retry=1) as pooler,
        open_storage(pooler.uri(timeout="5")) as storage,
    ):
        storage.save_crash(crash_of(contents()))
        with Holder(pooler.uri()):
            for call in every_call(storage):
                with pytest.raises(StorageUnavailable, match="query_wait_timeout"):
                    call()
        assert read(storage) == contents()
        own_postgresql.stop()
        with pytest.raises(StorageUnavailable) as caught:
            read(storage)
        assert "\n" not in str(caught.value)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(RetryPolicy().call, lambda: read(storage))
            time.sleep(0.5)
            own_postgresql.start()
            assert reading.result() == contents()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_threads_wait_for_each_other_where_the_pool_is_small(
    postgresql_server: PostgreSQL, pooler_of: PoolerOf, mode: str, figures: Figures
) -> None:
    ids = [f"{n:08x}{CRASH_ID[8:]}" for n in range(200)]

    def use(crash_id: str) -> None:
        storage.save_crash(crash_of(contents(), crash_id))
        assert storage.has_crash(crash_id)
        assert read(storage, crash_id) == contents()

    with (
        pooler_of(postgresql_server, 4, mode) as pooler,
        open_storage(pooler.uri(schema=postgresql_server.new_name())) as storage,
        ThreadPoolExecutor(16) as pool,
    ):
        begun = time.monotonic()
        list(pool.map(use, ids))
        assert time.monotonic() - begun < 20
        assert list(storage.new_crashes()) == ids
    figures(saved=len(ids), failed=0)


def test_threads_wait_for_each_other_where_the_server_is_full(
    postgresql_server: PostgreSQL,
) -> None:
    """A role with a limit stands for a server whose connections are all used."""
    role = postgresql_server.new_name()
    schema = postgresql_server.new_name()
    with postgresql_server.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw' CONNECTION LIMIT 3".encode())
        connection.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}".encode())
    own = f"{postgresql_server.user}:{postgresql_server.password}@"
    ids = [f"{n:08x}{CRASH_ID[8:]}" for n in range(60)]
    uri = postgresql_server.uri(schema=schema).replace(own, f"{role}:pw@")
    with open_storage(uri) as storage, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda each: storage.save_crash(crash_of(contents(), each)), ids))
        assert list(storage.new_crashes()) == ids


@pytest.mark.slow
def test_a_pool_without_a_connection_left_is_named_as_the_likely_cause(
    postgresql_server: PostgreSQL, pooler_of: PoolerOf, tmp_path: Path
) -> None:
    """Another process keeps the only one; threads of one process would wait for each other."""
    source = put(tmp_path, *samples(3))
    with pooler_of(postgresql_server, 1, "session") as pooler, Holder(pooler.uri()):
        uri = pooler.uri(schema=postgresql_server.new_name(), timeout="1")
        with open_storage(uri) as storage:
            for call in every_call(storage):
                with pytest.raises(StorageUnavailable, match="a pooler may have too few"):
                    call()
        done = run_process("copy", "-s", source, "-d", uri)
    said = done.stderr.decode()
    assert (done.returncode, len(said.splitlines())) == (4, 1), said
    assert "a pooler may have too few" in said
