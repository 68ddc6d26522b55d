# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes as they lie in the table: which rows they have, and the parts that are in them."""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from itertools import groupby
from threading import Lock
from typing import Any, BinaryIO, LiteralString, cast
from uuid import UUID

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.postgresql.connection_context import ConnectionContext
from crashmover.external.postgresql.saving import ROW
from crashmover.external.postgresql.tables import key_of
from crashmover.partfiles import file_of_chunks

_LOAD: LiteralString = """
    SELECT crash_id, kind, name, chunk, octet_length(data), xmin::text
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
    SELECT crash_id, kind, name, chunk, xmin::text, data FROM {}.crash_parts
    WHERE crash_id = ANY(%s) AND date_processed = ANY(%s) AND kind = ANY(%s)
"""

_AT_ONCE = 1 << 20
"""Bytes of crashes that are fetched by one query, and kept until they are asked for."""

Row = tuple[str, str, int, int, str]
"""Kind, name, chunk, bytes, version."""

_Version = tuple[UUID, str, str, int, str]


class Reader:
    """Finds crashes and makes parts of their rows.

    A row says by ``xmin`` which transaction has put it there; a row that another has put in
    its place since is not read.

    :param context: of the database
    :param sql: puts the schema in a statement
    :param schema: its name
    """

    def __init__(
        self, context: ConnectionContext, sql: Callable[[LiteralString], bytes], schema: str
    ) -> None:
        self.context = context
        self._sql = sql
        self._schema = schema

    def location(self, kind: Kind, name: str) -> str:
        """Say which of a crash's rows hold a part, to whoever knows SQL."""
        named = f" name='{name}'" if name else ""
        return f"{self._schema}.crash_parts kind='{kind}'{named}"

    def rows(self, crash_ids: Sequence[str], kinds: Set[Kind]) -> dict[UUID, list[Row]]:
        """Return the rows that each of these crashes has; none where it has none."""
        found: dict[UUID, list[Row]] = defaultdict(list)
        for crash_id, *row in self._fetch(_LOAD, crash_ids, kinds):
            found[crash_id].append(cast(Row, tuple(row)))
        return found

    def chunk(self, crash_id: str, row: Row) -> bytes:
        """Return the bytes in a row.

        :raises StorageUnavailable: it is not there any more
        """
        kind, name, chunk, _, version = row
        with self.context(crash_id) as connection:
            found = connection.execute(
                self._sql(_CHUNK), (*key_of(crash_id), kind, name, chunk, version), binary=True
            ).fetchone()
        if found is None:
            reason = "it was replaced or removed while it was read"
            raise StorageUnavailable(reason, crash_id=crash_id, uri=self.context.uri)
        return bytes(found[0])

    def chunks(self, crash_ids: Sequence[str], kinds: Set[Kind]) -> dict[_Version, bytes]:
        """Return what is in all rows of these crashes now."""
        rows = self._fetch(_CRASHES, crash_ids, kinds)
        return {(*row[:4], row[4]): row[5] for row in rows}

    def _fetch(
        self, query: LiteralString, crash_ids: Sequence[str], kinds: Set[Kind]
    ) -> Iterable[Any]:
        keys = [key_of(crash_id) for crash_id in crash_ids]
        parameters = (
            [key[0] for key in keys],
            list({key[1] for key in keys}),
            [kind.value for kind in kinds],
        )
        with self.context(crash_ids[0] if len(crash_ids) == 1 else None) as connection:
            return connection.execute(self._sql(query), parameters, binary=True).fetchall()


class Reading:
    """Crashes that are read together, as a rule one after the other: the bytes of small ones
    come several crashes at a time.

    :param crashes: the rows of each
    """

    def __init__(self, reader: Reader, crashes: dict[str, list[Row]]) -> None:
        self._reader = reader
        self._uri = reader.context.uri
        self._sizes = {
            crash_id: sum(row[3] for row in rows) for crash_id, rows in sorted(crashes.items())
        }
        self._kinds = {Kind(row[0]) for rows in crashes.values() for row in rows}
        self._fetched: dict[_Version, bytes] = {}
        self._lock = Lock()

    def parts(self, crash_id: str, rows: Sequence[Row]) -> list[Part]:
        """Return the parts that these rows hold.

        :raises CorruptCrash: a chunk is missing
        """
        parts = [
            self._part(crash_id, Kind(kind), name, list(chunks))
            for (kind, name), chunks in groupby(rows, key=lambda row: row[:2])
        ]
        return sorted(parts, key=lambda part: list(Kind).index(part.kind))

    def _part(self, crash_id: str, kind: Kind, name: str, rows: list[Row]) -> Part:
        if [row[2] for row in rows] != list(range(len(rows))):
            reason = f"{name or kind}: a piece of it is missing"
            raise CorruptCrash(reason, crash_id=crash_id, uri=self._uri)
        if any(row[3] > ROW for row in rows):  # it would be in memory as a whole
            reason = f"{name or kind}: a piece of it is too large"
            raise CorruptCrash(reason, crash_id=crash_id, uri=self._uri)
        opener = partial(self._open, crash_id, rows)
        locate = partial(self._reader.location, kind, name)
        return Part(kind, name, opener, sum(row[3] for row in rows), locate=locate)

    def _open(self, crash_id: str, rows: list[Row]) -> BinaryIO:
        if len(rows) == 1:
            return io.BytesIO(self.read(crash_id, rows[0]))
        return file_of_chunks(self.read(crash_id, row) for row in rows)

    def read(self, crash_id: str, row: Row) -> bytes:
        """Return the bytes in a row; raises as `Reader.chunk`."""
        if len(self._sizes) == 1 or self._sizes[crash_id] > _AT_ONCE:
            return self._reader.chunk(crash_id, row)
        key = (UUID(crash_id), *row[:3], row[4])
        with self._lock:
            data = self._fetched.get(key)
            if data is None:
                self._fetched = {}  # before there is more: not both are in memory
                self._fetched = self._reader.chunks(self._next(crash_id), self._kinds)
                data = self._fetched.get(key)
        return self._reader.chunk(crash_id, row) if data is None else data

    def _next(self, crash_id: str) -> list[str]:
        """Return this crash and as many behind it as are fetched together with it."""
        found: list[str] = []
        room = _AT_ONCE
        for other, size in self._sizes.items():
            if other >= crash_id and size <= _AT_ONCE:
                room -= size
                if found and room < 0:
                    break
                found.append(other)
        return found
