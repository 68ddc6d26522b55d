# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Access: whether the tables of a store can be read, saved to or made now; nothing is changed."""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import errors, sql

from crashmover.errors import StorageDenied, StorageUnavailable
from crashmover.external.postgresql import schema
from crashmover.external.postgresql.connection_context import Connection
from crashmover.external.postgresql.pgerrors import DeadlineExceeded

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


def require_writable(connection: Connection, uri: str) -> None:
    """Raise `StorageDenied` if transactions are read-only."""
    row = connection.execute(_READ_ONLY).fetchone()
    is_read_only, is_standby = row or (False, False)
    if is_standby:
        raise StorageDenied(
            "the database is read-only: it is a standby; use its primary, which"
            " target_session_attrs=read-write finds among several hosts of a URI",
            uri=uri,
        )
    if is_read_only:
        raise StorageDenied(
            "the database is read-only: default_transaction_read_only is on for the role, the"
            " database, the server or the session; use a role that may write",
            uri=uri,
        )


def require_rights(connection: Connection, name: str, uri: str) -> None:
    """Raise `StorageDenied` if a right to save is missing; reading, the server says so itself.

    :param name: of the schema
    """
    table = f"{schema.quoted(name)}.crash_parts"
    if not _is_true(connection, _MAY_SAVE, (table, ["SELECT", "INSERT", "DELETE"])):
        raise StorageDenied(f"no right to SELECT, INSERT and DELETE in {table}", uri=uri)
    function = f"{schema.quoted(name)}.make_partition(date)"
    if not _is_true(connection, _MAY_MAKE_PARTITIONS, (function,)):
        raise StorageDenied(f"no right to EXECUTE {function}", uri=uri)


def require_unlocked(connection: Connection, name: str, uri: str, *, write: bool) -> None:
    """Raise `StorageUnavailable` if another session keeps the table locked.

    :param name: of the schema
    """
    statement = sql.SQL(_LOCK if write else _READ).format(sql.Identifier(name))
    try:
        with connection.transaction():
            connection.execute(statement)
    except (errors.LockNotAvailable, DeadlineExceeded) as error:
        table = f"{schema.quoted(name)}.crash_parts"
        reason = f"another session keeps {table} locked; pg_locks tells which"
        raise StorageUnavailable(reason, uri=uri) from error


def require_create(connection: Connection, name: str, uri: str) -> None:
    """Raise `StorageDenied` if the tables cannot be made.

    :param name: of the schema
    """
    if not _is_true(connection, _MAY_CREATE, (name, name)):
        raise StorageDenied(
            f"there are no tables in the schema {name}, and no right to make them; let its owner"
            f" run what {schema.PRINT} {name} prints",
            uri=uri,
        )


def _is_true(connection: Connection, query: str, parameters: Sequence[object]) -> bool:
    row = connection.execute(query, parameters).fetchone()
    return bool(row and row[0])
