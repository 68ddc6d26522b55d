# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What goes wrong with a database, in crashmover's words."""

import re

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.postgresql import poolers
from crashmover.external.postgresql.poolers import DeadlineExceeded

# By the codes of PostgreSQL's appendix A: a class of two characters, or a whole code.
_PASSING = (
    "08",  # connection exceptions
    "40001",  # serialization failure
    "40P01",  # deadlock
    "53300",  # too many connections
    "55006",  # an object is in use
    "55P03",  # a lock is not available
    "57014",  # canceled, as by statement_timeout
    "57P",  # the server is shut down, or starts
    "25P03",  # idle in a transaction for too long
    "25P04",  # a transaction that took too long
)
_DENIED = (
    "25006",  # read-only: a standby
    "53400",  # a limit of the configuration
    "28",  # authorization
    "3D000",  # no such database
    "42501",  # no such right
    "42809",  # something else has the name of a view
    "42P16",
)

_CONNECTING = re.compile(r"(?:FATAL|ERROR|PANIC): +([^\n]+)")
_MISTAKES = re.compile(  # in what the URI, the environment or the service file says
    r"invalid .*(value|port|option)|may not be used|definition of service|service file|"
    r"parse network address|configuration parameter|replication connection|method requirement|"
    r"channel binding|must be an integer"
)
_REFUSALS = re.compile(
    r"password|authentication|pg_hba|no encryption|permission denied|role \"|user \"|"
    r"database \".*\" does not exist|no such (?:database|user)|is not permitted|certificate|"
    r"does not support SSL|SSL error"
)
_PASSING_TEXTS = re.compile(
    r"the database system is|too many|remaining connection slots|unexpected eof"
)


class MissingPartition(StorageUnavailable):
    """A week's partition has been dropped since it was last looked for."""


class MissingTables(StorageDenied):
    """There are no tables, or not all."""


class TablesRefused(StorageDenied):
    """The tables cannot be made."""


class WeekRefused(StorageError):
    """A week's partition is out of sight, or cannot be made; other weeks are well."""


class ServerFull(StorageDenied):
    """There is no room on the server's disk."""


class ServerExhausted(StorageUnavailable):
    """The server has no memory left, as for locks; that may pass."""


class Duplicate(StorageError):
    """There is a row already with the key of one that was to be put there."""


def explain(error: psycopg.Error, uri: str, crash_id: str | None = None) -> StorageError:
    """Return what to raise instead."""
    kind, reason = _of_server(error) if error.sqlstate else _of_client(error)
    if advice := poolers.advice(error.sqlstate or "", reason):
        kind, reason = StorageDenied, f"{reason}: {advice}"
    return kind(reason, crash_id=crash_id, uri=uri)


def _of_server(error: psycopg.Error) -> tuple[type[StorageError], str]:
    code = error.sqlstate or ""
    reason = _one_line(error.diag.message_primary or str(error))
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return MissingTables, reason
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        return MissingPartition, reason
    if isinstance(error, errors.UniqueViolation):
        return Duplicate, reason
    if isinstance(error, errors.DiskFull):
        return ServerFull, reason
    if isinstance(error, errors.OutOfMemory):
        return ServerExhausted, reason
    if code.startswith(_PASSING):
        return StorageUnavailable, reason
    return StorageDenied if code.startswith(_DENIED) else StorageError, reason


def _of_client(error: psycopg.Error) -> tuple[type[StorageError], str]:
    if isinstance(error, DeadlineExceeded):
        return StorageUnavailable, str(error)
    text = str(error)
    if isinstance(error, psycopg.ProgrammingError):  # what was said is not understood
        return StorageDenied, _one_line(text)
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StorageError, _one_line(text)
    # While connecting there are no codes: only the texts of the server and of libpq.
    from_server = _CONNECTING.search(text)
    reason = from_server.group(1) if from_server else text.partition("\n")[0]
    reason = _one_line(re.sub(r"^connection (failed|is bad): ", "", reason))
    if _PASSING_TEXTS.search(reason):
        return StorageUnavailable, reason
    if _REFUSALS.search(reason) or _MISTAKES.search(reason) or _is_about_password(error):
        return StorageDenied, reason
    return StorageUnavailable, reason


def _is_about_password(error: psycopg.Error) -> bool:
    """Whether the server wanted a password that it did not get, or got one and refused it in a
    language that we do not know."""
    connection = error.pgconn
    if connection is None or connection.status != ConnStatus.BAD:
        return False
    is_refused = connection.used_password and not str(error).isascii()
    return bool(connection.needs_password or is_refused)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
