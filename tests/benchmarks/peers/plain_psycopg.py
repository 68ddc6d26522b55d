# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Bare loops of statements.

::

    plain_psycopg.py insert SCHEMA DIRECTORY        one INSERT and commit a crash
    plain_psycopg.py executemany SCHEMA DIRECTORY   100 crashes in one transaction
    plain_psycopg.py select SCHEMA                  100 crashes in one query; says how much it was

The crashes lie in the layout of a file system; each part becomes a row.
"""

import datetime as dt
import gzip
import os
import sys
from collections.abc import Iterator
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

BATCH = 100
MAIN_DUMP = "upload_file_minidump"

Row = tuple[dt.datetime, UUID, str, str, int, bytes]


def insert(schema: str, directory: Path) -> None:
    with psycopg.connect() as connection:
        for crash in crashes(directory):
            connection.cursor().executemany(insertion(schema), crash)
            connection.commit()


def executemany(schema: str, directory: Path) -> None:
    found = crashes(directory)
    with psycopg.connect() as connection:
        while batch := list(chain.from_iterable(islice(found, BATCH))):
            connection.cursor().executemany(insertion(schema), batch)
            connection.commit()


def select(schema: str) -> None:
    table = sql.Identifier(schema, "crash_parts")
    ids = sql.SQL("SELECT crash_id FROM {} WHERE kind = 'raw_crash' AND chunk = 0").format(table)
    parts = sql.SQL("SELECT * FROM {} WHERE crash_id = ANY(%b)").format(table)
    with psycopg.connect() as connection, connection.cursor(binary=True) as cursor:
        found = [row[0] for row in cursor.execute(ids)]
        size = 0
        for n in range(0, len(found), BATCH):
            rows: list[Any] = cursor.execute(parts, [found[n : n + BATCH]]).fetchall()
            size += sum(len(row[-1]) for row in rows)
    sys.stdout.write(f"{len(found)} {size}\n")


def insertion(schema: str) -> sql.Composed:
    table = sql.Identifier(schema, "crash_parts")
    return sql.SQL("INSERT INTO {} VALUES (%b, %b, %b, %b, %b, %b)").format(table)


def crashes(directory: Path) -> Iterator[list[Row]]:
    """Yield the rows of each crash."""
    for root, _, names in os.walk(directory):
        for _, files in groupby(sorted(names), key=lambda name: name[:36]):
            yield [row_of(Path(root, name)) for name in files]


def row_of(path: Path) -> Row:
    crash_id, data = path.name[:36], path.read_bytes()
    kind, name = what(path.name[36:])
    if kind == "processed_crash":
        data = gzip.decompress(data)
    day = dt.datetime.strptime(crash_id[-6:], "%y%m%d").replace(tzinfo=dt.UTC)
    return day, UUID(crash_id), kind, name, 0, data


def what(suffix: str) -> tuple[str, str]:
    """Return the kind and the name of a part by what follows the id."""
    kinds = {".json": "raw_crash", ".jsonz": "processed_crash"}
    if suffix in kinds:
        return kinds[suffix], ""
    return "dump", suffix.removesuffix(".dump")[1:] or MAIN_DUMP


if __name__ == "__main__":
    if sys.argv[1] == "select":
        select(sys.argv[2])
    else:
        {"insert": insert, "executemany": executemany}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
