# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""From PostgreSQL into files, and nothing besides: what there is to reach.

``bare_files.py SCHEMA DIRECTORY``: as many processes as we have, each with one statement and one
syncfs for 64 crashes, and the libraries that we have.  But no crash is looked for or locked, no
file gets its name when it is whole, and nothing is checked.
"""

import ctypes
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

zlib: Any
try:
    from isal import isal_zlib as zlib
except ImportError:
    import zlib

_PROCESSES = 4
_BATCH = 64
_GZIP = 31
_SUFFIXES = {
    ("raw_crash", ""): ".json",
    ("processed_crash", ""): ".jsonz",
    ("dump", "upload_file_minidump"): ".dump",
}

_IDS = "SELECT crash_id::text FROM {} WHERE kind = 'raw_crash' AND chunk = 0 ORDER BY 1"
_ROWS = """
    SELECT crash_id::text, kind, name, data FROM {} WHERE crash_id = ANY(%b::uuid[])
    ORDER BY crash_id, kind, name, chunk
"""


def copy(schema: str, root: Path) -> None:
    """Write the files of all crashes."""
    root.mkdir()
    table = sql.Identifier(schema, "crash_parts")
    with psycopg.connect() as connection:
        found = [row[0] for row in connection.execute(sql.SQL(_IDS).format(table))]
    batches = [(table, root, found[n : n + _BATCH]) for n in range(0, len(found), _BATCH)]
    with get_context("fork").Pool(_PROCESSES) as processes:
        processes.starmap(write, batches, chunksize=1)


def write(table: sql.Identifier, root: Path, crash_ids: list[str]) -> None:
    """Write the files of some crashes, and force them to the disk."""
    cursor = connection().cursor(binary=True)
    for crash_id, kind, name, data in cursor.stream(sql.SQL(_ROWS).format(table), [crash_ids]):
        directory = os.path.join(root, directory_of(crash_id))
        os.makedirs(directory, exist_ok=True)
        if kind == "processed_crash":
            packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
            data = packer.compress(data) + packer.flush()
        suffix = _SUFFIXES.get((kind, name), f".{name}.dump")
        with open(os.path.join(directory, crash_id + suffix), "ab", buffering=0) as file:  # noqa: PTH123
            file.write(data)
    root_fd = os.open(root, os.O_RDONLY)
    ctypes.CDLL(None).syncfs(root_fd)
    os.close(root_fd)


def connection() -> "psycopg.Connection[tuple[str, str, str, bytes]]":
    """Return the connection of this process."""
    if not _connections:
        _connections.append(psycopg.connect(autocommit=True))
    return _connections[0]


_connections: "list[psycopg.Connection[tuple[str, str, str, bytes]]]" = []


def directory_of(crash_id: str) -> str:
    """Return where a crash lies."""
    pairs = [crash_id[2 * n : 2 * n + 2] for n in range(int(crash_id[-7]))]
    return "/".join([f"20{crash_id[-6:]}", "name", *pairs])


if __name__ == "__main__":
    copy(sys.argv[1], Path(sys.argv[2]))
