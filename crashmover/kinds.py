# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The kinds of parts that a crash has, and the names of its dumps."""

import re
from collections.abc import Set
from enum import StrEnum
from typing import assert_never

from crashmover.errors import InvalidDumpName

MAIN_DUMP = "upload_file_minidump"
"""The canonical name of a crash's main dump."""

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
