# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Whether two schemas are one, by what the servers say of themselves.

A running server is known by the moment of its start, to the microsecond, which every role may ask
for; in it a database has an oid, and in that a schema has a name.

What is removed from a primary goes from its standby, too.  The two have one system identifier,
which some roles may not read.  A standby that lags on purpose has what its primary has lost: it is
a source for a plain copy.  A restored or promoted copy of a cluster has the identifier of the
original, too, but both are primaries: two stores.  So the identifier alone proves nothing.

These are plain statements, one at a time: an advisory lock would need two connections at once,
which a pooler with one connection cannot give.
"""

from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple

from crashmover.errors import NotTwoStores
from crashmover.external.postgresql.connection_context import Connection, ConnectionContext
from crashmover.external.postgresql.schema import quoted

_SERVER: LiteralString = """
    SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,
        pg_is_in_recovery(),
        (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_MAY_ASK: LiteralString = """
    SELECT has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()')::oid, 'EXECUTE')
"""
_IDENTIFIER: LiteralString = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
_ELSEWHERE: LiteralString = """
    WITH RECURSIVE relations AS (
        SELECT to_regclass(%(table)s)::oid AS relation
        -- pg_partition_tree() would lock them all.
        UNION SELECT inhrelid FROM pg_inherits JOIN relations ON inhparent = relation
    )
    SELECT
        EXISTS (
            SELECT FROM relations JOIN pg_class ON oid = relation WHERE relkind NOT IN ('r', 'p')
        ),
        EXISTS (SELECT FROM relations JOIN pg_subscription_rel ON srrelid = relation)
"""


@dataclass(frozen=True)
class Origin:
    """Where a schema is.

    :param start: when its server was started, in microseconds
    :param is_standby: whether that is in recovery
    :param database: its oid
    :param schema: its name
    :param identifier: of the cluster; None where the role may not read it
    """

    start: str
    is_standby: bool
    database: int
    schema: str
    identifier: str | None


class Schema(NamedTuple):
    """A schema that can be asked where it is."""

    context: ConnectionContext
    name: str

    def origin(self) -> Origin:
        """Return where it is."""
        with self.context() as connection:
            start, is_standby, database = _row(connection, _SERVER)
            [may_ask] = _row(connection, _MAY_ASK)
            identifier = _row(connection, _IDENTIFIER)[0] if may_ask else None
        return Origin(start, is_standby, database, self.name, identifier)

    def require_own_rows(self, *, fed: bool) -> None:
        """Make sure that its rows are its own.

        :param fed: whether a subscription may feed the table
        :raises NotTwoStores: the table, or a partition, is a view or a foreign table, or is fed
        """
        table = f"{quoted(self.name)}.crash_parts"
        with self.context() as connection:
            is_foreign, is_fed = _row(connection, _ELSEWHERE, {"table": table})
        where = f"{table} in {self.context.uri}"
        if is_foreign:
            raise NotTwoStores(f"{where} has rows of a view or foreign table")
        if is_fed and not fed:
            raise NotTwoStores(f"{where} is fed by a subscription")


def is_same_schema(source: Schema, destination: Schema, *, rows: bool) -> bool:
    """Return whether two schemas are one.

    :param rows: also make sure that the rows in their tables are their own
    :raises StorageError: a server cannot be asked
    :raises NotTwoStores: what they say does not tell
    """
    before, origin, after = destination.origin(), source.origin(), destination.origin()
    if before != after:
        raise NotTwoStores("the destination's server was started again meanwhile; try again")
    if _is_same(origin, after):
        return True
    if rows:
        source.require_own_rows(fed=True)
        destination.require_own_rows(fed=False)
    return False


def _is_same(one: Origin, other: Origin) -> bool:
    if (one.database, one.schema) != (other.database, other.schema):
        return False
    identifiers = {one.identifier, other.identifier}
    if one.start == other.start and (len(identifiers) == 1 or None in identifiers):
        return True
    if not one.is_standby and not other.is_standby:
        return False
    if None in identifiers:
        raise NotTwoStores(
            "a server is a standby, and a role may not execute pg_control_system(), which tells"
            " whose standby it is"
        )
    if len(identifiers) == 1:
        raise NotTwoStores("one server is a standby of the other, and loses what the other loses")
    return False


def _row(
    connection: Connection, query: LiteralString, parameters: dict[str, str] | None = None
) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row
    return row
