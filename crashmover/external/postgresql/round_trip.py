# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A transaction in one round trip: all its statements are sent before an answer is waited for.

psycopg would take three round trips, even in a pipeline.  If the server closes the connection,
psycopg also loses what the server said: here each answer is looked at as soon as it comes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg.abc import Buffer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

_BEGIN, _COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED", b"COMMIT"

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
        """Send a statement.

        :param query: with ``$1``, ``$2`` ... for its parameters
        :param types: the oids of their types; None: as the server finds
        :param formats: of the parameters; None: all are text
        """
        self._queue(query, params, types, formats, result_format)
        self._flush()

    def send_end(self) -> None:
        """Send the end of the transaction."""
        self._queue(_COMMIT)
        self._libpq.pipeline_sync()
        self._flush()

    def _queue(self, query: bytes, *more: Any) -> None:
        self._libpq.send_query_params(query, *(more or (None,)))
        self._expected += 1

    def _flush(self) -> None:
        self._connection.wait(generators.send(self._libpq))

    def require_success(self) -> None:
        """Take the answer to a statement, and drop its rows."""
        self.next_result()
        self.require_end()

    def next_result(self) -> PGresult:
        """Return the next answer to a statement.

        :raises psycopg.Error: the server refused the statement
        """
        result: PGresult | None = self._connection.wait(generators.fetch(self._libpq))
        if result is None:
            raise psycopg.OperationalError("the server sent no answer to a statement")
        if result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
            raise errors.error_from_result(result)
        return result

    def require_end(self) -> None:
        """Take the end of the answers to a statement, which libpq marks in a pipeline."""
        if self._connection.wait(generators.fetch(self._libpq)):
            raise psycopg.OperationalError("the server sent two answers to one statement")
        self._expected -= 1

    def finish(self) -> None:
        """Take all answers that are left."""
        while self._expected:
            self.require_success()
        self.leave()

    def leave(self) -> None:
        """Leave the pipeline, once all that is left has come, or the connection is lost."""
        while self._libpq.status == ConnStatus.OK:
            result = self._connection.wait(generators.fetch(self._libpq))
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
    """Begin a transaction.  In the context send its statements, and its end, and take answers as
    far as they are wanted.

    If an error leaves the transaction open, the caller has to roll it back.

    :raises psycopg.Error: the server refuses a statement, or goes away
    """
    trip = RoundTrip(connection)
    try:
        yield trip
        trip.finish()
    except psycopg.Error as error:
        if error.sqlstate is None and (said := trip.last_words()):
            raise said from None
        with suppress(psycopg.Error):
            trip.leave()
        raise
