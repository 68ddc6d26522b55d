# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Into and out of PostgreSQL: against loops of bare statements, and against the two ends."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import LiteralString

from psycopg import sql

from tests.benchmarks.contest import OURS, Command, Contender, Results
from tests.benchmarks.corpus import Corpus, Manifest
from tests.benchmarks.fs import BARE_FILES, CP, and_sync, cp
from tests.benchmarks.measure import Argument, measure
from tests.benchmarks.report import Row, at_least, both_ends, slower_end
from tests.benchmarks.report import compare as row
from tests.benchmarks.s3 import PEERS, S5CMD, buckets
from tests.benchmarks.servers import DurablePostgreSQL
from tests.benchmarks.suite import Suite, compare, copy, files_are
from tests.servers.process import ServerProcess

INSERT, EXECUTEMANY, SELECT = "INSERT and commit", "executemany", "SELECT"
BARE = "SELECT and write"
_PEERS = Path(__file__).parent / "peers"
_LINE: list[Argument] = [sys.executable, _PEERS / "plain_psycopg.py"]

_TABLE: LiteralString = """
    CREATE SCHEMA {schema};
    CREATE TABLE {schema}.crash_parts (
        date_processed timestamptz NOT NULL,
        crash_id uuid NOT NULL,
        kind text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        chunk integer NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (crash_id, date_processed, kind, name, chunk)
    );
    ALTER TABLE {schema}.crash_parts ALTER COLUMN data SET STORAGE EXTERNAL;
"""
_DIGESTS: LiteralString = """
    SELECT crash_id::text, kind, name,
        encode(sha256(string_agg(data, ''::bytea ORDER BY chunk)), 'hex')
    FROM {schema}.crash_parts GROUP BY crash_id, kind, name
"""


def client_of(server: DurablePostgreSQL) -> dict[str, str]:
    """Return the environment of a client: the password is not for its command line."""
    return {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGDATABASE": "postgres",
        "PGPASSWORD": server.password,
    }


def uri_of(server: DurablePostgreSQL, schema: str, port: int | None = None) -> str:
    """Return the URI of a store, without the password.

    :param port: of a proxy before the server
    """
    place = f"{server.user}@{server.host}:{port or server.port}"
    return f"postgresql://{place}/postgres?schema={schema}"


def execute(server: DurablePostgreSQL, statement: LiteralString, schema: str = "") -> None:
    """Execute a statement."""
    with server.connect() as connection:
        connection.execute(sql.SQL(statement).format(schema=sql.Identifier(schema)))


def new_table(server: DurablePostgreSQL) -> str:
    """Make a table for a peer and return its schema."""
    schema = server.new_name()
    execute(server, _TABLE, schema)
    return schema


def rows_in(server: DurablePostgreSQL, schema: str) -> Manifest:
    """Return what a schema holds: the SHA-256 of each part."""
    query = sql.SQL(_DIGESTS).format(schema=sql.Identifier(schema))
    with server.connect() as connection:
        found = connection.execute(query).fetchall()
    return {f"{crash_id} {kind} {name}": digest for crash_id, kind, name, digest in found}


def rows_are(server: DurablePostgreSQL, schema: str, corpus: Corpus) -> Callable[[], None]:
    """Return the check that a schema holds these crashes and nothing else."""
    return partial(compare, partial(rows_in, server, schema), lambda: corpus.rows)


def ends(work: str, results: Results, names: tuple[str, str]) -> Iterator[Row]:
    """Return what our work is held against, where its two ends can be done alone."""
    yield slower_end(work, results, names, at_least(0.8))
    yield both_ends(work, results, names)


def filled_it(server: DurablePostgreSQL, schema: str, corpus: Corpus) -> Callable[[], None]:
    """As `rows_are`, of a schema that is not needed any more."""

    def check() -> None:
        rows_are(server, schema, corpus)()
        execute(server, "DROP SCHEMA {schema} CASCADE", schema)

    return check


# -- Writing -------------------------------------------------------------------------------


def writer(
    suite: Suite,
    corpus: Corpus,
    source: Argument,
    more: Mapping[str, str] = MappingProxyType({}),
    others: Sequence[ServerProcess] = (),
) -> Contender:
    """Return crashmover, copying into a schema that is not there yet.

    :param more: of the environment
    :param others: servers that it needs besides
    """
    return Contender(OURS, partial(write, suite, corpus, source, more, others))


