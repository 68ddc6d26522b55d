# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""SQLiteCrashQueue: the embedded queue, one file that many processes share."""

import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Self

from crashmover.errors import InvalidURI, QueueError, QueueUnavailable
from crashmover.external.crashqueue_base import CrashQueueBase, Delivery, Message, QueueName
from crashmover.uri import StorageURI, refuse_tilde, seconds

logger = logging.getLogger(__name__)

_BUSY = 20.0  # seconds to wait for another process that writes

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    visible_at REAL NOT NULL,             -- seconds since 1970; later than now: leased
    deliveries INTEGER NOT NULL DEFAULT 0 -- how often it was handed out
);
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (queue, visible_at, id);
"""

_SEND = "INSERT INTO messages (queue, body, visible_at) VALUES (?, ?, ?)"

# Those that were given back wait behind those that have not been handed out yet.
_TAKE = """
UPDATE messages SET visible_at = ?, deliveries = deliveries + 1
WHERE id IN (
    SELECT id FROM messages WHERE queue = ? AND visible_at <= ? AND length(body) <= ?
    ORDER BY visible_at, id LIMIT ?
)
RETURNING id, CAST(body AS BLOB), deliveries -- a body is of whatever type it was put there as
"""

_LONG = "SELECT length(body) FROM messages WHERE queue = ? AND visible_at <= ? AND length(body) > ?"

# What is longer than any crash id is taken when nothing else is there, and few at a time: all of
# it is in memory then.  What is longer than messages are anywhere is not touched.
_USUAL = 1 << 10  # bytes
_FEW = 4
_LONGEST = 10 << 20


class SQLiteCrashQueue(CrashQueueBase):
    """Queues in an SQLite file.  Processes of one machine may share it; a network file
    system is no place for it.

    :param path: of the file
    :param lease: seconds until a delivery that is not extended is handed out again
    :param quarantine: the file for malformed messages
    """

    def __init__(
        self, path: str | Path, *, lease: float = 60.0, quarantine: str | None = None
    ) -> None:
        super().__init__(quarantine)
        self.uri = f"sqlite:{path}"
        self.lease = self.first_lease = lease
        self._path = str(path)
        self._connection: sqlite3.Connection | None = None
        self._in_use = Lock()
        self._has_long = False

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``sqlite:///var/lib/crashmover/queue.db?lease=60``."""
        uri.refuse("host", "user", "password", "port")
        if not uri.path or uri.path.endswith("/"):
            raise InvalidURI("sqlite: the path of a file is missing: sqlite:///DIRECTORY/FILE")
        queue = cls(uri.path, **uri.options(lease=seconds, quarantine=refuse_tilde))
        queue.uri = str(uri)
        return queue

    def create(self) -> list[str]:
        """Make the file, its tables, and the directories above it."""
        there = Path(self._path).exists()
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QueueError(f"{self.uri}: {error.strerror}") from error
        with self._translated(), self._in_use:
            connection = self._connect("rwc")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
        return [] if there else [self._path]

    def verify_access(self) -> None:
        """As the base class says."""
        with self._transaction() as connection:
            connection.execute("SELECT id FROM messages LIMIT 1")

    def diagnose(self) -> list[str]:
        """As the base class says; what is published is taken back in the same transaction."""
        with self._transaction() as connection:
            connection.execute("SELECT id FROM messages LIMIT 1")
            connection.execute("SAVEPOINT probe")
            connection.execute(_SEND, (QueueName.STANDARD.value, b"", time.time()))
            connection.execute("ROLLBACK TO probe")
        if self.lease < _BUSY:
            return [f"a lease of {self.lease:g} s may end while another process keeps it busy"]
        return []

    def send_messages(self, queue: QueueName, bodies: Sequence[bytes]) -> None:
        """As the base class says: they are on the disk when this returns."""
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(_SEND, [(queue.value, body, now) for body in bodies])

    def receive_messages(
        self, queues: Sequence[QueueName], max_messages: int, wait: float
    ) -> list[Delivery]:
        """As the base class says; what is malformed is no reason to say that there is nothing."""
        while True:
            messages = self._take(queues, max_messages)
            deliveries = self.accept(messages)
            if deliveries or not messages:
                return deliveries

    def _take(self, queues: Sequence[QueueName], max_messages: int) -> list[Message]:
        messages: list[Message] = []
        with self._transaction() as connection:
            now = time.time()
            for longest, most in ((_USUAL, max_messages), (_LONGEST, min(max_messages, _FEW))):
                for queue in queues:
                    values = (now + self.lease, queue.value, now, longest, most - len(messages))
                    messages += [
                        Message(queue, body, (number, attempt), attempt)
                        for number, body, attempt in sorted(connection.execute(_TAKE, values))
                    ]
                if messages:
                    return messages
            self._notice_long(connection, queues, now)
        return messages

    def _notice_long(
        self, connection: sqlite3.Connection, queues: Sequence[QueueName], now: float
    ) -> None:
        """Say, once, that nothing is left but what is too long for a message."""
        for queue in queues:
            found = connection.execute(_LONG, (queue.value, now, _LONGEST)).fetchone()
            if found and not self._has_long:
                self._has_long = True
                where = f"{self.uri}: {queue}"
                logger.warning("%s: a malformed message of %d bytes stays there", where, *found)

    def ack_messages(self, deliveries: Sequence[Delivery]) -> int:
        """As the base class says; one that was handed out again since is left alone."""
        return self._change("DELETE FROM messages WHERE id = ? AND deliveries = ?", deliveries)

    def nack_messages(self, deliveries: Sequence[Delivery]) -> None:
        """As the base class says."""
        self._move(deliveries, time.time())

    def extend_messages(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """As the base class says."""
        self._move(deliveries, time.time() + seconds)

    def close(self) -> None:
        """As the base class says."""
        with self._in_use:
            if self._connection:
                self._connection.close()
            self._connection = None

    def _move(self, deliveries: Sequence[Delivery], when: float) -> None:
        update = f"UPDATE messages SET visible_at = {when!r} WHERE id = ? AND deliveries = ?"
        self._change(update, deliveries)

    def _change(self, statement: str, deliveries: Sequence[Delivery]) -> int:
        handles = [delivery.handle for delivery in deliveries]
        with self._transaction() as connection:
            done = connection.executemany(statement, handles)  # type: ignore[arg-type]
        return len(handles) - done.rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._in_use:
            connection = self._connection or self._connect("rw")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{Path(self._path).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )
        # What was published, and confirmed, survives a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        self._connection = connection
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise QueueUnavailable(f"{self.uri}: another process keeps it busy") from error
            if "no such table" in str(error) or not Path(self._path).exists():
                raise QueueError(f"{self.uri}: no such queue; --create makes it") from error
            raise QueueError(f"{self.uri}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise QueueError(f"{self.uri}: {error}") from error
