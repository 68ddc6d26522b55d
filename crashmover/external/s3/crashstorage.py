# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage: crashes in an S3 bucket, by a URI."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Self

from crashmover.external.bucket.crashstorage import VERSIONS_STAY, BucketCrashStorage, place_of
from crashmover.external.bucket.layouts import LAYOUTS, SOCORRO
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.options import CHECKSUMS, S3Options, normalized
from crashmover.external.s3.policies import PolicyClient
from crashmover.uri import StorageURI, boolean, endpoint, one_of, seconds, word

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)


class S3CrashStorage(BucketCrashStorage):
    """Keeps crashes in an S3 bucket.

    :param bucket: its name
    :param prefix: of every key, without a slash at its ends
    :param options: how to reach it
    :param uri: what messages call the store
    :param layout: the name of one of `LAYOUTS`: which keys the objects have
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        options: S3Options | None = None,
        uri: str | None = None,
        layout: str = SOCORRO.name,
    ) -> None:
        options = options or S3Options()
        uri = uri or f"s3://{bucket}" + (prefix and f"/{prefix}")
        self._context = S3ConnectionContext(bucket, options, uri, self.tuning.retry)
        self._place = (bucket, prefix)
        attributes = {"Storage-Class": options.storage_class} if options.storage_class else {}
        self._s3 = PolicyClient(self._context, prefix, attributes)
        marks = PolicyClient(self._context, prefix) if attributes else None
        super().__init__(self._s3, LAYOUTS[layout], marks)

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``s3://bucket/prefix?region=us-west-2``; the options are ``layout`` and those of
        `S3Options`."""
        bucket, prefix = place_of(uri, _BUCKET)
        options = uri.options(**_CONVERTERS)
        layout = options.pop("layout", SOCORRO.name)
        return cls(bucket, prefix, S3Options(**options), str(uri), layout)

    def identity(self) -> object:
        """The server, the bucket and the prefix."""
        endpoint = self._context.endpoint_url()
        return (endpoint and normalized(endpoint), *self._place)

    def diagnose(self) -> Iterator[str]:
        if self._s3.keeps_versions():
            yield f"{self.uri}: {VERSIONS_STAY}"

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        return self.diagnose() if removing else iter(())


# Options


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "layout": one_of(*LAYOUTS),
    "region": word,
    "endpoint_url": endpoint,
    "profile": word,
    "anonymous": boolean,
    "checksum": one_of(*CHECKSUMS),
    "addressing_style": one_of("auto", "path", "virtual"),
    "storage_class": word,
    "sse": one_of("AES256", "aws:kms", "aws:kms:dsse"),
    "sse_kms_key_id": word,
    "request_payer": one_of("requester"),
    "ca_bundle": word,
    "verify_ssl": boolean,
    "connect_timeout": seconds,
    "read_timeout": seconds,
}
