# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes to test with, and parts that go wrong."""

import datetime as dt
import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from itertools import combinations
from typing import BinaryIO, assert_never

from crashmover.crash import (
    ALL_KINDS,
    MAIN_DUMP,
    MARKERS,
    Crash,
    Kind,
    Part,
)
from crashmover.errors import (
    CrashIDNotFound,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.roles import CrashSource

Key = tuple[Kind, str]
Contents = dict[Key, bytes]

RAW: Key = (Kind.RAW_CRASH, "")
MAIN: Key = (Kind.DUMP, MAIN_DUMP)
BROWSER: Key = (Kind.DUMP, "upload_file_minidump_browser")
PROCESSED: Key = (Kind.PROCESSED_CRASH, "")

CRASH_ID = "0bba929f-8721-460c-dead-a43c22071025"
NEIGHBOUR = "0bba929f-8721-460c-dead-b43c22071025"
"""A crash that file systems keep in the same directory."""

AT_ONCE = 8 << 20
"""How much of a part a store may ask for at a time."""

LARGE = 3 * AT_ONCE + 1


class ReadFailed(Exception):
    """What a broken part raises."""


# Making crashes


def contents(version: str = "a") -> Contents:
    """What a crash of every kind of part holds; another for every `version`."""
    return {key: data for kind in Kind for key, data in contents_of(kind, version).items()}


def contents_of(kind: Kind, version: str = "a") -> Contents:
    """What the parts of one kind hold, in a crash of every kind of part."""
    match kind:
        case Kind.RAW_CRASH:
            return {RAW: json.dumps({"ProductName": "Firefox", "version": version}).encode()}
        case Kind.DUMP:
            main = b"MDMP" + bytes(range(256)) * 40 + version.encode()
            return {MAIN: main, BROWSER: version.encode() * 1000}
        case Kind.PROCESSED_CRASH:
            return {PROCESSED: json.dumps({"signature": version, "uuid": CRASH_ID}).encode()}
        case _:
            assert_never(kind)


def some_kinds() -> list[frozenset[Kind]]:
    """Every choice of kinds, but for none at all."""
    sizes = range(1, len(Kind) + 1)
    return [frozenset(each) for size in sizes for each in combinations(Kind, size)]


def crash_of(parts: Contents, crash_id: str = CRASH_ID) -> Crash:
    """Return the crash of these contents."""
    return Crash(crash_id, [Part.of_bytes(k, data, name) for (k, name), data in parts.items()])


def without(parts: Contents, *keys: Key) -> Contents:
    """Return the contents less some parts."""
    return {key: data for key, data in parts.items() if key not in keys}


def read(source: CrashSource, crash_id: str = CRASH_ID) -> Contents:
    """Return all that a store has of a crash."""
    return {part.key: part.read() for part in source.load_crash(crash_id).parts}


def held_by(storage: CrashStorageBase) -> Contents:
    """Return all that a store has of the crash `CRASH_ID`, whatever it has of it; it lists the
    crash if it has anything."""
    found: Contents = {}
    for kinds in (ALL_KINDS, *({marker} for marker in MARKERS)):
        with suppress(CrashIDNotFound):
            found |= {part.key: part.read() for part in storage.load_crash(CRASH_ID, kinds).parts}
    listed = list(storage.all_crashes(dt.date.min, dt.date.max))
    assert listed == ([CRASH_ID] if found else [])
    return found


def whole_or_none(storage: CrashStorageBase, *states: Contents) -> bool:
    """Whether a reader sees one of these states of the crash, or no crash."""
    try:
        return read(storage) in states
    except CrashIDNotFound:
        return True


def observed(key: Key, data: bytes, notice: Callable[[], None]) -> Part:
    """A part that calls `notice` whenever a reader begins with it."""

    def opened() -> AbstractContextManager[BinaryIO]:
        notice()
        return io.BytesIO(data)

    return Part(*key, opened, len(data))


def broken(key: Key, data: bytes, *, after: int) -> Part:
    """A part of which no more than `after` bytes can be read."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= after:
                raise ReadFailed(f"at {self.tell()}")
            return super().read(min(after - self.tell(), size if size and size > 0 else after))

    return Part(*key, lambda: Broken(data), len(data))


class Pattern(io.RawIOBase):
    """A large file that takes no room; it refuses to be read in one piece."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None, "a part was read in one piece"
        assert 0 < size <= AT_ONCE, f"{size} bytes of a part were asked for at once"
        count = min(size, self._left)
        self._left -= count
        return bytes(count)


def with_broken(parts: Contents, bad: Key, after: int, crash_id: str = CRASH_ID) -> Crash:
    return Crash(
        crash_id,
        [
            broken(key, data, after=after) if key == bad else Part.of_bytes(key[0], data, key[1])
            for key, data in parts.items()
        ],
    )


def some_ids() -> list[str]:
    """Crash ids of three days and of every depth, in the order in which they are listed."""
    days = ("071025", "260101", "261120")
    starts = ("00000000", "0bba929f", "0bbb0000", "ff00aa11")
    return [
        f"{start}-8721-460c-dead-a43c2{depth}{day}"
        for day in days
        for start in starts
        for depth in "01234a"
    ]
