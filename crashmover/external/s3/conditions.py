# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3Conditions: what an S3 server does on conditions, and which conditions its policies demand."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.s3.client import CREATE, OVERWRITE, REPLACE
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.deleting import NO_ETAG, ConditionalDelete
from crashmover.external.s3.signed import SignedClient
from crashmover.external.s3.uploading import LargeUpload

_PUTS: dict[str, dict[str, str]] = {
    OVERWRITE: {},
    CREATE: {"If-None-Match": "*"},
    REPLACE: {"If-Match": NO_ETAG},
}
_NO_CREATION = (
    "access denied: a policy allows uploads, but none with If-None-Match, as a new crash is"
)


class S3Conditions:
    """The requests of `ConditionalRequests`, for one bucket.  Safe for many threads.

    :param context: how to reach the bucket
    """

    def __init__(self, context: S3ConnectionContext) -> None:
        self._context = context
        self._client = SignedClient(context)
        self._delete = ConditionalDelete(context, self._client)

    def deletes_unchanged(self, probe: str) -> bool:
        return self._delete.is_honoured(probe)

    def delete_unchanged(self, versions: Mapping[str, str], crash_id: str | None) -> list[str]:
        return self._delete(versions, crash_id)

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        part_size: int,
        *,
        attributes: Mapping[str, str],
        version: str | None,
        create: bool,
        before_end: Callable[[], None] | None,
        crash_id: str | None,
    ) -> None:
        condition = {"If-Match": version} if version else _PUTS[CREATE] if create else {}
        upload = LargeUpload(self._context, self._client, key, crash_id)
        upload(chunks, part_size, attributes=attributes, condition=condition, before_end=before_end)

    def try_put(self, key: str, attributes: Mapping[str, str]) -> None:
        """Begin an upload, and break it off; and ask whether its end would be allowed, too."""
        LargeUpload(self._context, self._client, key).try_to_begin(attributes)
        if not self._is_allowed(key, _PUTS[CREATE]):
            raise StorageDenied(_NO_CREATION, uri=self._context.uri)

    def allowed_puts(self, key: str) -> Set[str]:
        """The server is asked to complete an upload that there is not, so nothing can be put.  It
        looks at permissions and policies first: only a refusal of these is 403."""
        return {how for how in _PUTS if self._is_allowed(key, _PUTS[how])}

    # Of the whole bucket

    def keeps_versions(self) -> bool:
        """Return True if what is deleted stays as a version; False if the server does not say."""
        with suppress(StorageError):
            answer = self._client.send("GET", query={"versioning": ""})
            return bool(answer.status == 200 and answer.text("Status"))
        return False

    def clock(self) -> dt.datetime | None:
        """Return the time by the server's clock, to the second; None if it does not say.  It is in
        every answer, a refusal too.  obstore shows it of none."""
        from email.utils import parsedate_to_datetime  # 7 ms

        try:
            time = parsedate_to_datetime(self._client.send("HEAD").headers["date"])
        except (StorageError, KeyError, ValueError):
            return None
        return time.replace(tzinfo=time.tzinfo or dt.UTC)

    def _is_allowed(self, key: str, condition: Mapping[str, str]) -> bool:
        body = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>0</ETag></Part>"
        body += b"</CompleteMultipartUpload>"
        query = {"uploadId": "crashmover-probe"}
        try:
            return self._client.send("POST", key, query, headers=condition, body=body).status != 403
        except StorageUnavailable:  # moto 5.2.5 says 500 of an upload that it does not know
            return True
