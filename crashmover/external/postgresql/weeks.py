# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Weeks: the partitions of a store, a few at a time, and those that are out of sight.

The server locks every partition that a statement may look into, and the locks of all sessions share
one small table.  So no statement is about more than `AT_ONCE` weeks.
"""

import datetime as dt
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crashmover.external.postgresql.connection_context import Connection, ConnectionContext
from crashmover.external.postgresql.schema import quoted

AT_ONCE = 32
"""Weeks that a statement may be about."""

WEEK = dt.timedelta(weeks=1)

_PREFIX = "crash_parts_"
_TICK = dt.timedelta(microseconds=1)  # of the server's clock

# No bounds: the server gives them only when no other session keeps the partition locked.
_NAMES = """
    SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = to_regclass(%s)
"""
# PostgreSQL has inhdetachpending since version 14.
_HIDDEN = """
    SELECT relname::text, inhrelid IS NOT NULL
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE (inhparent = to_regclass(%s) AND to_jsonb(pg_inherits)->>'inhdetachpending' = 'true')
        OR (inhrelid IS NULL AND relkind IN ('r', 'p') AND relnamespace = to_regnamespace(%s)
            AND relname ~ '^crash_parts_[0-9]{8}$')
    ORDER BY 1
"""


@dataclass(frozen=True)
class HiddenWeek:
    """A table with crashes that no statement about ``crash_parts`` sees.

    :param name: of the table, in SQL
    :param parent: ``crash_parts``, in SQL
    :param monday: when its week begins; None where the name does not tell
    :param is_pending: whether it is being detached, or that was interrupted; else it is detached
    """

    name: str
    parent: str
    monday: dt.date | None
    is_pending: bool

    def is_in(self, since: dt.date, until: dt.date) -> bool:
        """Return True if some of these days may be in its week."""
        return self.monday is None or (self.monday <= until and since < self.monday + WEEK)

    def __str__(self) -> str:
        of = f"the week of {self.monday}" if self.monday else "some days"
        text = f"crashes of {of} are out of sight: {self.name} "
        if self.is_pending:
            alter = f"ALTER TABLE {self.parent} DETACH PARTITION {self.name} FINALIZE"
            return f"{text}is being detached, or that was interrupted; to end it, run {alter}"
        return f"{text}is not attached to {self.parent}; attach it, drop it, or rename it"


class Weeks:
    """The partitions of a store.

    :param context: of the database
    :param name: of the schema
    """

    def __init__(self, context: ConnectionContext, name: str) -> None:
        self._context = context
        self._schema = quoted(name)
        self._table = f"{self._schema}.crash_parts"

    def windows(
        self, first: dt.datetime, last: dt.datetime
    ) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        """Yield pieces of the time from `first` to `last`, each with its own first and last
        moment.  They leave nothing out, whatever partitions there are."""
        if last - first > AT_ONCE * WEEK:
            cuts = [cut for cut in self._mondays() if first < cut <= last]
            for cut in cuts[AT_ONCE::AT_ONCE]:
                yield first, cut - _TICK
                first = cut
        yield first, last

    def _mondays(self) -> list[dt.datetime]:
        """Return when the partitions begin, by their names."""
        with self._context() as connection:
            names = connection.execute(_NAMES, (self._table,)).fetchall()
        mondays = {monday for (name,) in names if (monday := monday_of(name))}
        return [dt.datetime(m.year, m.month, m.day, tzinfo=dt.UTC) for m in sorted(mondays)]

    def hidden(
        self, since: dt.date = dt.date.min, until: dt.date = dt.date.max
    ) -> list[HiddenWeek]:
        """Return the weeks that may hold crashes of these days and are out of sight."""
        with self._context() as connection:
            found = self.hidden_by(connection)
        return [week for week in found if week.is_in(since, until)]

    def hidden_by(self, connection: Connection) -> list[HiddenWeek]:
        """Return all weeks that are out of sight, on a connection that is lent already."""
        rows: list[Any] = connection.execute(_HIDDEN, (self._table, self._schema)).fetchall()
        return [
            HiddenWeek(f"{self._schema}.{name}", self._table, monday_of(name), is_pending)
            for name, is_pending in rows
        ]

    def hidden_of(self, days: Set[dt.date]) -> list[HiddenWeek]:
        """Return the weeks that may hold crashes of one of these days and are out of sight."""
        hidden = self.hidden(min(days), max(days))
        return [week for week in hidden if any(week.is_in(day, day) for day in days)]


def monday_of(name: str) -> dt.date | None:
    """Return the Monday in the name of a partition; None if it names none."""
    with suppress(ValueError):
        day = dt.datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").date()
        if name == f"{_PREFIX}{day:%Y%m%d}" and day.weekday() == 0:
            return day
    return None
