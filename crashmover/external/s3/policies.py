# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PolicyClient: puts on the conditions that a policy of the bucket demands.

Amazon's documentation, "Enforce conditional writes on Amazon S3 buckets".
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial

from crashmover.crash import Part
from crashmover.errors import StorageDenied, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE, Upload
from crashmover.external.bucket.client import SHA256, ObjectChanged, ObjectExists, subject
from crashmover.external.bucket.client_base import IN_PARTS, Condition
from crashmover.external.s3.client import S3Client
from crashmover.external.s3.deleting import NO_ETAG
from crashmover.external.s3.uploading import headers_of

_TRIES = 5  # to replace an object that other processes replace as well
_OVERWRITE = Condition()
_CREATE = Condition(create=True)
_REPLACE = Condition(version=NO_ETAG)
_NO_CREATION = (
    "access denied: a policy allows uploads, but none with If-None-Match, as a new crash is"
)


class PolicyClient(S3Client):
    """An `S3Client` that finds out, where a put is refused, whether a policy demands conditions."""

    _is_bound = False
    """Whether a policy demands them."""

    _may_replace = False
    """Whether it then allows to replace an object, on condition of its version."""

    def try_put(self, key: str) -> None:
        """Begin an upload, and break it off; and ask whether its end would be allowed, too."""
        super().try_put(key)
        if not self._is_allowed(key, _CREATE):
            raise StorageDenied(_NO_CREATION, uri=self.uri)

    def _send(
        self, key: str, body: bytes | Part, attributes: Mapping[str, str], condition: Condition
    ) -> str | None:
        if not self._is_bound:
            try:
                return super()._send(key, body, attributes, condition)
            except StorageDenied:
                if condition.create or not self._find_policy(key):
                    raise
        return self._send_by_policy(key, body, attributes, condition)

    def _find_policy(self, key: str) -> bool:
        """Return True if a policy of the bucket demands conditions, and remember which."""
        if self._is_allowed(key, _CREATE) and not self._is_allowed(key, _OVERWRITE):
            self._may_replace = self._is_allowed(key, _REPLACE)
            self._is_bound = True
        return self._is_bound

    def _is_allowed(self, key: str, condition: Condition) -> bool:
        """Return True if permissions and policies allow to put this key on a condition.

        The server is asked to complete an upload that there is not, so nothing can be put.  It
        looks at permissions and policies first: only a refusal of these is 403.
        """
        body = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>0</ETag></Part>"
        body += b"</CompleteMultipartUpload>"
        query, headers = {"uploadId": "crashmover-probe"}, headers_of(condition)
        try:
            answer = self._signed.send(
                "POST", self._prefix + key, query, headers=headers, body=body
            )
        except StorageUnavailable:  # moto 5.2.5 says 500 of an upload that it does not know
            return True
        return answer.status != 403

    def _send_by_policy(
        self, key: str, body: bytes | Part, attributes: Mapping[str, str], condition: Condition
    ) -> str | None:
        """Put an object on the conditions that the policy demands.  If it allows to create only,
        what is there is deleted before."""
        if condition.create:
            return super()._send(key, body, attributes, condition)
        for _ in range(_TRIES):
            version = condition.version or self._version(key)
            try:
                if version and not self._may_replace:
                    return self._send_anew(key, body, attributes, version)
                on = Condition(version=version) if version else _CREATE
                return super()._send(key, body, attributes, on)
            except (ObjectExists, ObjectChanged):
                if condition.version:
                    raise ObjectChanged from None
        reason = "other processes replace it at this moment"
        raise StorageUnavailable(reason, crash_id=subject(key), uri=self.uri)

    def _send_anew(
        self, key: str, body: bytes | Part, attributes: Mapping[str, str], version: str
    ) -> str | None:
        """Put an object where this version is, which is deleted at the last moment: all bytes have
        been sent by then, and may come from there."""

        def make_room() -> None:
            if self.delete({key: version}):
                raise ObjectChanged

        sha256 = attributes.get(SHA256)
        with self._large.take(IN_PARTS):
            chunks: Iterable[bytes]
            chunks = [body] if isinstance(body, bytes) else Upload(body, sha256=sha256)
            if isinstance(chunks, Upload) and chunks.read_ahead(PART_SIZE):
                chunks = [b"".join(chunks)]
            if isinstance(chunks, list):
                sha256 = hashlib.sha256(chunks[0]).hexdigest()
            known = {**attributes, SHA256: sha256} if sha256 else attributes
            put = partial(self._put_large, key, chunks, condition=_CREATE, before_end=make_room)
            self._send_large(key, known, put)
        return sha256
