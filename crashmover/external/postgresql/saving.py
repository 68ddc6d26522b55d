# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Saving: a crash in one transaction, or many small ones in one."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from threading import BoundedSemaphore, Lock
from typing import LiteralString, ParamSpec
from uuid import UUID

from crashmover import crashid
from crashmover.crash import COLLECTED, Crash, Kind, Part
from crashmover.errors import (
    CrashExists,
    CrashIDNotFound,
    CrashMoverError,
    StorageDenied,
    StorageUnavailable,
)
from crashmover.external.postgresql.connection_context import Connection
from crashmover.external.postgresql.pgerrors import Duplicate
from crashmover.external.postgresql.tables import ROW, Tables, key_of, lock, monday_before

_ROWS = 8
"""Rows in one statement, at most: psycopg remembers how to convert one of 50 parameters.  A server
takes the same rows in two thirds of the time that it takes for a prepared statement for each."""

_SMALL = 4 << 20  # bytes: a crash up to this is read first and saved with others
_BATCH = 8 << 20  # bytes of them in one transaction, and in memory
_IN_HAND = 16 << 20  # bytes of them in memory, over all threads; then each saves what it has
_SAVING = 2  # threads at a time: a connection keeps the memory for its largest transaction
_PATIENCE = 2.0  # seconds until a thread saves beside them: the server may have stopped

_DELETE: LiteralString = (
    "DELETE FROM {}.crash_parts WHERE crash_id = ANY(%s) AND date_processed = %s AND kind = ANY(%s)"
)
_DELETE_DUMPS: LiteralString = (
    "DELETE FROM {}.crash_parts WHERE crash_id = %s AND date_processed = %s"
    " AND kind = 'dump' AND name = ANY(%s)"
)
_INSERT: LiteralString = "INSERT INTO {}.crash_parts VALUES "
_VALUES: LiteralString = "(%b, %b, %b, %b, %b, %b)"
_MARKER: LiteralString = (
    "SELECT 1 FROM {}.crash_parts WHERE crash_id = %s AND date_processed = %s"
    " AND kind = 'raw_crash' AND chunk = 0"
)


class How(Enum):
    """Which kinds of parts that are there a raw crash replaces.  What it must not replace and
    brings itself is refused: `CrashExists`."""

    REPLACE = tuple(kind.value for kind in Kind if kind in COLLECTED)
    KEEP_DUMPS = (Kind.RAW_CRASH.value,)
    CREATE = ()


P = ParamSpec("P")
Row = tuple[dt.datetime, UUID, str, str, int, bytes]


