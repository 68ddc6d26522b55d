# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Removing: crashes by their ids, or a whole week at once, by dropping its partition."""

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import LiteralString
from uuid import UUID

from psycopg import sql

from crashmover import crashid
from crashmover.comparison import Key
from crashmover.crash import MARKERS, Crash, Kind
from crashmover.errors import CrashChanged, StorageError
from crashmover.external.postgresql import schema
from crashmover.external.postgresql.connection_context import Connection
from crashmover.external.postgresql.tables import Tables, key_of, lock, midnight_of
from crashmover.external.postgresql.weeks import WEEK

logger = logging.getLogger(__name__)

_PAGE = 10_000
_BYTES = 16  # of a UUID

_REMOVE: LiteralString = """
    DELETE FROM {}.crash_parts WHERE crash_id = ANY(%s) AND date_processed = %s
    RETURNING crash_id::text
"""
_REMOVE_ONE: LiteralString = """
    DELETE FROM {}.crash_parts WHERE crash_id = %s AND date_processed = %s
    RETURNING kind, name, chunk, xmin::text
"""
_SPAN: LiteralString = """
    SELECT min(date_processed), max(date_processed) FROM {}.crash_parts
    WHERE kind = %s AND kind <> 'dump' AND chunk = 0
    AND date_processed >= %s AND date_processed <= %s
"""
_IDS: LiteralString = """
    SELECT DISTINCT date_processed, crash_id FROM {} WHERE kind <> 'dump' AND chunk = 0
    ORDER BY date_processed, crash_id
"""
# Only its owner may drop a table, and only what is attached, and stays so, is a partition.
_MAY_DROP = """
    SELECT relkind = 'r' AND pg_has_role(relowner, 'USAGE')
        AND to_jsonb(pg_inherits)->>'inhdetachpending' IS DISTINCT FROM 'true'
    FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE pg_class.oid = to_regclass(%s) AND inhparent = to_regclass(%s)
"""
# A session that waits for this lock keeps all later sessions from reading and saving.
_PATIENCE = "SET LOCAL lock_timeout = '3s'"
# As DROP TABLE takes it of a partition, but before anything else: so sessions never wait in a
# circle.
_LOCK_ALL: LiteralString = "LOCK TABLE ONLY {}.crash_parts IN ACCESS EXCLUSIVE MODE"


@dataclass
class Week:
    """A week that was dropped."""

    ids: bytearray = field(default_factory=bytearray)
    """Its crashes: 16 bytes of each, as there may be a million."""

    error: StorageError | None = None
    """Why it is not known that they are gone."""

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.ids), _BYTES):
            yield str(UUID(bytes=bytes(self.ids[start : start + _BYTES])))


class Remover:
    """Removes crashes."""

    def __init__(self, tables: Tables) -> None:
        self._context = tables.context
        self._tables = tables

    def remove(self, crash_ids: Sequence[str]) -> set[str]:
        """Remove crashes, in one transaction; return those of which there was anything."""
        days = defaultdict[dt.datetime, list[UUID]](list)
        for crash_id, date in map(key_of, crash_ids):
            days[date].append(crash_id)
        found: set[str] = set()
        one = crash_ids[0] if len(crash_ids) == 1 else None
        with self._context.transaction(one) as connection:
            # Or else what is being saved at this moment would be taken for nothing.
            lock(connection, crash_ids)
            for date, ids in days.items():
                rows = connection.execute(self._tables.sql(_REMOVE), (ids, date)).fetchall()
                found.update(crash_id for (crash_id,) in rows)
        return found

    def remove_loaded(self, crash: Crash) -> bool:
        """Remove a crash; return whether there was anything of it.

        :raises CrashChanged: there were rows that it was not loaded from; nothing is removed
        """
        versions = {part.key: part.version for part in crash.parts}
        with self._context.transaction(crash.crash_id) as connection:
            lock(connection, [crash.crash_id])
            key = key_of(crash.crash_id)
            rows = connection.execute(self._tables.sql(_REMOVE_ONE), key).fetchall()
            removed: defaultdict[Key, list[tuple[int, str]]] = defaultdict(list)
            for kind, name, chunk, version in rows:
                removed[Kind(kind), name].append((chunk, version))
            for key_of_part, chunks in removed.items():
                if versions.get(key_of_part) != tuple(version for _, version in sorted(chunks)):
                    raise CrashChanged(crash.crash_id, uri=self._context.uri)
        return bool(rows)

    def span(self, since: dt.date, until: dt.date) -> tuple[dt.date, dt.date] | None:
        """Return the first and the last of these days on which there are crashes; None, if on
        none."""
        found: list[dt.datetime] = []
        for first, last in self._tables.weeks.windows(midnight_of(since), midnight_of(until)):
            with self._context() as connection:
                for kind in MARKERS:
                    parameters = (kind.value, first, last)
                    row = connection.execute(self._tables.sql(_SPAN), parameters).fetchone()
                    found += filter(None, row or ())
        days = [when.astimezone(dt.UTC).date() for when in found]
        return (min(days), max(days)) if days else None

    def drop(self, monday: dt.date) -> Week | None:
        """Drop the partition of a week, and return the crashes that were in it.

        Return None if it could not be dropped: nothing is changed.  Another session that holds
        the table is waited for only for a moment.
        """
        week: Week | None = None
        try:
            with self._context.transaction() as connection:
                week = self._drop(connection, monday)
        except StorageError as error:
            if week:
                week.error = error  # in the end, and the answer may be all that was lost
            else:
                logger.info("%s: the week of %s: not at once: %s", error.uri, monday, error.reason)
        if week:
            self._tables.forget()
        return week

    def _drop(self, connection: Connection, monday: dt.date) -> Week | None:
        week = Week()
        table = f"crash_parts_{monday:%Y%m%d}"
        partition = sql.Identifier(self._tables.name, table)
        names = [f"{schema.quoted(self._tables.name)}.{name}" for name in (table, "crash_parts")]
        row = connection.execute(_MAY_DROP, names).fetchone()
        if not row or not row[0]:
            return None
        connection.execute(_PATIENCE)
        connection.execute(self._tables.sql(_LOCK_ALL))
        with connection.cursor("week") as cursor:
            cursor.execute(sql.SQL(_IDS).format(partition))
            while page := cursor.fetchmany(_PAGE):
                for date, crash_id in page:
                    if not _is_of(monday, date, crash_id):  # rows of another program
                        return None
                    week.ids += crash_id.bytes
        connection.execute(sql.SQL("DROP TABLE {}").format(partition))
        return week


def _is_of(monday: dt.date, date: dt.datetime, crash_id: UUID) -> bool:
    """Whether that is a crash of a week, by its id and by its date."""
    text = str(crash_id)
    if not crashid.is_valid(text) or midnight_of(crashid.date_of(text)) != date:
        return False
    return midnight_of(monday) <= date < midnight_of(monday + WEEK)
