# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""SQLiteCrashQueue: the embedded queue, one file that many processes share."""

import datetime as dt
import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Self

from crashmover.errors import InvalidURI, QueueError, QueueUnavailable
from crashmover.external.crashqueue_base import CrashQueueBase, Delivery, Message, QueueName
from crashmover.external.sqlite import statements
from crashmover.uri import StorageURI, count, refuse_tilde, seconds

logger = logging.getLogger(__name__)

MAX_DELIVERIES = 20
"""How often a crash id is handed out before it is given up, where nothing else is said."""

_BUSY = 20.0  # seconds to wait for another process that writes

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
    :param quarantine: the file for malformed messages, and for crash ids that are given up
    :param max_deliveries: how often a crash id is handed out before it is given up; 0: without an
        end.  What is given back unused does not count.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        lease: float = 60.0,
        quarantine: str | None = None,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> None:
        super().__init__(quarantine)
        self.max_deliveries = max_deliveries or None
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
        queue = cls(
            uri.path, **uri.options(lease=seconds, quarantine=refuse_tilde, max_deliveries=count)
        )
        queue.uri = str(uri)
        return queue

    def create(self) -> list[str]:
        there = Path(self._path).exists()
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QueueError(f"{self.uri}: {error.strerror}") from error
        with self._translated(), self._in_use:
            connection = self._connect("rwc")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(statements.SCHEMA)
        return [] if there else [self._path]

    def verify_access(self) -> None:
        with self._transaction() as connection:
            connection.execute("SELECT id FROM messages LIMIT 1")

    def diagnose(self) -> list[str]:
        """Try all of it; what is published is taken back in the same transaction."""
        with self._transaction() as connection:
            connection.execute("SELECT id FROM messages LIMIT 1")
            connection.execute("SAVEPOINT probe")
            connection.execute(statements.SEND, (QueueName.STANDARD.value, b""))
            connection.execute("ROLLBACK TO probe")
            now = {"now": time.time(), "lease": self.lease}
            ahead, seconds = connection.execute(statements.AHEAD, now).fetchone()
        warnings = []
        if self.lease < _BUSY:
            warnings.append(
                f"a lease of {self.lease:g} s may end while another process keeps it busy"
            )
        if ahead:
            by = dt.timedelta(seconds=round(seconds))
            warnings.append(
                f"{ahead} crash ids have a time that is up to {by} ahead: a clock was wrong, or is;"
                " they are handed out all the same"
            )
        return warnings

    def send_messages(self, queue: QueueName, bodies: Sequence[bytes]) -> None:
        """Send messages, which are on the disk when this returns."""
        with self._transaction() as connection:
            connection.executemany(statements.SEND, [(queue.value, body) for body in bodies])

    def receive_messages(
        self, queues: Sequence[QueueName], max_messages: int, wait: float
    ) -> list[Delivery]:
        """Receive messages; after malformed ones, look for others."""
        while True:
            messages = self._take(queues, max_messages)
            deliveries = self.accept(messages)
            if deliveries or not messages:
                return deliveries

    def _take(self, queues: Sequence[QueueName], max_messages: int) -> list[Message]:
        messages: list[Message] = []
        with self._transaction() as connection:
            times = {"now": time.time(), "lease": self.lease}
            for longest, most in ((_USUAL, max_messages), (_LONGEST, min(max_messages, _FEW))):
                for queue in queues:
                    room = most - len(messages)
                    values = {**times, "queue": queue.value, "longest": longest, "most": room}
                    messages += [
                        Message(queue, body, (number, deliveries), attempt)
                        for number, body, deliveries, attempt in sorted(
                            connection.execute(statements.TAKE, values)
                        )
                    ]
                if messages:
                    return messages
            self._notice_long(connection, queues, times)
        return messages

    def _notice_long(
        self, connection: sqlite3.Connection, queues: Sequence[QueueName], times: dict[str, float]
    ) -> None:
        """Say, once, that nothing is left but what is too long for a message."""
        for queue in queues:
            values = {**times, "queue": queue.value, "longest": _LONGEST}
            found = connection.execute(statements.LONG, values).fetchone()
            if found and not self._has_long:
                self._has_long = True
                where = f"{self.uri}: {queue}"
                logger.warning("%s: a malformed message of %d bytes stays there", where, *found)

    def ack_messages(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledge messages; one that was handed out again since is left alone."""
        return self._change(deliveries, statements.ACK)

    def nack_messages(self, deliveries: Sequence[Delivery]) -> None:
        """Put each behind all that has been published by now."""
        self._change(deliveries, statements.SEND_AGAIN, statements.ACK)

    def return_messages(self, deliveries: Sequence[Delivery]) -> None:
        """Give each the place in the queue that it had before."""
        self._change(deliveries, statements.GIVE_BACK)

    def extend_messages(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        until = time.time() + seconds
        self._change(deliveries, statements.EXTEND, until=until, lease=seconds)

    def close(self) -> None:
        super().close()
        with self._in_use:
            if self._connection:
                self._connection.close()
            self._connection = None

    def _change(self, deliveries: Sequence[Delivery], *changes: str, **values: float) -> int:
        """Carry out these statements, all or none; return how many deliveries were not ours."""
        handles: list[Any] = [delivery.handle for delivery in deliveries]
        rows = [{"id": number, "deliveries": count, **values} for number, count in handles]
        with self._transaction() as connection:
            for change in changes:
                done = connection.executemany(change, rows)
        return len(rows) - done.rowcount

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
        try:
            # What was published, and confirmed, survives a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            statements.upgrade(connection)
        except BaseException:
            connection.close()
            raise
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
