# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage: crashes in an S3 bucket, by a URI."""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any, Self
from weakref import WeakMethod

from crashmover.errors import InvalidURI
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.bucket.layouts import LAYOUTS, SOCORRO
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.options import CHECKSUMS, S3Options, check_endpoint, normalized
from crashmover.external.s3.policies import PolicyClient
from crashmover.retry import RetryPolicy
from crashmover.uri import StorageURI, seconds

_VERSIONS = "the bucket keeps versions: what is removed can be restored, and is paid for, until"
_VERSIONS += " a lifecycle rule of the bucket deletes it"
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
        # No circle: its connections end when the store is dropped, and not later.
        ask = WeakMethod(self._retry)
        self._context = S3ConnectionContext(bucket, options, uri, lambda: (ask() or RetryPolicy)())
        self._place = (bucket, prefix)
        attributes = {"Storage-Class": options.storage_class} if options.storage_class else {}
        self._s3 = PolicyClient(self._context, prefix, attributes)
        super().__init__(self._s3, LAYOUTS[layout])

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``s3://bucket/prefix?region=us-west-2``; the options are ``layout`` and those of
        `S3Options`."""
        uri.refuse("user", "password", "port")
        if not _BUCKET.fullmatch(uri.host):
            raise InvalidURI("s3: the bucket is missing or is not one; write s3://bucket/prefix")
        prefix = uri.path.strip("/")
        if any(step in ("", ".", "..") for step in prefix.split("/")) and prefix:
            raise InvalidURI("s3: the prefix has an empty step, or one that is . or ..")
        options = uri.options(**_CONVERTERS)
        layout = options.pop("layout", SOCORRO.name)
        return cls(uri.host, prefix, S3Options(**options), str(uri), layout)

    def identity(self) -> object:
        """The server, the bucket and the prefix."""
        endpoint = self._context.endpoint_url()
        return (endpoint and normalized(endpoint), *self._place)

    def _retry(self) -> RetryPolicy:
        return self.tuning.retry

    def _client_for_marks(self) -> PolicyClient:
        """A mark has no storage class: it might be one that cannot be read at once."""
        if not self._context.options.storage_class:
            return self._s3
        return PolicyClient(self._context, self._place[1])

    def clock(self) -> dt.datetime | None:
        """The time is exact to the second."""
        return self._s3.clock()

    def diagnose(self) -> Iterator[str]:
        if self._s3.keeps_versions():
            yield f"{self.uri}: {_VERSIONS}"

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        return self.diagnose() if removing else iter(())


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
    "layout": _one_of(*LAYOUTS),
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
