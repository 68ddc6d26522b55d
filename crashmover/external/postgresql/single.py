# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""One statement in a transaction of its own, in one round trip.

psycopg would take three.  If the server closes the connection, psycopg also loses what the server
said in a pipeline: here each answer is looked at as soon as it comes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg.abc import Buffer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

BEGIN, COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED", b"COMMIT"

Connection = psycopg.Connection[Any]


@contextmanager
def single(
    connection: Connection,
    query: bytes,
    params: Sequence[Buffer | None] | None,
    *,
    types: Sequence[int] | None = None,
    formats: Sequence[int] | None = None,
    result_format: Format = Format.BINARY,
) -> Iterator[None]:
    """Send a statement with the begin and the end of its transaction; the server need not wait for
    the client in between.  Within the context, take its answer, with `next_result` and
    `require_end`.

    If an error leaves a transaction open, the caller has to roll it back.

    :param query: with ``$1``, ``$2`` ... for its parameters
    :param types: the oids of their types; None: as the server finds
    :param formats: of the parameters; None: all are text
    :raises psycopg.Error: the server refuses it, or goes away
    """
    libpq = connection.pgconn
    libpq.enter_pipeline_mode()
    libpq.send_query_params(BEGIN, None)
    libpq.send_query_params(query, params, types, formats, result_format)
    libpq.send_query_params(COMMIT, None)
    libpq.pipeline_sync()
    try:
        connection.wait(generators.send(libpq))
        _require_success(connection)
        yield
        _require_success(connection)
        _leave_pipeline(connection)
    except psycopg.Error:
        with suppress(psycopg.Error):
            _leave_pipeline(connection)
        raise


def next_result(connection: Connection) -> PGresult:
    """Return the next answer to a statement."""
    result: PGresult | None = connection.wait(generators.fetch(connection.pgconn))
    if result is None:
        raise psycopg.OperationalError("the server sent no answer to a statement")
    if result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
        raise errors.error_from_result(result)
    return result


def require_end(connection: Connection) -> None:
    """Take the end of the answers to one statement, which libpq marks in a pipeline."""
    if connection.wait(generators.fetch(connection.pgconn)):
        raise psycopg.OperationalError("the server sent two answers to one statement")


def _require_success(connection: Connection) -> None:
    """Take the answer to a statement without rows."""
    next_result(connection)
    require_end(connection)


def _leave_pipeline(connection: Connection) -> None:
    """Take all answers that are left, as far as they come."""
    libpq = connection.pgconn
    while libpq.status == ConnStatus.OK:
        result = connection.wait(generators.fetch(libpq))
        if result and result.status == ExecStatus.PIPELINE_SYNC:
            libpq.exit_pipeline_mode()
            return
