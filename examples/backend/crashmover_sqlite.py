# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes in one SQLite file: ``sqlite:///var/lib/crashes.db``."""

import datetime as dt
import os
import sqlite3
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from typing import Self
from uuid import uuid4

from crashmover import (
    ALL_KINDS,
    Crash,
    CrashStorageBase,
    Kind,
    Part,
    StorageURI,
    Store,
    Tuning,
    crashid,
    errors,
)
from crashmover.external.roles import check_listing, results_of
from crashmover.uri import seconds

SCHEMA = """
    BEGIN EXCLUSIVE;
    CREATE TABLE IF NOT EXISTS pieces (  -- of parts, each of which ends with an empty one
        day TEXT, crash_id TEXT, kind TEXT, name TEXT, place INTEGER, body BLOB, save TEXT,
        PRIMARY KEY (day, crash_id, kind, name, place)
    );
    COMMIT;
    PRAGMA journal_mode = WAL;  -- who reads and who saves do not wait for each other
    PRAGMA synchronous = FULL;  -- what is committed survives a power cut
"""
OF_CRASH = "FROM pieces WHERE day = ? AND crash_id = ?"
OF_PART = f"{OF_CRASH} AND kind = ? AND name = ?"
PARTS = f"SELECT kind, name, save, sum(length(body)) {OF_CRASH} GROUP BY kind, name, save"
BODIES = f"SELECT body {OF_PART} AND save = ? ORDER BY place"
INSERT = "INSERT INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?)"
CRASHES = """
    SELECT crash_id FROM pieces WHERE kind = ? AND place = 0 AND day BETWEEN ? AND ?
    ORDER BY day, crash_id
"""
MEANING: dict[int, type[errors.StorageError]] = {
    sqlite3.SQLITE_BUSY: errors.StorageUnavailable,  # which is tried again, and nothing else is
    sqlite3.SQLITE_CANTOPEN: errors.StorageDenied,
    sqlite3.SQLITE_NOTADB: errors.StorageDenied,
    sqlite3.SQLITE_READONLY: errors.StorageDenied,
}


