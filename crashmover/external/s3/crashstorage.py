# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage: crashes in an S3 bucket, each part an object."""

import datetime as dt
import re
import zlib
from collections.abc import Callable, Iterator, Sequence, Set
from threading import Lock
from typing import Any, Self

from crashmover import crashid
from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind
from crashmover.errors import (
    CrashChanged,
    CrashIDNotFound,
    CrashMoverError,
    InvalidURI,
    StorageDenied,
)
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.claims import Claims
from crashmover.external.bucket.crashobjects import CrashObjects
from crashmover.external.bucket.creating import Create
from crashmover.external.bucket.keeping import Keep
from crashmover.external.bucket.listing import Absences, Listing
from crashmover.external.bucket.obstore_client import Objects
from crashmover.external.bucket.reading import Reader
from crashmover.external.bucket.surroundings import look_around
from crashmover.external.bucket.writing import Save
from crashmover.external.crashstorage_base import CrashStorageBase, check_listing, results_of
from crashmover.external.passed_over import PassedOver
from crashmover.external.probing import probe_id
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.options import CHECKSUMS, S3Options, check_endpoint, normalized
from crashmover.external.s3.probing import clock_of, try_upload
from crashmover.external.s3.sameness import Place, is_same_bucket
from crashmover.pool import Pool
from crashmover.uri import StorageURI, seconds

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)
_LOCKS = 256


