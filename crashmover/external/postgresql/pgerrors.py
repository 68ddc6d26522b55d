# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What goes wrong with a database, or with a pooler before it, in crashmover's words.

PgBouncer says nearly everything with the code 08P01, and before a connection is made there are no
codes: so its texts are looked for.
"""

import re

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable

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

_MODE = "set the pooler to pool_mode = transaction or session"
_PARAMETER = (
    "leave it out of the URI and the environment (PGOPTIONS sets options), or add it to the"
    " pooler's ignore_startup_parameters"
)

TOO_FEW = (
    "no connection in time: a pooler may have too few, or its server does not answer;"
    " pool_mode = transaction, a larger pool or fewer --workers may help"
)
"""Why a new connection gives no answer, not even to a statement that waits for nothing."""

_FULL = re.compile(
    r"too many|remaining connection slots|no more connections|max client|query_wait_timeout"
)

_BY_TEXT = {
    re.compile(r"unsupported startup parameter"): _PARAMETER,
    re.compile(r"not allowed in statement pooling mode"): _MODE,
}
_BY_CODE = {
    "25P01": _MODE,  # no transaction, though one was begun
    "26000": _MODE,  # no such prepared statement: it was sent to another server connection
    "34000": _MODE,  # no such cursor, as before
    "42P05": _MODE,  # another client's prepared statement has the name
}


class DeadlineExceeded(psycopg.OperationalError):
    """The server did not answer in time."""


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


_KINDS: dict[str, type[StorageError]] = {
    "23505": Duplicate,
    "3F000": MissingTables,  # there is no schema
    "42P01": MissingTables,
    "53100": ServerFull,
    "53200": ServerExhausted,
}


def explain(error: psycopg.Error, uri: str, crash_id: str | None = None) -> StorageError:
    """Return what to raise instead."""
    kind, reason = _of_server(error) if error.sqlstate else _of_client(error)
    if change := advice(error.sqlstate or "", reason):
        kind, reason = StorageDenied, f"{reason}: {change}"
    return kind(reason, crash_id=crash_id, uri=uri)


def advice(code: str, reason: str) -> str | None:
    """Return what to change where a pooler refuses to do what is needed; None elsewhere.

    :param code: of PostgreSQL's appendix A; "" before a connection is made
    :param reason: what the pooler or server said
    """
    for pattern, text in _BY_TEXT.items():
        if pattern.search(reason):
            return text
    return _BY_CODE.get(code)


def is_full(error: psycopg.Error) -> bool:
    """Return True if a server, or a pooler before it, may have no further connection."""
    too_many = isinstance(error, errors.TooManyConnections | DeadlineExceeded)
    return too_many or bool(_FULL.search(str(error)))


def _of_server(error: psycopg.Error) -> tuple[type[StorageError], str]:
    code = error.sqlstate or ""
    reason = _one_line(error.diag.message_primary or str(error))
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        return MissingPartition, reason
    if kind := _KINDS.get(code):
        return kind, reason
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
