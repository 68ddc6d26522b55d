# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the XML API of Google Cloud Storage says where it is asked for an object: in one answer the
bytes and, in its headers, what the JSON API needs a request of its own for.

Source: "HTTP headers and query string parameters for XML API", and Google's Go client: "Only the
XML and gRPC APIs support getting custom metadata via the Reader; for JSON make a separate call"
(cloud.google.com/go/storage, ``Reader.Metadata``).
"""

import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from crashmover.external.http_session import Answer

ANSWERS = (200, 206, 400, 403, 404, 405, 416, 501)
"""The statuses that are an answer.  Of a refusal the JSON API says more; where no credentials were
sent it says 401, and the XML API 403."""

_LENGTH = {200: "content-length", 206: "content-range"}
_METADATA = "x-goog-meta-"
_CRC32C = re.compile(r"crc32c=([^, ]+)")


def resource_of(answer: Answer) -> dict[str, Any]:
    """Return what is said of an object, by the names of the JSON API: ``size``, ``generation``,
    ``crc32c``, ``timeCreated`` and ``metadata``, whose names are in small letters.

    Metadata that is not ASCII is left out.  Other programs have put it there.

    :raises LookupError: one of the first three is not said
    """
    said = answer.headers
    length = said[_LENGTH[answer.status]].rpartition("/")[2]
    crc32c = _CRC32C.search(",".join(said.getall("x-goog-hash")))  # Google sends a header for each
    if crc32c is None:
        raise LookupError("crc32c")
    metadata = {}
    for name in said:
        if name.startswith(_METADATA):
            with suppress(ValueError):
                metadata[name[len(_METADATA) :]] = said[name]
    time = parsedate_to_datetime(said["last-modified"]) if "last-modified" in said else None
    return {
        "size": said.get("x-goog-stored-content-length", length),
        "generation": said["x-goog-generation"],
        "crc32c": crc32c[1],
        "metadata": metadata,
        **({"timeCreated": time.isoformat()} if time else {}),
    }


def says_missing(answer: Answer) -> bool:
    """Return True if the answer says that there is no such object, and is no page of a proxy."""
    is_page = answer.body.lstrip().startswith(b"<") and b"<Code>NoSuchKey</Code>" not in answer.body
    return answer.status == 404 and not is_page
