# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""From files or PostgreSQL into files, and nothing besides: what there is to reach.

``bare_files.py files DIRECTORY TO | postgresql SCHEMA TO``: as many processes as we have, each with
one syncfs for 64 crashes, and the calls and libraries that we have.  But no crash is looked for or
locked, no file gets its name when it is whole, and nothing is checked.

``bare_files.py safely DIRECTORY TO`` does all of that, and no more: what there is to reach for who
promises whole crashes or none.
"""

import ctypes
import fcntl
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_PROCESSES = 4
_BATCH = 64
_AT_ONCE = 1 << 24
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


def copy(write: Callable[[list[str]], None], crash_ids: Iterable[str], root: str) -> None:
    """Write the files of all crashes.

    :param write: writes those of some
    """
    os.mkdir(root)
    crash_ids = iter(crash_ids)
    batches = iter(lambda: list(islice(crash_ids, _BATCH)), [])
    with get_context("fork").Pool(_PROCESSES) as processes:
        for _ in processes.imap_unordered(partial(write_and_force, write, root), batches):
            pass  # and so raise what was raised


def write_and_force(write: Callable[[list[str]], None], root: str, crash_ids: list[str]) -> None:
    """Write the files of some crashes, and force them to the disk."""
    write(crash_ids)
    force(root)


def force(root: str) -> None:
    """Force a file system to the disk."""
    root_fd = os.open(root, os.O_RDONLY)
    if ctypes.CDLL(None).syncfs(root_fd) != 0:
        raise OSError("what was written is not on the disk")
    os.close(root_fd)


def open_to_write(root: str, crash_id: str, suffix: str, flags: int) -> int:
    """Open the file of a part."""
    directory = os.path.join(root, directory_of(crash_id))
    flags |= os.O_WRONLY | os.O_CREAT
    try:
        return os.open(os.path.join(directory, crash_id + suffix), flags, 0o644)
    except FileNotFoundError:
        os.makedirs(directory, exist_ok=True)
        return os.open(os.path.join(directory, crash_id + suffix), flags, 0o644)


def directory_of(crash_id: str) -> str:
    """Return where a crash lies."""
    pairs = [crash_id[2 * n : 2 * n + 2] for n in range(int(crash_id[-7]))]
    return "/".join([f"20{crash_id[-6:]}", "name", *pairs])


# -- From files ----------------------------------------------------------------------------


def in_files(source: str) -> Iterable[str]:
    """Yield the crashes of a directory."""
    for _, _, names in os.walk(source):
        yield from (name.removesuffix(".json") for name in names if name.endswith(".json"))


def write_from_files(source: str, root: str, crash_ids: list[str]) -> None:
    """Copy the files of some crashes."""
    for crash_id in crash_ids:
        directory = os.path.join(source, directory_of(crash_id))
        for name in os.listdir(directory):
            if name.startswith(crash_id):
                old = os.open(os.path.join(directory, name), os.O_RDONLY)
                new = open_to_write(root, crash_id, name.removeprefix(crash_id), os.O_EXCL)
                copy_all(old, new)
                os.close(old)
                os.close(new)


def copy_all(old: int, new: int) -> None:
    """Copy a file into another."""
    while os.copy_file_range(old, new, _AT_ONCE):
        pass


# -- From files, whole crashes or none -----------------------------------------------------


def write_safely(source: str, root: str, crash_ids: list[str]) -> None:
    """Copy the files of some crashes that are not there, those by which a crash is known under
    other names that are locked, and give them their own when all is on the disk."""
    locked = [put_aside(source, root, crash_id) for crash_id in crash_ids]
    force(root)
    for files in locked:
        for temporary, fd in files:
            os.rename(temporary, temporary.removesuffix(".tmp"))
            os.close(fd)


def put_aside(source: str, root: str, crash_id: str) -> list[tuple[str, int]]:
    """Copy the files of a crash; return those that have still to get their names, which are open:
    the raw crash last."""
    there, to = (os.path.join(place, directory_of(crash_id)) for place in (source, root))
    os.makedirs(to, exist_ok=True)
    if os.path.exists(os.path.join(to, f"{crash_id}.json")):
        raise FileExistsError(crash_id)
    locked = lock(os.path.join(to, f"{crash_id}.json.tmp"))
    aside = [locked]
    for name in os.listdir(there):
        if not name.startswith(crash_id):
            continue
        old = os.open(os.path.join(there, name), os.O_RDONLY)
        if name.endswith(".json"):
            copy_all(old, locked[1])
        elif name.endswith(".jsonz"):
            aside.insert(0, lock(os.path.join(to, f"{name}.tmp")))
            copy_all(old, aside[0][1])
            check(old)
        else:
            new = open_to_write(root, crash_id, name.removeprefix(crash_id), os.O_EXCL)
            copy_all(old, new)
            os.close(new)
        os.close(old)
    return aside


def lock(path: str) -> tuple[str, int]:
    """Make a file and lock it, and see that it is still the one of its name."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not os.path.samestat(os.fstat(fd), os.stat(path)):
        raise BlockingIOError(path)
    return path, fd


def check(packed_fd: int) -> None:
    """Hold what is packed against its check sum."""
    unpacker = _zlib().decompressobj(_GZIP)
    unpacker.decompress(os.pread(packed_fd, os.fstat(packed_fd).st_size, 0))
    if not unpacker.eof:
        raise ValueError("it is not whole")


# -- From PostgreSQL -----------------------------------------------------------------------


def in_table(schema: str) -> Iterable[str]:
    """Return the crashes of a table."""
    import psycopg

    with psycopg.connect() as connection:
        return [row[0] for row in connection.execute(_in(schema, _IDS))]


def write_from_table(schema: str, root: str, crash_ids: list[str]) -> None:
    """Write the files of some crashes, with one statement."""
    zlib = _zlib()
    cursor = connection().cursor(binary=True)
    for crash_id, kind, name, data in cursor.stream(_in(schema, _ROWS), [crash_ids]):
        if kind == "processed_crash":
            packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
            data = packer.compress(data) + packer.flush()
        suffix = _SUFFIXES.get((kind, name), f".{name}.dump")
        file = open_to_write(root, crash_id, suffix, os.O_APPEND)  # to what came before
        os.write(file, data)
        os.close(file)


def _in(schema: str, query: Any) -> Any:
    from psycopg import sql

    return sql.SQL(query).format(sql.Identifier(schema, "crash_parts"))


def _zlib() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib
    return isal_zlib


def connection() -> "psycopg.Connection[tuple[str, str, str, bytes]]":
    """Return the connection of this process."""
    import psycopg

    if not _connections:
        _connections.append(psycopg.connect(autocommit=True))
    return _connections[0]


_connections: "list[psycopg.Connection[tuple[str, str, str, bytes]]]" = []


if __name__ == "__main__":
    what, place, to = sys.argv[1:]
    if what == "files":
        copy(partial(write_from_files, place, to), in_files(place), to)
    elif what == "safely":
        copy(partial(write_safely, place, to), in_files(place), to)
    else:
        copy(partial(write_from_table, place, to), in_table(place), to)
