# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A bucket in memory, of which every request can be held, watched or counted: no server lets itself
be held between two requests.  What is put into it and read, and in which order, is the store's own
code.
"""

import datetime as dt
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from typing import BinaryIO, Self

from crashmover.crash import Part
from crashmover.errors import CorruptCrash, StorageError
from crashmover.external.bucket.client import (
    SHA256,
    ObjectChanged,
    ObjectExists,
    Pages,
    StoredObject,
    subject,
)
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.bucket.layouts import MARKS
from crashmover.external.bucket.rounds import Rounds
from crashmover.uri import StorageURI

HONOURING = ("amazon", "honours")
_EPOCH = dt.datetime(2007, 10, 25, tzinfo=dt.UTC)


class Bucket:
    """A `BucketClient` of a bucket in memory, and what is asked of it.

    :param create: what the server does that is asked to put an object where there is none:
        "honours" or "ignores" the condition, or "refuses" it; "amazon" is known to honour it
    :param forgets: whether it keeps no metadata
    :param deletes_versions: whether it honours the versions of what it is to delete; None: if it
        honours the other conditions
    """

    uri = "s3://bucket"
    slowdowns = 0
    forgets = False
    page = 1000

    def __init__(self, create: str = "honours", *, deletes_versions: bool | None = None) -> None:
        self.create = create
        self.deletes_versions = deletes_versions
        if deletes_versions is None:
            self.deletes_versions = create in HONOURING
        self.rounds = Rounds()
        self.there: dict[str, tuple[bytes, Mapping[str, str], str]] = {}
        self.requests: list[str] = []
        self.before: Callable[[int], None] = lambda number: None
        self._tags = count()

    def ask(self, verb: str, key: str) -> None:
        """Take note of a request; somebody may do something before it is carried out."""
        before, self.before = self.before, lambda number: None
        try:
            before(len(self.requests))
        finally:
            self.before = before
        self.requests.append(" ".join([verb, *key.split("/")[1:2]]))

    def add(self, key: str, data: bytes, **metadata: str) -> None:
        """Put an object as another program does."""
        self.there[key] = (data, {} if self.forgets else metadata, str(next(self._tags)))

    def location(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def honours_conditions(self) -> bool | None:
        return True if self.create == "amazon" else None

    def clock(self) -> dt.datetime | None:
        return None

    def verify_access(self) -> None:
        self.ask("get", "v1/nothing")

    def try_put(self, key: str) -> None:
        self.ask("try", key)

    def head(self, key: str) -> StoredObject | None:
        self.ask("look", key)
        return self._stored(key)

    def get_small(self, key: str) -> StoredObject | None:
        return self.head(key)

    def get(self, key: str) -> tuple[StoredObject, BinaryIO] | None:
        self.ask("get", key)
        stored = self._stored(key)
        if stored is None:
            return None
        data = self.there[key][0]
        if stored.metadata.get(SHA256) not in (None, hashlib.sha256(data).hexdigest()):
            raise CorruptCrash("other bytes", crash_id=subject(key), uri=self.uri)
        return stored, io.BytesIO(data)

    def _stored(self, key: str) -> StoredObject | None:
        if key not in self.there:
            return None
        data, metadata, tag = self.there[key]
        time = _EPOCH + dt.timedelta(seconds=int(tag))
        return StoredObject(key, len(data), tag, metadata, time)

    def put(
        self,
        key: str,
        body: bytes | Part,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        create: bool = False,
        replaced: StoredObject | None = None,
    ) -> str | None:
        data = body if isinstance(body, bytes) else body.read()
        is_json = key.split("/")[1] in ("raw_crash", "dump_names", "processed_crash")
        is_mark = key.startswith(f"{MARKS}/")
        expected = "application/json" if is_json else "application/octet-stream"
        assert content_type == ("text/plain" if is_mark else expected)
        self.ask("create" if create else "put", key)
        if create and self.create == "refuses":
            raise StorageError("the server says 501", uri=self.uri)
        if create and self.create in HONOURING and key in self.there:
            raise ObjectExists
        if replaced and self.create in HONOURING and self._stored(key) != replaced:
            raise ObjectChanged
        sha256 = hashlib.sha256(data).hexdigest()
        assert all(isinstance(value, str) for value in metadata.values())
        self.add(key, data, **{SHA256: sha256, **metadata})
        return sha256

    def delete(self, versions: Mapping[str, str | None]) -> list[str]:
        if not versions:
            return []
        self.ask("delete", next(iter(versions)))
        left = [
            key
            for key, version in versions.items()
            if self.deletes_versions
            and key in self.there
            and version is not None
            and self.there[key][2] != version
        ]
        for key in versions.keys() - set(left):
            self.there.pop(key, None)
        return left

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        self.ask("list", prefix)
        below = f"{prefix}/" if prefix else ""
        keys = iter(sorted(key for key in self.there if key.startswith(below) and key > after))
        while page := list(islice(keys, self.page)):
            yield [(key, *self._shown(key)) for key in page if key in self.there]

    def _shown(self, key: str) -> tuple[int, str]:
        data = self.there[key][0]
        return len(data), hashlib.md5(data).hexdigest()

    def list_keys(
        self, prefix: str, after: str = "", *, surely: bool = True
    ) -> Iterator[list[str]]:
        for page in self.list_objects(prefix, after, surely=surely):
            yield [key for key, _, _ in page]

    def has_key(self, prefix: str, after: str = "") -> bool:
        return any(self.list_keys(prefix, after))

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        self.ask("list", prefix)
        below = [key[len(prefix) + 1 :] for key in self.there if key.startswith(f"{prefix}/")]
        directories = {name.split("/")[0] for name in below if "/" in name}
        return sorted(directories), sorted(name for name in below if "/" not in name)


class InMemoryBucketCrashStorage(BucketCrashStorage):
    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        raise NotImplementedError


def open_bucket(bucket: Bucket) -> BucketCrashStorage:
    """Open it as a process of its own does: it knows nothing of the server yet."""
    return InMemoryBucketCrashStorage(bucket)
