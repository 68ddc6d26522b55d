# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Access: whether the tables of a store can be read, saved to or made now; nothing is changed."""

from collections.abc import Sequence
from typing import LiteralString, NoReturn

from psycopg import errors, sql

from crashmover.errors import StorageDenied, StorageUnavailable
from crashmover.external.postgresql import schema
from crashmover.external.postgresql.connection_context import Connection, ConnectionContext
from crashmover.external.postgresql.poolers import DeadlineExceeded

_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on', pg_is_in_recovery()"
_MAY_SAVE = """
    SELECT bool_and(has_table_privilege(%s, privilege)) FROM unnest(%s::text[]) AS privilege
"""
_MAY_CREATE = """
    SELECT CASE WHEN EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)
        THEN has_schema_privilege(%s, 'CREATE')
        ELSE has_database_privilege(current_database(), 'CREATE') END
"""
_MAY_MAKE_PARTITIONS = "SELECT has_function_privilege(%s, 'EXECUTE')"
# These wait as a reader and a save would, and lock no partition.
_READ: LiteralString = "SELECT FROM {}.crash_parts WHERE false"
_LOCK: LiteralString = "LOCK TABLE ONLY {}.crash_parts IN ROW EXCLUSIVE MODE"


class Access:
    """Asks the server what a role may do in a schema, on a connection that is lent.

    :param context: of the database
    :param name: of the schema
    """

    def __init__(self, context: ConnectionContext, name: str) -> None:
        self._uri = context.uri
        self._name = name
        self._table = f"{schema.quoted(name)}.crash_parts"

    def require_writable(self, connection: Connection) -> None:
        """Raise `StorageDenied` if transactions are read-only."""
        row = connection.execute(_READ_ONLY).fetchone()
        is_read_only, is_standby = row or (False, False)
        if is_standby:
            self._deny(
                "the database is read-only: it is a standby; use its primary, which"
                " target_session_attrs=read-write finds among several hosts of a URI"
            )
        if is_read_only:
            self._deny(
                "the database is read-only: default_transaction_read_only is on for the role, the"
                " database, the server or the session; use a role that may write"
            )

    def require_rights(self, connection: Connection, *, write: bool) -> None:
        """Raise `StorageDenied` if a right is missing."""
        if not write:
            return  # the server says so itself when it is read
        if not _is_true(connection, _MAY_SAVE, (self._table, ["SELECT", "INSERT", "DELETE"])):
            self._deny(f"no right to SELECT, INSERT and DELETE in {self._table}")
        function = f"{schema.quoted(self._name)}.make_partition(date)"
        if not _is_true(connection, _MAY_MAKE_PARTITIONS, (function,)):
            self._deny(f"no right to EXECUTE {function}")

    def require_unlocked(self, connection: Connection, *, write: bool) -> None:
        """Raise `StorageUnavailable` if another session keeps the table locked."""
        statement = sql.SQL(_LOCK if write else _READ).format(sql.Identifier(self._name))
        try:
            with connection.transaction():
                connection.execute(statement)
        except (errors.LockNotAvailable, DeadlineExceeded) as error:
            raise StorageUnavailable(
                f"another session keeps {self._table} locked; pg_locks tells which", uri=self._uri
            ) from error

    def require_create(self, connection: Connection) -> None:
        """Raise `StorageDenied` if the tables cannot be made."""
        if not _is_true(connection, _MAY_CREATE, (self._name,) * 2):
            self._deny(
                f"there are no tables in the schema {self._name}, and no right to make them; let"
                " its owner run what"
                f" python -m crashmover.external.postgresql --schema {self._name} prints"
            )

    def _deny(self, reason: str) -> NoReturn:
        raise StorageDenied(reason, uri=self._uri)


def _is_true(connection: Connection, query: str, parameters: Sequence[object]) -> bool:
    row = connection.execute(query, parameters).fetchone()
    return bool(row and row[0])