def write(
    suite: Suite,
    corpus: Corpus,
    source: Argument,
    more: Mapping[str, str] = MappingProxyType({}),
    others: Sequence[ServerProcess] = (),
    away: int = 0,
) -> Command:
    """Return the turn of `writer`.

    :param away: milliseconds of a round trip to PostgreSQL
    """
    server = suite.postgresql
    schema = server.new_name()
    execute(server, "CHECKPOINT")  # so that none comes from what another has written
    line = copy(source, uri_of(server, schema, suite.port(server, away)))
    check = filled_it(server, schema, corpus)
    env = {**client_of(server), **more}
    return Command(line, corpus.count, check, env, servers=[server, *others])


def peer_writer(suite: Suite, corpus: Corpus, name: str, mode: str) -> Contender:
    """Return a loop that inserts the same crashes into a table of its own."""
    server = suite.postgresql

    def turn() -> Command:
        schema = new_table(server)
        execute(server, "CHECKPOINT")
        line = [*_LINE, mode, schema, corpus.root]
        check = filled_it(server, schema, corpus)
        return Command(line, corpus.count, check, client_of(server), servers=[server])

    return Contender(name, turn, sys.executable)


def fs_to_postgresql(suite: Suite) -> Iterator[Row]:
    """We and the loops read the same files."""
    corpus = suite.corpus(suite.sizes.postgresql)
    contenders = [
        writer(suite, corpus, corpus.root),
        peer_writer(suite, corpus, INSERT, "insert"),
        peer_writer(suite, corpus, EXECUTEMANY, "executemany"),
    ]
    results = suite.hold("fs -> PostgreSQL", contenders)
    yield row("fs -> PostgreSQL", results, INSERT, at_least(1.5))
    yield row("fs -> PostgreSQL", results, EXECUTEMANY, at_least(0.9))


def s3_to_postgresql(suite: Suite) -> Iterator[Row]:
    """We do at once what its two ends do alone."""
    corpus = suite.corpus(suite.sizes.postgresql)
    there = buckets(suite)
    bucket = there.filled(corpus)
    s5cmd = next(peer for peer in PEERS if peer.name == S5CMD)
    contenders = [
        writer(suite, corpus, suite.s3.uri(bucket), there.env, [suite.s3]),
        there.peer_reader(suite, s5cmd, bucket, corpus),
        peer_writer(suite, corpus, EXECUTEMANY, "executemany"),
    ]
    results = suite.hold("S3 -> PostgreSQL", contenders)
    yield from ends("S3 -> PostgreSQL", results, (S5CMD, EXECUTEMANY))


# -- Reading -------------------------------------------------------------------------------


def filled_schema(suite: Suite, corpus: Corpus) -> str:
    """Return a schema that we have put these crashes into, and that has been tidied up."""
    server = suite.postgresql
    schema = server.new_name()
    measure(copy(corpus.root, uri_of(server, schema)), client_of(server))
    rows_are(server, schema, corpus)()
    execute(server, "VACUUM (ANALYZE)")
    return schema


def postgresql_to_fs(suite: Suite) -> Iterator[Row]:
    """We do at once what its two ends do alone."""
    corpus, server = suite.corpus(suite.sizes.postgresql), suite.postgresql
    schema = filled_schema(suite, corpus)

    def turn(line: Callable[[Path], list[Argument]]) -> Command:
        target = suite.new_path()
        check = files_are(target, lambda: corpus.files)
        return Command(line(target), corpus.count, check, client_of(server), servers=[server])

    def select() -> Command:
        output = suite.new_path()
        line = [*_LINE, "select", schema]
        check = partial(check_sizes, output, corpus)
        return Command(line, corpus.count, check, client_of(server), output, servers=[server])

    def bare(target: Path) -> list[Argument]:
        return [*BARE_FILES, "postgresql", schema, target]

    contenders = [
        Contender(OURS, partial(turn, partial(copy, uri_of(server, schema)))),
        Contender(BARE, partial(turn, bare), sys.executable),
        Contender(SELECT, select, sys.executable),
        Contender(CP, partial(turn, partial(and_sync(cp), corpus.root)), "cp"),
    ]
    results = suite.hold("PostgreSQL -> fs", contenders)
    yield from ends("PostgreSQL -> fs", results, (SELECT, CP))
    yield row("PostgreSQL -> fs", results, BARE, at_least(0.95))


def check_sizes(output: Path, corpus: Corpus) -> None:
    """Raise `WrongBytes` unless the loop that drops what it reads has read it all."""
    found = {"crashes and bytes": output.read_text().strip()}
    compare(lambda: found, lambda: {"crashes and bytes": f"{corpus.count} {corpus.size}"})
