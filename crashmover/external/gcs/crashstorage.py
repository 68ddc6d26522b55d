# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""GCSCrashStorage: crashes in a bucket of Google Cloud Storage, by a URI."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from crashmover.errors import StorageError
from crashmover.external.bucket.crashstorage import VERSIONS_STAY, BucketCrashStorage, place_of
from crashmover.external.bucket.layouts import LAYOUTS, SOCORRO
from crashmover.external.gcs.client import GCSClient
from crashmover.external.gcs.gcserrors import explain
from crashmover.external.google_api import GoogleServer
from crashmover.external.http_session import Answer, HTTPSession
from crashmover.uri import StorageURI, boolean, domain, endpoint, one_of, seconds, word

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_KEPT = {
    "versioning": ("enabled", VERSIONS_STAY),
    "retentionPolicy": ("retentionPeriod", "nothing can be replaced or removed for {} seconds"),
    "softDeletePolicy": ("retentionDurationSeconds", "soft delete: what is removed stays {} s"),
}


@dataclass(frozen=True, kw_only=True)
class GCSOptions:
    """How to reach a bucket; what is not said comes from the environment, as with Google's clients.

    :param project: whose quota the requests count against
    :param billing_project: that pays for the requests, where the requester pays
    :param kms_key: that encrypts what is saved: ``projects/P/locations/L/keyRings/R/cryptoKeys/K``
    :param storage_class: of what is saved
    :param endpoint_url: of a server that is not Google's
    :param universe_domain: of a cloud that is run apart from Google's own
    :param anonymous: send no credentials
    :param connect_timeout: seconds
    :param read_timeout: seconds without a further byte; a request may take 20 times as long
    """

    project: str | None = None
    billing_project: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    endpoint_url: str | None = None
    universe_domain: str | None = None
    anonymous: bool = False
    connect_timeout: float = 5.0
    read_timeout: float = 30.0


class GCSCrashStorage(BucketCrashStorage):
    """Keeps crashes in a bucket of Google Cloud Storage.

    :param prefix: of every key, without a slash at its ends
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
        server = GoogleServer(
            "storage",
            emulator="STORAGE_EMULATOR_HOST",
            endpoint_url=options.endpoint_url,
            universe=options.universe_domain,
            anonymous=options.anonymous,
        )
        self._session = HTTPSession(
            server.url,
            uri,
            explain=explain,
            asker=server.asker(_SCOPE, options.project, uri),
            query={"userProject": options.billing_project} if options.billing_project else {},
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            retry=self.tuning.retry,
        )
        self._place = (bucket, prefix)
        place = (self._session, bucket, prefix, options.kms_key, server.is_googles or None)
        client = GCSClient(*place, storage_class=options.storage_class)
        super().__init__(client, LAYOUTS[layout], marks=GCSClient(*place))

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``gs://bucket/prefix?project=mine``; options: ``layout`` and those of `GCSOptions`."""
        bucket, prefix = place_of(uri, _BUCKET)
        options = uri.options(**_CONVERTERS)
        layout = options.pop("layout", SOCORRO.name)
        return cls(bucket, prefix, GCSOptions(**options), str(uri), layout)

    def identity(self) -> object:
        return (self._session.url.lower(), *self._place)

    def diagnose(self) -> Iterator[str]:
        return self._kept("versioning", "retentionPolicy")

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        return self._kept(*_KEPT) if removing else iter(())

    def _kept(self, *names: str) -> Iterator[str]:
        """Yield what these settings of the bucket keep, with the permission storage.buckets.get."""
        path, query, settings = f"/storage/v1/b/{self._place[0]}", {"fields": ",".join(names)}, {}
        with suppress(StorageError):
            settings = self._session.ask("GET", path, query, read=Answer.object)
        for name in names:
            found, (key, text) = settings.get(name), _KEPT[name]
            if isinstance(found, dict) and str(found.get(key) or 0) != "0":
                yield f"{self.uri}: {text.format(found[key])}"


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("project", "billing_project", "kms_key", "storage_class"), word),
    **dict.fromkeys(("connect_timeout", "read_timeout"), seconds),
    "layout": one_of(*LAYOUTS),
    "endpoint_url": endpoint,
    "universe_domain": domain,
    "anonymous": boolean,
}
