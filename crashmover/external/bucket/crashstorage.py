# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""BucketCrashStorage: crashes in a bucket of any provider, each part an object."""

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from threading import Lock
from weakref import WeakValueDictionary

from crashmover import crashid
from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind
from crashmover.errors import CrashMoverError, InvalidURI, StorageDenied
from crashmover.external.bucket.adding import Adder
from crashmover.external.bucket.client import BucketClient
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.layouts import SOCORRO, BucketLayout
from crashmover.external.bucket.listing import Catalog, MissingCache
from crashmover.external.bucket.putting import Putter
from crashmover.external.bucket.reading import Reader
from crashmover.external.bucket.removing import Remover
from crashmover.external.bucket.sameness import is_same_bucket
from crashmover.external.bucket.sizes import Sizes
from crashmover.external.bucket.stamps import SaveAttempt
from crashmover.external.bucket.surroundings import look_around
from crashmover.external.bucket.writing import Writer
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.loading import Size, size_of
from crashmover.external.passed_over import PassedOver
from crashmover.external.probing import probe_id
from crashmover.external.roles import Store, check_listing, kinds_of, results_of
from crashmover.external.tuning import Tuning
from crashmover.pool import Pool
from crashmover.uri import StorageURI

VERSIONS_STAY = "the bucket keeps versions: what is removed can be restored, and is paid for, until"
VERSIONS_STAY += " a lifecycle rule of the bucket deletes it"


def place_of(uri: StorageURI, name: re.Pattern[str]) -> tuple[str, str]:
    """Return the bucket and the prefix that a URI names: ``s3://bucket/prefix``.

    :param name: of a bucket
    :raises InvalidURI: one of them is none
    """
    uri.refuse("user", "password", "port")
    scheme, prefix = uri.scheme, uri.path.strip("/")
    if not name.fullmatch(uri.host):
        reason = f"the bucket is missing or is not one; write {scheme}://bucket/prefix"
        raise InvalidURI(f"{scheme}: {reason}")
    if any(step in ("", ".", "..") for step in prefix.split("/")) and prefix:
        raise InvalidURI(f"{scheme}: the prefix has an empty step, or one that is . or ..")
    return uri.host, prefix


