# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a crash is, whatever store it lies in: an id and its parts, bytes only."""

from collections.abc import Sequence
from dataclasses import dataclass

from crashmover import crashid
from crashmover.errors import CorruptCrash
from crashmover.kinds import (
    ALL_KINDS,
    COLLECTED,
    MAIN_DUMP,
    MARKERS,
    Kind,
    canonical_dump_name,
    marker_of,
)
from crashmover.parts import Part

__all__ = [
    "ALL_KINDS",
    "COLLECTED",
    "MAIN_DUMP",
    "MARKERS",
    "Crash",
    "Kind",
    "Part",
    "canonical_dump_name",
    "marker_of",
]


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

    def versions(self) -> dict[tuple[Kind, str], tuple[int | None, object]]:
        """Return the size and version of each part, as far as its store knows them without reading:
        they differ when the crash was replaced."""
        return {part.key: (part.size, part.find_version()) for part in self.parts}
