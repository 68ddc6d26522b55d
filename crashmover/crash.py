# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a crash is, whatever store it lies in: an id and its parts, bytes only."""

import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, assert_never

from crashmover import crashid
from crashmover.errors import CorruptCrash, InvalidDumpName, StorageError
from crashmover.partfiles import FileWriter, file_of_chunks, open_file

MAIN_DUMP = "upload_file_minidump"
"""The canonical name of a crash's main dump."""

CHUNK = 1 << 16
"""How many bytes of a part are read at a time: more costs memory that must be mapped anew
for each, and gains nothing."""

PUMP = 1 << 18
"""How many bytes of a part are read at a time where the memory for them is there already."""

_DUMP_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", re.ASCII)
_RESERVED = frozenset({"raw_crash", "dump_names", "processed_crash", "crash_report"})


class Kind(StrEnum):
    """What a part is.

    What differs from kind to kind is said by a ``match`` that ends in ``assert_never``, here or
    where it matters.  So the type checker names each place that a new kind has to be added to.
    """

    RAW_CRASH = "raw_crash"
    DUMP = "dump"
    PROCESSED_CRASH = "processed_crash"

    @property
    def marker(self) -> "Kind":
        """The kind that it is saved and removed with: the part of that kind is put last, and
        without it no reader sees the others."""
        match self:
            case Kind.RAW_CRASH | Kind.DUMP:
                return Kind.RAW_CRASH
            case Kind.PROCESSED_CRASH:
                return Kind.PROCESSED_CRASH
            case _:
                assert_never(self)

    @property
    def is_named(self) -> bool:
        """Whether a crash may have several parts of it, told apart by their names."""
        match self:
            case Kind.DUMP:
                return True
            case Kind.RAW_CRASH | Kind.PROCESSED_CRASH:
                return False
            case _:
                assert_never(self)


ALL_KINDS = frozenset(Kind)

MARKERS = tuple(kind for kind in Kind if kind.marker is kind)
"""The kinds that say that a crash is there: those that a listing can be of."""

COLLECTED = frozenset(kind for kind in Kind if kind.marker is Kind.RAW_CRASH)
"""The kinds that a collector makes: they are saved, replaced and removed together."""


def marker_of(kinds: Set[Kind]) -> Kind:
    """Return the kind of part that says that a crash is there, for a caller that wants these."""
    markers = {kind.marker for kind in kinds}
    return next((marker for marker in MARKERS if marker in markers), Kind.RAW_CRASH)


def canonical_dump_name(name: str | None) -> str:
    """Return the one name for a dump; ``None``, ``""`` and ``dump`` mean the main one.

    :raises InvalidDumpName: it is not 1 to 100 of ``A-Z a-z 0-9 _ . -``, starts with a
        dot, or is a name that S3 layouts use for something else
    """
    if name is None or name in ("", "dump"):
        return MAIN_DUMP
    if not isinstance(name, str) or not _DUMP_NAME.fullmatch(name):
        raise InvalidDumpName(name, "use 1 to 100 of A-Z a-z 0-9 _ . - and no dot at the start")
    if name in _RESERVED:
        raise InvalidDumpName(name, "that name is reserved")
    return name


@dataclass(frozen=True, slots=True)
class Part:
    """One blob of a crash.

    :param kind: what it is
    :param name: a dump's name; ``""`` for the other kinds
    :param open: gives a context manager of a binary file, at its beginning; may be
        called again, also at the same time from another thread
    :param size: in bytes, where the store knows it for free
    :param packed: where the store keeps it gzipped: another way to read it
    :param ask_size: finds out the size, in bytes, where that takes less than reading it; raises
        what opening it would
    :param locate: says where it lies; a copy does not ask
    :param state: what its store knows it by: another when it has been replaced
    :param ask_state: finds that out, where the store does not know it for free: of what was read,
        if it was; raises what opening it would
    """

    kind: Kind
    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]
    size: int | None = None
    packed: "Packed | None" = None
    ask_size: Callable[[], int] | None = None
    locate: Callable[[], str] | None = None
    state: object = None
    ask_state: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if self.kind.is_named:
            object.__setattr__(self, "name", canonical_dump_name(self.name))
        elif self.name:
            raise ValueError(f"a {self.kind} has no name")

    @classmethod
    def of_bytes(cls, kind: Kind, data: bytes, name: str = "", *, state: object = None) -> "Part":
        """A part that is in memory."""
        return cls(kind, name, lambda: io.BytesIO(data), len(data), state=state)

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
        state: object = None,
    ) -> "Part":
        """A part that comes piece by piece.

        :param chunks: returns the pieces, each time from the first on, as a generator does; one
            is closed when its reader is done
        """
        return cls(kind, name, lambda: file_of_chunks(chunks()), size, state=state)

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

    def pump(self, write: "Write") -> None:
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

    def measure(self) -> int:
        """Return how many bytes it has, reading it where its store does not know.

        :raises CorruptCrash: as `read`
        """
        if self.size is None and self.ask_size:
            return self.ask_size()
        return self.size if self.size is not None else sum(map(len, self.chunks()))

    def find_state(self) -> object:
        """Return what its store knows it by; None where that is nothing but its size.

        :raises StorageError: as opening it, where its store has to look for that
        """
        return self.ask_state() if self.ask_state else self.state

    def look(self) -> int | None:
        """Make sure that it is there, without reading all of it; return how many bytes it has,
        where that shows."""
        if self.size is None and self.ask_size is None:
            with self.open():
                return None
        return self.measure()

    def _pump_file(self, file: io.FileIO, write: "Write") -> None:
        count, is_all = write.take(file) if isinstance(write, FileWriter) else (0, False)
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


