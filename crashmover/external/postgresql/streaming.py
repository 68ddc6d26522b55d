# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Rows as they come, of one query in a transaction of its own.

psycopg streams only outside of pipelines.  So a transaction would stay open, and its locks, until
the last row is read, and a server with ``idle_in_transaction_session_timeout`` would break it off.
A standby would, too.  Here the server ends the transaction as soon as it has sent the last row.
"""

from collections.abc import Iterator, Sequence

from psycopg.pq import ExecStatus

from crashmover.external.postgresql.connection import Connection
from crashmover.external.postgresql.round_trip import round_trip


def stream(
    connection: Connection, query: bytes, parameters: Sequence[bytes]
) -> Iterator[tuple[bytes, ...]]:
    """Yield the rows of a query, each as soon as it comes.

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
