# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Bucket policies that demand conditions, as Amazon's server carries them out, for the proxy.

They are those of Amazon's documentation: "Enforce conditional writes on Amazon S3 buckets" and
"Enforce conditional deletes on Amazon S3 buckets".  No server for tests knows them.
"""

import re

from tests.s3_proxy import Fault, Replies, Request, Says

DENIED = Says(403, "AccessDenied")
_OBJECT = re.compile(rb"<Object>(.*?)</Object>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


def creates_only(request: Request, head: dict[str, str], _body: bytes) -> Fault | None:
    """Whatever is written has ``If-None-Match``, the first example of the documentation."""
    return DENIED if _writes(request) and "if-none-match" not in head else None


def replaces_only(request: Request, head: dict[str, str], _body: bytes) -> Fault | None:
    """Whatever is written has ``If-Match``, the second example."""
    return DENIED if _writes(request) and "if-match" not in head else None


def conditional_writes(request: Request, head: dict[str, str], _body: bytes) -> Fault | None:
    """Whatever is written has ``If-None-Match`` or ``If-Match``, the third example."""
    has_condition = {"if-none-match", "if-match"} & head.keys()
    return DENIED if _writes(request) and not has_condition else None


def conditional_deletes(request: Request, head: dict[str, str], body: bytes) -> Fault | None:
    """Whatever is deleted has ``If-Match``; in a DeleteObjects, each key has its ETag."""
    if request.method == "DELETE" and "uploadId=" not in request:
        return None if "if-match" in head else DENIED
    if request.method != "POST" or "?delete" not in request:
        return None
    keys = [_KEY.findall(each)[0] for each in _OBJECT.findall(body) if b"<ETag>" not in each]
    errors = [b"<Error><Key>%s</Key><Code>AccessDenied</Code></Error>" % key for key in keys]
    return Replies(b"<DeleteResult>%s</DeleteResult>" % b"".join(errors)) if keys else None


def all_conditions(request: Request, head: dict[str, str], body: bytes) -> Fault | None:
    """Both `conditional_writes` and `conditional_deletes`."""
    return conditional_writes(request, head, body) or conditional_deletes(request, head, body)


def _writes(request: Request) -> bool:
    """Return True for PutObject and CompleteMultipartUpload, and not for the begin or a part of an
    upload, nor for what is no object."""
    has_key = request.path.partition("?")[0].count("/") > 1
    if request.method == "PUT":
        return has_key and "uploadId=" not in request
    return request.method == "POST" and "uploadId=" in request
