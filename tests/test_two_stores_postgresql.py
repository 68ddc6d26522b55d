# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""No schema is moved onto itself, by whatever address; and two that are two are moved."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql

from crashmover import registry
from crashmover.errors import NotTwoStores
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing import DistinctConformance
from tests.cli_helpers import assert_refused, put, run, run_process, samples
from tests.conftest import Figures, missing, wanted
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import MissingServer

CRASHES = samples(6)
MOVE = ("--verify", "--remove-source")
WAYS = (
    MOVE,
    (*MOVE, "--dry-run"),
    ("--existing", "compare", "--remove-source"),
    ("--existing", "overwrite", "--remove-source"),
    ("--existing", "overwrite"),
    (),
)


def _has_ipv6() -> bool:
    """Return True if the loopback interface has an address of IPv6: not every container's does."""
    try:
        with socket.socket(socket.AF_INET6) as listening:
            listening.bind(("::1", 0))
    except OSError:
        return False
    return True


SIXTH = ["[::1]"] if _has_ipv6() else []


class EverywherePostgreSQL(PostgreSQL):
    """A server at both addresses of the machine and at a socket.

    :param copied: a server that is stopped, whose data this one begins with
    :param standby: whether to go on as that server's standby
    """

    def __init__(self, copied: PostgreSQL | None = None, *, standby: bool = False) -> None:
        super().__init__(copied=copied)
        self._standby = standby

    def prepare(self) -> None:
        super().prepare()
        rules = self._data / "pg_hba.conf"
        rules.write_text(rules.read_text().replace("reject", "scram-sha-256"))
        if self._standby:
            (self._data / "standby.signal").touch()

    def command(self) -> list[str | Path]:
        return [*super().command(), f"--listen_addresses=127.0.0.1{',::1' if SIXTH else ''}"]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[EverywherePostgreSQL]:
    wanted(request, "postgresql")
    with EverywherePostgreSQL() as server:
        yield server


def at(uri: str, host: str) -> str:
    """The same URI with another host."""
    return uri.replace("@127.0.0.1:", f"@{host}:")


def names_of(server: EverywherePostgreSQL, schema: str) -> list[str]:
    """What one schema is called."""
    uri = server.uri(schema=schema)
    by_socket = f"{at(uri, '').replace(f':{server.port}/', '/')}&host={server.directory}&port="
    return [
        uri,
        at(uri, "localhost"),
        at(uri, "LOCALHOST"),
        *(at(uri, host) for host in SIXTH),
        at(uri, "127.1"),
        f"{by_socket}{server.port}",
        f"{uri}&hostaddr=127.0.0.1",
        at(uri, "localhost") + "&application_name=mover",
    ]


def fill(tmp_path: Path, uri: str) -> str:
    """Copy the crashes there; return the URI."""
    assert run("copy", "-s", put(tmp_path / "crashes", *CRASHES), "-d", uri).exit_code == 0
    return uri


def rows(server: PostgreSQL, schema: str, database: str = "postgres") -> list[tuple[object, ...]]:
    with server.connect(database) as connection:
        query = sql.SQL("SELECT *, xmin::text FROM {}.crash_parts ORDER BY 1, 2, 3, 4, 5")
        return connection.execute(query.format(sql.Identifier(schema))).fetchall()


def test_a_schema_is_not_moved_onto_itself_by_any_address(
    server: EverywherePostgreSQL, tmp_path: Path, figures: Figures
) -> None:
    schema = server.new_name()
    source, *others = names_of(server, schema)
    fill(tmp_path, source)
    before = rows(server, schema)
    refused = 0
    for name in others:
        for options in WAYS:
            assert_refused(run("copy", "-s", source, "-d", name, *options), 2, "the same store")
            refused += 1
        assert_refused(run("check", "-s", name, "-d", source), 2, "the same store", "--digest")
        assert run("check", "-s", name, "-d", source, "--digest").exit_code == 0
    several = ("-d", tmp_path / "elsewhere", "-d", others[0])
    assert_refused(run("copy", "-s", source, *several, *MOVE), 2, "the same store")
    assert not (tmp_path / "elsewhere").exists()
    assert rows(server, schema) == before
    figures(moves_refused=refused, crashes_lost=0)


