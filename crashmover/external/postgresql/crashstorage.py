# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage: crashes in a table, partitioned by week."""

import datetime as dt
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from typing import Any, LiteralString, Self

from crashmover import crashid
from crashmover.crash import ALL_KINDS, Crash, Kind, marker_of
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase, Removed, never
from crashmover.external.passed_over import PassedOver
from crashmover.external.postgresql import schema as schemas
from crashmover.external.postgresql.connection_context import (
    TIMEOUT,
    ConnectionContext,
    conninfo_of,
)
from crashmover.external.postgresql.pgerrors import MissingTables, WeekRefused
from crashmover.external.postgresql.reading import Reader, Reading
from crashmover.external.postgresql.removing import Remover
from crashmover.external.postgresql.sameness import Schema, is_same_schema
from crashmover.external.postgresql.saving import How, Saver
from crashmover.external.postgresql.tables import Tables, key_of, midnight_of
from crashmover.external.postgresql.weeks import WEEK, HiddenWeek
from crashmover.external.probing import probe_crash
from crashmover.external.roles import Store, check_listing
from crashmover.external.tuning import Tuning
from crashmover.uri import StorageURI, seconds

logger = logging.getLogger(__name__)

_OWN_OPTIONS = {"schema": schemas.check_name, "timeout": seconds}
_PAGE = 1000
_HAS: LiteralString = """
    SELECT 1 FROM {}.crash_parts
    WHERE crash_id = %s AND date_processed = %s AND kind = %s AND chunk = 0
"""
_DUMPS: LiteralString = """
    SELECT name FROM {}.crash_parts
    WHERE crash_id = %s AND date_processed = %s AND kind = 'dump' AND chunk = 0
    ORDER BY name
"""
_LIST: LiteralString = """
    SELECT crash_id::text AS id, date_processed FROM {}.crash_parts
    WHERE kind = %s AND kind <> 'dump' AND chunk = 0
    AND date_processed >= %s AND date_processed <= %s
    AND (date_processed, crash_id) > (%s, %s)
    ORDER BY date_processed, crash_id LIMIT %s
"""
_FIRST_DAY = dt.date(1970, 1, 1)
_FIRST_OF_ALL, _LAST_OF_ALL = dt.date(2000, 1, 1), dt.date(2099, 12, 31)  # that ids can say
_REMOVED_AT_ONCE = 256
_NIL = "00000000-0000-0000-0000-000000000000"