class BucketCrashStorage(CrashStorageBase):
    """Keeps crashes in a bucket.  A provider's store is a subclass with `from_uri`.

    A save puts the list of dumps, the dumps, and then the raw crash.  Each object says by the
    SHA-256 of its raw crash which save it comes from.  So a reader notices a crash that is being
    replaced, at the price of no request.

    :param client: of the bucket
    :param layout: which keys the objects have
    :param marks: a client for the marks that `is_same_bucket` puts; None: the same.  A mark has no
        storage class: some cannot be read at once, or are paid for longer than a mark is there
    """

    # Each worker waits for one request after the other.
    tuning = Tuning(workers=16, savers=32, most_workers=192)

    def __init__(
        self,
        client: BucketClient,
        layout: BucketLayout = SOCORRO,
        marks: BucketClient | None = None,
    ) -> None:
        self.uri = client.uri
        self._client = client
        self._marks = marks or client
        self._layout = layout
        self._finder = Finder(client, layout)
        self._reader = Reader(self._finder)
        self._remover = Remover(self._finder, self._reader)
        self._missing = MissingCache()
        self._putter = Putter(self._finder, self._missing)
        self._writer = Writer(self._finder, self._putter, self._reader, self._remover)
        self._adder = Adder(self._finder, self._putter, self._remover, self._writer)
        self._passed_over = PassedOver()
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        self._locks_lock = Lock()
        self._denied: StorageDenied | None = None

    @property
    def slowdowns(self) -> int:
        return self._client.slowdowns

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        """Return whether both are one place in one bucket, as `is_same_bucket` finds out.  One
        bucket may be reached by two providers' ways: Google's answers as S3 does, too.

        Without ``probe`` it goes by `identity`, which proves no difference.
        """
        if not isinstance(other, BucketCrashStorage):
            return None
        if not probe:
            return True if self.identity() == other.identity() else None
        return is_same_bucket(self._marks, other._marks)

    def verify_access(self, *, write: bool = False) -> None:
        """Write nothing: whether it can be saved to shows when it is.  A refusal is remembered
        until a save succeeds."""
        self._client.rounds.timed(self._client.verify_access)
        if write and self._denied:
            raise self._denied

    def probe_write(self) -> None:
        self._client.try_put(self._layout.dump_key(probe_id(), MAIN_DUMP))

    def clock(self) -> dt.datetime | None:
        """The time is exact to the second."""
        return self._client.clock()

    # Reading

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """The body of a small raw or processed crash comes along, as it takes no more than the
        question whether it is there."""
        crashid.validate(crash_id)
        return Crash(crash_id, self._reader.parts(crash_id, kinds))

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        crashid.validate(crash_id)
        if kind.marker is Kind.PROCESSED_CRASH:
            return self._client.head(self._layout.processed_crash_key(crash_id)) is not None
        return self._finder.raw_crash(crash_id) is not None

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return the names of the dumps that are there: of those in the list of dumps, and the main
        dump.  No others can be found."""
        crashid.validate(crash_id)
        names = (self._finder.listed_dumps(crash_id) or set()) | {MAIN_DUMP}
        return [name for name in sorted(names) if self._finder.dump(crash_id, name)]

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """One request brings about a thousand crashes."""
        return self._listed(since, until, check_listing(since, until, kind))

    def crash_sizes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[tuple[str, Size]]:
        """Sizes come from listings, and are those of the objects that are there.  A crash whose
        list of dumps does not fit these objects is loaded."""
        kind = check_listing(since, until, kind)
        load = partial(size_of, self, kinds=kinds_of(kind))
        sizes = Sizes(self._client, self._layout, kind, load)
        return sizes.of(self._listed(since, until, kind, sizes.raw_crashes))

    def _listed(
        self,
        since: dt.date | None,
        until: dt.date | None,
        kind: Kind,
        sizes: dict[str, int] | None = None,
    ) -> Iterator[str]:
        since, until = since or dt.date.min, until or dt.date.max
        catalog = Catalog(self._client, self._layout, since, until, self._missing, sizes)
        self._passed_over = catalog.passed_over
        if kind is Kind.PROCESSED_CRASH:
            return catalog.processed_crashes()
        return catalog.raw_crashes()

    def passed_over(self) -> Iterator[str]:
        if text := self._passed_over.text():
            yield f"{self.uri}: {text}"

    def strangers(self) -> Iterator[str]:
        """Take one page of keys for each of four questions."""
        if text := look_around(self._client, self._layout):
            yield f"{self.uri}: {text}"

    # Saving and removing

    def save_crash(self, crash: Crash) -> None:
        """A crash that is there with another raw crash is removed before its dumps are replaced;
        for that moment a reader finds none."""
        self._save(crash, self._writer.save, self._adder.add)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """One request replaces the raw crash."""
        self._save(crash, self._adder.keep, self._putter.put_processed)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """A crash that is missing costs one request for each object, and a crash that is there
        two, on servers that honour ``If-None-Match``.  On others it looks, or believes what a
        listing of the last minute has said, and then saves.

        It is looked for the list of dumps, and not for raw crashes that have none, under the
        older keys.  Two that add dumps larger than `PART_SIZE` may write over each other.
        """
        create = partial(self._save, save=self._writer.create, add=self._adder.create)
        return results_of(create, crashes)

    def _save(
        self, crash: Crash, save: Callable[[SaveAttempt], None], add: Callable[[Crash], None]
    ) -> None:
        """Save a crash by the first function, or by the second if it comes without a raw crash."""
        if not crash.parts:
            raise CrashMoverError(f"{crash.crash_id}: nothing to save")
        try:
            with self._lock(crash.crash_id):
                if crash.raw_crash:
                    save(SaveAttempt(crash, crash.raw_crash))
                else:
                    add(crash)
        except StorageDenied as error:
            if error.uri == self.uri:
                self._denied = error
            raise
        self._denied = None

    def remove(self, crash_id: str) -> None:
        """The raw crash goes first."""
        crashid.validate(crash_id)
        with self._lock(crash_id):
            self._remover.remove(crash_id)

    def remove_loaded(self, crash: Crash) -> None:
        with self._lock(crash.crash_id):
            self._remover.remove_loaded(crash)

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        """Several at a time: each waits for one request after the other."""
        if len(crash_ids) == 1:
            return results_of(self.remove, crash_ids)
        with Pool(self.tuning.workers, "remove") as pool:
            return list(pool.map(lambda each: results_of(self.remove, [each])[0], crash_ids))

    def _lock(self, crash_id: str) -> Lock:
        with self._locks_lock:
            lock = self._locks.get(crash_id) or Lock()
            self._locks[crash_id] = lock
        return lock
