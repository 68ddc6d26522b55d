# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes as they lie in the table: which rows they have, and the parts that are in them."""

import io
import os
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, LiteralString, cast

import psycopg

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.postgresql.connection_context import Connection
from crashmover.external.postgresql.round_trip import stream
from crashmover.external.postgresql.tables import ROW, Tables, key_of
from crashmover.partfiles import file_of_chunks

_LOAD: LiteralString = """
    SELECT crash_id::text, kind, name, chunk, octet_length(data), xmin::text
    FROM {}.crash_parts
    WHERE crash_id = ANY(%s) AND date_processed = ANY(%s) AND kind = ANY(%s)
    ORDER BY crash_id, kind, name, chunk
"""

_CHUNK: LiteralString = """
    SELECT data FROM {}.crash_parts
    WHERE crash_id = %s AND date_processed = %s AND kind = %s AND name = %s AND chunk = %s
    AND xmin::text = %s
"""

_CRASHES: LiteralString = """
    SELECT crash_id::text, kind, name, chunk, xmin::text, data FROM {}.crash_parts
    WHERE crash_id = ANY($1::uuid[]) AND date_processed = ANY($2::timestamptz[])
    AND kind = ANY($3::text[])
    ORDER BY crash_id
"""

_SMALL = 1 << 20
"""Bytes of a crash that comes with others, and of what has come and is kept until it is asked
for."""

_ORDER = {kind: number for number, kind in enumerate(Kind)}

Row = tuple[Kind, str, int, int, str]
"""Kind, name, chunk, bytes, version."""

_Version = tuple[str, str, str, int, str]

_Rows = Iterator[tuple[_Version, bytes]]


class Reader:
    """Finds crashes and makes parts of their rows.

    A row says by ``xmin`` which transaction has put it there; a row that another has put in
    its place since is not read.
    """

    def __init__(self, tables: Tables) -> None:
        self.context = tables.context
        self._sql = tables.sql
        self._schema = tables.name

    def location(self, kind: Kind, name: str) -> str:
        """Return which of a crash's rows hold a part, in the words of SQL."""
        named = f" name='{name}'" if name else ""
        return f"{self._schema}.crash_parts kind='{kind}'{named}"

    def rows(self, crash_ids: Sequence[str], kinds: Set[Kind]) -> dict[str, list[Row]]:
        """Return the rows that each of these crashes has; none where it has none."""
        found: dict[str, list[Row]] = defaultdict(list)
        with self.context(crash_ids[0] if len(crash_ids) == 1 else None) as connection:
            keys = _keys_of(crash_ids, kinds)
            rows = connection.execute(self._sql(_LOAD), keys).fetchall()
        for crash_id, kind, *row in rows:
            found[crash_id].append(cast(Row, (Kind(kind), *row)))
        return found

    def chunk(self, crash_id: str, row: Row) -> bytes:
        """Return the bytes in a row.

        :raises StorageUnavailable: it is not there any more
        """
        kind, name, chunk, _, version = row
        with self.context(crash_id) as connection:
            found = connection.execute(
                self._sql(_CHUNK),
                (*key_of(crash_id), kind.value, name, chunk, version),
            ).fetchone()
        if found is None:
            reason = "it was replaced or removed while it was read"
            raise StorageUnavailable(reason, crash_id=crash_id, uri=self.context.uri)
        return bytes(found[0])

    def stream(
        self, crash_ids: Sequence[str], kinds: Set[Kind]
    ) -> Generator[tuple[_Version, bytes]]:
        """Yield what is in all rows of these crashes now, crash by crash in the order of their
        ids, as it comes: while the first is used, the server goes on.

        The server may have a limit for how long a statement takes, and this one takes as long as
        its reader.  So it may end early, and the server goes on with other statements.
        """
        pid = os.getpid()
        with self.context() as connection:
            keys = [_array(each) for each in _keys_of(crash_ids, kinds)]
            try:
                for crash_id, kind, name, chunk, version, data in stream(
                    connection, self._sql(_CRASHES), keys
                ):
                    key = crash_id.decode(), kind.decode(), name.decode()
                    yield (*key, int.from_bytes(chunk), version.decode()), data
            except GeneratorExit:  # the rest is not wanted, and cancelling takes long
                if pid != os.getpid() and not connection.closed:
                    _leave_to_parent(connection)
                connection.close()
                raise
            except psycopg.Error:
                if connection.closed:
                    raise


def _leave_to_parent(connection: Connection) -> None:
    """Let go of a connection that came with a fork: to close it would be to say goodbye on a
    socket that is the parent's, too."""
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), connection.fileno())


def _keys_of(crash_ids: Sequence[str], kinds: Set[Kind]) -> tuple[list[Any], list[Any], list[str]]:
    keys = dict(map(key_of, crash_ids))
    return list(keys), list(set(keys.values())), [kind.value for kind in kinds]


def _array(values: Iterable[object]) -> bytes:
    """Return an array as the server reads it: of ids, of times or of kinds, which need no
    quotes."""
    return ("{" + ",".join(map(str, values)) + "}").encode()


