# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Whether two directory trees hold the same crashes, by whatever paths and mounts they are seen.

The layout puts a crash at a path below the root that only its id decides.  So two trees share
crashes where the *same* path below both roots leads to one directory: at the root, or at a mount
point below it.  A root that lies inside the other one shares nothing: below it every path begins
anew with a day.

On one disk the device and the inode number tell directories apart, and two disks share nothing.
They do not tell for a view by FUSE, an overlay or a network file system: there a mark is put into
each of the two directories, and looked for in the other.
"""

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from crashmover.errors import NotTwoStores
from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.mounts import DISKS, Mount, below, kind_at, mounts
from crashmover.external.fs.tree import Tree

_ON_DISK = DISKS - {"overlay"} | {"exfat", "hfsplus", "ntfs3", "vfat"}
"""Kinds of file systems of which a directory belongs to one, with one inode number."""

_MARK = re.compile(r"\.crashmover-mark-[0-9a-f]{32}\.tmp", re.ASCII)
_OLD_S = 3600.0  # seconds after which a mark was left behind by a process that was killed

# A view may show a new file late.  A mark has a new name each time, so what is cached are lists
# of names: rclone's mount writes a file back after 5 s, sshfs and bindfs are quicker.
_PATIENCE_S = 2.0
_PATIENCE_FUSE_S = 6.0
_PAUSE_S = 0.05


def is_same_tree(one: Tree, other: Tree, *, probe: bool) -> bool | None:
    """Return whether two trees share crashes; None: only a mark would tell, and `probe` is False,
    or they share a day and not all.

    :raises StorageError: a mark cannot be written
    :raises NotTwoStores: they share directories, and have other names for the files in these; or
        neither is there yet
    """
    found = mounts()
    are_there = {os.path.isdir(tree.root) for tree in (one, other)}
    if are_there == {True, False}:
        return False  # a directory that is still to be made is not one that exists
    if are_there == {False}:
        if os.path.realpath(one.root) == os.path.realpath(other.root):
            return _judge(one, other, ())
        raise NotTwoStores("neither directory is there yet")
    unknown: list[tuple[Where, Where]] = []
    for here, there in _places(one, other, found):
        paths = one.root.joinpath(*here), other.root.joinpath(*there)
        answer = _is_same_directory(*paths, found)
        if answer and (probe or not here):
            return _judge(one, other, here)
        if answer is not False:
            unknown.append((here, there))
    if not unknown:
        return False
    if not probe:
        return None
    shared = _shared_by_marks(one, other, unknown, found)
    return False if shared is None else _judge(one, other, shared)


def _judge(one: Tree, other: Tree, where: Where) -> bool:
    """Return whether two trees that have one directory in common share crashes."""
    mine, theirs = one.layout, other.layout
    if len(where) < 2 and mine.name_branch_base != theirs.name_branch_base:
        return False  # each has its own directory in that of a day
    same_names = replace(mine, name_branch_base="name", dump_field=theirs.dump_field)
    if same_names == replace(theirs, name_branch_base="name"):
        return True
    raise NotTwoStores("they are one directory, with two sets of file names in it")


def _places(one: Tree, other: Tree, found: list[Mount]) -> list[tuple[Where, Where]]:
    """Return the pairs of directories that crashes may have in common, each from its root down:
    the roots, and wherever a file system is mounted below one of them."""
    mine, yours = one.layout, other.layout
    here, there = (below(Path(os.path.realpath(tree.root)), found) for tree in (one, other))
    ours = {(where, mine.place_in(yours, where)) for where in here}
    theirs = {(yours.place_in(mine, where), where) for where in there}
    pairs = [((), ()), *sorted(ours | theirs)]
    # In a directory of a day each base has a directory of its own.
    is_same_base = mine.name_branch_base == yours.name_branch_base
    return [pair for pair in pairs if is_same_base or len(pair[0]) > 1]


def _is_same_directory(one: Path, other: Path, found: list[Mount]) -> bool | None:
    """Return whether two directories are one; None: a mark would tell."""
    try:
        first, second = os.stat(one), os.stat(other)
    except (FileNotFoundError, NotADirectoryError):
        return False  # what is not there has no crash to be lost
    except OSError:
        return None
    if os.path.samestat(first, second):
        return True
    kinds = _kinds((one, other), found)
    if kinds <= _ON_DISK or (kinds == {"overlay"} and first.st_dev == second.st_dev):
        return False
    return None


def _kinds(paths: Iterable[Path], found: list[Mount]) -> set[str]:
    return {kind_at(Path(os.path.realpath(path)), found) for path in paths}


# Marks


def _shared_by_marks(
    one: Tree, other: Tree, places: list[tuple[Where, Where]], found: list[Mount]
) -> Where | None:
    """Return where the two trees have a directory in common; None: nowhere."""
    with ExitStack() as stack:
        sought: list[tuple[Tree, Where, Path]] = []
        kinds: set[str] = set()
        for here, there in places:
            mine, theirs = one.root.joinpath(*here), other.root.joinpath(*there)
            kinds |= _kinds((mine, theirs), found)
            sought.append((other, here, theirs / stack.enter_context(_mark(one, mine))))
            sought.append((one, here, mine / stack.enter_context(_mark(other, theirs))))
        deadline = time.monotonic() + _patience(kinds)
        while True:
            for tree, here, path in sought:
                with tree.translating("cannot be read"):
                    if durable.exists(None, path):
                        return here
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE_S)


def _patience(kinds: set[str]) -> float:
    """Return how many seconds a mark may take to be seen through such file systems."""
    if any(kind.startswith("fuse") or not kind for kind in kinds):
        return _PATIENCE_FUSE_S
    return _PATIENCE_S if kinds - _ON_DISK - {"overlay"} else 0.0


@contextmanager
def _mark(tree: Tree, directory: Path) -> Iterator[str]:
    """Make an empty file that readers ignore, give its name, and remove it in the end."""
    name = f".crashmover-mark-{secrets.token_hex(16)}.tmp"
    with ExitStack() as stack:
        with tree.translating("cannot be written to"):
            dir_fd = stack.enter_context(opened(durable.open_root(directory)))
            with opened(durable.create_new(dir_fd, name)) as fd:
                made = os.fstat(fd).st_mtime
                os.fsync(fd)  # over a network, so that others see it
        try:
            _remove_old_marks(dir_fd, made)
            yield name
        finally:
            with suppress(OSError):
                durable.remove_file(dir_fd, name)


def _remove_old_marks(dir_fd: int, now: float) -> None:
    """Remove the marks that processes left behind which were killed; `now` is by the clock of the
    file system."""
    with suppress(OSError):
        for name in filter(_MARK.fullmatch, durable.names(dir_fd)):
            with suppress(OSError):
                if durable.status(dir_fd, name).st_mtime < now - _OLD_S:
                    durable.remove_file(dir_fd, name)
