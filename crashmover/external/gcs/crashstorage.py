# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""GCSCrashStorage: crashes in a bucket of Google Cloud Storage, by a URI."""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

from crashmover.errors import InvalidURI
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.bucket.layouts import LAYOUTS, SOCORRO
from crashmover.external.bucket.sameness import is_same_bucket
from crashmover.external.gcs.account import Account
from crashmover.external.gcs.client import GCSClient
from crashmover.external.gcs.options import GCSOptions, domain
from crashmover.external.http_session import HTTPSession
from crashmover.external.roles import Store
from crashmover.uri import StorageURI, boolean, endpoint, one_of, seconds, word

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_KEPT = {
    "versioning": (
        "enabled",
        "the bucket keeps versions: what is removed can be restored, and is paid for, until a"
        " lifecycle rule of the bucket deletes it",
    ),
    "retentionPolicy": (
        "retentionPeriod",
        "the bucket has a retention policy: for {} seconds nothing can be replaced or removed",
    ),
    "softDeletePolicy": (
        "retentionDurationSeconds",
        "the bucket has soft delete: for {} seconds what is removed can be restored, and is paid"
        " for",
    ),
}
_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "layout": one_of(*LAYOUTS),
    "project": word,
    "billing_project": word,
    "kms_key": word,
    "storage_class": word,
    "endpoint_url": endpoint,
    "universe_domain": domain,
    "anonymous": boolean,
    "connect_timeout": seconds,
    "read_timeout": seconds,
}


class GCSCrashStorage(BucketCrashStorage):
    """Keeps crashes in a bucket of Google Cloud Storage.

    :param bucket: its name
    :param prefix: of every key, without a slash at its ends
    :param options: how to reach it
    :param uri: what messages call the store
    :param layout: the name of one of `LAYOUTS`: which keys the objects have
    :raises InvalidURI: the server that the options and the environment name is invalid
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        options: GCSOptions | None = None,
        uri: str | None = None,
        layout: str = SOCORRO.name,
    ) -> None:
        options = options or GCSOptions()
        uri = uri or f"gs://{bucket}" + (prefix and f"/{prefix}")
        session = HTTPSession(
            options.server_url(),
            Account(options, uri),
            uri,
            query={"userProject": options.billing_project} if options.billing_project else {},
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
        )
        self._identity = (session.url.lower(), bucket, prefix)
        self._gcs = GCSClient(session, bucket, prefix, options)
        # A mark has no storage class: some are paid for longer than a mark is there.
        self._marks = GCSClient(session, bucket, prefix, replace(options, storage_class=None))
        super().__init__(self._gcs, LAYOUTS[layout])

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``gs://bucket/prefix?billing_project=mine``; the options are ``layout`` and those of
        `GCSOptions`."""
        uri.refuse("user", "password", "port")
        if not _BUCKET.fullmatch(uri.host):
            raise InvalidURI("gs: the bucket is missing or is not one; write gs://bucket/prefix")
        prefix = uri.path.strip("/")
        if any(step in ("", ".", "..") for step in prefix.split("/")) and prefix:
            raise InvalidURI("gs: the prefix has an empty step, or one that is . or ..")
        options = uri.options(**_CONVERTERS)
        layout = options.pop("layout", SOCORRO.name)
        return cls(uri.host, prefix, GCSOptions(**options), str(uri), layout)

    def identity(self) -> object:
        """The server, the bucket and the prefix."""
        return self._identity

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        """Return whether both are one place in one bucket, as `is_same_bucket` finds out.

        Without ``probe`` it goes by `identity`, which proves no difference.
        """
        if not isinstance(other, GCSCrashStorage):
            return None
        if not probe:
            return True if self.identity() == other.identity() else None
        return is_same_bucket(self._marks, other._marks)

    def clock(self) -> dt.datetime | None:
        """The time is exact to the second."""
        return self._gcs.clock()

    def diagnose(self) -> Iterator[str]:
        return self._kept("versioning", "retentionPolicy")

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        return self._kept(*_KEPT) if removing else iter(())

    def _kept(self, *names: str) -> Iterator[str]:
        """Yield what these settings of the bucket keep of what is removed."""
        settings = self._gcs.settings(",".join(names))
        for name in names:
            found, (key, text) = settings.get(name), _KEPT[name]
            if isinstance(found, dict) and str(found.get(key) or 0) != "0":
                yield f"{self.uri}: {text.format(found[key])}"