class PostgreSQLCrashStorage(CrashStorageBase):
    """Keeps crashes in the table ``crash_parts`` of a schema, as ``schema.sql`` has it.

    A crash is saved in one transaction, and many small ones in one; tables and partitions are
    made when they are first needed, if the user may.

    :param conninfo: libpq's parameters
    :param schema: the schema that the table is in
    :param timeout: seconds that a call may take
    :param uri: what messages call the store
    :raises ValueError: the schema's name is not one
    """

    tuning = Tuning(
        savers=2,  # more wait for each other
        batch=40,  # of usual crashes as many as fit into a transaction
        processes=True,
    )

    def __init__(
        self,
        conninfo: Mapping[str, str],
        schema: str = schemas.DEFAULT,
        timeout: float = TIMEOUT,
        uri: str = "postgresql:",
    ) -> None:
        self.uri = uri
        self.schema = schemas.check_name(schema)
        self._context = ConnectionContext(conninfo, uri, timeout)
        self._tables = Tables(self._context, schema)
        self._saver = Saver(self._tables)
        self._remover = Remover(self._tables)
        self._reader = Reader(self._tables)
        self._passed_over = PassedOver()
        self._hidden: list[HiddenWeek] = []  # in the range of the last listing
        self._warned_of: set[HiddenWeek] = set()
        self._identity = _identity(conninfo, schema)

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``postgresql://user@host:5432/db?schema=crashes&timeout=30``, and every key that
        libpq knows."""
        conninfo = conninfo_of(uri, set(_OWN_OPTIONS))
        own = {key: value for key, value in uri.query.items() if key in _OWN_OPTIONS}
        options = replace(uri, query=own).options(**_OWN_OPTIONS)
        return cls(conninfo, **options, uri=str(uri))

    def identity(self) -> object:
        """The server, the database and the schema, as far as they are said."""
        return self._identity

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        """Return whether both are one schema, as `sameness` finds out; nothing is written."""
        if not isinstance(other, PostgreSQLCrashStorage):
            return None
        source = Schema(self._context, self.schema)
        return is_same_schema(source, Schema(other._context, other.schema), rows=probe)

    def verify_access(self, *, write: bool = False) -> None:
        with self._context.transaction() as connection:
            connection.execute("SELECT")  # where a pooler takes transactions apart, it says so
        self._tables.verify(write=write)

    def durability_risks(self) -> Iterator[str]:
        if risks := list(self._tables.durability_risks()):
            yield f"{self.uri}: {'; '.join(risks)}"

    def diagnose(self) -> Iterator[str]:
        """Yield which weeks are out of sight, which partitions are odd, whether the views are old,
        and which limits of the server keep crashes from arriving."""
        for line in self._tables.diagnose():
            yield f"{self.uri}: {line}"

    def probe_write(self) -> None:
        self._saver.rehearse(probe_crash())

    def clock(self) -> dt.datetime | None:
        with self._context() as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        return row[0] if row else None

    def close(self) -> None:
        self._context.close()

    # Reading

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        [found] = self.load_crashes([crash_id], kinds)
        if isinstance(found, Exception):
            raise found
        return found

    def load_crashes(
        self, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
    ) -> Iterator[Crash | Exception]:
        for crash_id in crash_ids:
            crashid.validate(crash_id)
        marker = marker_of(kinds)
        try:
            found = self._reader.rows(crash_ids, kinds | {marker})
        except MissingTables:
            found = {}
        except StorageError as error:
            yield from [error] * len(crash_ids)
            return
        wanted = {
            crash_id: [row for row in found.get(crash_id, ()) if row[0] in kinds]
            for crash_id in crash_ids
        }
        reading = Reading(self._reader, wanted)
        for crash_id in crash_ids:
            crash: Crash | Exception
            try:
                there = {row[0] for row in found.get(crash_id, ())}
                self.require_marker(crash_id, kinds, there)
                crash = Crash(crash_id, reading.parts(crash_id, wanted[crash_id]))
            except CrashIDNotFound as error:
                crash = error
            except CorruptCrash as error:
                error.uri = error.uri or self.uri
                crash = error
            except ValueError as error:  # a name that no part can have
                crash = CorruptCrash(str(error), crash_id=crash_id, uri=self.uri)
            yield crash

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        crashid.validate(crash_id)
        return bool(self._fetch(_HAS, (*key_of(crash_id), kind.marker.value), crash_id))

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        crashid.validate(crash_id)
        return [name for (name,) in self._fetch(_DUMPS, key_of(crash_id), crash_id)]

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """List crashes, a thousand a query; no transaction is open in between."""
        kind = check_listing(since, until, kind)
        return self._listed(since, until, kind)

    def passed_over(self) -> Iterator[str]:
        """Say it of rows, and of weeks that are being detached."""
        if text := self._passed_over.text():
            yield f"{self.uri}: {text}"
        for week in self._hidden:
            if week.is_pending:
                yield f"{self.uri}: {week}"

    def strangers(self) -> Iterator[str]:
        """Yield which weeks are out of sight, if there is no crash in sight."""
        hidden = self._tables.weeks.hidden()
        everything = midnight_of(_FIRST_DAY), midnight_of(dt.date.max)
        if hidden and not any(True for _ in self._ids(*everything, Kind.RAW_CRASH, PassedOver())):
            unsaid = [str(week) for week in hidden if week not in self._warned_of]
            for what in unsaid or ["no crash is in sight"]:
                yield f"{self.uri}: {what}"

    def _listed(self, since: dt.date | None, until: dt.date | None, kind: Kind) -> Iterator[str]:
        self._passed_over = passed_over = PassedOver()
        self._hidden = []
        first, last = midnight_of(since or _FIRST_DAY), midnight_of(until or dt.date.max)
        yield from self._ids(first, last, kind, passed_over)
        self._hidden = self._tables.weeks.hidden(since or dt.date.min, until or dt.date.max)
        for week in self._hidden:  # once for each: its owner may have detached it on purpose
            if not week.is_pending and week not in self._warned_of:
                self._warned_of.add(week)
                logger.warning("%s: %s", self.uri, week)

    def _ids(
        self, first: dt.datetime, last: dt.datetime, kind: Kind, passed_over: PassedOver
    ) -> Iterator[str]:
        for window in self._tables.weeks.windows(first, last):
            yield from self._listed_in(*window, kind, passed_over)

    def _listed_in(
        self, first: dt.datetime, last: dt.datetime, kind: Kind, passed_over: PassedOver
    ) -> Iterator[str]:
        after = _NIL
        while page := self._fetch(_LIST, (kind.value, first, last, first, after, _PAGE)):
            for crash_id, date in dict.fromkeys(page):  # once, where another program's rows are odd
                if crashid.is_valid(crash_id) and key_of(crash_id)[1] == date:
                    yield crash_id
                else:
                    utc = date.astimezone(dt.UTC)  # it comes in the time zone of the session
                    passed_over.note_id(crash_id, f"date_processed {utc:%Y-%m-%d}")
            after, first = page[-1]

    def _fetch(
        self, query: LiteralString, parameters: Sequence[Any], crash_id: str | None = None
    ) -> list[Any]:
        """Return the rows of a query; none where there are no tables yet."""
        try:
            with self._context(crash_id) as connection:
                return connection.execute(self._tables.sql(query), parameters).fetchall()
        except MissingTables:
            return []

    # Saving and removing

    def save_crash(self, crash: Crash) -> None:
        [error] = self.save_crashes([crash])
        if error:
            raise error

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Save crashes: small ones share a transaction, a large one has its own."""
        return self._saver.save(crashes, how=How.REPLACE)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Create crashes: the table has one row for one key."""
        return self._saver.save(crashes, how=How.CREATE)

    def save_keeping_dumps(self, crash: Crash) -> None:
        [error] = self._saver.save([crash], how=How.KEEP_DUMPS)
        if error:
            raise error

    def remove(self, crash_id: str) -> None:
        [error] = self.remove_crashes([crash_id])
        if error:
            raise error

    def remove_loaded(self, crash: Crash) -> None:
        """Remove it in one transaction: no other session comes in between."""
        with suppress(MissingTables):
            if self._remover.remove_loaded(crash):
                return
        raise self._not_found([crash.crash_id])[crash.crash_id]

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        for crash_id in crash_ids:
            crashid.validate(crash_id)
        batches = range(0, len(crash_ids), _REMOVED_AT_ONCE)
        return [
            result
            for start in batches
            for result in self._removed(crash_ids[start : start + _REMOVED_AT_ONCE])
        ]

    def _removed(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        try:
            found = self._remover.remove(crash_ids)
        except MissingTables:
            found = set()
        except StorageError as error:
            return [error] * len(crash_ids)
        try:
            errors = self._not_found([i for i in crash_ids if i not in found])
        except StorageError as error:  # after the removal, which is done
            return [None if i in found else error for i in crash_ids]
        return [errors.get(i) for i in crash_ids]

    def _not_found(self, crash_ids: Sequence[str]) -> dict[str, Exception]:
        """Return the errors of crashes of which there was nothing to remove: a crash in a week
        that is out of sight must not be taken for one that is gone.

        :raises StorageError: the server cannot be asked
        """
        errors: dict[str, Exception] = {
            crash_id: CrashIDNotFound(crash_id, uri=self.uri) for crash_id in crash_ids
        }
        days = {crashid.date_of(crash_id) for crash_id in crash_ids}
        for week in self._tables.weeks.hidden_of(days) if days else ():
            for crash_id in crash_ids:
                day = crashid.date_of(crash_id)
                if week.is_in(day, day):
                    errors[crash_id] = WeekRefused(str(week), crash_id=crash_id, uri=self.uri)
        return errors

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """Remove a whole week at once where its partition may be dropped.

        :raises WeekRefused: at the end, where a week is out of sight, and its crashes stay
        """
        yield from self._removed_days(since, until, is_stopped)
        if hidden := self._tables.weeks.hidden(since, until):
            more = f"; and {len(hidden) - 1} weeks more" if len(hidden) > 1 else ""
            raise WeekRefused(f"not removed: {hidden[0]}{more}", uri=self.uri)

    def _removed_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool]
    ) -> Iterator[Removed]:
        try:
            span = self._remover.span(max(since, _FIRST_OF_ALL), min(until, _LAST_OF_ALL))
        except MissingTables:
            return
        if span is None:
            return
        monday = span[0] - dt.timedelta(days=span[0].weekday())
        while monday <= span[1] and not is_stopped():
            sunday = monday + WEEK - dt.timedelta(days=1)
            is_whole = since <= monday and sunday <= until
            if is_whole and (week := self._remover.drop(monday)):
                yield from ((crash_id, week.error) for crash_id in week)
            else:
                days = max(monday, since), min(sunday, until)
                yield from super().remove_days(*days, is_stopped)
            monday += WEEK


def _identity(conninfo: Mapping[str, str], schema: str) -> tuple[str, ...]:
    """What two stores have in common that are the same, as far as can be told at rest."""
    environment = os.environ
    user = conninfo.get("user") or environment.get("PGUSER") or environment.get("USER", "")
    host = conninfo.get("hostaddr") or conninfo.get("host") or environment.get("PGHOST", "")
    port = conninfo.get("port") or environment.get("PGPORT") or "5432"
    database = conninfo.get("dbname") or environment.get("PGDATABASE") or user
    return conninfo.get("service", ""), host, port, database, schema
