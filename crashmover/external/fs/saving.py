# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Saving: where each crash is put, and as many at a time as become durable together."""

import errno
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from crashmover.crash import Crash, Kind
from crashmover.errors import CrashExists, CrashIDNotFound, CrashMoverError
from crashmover.external.fs import durable
from crashmover.external.fs.finding import find
from crashmover.external.fs.forcing import Forcing
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.staging import StagedSave
from crashmover.external.fs.tree import Tree
from crashmover.unbroken import unbroken

_GROUP_SECONDS = 1.0  # a group is made durable when the first of it is this old
_STAGE_TRIES = 10  # another process may remove the empty directory that was just entered


@dataclass(frozen=True)
class Saving:
    """Begins saves below a root.

    :param root_fd: the root, open
    :param would_replace: for saves that may not replace a raw crash or a dump: returns True if
        dumps alone would replace one
    :param keeps_dumps: keep the dumps of a crash whose raw crash is replaced
    """

    tree: Tree
    root_fd: int
    would_replace: Callable[[Crash], bool] | None = None
    keeps_dumps: bool = False

    def stage(self, crash: Crash) -> StagedSave:
        """Begin to save a crash, under its lock.

        :raises CrashExists: it is not to replace what is there
        :raises CrashIDNotFound: there is no raw crash to add dumps to
        """
        if not crash.parts:
            raise CrashMoverError(f"{crash.crash_id}: nothing to save")
        save = self._staged(crash)
        try:
            if self.would_replace:
                save.wait_for_others()
                if self._is_there(save, self.would_replace):
                    raise CrashExists(crash.crash_id, uri=self.tree.uri)
        except BaseException:
            save.close()
            raise
        return save

    def _staged(self, crash: Crash) -> StagedSave:
        where = self._place_of(crash)
        for _ in range(_STAGE_TRIES):
            with suppress(FileNotFoundError):
                dir_fd = durable.make_down(self.root_fd, where, self.tree.modes.directory)
                return StagedSave(crash, self.tree, where, dir_fd, keeps_dumps=self.keeps_dumps)
        raise BlockingIOError(errno.EAGAIN, "its directory is removed again and again")

    def _place_of(self, crash: Crash) -> Where:
        """Return the place that the layout says.  Dumps alone go to their raw crash.  A raw crash
        whose dumps are kept goes to these."""
        found = None
        is_addition = crash.raw_crash is None and crash.dumps
        if is_addition or (crash.raw_crash and self.keeps_dumps):
            found = self._find(crash.crash_id)
        if is_addition and found is None:
            reason = "no raw crash to add dumps to"
            raise CrashIDNotFound(crash.crash_id, uri=self.tree.uri, reason=reason)
        return found or self.tree.layout.leaves(crash.crash_id)[0]

    def _is_there(self, save: StagedSave, would_replace: Callable[[Crash], bool]) -> bool:
        """Return True if saving the crash would replace a raw crash or a dump."""
        crash_id = save.crash.crash_id
        if not save.crash.raw_crash:
            return would_replace(save.crash)
        if save.was_visible():
            return True
        has_own = durable.exists(save.dir_fd, crash_id)  # a directory, of the older form
        is_elsewhere = has_own or len(self.tree.layout.leaves(crash_id)) > 1
        return is_elsewhere and self._find(crash_id) is not None

    def _find(self, crash_id: str) -> Where | None:
        return find(self.root_fd, self.tree.layout, crash_id, Kind.RAW_CRASH)


def save_in_groups(
    crashes: Sequence[Crash], stage: Callable[[Crash], StagedSave], forcing: Forcing
) -> list[Exception | None]:
    """Save crashes, as many at a time as can be made durable together.

    :param stage: begins with one
    :return: for each crash, None or why it was not saved
    """
    group = _GroupCommit(stage, forcing)
    try:
        # By id: another process that locks some of the same crashes does so in the same order.
        for index in sorted(range(len(crashes)), key=lambda i: crashes[i].crash_id):
            group.add(index, crashes[index])
        group.commit()
    finally:
        group.abandon()
    return [group.errors.get(index) for index in range(len(crashes))]


class _GroupCommit:
    """Saves that become durable together: two waits for the disk for all of them.

    What one save raises is its own result.  When forcing to the disk fails, all of the group have
    failed: it is not known what was written.
    """

    def __init__(self, stage: Callable[[Crash], StagedSave], forcing: Forcing) -> None:
        self.errors: dict[int, Exception] = {}
        """Why crashes were not saved, by their indexes."""
        self._stage = stage
        self._forcing = forcing
        self._saves: dict[int, StagedSave] = {}
        self._ids: set[str] = set()
        self._begun = 0.0

    def add(self, index: int, crash: Crash) -> None:
        """Write one crash's files; first commit the others if it is time."""
        is_late = self._saves and time.monotonic() - self._begun > _GROUP_SECONDS
        if is_late or crash.crash_id in self._ids:
            self.commit()
        if not self._saves:
            self._begun = time.monotonic()
        try:
            save = self._begin(index, crash)
            force = self._forcing.begin(save.where, save.dir_fd)
            save.write(self._forcing.device(save.where), force=force)
        except Exception as error:
            self._fail(index, error)

    @unbroken
    def _begin(self, index: int, crash: Crash) -> StagedSave:
        save = self._saves[index] = self._stage(crash)
        self._ids.add(crash.crash_id)
        return save

    def commit(self) -> None:
        """Put all in place and make it durable."""
        self._hide()
        self._each(StagedSave.publish_dumps)
        self._force(self._saves.values(), new=True)
        self._each(StagedSave.publish_marker)
        self._force(self._saves.values(), new=False)
        self._close()

    def abandon(self) -> None:
        """Undo all that is not committed."""
        for save in self._saves.values():
            save.undo()
        self._close()

    def _each(self, do: Callable[[StagedSave], None]) -> None:
        for index, save in list(self._saves.items()):
            try:
                do(save)
            except Exception as error:
                self._fail(index, error)

    def _hide(self) -> None:
        """Hide what is to be replaced.  Once this is on the disk, no power cut brings an old raw
        crash back beside new dumps."""
        hidden: list[StagedSave] = []

        def hide(save: StagedSave) -> None:
            if save.hide():
                hidden.append(save)

        self._each(hide)
        self._force(hidden, new=False)

    def _force(self, saves: Collection[StagedSave], *, new: bool) -> None:
        self._each(self._force_renamed)
        if not saves:
            return
        try:
            self._forcing.finish([save.where for save in saves], new=new)
        except OSError as error:
            for index in list(self._saves):
                self._fail(index, error)

    def _force_renamed(self, save: StagedSave) -> None:
        if self._forcing.forgets_names(save.where):
            save.force_renamed()

    @unbroken
    def _fail(self, index: int, error: Exception) -> None:
        self.errors[index] = error
        if save := self._saves.pop(index, None):
            save.undo()
            save.close()

    @unbroken
    def _close(self) -> None:
        self._ids.clear()
        while self._saves:
            self._saves.popitem()[1].close()
