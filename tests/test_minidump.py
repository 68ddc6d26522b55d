# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Minidumps: what is read of them, and that one from a stranger is read in bounds or refused."""

import datetime as dt
import io
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashmover.errors import CorruptCrash
from crashmover.minidump.reader import MOST, Minidump, read_minidump
from tests.minidumps import (
    ANDROID,
    ARM64,
    EXCEPTION,
    LINUX,
    MAC,
    MODULES,
    SYSTEM,
    THREADS,
    TIME,
    WINDOWS,
    X86,
    minidump,
)

UNAME = "Linux 6.1.0 #1 SMP 2025 x86_64"
WHOLE = minidump()


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def read(data: bytes) -> Minidump:
    """Read a minidump, in no more bytes than are allowed."""
    file = Counting(data)
    try:
        return read_minidump(file)
    finally:
        assert file.count <= MOST


def test_what_it_is_of_is_read() -> None:
    assert read(WHOLE) == Minidump(
        time=dt.datetime.fromtimestamp(TIME, dt.UTC),
        os="Windows NT",
        os_version="10.0.22621",
        cpu="amd64",
        cpus=8,
        reason="EXCEPTION_ACCESS_VIOLATION_READ",
        address="0x0000000000000148",
        threads=3,
        modules=2,
        main_module="firefox.exe",
        incomplete=False,
    )


SYSTEMS: dict[str, tuple[dict[str, Any], tuple[object, ...]]] = {
    "Windows with a service pack": (
        {"version": (6, 1, 7601), "name": "Service Pack 1", "cpu": X86},
        ("Windows NT", "6.1.7601 Service Pack 1", "x86"),
    ),
    "Mac": (
        {"system": MAC, "version": (15, 1, 0), "name": "24B83", "cpu": ARM64},
        ("Mac OS X", "15.1.0 24B83", "arm64"),
    ),
    "Linux": ({"system": LINUX, "version": (0, 0, 0), "name": UNAME}, ("Linux", UNAME, "amd64")),
    "Android": (
        {"system": ANDROID, "version": (0, 0, 0), "cpu": 0x8003},
        ("Android", None, "arm64"),
    ),
    "what nobody knows": ({"system": 77, "cpu": 0x7777}, ("0x4d", "10.0.22621", "0x7777")),
}


@pytest.mark.parametrize(("made", "expected"), SYSTEMS.values(), ids=SYSTEMS)
def test_systems_are_named(made: dict[str, Any], expected: tuple[object, ...]) -> None:
    found = read(minidump(**made))
    assert (found.os, found.os_version, found.cpu) == expected


REASONS: list[tuple[int, int, int, tuple[int, ...], str]] = [
    (WINDOWS, 0xC0000005, 0, (1, 8), "EXCEPTION_ACCESS_VIOLATION_WRITE"),
    (WINDOWS, 0xC0000005, 0, (8, 8), "EXCEPTION_ACCESS_VIOLATION_EXEC"),
    (WINDOWS, 0xC0000005, 0, (5, 8), "EXCEPTION_ACCESS_VIOLATION"),
    (WINDOWS, 0xC0000005, 0, (), "EXCEPTION_ACCESS_VIOLATION"),
    (WINDOWS, 0xC0000006, 0, (0, 8), "EXCEPTION_IN_PAGE_ERROR_READ"),
    (WINDOWS, 0x80000003, 1, (0,), "EXCEPTION_BREAKPOINT"),
    (WINDOWS, 0xE06D7363, 0, (), "Unhandled C++ Exception"),
    (WINDOWS, 0x12345, 0, (), "0x00012345"),
    (LINUX, 11, 1, (), "SIGSEGV / SEGV_MAPERR"),
    (LINUX, 11, 0x80, (), "SIGSEGV"),
    (ANDROID, 7, 2, (), "SIGBUS / BUS_ADRERR"),
    (LINUX, 31, 0, (), "SIGSYS"),
    (LINUX, 0xFFFFFFFF, 0, (), "DUMP_REQUESTED"),
    (LINUX, 99, 1, (), "0x00000063"),
    (MAC, 1, 2, (), "EXC_BAD_ACCESS / KERN_PROTECTION_FAILURE"),
    (MAC, 6, 2, (), "EXC_BREAKPOINT"),
    (MAC, 0, 0, (), "0x00000000"),
    (77, 0xC0000005, 0, (1, 8), "0xc0000005"),
]


@pytest.mark.parametrize(("system", "code", "flags", "parameters", "expected"), REASONS)
def test_reasons_are_named_as_their_system_has_them(
    system: int, code: int, flags: int, parameters: tuple[int, ...], expected: str
) -> None:
    dump = minidump(system=system, code=code, flags=flags, parameters=parameters)
    assert read(dump).reason == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, "0x0000000000000148"),
        ({"cpu": X86}, "0x00000148"),
        ({"parameters": (0,)}, "0x00007ff812345678"),
        ({"code": 0x80000003}, "0x00007ff812345678"),
        ({"system": LINUX, "code": 11}, "0x00007ff812345678"),
        ({"code": 0x80000003, "cpu": X86, "address": 0xFFFF_FFFF_8000_0001}, "0x80000001"),
    ],
)
def test_the_address_is_what_was_touched_or_else_the_instructions(
    made: dict[str, Any], expected: str
) -> None:
    assert read(minidump(**made)).address == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/zoe/firefox", "firefox"),
        ("C:\\Users\\zoe\\a/b.exe", "b.exe"),
        ("firefox.exe", "firefox.exe"),
        ("/home/zoe/", None),
        ("a" * 32_000, "a" * 32_000),
        ("\ud800", "\ufffd"),
    ],
)
def test_of_a_module_there_is_no_directory(path: str, expected: str | None) -> None:
    assert read(minidump(modules=[path])).main_module == expected


