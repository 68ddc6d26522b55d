# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""FSPermanentStorage: crashes in a directory tree, crash-consistent and durable.

A save writes the dumps and then the raw crash, each where no reader takes notice of it until all
of it is in place, and forces them to the disk; a reader holds on to the state of the raw crash
that it first saw, and notices when another has taken its place.
"""

import datetime as dt
import errno
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
    CrashExists,
    CrashIDNotFound,
    CrashMoverError,
    InvalidURI,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase, Removed, never
from crashmover.external.fs import durable, ownership
from crashmover.external.fs.durable import opened
from crashmover.external.fs.emptying import Emptying
from crashmover.external.fs.forcing import Forcing
from crashmover.external.fs.grounds import risks_of_reading, risks_of_saving
from crashmover.external.fs.layout import Layout, Where
from crashmover.external.fs.links import open_directory
from crashmover.external.fs.listing import Listings
from crashmover.external.fs.modes import Modes
from crashmover.external.fs.mounts import mounts_of
from crashmover.external.fs.oserrors import Translator, why_not_writable
from crashmover.external.fs.probing import probe
from crashmover.external.fs.reading import CrashFiles, status_if_there
from crashmover.external.fs.removing import LoadedRemoval, Removal
from crashmover.external.fs.sameness import Tree, is_same_tree
from crashmover.external.fs.staging import StagedSave, save_in_groups
from crashmover.external.fs.surroundings import look_around
from crashmover.external.fs.trial import try_file_systems
from crashmover.external.fs.walking import Walk
from crashmover.external.passed_over import PassedOver
from crashmover.external.roles import Store, check_listing
from crashmover.external.tuning import Tuning
from crashmover.uri import StorageURI

_OCTAL = re.compile(r"-?(0o)?[0-7]{1,4}", re.ASCII)
_SYNCFS_FROM = 8  # crashes; for fewer, forcing each file costs less than the whole disk
_STAGE_TRIES = 10  # another process may remove the empty directory that we just stepped into


class FSPermanentStorage(CrashStorageBase):
    """Keeps crashes under `root`, as `layout` says; what is missing is made when the first
    crash is saved.

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
        self._listings = Listings(self.layout.json_file_suffix)
        self._translator = Translator(self.uri)
        self._passed_over = PassedOver()
        self._files = partial(CrashFiles, self.root, self.layout, self._listings, self._translator)

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
        """The directory itself, by whatever path it was named, and the names in it."""
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
        """As the base class says; nothing is made or written."""
        there = self.root
        with self._translator.translating("cannot be written to" if write else "cannot be read"):
            while write and _is_missing(there):
                there = there.parent  # what is missing will be made, but not where a link leads to
            os.close(durable.open_root(there))
            if write and not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
                raise why_not_writable(there)

    def cautions(self) -> Iterator[str]:
        """As the base class says: root is told whose directory it is."""
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
        """As the base class says; the time is that of the file server, if there is one."""
        with self._translator.translating("cannot be written to"):
            return probe(self.root, self.layout, self._modes)

    # Reading

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """As the base class says."""
        crashid.validate(crash_id)
        raw: list[Part] | None = None if marker_of(kinds) is Kind.RAW_CRASH else []
        processed: list[Part] | None = None if Kind.PROCESSED_CRASH in kinds else []
        with (
            self._translator.translating("cannot be read", crash_id),
            self._reading(crash_id) as root_fd,
        ):
            for where, dir_fd in self._directories(root_fd, crash_id):
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
        """As the base class says."""
        crashid.validate(crash_id)
        with (
            self._translator.translating("cannot be read", crash_id),
            suppress(CrashIDNotFound),
            self._reading(crash_id) as root_fd,
        ):
            return self._find(root_fd, crash_id, kind) is not None
        return False

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return the names of the dumps that lie where the crash would."""
        crashid.validate(crash_id)
        names: list[str] = []
        with (
            self._translator.translating("cannot be read", crash_id),
            suppress(CrashIDNotFound),
            self._reading(crash_id) as root_fd,
        ):
            for where, dir_fd in self._directories(root_fd, crash_id):
                files = self._listings.names_of(crash_id, None, dir_fd, where)
                names += map(self.layout.dump_name, filter(self.layout.is_dump, files))
        return list(dict.fromkeys(names))

    @contextmanager
    def _reading(self, crash_id: str) -> Iterator[int]:
        """Open the root; where it is not there yet, no crash is."""
        try:
            root_fd = durable.open_root(self.root)
        except FileNotFoundError:
            raise CrashIDNotFound(crash_id, uri=self.uri) from None
        with opened(root_fd):
            yield root_fd

    def _directories(self, root_fd: int, crash_id: str) -> Iterator[tuple[Where, int]]:
        """Yield each directory that there is of those where the crash may lie, open."""
        for leaf in self.layout.leaves(crash_id):
            with suppress(FileNotFoundError), opened(durable.walk_down(root_fd, leaf)) as fd:
                yield leaf, fd
                with opened(open_directory(fd, (crash_id,))) as own_fd:
                    yield (*leaf, crash_id), own_fd

    def _find(self, root_fd: int, crash_id: str, kind: Kind) -> Where | None:
        """Return the directory that holds the part without which no reader sees that kind."""
        name = self.layout.file_name(crash_id, kind.marker)
        for where, dir_fd in self._directories(root_fd, crash_id):
            if status_if_there(dir_fd, name):
                return where
        return None

    # Listing

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """As the base class says; what is in one directory is in memory at a time.

        Where there is something else in the place of a directory, that is raised when all that
        is elsewhere has been listed.
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
                walk = Walk(root_fd, self.layout, kind, passed_over)
                yield from walk.crashes(since, until)

    def passed_over(self) -> Iterator[str]:
        """As the base class says, of directories and files."""
        if text := self._passed_over.text():
            yield f"{self.uri}: {text}"

    def strangers(self) -> Iterator[str]:
        """As the base class says, by a look at a few directories."""
        if text := look_around(self.root, self.layout):
            yield f"{self.uri}: {text}"

    # Saving

    def save_crash(self, crash: Crash) -> None:
        """As the base class says."""
        [error] = self.save_crashes([crash])
        if error:
            raise error

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Save them, as many at a time as can be made durable together."""
        return self._save(crashes, create=False)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """As the base class says: who saves a crash has its lock."""
        return self._save(crashes, create=True)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """As the base class says: the new raw crash takes the place of the old one, whose lock
        keeps other savers out.  A reader of the old one notices.

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
        with (
            self._translator.translating("cannot be read", crash_id),
            suppress(CrashIDNotFound),
            self._reading(crash_id) as root_fd,
        ):
            where = self._find(root_fd, crash_id, Kind.RAW_CRASH)
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
                stage = partial(self._stage, root_fd, create, keeps_dumps)
                save_in_groups(crashes, stage, forcing, results)
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

    def _stage(self, root_fd: int, create: bool, keeps_dumps: bool, crash: Crash) -> StagedSave:
        if not crash.parts:
            raise CrashMoverError(f"{crash.crash_id}: nothing to save")
        save = self._staged(root_fd, keeps_dumps, crash)
        try:
            if create:
                save.wait_for_others()
                if self._is_there(root_fd, save):
                    raise CrashExists(crash.crash_id, uri=self.uri)
        except BaseException:
            save.close()
            raise
        return save

    def _is_there(self, root_fd: int, save: StagedSave) -> bool:
        """Whether saving the crash would replace a raw crash or a dump."""
        crash_id = save.crash.crash_id
        if not save.crash.raw_crash:
            return self._would_replace(save.crash)
        if save.was_visible():
            return True
        has_own = durable.exists(save.dir_fd, crash_id)  # a directory, of the older form
        is_elsewhere = has_own or len(self.layout.leaves(crash_id)) > 1
        return is_elsewhere and self._find(root_fd, crash_id, Kind.RAW_CRASH) is not None

    def _staged(self, root_fd: int, keeps_dumps: bool, crash: Crash) -> StagedSave:
        where = self._where_to_save(root_fd, keeps_dumps, crash)
        for _ in range(_STAGE_TRIES):
            with suppress(FileNotFoundError):
                dir_fd = durable.make_down(root_fd, where, self._modes.directory)
                place = where, dir_fd, self._listings
                return StagedSave(crash, self.layout, self._modes, *place, keeps_dumps=keeps_dumps)
        raise BlockingIOError(errno.EAGAIN, "its directory is removed again and again")

    def _where_to_save(self, root_fd: int, keeps_dumps: bool, crash: Crash) -> Where:
        """Return the place that the layout says.  Dumps alone go to their raw crash, and a raw
        crash whose dumps are kept goes to these."""
        if crash.raw_crash and keeps_dumps:
            found = self._find(root_fd, crash.crash_id, Kind.RAW_CRASH)
            return found or self.layout.leaves(crash.crash_id)[0]
        if crash.raw_crash is None and crash.dumps:
            found = self._find(root_fd, crash.crash_id, Kind.RAW_CRASH)
            if found is None:
                reason = "no raw crash to add dumps to"
                raise CrashIDNotFound(crash.crash_id, uri=self.uri, reason=reason)
            return found
        return self.layout.leaves(crash.crash_id)[0]

    # Removing

    def remove(self, crash_id: str) -> None:
        """Remove the crash's files wherever the layout has them, and then the directories
        that are left empty; the raw crash goes first, so that no reader sees a torn crash."""
        crashid.validate(crash_id)
        with (
            self._translator.translating("cannot be removed", crash_id),
            self._reading(crash_id) as root_fd,
        ):
            remove = Removal(self.layout, self._listings, root_fd, crash_id)
            removed = [remove(where) for where in self.layout.directories(crash_id)]
        if not any(removed):
            raise CrashIDNotFound(crash_id, uri=self.uri)

    def remove_loaded(self, crash: Crash) -> None:
        """As the base class says: files that lie elsewhere stay, too; and nobody who has to wait
        for the crash's lock comes in between."""
        with (
            self._translator.translating("cannot be removed", crash.crash_id),
            self._reading(crash.crash_id) as root_fd,
        ):
            remove = LoadedRemoval(self.layout, self._listings, root_fd, crash)
            places = self.layout.directories(crash.crash_id)
            for where in places:
                remove.look(where)
            removed = [remove(where) for where in places]
        if not any(removed):
            raise CrashIDNotFound(crash.crash_id, uri=self.uri)

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        """As the base class says; all of them are made final together."""
        for crash_id in crash_ids:
            crashid.validate(crash_id)
        try:
            with opened(durable.open_root(self.root)) as root_fd:
                forcing = partial(self._forcing, root_fd)
                emptying = Emptying(self.layout, self._listings, root_fd, forcing)
                removals = emptying.crashes(crash_ids)
        except FileNotFoundError:  # nothing was ever saved here
            return [CrashIDNotFound(crash_id, uri=self.uri) for crash_id in crash_ids]
        except OSError as error:
            return [self._translator.error(error, "cannot be removed", i) for i in crash_ids]
        return list(map(self._not_removed, removals))

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """As the base class says.  What somebody has left there who died is cleared away, and
        what is not the store's stays."""
        with self._translator.translating("cannot be listed"):
            try:
                root_fd = durable.open_root(self.root)
            except FileNotFoundError:  # nothing was ever saved here
                return
            with opened(root_fd):
                forcing = partial(self._forcing, root_fd)
                emptying = Emptying(self.layout, self._listings, root_fd, forcing)
                for removal in emptying.days(since, until, is_stopped):
                    yield removal.crash_id, self._not_removed(removal)

    def _not_removed(self, removal: Removal) -> StorageError | None:
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
