# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Layouts: where a crash lies below a root, and what the names of directories and files say.

Pure functions: no other module knows how directories and files are named.

::

    root/YYYYMMDD/name/0b/ba/ID.json         the raw crash
                             ID.dump         the main dump
                             ID.NAME.dump    any other dump
                             ID.jsonz        the processed crash, gzipped

The day and the number of two-character directories come from the crash id.  Source of the
rule: Mozilla Socorro, ``socorro/external/fs/crashstorage.py``, and its radix storage of
before 2018, which had one more directory, named by the id, at the leaf.
"""

import re
from dataclasses import dataclass
from typing import assert_never

from crashmover import crashid
from crashmover.crash import MAIN_DUMP, Kind, canonical_dump_name
from crashmover.errors import InvalidDumpName

Where = tuple[str, ...]
"""A directory: the names of those above it and its own, from the root down."""

ID_LENGTH = 36
_RADIX = re.compile(r"[0-9a-f-]{2}", re.ASCII)  # of an id; the fifth pair begins with a hyphen
_COMPONENT = re.compile(r"[^/\0]+")

# Depth digit -> the depths to look at, the first of which is written.  Today's collectors
# write digit 0 flat; before 2018 it meant 4.  For 5 to 9 we write the default depth, and Socorro
# the digit's own.  A letter means the default.
_DEPTHS = {"0": (0, 4), "1": (1,), "2": (2,), "3": (3,), "4": (4,)} | {
    str(digit): (crashid.DEFAULT_DEPTH, digit) for digit in range(5, 10)
}

_MAX_DEPTH = 9  # two-character directories


@dataclass(frozen=True)
class Layout:
    """The names that a file-system store uses.

    :raises ValueError: two suffixes are equal, or a name cannot be one
    """

    name_branch_base: str = "name"
    json_file_suffix: str = ".json"
    jsonz_file_suffix: str = ".jsonz"
    dump_file_suffix: str = ".dump"
    dump_field: str = MAIN_DUMP

    def __post_init__(self) -> None:
        base = self.name_branch_base
        if base.startswith(".") or not _COMPONENT.fullmatch(base):
            raise ValueError("name_branch_base must be the name of a directory")
        suffixes = (self.json_file_suffix, self.jsonz_file_suffix, self.dump_file_suffix)
        for suffix in suffixes:
            if not suffix.startswith(".") or not _COMPONENT.fullmatch(suffix):
                raise ValueError(f"a suffix starts with a dot and has no slash: {suffix!r}")
        if len(set(suffixes)) < len(suffixes):
            raise ValueError("two suffixes are the same")
        if any(suffix.endswith(self.dump_file_suffix) for suffix in suffixes[:2]):
            raise ValueError("the other suffixes must not end with that of dumps")
        object.__setattr__(self, "dump_field", canonical_dump_name(self.dump_field))

    # Directories

    def leaves(self, crash_id: str) -> list[Where]:
        """Return the directories at whose depth the crash may lie, in the order to look.  It is
        written to the first."""
        return [self._leaf(crash_id, depth) for depth in _depths(crash_id)]

    def _leaf(self, crash_id: str, depth: int) -> Where:
        pairs = (crash_id[i : i + 2] for i in range(0, 2 * depth, 2))
        return (*self.top(f"20{crash_id[-6:]}"), *pairs)

    def directories(self, crash_id: str) -> list[Where]:
        """Return all the directories where the crash may lie: each leaf, and in it the older
        form's own directory."""
        return [place for leaf in self.leaves(crash_id) for place in (leaf, (*leaf, crash_id))]

    def top(self, day_name: str) -> Where:
        """Return the directory below which the crashes of a day lie."""
        return day_name, self.name_branch_base

    def belongs(self, crash_id: str, where: Where) -> bool:
        """Return True if that is a crash id, and the directory one where the crash may lie."""
        if not crashid.is_valid(crash_id):
            return False
        leaf = where[:-1] if where[-1] == crash_id else where  # the older form
        depth = len(leaf) - 2
        return depth in _depths(crash_id) and leaf == self._leaf(crash_id, depth)

    def leads_on(self, name: str, where: Where) -> bool:
        """Return True if crashes may lie below the directory `name` in `where`.

        `where` is below a day's top.  In an older form's own directory no further one leads on.
        """
        pairs = (*where[2:], name)
        return len(pairs) <= _MAX_DEPTH and all(map(_RADIX.fullmatch, pairs))

    def place_in(self, other: "Layout", where: Where) -> Where:
        """Return where a tree of the other layout has the crashes that this one has there."""
        is_below_top = where[1:2] == (self.name_branch_base,)
        return (*other.top(where[0]), *where[2:]) if is_below_top else where

    # Files

    def file_name(self, crash_id: str, kind: Kind, name: str = "") -> str:
        """Return what the file of a part is called."""
        match kind:
            case Kind.RAW_CRASH:
                return crash_id + self.json_file_suffix
            case Kind.PROCESSED_CRASH:
                return crash_id + self.jsonz_file_suffix
            case Kind.DUMP if name == self.dump_field:
                return crash_id + self.dump_file_suffix
            case Kind.DUMP:
                return f"{crash_id}.{name}{self.dump_file_suffix}"
            case _:
                assert_never(kind)

    def is_dump(self, file_name: str) -> bool:
        """Return True if a file whose name begins with a crash id holds a dump."""
        rest = file_name[ID_LENGTH:]
        return rest.startswith(".") and rest.endswith(self.dump_file_suffix)

    def is_known(self, file_name: str) -> bool:
        """Return True if a file whose name begins with a crash id is one of the store's."""
        rest = file_name[ID_LENGTH:]
        return rest in (self.json_file_suffix, self.jsonz_file_suffix) or self.is_dump(file_name)

    def dump_name(self, file_name: str) -> str:
        """Return the name of the dump in a file that `is_dump`; `InvalidDumpName` if it is none."""
        rest = file_name[ID_LENGTH:]
        if rest == self.dump_file_suffix:
            return self.dump_field
        name = rest.removesuffix(self.dump_file_suffix)[1:]
        if not name:
            raise InvalidDumpName(name, "it is empty")
        return canonical_dump_name(name)


def _depths(crash_id: str) -> tuple[int, ...]:
    return _DEPTHS.get(crashid.depth_digit(crash_id), (crashid.DEFAULT_DEPTH,))