def test_schemas_databases_and_servers_that_are_two_are_moved(
    server: EverywherePostgreSQL, postgresql_server: PostgreSQL, tmp_path: Path, figures: Figures
) -> None:
    schema, database = server.new_name(), server.new_database()
    places = [
        server.uri(schema=server.new_name()),
        at(server.uri(database, schema=schema), "localhost"),
        postgresql_server.uri(schema=schema),
        server.uri(schema=schema),
    ]
    source = fill(tmp_path, places[-1])
    moved = 0
    for destination in places:
        if destination != source:
            done = run("copy", "-s", source, "-d", destination, *MOVE)
            assert (done.exit_code, f"copied {len(CRASHES)}" in done.stderr) == (0, True)
            assert run("list", "-s", source).stdout == ""
            source, moved = destination, moved + len(CRASHES)
    figures(crashes_moved=moved)


@contextmanager
def role(server: PostgreSQL, schema: str, *, hidden: bool) -> Iterator[str]:
    """Make a role that may save to a schema and no more; give the URI with it.

    :param hidden: whether nobody but the owner may read the system identifier meanwhile
    """
    name = server.new_name()
    grants = [
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA {schema} TO {name}",
        f"GRANT SELECT, INSERT, DELETE ON {schema}.crash_parts TO {name}",
        f"GRANT EXECUTE ON FUNCTION {schema}.make_partition(date) TO {name}",
    ]
    function = "EXECUTE ON FUNCTION pg_control_system() {} PUBLIC"
    with server.connect() as connection:
        for grant in grants:
            connection.execute(grant.encode())
        if hidden:
            connection.execute(f"REVOKE {function.format('FROM')}".encode())
    try:
        yield server.uri(schema=schema).replace(
            f"{server.user}:{server.password}@", f"{name}:secret@"
        )
    finally:
        with server.connect() as connection:
            connection.execute(f"GRANT {function.format('TO')}".encode())


@pytest.mark.parametrize("hidden", [False, True])
def test_a_role_with_the_rights_to_save_and_no_more_proves_it(
    server: EverywherePostgreSQL, tmp_path: Path, hidden: bool
) -> None:
    schema, another = server.new_name(), server.new_name()
    source = fill(tmp_path, server.uri(schema=schema))
    fill(tmp_path, server.uri(schema=another))
    before = rows(server, schema)
    with role(server, schema, hidden=hidden) as uri:
        for name in (source, *(at(uri, host) for host in ("localhost", *SIXTH))):
            assert_refused(run("copy", "-s", uri, "-d", name, *MOVE), 2, "the same store")
        assert rows(server, schema) == before
        done = run("copy", "-s", uri, "-d", server.uri(schema=another), *MOVE)
        assert (done.exit_code, rows(server, schema)) == (0, [])
        assert f"all {len(CRASHES)} crashes were in the destination already" in done.stderr


def repair(primary: PostgreSQL, schema: str, source: str, standby: str) -> None:
    """Copy crashes back that the primary has lost and its standby, which lags, still has."""
    before = rows(primary, schema)
    with primary.connect() as connection:
        connection.execute(f"TRUNCATE {schema}.crash_parts".encode())
    assert run("check", "-s", standby, "-d", source).exit_code == 1
    assert run("copy", "-s", standby, "-d", source, "--verify").exit_code == 0
    assert [row[:-1] for row in rows(primary, schema)] == [row[:-1] for row in before]
    assert run("check", "-s", standby, "-d", source).exit_code == 0


@pytest.mark.parametrize("standby", [True, False])
def test_a_standby_is_its_primary_and_a_restored_copy_is_not(
    request: pytest.FixtureRequest, tmp_path: Path, standby: bool
) -> None:
    wanted(request, "postgresql")
    with EverywherePostgreSQL() as primary:
        schema = primary.new_name()
        source = fill(tmp_path, primary.uri(schema=schema))
        primary.stop()
        with EverywherePostgreSQL(primary, standby=standby) as copied:
            primary.start()
            there = copied.uri(schema=schema)
            done = run("copy", "-s", there, "-d", source, "--existing", "compare")
            assert done.exit_code == 0
            if standby:
                for more in ((), ("--dry-run",)):
                    for one, other in ((there, source), (source, there)):
                        done = run("copy", "-s", one, "-d", other, *MOVE, *more)
                        assert_refused(done, 4, "read-only")
                with (
                    registry.open_storage(there) as lagging,
                    registry.open_storage(source) as leading,
                    pytest.raises(NotTwoStores, match="standby of the other"),
                ):
                    lagging.is_same_store(leading, probe=True)
                repair(primary, schema, source, there)
                return
            assert run("copy", "-s", there, "-d", source, *MOVE).exit_code == 0
            assert len(run("list", "-s", source).stdout.split()) == len(CRASHES)


