# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the owner of a database should mend: limits, partitions, old views."""

from collections.abc import Iterator

from crashmover.external.postgresql import schema
from crashmover.external.postgresql.connection_context import Connection
from crashmover.external.postgresql.weeks import monday_of

_LIMITS = {
    "idle_in_transaction_session_timeout": (
        30,
        "a large crash never arrives from a source that pauses for longer",
    ),
    "lock_timeout": (5, "a save fails that waits longer for another"),
    "statement_timeout": (10, "a listing that takes longer never ends"),
    "transaction_timeout": (60, "a large crash that takes longer to be saved never arrives"),
}
"""Settings of a role, a database or a server; the seconds below which they are worth a warning;
and what happens then.  The numbers are a guess: large crashes have some hundred MiB."""

_SETTINGS = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
_MAY_SAVE = """
    SELECT current_setting('transaction_read_only') = 'off'
        AND coalesce(has_table_privilege(to_regclass(%s)::oid, 'INSERT'), true)
"""
_OF_READERS = {"statement_timeout", "plan_cache_mode"}
_PARTITIONS = """
    SELECT relname::text, pg_class.oid = partdefid
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        JOIN pg_partitioned_table ON partrelid = inhparent
    WHERE inhparent = to_regclass(%s) ORDER BY 1
"""
_VIEWS = """
    SELECT obj_description(to_regprocedure(%s), 'pg_proc') IS NULL
    WHERE to_regprocedure(%s) IS NOT NULL
"""


def limits(connection: Connection, name: str) -> Iterator[str]:
    """Yield which settings of this session keep crashes from arriving, if it may save, or from
    being listed.

    :param name: of the schema
    """
    table = f"{schema.quoted(name)}.crash_parts"
    may_save = connection.execute(_MAY_SAVE, (table,)).fetchone() == (True,)
    names = _OF_READERS | (_LIMITS.keys() if may_save else set())
    rows = connection.execute(_SETTINGS, (list(names),)).fetchall()
    for setting, value in sorted(rows):
        if setting == "plan_cache_mode":
            if value == "force_generic_plan":
                yield f"{setting} is {value}: each statement locks every week"
            continue
        least, consequence = _LIMITS[setting]
        if 0 < int(value) < least * 1000:
            yield f"{setting} is {int(value) / 1000:g} s: {consequence}"


def odd_partitions(connection: Connection, name: str) -> Iterator[str]:
    """Yield which partitions of a schema are not of one week.

    :param name: of the schema
    """
    table = f"{schema.quoted(name)}.crash_parts"
    rows = connection.execute(_PARTITIONS, (table,)).fetchall()
    names = [partition for partition, _ in rows if not monday_of(partition)]
    default = [partition for partition, is_default in rows if is_default]
    if default:
        yield (
            f"{table} has a default partition, {default[0]}: crashes in it are removed row by row,"
            " and their weeks cannot get partitions"
        )
    if others := [partition for partition in names if partition not in default]:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield (
            f"{table} has partitions that are not named by a Monday, {others[0]}{more}: crashes in"
            " them are removed row by row"
        )


def old_views(connection: Connection, name: str) -> Iterator[str]:
    """Yield that the views are of an older version.

    :param name: of the schema
    """
    function = f"{schema.quoted(name)}.crash_json(bytea)"
    row = connection.execute(_VIEWS, (function, function)).fetchone()
    if row and row[0]:
        yield (
            "its views are of an older version, and one odd crash can make a query over them fail;"
            f" to mend them, let the owner run what {schema.PRINT} {name} prints"
        )
