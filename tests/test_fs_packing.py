# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Packed files: what gzip takes is taken, nothing else is, and packed bytes move unchanged."""

import gzip
import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover.crash import Kind, Part
from crashmover.engine.mover import Mover, Outcome, Status
from crashmover.errors import CorruptCrash
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.fs.packing import gunzipped, pump_both, pump_gzipped
from crashmover.parts import CHUNK
from crashmover.testing import CRASH_ID, PROCESSED, contents, crash_of

PIECE = 256 << 10
DATA = b'{"signature": "f"}' * 100
PATH = f"20071025/name/0b/ba/{CRASH_ID}.jsonz"


def corrupt() -> CorruptCrash:
    return CorruptCrash("it is not whole gzip")


def unpacked(packed: bytes) -> bytes:
    """What is read of packed bytes, in each of the ways to read them."""
    with gunzipped(io.BytesIO(packed), corrupt()) as file:
        read = b"".join(iter(lambda: file.read(CHUNK), b""))
    there, pumped = io.BytesIO(), io.BytesIO()
    pump_both(io.BytesIO(packed), corrupt(), there.write, pumped.write)
    assert there.getvalue() == packed
    assert pumped.getvalue() == read
    return read


def assert_corrupt(packed: bytes) -> None:
    """Each way to read it raises the error that it was given."""
    given = corrupt()
    with pytest.raises(CorruptCrash) as caught, gunzipped(io.BytesIO(packed), given) as file:
        while file.read(CHUNK):
            pass
    assert caught.value is given
    with pytest.raises(CorruptCrash) as caught:
        pump_both(io.BytesIO(packed), given, lambda _: None, lambda _: None)
    assert caught.value is given


def member_of_size(size: int) -> bytes:
    """A gzip member that takes exactly so many bytes, more than most of which are its data."""
    stored = gzip.compress(os.urandom(size - 100), 0)
    name = bytearray(stored)
    name[3] |= 8  # a file name follows the header: as long as it takes
    filler = b"x" * (size - len(stored) - 1) + b"\0"
    packed = bytes(name[:10]) + filler + bytes(name[10:])
    assert len(packed) == size
    return packed


# What gzip takes

OBJECT = b'{"signature": "f"}'

MEMBERS = {
    "one": gzip.compress(OBJECT),
    "of nothing": gzip.compress(b""),
    "several": gzip.compress(OBJECT) + gzip.compress(b"") + gzip.compress(b"   "),
    "zeros": gzip.compress(OBJECT) + bytes(1000),
    "a zero": gzip.compress(OBJECT) + b"\0",
    "zeros between": gzip.compress(OBJECT) + bytes(7) + gzip.compress(b"   "),
    "many zeros": gzip.compress(OBJECT) + bytes(3 * CHUNK),
    "stored": gzip.compress(OBJECT.ljust(5 * CHUNK), 0),
    "a piece": gzip.compress(OBJECT.ljust(PIECE)),
    "pieces": gzip.compress(OBJECT.ljust(4 * PIECE)) + gzip.compress(b" " * PIECE),
}


@pytest.mark.parametrize("packed", MEMBERS.values(), ids=MEMBERS)
def test_what_gzip_takes_is_read_as_gzip_reads_it(packed: bytes) -> None:
    assert unpacked(packed) == gzip.decompress(packed)


@pytest.mark.parametrize("off", [-9, -8, -1, 0, 1, 2, 9])
@pytest.mark.parametrize("zeros", [0, 1, CHUNK])
def test_a_member_may_end_and_begin_anywhere_in_a_chunk(off: int, zeros: int) -> None:
    packed = member_of_size(CHUNK + off) + bytes(zeros) + gzip.compress(DATA)
    assert unpacked(packed) == gzip.decompress(packed)


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_zeros_at_the_end_may_begin_anywhere_in_a_chunk(off: int) -> None:
    packed = member_of_size(CHUNK + off) + bytes(CHUNK)
    assert unpacked(packed) == gzip.decompress(packed)


@pytest.mark.parametrize("size", [1, 100, CHUNK, PIECE + 1])
def test_it_is_read_in_pieces_of_any_size(size: int) -> None:
    data = os.urandom(2 * PIECE)
    with gunzipped(io.BytesIO(gzip.compress(data, 1)), corrupt()) as file:
        if size == 1:
            assert file.read(1) + file.read(1) == data[:2]
            return
        pieces = list(iter(lambda: file.read(size), b""))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= size


# What it does not take


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\0",
        b"\x1f",
        b"not gzip at all",
        bytes(100) + gzip.compress(DATA),
        gzip.compress(DATA) + b"x",
        gzip.compress(DATA) + b"\x1f",
        gzip.compress(DATA) + bytes(9) + b"trailing",
        gzip.compress(DATA) + gzip.compress(DATA)[:-1],
        member_of_size(CHUNK) + b"trailing",
        DATA,
    ],
    ids=lambda packed: f"{len(packed)} bytes",
)
def test_what_gzip_does_not_take_is_corrupt(packed: bytes) -> None:
    assert_corrupt(packed)


def test_a_file_that_was_cut_anywhere_is_corrupt() -> None:
    packed = gzip.compress(DATA) + gzip.compress(b"more")
    first = len(gzip.compress(DATA))
    for length in range(len(packed)):
        if length == first:  # whole as far as anybody can tell
            continue
        assert_corrupt(packed[:length])


