# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A bucket in memory, of which every request can be held, watched or counted: no server lets itself
be held between two requests.  What is put into it and read, and in which order, is the store's own
code.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import BinaryIO
from unittest.mock import patch

from crashmover.crash import Part
from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.bucket.obstore_client import SHA256, Objects, StoredObject
from crashmover.external.s3 import crashstorage
from crashmover.external.s3.crashstorage import S3CrashStorage
from crashmover.external.s3.s3errors import AlreadyThere, NotTheSame

HONOURING = ("amazon", "honours")


class Bucket(Objects):
    """The objects of a bucket, in memory, and what is asked of it.

    :param create: what the server does that is asked to put an object where there is none:
        "honours" or "ignores" the condition, or "refuses" it; "amazon" is known to honour it
    :param forgets: whether it keeps no metadata
    """

    is_aws = False
    forgets = False

    def __init__(self, create: str = "honours") -> None:
        self.create = create
        self.is_aws = create == "amazon"
        self.there: dict[str, tuple[bytes, Mapping[str, str], str]] = {}
        self.requests: list[str] = []
        self.before: Callable[[int], None] = lambda number: None
        self._tags = count()

    def ask(self, verb: str, key: str, crash_id: str) -> None:
        """Take note of a request; somebody may do something before it is carried out."""
        assert key.endswith(f"/{crash_id}")
        before, self.before = self.before, lambda number: None
        try:
            before(len(self.requests))
        finally:
            self.before = before
        self.requests.append(f"{verb} {key.split('/')[1]}")

    def add(self, key: str, data: bytes, **metadata: str) -> None:
        """Put an object as another program does."""
        self.there[key] = (data, {} if self.forgets else metadata, str(next(self._tags)))

    def look(self, key: str, crash_id: str) -> StoredObject | None:
        self.ask("look", key, crash_id)
        return self._stored(key)

    def fetch(self, key: str, crash_id: str) -> StoredObject | None:
        return self.look(key, crash_id)

    def open(self, key: str, crash_id: str) -> tuple[StoredObject, BinaryIO] | None:
        self.ask("get", key, crash_id)
        stored = self._stored(key)
        return (stored, io.BytesIO(self.there[key][0])) if stored else None

    def _stored(self, key: str) -> StoredObject | None:
        if key not in self.there:
            return None
        data, metadata, tag = self.there[key]
        return StoredObject(key, len(data), tag, metadata)

    def put(
        self,
        key: str,
        body: bytes | Part,
        crash_id: str,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        create: bool = False,
        replaced: StoredObject | None = None,
    ) -> str | None:
        data = body if isinstance(body, bytes) else body.read()
        is_json = key.split("/")[1] in ("raw_crash", "dump_names", "processed_crash")
        assert content_type == ("application/json" if is_json else "application/octet-stream")
        self.ask("create" if create else "put", key, crash_id)
        if create and self.create == "refuses":
            raise StorageError("the server says 501", uri="s3://bucket")
        if create and self.create in HONOURING and key in self.there:
            raise AlreadyThere
        if replaced and self.create in HONOURING and self._stored(key) != replaced:
            raise NotTheSame
        sha256 = hashlib.sha256(data).hexdigest()
        assert all(isinstance(value, str) for value in metadata.values())
        self.add(key, data, **{SHA256: sha256, **metadata})
        return sha256

    def delete(self, keys: Sequence[str], crash_id: str) -> None:
        self.ask("delete", keys[0], crash_id)
        for key in keys:
            self.there.pop(key, None)

    def replaced(self, crash_id: str) -> StorageUnavailable:
        return StorageUnavailable("replaced", crash_id=crash_id, uri="s3://bucket")


def open_bucket(bucket: Bucket) -> S3CrashStorage:
    """Open it as a process of its own does: it knows nothing of the server yet."""
    with patch.object(crashstorage, "Objects", lambda _context, _prefix: bucket):
        return S3CrashStorage("bucket")
