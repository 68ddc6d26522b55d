# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Tables: the tables and partitions of a store, made when they are first needed."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import LiteralString, TypeVar
from uuid import UUID

from psycopg import sql

from crashmover import crashid
from crashmover.errors import StorageDenied
from crashmover.external.postgresql import schema
from crashmover.external.postgresql.connection_context import Connection, ConnectionContext
from crashmover.external.postgresql.pgerrors import MissingPartition, MissingTables

T = TypeVar("T")

_VERSION = "SELECT obj_description(to_regclass(%s), 'pg_class'), to_regclass(%s) IS NOT NULL"
_MAY_SAVE = """
    SELECT bool_and(has_table_privilege(%s, privilege)) FROM unnest(%s::text[]) AS privilege
"""
_MAY_CREATE = """
    SELECT CASE WHEN EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)
        THEN has_schema_privilege(%s, 'CREATE')
        ELSE has_database_privilege(current_database(), 'CREATE') END
"""
_MAY_MAKE_PARTITIONS = "SELECT has_function_privilege(%s, 'EXECUTE')"
_RISKS = """
    SELECT current_setting('fsync') = 'off', current_setting('full_page_writes') = 'off',
        (SELECT count(*) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = to_regclass(%s) AND relpersistence = 'u')
"""
_MAKE_PARTITION: LiteralString = "SELECT {}.make_partition(%s)"


def key_of(crash_id: str) -> tuple[UUID, dt.datetime]:
    """Return a crash's id and date as the table has them."""
    return UUID(crash_id), midnight_of(crashid.date_of(crash_id))


@lru_cache(maxsize=64)
def midnight_of(day: dt.date) -> dt.datetime:
    """Return when a day begins."""
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


class Tables:
    """The tables in a schema.  Safe for many threads.

    :param context: of the database
    :param name: of the schema
    """

    def __init__(self, context: ConnectionContext, name: str) -> None:
        self._context = context
        self._name = name
        self._table = f"{schema.quoted(name)}.crash_parts"
        self._weeks: set[dt.date] = set()
        self._are_made = False
        self._lock = Lock()
        self.sql = lru_cache(self._sql)

    def _sql(self, text: LiteralString) -> bytes:
        """Return a statement with the name of the schema in the place of ``{}``."""
        return sql.SQL(text).format(sql.Identifier(self._name)).as_bytes(None)

    def saving(self, days: set[dt.date], save: Callable[[], T]) -> T:
        """Return what `save` returns, once there are tables and partitions for these days.

        :raises StorageDenied: they are not there, and we may not make them
        """
        self._make(days)
        try:
            return save()
        except (MissingPartition, MissingTables):
            self.forget()  # somebody has dropped what was there
            self._make(days)
            return save()

    def forget(self) -> None:
        """Look again whether everything is there, before the next save."""
        with self._lock:
            self._are_made = False
            self._weeks.clear()

    def _make(self, days: set[dt.date]) -> None:
        weeks = {day - dt.timedelta(days=day.weekday()) for day in days}
        with self._lock:
            missing, are_made = weeks - self._weeks, self._are_made
        if are_made and not missing:
            return
        # Not under the lock: when the server hangs, all threads wait at once, not in turn.
        with self._context() as connection:
            self._make_missing(connection, missing, are_made)
        with self._lock:
            self._are_made = True
            self._weeks |= missing

    def make_on(self, connection: Connection, day: dt.date) -> None:
        """Make what is missing for a day in the transaction that this connection is in, which may
        be rolled back: so nothing is remembered of it.

        :raises StorageDenied: as `saving`
        """
        self._make_missing(connection, {day - dt.timedelta(days=day.weekday())}, False)

    def _make_missing(self, connection: Connection, weeks: set[dt.date], are_made: bool) -> None:
        if not are_made and not self._are_there(connection):
            self._create(connection)
        # In a transaction of ours: with a snapshot from before it waited, as serializable has it,
        # the function would not see the partition that another process has just made.
        with connection.transaction():
            for week in sorted(weeks):
                connection.execute(self.sql(_MAKE_PARTITION), (week,))

    def _create(self, connection: Connection) -> None:
        try:
            with self._context.translating(), connection.transaction():
                connection.run_script(schema.statements(self._name))
        except StorageDenied as error:
            raise StorageDenied(
                f"its tables cannot be made in the schema {self._name}: {error.reason}; name"
                " another with ?schema=, or let its owner run what"
                f" python -m crashmover.external.postgresql --schema {self._name} prints",
                uri=self._context.uri,
            ) from error

    def _are_there(self, connection: Connection) -> bool:
        version, is_there = self._version(connection)
        if is_there and version is None:
            # Its name is seen as soon as it is there, and its comment by the next question.
            version, is_there = self._version(connection)
        if is_there and version != schema.VERSION:
            reason = f"the table {self._table} is not of this version of crashmover"
            raise StorageDenied(reason, uri=self._context.uri)
        return bool(is_there)

    def _version(self, connection: Connection) -> tuple[str | None, bool]:
        row = connection.execute(_VERSION, (self._table, self._table)).fetchone()
        return row or (None, False)

    def verify(self, *, write: bool) -> None:
        """Make sure that they can be read, or saved to; change nothing.

        :raises StorageDenied: they cannot
        """
        with self._context() as connection:
            if self._are_there(connection):
                if write:
                    self._verify_rights(connection)
            elif not write:
                raise StorageDenied(
                    f"there are no tables of crashmover in the schema {self._name}",
                    uri=self._context.uri,
                )
            elif not _is_true(connection, _MAY_CREATE, (self._name,) * 2):
                self._create_is_denied()

    def durability_risks(self) -> Iterator[str]:
        """Yield why what is saved may be lost when the server, or its machine, fails.

        :raises StorageError: the server does not answer
        """
        with self._context() as connection:
            row = connection.execute(_RISKS, (self._table,)).fetchone()
        without_fsync, without_pages, unlogged = row or (False, False, 0)
        if without_fsync:
            yield "the server runs with fsync=off, and a power failure may lose everything"
        if without_pages:
            yield "the server runs with full_page_writes=off, and a power failure may damage rows"
        if unlogged:
            partitions = f"{unlogged} unlogged partition{'s' * (unlogged > 1)}"
            yield f"a crash of the server empties {partitions}"

    def _verify_rights(self, connection: Connection) -> None:
        if _is_true(connection, "SELECT current_setting('transaction_read_only') = 'on'", ()):
            raise StorageDenied("the database is read-only", uri=self._context.uri)
        if not _is_true(connection, _MAY_SAVE, (self._table, ["SELECT", "INSERT", "DELETE"])):
            reason = f"no right to SELECT, INSERT and DELETE in {self._table}"
            raise StorageDenied(reason, uri=self._context.uri)
        function = f"{schema.quoted(self._name)}.make_partition(date)"
        if not _is_true(connection, _MAY_MAKE_PARTITIONS, (function,)):
            raise StorageDenied(f"no right to EXECUTE {function}", uri=self._context.uri)

    def _create_is_denied(self) -> None:
        raise StorageDenied(
            f"there are no tables in the schema {self._name}, and no right to make them; let its"
            f" owner run what python -m crashmover.external.postgresql --schema {self._name}"
            " prints",
            uri=self._context.uri,
        )


def _is_true(connection: Connection, query: str, parameters: Sequence[object]) -> bool:
    row = connection.execute(query, parameters).fetchone()
    return bool(row and row[0])
