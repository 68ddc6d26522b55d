# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which file systems this process sees, by ``/proc/self/mountinfo`` (see proc(5))."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A file system at a place.

    :param point: an absolute path without links
    :param kind: such as ``ext4``, ``nfs4``, ``fuse.sshfs``
    """

    point: PurePath
    kind: str


def mounts() -> list[Mount]:
    """Return the mounts, the oldest first; none on a system that does not tell them."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    return list(filter(None, map(_parse, lines)))


def _parse(line: str) -> Mount | None:
    before, _, after = line.partition(" - ")
    fields, kind = before.split(" "), after.partition(" ")[0]
    if len(fields) < 5 or not kind:
        return None
    return Mount(PurePath(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4])), kind)


def kind_at(path: PurePath, found: list[Mount]) -> str:
    """Return the kind of the file system that a path lies on; ``""`` where that is not known.

    :param path: absolute, without links
    """
    over = [mount for mount in reversed(found) if path.is_relative_to(mount.point)]
    # The deepest, and of several at one place the latest, which hides the others.
    deepest = max(over, key=lambda mount: len(mount.point.parts), default=None)
    return deepest.kind if deepest else ""


def below(root: PurePath, found: list[Mount]) -> Iterator[tuple[str, ...]]:
    """Yield where below a directory other file systems are mounted, as names from there down.

    :param root: absolute, without links
    """
    for mount in found:
        if mount.point != root and mount.point.is_relative_to(root):
            yield mount.point.relative_to(root).parts
