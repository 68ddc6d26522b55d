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
from crashmover.errors import (
    CrashIDNotFound,
    InvalidURI,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase, Removed, never
from crashmover.external.fs import durable, ownership
from crashmover.external.fs.catalog import Catalog
from crashmover.external.fs.directory_index import IndexCache
from crashmover.external.fs.durable import opened
from crashmover.external.fs.emptying import Emptying
from crashmover.external.fs.finding import directories, find
from crashmover.external.fs.forcing import Forcing
from crashmover.external.fs.grounds import risks_of_reading, risks_of_saving
from crashmover.external.fs.layouts import Layout
from crashmover.external.fs.modes import Modes
from crashmover.external.fs.mounts import mounts_of
from crashmover.external.fs.oserrors import Translator, why_not_writable
from crashmover.external.fs.probing import probe
from crashmover.external.fs.reading import CrashFiles
from crashmover.external.fs.removing import CrashRemoval, LoadedRemoval
from crashmover.external.fs.sameness import Tree, is_same_tree
from crashmover.external.fs.saving import Saving, save_in_groups
from crashmover.external.fs.surroundings import look_around
from crashmover.external.fs.trial import try_file_systems
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
    )

    def __init__(
        self, root: str | os.PathLike[str], umask: int | None = None, layout: Layout | None = None
    ) -> None:
        self._modes = Modes(umask)
        self.root = Path(os.path.abspath(root))
        self.layout = layout or Layout()
        self.uri = str(StorageURI("fs", path=str(self.root)))
        self._indexes = IndexCache(self.layout.json_file_suffix)
        self._translator = Translator(self.uri)
        self._passed_over = PassedOver()
        self._files = partial(CrashFiles, self.root, self.layout, self._indexes, self._translator)

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
        """Return whether both trees share crashes, as `sameness` finds out.

        A directory and a bucket are always two stores, even where the directory is the disk of
        the bucket's server: the names of their files differ.
        """
        if not isinstance(other, FSPermanentStorage):
            return None
        return is_same_tree(self._tree(), other._tree(), probe=probe)

    def _tree(self) -> Tree:
        return Tree(self.root, self.layout, self._translator)

    def verify_access(self, *, write: bool = False) -> None:
        there = self.root
        with self._translator.translating("cannot be written to" if write else "cannot be read"):
            while write and _is_missing(there):
                there = there.parent  # what is missing will be made, but not where a link leads to
            os.close(durable.open_root(there))
            if write and not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
                raise why_not_writable(there)

    def cautions(self) -> Iterator[str]:
        """Tell root whose directory it is."""
        if owner := ownership.another_owner(self.root):
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
        with self._translator.translating("cannot be saved to"):
            differences = try_file_systems(self.root, self._modes)
        return [f"{self.uri}: {difference}" for difference in differences]

    def probe_write(self) -> dt.datetime:
        """Return the time by the file server's clock, if there is one."""
        with self._translator.translating("cannot be written to"):
            return probe(self.root, self.layout, self._modes)

    # Reading

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        crashid.validate(crash_id)
        raw: list[Part] | None = None if marker_of(kinds) is Kind.RAW_CRASH else []
        processed: list[Part] | None = None if Kind.PROCESSED_CRASH in kinds else []
        with self._opened(crash_id) as root_fd:
            for where, dir_fd in directories(root_fd, self.layout, crash_id):
                files = self._files(crash_id, where, dir_fd)
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
        with suppress(CrashIDNotFound), self._opened(crash_id) as root_fd:
            return find(root_fd, self.layout, crash_id, kind) is not None
        return False

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return the names of the dumps that lie where the crash would."""
        crashid.validate(crash_id)
        names: list[str] = []
        with suppress(CrashIDNotFound), self._opened(crash_id) as root_fd:
            for where, dir_fd in directories(root_fd, self.layout, crash_id):
                files = self._indexes.names_of(crash_id, None, dir_fd, where)
                names += map(self.layout.dump_name, filter(self.layout.is_dump, files))
        return list(dict.fromkeys(names))

    @contextmanager
    def _opened(self, crash_id: str, action: str = "cannot be read") -> Iterator[int]:
        """Open the root, to do something with a crash; where it is missing, so is the crash."""
        with self._translator.translating(action, crash_id):
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
        """List one directory at a time, which is in memory.

        If something else is in the place of a directory, that is raised at the end.
        """
        kind = check_listing(since, until, kind)
        return self._listed(since, until, kind)

    def _listed(self, since: dt.date | None, until: dt.date | None, kind: Kind) -> Iterator[str]:
        self._passed_over = passed_over = PassedOver()
        with self._translator.translating("cannot be listed"):
            try:
                root_fd = durable.open_root(self.root)
            except FileNotFoundError:  # nothing was ever saved here
                return
            with opened(root_fd):
                walk = Catalog(root_fd, self.layout, kind, passed_over)
                yield from walk.crashes(since, until)

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
        return self._save(crashes, create=False)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return self._save(crashes, create=True)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """Put the new raw crash in the place of the old one, whose lock keeps other saves out.
        A reader of the old one notices.

        A raw crash at an older place stays there with its dumps.  The processed crash goes to the
        place where a reader looks first.
        """
        together = [crash]
        if self._is_at_older_place(crash.crash_id):
            parts = filter(None, (crash.processed_crash, crash.raw_crash))
            together = [Crash(crash.crash_id, [part]) for part in parts]
        for each in together:
            [error] = self._save([each], create=False, keeps_dumps=True)
            if error:
                raise error

    def _is_at_older_place(self, crash_id: str) -> bool:
        with suppress(CrashIDNotFound), self._opened(crash_id) as root_fd:
            where = find(root_fd, self.layout, crash_id, Kind.RAW_CRASH)
            return where not in (None, self.layout.leaves(crash_id)[0])
        return False

    def _save(
        self, crashes: Sequence[Crash], *, create: bool, keeps_dumps: bool = False
    ) -> list[Exception | None]:
        results: list[Exception | None] = [None] * len(crashes)
        try:
            with (
                opened(durable.make_root(self.root, self._modes.directory)) as root_fd,
                self._forcing(root_fd, len(crashes)) as forcing,
            ):
                place = root_fd, self.uri, self.layout, self._modes, self._indexes
                would_replace = self._would_replace if create else None
                saving = Saving(*place, would_replace=would_replace, keeps_dumps=keeps_dumps)
                save_in_groups(crashes, saving.stage, forcing, results)
        except OSError as error:
            results = [error] * len(crashes)
        return [
            self._translator.error(error, "cannot be saved", crash.crash_id)
            if isinstance(error, OSError)
            else error
            for crash, error in zip(crashes, results, strict=True)
        ]

    def _forcing(self, root_fd: int, crashes: int) -> Forcing:
        """Return what makes so many saves or removals durable."""
        return Forcing(root_fd, together=crashes >= _SYNCFS_FROM)

    # Removing

    def remove(self, crash_id: str) -> None:
        """Remove the crash's files wherever the layout has them, and then the directories
        that are left empty; the raw crash goes first, so that no reader sees a torn crash."""
        crashid.validate(crash_id)
        with self._opened(crash_id, "cannot be removed") as root_fd:
            removal = CrashRemoval(self.layout, self._indexes, root_fd, crash_id)
            removed = list(map(removal.remove, self.layout.directories(crash_id)))
        if not any(removed):
            raise CrashIDNotFound(crash_id, uri=self.uri)

    def remove_loaded(self, crash: Crash) -> None:
        """Remove it under its lock, so that no other save comes in between.  Files that lie
        elsewhere stay."""
        with self._opened(crash.crash_id, "cannot be removed") as root_fd:
            removal = LoadedRemoval(self.layout, self._indexes, root_fd, crash)
            places = self.layout.directories(crash.crash_id)
            for where in places:
                removal.check(where)
            removed = list(map(removal.remove, places))
        if not any(removed):
            raise CrashIDNotFound(crash.crash_id, uri=self.uri)

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        """Remove crashes, and make that durable for all of them together."""
        for crash_id in crash_ids:
            crashid.validate(crash_id)
        try:
            with opened(durable.open_root(self.root)) as root_fd:
                forcing = partial(self._forcing, root_fd)
                emptying = Emptying(self.layout, self._indexes, root_fd, forcing)
                removals = emptying.crashes(crash_ids)
        except FileNotFoundError:  # nothing was ever saved here
            return [CrashIDNotFound(crash_id, uri=self.uri) for crash_id in crash_ids]
        except OSError as error:
            return [self._translator.error(error, "cannot be removed", i) for i in crash_ids]
        return list(map(self._not_removed, removals))

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """Remove crashes, and what processes that died have left there.  Files that are not the
        store's stay."""
        with self._translator.translating("cannot be listed"):
            try:
                root_fd = durable.open_root(self.root)
            except FileNotFoundError:  # nothing was ever saved here
                return
            with opened(root_fd):
                forcing = partial(self._forcing, root_fd)
                emptying = Emptying(self.layout, self._indexes, root_fd, forcing)
                for removal in emptying.days(since, until, is_stopped):
                    yield removal.crash_id, self._not_removed(removal)

    def _not_removed(self, removal: CrashRemoval) -> StorageError | None:
        """Return why a crash was not removed."""
        crash_id, error = removal.crash_id, removal.error
        if error:
            return self._translator.error(error, "cannot be removed", crash_id)
        return None if removal.was_there else CrashIDNotFound(crash_id, uri=self.uri)


def _is_missing(path: Path) -> bool:
    """Return True if a path, or a directory on the way to it, is missing; the root is not.

    :raises OSError: that cannot be known, as below a mount whose server is gone
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    return False


def _octal(text: str) -> int:
    if not _OCTAL.fullmatch(text):
        raise ValueError("must be an octal number such as 027")
    return int(text, 8)
