# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What goes wrong with an object store, in crashmover's words."""

import re

from crashmover.errors import (
    NO_CERTIFICATES,
    NO_TRUST,
    UNKNOWN_HOST,
    CrashArchived,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.s3.calling import ClientPanicked, NoThreads
from crashmover.proxies import Proxy, with_proxy

_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9.]{1,80})\s*</Code>")
_CODE_OF_KEY = re.compile(r"DeleteObjects request failed .*\(code: ([A-Za-z0-9.]{1,80})\)")
_NO_ANSWER = re.compile(
    r"MissingContentLength|^Generic S3 error: (Got invalid|Unable to extract)|"
    r"Server returned error response"
)
_STORAGE_CLASS = re.compile(r"<(?:StorageClass|AccessTier)>\s*([A-Z_]{1,40})\s*<")
_REGION = re.compile(r"<Region>\s*([a-z0-9-]{1,40})\s*</Region>")
_HTTP_KIND = re.compile(r"HttpError \{\s*kind: ([A-Za-z]+)")
_OS_MESSAGE = re.compile(r'Os \{[^}]*message: "([^"]{1,100})"')
_TLS = re.compile(r"certificate|tls|Tls|InvalidContentType")

_DENIALS = {
    "AccessDenied": "access denied",
    "AllAccessDisabled": "access denied",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidToken": "the session token is not valid",
    "NoSuchBucket": "no such bucket",
    "RequestTimeTooSkewed": "the clock here and the clock there differ too much",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "TokenRefreshRequired": "the credentials have expired",
}
_ELSEWHERE = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_ELSEWHERE |= {"PermanentRedirect", "TemporaryRedirect"}
_PASSING = {"BadDigest", "IncompleteBody", "InternalError", "NoSuchUpload", "RequestTimeout"}
_PASSING |= {"ServiceUnavailable", "SlowDown", "Throttling"}
_PASSING |= {"ThrottlingException", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
_NOT_SENT = ("Connect", "Request")

_RESTORE = "restore it first"
NOT_S3 = "the answer is not that of an S3 server"
TROUBLE = {
    "Connect": "cannot be reached",
    "Timeout": "no answer in time",
    "Interrupted": "the connection broke off",
    "Request": "the connection broke off",
}


class Refused(Exception):
    """The answer to a request that we have sent ourselves says that it has failed."""


def is_missing_object(error: BaseException) -> bool:
    """Whether it says that there is no such object (and not that there is no such bucket)."""
    return isinstance(error, FileNotFoundError) and _code(str(error)) != "NoSuchBucket"


def is_conflict(error: BaseException) -> bool:
    """Return True if another request changes the same object at this moment (409)."""
    match = _STATUS.search(str(error))
    return match is not None and match.group(1) == "409"


def is_passing(error: BaseException, *, once_at_most: bool) -> bool:
    """Return True if the same request may do better a moment later: by the rules by which obstore
    would repeat it (``src/client/retry.rs`` of object_store 0.13), but for 501.

    :param once_at_most: whether it must not be sent again after its answer was lost
    """
    text = str(error)
    if match := _STATUS.search(text):
        status = int(match.group(1))
        return status in (408, 429) or (status >= 500 and status != 501)
    if match := _HTTP_KIND.search(text):
        return not once_at_most or match.group(1) in _NOT_SENT
    # "200 OK", and then what went wrong.  The client looks for words in it that keys may have.
    return "Server returned error response" in text and not says_deleted(error)


def asks_for_fewer(error: BaseException) -> bool:
    """Return True if the server says that it gets too many requests."""
    text = str(error)
    match = _STATUS.search(text)
    return _code(text) == "SlowDown" or (match is not None and match.group(1) in ("429", "503"))


def says_deleted(error: BaseException) -> bool:
    """Whether the server has said that it deleted everything.  The client takes any answer for
    an error that has the word in it, and that may be the name of a dump: keys are repeated."""
    text = str(error)
    return "<DeleteResult" in text and "<Error>" not in text


def lacks_certificates(error: BaseException) -> bool:
    """Whether the client found no certificates of the system, without which it cannot be made."""
    return "No CA certificates were loaded" in str(error)


def explain(
    error: Exception, uri: str, crash_id: str | None = None, proxy: Proxy | None = None
) -> StorageError:
    """Return what to raise instead.  The client's own text is never shown: it is long, and
    has addresses and headers in it.

    :param proxy: that requests go through; it is named unless the S3 server itself has answered
    """
    text = str(error)
    kind, reason = _explanation(error, text)
    if not _code(text) and not isinstance(error, NoThreads):
        reason = with_proxy(reason, proxy)
    return kind(reason, crash_id=crash_id, uri=uri)


def _explanation(error: Exception, text: str) -> tuple[type[StorageError], str]:
    if isinstance(error, NoThreads):
        return StorageUnavailable, text
    if isinstance(error, ClientPanicked):
        return StorageUnavailable, NOT_S3
    if lacks_certificates(error):
        return StorageDenied, NO_CERTIFICATES
    for explanation in (_by_code, _by_key, _by_status, _by_transport):
        if found := explanation(text):
            return found
    return StorageError, _first_line(text)


Explanation = tuple[type[StorageError], str] | None


def _by_code(text: str) -> Explanation:
    code = _code(text)
    if code in _ELSEWHERE or "incorrectly configured region" in text:
        region = _REGION.search(text)
        where = f"region {region.group(1)}" if region else "another region"
        return StorageDenied, f"the bucket is in {where}: say so with ?region="
    if code == "InvalidObjectState":
        found = _STORAGE_CLASS.search(text)
        return CrashArchived, f"it is archived{f' ({found.group(1)})' if found else ''}: {_RESTORE}"
    if code in _DENIALS:
        return StorageDenied, _DENIALS[code]
    if code in _PASSING:
        return StorageUnavailable, f"the server says {code}"
    return None


def _by_key(text: str) -> Explanation:
    match = _CODE_OF_KEY.search(text)
    return (StorageError, f"the server says {match.group(1)}") if match else None


def _by_status(text: str) -> Explanation:
    match = _STATUS.search(text)
    if not match:
        return None
    status, code = int(match.group(1)), _code(text)
    says = f"the server says {status}" + (f" {code}" if code else "")
    if status in (401, 403, 407):
        return StorageDenied, f"access denied{f' ({code})' if code else ''}"
    if status == 501:  # not implemented, now or later
        return StorageError, says
    if status in (408, 409, 429) or status >= 500:  # 409: another changes it at this moment
        return StorageUnavailable, says
    return StorageError, says


def _by_transport(text: str) -> Explanation:
    match = _HTTP_KIND.search(text)
    if not match:
        return (StorageUnavailable, NOT_S3) if _NO_ANSWER.search(text) else None
    if _TLS.search(text):
        return StorageDenied, NO_TRUST
    if "dns error" in text:
        return StorageUnavailable, UNKNOWN_HOST
    if message := _OS_MESSAGE.search(text):
        return StorageUnavailable, message.group(1).lower()
    return StorageUnavailable, TROUBLE.get(match.group(1), "the connection broke off")


def _code(text: str) -> str:
    match = _CODE.search(text) or _CODE_OF_KEY.search(text)
    return match.group(1) if match else ""


def _first_line(text: str) -> str:
    line = text.partition("\n")[0].removeprefix("Generic S3 error: ")
    return line[:200] or "it went wrong, and the client does not say why"
