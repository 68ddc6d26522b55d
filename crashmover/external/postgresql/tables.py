# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Tables: the tables and partitions of a store, made when they are first needed."""

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import LiteralString
from uuid import UUID

from psycopg import errors, sql

from crashmover import crashid
from crashmover.errors import StorageDenied
from crashmover.external.postgresql import access, diagnosis, schema
from crashmover.external.postgresql.connection_context import Connection, ConnectionContext
from crashmover.external.postgresql.pgerrors import (
    MissingPartition,
    MissingTables,
    ServerExhausted,
    ServerFull,
    TablesRefused,
    WeekRefused,
)
from crashmover.external.postgresql.weeks import Weeks

logger = logging.getLogger(__name__)

ROW = 1 << 20
"""Bytes of a part in a row, at most."""

# Every transaction that changes crashes begins so.  A role or a database may have
# synchronous_commit=off, and a commit would be reported before it is on the disk.  Other values
# wait for the disk at least, and stay.
_LOCK = """
    SELECT pg_advisory_xact_lock(key),
        CASE WHEN current_setting('synchronous_commit') = 'off'
            THEN set_config('synchronous_commit', 'on', true) END
    FROM unnest(%s::bigint[]) AS key
"""
_VERSION = "SELECT obj_description(to_regclass(%s), 'pg_class'), to_regclass(%s) IS NOT NULL"
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


def lock(connection: Connection, crash_ids: Sequence[str]) -> None:
    """Lock crashes until the transaction ends.

    All transactions do so in one order, so that two batches do not wait for each other.
    """
    locks = sorted(int.from_bytes(UUID(each).bytes[:8], signed=True) for each in crash_ids)
    connection.execute(_LOCK, (locks,))


