# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Comparing a crash in one store with the same crash in another, to the byte."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from crashmover.crash import Crash, Kind, Part, Write, canonical_dump_name
from crashmover.documents import LargeDocument, in_turn, json_object
from crashmover.errors import CorruptCrash, InvalidDumpName

Key = tuple[Kind, str]

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)


@dataclass(eq=False)
class MeasuredPart:
    """A part that remembers, once it has been read to its end, how long it was and its
    SHA-256: a copy that is verified reads its source once.

    :param hashing: whether to work out the SHA-256
    """

    part: Part
    hashing: bool
    count: int | None = None
    _sha256: bytes | None = field(default=None, repr=False)

    def as_part(self) -> Part:
        """Return the part to be read instead."""
        return _Measuring(self)

    @property
    def size(self) -> int | None:
        """In bytes, if the store said so or it has been read."""
        return self.part.size if self.count is None else self.count

    def sha256(self) -> bytes:
        """Return the SHA-256 of the part, reading it if nobody has yet."""
        if self._sha256 is None:
            self._sha256 = sha256(self.part)
        return self._sha256

    def read(self) -> None:
        """Read all of it, for what is measured then."""
        self.as_part().pump(lambda piece: None)

    def look(self) -> None:
        """Make sure that it is there, and find out its size where that takes no reading."""
        if self.size is None:
            self.count = self.part.look()

    def pump_packed(self, write: Write, write_unpacked: Write) -> None:
        """As the part's `packed`."""
        gauge = _Gauge(self)

        def see(piece: memoryview) -> None:
            gauge.see(piece)
            write_unpacked(piece)

        assert self.part.packed
        self.part.packed(write, see)
        gauge.finish()

    def measured(self, count: int, digest: bytes | None) -> None:
        """Take note of a reading that came to the end."""
        self.count = count
        self._sha256 = digest or self._sha256


@dataclass
class _Gauge:
    """Measures a reading as it goes on."""

    measured: MeasuredPart
    count: int = 0

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256() if self.measured.hashing else None

    def see(self, piece: bytes | memoryview) -> None:
        self.count += len(piece)
        if self._digest:
            self._digest.update(piece)

    def finish(self) -> None:
        self.measured.measured(self.count, self._digest.digest() if self._digest else None)


class _Measuring(Part):
    """A part that is measured when all of it is read, in whatever way."""

    __slots__ = ("_measured",)
    _measured: MeasuredPart

    def __init__(self, measured: MeasuredPart) -> None:
        part = measured.part
        packed = measured.pump_packed if part.packed else None
        super().__init__(part.kind, part.name, part.open, part.size, packed)
        object.__setattr__(self, "_measured", measured)

    def chunks(self) -> Iterator[bytes]:
        gauge = _Gauge(self._measured)
        for chunk in self._measured.part.chunks():
            gauge.see(chunk)
            yield chunk
        gauge.finish()

    def read(self) -> bytes:
        gauge = _Gauge(self._measured)
        data = self._measured.part.read()
        gauge.see(data)
        gauge.finish()
        return data

    def pump(self, write: Write) -> None:
        measured = self._measured
        if self.size is not None and not measured.hashing:
            measured.part.pump(write)  # which counts
            measured.count = self.size
            return
        gauge = _Gauge(measured)

        def see(piece: memoryview) -> None:
            gauge.see(piece)
            write(piece)

        measured.part.pump(see)
        gauge.finish()


class MeasuredCrash:
    """A crash of which every part is measured as it is read."""

    def __init__(self, crash: Crash, *, hashing: bool) -> None:
        self.measured = {part.key: MeasuredPart(part, hashing) for part in crash.parts}
        self.crash = Crash(crash.crash_id, [part.as_part() for part in self.measured.values()])

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
    difference = Difference(extra={key for key in parts if key[0] is Kind.DUMP})
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
    measured.look()
    size = other.look()
    return None in (measured.size, size) or measured.size == size


def sha256(part: Part) -> bytes:
    """Return the SHA-256 of a part's bytes."""
    digest = hashlib.sha256()
    part.pump(digest.update)
    return digest.digest()


def check_dump_checksums(source: MeasuredCrash) -> None:
    """Hold a crash's dumps against the ``metadata.dump_checksums`` of its own raw crash,
    which its collector worked out as it received them.

    Source of the rule: Mozilla Antenna, ``antenna/breakpad_resource.py``.  A raw crash that
    is not JSON or has no checksums says nothing, and so does a checksum that is no SHA-256.

    :raises CorruptCrash: a dump is missing or not what was received
    """
    for name, expected in _dump_checksums(source.crash).items():
        measured = source.measured.get((Kind.DUMP, name))
        if measured is None:
            raise CorruptCrash(f"dump {name} is missing: the raw crash has a checksum of it")
        if measured.sha256() != expected:
            raise CorruptCrash(f"dump {name} does not match its checksum in the raw crash")


def _dump_checksums(crash: Crash) -> dict[str, bytes]:
    if crash.raw_crash is None:
        return {}
    try:
        with in_turn(crash.raw_crash):
            metadata = json_object(crash.raw_crash).get("metadata")
    except LargeDocument:  # whether it has any is not known
        raise
    except CorruptCrash:
        return {}
    checksums = metadata.get("dump_checksums") if isinstance(metadata, dict) else None
    if not isinstance(checksums, dict):
        return {}
    found = {}
    for name, text in checksums.items():
        if isinstance(text, str) and _SHA256.fullmatch(text):
            try:
                found[canonical_dump_name(name)] = bytes.fromhex(text)
            except InvalidDumpName:
                continue
    return found
