# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Comparing a crash in one store with the same crash in another, to the byte."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO

from crashmover.crash import COLLECTED, Crash, Kind, Part
from crashmover.documents import SMALL
from crashmover.errors import CorruptCrash
from crashmover.partfiles import file_of_chunks
from crashmover.parts import CHUNK, Write

Key = tuple[Kind, str]

Examine = Callable[["MeasuredPart", bytes | None], str | None]
"""Is called when all of a part has been read, with the part and its bytes, where these were to be
kept and are few; returns what is wrong with it, or None."""


@dataclass(eq=False)
class MeasuredPart:
    """A part that remembers, once it has been read to its end, how long it was and its
    SHA-256: a copy that is verified reads its source once.

    :param hashing: whether to work out the SHA-256
    :param examine: what looks at it then; where it finds something wrong, the reading fails
        before its end, so that no store makes a crash of it
    :param keeps_bytes: whether `examine` wants the bytes
    """

    part: Part
    hashing: bool
    count: int | None = None
    examine: Examine | None = field(default=None, repr=False)
    keeps_bytes: bool = False
    _sha256: bytes | None = field(default=None, repr=False)
    _is_examined: bool = False
    _fault: str | None = None

    def as_part(self) -> Part:
        """Return the part to be read instead."""
        return _Measuring(self)

    @property
    def size(self) -> int | None:
        """In bytes, if the store said so or it has been read."""
        return self.part.size if self.count is None else self.count

    def sha256(self) -> bytes:
        """Return the SHA-256 of the part, reading it if that was not done yet.  What `examine`
        finds wrong is kept for `find_fault`."""
        if self._sha256 is None:
            self._read(hashing=True)
        assert self._sha256
        return self._sha256

    def find_fault(self) -> str | None:
        """Return what `examine` finds wrong, reading the part if that was not done yet."""
        if self.examine and not self._is_examined:
            self._read()
        return self._fault

    def _read(self, *, hashing: bool = False) -> None:
        gauge = _Gauge(self, hashing=hashing)
        self.part.pump(gauge.see)
        gauge.close()

    def check(self) -> None:
        """Make sure that it is there, and find out its size where that takes no reading."""
        if self.size is None:
            self.count = self.part.check()

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the part: a store that reads the file by itself meets what is wrong with it too."""
        return file_of_chunks(self.as_part().chunks()) if self.examine else self.part.open()

    def pump_packed(self, write: Write, write_unpacked: Write) -> None:
        """As the part's `packed`."""
        gauge = _Gauge(self)

        def see(piece: memoryview) -> None:
            gauge.see(piece)
            write_unpacked(piece)

        assert self.part.packed
        self.part.packed(write, see)
        gauge.finish()

    def measured(self, count: int, digest: bytes | None, data: bytes | None) -> str | None:
        """Take note of a reading that came to the end; return what is wrong with the part."""
        self.count = count
        self._sha256 = digest or self._sha256
        if self.examine:
            self._fault = self.examine(self, data)
            self._is_examined = True
        return self._fault


class _Gauge:
    def __init__(self, measured: MeasuredPart, *, hashing: bool = False) -> None:
        self._measured = measured
        self._count = 0
        self._digest = hashlib.sha256() if hashing or measured.hashing else None
        self._kept = bytearray() if measured.keeps_bytes else None

    def see(self, piece: bytes | memoryview) -> None:
        self._count += len(piece)
        if self._digest:
            self._digest.update(piece)
        if self._kept is not None:
            self._kept += piece
            if len(self._kept) > SMALL:
                self._kept = None

    def close(self) -> str | None:
        """Say that all of it has been read; return what is wrong with it."""
        digest = self._digest.digest() if self._digest else None
        kept = None if self._kept is None else bytes(self._kept)
        return self._measured.measured(self._count, digest, kept)

    def finish(self) -> None:
        """As `close`.

        :raises CorruptCrash: something is wrong with it
        """
        if fault := self.close():
            raise CorruptCrash(fault)