class SQLiteCrashStorage(CrashStorageBase):
    """Saves each crash in one transaction: there is all of it, or nothing.

    :param path: of the file, which the first save makes
    :param timeout: seconds to wait while others save
    """

    tuning = Tuning(savers=1)  # SQLite lets one save at a time

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self.uri = f"sqlite:{path}"
        self._path = os.path.abspath(path)
        self._timeout = timeout

    # What every backend writes

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """The query has the keywords of the class: ``sqlite:///var/lib/crashes.db?timeout=5``."""
        uri.refuse("host", "user", "password", "port")
        if not uri.path or uri.path.endswith("/"):
            raise errors.InvalidURI("sqlite: no file is named: sqlite:///DIRECTORY/FILE")
        return cls(uri.path, **uri.options(timeout=seconds))

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """Reads no bodies: a part is read when somebody opens it."""
        key = _key(crash_id)
        with self._transaction(crash_id) as database:
            rows = database.execute(PARTS, key).fetchall()
        self.require_marker(crash_id, kinds, [kind for kind, *_ in rows])
        parts = [
            Part.of_chunks(
                Kind(kind), partial(self._read, *key, kind, name, save), name, size, save
            )
            for kind, name, save, size in rows
            if kind in kinds
        ]
        return Crash(crash_id, parts)

    def save_crash(self, crash: Crash) -> None:
        """A raw crash replaces the raw crash and all dumps; another part, only itself."""
        self._save(crash, create=False)

    def remove(self, crash_id: str) -> None:
        """All of this crash, and nothing of any other."""
        key = _key(crash_id)
        with self._transaction(crash_id, write=self._is_there()) as database:
            if not database.execute(f"DELETE {OF_CRASH}", key).rowcount:
                raise errors.CrashIDNotFound(crash_id, uri=self.uri)

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """By day and id, one at a time; both days are included."""
        kind = check_listing(since, until, kind)
        which = [kind, str(since or dt.date.min), str(until or dt.date.max)]
        with self._transaction() as database:
            for (crash_id,) in database.execute(CRASHES, which):
                yield crash_id

    # What the base class has, and this one has better

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """As saving, but replacing no raw crash and no dump: nobody can come in between."""
        return results_of(partial(self._save, create=True), crashes)

    def verify_access(self, *, write: bool = False) -> None:
        """Whether it can be used.  Nothing is made or written: ``--dry-run`` asks, too."""
        directory = os.path.dirname(self._path)
        if write and not os.access(directory, os.W_OK):
            raise errors.StorageDenied(f"{directory} cannot be written to", uri=self.uri)
        if not write and not self._is_there():
            raise errors.StorageDenied("there is no such file", uri=self.uri)
        next(self.new_crashes(), None)  # or it is no database

    def identity(self) -> object:
        """The file, by whatever path: what a plain copy goes by."""
        return "sqlite", os.path.realpath(self._path)

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        """Whether a mark that is put into this file is seen in the other; no reader looks there."""
        if not isinstance(other, SQLiteCrashStorage):
            return None
        if self.identity() == other.identity():
            return True
        if not probe:
            return None
        mark = ["", uuid4().hex, "mark", ""]
        with self._transaction(write=True) as database:
            database.execute(INSERT, [*mark, 0, b"", ""])
        try:
            with other._transaction() as database:
                return database.execute(f"SELECT 1 {OF_PART}", mark).fetchone() is not None
        finally:
            with self._transaction(write=True) as database:
                database.execute(f"DELETE {OF_PART}", mark)

    # How

    def _save(self, crash: Crash, *, create: bool) -> None:
        if not crash.parts:
            raise errors.CrashMoverError(f"{crash.crash_id}: nothing to save")
        key, new, save = _key(crash.crash_id), {part.key for part in crash.parts}, uuid4().hex
        raw, processed = (Kind.RAW_CRASH, ""), (Kind.PROCESSED_CRASH, "")
        with self._transaction(crash.crash_id, write=True) as database:
            old = {(Kind(kind), name) for kind, name, *_ in database.execute(PARTS, key)}
            if create and new & old - {processed}:
                raise errors.CrashExists(crash.crash_id, uri=self.uri)
            if crash.dumps and raw not in new | old:
                raise errors.CrashIDNotFound(crash.crash_id, uri=self.uri)
            replaced = new | old - {processed} if raw in new else new
            database.executemany(f"DELETE {OF_PART}", [(*key, *part) for part in replaced])
            for part in crash.parts:
                pieces = enumerate(chain(part.chunks(), [b""]))
                database.executemany(INSERT, ((*key, *part.key, *piece, save) for piece in pieces))

    def _read(self, day: str, crash_id: str, *part: str) -> Iterator[bytes]:
        body = None
        with self._transaction(crash_id) as database:
            for (body,) in database.execute(BODIES, [day, crash_id, *part]):
                yield body
        if body is None:
            reason = "it was replaced or removed while it was read"
            raise errors.StorageUnavailable(reason, crash_id=crash_id, uri=self.uri)

    def _is_there(self) -> bool:
        """SQLite makes an empty file, and then at once what SCHEMA says."""
        return os.path.exists(self._path) and os.path.getsize(self._path) > 0

    @contextmanager
    def _transaction(
        self, crash_id: str | None = None, *, write: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """Lend a connection.  What SQLite raises is translated here, and nowhere else."""
        path = self._path if write or self._is_there() else ":memory:"  # reading makes nothing
        try:
            with closing(sqlite3.connect(path, self._timeout, check_same_thread=False)) as database:
                if write or path == ":memory:":
                    database.executescript(SCHEMA)
                with database:
                    database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    yield database
        except sqlite3.Error as error:
            kind = MEANING.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, errors.StorageError)
            raise kind(str(error), crash_id=crash_id, uri=self.uri) from error


def _key(crash_id: str) -> tuple[str, str]:
    return str(crashid.date_of(crashid.validate(crash_id))), crash_id
