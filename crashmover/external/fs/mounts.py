# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mounts: which file systems hold a directory and what is below it, and which forget.

Source of the form: proc_pid_mountinfo(5).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MOUNTINFO = Path("/proc/self/mountinfo")
_IN_MEMORY = {"tmpfs", "ramfs"}
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system, and where it is mounted."""

    point: Path
    kind: str
    options: frozenset[str]

    def risk(self) -> str | None:
        """Return why what is written here may be lost when the power fails, if it is known to be
        so."""
        if self.kind in _IN_MEMORY:
            kept = "what is saved there is gone at a restart"
            return f"{self.point} is a {self.kind}, in memory: {kept}"
        if self.kind == "overlay" and "volatile" in self.options:
            return (
                f"{self.point} is an overlay that is mounted volatile: what is saved there"
                " may be gone after a crash of the system"
            )
        return None


def mounts_of(directory: Path) -> Iterator[Mount]:
    """Yield the mount that a directory is on, and those below it; none where the system does not
    tell.

    :param directory: of which the last parts may still be missing
    """
    try:
        text = _MOUNTINFO.read_text(errors="surrogateescape")
    except OSError:
        return
    # What is mounted later at the same place hides what was there.
    mounts = {mount.point: mount for mount in map(_parse, text.splitlines()) if mount}
    real = directory.resolve()
    for place in (real, *real.parents):
        if place in mounts:
            yield mounts[place]
            break
    yield from (mount for point, mount in mounts.items() if real in point.parents)


def _parse(line: str) -> Mount | None:
    first, _, last = line.partition(" - ")
    try:
        point = first.split(" ")[4]
        kind, _, options = last.split(" ", 2)
    except (IndexError, ValueError):
        return None
    path = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), point))
    return Mount(path, kind, frozenset(options.split(",")))
