# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A transaction in one round trip, or two: its statements are sent before an answer is waited for.

psycopg would take three round trips, even in a pipeline.  If the server closes the connection,
psycopg also loses what the server said: here each answer is looked at as soon as it comes.

psycopg streams rows only outside of pipelines, in a transaction that stays open, with its locks,
until the last row is read; a standby, or ``idle_in_transaction_session_timeout``, would break it
off.  Of a `stream` the server ends the transaction as soon as it has sent the last row.
"""

from __future__ import annotations  # psycopg 3.2.1 has strings for some types

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg.abc import Buffer, PQGen
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

_BEGIN, _COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED", b"COMMIT"

_LARGE = 1 << 14  # bytes that are sent at once; fewer wait for what comes next

Connection = psycopg.Connection[Any]


class RoundTrip:
    """Sends the statements of a transaction, then takes the answers to them in their order.

    :param connection: one that is in no transaction
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._expected = 0
        self._libpq.enter_pipeline_mode()
        self._queue(_BEGIN)

    def send(
        self,
        query: bytes,
        params: Sequence[Buffer | None] | None = None,
        types: Sequence[int] | None = None,
        formats: Sequence[int] | None = None,
        result_format: Format = Format.BINARY,
    ) -> None:
        """Send a statement, at the latest with the next one.

        :param query: with ``$1``, ``$2`` ... for its parameters
        :param types: the oids of their types; None: as the server finds
        :param formats: of the parameters; None: all are text
        """
        self._queue(query, params, types, formats, result_format)
        if sum(len(param) for param in params or () if param) > _LARGE:
            self._connection.wait(generators.send(self._libpq))

    def end(self) -> PQGen[PGresult]:
        """Send the end of the transaction, take all answers, and return that to the last statement
        before the end."""
        yield from self.send_end()
        answers = deque[PGresult](maxlen=2)
        while self._expected:
            answers.append((yield from self.success()))
        yield from self.leave()
        return answers[0]

    def send_end(self) -> PQGen[None]:
        self._queue(_COMMIT)
        self._libpq.pipeline_sync()
        yield from generators.send(self._libpq)

    def _queue(self, query: bytes, *more: Any) -> None:
        self._libpq.send_query_params(query, *(more or (None,)))
        self._expected += 1

    def success(self) -> PQGen[PGresult]:
        """Return the only answer to a statement."""
        result = yield from self.result()
        yield from self.end_of_results()
        return result

    def result(self) -> PQGen[PGresult]:
        """Return the next answer to a statement.

        :raises psycopg.Error: the server refused the statement
        """
        result: PGresult | None = yield from generators.fetch(self._libpq)
        if result is None:
            raise psycopg.OperationalError("the server sent no answer to a statement")
        if result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
            raise errors.error_from_result(result)
        return result

    def end_of_results(self) -> PQGen[None]:
        """Take the end of the answers to a statement, which libpq marks in a pipeline."""
        if (yield from generators.fetch(self._libpq)):
            raise psycopg.OperationalError("the server sent two answers to one statement")
        self._expected -= 1

    def take_answers(self) -> PQGen[None]:
        """Send what is left, take all answers, and leave the transaction open."""
        self._libpq.pipeline_sync()
        yield from generators.send(self._libpq)
        yield from self.finish()

    def finish(self) -> PQGen[None]:
        while self._expected:
            yield from self.success()
        yield from self.leave()

    def leave(self) -> PQGen[None]:
        """Leave the pipeline, once all answers that are left have come, whatever they are, or the
        connection is lost."""
        while self._libpq.status == ConnStatus.OK:
            result = yield from generators.fetch(self._libpq)
            if result and result.status == ExecStatus.PIPELINE_SYNC:
                self._libpq.exit_pipeline_mode()
                return

    def last_words(self) -> psycopg.Error | None:
        """Return what the server said before the connection was lost, if it was."""
        for _ in range(2 * self._expected if self._libpq.status == ConnStatus.BAD else 0):
            result = self._libpq.get_result()
            error = errors.error_from_result(result) if result else None
            if error and error.sqlstate:
                return error
        return None


@contextmanager
def round_trip(connection: Connection) -> Iterator[RoundTrip]:
    """Begin a transaction.  In the context send its statements, and its end, and take the answers.

    If an error leaves the transaction open, the caller has to roll it back.

    :raises psycopg.Error: the server refuses a statement, or goes away
    """
    trip = RoundTrip(connection)
    try:
        yield trip
    except psycopg.Error as error:
        if error.sqlstate is None and (said := trip.last_words()):
            raise said from None
        with suppress(psycopg.Error):
            connection.wait(trip.leave())
        raise


def stream(
    connection: Connection, query: bytes, parameters: Sequence[bytes]
) -> Iterator[tuple[bytes, ...]]:
    """Yield the rows of a query, each as soon as it comes, in a transaction of its own.

    If the iterator is dropped before its end, the caller has to close the connection.

    :param query: with ``$1``, ``$2`` ... for its parameters
    :param parameters: as text
    :return: the values of a row, in the binary format of their types; b"" for NULL
    :raises psycopg.Error: the server ends the query early, or goes away
    """
    with round_trip(connection) as trip:
        trip.send(query, parameters)
        connection.wait(trip.send_end())
        connection.wait(trip.success())  # that it has begun
        connection.pgconn.set_single_row_mode()
        while (row := connection.wait(trip.result())).status == ExecStatus.SINGLE_TUPLE:
            yield tuple(row.get_value(0, column) or b"" for column in range(row.nfields))
        connection.wait(trip.end_of_results())
        connection.wait(trip.finish())
