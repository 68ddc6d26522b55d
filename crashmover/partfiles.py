# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Files of parts: one that is there, one of pieces as they come, and one that is written."""

import io
import os
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


_AT_ONCE = 1 << 24  # bytes that the system copies at most before it comes back to us


class FileWriter:
    """Writes pieces to a file, from where it stands; and another file as a whole.

    :param fd: an open file
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, piece: memoryview) -> None:
        """Write everything, however little the kernel takes at a time."""
        written = os.write(self._fd, piece)
        while written < len(piece):
            written += os.write(self._fd, piece[written:])

    def copy_from(self, file: io.FileIO) -> tuple[int, bool]:
        """Let the system copy a file, from where it stands, to its end, without a way through our
        memory, or so that both share it on the disk; return how many bytes it has copied, and
        whether that is all, as far as the system says.

        It is not where it cannot, or where something is wrong with one of them: the rest is to be
        read and written, and that says what, and with which.
        """
        count = 0
        if sys.platform == "linux":
            try:
                while copied := os.copy_file_range(file.fileno(), self._fd, _AT_ONCE):
                    count += copied
            except OSError:
                return count, False
        return count, count > 0  # of some files some systems say that there is nothing in them


class _PartFile(io.FileIO):
    """A file whose read errors become those of its store.

    A save reads one store's file while it writes another's, and must not mix up their errors.
    """

    def __init__(
        self, file: int | str | os.PathLike[str], explain: Callable[[OSError], Exception]
    ) -> None:
        super().__init__(file, "rb")
        self._explain = explain

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(-1 if size is None else size) or b""
        except OSError as error:
            raise self._explain(error) from error

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise self._explain(error) from error


def open_file(
    file: int | str | os.PathLike[str], explain: Callable[[OSError], Exception]
) -> BinaryIO:
    """Open a file (or take over its descriptor) to be read as a part.

    :param explain: makes of a read error the exception to be raised
    """
    try:
        return cast(BinaryIO, _PartFile(file, explain))
    except OSError as error:
        raise explain(error) from error


class _ChunksFile(io.RawIOBase):
    """A file of the pieces that an iterator gives, of which one is in memory at a time."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self._close = close
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()


def file_of_chunks(chunks: Iterator[bytes], close: Callable[[], None] | None = None) -> BinaryIO:
    """Return a file that is read piece by piece.

    :param close: closes what the pieces come from; None: a generator is closed
    """
    if close is None:
        close = chunks.close if isinstance(chunks, Generator) else lambda: None
    return cast(BinaryIO, _ChunksFile(chunks, close))
