# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Packing and unpacking the files of processed crashes."""

import io
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from crashmover.errors import CorruptCrash

try:  # three to four times as fast, where it is installed: setup.cfg says on which machines
    from isal import igzip as gzip
    from isal import isal_zlib as zlib
except ImportError:
    import gzip
    import zlib

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LEVEL = 1
_FORMAT = 31  # gzip, in the largest window: zlib's number for it


def gunzipped(file: BinaryIO, corrupt: CorruptCrash) -> BinaryIO:
    """Return a gzipped file, unpacked as it is read; what is damaged raises `corrupt`."""
    return cast(BinaryIO, _Gunzip(file, corrupt))


class _Gunzip(io.RawIOBase):
    def __init__(self, file: BinaryIO, corrupt: CorruptCrash) -> None:
        self._file = file
        self._corrupt = corrupt
        self._unpacked = gzip.open(file, "rb")
        self._empty = os.fstat(file.fileno()).st_size == 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if self._empty:  # which GzipFile would take for nothing, well packed
            raise self._corrupt
        try:
            return self._unpacked.read(-1 if size is None else size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._corrupt from error

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pack as the files of processed crashes are packed: the same bytes for the same bytes."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _FORMAT)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()
