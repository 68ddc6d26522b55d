# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a minidump is of: its system, why and where it crashed, how many threads and modules.

The format is Microsoft's (``minidumpapiset.h``), with the extensions of Breakpad
(``google_breakpad/common/minidump_format.h``); the reasons are called what Socorro calls them.

Minidumps come from strangers.  So this is a reader of our own and not the package ``minidump``
(0.0.24), which believes the lengths and counts in a dump: one of 800 bytes can take it more than a
gigabyte.  Here, each thing is looked for in its place, which must lie within the dump; no list is
walked, and no more than `MOST` bytes are read, whatever the dump says of itself.
"""

import datetime as dt
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from crashmover.errors import CorruptCrash
from crashmover.minidump.names import CPUS, SYSTEMS, TOUCHING, reason

MAGIC = b"MDMP"
"""What each begins with."""

_STREAMS = 1000  # in a directory at most; there are 30 kinds
_STRING = 1 << 16  # bytes of a string at most: the longest path that Windows has

MOST = 12 * _STREAMS + 2 * _STRING + 1000
"""Bytes that are read of a minidump at most."""

_VERSION = 0xA793
_THREADS, _MODULES, _EXCEPTION, _SYSTEM = 3, 4, 6, 7
_THREAD_SIZE, _MODULE_SIZE = 48, 108

_HEADER = struct.Struct("<4sH2x2I4xI8x")  # magic, version, streams, where they are, time
_ENTRY = struct.Struct("<3I")  # kind, size, where
_SYSTEM_INFO = struct.Struct("<H4xBx5I")  # CPU, how many, version (3), system, where its name is
_FAULT = struct.Struct("<8x2I8xQI4x2Q")  # code, flags, address, parameters: number, first two
_COUNT = struct.Struct("<I")
_NAME = struct.Struct("<20xI")  # of a module: where it is
_32_BITS = ("x86", "arm", "mips", "ppc")


@dataclass(frozen=True)
class Minidump:
    """What is known of a minidump; None where that is not in it.

    :param address: of the crash: what was touched that must not be, else the instruction
    :param threads: how many
    :param modules: how many: the program and the libraries in it
    :param main_module: the program, without the directory, which may hold a user's name
    :param incomplete: whether something of the above lies beyond the end of the dump
    """

    time: dt.datetime | None = None
    os: str | None = None
    os_version: str | None = None
    cpu: str | None = None
    cpus: int | None = None
    reason: str | None = None
    address: str | None = None
    threads: int | None = None
    modules: int | None = None
    main_module: str | None = None
    incomplete: bool = False


def read_minidump(file: BinaryIO) -> Minidump:
    """Read what a minidump is of.

    :param file: in which one can seek
    :raises CorruptCrash: it is not a minidump, or its streams are not to be found
    """
    reader = _Reader(file)
    try:
        time, streams = _directory(reader)
    except EOFError:
        raise CorruptCrash("not a readable minidump") from None
    found: dict[str, Any] = {"time": dt.datetime.fromtimestamp(time, dt.UTC) if time else None}
    for kind, look in _LOOK.items():
        if kind in streams:
            size, place = streams[kind]
            try:
                look(reader, place, size, found)
            except EOFError:
                found["incomplete"] = True
    return Minidump(**found)


def _directory(reader: "_Reader") -> tuple[int, dict[int, tuple[int, int]]]:
    """Return when the dump was made, and by the kind of each stream its size and place.

    :raises EOFError: it is no minidump, or its directory is not in it
    """
    magic, version, count, where, time = reader.unpack(_HEADER, 0)
    if (magic, version) != (MAGIC, _VERSION) or not 0 < count <= _STREAMS:
        raise EOFError
    streams: dict[int, tuple[int, int]] = {}
    for kind, size, place in _ENTRY.iter_unpack(reader.read(where, _ENTRY.size * count)):
        if size:
            streams.setdefault(kind, (size, place))
    return time, streams


class _Reader:
    """Reads from a file, and never beyond its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0, os.SEEK_END)
        self._size = file.tell()

    def read(self, place: int, size: int) -> bytes:
        """Return these bytes.

        :raises EOFError: they are not all in the file
        """
        if place + size > self._size:
            raise EOFError
        self._file.seek(place)
        return self._file.read(size)

    def unpack(self, form: struct.Struct, place: int, room: int | None = None) -> tuple[Any, ...]:
        """Return the values there.

        :param room: how many bytes of a stream are left there
        :raises EOFError: there are fewer
        """
        if room is not None and room < form.size:
            raise EOFError
        return form.unpack(self.read(place, form.size))

    def string(self, place: int) -> str:
        """Return a MINIDUMP_STRING; raises as `read`."""
        [size] = self.unpack(_COUNT, place)
        if size > _STRING:
            raise EOFError
        return self.read(place + 4, size).decode("utf-16-le", "replace")

    def count(self, place: int, size: int, item_size: int) -> int:
        """Return how many items a list has.

        :raises EOFError: that many are not in the file, or not in the list
        """
        [count] = self.unpack(_COUNT, place, size)
        if 4 + count * item_size > size or place + size > self._size:
            raise EOFError
        return int(count)


def _look_at_system(reader: _Reader, place: int, size: int, found: dict[str, Any]) -> None:
    cpu, found["cpus"], *version, system, name = reader.unpack(_SYSTEM_INFO, place, size)
    found["cpu"] = CPUS.get(cpu, f"{cpu:#x}")
    found["os"] = SYSTEMS.get(system, f"{system:#x}")
    numbers = ".".join(map(str, version)) if any(version) else ""
    found["os_version"] = numbers or None
    if name:  # the service pack, Apple's build number, or what `uname` says
        named = " ".join(reader.string(name).split())
        found["os_version"] = f"{numbers} {named}".strip() or None


def _look_at_fault(reader: _Reader, place: int, size: int, found: dict[str, Any]) -> None:
    code, flags, address, count, first, second = reader.unpack(_FAULT, place, size)
    windows = found.get("os", "").startswith("Windows")
    found["reason"] = reason(found.get("os"), code, flags, first if count else None)
    if windows and code in TOUCHING and count >= 2:
        address = second  # what was touched
    digits = 8 if found.get("cpu") in _32_BITS else 16
    found["address"] = f"0x{address & 16**digits - 1:0{digits}x}"


def _look_at_threads(reader: _Reader, place: int, size: int, found: dict[str, Any]) -> None:
    found["threads"] = reader.count(place, size, _THREAD_SIZE)


def _look_at_modules(reader: _Reader, place: int, size: int, found: dict[str, Any]) -> None:
    count = found["modules"] = reader.count(place, size, _MODULE_SIZE)
    if count:  # the first is the program
        padding = 4 if size == 8 + count * _MODULE_SIZE else 0  # as some writers have it
        [name] = reader.unpack(_NAME, place + 4 + padding)
        path = reader.string(name).replace("\\", "/")
        found["main_module"] = path.rpartition("/")[2] or None


_LOOK = {
    _SYSTEM: _look_at_system,  # first: the others depend on it
    _EXCEPTION: _look_at_fault,
    _THREADS: _look_at_threads,
    _MODULES: _look_at_modules,
}