class Tables:
    """The tables in a schema.  Safe for many threads.

    :param context: of the database
    :param name: of the schema
    """

    def __init__(self, context: ConnectionContext, name: str) -> None:
        self.context = context
        self.name = name
        self._table = f"{schema.quoted(name)}.crash_parts"
        self.weeks = Weeks(context, name)
        self._weeks: set[dt.date] = set()
        self._overlapped: dict[dt.date, str] = {}  # weeks that cannot get partitions, and why
        self._are_made = False
        # Why the last save failed, where that is about the whole store.
        self._refusal: ServerFull | ServerExhausted | TablesRefused | None = None
        self._lock = Lock()
        self.sql = lru_cache(self._sql)

    def _sql(self, text: LiteralString) -> bytes:
        """Return a statement with the name of the schema in the place of ``{}``."""
        return sql.SQL(text).format(sql.Identifier(self.name)).as_bytes(None)

    def saving(self, days: set[dt.date], save: Callable[[], None]) -> None:
        """Call `save` once there are tables and partitions for these days.

        :raises StorageDenied: they are not there, and we may not make them
        :raises WeekRefused: the partition of one of the days is out of sight, or cannot be made
        """
        self._refusal = None
        try:
            self._saving(days, save)
        except (ServerFull, ServerExhausted, TablesRefused) as error:
            self._refusal = error
            raise

    def _saving(self, days: set[dt.date], save: Callable[[], None]) -> None:
        self._make(days)
        try:
            return save()
        except (MissingPartition, MissingTables):
            self.forget()  # another session has dropped what was there
            self._make(days)
        try:
            return save()
        except MissingPartition as error:
            if why := self._why_refused(days):
                raise WeekRefused(why, uri=self.context.uri) from error
            raise

    def _why_refused(self, days: set[dt.date]) -> str | None:
        """Return why there is no partition for one of these days, if that will not pass."""
        if hidden := self.weeks.hidden_of(days):
            return str(hidden[0])
        reasons = (self._overlapped.get(monday_before(day)) for day in days)
        return next(filter(None, reasons), None)

    def forget(self) -> None:
        """Look again whether everything is there, before the next save."""
        with self._lock:
            self._are_made = False
            self._weeks.clear()

    def _make(self, days: set[dt.date]) -> None:
        weeks = set(map(monday_before, days))
        with self._lock:
            missing, are_made = weeks - self._weeks, self._are_made
        if are_made and not missing:
            return
        # Not under the lock: when the server hangs, all threads wait at once, not in turn.
        with self.context() as connection:
            self.make_on(connection, missing, are_made=are_made)
        with self._lock:
            self._are_made = True
            self._weeks |= missing

    def make_on(
        self, connection: Connection, weeks: set[dt.date], *, are_made: bool = False
    ) -> None:
        """Make what is missing for these weeks, and remember nothing of it: the transaction that
        the connection is in may be rolled back.

        :param weeks: each by its Monday
        :param are_made: whether the tables are known to be there
        :raises StorageDenied: as `saving`
        """
        if not are_made and not self._are_there(connection):
            self._create(connection)
        for week in sorted(weeks):
            self._make_week(connection, week)

    def _make_week(self, connection: Connection, week: dt.date) -> None:
        try:
            # In a transaction of ours: with a snapshot from before it waited, as serializable has
            # it, the function would not see the partition that another process has just made.
            with connection.transaction():
                connection.execute(self.sql(_MAKE_PARTITION), (week,))
            self._overlapped.pop(week, None)
        except (errors.InvalidObjectDefinition, errors.CheckViolation) as error:
            # A partition of another range, or the default one, may take these crashes.
            reason = f"the week of {week} cannot get a partition: {error.diag.message_primary}"
            logger.info("%s: %s", self.context.uri, reason)
            self._overlapped[week] = reason
        except errors.RaiseException as error:
            hidden = [each for each in self.weeks.hidden_by(connection) if each.is_in(week, week)]
            reason = str(hidden[0]) if hidden else str(error.diag.message_primary)
            raise WeekRefused(reason, uri=self.context.uri) from error

    def _create(self, connection: Connection) -> None:
        access.require_writable(connection, self.context.uri)
        try:
            with self.context.translating(), connection.transaction():
                connection.run_script(schema.statements(self.name))
        except StorageDenied as error:
            raise TablesRefused(
                f"its tables cannot be made in the schema {self.name}: {error.reason}; name"
                f" another with ?schema=, or let its owner run what {schema.PRINT} {self.name}"
                " prints",
                uri=self.context.uri,
            ) from error

    def _are_there(self, connection: Connection) -> bool:
        for _ in range(2):  # a table is seen at once, and its comment by the next question
            row = connection.execute(_VERSION, (self._table, self._table)).fetchone()
            version, is_there = row or (None, False)
            if not is_there or version == schema.VERSION:
                return bool(is_there)
        reason = f"the table {self._table} is not of this version of crashmover"
        raise StorageDenied(reason, uri=self.context.uri)

    def diagnose(self) -> Iterator[str]:
        """Yield what their owner should mend.

        :raises StorageError: the server does not answer
        """
        with self.context() as connection:
            yield from map(str, self.weeks.hidden_by(connection))
            yield from diagnosis.odd_partitions(connection, self.name)
            yield from diagnosis.old_views(connection, self.name)
            yield from diagnosis.limits(connection, self.name)

    def verify(self, *, write: bool) -> None:
        """Make sure that they can be read, or saved to; change nothing.

        :raises StorageDenied: they cannot
        :raises StorageUnavailable: another session keeps them locked
        :raises StorageError: once, why the last save failed, if the server had no room or memory
            for it, or did not make the tables: no question would show that
        """
        name, uri = self.name, self.context.uri
        refusal, self._refusal = self._refusal, None
        if write and refusal:
            raise type(refusal)(refusal.reason, uri=uri)
        with self.context() as connection:
            are_there = self._are_there(connection)
            if write:
                access.require_writable(connection, uri)
            if are_there:
                if write:
                    access.require_rights(connection, name, uri)
                access.require_unlocked(connection, name, uri, write=write)
            elif write:
                access.require_create(connection, name, uri)
            else:
                reason = f"there are no tables of crashmover in the schema {name}"
                raise StorageDenied(reason, uri=uri)

    def durability_risks(self) -> Iterator[str]:
        """Yield why what is saved may be lost when the server, or its machine, fails.

        :raises StorageError: the server does not answer
        """
        with self.context() as connection:
            row = connection.execute(_RISKS, (self._table,)).fetchone()
        without_fsync, without_pages, unlogged = row or (False, False, 0)
        if without_fsync:
            yield "the server runs with fsync=off, and a power failure may lose everything"
        if without_pages:
            yield "the server runs with full_page_writes=off, and a power failure may damage rows"
        if unlogged:
            partitions = f"{unlogged} unlogged partition{'s' * (unlogged > 1)}"
            yield f"a crash of the server empties {partitions}"


def monday_before(day: dt.date) -> dt.date:
    """Return the Monday of a day's week."""
    return day - dt.timedelta(days=day.weekday())