class Reading:
    """Crashes that are read together, as a rule one after the other, in the order of their ids.

    Small ones come in a stream, a little ahead of their reader, as far as the next large one.

    There is no second statement while one goes on.  It might wait for a session that wants the
    table for itself, that session for the stream, and the stream for its reader.

    :param crashes: the rows of each
    """

    def __init__(self, reader: Reader, crashes: dict[str, list[Row]]) -> None:
        self._reader = reader
        self._uri = reader.context.uri
        self._pid = os.getpid()
        sizes = {crash_id: sum(row[3] for row in rows) for crash_id, rows in crashes.items()}
        small = sorted(crash_id for crash_id, size in sizes.items() if 0 < size <= _SMALL)
        self._small = small if len(small) > 1 else []
        self._large = sorted(crash_id for crash_id, size in sizes.items() if size > _SMALL)
        self._wanted = {_key(crash_id, row) for crash_id in small for row in crashes[crash_id]}
        self._kinds = {row[0] for rows in crashes.values() for row in rows}
        self._stream: Generator[tuple[_Version, bytes]] | None = None
        self._crashes: Iterator[tuple[str, _Rows]] = iter(())  # what comes in it
        self._last = ""  # of the crashes in it
        self._reached = ""  # the crash that has come last
        self._kept: deque[dict[_Version, bytes]] = deque()  # for each crash, the last one last
        self._lock = Lock()

    def parts(self, crash_id: str, rows: Sequence[Row]) -> list[Part]:
        """Return the parts that these rows hold.

        :raises CorruptCrash: a chunk is missing
        """
        parts = [
            self._part(crash_id, kind, name, list(chunks))
            for (kind, name), chunks in groupby(rows, key=lambda row: row[:2])
        ]
        return sorted(parts, key=lambda part: _ORDER[part.kind])

    def _part(self, crash_id: str, kind: Kind, name: str, rows: list[Row]) -> Part:
        if [row[2] for row in rows] != list(range(len(rows))):
            reason = f"{name or kind}: a piece of it is missing"
            raise CorruptCrash(reason, crash_id=crash_id, uri=self._uri)
        if any(row[3] > ROW for row in rows):  # it would be in memory as a whole
            reason = f"{name or kind}: a piece of it is too large"
            raise CorruptCrash(reason, crash_id=crash_id, uri=self._uri)
        opener = partial(self._open, crash_id, rows)
        locate = partial(self._reader.location, kind, name)
        size, versions = sum(row[3] for row in rows), tuple(row[4] for row in rows)
        return Part(kind, name, opener, size, locate=locate, version=versions)

    def _open(self, crash_id: str, rows: list[Row]) -> BinaryIO:
        if len(rows) == 1:
            return io.BytesIO(self.read(crash_id, rows[0]))
        return file_of_chunks(self.read(crash_id, row) for row in rows)

    def read(self, crash_id: str, row: Row) -> bytes:
        if self._pid == os.getpid():  # a forked process has no part in the stream
            with self._lock:
                data = self._streamed(crash_id, row)
            if data is not None:
                return data
        return self._reader.chunk(crash_id, row)

    def _streamed(self, crash_id: str, row: Row) -> bytes | None:
        """Return the bytes in a row that has come; None where another statement has to ask for
        them, and may."""
        if crash_id > self._reached and crash_id in self._small:
            self._go_on_to(crash_id)
        key = _key(crash_id, row)
        for rows in self._kept:
            if key in rows:
                return rows[key]
        if self._stream and getgeneratorstate(self._stream) != GEN_CLOSED:
            self._stream.close()
            self._small = []  # or it would be begun, and closed, for each of them
        return None

    def _go_on_to(self, crash_id: str) -> None:
        """Take from the stream until this crash has come, or is not there any more."""
        if crash_id > self._last:
            self._begin_at(crash_id)
        while self._reached < crash_id and (found := next(self._crashes, None)):
            self._reached, rows = found
            self._kept.append({key: data for key, data in rows if key in self._wanted})
            self._forget()

    def _begin_at(self, crash_id: str) -> None:
        """Begin a stream, which ends by itself when the last crash in it is read."""
        if self._stream:
            self._stream.close()
        following = self._small[bisect_left(self._small, crash_id) :]
        larger = next((other for other in self._large if other > crash_id), None)
        ids = [other for other in following if larger is None or other < larger]
        self._last = ids[-1]
        self._stream = self._reader.stream(ids, self._kinds)
        self._crashes = groupby(self._stream, key=lambda row: row[0][0])

    def _forget(self) -> None:
        """Keep of what has come no more than a crash may have.

        A crash that is saved in several stores at a time is read several times.
        """
        sizes = [sum(map(len, rows.values())) for rows in self._kept]
        while len(self._kept) > 1 and sum(sizes) > _SMALL:
            self._kept.popleft()
            del sizes[0]


def _key(crash_id: str, row: Row) -> _Version:
    kind, name, chunk, _, version = row
    return crash_id, kind, name, chunk, version