def test_a_list_of_modules_may_be_padded() -> None:
    name = WHOLE.index(struct.pack("<I", 2 * len("C:\\Users\\zoe\\firefox.exe")) + b"C\0:")
    modules = struct.pack("<I4x20xI84x", 1, name)
    found = read(minidump(replaced={MODULES: modules}))
    assert (found.modules, found.main_module, found.incomplete) == (1, "firefox.exe", False)


@pytest.mark.parametrize("kind", [SYSTEM, EXCEPTION, THREADS, MODULES])
def test_what_is_not_there_is_not_known(kind: int) -> None:
    theirs = {
        SYSTEM: ("os", "os_version", "cpu", "cpus"),
        EXCEPTION: ("reason", "address"),
        THREADS: ("threads",),
        MODULES: ("modules", "main_module"),
    }[kind]
    for data in (None, b""):
        found = read(minidump(replaced={kind: data}))
        assert not found.incomplete
        assert all(getattr(found, name) is None for name in theirs)


def test_without_a_system_a_reason_is_a_number() -> None:
    found = read(minidump(replaced={SYSTEM: None}))
    assert (found.reason, found.address) == ("0xc0000005", "0x00007ff812345678")


def test_of_a_process_without_modules_or_threads_it_says_so() -> None:
    found = read(minidump(modules=[], threads=0))
    assert (found.threads, found.modules, found.main_module) == (0, 0, None)
    assert not found.incomplete


NONE: dict[str, bytes] = {
    "nothing": b"",
    "the beginning": b"MDMP",
    "half a header": WHOLE[:31],
    "half a directory": WHOLE[:40],
    "another file": b"\x7fELF" + WHOLE[4:],
    "of a machine with the other order of bytes": b"PMDM" + WHOLE[4:],
    "of another version": WHOLE[:4] + b"\x94" + WHOLE[5:],
    "no streams": WHOLE[:8] + bytes(4) + WHOLE[12:],
    "streams without end": WHOLE[:8] + b"\xff" * 4 + WHOLE[12:],
    "a directory beyond its end": WHOLE[:12] + b"\xff" * 4 + WHOLE[16:],
}


@pytest.mark.parametrize("data", NONE.values(), ids=NONE)
def test_what_is_no_minidump_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptCrash, match=r"\Anot a readable minidump\Z"):
        read(data)


FOREVER = struct.pack("<I", 0xFFFFFFFF)
LIES: dict[str, dict[int, bytes | None]] = {
    "threads without end": {THREADS: FOREVER + bytes(96)},
    "one thread too many": {THREADS: struct.pack("<I", 3) + bytes(2 * 48)},
    "modules without end": {MODULES: FOREVER + bytes(108)},
    "a name beyond its end": {MODULES: struct.pack("<I20xI84x", 1, 0xFFFFFFF0)},
    "a name without end": {MODULES: struct.pack("<I20xI84x", 1, 0)},
    "half a system": {SYSTEM: bytes(27)},
    "half an exception": {EXCEPTION: bytes(55)},
    "half a count": {THREADS: bytes(3)},
}


@pytest.mark.parametrize("replaced", LIES.values(), ids=LIES)
def test_what_cannot_be_so_is_not_believed(replaced: dict[int, bytes | None]) -> None:
    found = read(minidump(replaced=replaced))
    assert found.incomplete
    assert (found.threads in (3, None)) and (found.modules in (1, 2, None))
    assert found.main_module in ("firefox.exe", None)


def test_a_minidump_that_is_cut_off_says_so_or_is_refused() -> None:
    for length in range(len(WHOLE)):
        try:
            assert read(WHOLE[:length]).incomplete
        except CorruptCrash:
            assert length < 32 + 4 * 12


words = st.sampled_from([0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])
damages = st.lists(
    st.tuples(st.integers(0, len(WHOLE) // 4), words | st.integers(0, 0xFFFFFFFF)), max_size=6
)


@settings(deadline=None, max_examples=300)
@given(damages, st.integers(0, len(WHOLE)))
def test_a_damaged_minidump_is_read_in_bounds_or_refused(
    damage: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(WHOLE)
    for place, word in damage:
        data[4 * place : 4 * place + 4] = struct.pack("<I", word)
    for damaged in (bytes(data), bytes(data[:end])):
        try:
            found = read(damaged)
        except CorruptCrash:
            continue
        assert (found.threads or 0) * 48 + (found.modules or 0) * 108 <= 2 * len(damaged)
