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
    """As `Part.pump`, packed: as its store keeps it; else always the same for the same bytes."""
    if part.packed:
        part.packed(write, _ignore)
        return
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    part.pump(lambda piece: write(packer.compress(piece)))
    write(packer.flush())


def pump_both(file: BinaryIO, corrupt: CorruptCrash, write: Write, write_unpacked: Write) -> None:
    """Pass a gzipped file on, as it is and unpacked; raise `corrupt` where it is damaged."""
    for piece in _unpacked(file, corrupt, write):
        write_unpacked(memoryview(piece))


def gunzipped(file: BinaryIO, corrupt: CorruptCrash) -> BinaryIO:
    """Return a gzipped file, unpacked as it is read; what is damaged raises `corrupt`."""
    return file_of_chunks(_unpacked(file, corrupt, _ignore), file.close)


def _ignore(piece: memoryview) -> None:
    pass


def _unpacked(file: BinaryIO, corrupt: CorruptCrash, write: Write) -> Iterator[bytes]:
    """Yield what is in a gzip member, or several, and zeros after them, as gzip itself takes it.

    :param write: is given what was read of the file, once it is unpacked
    """
    member: Any = None  # the one that has begun
    is_empty = True
    while chunk := file.read(CHUNK):
        packed, is_full = chunk, False
        while packed or is_full:
            if member is None:
                packed = packed if is_empty else packed.lstrip(b"\0")
                if not packed:
                    break
                member, is_empty = zlib.decompressobj(_GZIP), False
            try:
                piece = member.decompress(packed, _PIECE)
            except zlib.error as error:
                raise corrupt from error
            if piece:
                yield piece
            is_full = len(piece) == _PIECE
            packed = member.unconsumed_tail
            if member.eof:
                packed, member, is_full = member.unused_data, None, False
        write(memoryview(chunk))
    if is_empty or member is not None:
        raise corrupt
