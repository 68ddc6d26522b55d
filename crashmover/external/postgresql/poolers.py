# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a pooler refuses, and what to change then; and whether it has no further connection.

PgBouncer says nearly everything with the code 08P01, and before a connection is made there are no
codes: so its texts are looked for.
"""

import re

import psycopg
from psycopg import errors

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


def advice(code: str, reason: str) -> str | None:
    """Return what to change where a pooler refuses to do what is needed; None elsewhere.

    :param code: of PostgreSQL's appendix A; "" before a connection is made
    :param reason: what the pooler or server said
    """
    for pattern, text in _BY_TEXT.items():
        if pattern.search(reason):
            return text
    return _BY_CODE.get(code)


class DeadlineExceeded(psycopg.OperationalError):
    """The server did not answer in time."""


def is_full(error: psycopg.Error) -> bool:
    """Return True if a server, or a pooler before it, may have no further connection."""
    too_many = isinstance(error, errors.TooManyConnections | DeadlineExceeded)
    return too_many or bool(_FULL.search(str(error)))