Write = Callable[[memoryview], object]

Packed = Callable[[Write, Write], None]
"""Passes a part's bytes on twice, piece by piece: gzipped to the first, and as they are to the
second.  Raises `CorruptCrash` at the latest at the end."""

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


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash id and its parts: at most one raw crash, at most one processed crash, any
    number of dumps by different names.

    :raises InvalidCrashID: of a bad id
    :raises CorruptCrash: of two parts that are the same
    """

    crash_id: str
    parts: Sequence[Part]

    def __post_init__(self) -> None:
        crashid.validate(self.crash_id)
        seen: set[tuple[Kind, str]] = set()
        for part in self.parts:
            if part.key in seen:
                raise CorruptCrash(f"{part.label} is there twice", crash_id=self.crash_id)
            seen.add(part.key)

    def part(self, kind: Kind, name: str = "") -> Part | None:
        """Return that part, or None."""
        for part in self.parts:  # asked for many times for each crash
            if part.kind is kind and part.name == name:
                return part
        return None

    @property
    def raw_crash(self) -> Part | None:
        """The annotations: JSON."""
        return self.part(Kind.RAW_CRASH)

    @property
    def processed_crash(self) -> Part | None:
        """The processor's report: JSON."""
        return self.part(Kind.PROCESSED_CRASH)

    @property
    def dumps(self) -> list[Part]:
        """Minidumps, memory reports and the like."""
        return [part for part in self.parts if part.kind is Kind.DUMP]

    def states(self) -> dict[tuple[Kind, str], tuple[int | None, object]]:
        """Return what tells, without reading any of it, whether it is as it was: the size and the
        state of each part, as far as its store knows."""
        return {part.key: (part.size, part.find_state()) for part in self.parts}


class MemoryDumpsMapping(dict[str, bytes]):
    """Dumps in memory: name -> bytes."""

    def as_memory_dumps_mapping(self) -> "MemoryDumpsMapping":
        """Return itself."""
        return self

    def as_file_dumps_mapping(
        self, crash_id: str, temp_path: str | os.PathLike[str], dump_file_suffix: str = ".dump"
    ) -> "FileDumpsMapping":
        """Write each dump to ``temp_path/ID.NAME.TEMPORARY.dump`` and return where they are.

        :raises InvalidCrashID, InvalidDumpName, CorruptCrash: of a bad id, a bad name, or two
            names for one dump; nothing is written
        """
        files = FileDumpsMapping()
        for part in Crash(crash_id, self.as_parts()).parts:
            path = temporary_dump_path(temp_path, crash_id, part.name, dump_file_suffix)
            path.write_bytes(part.read())
            files[part.name] = str(path)
        return files

    def as_parts(self) -> list[Part]:
        """Return each dump as a part of a crash."""
        return [Part.of_bytes(Kind.DUMP, bytes(data), name) for name, data in self.items()]


class FileDumpsMapping(dict[str, str]):
    """Dumps in files: name -> path."""

    def as_memory_dumps_mapping(self) -> MemoryDumpsMapping:
        """Read every file."""
        return MemoryDumpsMapping((name, Path(path).read_bytes()) for name, path in self.items())

    def as_file_dumps_mapping(self, *_args: object, **_kwargs: object) -> "FileDumpsMapping":
        """Return itself; the files stay where they are."""
        return self

    def as_parts(self) -> list[Part]:
        """Return each dump as a part of a crash."""
        return [Part.of_file(Kind.DUMP, path, name) for name, path in self.items()]


DumpsMapping = MemoryDumpsMapping | FileDumpsMapping | Mapping[str, bytes] | None
"""What the Socorro API takes for dumps; a plain mapping is of names to bytes."""


def dump_parts(dumps: DumpsMapping) -> list[Part]:
    """Return the parts that a mapping of dumps stands for."""
    if not isinstance(dumps, MemoryDumpsMapping | FileDumpsMapping):
        dumps = MemoryDumpsMapping(dumps or {})
    return dumps.as_parts()


def temporary_dump_path(
    directory: str | os.PathLike[str], crash_id: str, name: str, suffix: str = ".dump"
) -> Path:
    """Where a dump is put down for a program that wants a file."""
    return Path(directory, f"{crash_id}.{name}.TEMPORARY{suffix}")
