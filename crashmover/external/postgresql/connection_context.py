# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""ConnectionContext: connections to a database, kept and lent."""

import os
import re
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Self

import psycopg
from psycopg.pq import Conninfo, TransactionStatus

from crashmover.errors import InvalidURI
from crashmover.external.postgresql.connection import TIMEOUT, Connection, connect
from crashmover.external.postgresql.lending import PATIENCE, Lending
from crashmover.external.postgresql.pgerrors import TOO_FEW, DeadlineExceeded, explain, is_full
from crashmover.external.translating import translating
from crashmover.uri import StorageURI

__all__ = ["TIMEOUT", "Connection", "ConnectionContext", "conninfo_of"]

_CONNECT_TIMEOUT = "10"


class ConnectionContext:
    """Lends connections: ``with context() as connection: ...``.  Safe for many threads; a
    context manager itself, which closes what is kept.

    A pool of our own, and small: psycopg_pool connects in the background and answers with a
    time-out, where its users want to know that the password is wrong.

    :param conninfo: libpq's parameters
    :param uri: what messages call the database
    :param timeout: seconds that a call may take
    """

    def __init__(
        self, conninfo: Mapping[str, str], uri: str = "postgresql:", timeout: float = TIMEOUT
    ) -> None:
        self.uri = uri
        connect_timeout = os.environ.get("PGCONNECT_TIMEOUT", _CONNECT_TIMEOUT)
        # A database of the encoding SQL_ASCII would answer with bytes where text is expected.
        self._conninfo = {"connect_timeout": connect_timeout, **conninfo, "client_encoding": "UTF8"}
        self._timeout = timeout
        self._lending = Lending()

    @contextmanager
    def __call__(self, crash_id: str | None = None) -> Iterator[Connection]:
        """Lend a connection, each statement on it a transaction of its own.

        :param crash_id: the crash that messages are about
        :raises StorageError: it cannot be had; or, instead of what psycopg raises, it failed
        """
        with self.translating(crash_id):
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)

    @contextmanager
    def transaction(self, crash_id: str | None = None) -> Iterator[Connection]:
        """Lend a connection in a transaction, which is committed at the end if all is well."""
        with self(crash_id) as connection, connection.transaction():
            yield connection

    def translating(self, crash_id: str | None = None) -> translating:
        """Raise a `StorageError` instead of what psycopg raises."""
        return translating(psycopg.Error, partial(explain, uri=self.uri, crash_id=crash_id))

    def close(self) -> None:
        """Close what is kept; what is lent is closed when it comes back."""
        for connection in self._lending.close():
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri}>"

    def _take(self) -> Connection:
        deadline = monotonic() + self._timeout
        while True:
            kept = self._lending.borrow(deadline)
            if kept and _is_alive(kept):
                return kept
            if kept:
                kept.close()
            try:
                return self._connect()
            except BaseException as error:
                full = isinstance(error, psycopg.Error) and is_full(error)
                if not self._lending.fail(is_full=full) or monotonic() > deadline:
                    raise

    def _connect(self) -> Connection:
        connection = connect(self._conninfo)
        patience = self._timeout if self._lending.is_only() else PATIENCE
        connection.timeout = min(patience, self._timeout)
        # A pooler lets in more clients than it has connections: the first answer tells.
        try:
            connection.execute("SELECT")
        except BaseException as error:
            connection.close()
            if isinstance(error, DeadlineExceeded):
                raise DeadlineExceeded(TOO_FEW) from error
            raise
        connection.timeout = self._timeout
        return connection

    def _give_back(self, connection: Connection) -> None:
        if connection.info.transaction_status is TransactionStatus.INERROR:
            with suppress(psycopg.Error):
                connection.rollback()
        usable = connection.info.transaction_status is TransactionStatus.IDLE
        if self._lending.give_back(connection, usable=usable):
            connection.close()


def _is_alive(connection: Connection) -> bool:
    """Return True if nothing has come from the server unasked: it says goodbye so."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def conninfo_of(uri: StorageURI, own: set[str]) -> dict[str, str]:
    """Return libpq's parameters in a URI.

    :param own: keys of its query that are not libpq's
    :raises InvalidURI: a key is unknown, or something is said twice
    """
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters = {key: value for key, value in uri.query.items() if key not in own}
    if unknown := sorted(parameters.keys() - known):
        options = ", ".join(sorted(own))
        raise InvalidURI(
            f"{uri.scheme}: unknown option {unknown[0][:40]!r}; there are {options}, and libpq's"
        )
    pieces = {"user": uri.user, "password": uri.password, "dbname": uri.path.strip("/")}
    pieces |= _hosts_and_ports(uri)
    if any("\0" in value for value in (*pieces.values(), *parameters.values())):
        raise InvalidURI(f"{uri.scheme}: there is a character in it that no value can have")
    for name, value in pieces.items():
        if value and name in parameters:
            raise InvalidURI(f"{uri.scheme}: {name} is given twice")
    return {name: value for name, value in pieces.items() if value} | parameters


def _hosts_and_ports(uri: StorageURI) -> dict[str, str]:
    """Several hosts are separated by commas, each with a port of its own or none."""
    if "," not in uri.host:
        return {"host": uri.host.strip("[]"), "port": str(uri.port or "")}
    pairs = [re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d*))?", item) for item in uri.host.split(",")]
    if not all(pairs):
        raise InvalidURI(f"{uri.scheme}: a host or a port is not one")
    hosts = [(pair[1].strip("[]"), pair[2] or "") for pair in pairs if pair]
    ports = ",".join(port for _, port in hosts)
    return {
        "host": ",".join(host for host, _ in hosts),
        "port": ports if ports.strip(",") else "",
    }
