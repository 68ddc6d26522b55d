# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Rows as they come, of one query in a transaction of its own.

psycopg streams only outside of pipelines, and so a transaction would take three round trips.  It
would also stay open, and its locks, until the last row is read; a server with
``idle_in_transaction_session_timeout`` would break it off, and so would a standby.  Here the end of
the transaction is sent with the query: the server ends it as soon as it has sent the last row.
"""

from collections.abc import Iterator, Sequence

import psycopg
from psycopg import errors, generators
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

from crashmover.external.postgresql.connection import Connection

_BEGIN, _COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED", b"COMMIT"


def stream(
    connection: Connection, query: bytes, parameters: Sequence[bytes]
) -> Iterator[tuple[bytes, ...]]:
    """Yield the rows of a query, each as soon as it comes.

    If the iterator is dropped before its end, the connection must be closed.

    :param query: with ``$1``, ``$2`` ... for its parameters
    :param parameters: as text; none of them is NULL
    :return: the values of a row, in the binary format of their types; b"" for NULL
    :raises psycopg.Error: the server ends the query early, or goes away
    """
    libpq = connection.pgconn
    libpq.enter_pipeline_mode()
    libpq.send_query_params(_BEGIN, None)
    libpq.send_query_params(query, parameters, result_format=Format.BINARY)
    libpq.send_query_params(_COMMIT, None)
    libpq.pipeline_sync()
    try:
        connection.wait(generators.send(libpq))
        _require_success(connection)
        libpq.set_single_row_mode()
        while row := _next_row(connection):
            yield tuple(row.get_value(0, column) or b"" for column in range(row.nfields))
        _require_success(connection)
    except psycopg.Error:
        _leave_pipeline(connection)
        raise
    _leave_pipeline(connection)


def _next_row(connection: Connection) -> PGresult | None:
    """Return a row; None after the last one."""
    result = _next_result(connection)
    if result.status == ExecStatus.SINGLE_TUPLE:
        return result
    _require_end(connection)
    return None


def _require_success(connection: Connection) -> None:
    """Take the answer to a statement without rows."""
    _next_result(connection)
    _require_end(connection)


def _next_result(connection: Connection) -> PGresult:
    result: PGresult | None = connection.wait(generators.fetch(connection.pgconn))
    if result is None:
        raise psycopg.OperationalError("the server sent no answer to a statement")
    if result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
        raise errors.error_from_result(result)
    return result


def _require_end(connection: Connection) -> None:
    """Take the end of the answer to one statement, as libpq has it in a pipeline."""
    if connection.wait(generators.fetch(connection.pgconn)):
        raise psycopg.OperationalError("the server sent two answers to one statement")


def _leave_pipeline(connection: Connection) -> None:
    """Take all answers that are left, as far as they come."""
    libpq = connection.pgconn
    while libpq.status == ConnStatus.OK:
        result = connection.wait(generators.fetch(libpq))
        if result and result.status == ExecStatus.PIPELINE_SYNC:
            libpq.exit_pipeline_mode()
            return