def test_a_large_file_that_was_cut_around_a_chunk_is_corrupt() -> None:
    packed = gzip.compress(os.urandom(3 * CHUNK), 0)
    for length in (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, len(packed) - 8, len(packed) - 1):
        assert_corrupt(packed[:length])


def test_a_byte_that_has_changed_is_corrupt_or_does_not_matter() -> None:
    packed = gzip.compress(DATA)
    unused = {4, 5, 6, 7, 8, 9}  # the time, the level and the system: no data, no checksum
    for index in set(range(len(packed))) - unused:
        damaged = bytearray(packed)
        damaged[index] ^= 0x10
        try:
            data = unpacked(bytes(damaged))
        except CorruptCrash:
            continue
        assert data == DATA


# Memory


def test_a_small_file_that_unpacks_to_a_large_one_comes_in_pieces() -> None:
    size = 50 << 20
    packed = gzip.compress(bytes(size), 1)
    pieces: list[int] = []
    tracemalloc.start()
    try:
        pump_both(io.BytesIO(packed), corrupt(), lambda _: None, lambda p: pieces.append(len(p)))
        with gunzipped(io.BytesIO(packed), corrupt()) as file:
            while piece := file.read(8 << 20):
                pieces.append(len(piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(pieces) == 2 * size
    assert max(pieces) <= PIECE
    assert peak < 12 << 20  # of which 8 are asked for


# Passing on


def packed_by(part: Part) -> bytes:
    there = io.BytesIO()
    pump_gzipped(part, there.write)
    return there.getvalue()


def test_a_part_that_is_kept_packed_is_passed_on_unchanged() -> None:
    kept = gzip.compress(DATA, 9) + bytes(10)

    def pump(write: Callable[[memoryview], object], _: object) -> None:
        write(memoryview(kept))

    part = Part(Kind.PROCESSED_CRASH, "", lambda: io.BytesIO(DATA), len(DATA), pump)
    assert packed_by(part) == kept


@pytest.mark.parametrize("data", [b"", DATA, DATA * 1000], ids=["empty", "small", "large"])
def test_a_part_that_is_not_packed_is_packed_the_same_way_each_time(data: bytes) -> None:
    parts = [
        Part.of_bytes(Kind.PROCESSED_CRASH, data),
        Part(Kind.PROCESSED_CRASH, "", lambda: io.BytesIO(data)),
    ]
    first, *others = [packed_by(part) for part in parts * 2]
    assert gzip.decompress(first) == data
    assert others == [first] * 3


# From one store to another


def store_with(root: Path, packed: bytes) -> FSPermanentStorage:
    """A store whose crash has this file for its processed crash."""
    storage = FSPermanentStorage(root)
    storage.save_crash(crash_of(contents()))
    (root / PATH).write_bytes(packed)
    return storage


def copy(source: CrashStorageBase, destination: CrashStorageBase, verify: bool) -> Outcome:
    [outcome] = Mover(source, destination, verify=verify).run([CRASH_ID])
    return outcome


verifying = pytest.mark.parametrize("verify", [False, True], ids=["", "verify"])


@verifying
@pytest.mark.parametrize("name", MEMBERS)
def test_a_packed_file_is_copied_byte_for_byte(tmp_path: Path, name: str, verify: bool) -> None:
    source = store_with(tmp_path / "source", MEMBERS[name])
    outcome = copy(source, FSPermanentStorage(tmp_path / "destination"), verify)
    if verify and name == "of nothing":  # whole gzip, and no JSON object
        assert outcome.status is Status.FAILED
        return
    size = sum(map(len, contents().values())) - len(contents()[PROCESSED])
    assert (outcome.status, outcome.error) == (Status.COPIED, None)
    assert outcome.bytes == size + len(gzip.decompress(MEMBERS[name]))
    assert (tmp_path / "destination" / PATH).read_bytes() == MEMBERS[name]


LARGE = gzip.compress(os.urandom(3 * CHUNK), 1)


@verifying
@pytest.mark.parametrize(
    "packed",
    [
        b"",
        gzip.compress(DATA)[:-1],
        gzip.compress(DATA)[:-8] + bytes(4) + gzip.compress(DATA)[-4:],
        gzip.compress(DATA) + b"trailing",
        LARGE[:-9],
        LARGE[: 2 * CHUNK],
        LARGE[:CHUNK] + bytes([LARGE[CHUNK] ^ 1]) + LARGE[CHUNK + 1 :],
    ],
    ids=["empty", "cut", "checksum", "trailing", "large, cut", "large, half", "large, flipped"],
)
def test_a_packed_file_that_is_damaged_is_an_error_and_nothing_is_left(
    tmp_path: Path, packed: bytes, verify: bool
) -> None:
    source = store_with(tmp_path / "source", packed)
    destination = FSPermanentStorage(tmp_path / "destination")
    outcome = copy(source, destination, verify)
    assert outcome.status is Status.FAILED
    assert outcome.error == f"{source.uri}: {CRASH_ID}.jsonz is not whole gzip"
    assert [path for path in destination.root.rglob("*") if not path.is_dir()] == []
