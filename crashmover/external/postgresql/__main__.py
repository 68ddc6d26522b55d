# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Print the script that makes the tables, for those whose database user may not.

python -m crashmover.external.postgresql --schema crashes | psql ...
"""

import argparse
import sys

from crashmover import streams
from crashmover.external.postgresql import schema


def main() -> None:
    """Print it."""
    streams.open_closed()
    parser = argparse.ArgumentParser(
        prog="python -m crashmover.external.postgresql",
        description="Print the SQL that makes the tables of a PostgreSQL store.",
    )
    parser.add_argument(
        "--schema", default=schema.DEFAULT, help="the schema to make them in (%(default)s)"
    )
    arguments = parser.parse_args()
    if streams.is_output_closed():
        parser.error(streams.OUTPUT_LOST)
    try:
        sys.stdout.write(schema.script(arguments.schema))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
