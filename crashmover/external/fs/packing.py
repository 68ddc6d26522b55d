# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Packing and unpacking the files of processed crashes, which are gzipped."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from crashmover.crash import Part
from crashmover.errors import CorruptCrash
from crashmover.partfiles import file_of_chunks
from crashmover.parts import CHUNK, Write

zlib: Any
try:  # three to four times as fast, where it is installed: setup.cfg says on which machines
    from isal import isal_zlib as zlib
except ImportError:
    import zlib

_LEVEL = 1
_GZIP = 31  # zlib's number for this format, with the largest window
_PIECE = 1 << 18  # bytes that are unpacked at a time, however well they are packed


def pump_gzipped(part: Part, write: Write) -> None:
    """As `Part.pump`, packed: as it is kept, where its store packs it too; else always the same
    bytes for the same bytes."""
    if part.packed:
        part.packed(write, _ignore)
        return
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    part.pump(lambda piece: write(packer.compress(piece)))
    write(packer.flush())


def pump_both(file: BinaryIO, corrupt: CorruptCrash, write: Write, write_unpacked: Write) -> None:
    """Pass a gzipped file on, as it is and unpacked; raise `corrupt` where it is damaged."""
    unpacker = _Unpacker(corrupt)
    while packed := file.read(CHUNK):
        for piece in unpacker.pieces(packed):
            write_unpacked(memoryview(piece))
        write(memoryview(packed))
    unpacker.finish()


def gunzipped(file: BinaryIO, corrupt: CorruptCrash) -> BinaryIO:
    """Return a gzipped file, unpacked as it is read; what is damaged raises `corrupt`."""
    return file_of_chunks(_unpacked(file, corrupt), file.close)


def _unpacked(file: BinaryIO, corrupt: CorruptCrash) -> Iterator[bytes]:
    unpacker = _Unpacker(corrupt)
    while packed := file.read(CHUNK):
        yield from unpacker.pieces(packed)
    unpacker.finish()


def _ignore(piece: memoryview) -> None:
    pass


class _Unpacker:
    """Unpacks what comes piece by piece: a gzip member, or several, and zeros after them, as
    gzip itself takes it."""

    def __init__(self, corrupt: CorruptCrash) -> None:
        self._corrupt = corrupt
        self._member: Any = None  # the one that has begun
        self._is_empty = True

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Yield what is in it."""
        is_full = False
        while packed or is_full:
            if self._member is None:
                packed = packed if self._is_empty else packed.lstrip(b"\0")
                if not packed:
                    return
                self._member, self._is_empty = zlib.decompressobj(_GZIP), False
            try:
                piece = self._member.decompress(packed, _PIECE)
            except zlib.error as error:
                raise self._corrupt from error
            if piece:
                yield piece
            is_full = len(piece) == _PIECE
            packed = self._member.unconsumed_tail
            if self._member.eof:
                packed, self._member, is_full = self._member.unused_data, None, False

    def finish(self) -> None:
        """Say that nothing comes any more."""
        if self._is_empty or self._member is not None:
            raise self._corrupt
