# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Connection: nothing on it outlives a transaction, or depends on what a session is set to.

A pooler in transaction mode gives each transaction another server connection, which other clients
had before and have after.  So nothing is prepared by a name: another client may have a statement
of that name, and the server would execute that one.  Nothing is set for a session either.
"""

from collections.abc import Generator
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import Params, Query
from psycopg.pq import Format, PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow

from crashmover.external.postgresql.pgerrors import DeadlineExceeded

TIMEOUT = 30.0
"""Seconds that a call may take, if the URI does not say otherwise."""

T = TypeVar("T")


class BinaryCursor(psycopg.Cursor[TupleRow]):
    """A cursor whose results come in binary.

    As text they would depend on ``DateStyle``, ``IntervalStyle``, ``bytea_output`` and
    ``extra_float_digits``, which a role or a database may set.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY


class BinaryServerCursor(psycopg.ServerCursor[TupleRow]):
    """A cursor on the server, whose results come in binary, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY


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
        self.prepare_threshold = None
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
        execute = partial(
            self.cursor().execute,
            query,
            params,
            prepare=prepare,
            binary=binary,
        )
        if self._is_in_transaction():
            return execute()
        with self.pipeline(), self.transaction():
            cursor = execute()
        return cursor

    def run_script(self, script: str) -> None:
        """Execute statements without parameters, separated by semicolons, in the transaction that
        there is."""
        self.cursor().execute(script.encode(), binary=False)

    def _is_in_transaction(self) -> bool:
        is_idle = self.info.transaction_status is TransactionStatus.IDLE
        # In a pipeline the status is that of the last answer, and BEGIN may wait for its own.
        return not is_idle or self.info.pipeline_status is not PipelineStatus.OFF

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
                raise DeadlineExceeded("no answer in time")
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
