# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The script that makes the tables: rendered here, run by the first save or by a person."""

import re
from importlib.resources import files

DEFAULT = "public"
VERSION = "crashmover schema 1"
"""The comment on the table, by which it is known."""
VIEWS = "crashmover views 2"
"""The comment on the function of the views.  Tables made by crashmover 0.1.0 have none."""
PRINT = "python -m crashmover.external.postgresql --schema"
"""The command that prints the script for the schema whose name follows."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)

_GRANTS = """
-- For people who read, and for programs that save: put the names of your roles in.
--
-- GRANT USAGE ON SCHEMA @schema@ TO reader, writer;
-- GRANT SELECT ON @schema@.crash_parts, @schema@.raw_crashes, @schema@.processed_crashes TO reader;
-- GRANT SELECT, INSERT, DELETE ON @schema@.crash_parts TO writer;
-- GRANT EXECUTE ON FUNCTION @schema@.make_partition(date) TO writer;
"""


def check_name(name: str) -> str:
    """Return the name of a schema.

    :raises ValueError: it is not a plain one
    """
    if not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise ValueError("a schema's name is a-z, 0-9 and _, without pg_ at its start")
    return name


def statements(name: str) -> str:
    """Return what makes the tables in a schema, to be run in one transaction."""
    return _fill(files(__package__).joinpath("schema.sql").read_text("utf-8"), name)


def script(name: str = DEFAULT) -> str:
    """Return what makes the tables, for a person to run with psql."""
    return f"BEGIN;\n\n{statements(name)}{_fill(_GRANTS, name)}\nCOMMIT;\n"


def quoted(name: str) -> str:
    """Return the name of a schema as statements have it: it may be a word of SQL."""
    return f'"{check_name(name)}"'


def _fill(text: str, name: str) -> str:
    return text.replace("@schema@", quoted(name)).replace("@name@", name).replace("@views@", VIEWS)
