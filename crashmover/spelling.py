# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Names that differ only in case: some directories take them for one name."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two of these names that differ only in case; None if there are none."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.lower(), name)
        if other != name:
            return other, name
    return None


def taken_for_one(one: str, other: str) -> str:
    """Return the text of an error about two such names."""
    return f"{one} and {other} differ only in case, and the directory takes them for one name"


def refuse_taken(written: Iterable[str | Path], path: Path) -> None:
    """Raise if a file that was just written would be overwritten under another spelling.

    :raises FileExistsError: the directory takes its name and that of `path` for one name
    """
    for other in map(Path, written):
        is_alike = other.name != path.name and other.name.lower() == path.name.lower()
        if is_alike and _is_only_found(path):
            raise FileExistsError(errno.EEXIST, taken_for_one(other.name, path.name))


def _is_only_found(path: Path) -> bool:
    """Return True if a file is found by a name that its directory does not list.

    Inode numbers do not tell: FUSE may have one for each spelling, as of exFAT.
    """
    return os.path.lexists(path) and path.name not in os.listdir(path.parent)
