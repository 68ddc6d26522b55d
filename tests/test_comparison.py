# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Measuring parts as they are read, and comparing crashes by what was measured."""

import hashlib
import io
from collections.abc import Callable
from functools import partial

import pytest

from crashmover.comparison import (
    Difference,
    MeasuredCrash,
    MeasuredPart,
    compare,
)
from crashmover.crash import MAIN_DUMP, Kind, Part
from crashmover.parts import Write
from crashmover.testing import (
    BROWSER,
    MAIN,
    PROCESSED,
    RAW,
    ReadFailed,
    broken,
    contents,
    crash_of,
    observed,
    without,
)

DATA = bytes(range(256)) * 20_000  # five pieces, when it is read piece by piece
PACKED = b"the same, gzipped"


class Piecemeal(io.BytesIO):
    """A file that is not known to be in memory."""


def part_of(
    data: bytes, opened: Callable[[], None], *, is_sized: bool = True, is_packed: bool = False
) -> Part:
    """A part that is read in pieces, and calls `opened` each time."""

    def packed(write: Write, write_unpacked: Write) -> None:
        opened()
        write(memoryview(PACKED))
        write_unpacked(memoryview(data[:1000]))
        write_unpacked(memoryview(data[1000:]))

    def open_pieces() -> io.BytesIO:
        opened()
        return Piecemeal(data)

    size = len(data) if is_sized else None
    return Part(*MAIN, open_pieces, size, packed if is_packed else None)


def by_read(part: Part) -> bytes:
    return part.read()


def by_chunks(part: Part) -> bytes:
    return b"".join(part.chunks())


def by_pump(part: Part) -> bytes:
    pieces: list[bytes] = []
    part.pump(lambda piece: pieces.append(bytes(piece)))
    return b"".join(pieces)


def by_packed(part: Part) -> bytes:
    pieces: list[bytes] = []
    packed: list[bytes] = []
    assert part.packed
    part.packed(
        lambda piece: packed.append(bytes(piece)), lambda piece: pieces.append(bytes(piece))
    )
    assert packed == [PACKED]
    return b"".join(pieces)


WAYS = {"read": by_read, "chunks": by_chunks, "pump": by_pump, "packed": by_packed}
in_each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@in_each_way
@pytest.mark.parametrize("is_sized", [True, False])
@pytest.mark.parametrize("hashing", [True, False])
def test_a_part_is_measured_in_whatever_way_it_is_read(
    way: Callable[[Part], bytes], is_sized: bool, hashing: bool
) -> None:
    opened: list[None] = []
    notice = partial(opened.append, None)
    part = part_of(DATA, notice, is_sized=is_sized, is_packed=way is by_packed)
    measured = MeasuredPart(part, hashing)
    assert measured.size == (len(DATA) if is_sized else None)
    instead = measured.as_part()
    assert (instead.key, instead.size, instead.packed is None) == (
        part.key,
        part.size,
        way is not by_packed,
    )
    assert way(instead) == DATA
    assert (measured.count, measured.size) == (len(DATA), len(DATA))
    assert measured.sha256() == hashlib.sha256(DATA).digest()
    assert len(opened) == (1 if hashing else 2)  # what is hashed is not read again
    with instead.open() as file:
        assert file.read() == DATA


@in_each_way
def test_a_part_that_cannot_be_read_to_its_end_is_not_measured(
    way: Callable[[Part], bytes],
) -> None:
    def packed(_write: Write, write_unpacked: Write) -> None:
        write_unpacked(memoryview(DATA[:1000]))
        raise ReadFailed("at 1000")

    part = broken(MAIN, DATA, after=1000)
    part = Part(*part.key, part.open, part.size, packed if way is by_packed else None)
    measured = MeasuredPart(part, hashing=True)
    with pytest.raises(ReadFailed):
        way(measured.as_part())
    assert measured.count is None
    with pytest.raises(ReadFailed):
        measured.sha256()


def test_a_hash_that_is_known_outlives_a_reading_that_works_out_none() -> None:
    opened: list[None] = []
    measured = MeasuredPart(observed(MAIN, DATA, partial(opened.append, None)), hashing=False)
    for _ in range(2):
        assert measured.sha256() == hashlib.sha256(DATA).digest()
        measured.as_part().read()
    assert len(opened) == 3  # to work out the hash once, and to read it twice


def test_the_bytes_of_some_parts_are_those_that_they_have() -> None:
    sizes = {key: len(data) for key, data in contents().items()}
    crash = MeasuredCrash(crash_of(contents() | {BROWSER: b""}), hashing=False)
    assert crash.bytes_of(set()) == crash.bytes_of({BROWSER}) == 0
    assert crash.bytes_of({RAW, MAIN, BROWSER}) == sizes[RAW] + sizes[MAIN]
    assert [part.key for part in crash.only({MAIN, PROCESSED}).parts] == [MAIN, PROCESSED]


def test_a_size_that_no_store_has_said_is_none_until_the_part_is_read() -> None:
    part = part_of(b"12345", lambda: None, is_sized=False)
    crash = MeasuredCrash(crash_of({}), hashing=False)
    crash.measured[MAIN] = MeasuredPart(part, hashing=False)
    assert crash.bytes_of({MAIN}) == 0
    crash.measured[MAIN].as_part().read()
    assert crash.bytes_of({MAIN}) == 5


SAME_SIZE = contents()[MAIN][:-1] + b"?"


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (contents(), Difference()),
        (without(contents(), BROWSER), Difference(missing={BROWSER})),
        (contents() | {MAIN: SAME_SIZE}, Difference(differing={MAIN})),
        (contents() | {RAW: b"{}", PROCESSED: b"{}"}, Difference(differing={RAW, PROCESSED})),
        (contents() | {(Kind.DUMP, "more"): b""}, Difference(extra={(Kind.DUMP, "more")})),
    ],
    ids=["same", "missing", "same size", "differing", "extra"],
)
@pytest.mark.parametrize("hashing", [True, False])
def test_crashes_differ_where_a_byte_does(
    there: dict[tuple[Kind, str], bytes], expected: Difference, hashing: bool
) -> None:
    difference = compare(MeasuredCrash(crash_of(contents()), hashing=hashing), crash_of(there))
    assert difference == expected
    assert bool(difference) is (there != contents())


def test_a_processed_crash_that_only_the_other_has_is_no_difference() -> None:
    source = MeasuredCrash(crash_of(without(contents(), PROCESSED)), hashing=False)
    assert not compare(source, crash_of(contents()))


def test_a_difference_is_said_by_the_names_of_the_parts() -> None:
    difference = Difference({RAW, MAIN}, {PROCESSED}, {BROWSER})
    assert str(difference) == (
        f"missing: raw_crash, {MAIN_DUMP}; different: processed_crash; not in source: {BROWSER[1]}"
    )
    assert str(Difference(differing={MAIN})) == f"different: {MAIN_DUMP}"
