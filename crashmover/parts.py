# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Part: one blob of a crash, read in bounded memory, wherever it lies."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from crashmover.errors import CorruptCrash, StorageError
from crashmover.kinds import Kind, canonical_dump_name
from crashmover.partfiles import FileWriter, file_of_chunks, open_file

CHUNK = 1 << 16
"""How many bytes of a part are read at a time: more costs memory that must be mapped anew
for each, and gains nothing."""

PUMP = 1 << 18
"""How many bytes of a part are read at a time where the memory for them is there already."""

Write = Callable[[memoryview], object]

Packed = Callable[[Write, Write], None]
"""Passes a part's bytes on twice, piece by piece: gzipped to the first, and as they are to the
second.  Raises `CorruptCrash` at the latest at the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """One blob of a crash.

    :param kind: what it is
    :param name: a dump's name; ``""`` for the other kinds
    :param open: returns a context manager of a binary file, at its beginning.  It may be called
        again, also at the same time from another thread
    :param size: in bytes, where the store knows it for free
    :param packed: where the store keeps it gzipped: another way to read it
    :param ask_size: finds the size, in bytes, with less work than reading; raises what `open` would
    :param locate: returns where it lies; a copy does not ask
    :param version: the store's name for just these bytes, another when they have been replaced
    :param ask_version: finds the version where the store does not know it for free: of what was
        read, if it was; raises what `open` would
    """

    kind: Kind
    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]
    size: int | None = None
    packed: Packed | None = None
    ask_size: Callable[[], int] | None = None
    locate: Callable[[], str] | None = None
    version: object = None
    ask_version: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if self.kind.is_named:
            object.__setattr__(self, "name", canonical_dump_name(self.name))
        elif self.name:
            raise ValueError(f"a {self.kind} has no name")

    @classmethod
    def of_bytes(cls, kind: Kind, data: bytes, name: str = "", *, version: object = None) -> "Part":
        """A part that is in memory."""
        return cls(kind, name, lambda: io.BytesIO(data), len(data), version=version)

    @classmethod
    def of_file(cls, kind: Kind, path: str | os.PathLike[str], name: str = "") -> "Part":
        """A part that is a file, read when it is needed."""

        def unreadable(error: OSError) -> StorageError:
            return StorageError(f"{path} cannot be read: {error.strerror}")

        return cls(kind, name, lambda: open_file(path, unreadable), os.stat(path).st_size)

    @classmethod
    def of_chunks(
        cls,
        kind: Kind,
        chunks: Callable[[], Iterator[bytes]],
        name: str = "",
        size: int | None = None,
        version: object = None,
    ) -> "Part":
        """A part that comes piece by piece.

        :param chunks: returns the pieces, each time from the first on, as a generator does; one
            is closed when its reader is done
        """
        return cls(kind, name, lambda: file_of_chunks(chunks()), size, version=version)

    @property
    def key(self) -> tuple[Kind, str]:
        """What tells it from the other parts of its crash."""
        return self.kind, self.name

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return f"{self.kind.value} {self.name}" if self.kind.is_named else self.kind.value

    @property
    def location(self) -> str | None:
        """Where it lies, as the store's own tools would name it, on one line; None where that is
        nowhere in particular.  Never a secret."""
        return self.locate() if self.locate else None

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes, at most `CHUNK` at a time.

        :raises CorruptCrash: there are more or fewer than `size` of them
        """
        with self.open() as file:
            yield from self._chunks_of(file)

    def pump(self, write: Write) -> None:
        """Pass its bytes on, piece by piece: as `chunks`, without a new piece of memory for
        each of them.

        :param write: is given a piece, which holds these bytes only until it returns; where it is
            a `FileWriter` and the part is a file, that may take all of it at once
        :raises CorruptCrash: there are more or fewer than `size` of them
        """
        with self.open() as file:
            if isinstance(file, io.FileIO):
                self._pump_file(file, write)
            elif type(file) is io.BytesIO:  # all of it is in memory
                write(memoryview(self._checked(file.read())))
            else:
                for chunk in self._chunks_of(file):
                    write(memoryview(chunk))

    def read(self) -> bytes:
        """Return all its bytes.

        :raises CorruptCrash: there are more or fewer than `size` of them
        """
        with self.open() as file:
            if type(file) is io.BytesIO:
                return self._checked(file.read())
            first = b""
            if isinstance(file, io.FileIO) and self.size is not None and self.size < PUMP:
                first = file.read(self.size + 1)
            return b"".join((first, *self._chunks_of(file, len(first))))

    def find_size(self) -> int:
        """Return how many bytes it has, reading it where its store does not know.

        :raises CorruptCrash: as `read`
        """
        if self.size is None and self.ask_size:
            return self.ask_size()
        return self.size if self.size is not None else sum(map(len, self.chunks()))

    def find_version(self) -> object:
        """Return its version; None where its store has none.

        :raises StorageError: as `open`, where its store has to look for that
        """
        return self.ask_version() if self.ask_version else self.version

    def check(self) -> int | None:
        """Make sure that it is there, without reading all of it; return how many bytes it has,
        where that shows."""
        if self.size is None and self.ask_size is None:
            with self.open():
                return None
        return self.find_size()

    def _pump_file(self, file: io.FileIO, write: Write) -> None:
        count, is_all = write.copy_from(file) if isinstance(write, FileWriter) else (0, False)
        if not is_all or count != self.size:  # which some file systems make out to be less
            with _pump_buffer() as buffer:
                while size := file.readinto(buffer):
                    count += size
                    self._check_size(count, is_end=False)
                    write(buffer[:size])
        self._check_size(count, is_end=True)

    def _chunks_of(self, file: BinaryIO, count: int = 0) -> Iterator[bytes]:
        # A byte more than announced, so that a longer body shows.
        at_once = CHUNK if self.size is None else min(CHUNK, self.size + 1)
        while chunk := file.read(at_once):
            count += len(chunk)
            self._check_size(count, is_end=False)
            yield chunk
        self._check_size(count, is_end=True)

    def _checked(self, data: bytes) -> bytes:
        self._check_size(len(data), is_end=True)
        return data

    def _check_size(self, count: int, *, is_end: bool) -> None:
        if self.size is None:
            return
        if count > self.size:
            raise CorruptCrash(f"{self.label}: there are more than {self.size} bytes")
        if is_end and count < self.size:
            raise CorruptCrash(f"{self.label}: read {count} bytes of {self.size}")


_buffers = threading.local()


@contextmanager
def _pump_buffer() -> Iterator[memoryview]:
    """Lend the buffer of this thread; a new one, where it is lent already."""
    buffer: memoryview | None = getattr(_buffers, "idle", None)
    _buffers.idle = None
    buffer = memoryview(bytearray(PUMP)) if buffer is None else buffer
    try:
        yield buffer
    finally:
        _buffers.idle = buffer
