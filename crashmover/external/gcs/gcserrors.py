# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a refusal of Google Cloud Storage means for a store."""

import re

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.google_api import details, is_forbidden
from crashmover.external.http_session import Answer, Explanation

_PERMISSION = re.compile(r"storage\.[a-zA-Z]+\.[a-zA-Z]+")
_CHECKSUM = re.compile(r"crc32c|md5|checksum", re.IGNORECASE)
_KEPT = re.compile(r"retention|under ?active.*hold", re.IGNORECASE)

_NONE_SENT = "the server asks for credentials, and none were sent"
DAMAGED = "the bytes have not arrived as they were sent"


def explain(answer: Answer) -> Explanation:
    """Return what to raise where an answer says that a request has failed."""
    status, (reason, message) = answer.status, details(answer)
    says = " ".join(filter(None, ("the server says", str(status), reason)))
    if status == 401:
        is_anonymous = message.startswith("Anonymous")
        return StorageDenied, _NONE_SENT if is_anonymous else "the credentials are not accepted"
    if status == 403 and _KEPT.search(f"{reason} {message}"):
        return StorageError, message or says
    if status in (403, 407) or is_forbidden(answer):
        needs = _PERMISSION.search(message)
        message = f"it needs {needs[0]}" if needs else message
        return StorageDenied, f"access denied: {message or says}"
    if status == 404:
        return StorageDenied, "no such bucket"
    if reason == "userProjectMissing" or "requester pays" in message:
        return StorageDenied, "the requester pays here: name a project with ?billing_project="
    if status == 400 and _CHECKSUM.search(message):
        return StorageUnavailable, DAMAGED
    if status in (408, 409, 429) or (status >= 500 and status != 501):
        return StorageUnavailable, says
    if status < 400:  # a page to log in, perhaps
        return StorageUnavailable, "another kind of server answers"
    return StorageError, f"{says}: {message}" if message else says
