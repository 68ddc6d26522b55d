# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Uploading a large object in parts, with a condition on its last request, which obstore cannot.

Of the requests of such an upload only CompleteMultipartUpload takes If-None-Match or If-Match, and
a bucket policy can demand that: Amazon's documentation, "Enforce conditional writes on Amazon S3
buckets".
"""

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from html import escape

from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import joined
from crashmover.external.bucket.client import ObjectChanged, ObjectExists
from crashmover.external.bucket.client_base import Condition
from crashmover.external.s3.signed import Answer, SignedClient
from crashmover.pool import Pool

_AT_ONCE = 2  # parts on their way; one more is in memory
_NAMED = {"Content-Type": "content-type", "Storage-Class": "x-amz-storage-class"}


def headers_of(condition: Condition) -> dict[str, str]:
    """Return the headers that say on which condition an object is put."""
    if condition.version:
        return {"If-Match": condition.version}
    return {"If-None-Match": "*"} if condition.create else {}


class LargeUpload:
    """Uploads one object.

    :param client: sends the requests
    :param key: with the prefix of the store
    """

    def __init__(self, client: SignedClient, key: str, crash_id: str | None = None) -> None:
        self._context = client.context
        self._client = client
        self._key = key
        self._crash_id = crash_id
        self._id = ""
        self._with_checksums = client.context.options.checksum == "sha256"

    def __call__(
        self,
        chunks: Iterable[bytes],
        part_size: int,
        *,
        attributes: Mapping[str, str],
        condition: Mapping[str, str],
        before_end: Callable[[], None] | None = None,
    ) -> None:
        """Upload it.  What goes wrong with reading `chunks` is raised as it is.

        :param part_size: bytes
        :param attributes: Content-Type, Storage-Class and the metadata
        :param condition: as `headers_of` returns it
        :param before_end: is called when all parts have arrived
        :raises ObjectExists: there is an object, where there was to be none
        :raises ObjectChanged: the object with that ETag is no longer there
        :raises StorageError: the server refuses a request, or does not answer
        """
        self._begin(attributes)
        has_room = False
        try:
            parts = self._send_parts(joined(chunks, part_size))
            if before_end:
                before_end()
                has_room = True
            self._complete(parts, condition, again_after_conflict=has_room)
        except BaseException:
            if not has_room:  # else nothing but the parts may have the bytes
                with suppress(StorageError):  # a rule of the bucket clears them away
                    self._abort()
            raise

    def try_to_begin(self, attributes: Mapping[str, str]) -> None:
        """Begin the upload, send a part, and break it off: a save needs permission for all three.

        :raises StorageError: the server refuses a request, or does not answer
        """
        self._begin(attributes)
        try:
            self._send_part(1, bytes(1024))
        finally:
            self._abort()

    def _begin(self, attributes: Mapping[str, str]) -> None:
        headers = {
            _NAMED.get(name, f"x-amz-meta-{name}"): value for name, value in attributes.items()
        }
        options = self._context.options
        if options.sse:
            headers["x-amz-server-side-encryption"] = options.sse
        if options.sse_kms_key_id:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = options.sse_kms_key_id
        if self._with_checksums:
            headers["x-amz-checksum-algorithm"] = "SHA256"
        answer = self._asked("POST", {"uploads": ""}, headers)
        self._id = answer.text("UploadId").strip()
        if not self._id:
            raise self._context.wrong_server(self._crash_id)

    def _send_parts(self, parts: Iterable[bytes]) -> str:
        """Send the parts; return what the last request says of them."""
        waiting: deque[Future[str]] = deque()
        sent: list[str] = []
        with Pool(_AT_ONCE, "upload") as pool:
            for number, data in enumerate(parts, 1):
                if len(waiting) == _AT_ONCE:
                    sent.append(waiting.popleft().result())
                waiting.append(pool.submit(self._send_part, number, data))
            sent += [future.result() for future in waiting]
        return "".join(sent)

    def _send_part(self, number: int, data: bytes) -> str:
        digest = hashlib.sha256(data)
        checksum = base64.b64encode(digest.digest()).decode()
        headers = {"x-amz-checksum-sha256": checksum} if self._with_checksums else {}
        query = {"partNumber": str(number), "uploadId": self._id}
        answer = self._asked("PUT", query, headers, data, digest.hexdigest())
        e_tag = answer.headers.get("etag")
        if not e_tag:
            raise self._context.wrong_server(self._crash_id)
        part = f"<PartNumber>{number}</PartNumber><ETag>{escape(e_tag, False)}</ETag>"
        if self._with_checksums:
            part += f"<ChecksumSHA256>{checksum}</ChecksumSHA256>"
        return f"<Part>{part}</Part>"

    def _complete(
        self, parts: str, condition: Mapping[str, str], *, again_after_conflict: bool
    ) -> None:
        """Send the last request.  After a conflict (409) all requests have to be sent again, by
        Amazon's documentation, "How to prevent object overwrites with conditional writes".

        :param again_after_conflict: whether to send it again all the same, because the bytes may be
            nowhere else by now
        """
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        headers = {"content-type": "application/xml", **condition}
        answer = self._client.send(
            "POST",
            self._key,
            {"uploadId": self._id},
            headers=headers,
            body=body,
            again_after_conflict=again_after_conflict,
            crash_id=self._crash_id,
        )
        if condition and answer.status == 501:  # the server knows no condition
            self._complete(parts, {}, again_after_conflict=again_after_conflict)
        elif "If-None-Match" in condition and answer.status == 412:
            raise ObjectExists
        elif "If-Match" in condition and (answer.status == 412 or answer.code == "NoSuchKey"):
            raise ObjectChanged
        elif answer.status != 200:
            raise self._client.refusal(answer, self._crash_id)
        elif answer.code:  # the server began to answer before it knew
            reason = f"the server says {answer.code}"
            raise StorageUnavailable(reason, crash_id=self._crash_id, uri=self._context.uri)
        elif not answer.text("ETag"):
            raise self._context.wrong_server(self._crash_id)

    def _abort(self) -> None:
        """Let the server forget the parts."""
        answer = self._client.send("DELETE", self._key, {"uploadId": self._id})
        if answer.status >= 300 and answer.code != "NoSuchUpload":
            raise self._client.refusal(answer, self._crash_id)

    def _asked(
        self,
        method: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes = b"",
        sha256: str | None = None,
    ) -> Answer:
        answer = self._client.send(
            method,
            self._key,
            query,
            headers=headers,
            body=body,
            sha256=sha256,
            crash_id=self._crash_id,
        )
        if answer.status != 200:
            raise self._client.refusal(answer, self._crash_id)
        return answer