class S3CrashStorage(CrashStorageBase):
    """Keeps crashes in a bucket, as `keys` says.

    A save puts the list of dumps, the dumps, and then the raw crash.  Each object says by the
    SHA-256 of its raw crash which save it comes from, so that a reader who meets a crash that
    is being replaced notices, at the price of no request.

    :param bucket: its name
    :param prefix: of every key, without a slash at its ends
    :param options: how to reach it
    :param uri: what messages call the store
    """

    workers = 16
    saving_workers = 32  # of which each waits for one request after the other

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        options: S3Options | None = None,
        uri: str | None = None,
    ) -> None:
        self.uri = uri or f"s3://{bucket}" + (prefix and f"/{prefix}")
        self._context = S3ConnectionContext(bucket, options or S3Options(), self.uri)
        self._objects = Objects(self._context, prefix)
        self._place = (bucket, prefix)
        self._absences = Absences()
        self._passed_over = PassedOver()
        self._reader = Reader(self._objects, self.uri, self._location)
        self._crash_objects = CrashObjects(self._objects, self.uri)
        claims = Claims(self._crash_objects, lambda: self._objects.is_aws, self._absences)
        self._save = Save(self._crash_objects, claims, self._reader)
        self._create = Create(self._crash_objects, claims, self._save)
        self._keep = Keep(self._crash_objects, self._save, self._create)
        self._locks = [Lock() for _ in range(_LOCKS)]
        self._denied: StorageDenied | None = None

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``s3://bucket/prefix?region=us-west-2``; the options are those of `S3Options`."""
        uri.refuse("user", "password", "port")
        if not _BUCKET.fullmatch(uri.host):
            raise InvalidURI("s3: the bucket is missing or is not one; write s3://bucket/prefix")
        prefix = uri.path.strip("/")
        if any(step in ("", ".", "..") for step in prefix.split("/")) and prefix:
            raise InvalidURI("s3: the prefix has an empty step, or one that is . or ..")
        return cls(uri.host, prefix, S3Options(**uri.options(**_CONVERTERS)), str(uri))

    def identity(self) -> object:
        """The server, the bucket and the prefix."""
        endpoint = self._context.endpoint_url()
        return (endpoint and normalized(endpoint), *self._place)

    def is_same_store(self, other: CrashStorageBase, *, probe: bool = False) -> bool | None:
        """Return whether both are one place in one bucket, as `sameness` finds out.

        Without ``probe`` it goes by `identity`, which proves no difference.
        """
        if not isinstance(other, S3CrashStorage):
            return None
        if not probe:
            return True if self.identity() == other.identity() else None
        return is_same_bucket(self._marked_place(), other._marked_place())

    def _marked_place(self) -> Place:
        return Place(self._context, self._place[1])

    def verify_access(self, *, write: bool = False) -> None:
        """As the base class says; nothing is written.

        Whether it can be saved to shows when it is; a refusal is remembered until a save
        succeeds.
        """
        self._objects.verify_access()
        if write and self._denied:
            raise self._denied

    def probe_write(self) -> None:
        """As the base class says: an upload that is broken off, which never becomes an object."""
        key = keys.dump_key(probe_id(), MAIN_DUMP)
        try_upload(self._context, "/".join(filter(None, (self._place[1], key))))

    def clock(self) -> dt.datetime | None:
        """As the base class says, to the second."""
        return clock_of(self._context)

    # Reading

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """As the base class says.  The body of a small raw or processed crash comes along, as
        it takes no more than the question whether it is there."""
        crashid.validate(crash_id)
        return Crash(crash_id, self._reader.parts(crash_id, kinds))

    def _location(self, key: str) -> str:
        bucket, prefix = self._place
        return "/".join(filter(None, (f"s3://{bucket}", prefix, key)))

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        """As the base class says."""
        crashid.validate(crash_id)
        if kind.marker is Kind.PROCESSED_CRASH:
            return self._objects.look(keys.processed_crash_key(crash_id), crash_id) is not None
        return self._objects.find_raw_crash(crash_id) is not None

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return the names of the dumps that are there: of those in the list of dumps, and the main
        dump.  No others can be found."""
        crashid.validate(crash_id)
        names = self._crash_objects.dump_names(crash_id) | {MAIN_DUMP}
        return [name for name in sorted(names) if self._crash_objects.dump(crash_id, name)]

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """As the base class says, in one request for about a thousand crashes."""
        kind = check_listing(since, until, kind)
        since, until = since or dt.date.min, until or dt.date.max
        listing = Listing(self._objects, self.uri, since, until, self._absences)
        self._passed_over = listing.passed_over
        if kind is Kind.PROCESSED_CRASH:
            return listing.processed_crashes()
        return listing.raw_crashes()

    def passed_over(self) -> Iterator[str]:
        """As the base class says, of keys."""
        if text := self._passed_over.text():
            yield f"{self.uri}: {text}"

    def strangers(self) -> Iterator[str]:
        """As the base class says, by one page of keys for each of four questions."""
        if text := look_around(self._objects, *self._place):
            yield f"{self.uri}: {text}"

    # Saving and removing

    def save_crash(self, crash: Crash) -> None:
        """As the base class says.

        A crash that is there with another raw crash is taken away before its dumps are
        replaced; for that moment a reader finds none.
        """
        self._save_one(crash, self._save)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """As the base class says: one request replaces the raw crash."""
        self._save_one(crash, self._keep)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """As the base class says, on servers that know ``If-None-Match``.  On others it looks, or
        believes what a listing of the last minute has said, and then saves.

        It is looked for the list of dumps, and not for raw crashes that have none, under the
        older keys.  Two that add dumps larger than `PART_SIZE` may write over each other.
        """
        return results_of(lambda crash: self._save_one(crash, self._create), crashes)

    def _save_one(self, crash: Crash, save: Callable[[Crash], None]) -> None:
        if not crash.parts:
            raise CrashMoverError(f"{crash.crash_id}: nothing to save")
        try:
            with self._lock(crash.crash_id):
                save(crash)
        except StorageDenied as error:
            if error.uri == self.uri:
                self._denied = error
            raise
        self._denied = None

    def remove(self, crash_id: str) -> None:
        """As the base class says; the raw crash goes first."""
        crashid.validate(crash_id)
        with self._lock(crash_id):
            self._crash_objects.remove(crash_id)

    def remove_loaded(self, crash: Crash) -> None:
        """As the base class says, by one question for each dump and each key of a raw crash, as one
        may lie under an older key, too.  Others, in another process, may come in between.

        What another attempt has left, whose end nobody has heard, is removed as well.
        """
        with self._lock(crash.crash_id):
            expected = 1
            try:
                self._refuse_changed(crash)
            except CrashIDNotFound:
                if not self._crash_objects.is_rest_of(crash):
                    raise
                expected = 0
            found = self._crash_objects.raw_crashes(crash.crash_id)
            if len(found) > expected:
                raise CrashChanged(crash.crash_id, found[-1].key, uri=self.uri)
            self._crash_objects.delete_all(crash.crash_id, [part.name for part in crash.dumps])

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        """As the base class says, several at a time: each waits for one request after the other."""
        with Pool(self.workers, "remove") as pool:
            return list(pool.map(lambda each: results_of(self.remove, [each])[0], crash_ids))

    def _lock(self, crash_id: str) -> Lock:
        return self._locks[zlib.crc32(crash_id.encode()) % _LOCKS]


# Options


def _one_of(*values: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in values:
            raise ValueError(f"it is one of {', '.join(values)}")
        return text

    return convert


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("it is true or false")
    return text.lower() == "true"


def _text(text: str) -> str:
    if not text.isprintable() or not text:
        raise ValueError("it is empty or has control characters in it")
    return text


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "region": _text,
    "endpoint_url": check_endpoint,
    "profile": _text,
    "anonymous": _boolean,
    "checksum": _one_of(*CHECKSUMS),
    "addressing_style": _one_of("auto", "path", "virtual"),
    "storage_class": _text,
    "sse": _one_of("AES256", "aws:kms", "aws:kms:dsse"),
    "sse_kms_key_id": _text,
    "request_payer": _one_of("requester"),
    "ca_bundle": _text,
    "verify_ssl": _boolean,
    "connect_timeout": seconds,
    "read_timeout": seconds,
}