class PartUnreadable(Exception):
    """Reading a part failed with `error`: another store's, and no matter of this one."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Small:
    """A crash that has been read.

    :param number: its place among those that are to be saved
    """

    number: int
    crash: Crash
    rows: list[Row]
    size: int


class Saver:
    """Saves crashes.  A save holds a lock on the crash id until the end of the transaction, so
    that two saves do not mix."""

    def __init__(self, tables: Tables) -> None:
        self._context = tables.context
        self._tables = tables
        self._in_hand = 0
        self._lock_in_hand = Lock()
        self._saving = BoundedSemaphore(_SAVING)

    def save(self, crashes: Sequence[Crash], *, how: How) -> list[Exception | None]:
        """Save crashes in their order; return for each None or why it was not saved."""
        results: list[Exception | None] = [None] * len(crashes)
        batch: list[Small] = []
        for number, crash in enumerate(crashes):
            try:
                small = _read_if_small(number, crash)
            except Exception as error:
                results[number] = error
                continue
            if small is None or not self._fits(small, batch):
                self._save_batch(batch, results, how)
                batch = []
            if small:
                batch.append(small)
                self._count(small.size)
            else:
                results[number] = _error_of(self._save_alone, crash, how)
        self._save_batch(batch, results, how)
        return [
            CrashExists(crash.crash_id, uri=self._context.uri)
            if how is How.CREATE and isinstance(error, Duplicate)
            else error
            for crash, error in zip(crashes, results, strict=True)
        ]

    def rehearse(self, crash: Crash) -> None:
        """Save a small crash, and take all of that back, its tables too, unseen."""
        with self._context() as connection, connection.transaction(force_rollback=True):
            self._tables.make_on(connection, {monday_before(crashid.date_of(crash.crash_id))})
            rows = (row for part in crash.parts for row in _rows(crash.crash_id, part))
            self._put(connection, [crash], rows, How.REPLACE)

    # Many small ones

    def _fits(self, small: Small, batch: list[Small]) -> bool:
        ids = {other.crash.crash_id for other in batch}
        size = sum(other.size for other in batch)
        few = size + small.size <= _BATCH and self._in_hand + small.size <= _IN_HAND
        return few and small.crash.crash_id not in ids

    def _count(self, size: int) -> None:
        with self._lock_in_hand:
            self._in_hand += size

    def _save_batch(self, batch: list[Small], results: list[Exception | None], how: How) -> None:
        if not batch:
            return
        is_in_turn = self._saving.acquire(timeout=_PATIENCE)
        try:
            self._save_together(batch, results, how)
        finally:
            if is_in_turn:
                self._saving.release()
            self._count(-sum(small.size for small in batch))

    def _save_together(self, batch: list[Small], results: list[Exception | None], how: How) -> None:
        error = _error_of(self._save_small, batch, how)
        is_of_all = len(batch) == 1 or isinstance(error, StorageDenied | StorageUnavailable)
        for small in batch:
            if error and not is_of_all:  # then one is at fault
                results[small.number] = _error_of(self._save_small, [small], how)
            else:
                results[small.number] = error

    def _save_small(self, batch: list[Small], how: How) -> None:
        crashes = [small.crash for small in batch]
        crash_id = crashes[0].crash_id if len(batch) == 1 else None
        rows = [row for small in batch for row in small.rows]

        def save() -> None:
            with self._context(crash_id) as connection, connection.in_two_round_trips():
                self._put(connection, crashes, rows, how)

        self._tables.saving({crashid.date_of(crash.crash_id) for crash in crashes}, save)

    # One of any size

    def _save_alone(self, crash: Crash, how: How) -> None:
        if not crash.parts:
            raise CrashMoverError(f"{crash.crash_id}: nothing to save")

        def save() -> None:
            with self._context.transaction(crash.crash_id) as connection:
                rows = (row for part in crash.parts for row in _read_rows(crash.crash_id, part))
                self._put(connection, [crash], rows, how)

        try:
            self._tables.saving({crashid.date_of(crash.crash_id)}, save)
        except PartUnreadable as failed:
            error = failed.error
        else:
            return
        raise error

    # Both

    def _put(
        self, connection: Connection, crashes: Sequence[Crash], rows: Iterable[Row], how: How
    ) -> None:
        """Put the rows of some crashes in the place of what is there, in one transaction."""
        lock(connection, [crash.crash_id for crash in crashes])
        for crash in crashes:
            if crash.dumps and not crash.raw_crash:
                self._make_way_for_dumps(connection, crash, how)
        self._delete(connection, crashes, how)
        for group in _groups(rows):
            statement = _INSERT + ", ".join([_VALUES] * len(group))
            connection.execute(self._tables.sql(statement), list(chain.from_iterable(group)))

    def _make_way_for_dumps(self, connection: Connection, crash: Crash, how: How) -> None:
        key = key_of(crash.crash_id)
        if not connection.execute(self._tables.sql(_MARKER), key).fetchone():
            reason = "no raw crash to add dumps to"
            raise CrashIDNotFound(crash.crash_id, uri=self._context.uri, reason=reason)
        if how is not How.CREATE:
            names = [part.name for part in crash.dumps]
            connection.execute(self._tables.sql(_DELETE_DUMPS), (*key, names))

    def _delete(self, connection: Connection, crashes: Sequence[Crash], how: How) -> None:
        """Delete what the crashes replace.  What they must not replace stays, and its keys refuse
        what comes: `Duplicate`."""
        groups = defaultdict[tuple[dt.datetime, tuple[str, ...]], list[UUID]](list)
        for crash in crashes:
            crash_id, date = key_of(crash.crash_id)
            if kinds := _replaced(crash, how):
                groups[date, kinds].append(crash_id)
        for (date, kinds), ids in groups.items():
            connection.execute(self._tables.sql(_DELETE), (ids, date, list(kinds)))


def _replaced(crash: Crash, how: How) -> tuple[str, ...]:
    raw: tuple[str, ...] = how.value if crash.raw_crash else ()
    return (*raw, Kind.PROCESSED_CRASH.value) if crash.processed_crash else raw


def _read_if_small(number: int, crash: Crash) -> Small | None:
    """Return a crash with all its bytes, if they are few and can be saved with others'."""
    size = sum(part.size or 0 for part in crash.parts)
    if size > _SMALL or not crash.parts or (crash.dumps and not crash.raw_crash):
        return None
    rows: list[Row] = []
    size = 0
    for part in crash.parts:
        for row in _rows(crash.crash_id, part):
            rows.append(row)
            size += len(row[-1])
            if size > _SMALL:
                return None
    return Small(number, crash, rows, size)


def _rows(crash_id: str, part: Part) -> Iterator[Row]:
    """Yield the rows of a part, one at least."""
    key = key_of(crash_id)
    for number, data in enumerate(_pieces(part)):
        yield key[1], key[0], part.kind.value, part.name, number, data


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows in groups for one statement each: some small ones, or one of any size."""
    group: list[Row] = []
    size = 0
    for row in rows:
        size += len(row[-1])
        if group and (len(group) == _ROWS or size > ROW):
            yield group
            group, size = [], len(row[-1])
        group.append(row)
    if group:
        yield group


def _read_rows(crash_id: str, part: Part) -> Iterator[Row]:
    """Yield the rows of a part; what goes wrong with reading it is kept apart."""
    try:
        yield from _rows(crash_id, part)
    except Exception as error:
        raise PartUnreadable(error) from error


def _pieces(part: Part) -> Iterator[bytes]:
    """Yield the bytes of a part, `ROW` at a time; no bytes, where it has none."""
    pending: list[bytes] = []
    room = ROW
    is_empty = True
    for data in part.chunks():
        chunk = data
        while len(chunk) >= room:
            yield b"".join((*pending, chunk[:room]))
            chunk = chunk[room:]
            pending, room, is_empty = [], ROW, False
        if chunk:
            pending.append(chunk)
            room -= len(chunk)
    if pending or is_empty:
        yield b"".join(pending)


def _error_of(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Exception | None:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error
    return None