def test_a_view_of_the_source_is_not_a_destination(
    server: EverywherePostgreSQL, tmp_path: Path
) -> None:
    """The rows that it shows are those that would be removed."""
    schema, other = server.new_name(), server.new_name()
    source = fill(tmp_path, server.uri(schema=schema))
    fill(tmp_path, server.uri(schema=other))
    with server.connect() as connection:
        for text in (
            f"DROP TABLE {other}.crash_parts CASCADE",
            f"CREATE VIEW {other}.crash_parts AS SELECT * FROM {schema}.crash_parts",
            f"COMMENT ON VIEW {other}.crash_parts IS 'crashmover schema 1'",
        ):
            connection.execute(text.encode())
    before = rows(server, schema)
    done = run("copy", "-s", source, "-d", server.uri(schema=other), *MOVE)
    assert_refused(done, 2, "cannot be proved", "view or foreign table", "nothing was copied")
    assert rows(server, schema) == before


def test_a_server_that_is_away_is_said_and_nothing_is_removed(
    server: EverywherePostgreSQL, own_postgresql: PostgreSQL, tmp_path: Path
) -> None:
    schema = server.new_name()
    source = fill(tmp_path, server.uri(schema=schema))
    before = rows(server, schema)
    away = f"{own_postgresql.uri(schema=schema)}&timeout=1"
    own_postgresql.stop()
    assert_refused(run("copy", "-s", source, "-d", away, *MOVE), 4, "refused")
    assert rows(server, schema) == before


@pytest.fixture
def pooler(request: pytest.FixtureRequest, server: EverywherePostgreSQL) -> Iterator[PgBouncer]:
    wanted(request, "pgbouncer")
    try:
        with PgBouncer(server, pool_size=1) as pooler:
            yield pooler
    except MissingServer as error:
        missing("pgbouncer", error)


@pytest.mark.slow
def test_a_pooler_is_the_server_behind_it(
    server: EverywherePostgreSQL, pooler: PgBouncer, tmp_path: Path
) -> None:
    """With one connection for all: the proof never needs two at once."""
    schema = server.new_name()
    direct = fill(tmp_path, server.uri(schema=schema))
    before = rows(server, schema)
    pooled = pooler.uri(schema=schema)
    for source, destination in (
        (direct, pooled),
        (pooled, direct),
        (pooled, f"{pooled}&timeout=9"),
    ):
        for options in (MOVE, ()):
            done = run_process("copy", "-s", source, "-d", destination, *options)
            assert (done.returncode, b"the same store" in done.stderr) == (2, True), done.stderr
    assert rows(server, schema) == before


class TestPostgreSQL(DistinctConformance):
    @pytest.fixture
    def schema(self, server: EverywherePostgreSQL) -> str:
        return server.new_name()

    @pytest.fixture
    def storage(self, server: EverywherePostgreSQL, schema: str) -> Iterator[CrashStorageBase]:
        with registry.open_storage(server.uri(schema=schema)) as storage:
            yield storage

    @pytest.fixture(params=["localhost", *SIXTH])
    def same_storage(
        self, server: EverywherePostgreSQL, schema: str, request: pytest.FixtureRequest
    ) -> Iterator[CrashStorageBase]:
        with registry.open_storage(at(server.uri(schema=schema), request.param)) as storage:
            yield storage

    @pytest.fixture
    def other_storage(self, server: EverywherePostgreSQL) -> Iterator[CrashStorageBase]:
        with registry.open_storage(server.uri(schema=server.new_name())) as storage:
            yield storage
