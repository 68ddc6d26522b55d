# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Staging: one crash's files are written beside where they will be, and then put in place."""

import datetime as dt
import errno
import os
from collections.abc import Iterable
from contextlib import suppress

from crashmover.crash import COLLECTED, Crash, Kind
from crashmover.external.fs import durable, locks
from crashmover.external.fs.directory_index import Generation, generation
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.locks import CrashLocks
from crashmover.external.fs.packing import pump_gzipped
from crashmover.external.fs.settling import Lock
from crashmover.external.fs.tree import Tree
from crashmover.partfiles import FileWriter
from crashmover.spelling import alike, taken_for_one
from crashmover.unbroken import unbroken


class StagedSave:
    """The steps of one save, in the order in which a group of saves takes them.

    `write`, (force to disk), `hide`, (force), `publish_dumps`, (force), `publish_marker`, (force),
    `close`; and `undo` at any time before `close`.

    :param dir_fd: the directory `where`, open; `close` closes it
    :param keeps_dumps: whether the dumps of a crash that is there stay beside the new raw crash
    """

    def __init__(
        self, crash: Crash, tree: Tree, where: Where, dir_fd: int, *, keeps_dumps: bool = False
    ) -> None:
        self.crash = crash
        self.where = where
        self.dir_fd = dir_fd
        self._tree = tree
        self._keeps_dumps = keeps_dumps
        self._marker = self._name(Kind.RAW_CRASH)
        self._processed = self._name(Kind.PROCESSED_CRASH)
        self._files = [(part, self._name(part.kind, part.name)) for part in crash.parts]
        self._has_raw_crash = crash.raw_crash is not None
        self._locks: dict[str, int] = {}
        self._temporary: set[str] = set()  # final names of what is still under its temporary one
        self._put: list[str] = []
        self._renamed: list[str] = []  # since `force_renamed`
        self._dump_names = {name for part, name in self._files if part.kind is Kind.DUMP}
        self._has_orphans = False  # whether there may be dumps of no crash, left by a save
        self._old: set[str] | None = None  # the dumps of a state that `hide` has made invisible
        self._is_same = False  # whether the crash stays visible, as its dumps are the same
        self._visible: bool | None = None  # whether the raw crash is there; None: not looked yet
        try:
            self._lock()
        except BaseException:
            self.close()
            raise

    def _name(self, kind: Kind, name: str = "") -> str:
        return self._tree.layout.file_name(self.crash.crash_id, kind, name)

    def _lock(self) -> None:
        """Keep other processes from saving the same, always in the same order."""
        kinds = {part.kind for part in self.crash.parts}
        if kinds & COLLECTED:
            self._has_orphans = self._lock_one(self._marker)
            if self._has_orphans:
                CrashLocks(self.dir_fd, self._tree.layout, self.crash.crash_id).remove_left_over()
        if Kind.PROCESSED_CRASH in kinds:
            self._lock_one(self._processed)

    def _lock_one(self, name: str) -> bool:
        temporary, mode = durable.temporary_name(name), self._tree.modes.file
        self._locks[name], found = locks.lock(self.dir_fd, temporary, mode=mode)
        self._temporary.add(name)
        return found

    @unbroken
    def _create(self, name: str) -> int:
        """Open the file of a dump, which the lock of its raw crash covers: under its final name,
        where there is no crash that it might be taken for one of, and else a temporary one."""
        mode = self._tree.modes.file
        if self._has_raw_crash and not self._has_orphans and not self.was_visible():
            with suppress(FileExistsError):
                fd = durable.create_new(self.dir_fd, name, mode)
                self._put.append(name)
                return fd
        fd = locks.create(self.dir_fd, durable.temporary_name(name), mode)
        self._temporary.add(name)
        return fd

    def wait_for_others(self) -> None:
        """Return when the raw crash is durable that another process has just put in place, or is
        taken away again because that failed.

        Putting it in place released its lock, which this save holds now.  But until it is durable,
        its file is still locked, under its final name.
        """
        if not locks.wait_for_unlocked(self.dir_fd, self._marker):
            self._visible = False

    def was_visible(self) -> bool:
        """Return True if the raw crash is there, as long as other saves go by the locks."""
        if self._visible is None:
            self._visible = self._is_visible()
        return self._visible

    def write(self, device: int, *, force: bool) -> None:
        """Write every part where no reader takes notice of it.

        :param device: the number of the file system that the directory is on
        :param force: whether to force each to the disk by itself
        """
        names = [name for _, name in self._files]
        if alike(names) and self._takes_names_alike_for_one():
            self._refuse_names_alike(names)
        for part, name in self._files:
            held = self._locks.get(name)
            fd = self._create(name) if held is None else held
            try:
                write = FileWriter(fd)
                if part.kind is Kind.PROCESSED_CRASH:
                    pump_gzipped(part, write)
                else:
                    part.pump(write)
                self._tree.modes.set(fd, device)
                if force:
                    os.fsync(fd)
            finally:
                if held is None:
                    os.close(fd)

    def _refuse_names_alike(self, names: Iterable[str]) -> None:
        """Raise if some of these differ only in case, in a directory that takes them for one."""
        if pair := alike(names):
            raise FileExistsError(errno.EEXIST, taken_for_one(*pair))

    def _takes_names_alike_for_one(self) -> bool:
        """Return True if the directory finds the lock's file by its name in another case, too."""
        lock = durable.temporary_name(next(iter(self._locks)))
        return durable.exists(self.dir_fd, lock.swapcase())

    def hide(self) -> bool:
        """Make an older state of the crash invisible; return whether that is to be forced to the
        disk, before the dumps are replaced.

        It stays visible if its dumps are the same to the byte: a reader cannot tell old from new.
        """
        if not self._has_raw_crash or self._keeps_dumps or not self._is_visible():
            return False
        self._require_dumps()
        old = self._dumps_there()
        self._is_same = self._same_dumps(old)
        if self._is_same:
            return False
        self._old = old
        self._has_orphans = True
        durable.remove_file(self.dir_fd, self._marker)
        return True

    def publish_dumps(self) -> None:
        """Put the dumps in place; no reader takes notice before the raw crash is there."""
        if not self._has_raw_crash:
            self._add_dumps()
            return
        visible = self._is_visible()
        if visible and self._keeps_dumps:
            self._has_orphans, self._visible = False, True
            return
        self._require_dumps()
        if visible and not self._is_same and self.hide():
            os.fsync(self.dir_fd)  # a program that knows no lock has put it there since
        old = self._old
        if old is None:
            old = self._dumps_there() if self._has_orphans else set()
        hidden = self._dump_names & self._temporary
        replaced = set() if self._is_same or self._old is not None else hidden
        # Removed first: the same name in another case may lead to the new file, or be kept for it.
        for name in (old - self._dump_names) | replaced:
            durable.remove_file(self.dir_fd, name)
        for name in hidden:
            self._put_one(name, undoable=not self._is_same)
        self._has_orphans = False
        self._visible = self._is_same

    def _require_dumps(self) -> None:
        if not all(durable.exists(self.dir_fd, n) for n in self._dump_names - self._temporary):
            raise BlockingIOError(errno.EAGAIN, "a dump was removed while it was saved")

    def _add_dumps(self) -> None:
        """Put dumps beside a raw crash that is there, and let its readers notice.

        A reader that lists the directory in between may take the first new state for that of what
        it has listed; hence the second.
        """
        if not self._dump_names:
            return
        replaced = {name for name in self._dump_names if durable.exists(self.dir_fd, name)}
        if replaced and self._takes_names_alike_for_one():
            self._refuse_names_alike(self._dump_names | self._dumps_there())
        self._touch_raw_crash()
        for name in self._dump_names:
            self._put_one(name, undoable=name not in replaced)
        self._touch_raw_crash()

    def _touch_raw_crash(self) -> None:
        """Give the raw crash another change time."""
        try:
            os.utime(self._marker, dir_fd=self.dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise BlockingIOError(errno.EAGAIN, "its raw crash was removed") from None

    def time_of_dumps(self) -> dt.datetime:
        """Return when the first dump in place was written, by the file system's clock."""
        written = min(durable.status(self.dir_fd, name).st_mtime for name in self._dump_names)
        return dt.datetime.fromtimestamp(written, dt.UTC)

    def publish_marker(self) -> None:
        """Put the processed crash and then the raw crash in place: now the crash is visible."""
        if self._processed in self._locks:
            there = durable.exists(self.dir_fd, self._processed)
            self._put_one(self._processed, undoable=not there)
        if self._has_raw_crash:
            self._put_one(self._marker, undoable=not self.was_visible())

    def force_renamed(self) -> None:
        """Force each file that was renamed, and so its new name: forcing the directory may not."""
        while self._renamed:
            name = self._renamed.pop()
            if name in self._locks:
                os.fsync(self._locks[name])
                continue
            with durable.opened(durable.open_regular(self.dir_fd, name)[0]) as fd:
                os.fsync(fd)

    @unbroken
    def undo(self) -> None:
        """Leave no trace, as far as the file system lets us; the marker goes first.

        Putting the marker in place let go of its lock: if another process has saved the
        crash since, all of it is that process's now.
        """
        if self._marker in self._put and not self._is_marker_ours():
            return
        self._has_orphans |= not self._remove(reversed(self._put))
        with suppress(OSError):
            if self._has_orphans and not self._is_visible():
                self._has_orphans = not self._remove(self._dumps_there())

    @unbroken
    def close(self) -> None:
        """Remove what is still temporary, the lock's file last, and only then let go of the locks.

        Where dumps of no crash had to be left, so is the lock's file: it tells the next save
        that it must not take them for its own.
        """
        if self._has_orphans:
            with suppress(OSError):
                self._has_orphans = not self._is_visible()
        if self._has_orphans:
            self._temporary.discard(self._marker)
        names = sorted(self._temporary, key=self._marker.__eq__)
        self._remove(map(durable.temporary_name, names))
        for fd in (*self._locks.values(), self.dir_fd):
            with suppress(OSError):  # all that counts is on the disk, or was said not to be
                os.close(fd)

    def _remove(self, names: Iterable[str]) -> bool:
        """Remove these files, as far as can be; return whether that is all of them."""
        everything = True
        for name in names:
            try:
                durable.remove_file(self.dir_fd, name)
            except OSError:
                everything = False
        return everything

    def _is_visible(self) -> bool:
        return durable.exists(self.dir_fd, self._marker)

    def _dumps_there(self) -> set[str]:
        """Return the names of the files of the dumps that are there, of a crash or of none."""
        lock = None
        if self._marker in self._temporary:
            lock = Lock(durable.temporary_name(self._marker), self._locks[self._marker])
        wanted = self.crash.crash_id, self._settled_state(), self.dir_fd, self.where, lock
        return set(filter(self._tree.layout.is_dump, self._tree.indexes.names_of(*wanted)))

    def _settled_state(self) -> Generation | None:
        """Return the state of the raw crash; None if that does not tell which dumps are there."""
        with suppress(FileNotFoundError):
            if not self._has_orphans:
                return generation(durable.status(self.dir_fd, self._marker))
        return None

    def _same_dumps(self, old: set[str]) -> bool:
        return old == self._dump_names <= self._temporary and all(
            durable.same_bytes(self.dir_fd, name, durable.temporary_name(name)) for name in old
        )

    def _is_marker_ours(self) -> bool:
        """Return True if the file that is locked still has its final or its temporary name."""
        for name in (self._marker, durable.temporary_name(self._marker)):
            with suppress(OSError):
                if durable.is_same_file(self._locks[self._marker], self.dir_fd, name):
                    return True
        return False

    def _put_one(self, name: str, *, undoable: bool) -> None:
        if undoable:
            self._put.append(name)
        durable.rename(self.dir_fd, durable.temporary_name(name), name)
        self._temporary.discard(name)
        self._renamed.append(name)
