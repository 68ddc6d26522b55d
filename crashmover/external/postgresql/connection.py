# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Connection: nothing on it outlives a transaction, or depends on what a session is set to.

A pooler in transaction mode gives each transaction another server connection, which other clients
had before and have after.  So nothing is prepared by a name: another client may have a statement
of that name, and the server would execute that one.  Nothing is set for a session either.
"""

from __future__ import annotations  # psycopg 3.2.1 has strings for some types

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import Params, Query
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import TupleRow

from crashmover.external.postgresql.pgerrors import DeadlineExceeded
from crashmover.external.postgresql.round_trip import RoundTrip, round_trip

TIMEOUT = 30.0
"""Seconds that a call may take, if the URI does not say otherwise."""

_NO_ANSWER = (
    "no answer in time: another session may keep a lock (pg_locks tells which), or the server hangs"
)

# It warns of what fails while something that failed is tidied up; that is raised anyway.
logging.getLogger("psycopg").setLevel(logging.ERROR)

T = TypeVar("T")


class BinaryCursor(psycopg.Cursor[TupleRow]):
    """A cursor whose results come in binary.

    As text they would depend on ``DateStyle``, ``IntervalStyle``, ``bytea_output`` and
    ``extra_float_digits``, which a role or a database may set.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY

    def execute_alone(self, query: Query, params: Params | None, binary: bool) -> Self:
        """Execute a statement in a transaction of its own, in one round trip."""
        with round_trip(self._conn) as trip:
            self.send(trip, query, params, binary)
            result = self._conn.wait(trip.end())
        self._set_results([result])
        return self

    def send(self, trip: RoundTrip, query: Query, params: Params | None, binary: bool) -> None:
        """Send a statement, whose result is the trip's to take."""
        self._conn.wait(self._start_query(query))
        converted = self._convert_query(query, params)
        result_format = Format.BINARY if binary else Format.TEXT
        trip.send(
            converted.query, converted.params, converted.types, converted.formats, result_format
        )


class BinaryServerCursor(psycopg.ServerCursor[TupleRow]):
    """A cursor on the server, whose results come in binary, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY


def connect(conninfo: Mapping[str, str]) -> Connection:
    """Connect.

    :param conninfo: libpq's parameters
    :raises psycopg.OperationalError: that cannot be done
    """
    options: dict[str, Any] = {**conninfo, "autocommit": True, "prepare_threshold": None}
    return Connection.connect(**options)


class Connection(psycopg.Connection[TupleRow]):
    """A connection on which every call ends at a deadline, and every statement is in a
    transaction of the level ``READ COMMITTED``.

    With another default of the role or the database, a transaction would see nothing of what was
    committed while it waited for a lock, and a standby would refuse ``serializable``.
    """

    timeout = TIMEOUT
    """Seconds.  A server that is stopped, or a network that loses packets, would hang a call for
    ever: the settings of libpq and of TCP do not cover it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trip: RoundTrip | None = None
        self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        self.cursor_factory = BinaryCursor
        self.server_cursor_factory = BinaryServerCursor

    def execute(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = False,
        binary: bool = True,
    ) -> psycopg.Cursor[TupleRow]:
        """Execute one statement: in a transaction of its own, unless there is one already.

        That takes one round trip: the statements that begin and end it are sent with it.
        """
        cursor = BinaryCursor(self)
        if self._trip:
            cursor.send(self._trip, query, params, binary)
            return cursor
        if self.info.transaction_status is TransactionStatus.IDLE:
            return cursor.execute_alone(query, params, binary)
        # The overloads of psycopg have templates apart.
        return cursor.execute(query, params, prepare=prepare, binary=binary)  # type: ignore[arg-type]

    @contextmanager
    def in_two_round_trips(self) -> Iterator[None]:
        """Send all statements of a transaction before the first answer is waited for; when all
        answers are there, commit.

        If the client is killed or gives up, the server carries out none of it: not even when a lock
        is let go that it waits for.  Errors are raised at the end.  What the statements return is
        dropped.
        """
        with round_trip(self) as trip:
            self._trip = trip
            try:
                yield
            finally:
                self._trip = None
            self.wait(trip.take_answers())
        self.commit()

    def run_script(self, script: str) -> None:
        """Execute statements without parameters, separated by semicolons, in the transaction that
        there is."""
        self.cursor().execute(script.encode(), binary=False)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait for an answer.

        :raises DeadlineExceeded: it does not come within `timeout`; the connection is closed
        """
        try:
            return super().wait(_until(monotonic() + self.timeout, gen), *args, **kwargs)
        except DeadlineExceeded:
            self.close()
            raise


def _until(deadline: float, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """Pass everything on; psycopg, which drives it, comes back at least every 0.1 seconds."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if monotonic() > deadline:
                raise DeadlineExceeded(_NO_ANSWER)
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