class _Measuring(Part):
    """A part that is measured when all of it is read, in whatever way."""

    __slots__ = ("_measured",)
    _measured: MeasuredPart

    def __init__(self, measured: MeasuredPart) -> None:
        part = measured.part
        packed = measured.pump_packed if part.packed else None
        super().__init__(part.kind, part.name, measured.open, part.size, packed)
        object.__setattr__(self, "_measured", measured)

    def chunks(self) -> Iterator[bytes]:
        gauge = _Gauge(self._measured)
        held = b""  # the last piece is passed on when nothing is wrong
        for chunk in self._measured.part.chunks():
            gauge.see(chunk)
            if held:
                yield held
            held = chunk
        gauge.finish()
        if held:
            yield held

    def read(self) -> bytes:
        measured = self._measured
        data = measured.part.read()
        digest = hashlib.sha256(data).digest() if measured.hashing else None
        if fault := measured.measured(len(data), digest, data if len(data) <= SMALL else None):
            raise CorruptCrash(fault)
        return data

    def pump(self, write: Write) -> None:
        measured = self._measured
        if self.size is not None and not measured.hashing and not measured.examine:
            measured.part.pump(write)  # which counts
            measured.count = self.size
            return
        if self.size is not None and self.size <= CHUNK:
            write(memoryview(self.read()))
            return
        gauge = _Gauge(measured)

        def see(piece: memoryview) -> None:
            gauge.see(piece)
            write(piece)

        measured.part.pump(see)
        gauge.finish()


class MeasuredCrash:
    """A crash of which every part is measured as it is read."""

    fault: str | None = None
    """What is wrong with it, as far as that shows before its parts are read; see `find_fault`."""

    def __init__(self, crash: Crash, *, hashing: bool) -> None:
        self.measured = {part.key: MeasuredPart(part, hashing) for part in crash.parts}
        self.crash = Crash(crash.crash_id, [part.as_part() for part in self.measured.values()])
        self.lacking: list[str] = []
        """The dumps that its raw crash names and that it does not have, as far as that was looked
        for."""

    def find_fault(self) -> str | None:
        """Return what is wrong with it: `fault`, or the first thing that `MeasuredPart.examine`
        finds wrong with a part."""
        faults = (part.find_fault() for part in self.measured.values())
        return self.fault or next(filter(None, faults), None)

    def only(self, keys: set[Key]) -> Crash:
        """Return the crash with only some of its parts."""
        parts = [part for part in self.crash.parts if part.key in keys]
        return Crash(self.crash.crash_id, parts)

    def bytes_of(self, keys: set[Key]) -> int:
        """How many bytes these parts have, as far as is known."""
        return sum(self.measured[key].size or 0 for key in keys)


@dataclass
class Difference:
    """What is not the same of a crash: the parts by where they are."""

    missing: set[Key] = field(default_factory=set)  # only in the first
    differing: set[Key] = field(default_factory=set)
    extra: set[Key] = field(default_factory=set)  # only in the second

    def __bool__(self) -> bool:
        return bool(self.missing or self.differing or self.extra)

    def __str__(self) -> str:
        texts = ("missing", "different", "not in source")
        return "; ".join(
            f"{text}: {', '.join(names)}"
            for text, names in zip(texts, self.as_dict().values(), strict=True)
            if names
        )

    def as_dict(self) -> dict[str, list[str]]:
        """The names of the dumps, and the kinds of other parts."""
        keys = {"missing": self.missing, "differing": self.differing, "extra": self.extra}
        return {
            what: sorted(name or kind.value for kind, name in found) for what, found in keys.items()
        }


def compare(
    source: MeasuredCrash,
    other: Crash,
    is_same: Callable[[MeasuredPart, Part], bool] | None = None,
) -> Difference:
    """Return how `other` differs from `source`.

    A processed crash that only `other` has is no difference: it came later.

    :param is_same: compares two parts; what stands here goes by every byte
    """
    is_same = is_same or _is_same
    parts = {part.key: part for part in other.parts}
    difference = Difference(extra={key for key in parts if key[0] in COLLECTED})
    for key, measured in source.measured.items():
        difference.extra.discard(key)
        if key not in parts:
            difference.missing.add(key)
        elif not is_same(measured, parts[key]):
            difference.differing.add(key)
    return difference


def _is_same(measured: MeasuredPart, other: Part) -> bool:
    if None not in (measured.size, other.size) and measured.size != other.size:
        return False
    return measured.sha256() == sha256(other)


def has_same_size(measured: MeasuredPart, other: Part) -> bool:
    """Whether two parts are equally long, as far as that can be told without reading them."""
    measured.check()
    size = other.check()
    return None in (measured.size, size) or measured.size == size


def sha256(part: Part) -> bytes:
    """Return the SHA-256 of a part's bytes."""
    digest = hashlib.sha256()
    part.pump(digest.update)
    return digest.digest()
