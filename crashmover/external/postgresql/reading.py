# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A crash as it lies in the table: which rows it has, and the parts that are in them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, BinaryIO, cast

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.postgresql.connection_context import ConnectionContext

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOAD = """
    SELECT kind, name, chunk, octet_length(data), xmin::text
    FROM {}.crash_parts
    WHERE crash_id = %s AND date_processed = %s AND kind = ANY(%s)
    ORDER BY kind, name, chunk
"""

CHUNK = """
    SELECT data FROM {}.crash_parts
    WHERE crash_id = %s AND date_processed = %s AND kind = %s AND name = %s AND chunk = %s
    AND xmin::text = %s
"""

Row = tuple[str, str, int, int, str]


@dataclass(frozen=True)
class Reader:
    """Makes parts of rows.

    A row says by ``xmin`` which transaction has put it there; a row that another has put in
    its place since is not read.

    :param context: of the database
    :param query: `CHUNK`, with the schema in it
    :param key: the crash's id and date, as the table has them
    """

    context: ConnectionContext
    query: bytes
    crash_id: str
    key: tuple[object, object]

    def parts(self, rows: Sequence[Row]) -> list[Part]:
        """Return the parts that these rows hold.

        :param rows: as `LOAD` gives them
        :raises CorruptCrash: a chunk is missing
        """
        parts = [
            self._part(Kind(kind), name, list(chunks))
            for (kind, name), chunks in groupby(rows, key=lambda row: row[:2])
        ]
        return sorted(parts, key=lambda part: list(Kind).index(part.kind))

    def _part(self, kind: Kind, name: str, rows: list[Row]) -> Part:
        if [row[2] for row in rows] != list(range(len(rows))):
            reason = f"{name or kind}: a piece of it is missing"
            raise CorruptCrash(reason, crash_id=self.crash_id, uri=self.context.uri)
        return Part(kind, name, partial(self._open, rows), sum(row[3] for row in rows))

    def _open(self, rows: list[Row]) -> BinaryIO:
        if len(rows) == 1:
            return io.BytesIO(self.read(rows[0]))
        return cast(BinaryIO, _Chunks(self, rows))

    def read(self, row: Row) -> bytes:
        """Return the bytes in a row.

        :raises StorageUnavailable: it is not there any more
        """
        kind, name, chunk, _, version = row
        with self.context(self.crash_id) as connection:
            found = connection.execute(
                self.query, (*self.key, kind, name, chunk, version), binary=True
            ).fetchone()
        if found is None:
            reason = "it was replaced or removed while it was read"
            raise StorageUnavailable(reason, crash_id=self.crash_id, uri=self.context.uri)
        return bytes(found[0])


class _Chunks(io.RawIOBase):
    """A part of several rows, one in memory at a time."""

    def __init__(self, reader: Reader, rows: list[Row]) -> None:
        self._reader = reader
        self._rows = iter(rows)
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        while not self._chunk:
            row = next(self._rows, None)
            if row is None:
                return 0
            self._chunk = memoryview(self._reader.read(row))
        count = min(len(view), len(self._chunk))
        view[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count
