# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""FSPermanentStorage: crashes in a directory tree, crash-consistent and durable.

A save writes the dumps and then the raw crash, where no reader looks until all of it is in place,
and forces them to the disk.  A reader keeps the state of the raw crash that it first saw, and
notices when another raw crash has taken its place.
"""

import datetime as dt
import os
import re
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Self

from crashmover import crashid
from crashmover.crash import ALL_KINDS, Crash, Kind, Part, marker_of
from crashmover.errors import CrashIDNotFound, InvalidURI
from crashmover.external.crashstorage_base import CrashStorageBase, Removed, never
from crashmover.external.fs import durable, probing
from crashmover.external.fs.catalog import Catalog
from crashmover.external.fs.durable import opened
from crashmover.external.fs.emptying import Emptying
from crashmover.external.fs.finding import directories, find
from crashmover.external.fs.forcing import Forcing
from crashmover.external.fs.layouts import Layout
from crashmover.external.fs.modes import Modes, another_owner
from crashmover.external.fs.mounts import mounts_of, risks_of_reading, risks_of_saving
from crashmover.external.fs.reading import CrashFiles
from crashmover.external.fs.removing import CrashRemoval
from crashmover.external.fs.sameness import is_same_tree
from crashmover.external.fs.saving import Saving, save_in_groups
from crashmover.external.fs.surroundings import look_around
from crashmover.external.fs.tree import Tree
from crashmover.external.passed_over import PassedOver
from crashmover.external.roles import Store, check_listing
from crashmover.external.tuning import Tuning
from crashmover.uri import StorageURI

_OCTAL = re.compile(r"-?(0o)?[0-7]{1,4}", re.ASCII)
_SYNCFS_FROM = 8  # crashes; for fewer, forcing each file costs less than the whole disk


class FSPermanentStorage(CrashStorageBase):
    """Keeps crashes under `root`, as `layout` says.

    Missing directories are made when the first crash is saved.

    :param root: the directory, which may itself be a symbolic link; below it none is followed
    :param umask: what files (0666) and directories (0777) are made without; None: 022, where the
        file system keeps modes.  Where it does not keep a umask that is given, nothing is saved.
    :param layout: the names in it
    :raises ValueError: `umask` would keep the owner out
    """

    tuning = Tuning(  # on two cores: two workers wait for the disk
        batch=64,
        least_batch=_SYNCFS_FROM,  # which are forced to the disk together all the same
        processes=True,  # a crash is a hundred small system calls
        most_workers=1024,  # which wait for another store: threads then
    )

    def __init__(
        self, root: str | os.PathLike[str], umask: int | None = None, layout: Layout | None = None
    ) -> None:
        self._tree = Tree(Path(os.path.abspath(root)), layout or Layout(), Modes(umask))
        self.root = self._tree.root
        self.layout = self._tree.layout
        self.uri = self._tree.uri
        self._passed_over = PassedOver()

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``fs:///var/crashes?umask=027``; also ``name_branch_base``, ``json_file_suffix``,
        ``jsonz_file_suffix``, ``dump_file_suffix`` and ``dump_field``."""
        uri.refuse("host", "user", "password", "port")
        if not uri.path:
            raise InvalidURI("fs: the path is missing; write fs:///var/crashes or ./crashes")
        names = [field.name for field in fields(Layout)]
        options = uri.options(umask=_octal, **dict.fromkeys(names, str))
        layout = {name: options.pop(name) for name in names if name in options}
        try:
            return cls(uri.path, **options, layout=Layout(**layout))
        except ValueError as error:
            raise InvalidURI(f"fs: {error}") from None

    def identity(self) -> object:
        """Return the directory itself, by whatever path it was named, and the names in it."""
        try:
            status = os.stat(self.root)
        except OSError:
            return self.layout, os.path.realpath(self.root)
        return self.layout, status.st_dev, status.st_ino

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        """Return whether both trees share crashes, as `sameness` finds out.  A directory and a
        bucket are always two stores, even where the directory is the disk of the bucket's server:
        the names of their files differ."""
        if not isinstance(other, FSPermanentStorage):
            return None
        return is_same_tree(self._tree, other._tree, probe=probe)

    def verify_access(self, *, write: bool = False) -> None:
        with self._tree.translating("cannot be written to" if write else "cannot be read"):
            probing.look(self.root, write=write)

    def cautions(self) -> Iterator[str]:
        """Tell root whose directory it is."""
        if owner := another_owner(self.root):
            yield f"{self.uri}: it belongs to {owner}; what root saves there will be root's"

    def durability_risks(self) -> Iterator[str]:
        """Yield what cannot be promised of saving on the file systems at the root and below it."""
        if risks := risks_of_saving(mounts_of(self.root)):
            yield f"{self.uri}: {'; '.join(risks)}"

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        """Yield what cannot be promised of reading on these file systems."""
        if risks := risks_of_reading(mounts_of(self.root), removing=removing):
            yield f"{self.uri}: {'; '.join(risks)}"

    def try_saving(self) -> list[str]:
        """Try a small file on each file system here that is not one of the usual disks."""
        with self._tree.translating("cannot be saved to"):
            differences = probing.try_file_systems(self._tree)
        return [f"{self.uri}: {difference}" for difference in differences]

    def probe_write(self) -> dt.datetime:
        """Return the time by the file server's clock, if there is one."""
        with self._tree.translating("cannot be written to"):
            return probing.probe(self._tree)

    # Reading

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        crashid.validate(crash_id)
        raw: list[Part] | None = None if marker_of(kinds) is Kind.RAW_CRASH else []
        processed: list[Part] | None = None if Kind.PROCESSED_CRASH in kinds else []
        with self._opened("cannot be read", crash_id) as root_fd:
            for where, dir_fd in directories(root_fd, self.layout, crash_id):
                files = CrashFiles(self._tree, crash_id, where, dir_fd)
                if raw is None:
                    raw = files.raw_crash_and_dumps(dir_fd, kinds)
                if processed is None:
                    processed = files.processed_crash(dir_fd)
                if None not in (raw, processed):
                    break
            if raw is None:
                raise CrashIDNotFound(crash_id, uri=self.uri)
            if processed is None and kinds == {Kind.PROCESSED_CRASH}:
                raise CrashIDNotFound(crash_id, uri=self.uri, reason="no processed_crash")
            return Crash(crash_id, raw + (processed or []))

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        crashid.validate(crash_id)
        with suppress(CrashIDNotFound), self._opened("cannot be read", crash_id) as root_fd:
            return find(root_fd, self.layout, crash_id, kind) is not None
        return False

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return the names of the dumps that lie where the crash would."""
        crashid.validate(crash_id)
        names: list[str] = []
        with suppress(CrashIDNotFound), self._opened("cannot be read", crash_id) as root_fd:
            for where, dir_fd in directories(root_fd, self.layout, crash_id):
                files = self._tree.indexes.names_of(crash_id, None, dir_fd, where)
                names += map(self.layout.dump_name, filter(self.layout.is_dump, files))
        return list(dict.fromkeys(names))

    @contextmanager
    def _opened(self, action: str, crash_id: str = "") -> Iterator[int]:
        """Open the root; where it is missing, so is every crash: `CrashIDNotFound`."""
        with self._tree.translating(action, crash_id or None):
            try:
                root_fd = durable.open_root(self.root)
            except FileNotFoundError:
                raise CrashIDNotFound(crash_id, uri=self.uri) from None
            with opened(root_fd):
                yield root_fd

    # Listing

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """List one directory at a time, which is in memory.  If something else is in the place of a
        directory, that is raised at the end."""
        kind = check_listing(since, until, kind)
        return self._listed(since, until, kind)

    def _listed(self, since: dt.date | None, until: dt.date | None, kind: Kind) -> Iterator[str]:
        self._passed_over = passed_over = PassedOver()
        with suppress(CrashIDNotFound), self._opened("cannot be listed") as root_fd:
            yield from Catalog(root_fd, self.layout, kind, passed_over).crashes(since, until)

    def passed_over(self) -> Iterator[str]:
        if text := self._passed_over.text():
            yield f"{self.uri}: {text}"

    def strangers(self) -> Iterator[str]:
        if text := look_around(self.root, self.layout):
            yield f"{self.uri}: {text}"

    # Saving

    def save_crash(self, crash: Crash) -> None:
        [error] = self.save_crashes([crash])
        if error:
            raise error

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Save them, as many at a time as can be made durable together."""
        return self._save(crashes)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return self._save(crashes, self._would_replace)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """Put the new raw crash in the place of the old one, whose lock keeps other saves out.
        A reader of the old one notices.

        A raw crash at an older place stays there with its dumps.  The processed crash goes to the
        place where a reader looks first.
        """
        together = [crash]
        with suppress(CrashIDNotFound), self._opened("cannot be read", crash.crash_id) as root_fd:
            where = find(root_fd, self.layout, crash.crash_id, Kind.RAW_CRASH)
            if where not in (None, self.layout.leaves(crash.crash_id)[0]):
                parts = filter(None, (crash.processed_crash, crash.raw_crash))
                together = [Crash(crash.crash_id, [part]) for part in parts]
        for each in together:
            [error] = self._save([each], keeps_dumps=True)
            if error:
                raise error

    def _save(
        self,
        crashes: Sequence[Crash],
        would_replace: Callable[[Crash], bool] | None = None,
        keeps_dumps: bool = False,
    ) -> list[Exception | None]:
        try:
            with (
                opened(durable.make_root(self.root, self._tree.modes.directory)) as root_fd,
                self._forcing(root_fd, len(crashes)) as forcing,
            ):
                saving = Saving(self._tree, root_fd, would_replace, keeps_dumps)
                results = save_in_groups(crashes, saving.stage, forcing)
        except OSError as error:
            results = [error] * len(crashes)
        return [
            self._tree.error(error, "cannot be saved", crash.crash_id)
            if isinstance(error, OSError)
            else error  # of another kind, such as the source's own
            for crash, error in zip(crashes, results, strict=True)
        ]

    def _forcing(self, root_fd: int, crashes: int) -> Forcing:
        """Return what makes so many saves or removals durable."""
        return Forcing(root_fd, together=crashes >= _SYNCFS_FROM)

    # Removing

    def remove(self, crash_id: str) -> None:
        """Remove the crash's files wherever the layout has them, and then the directories that are
        left empty; the raw crash goes first, so that no reader sees a torn crash."""
        crashid.validate(crash_id)
        [error] = self._remove([CrashRemoval(self._tree, crash_id)])
        if error:
            raise error

    def remove_loaded(self, crash: Crash) -> None:
        """Remove it under its lock, so that no other save comes in between.  Files that lie
        elsewhere stay."""
        states = {part.version for part in crash.parts}
        [error] = self._remove([CrashRemoval(self._tree, crash.crash_id, states)])
        if error:
            raise error

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        """Remove crashes, and make that durable for all of them together."""
        for crash_id in crash_ids:
            crashid.validate(crash_id)
        return self._remove([CrashRemoval(self._tree, crash_id) for crash_id in crash_ids])

    def _remove(self, removals: Sequence[CrashRemoval]) -> list[Exception | None]:
        try:
            with opened(durable.open_root(self.root)) as root_fd:
                self._emptying(root_fd).crashes(removals)
        except FileNotFoundError:  # nothing was ever saved here
            pass
        except OSError as error:
            for removal in removals:
                removal.error = error
        return list(map(self._not_removed, removals))

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """Remove crashes, and what processes that died have left there.  Files that are not the
        store's stay."""
        with suppress(CrashIDNotFound), self._opened("cannot be listed") as root_fd:
            for removal in self._emptying(root_fd).days(since, until, is_stopped):
                yield removal.crash_id, self._not_removed(removal)

    def _emptying(self, root_fd: int) -> Emptying:
        return Emptying(self._tree, root_fd, partial(self._forcing, root_fd))

    def _not_removed(self, removal: CrashRemoval) -> Exception | None:
        """Return why a crash was not removed."""
        if removal.error:
            return self._tree.error(removal.error, "cannot be removed", removal.crash_id)
        return None if removal.was_there else CrashIDNotFound(removal.crash_id, uri=self.uri)


def _octal(text: str) -> int:
    if not _OCTAL.fullmatch(text):
        raise ValueError("must be an octal number such as 027")
    return int(text, 8)
