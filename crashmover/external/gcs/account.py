# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Account: Google's application default credentials; and why the server refuses them."""

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable, masked
from crashmover.external.gcs.options import EMULATOR, GCSOptions
from crashmover.external.http_session import Answer, Explanation

logger = logging.getLogger(__name__)

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_TIMEOUT = 30.0  # seconds, for a token
_PERMISSION = re.compile(r"storage\.[a-zA-Z]+\.[a-zA-Z]+")
_CHECKSUM = re.compile(r"crc32c|md5|checksum", re.IGNORECASE)
_KEPT = re.compile(r"retention|under active .*hold", re.IGNORECASE)

DAMAGED = "the bytes have not arrived as they were sent"


class Account:
    """Gives requests the headers with a token, and says why the server refuses a request.

    Safe for many threads: one of them finds the credentials, and renews the token for all.

    :param options: how to reach the bucket
    :param uri: what messages call the store
    """

    def __init__(self, options: GCSOptions, uri: str) -> None:
        self._options = options
        self._uri = uri
        self._lock = Lock()
        self._credentials: Any = None
        self._headers: Mapping[str, str] = {}
        if options.emulator:
            logger.warning("%s is set: using the emulator at %s", EMULATOR, options.emulator)

    def asker(self, refused: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return the headers.  After a refusal the token is renewed, unless another thread has.

        :raises StorageDenied: there are no credentials, or they are not accepted
        :raises StorageUnavailable: the server of tokens does not answer
        """
        if self._options.anonymous or self._options.emulator:
            return {}
        with self._lock:
            try:
                self._credentials = self._credentials or self._find()
                if not self._credentials.valid or refused == self._headers:
                    self._renew()
            except StorageError:
                raise
            except Exception as error:
                # Not from it: what it comes from may quote a file of credentials.
                raise self._failure(error) from None
            return self._headers

    def _find(self) -> Any:
        import google.auth

        found, _ = google.auth.default(scopes=[_SCOPE], quota_project_id=self._options.project)
        if found.universe_domain != self._options.universe:
            reason = f"the credentials are of {found.universe_domain}: say so with"
            raise StorageDenied(f"{reason} ?universe_domain=", uri=self._uri)
        return found

    def _renew(self) -> None:
        """Ask for a token: minutes before the last one expires, by the rule of google-auth."""
        from google.auth.transport.requests import Request

        self._credentials.refresh(partial(Request(), timeout=_TIMEOUT))
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        self._headers = headers

    def _failure(self, error: Exception) -> StorageError:
        from google.auth.exceptions import GoogleAuthError, TransportError

        if isinstance(error, TransportError) or getattr(error, "retryable", False):
            return StorageUnavailable("the server of tokens does not answer", uri=self._uri)
        words = type(error).__name__  # another's text may quote what it could not read
        if isinstance(error, GoogleAuthError) and error.args:
            words = " ".join(str(error.args[0]).split())[:300]
        return StorageDenied(f"no credentials: {words}", uri=self._uri)

    def explain(self, answer: Answer) -> Explanation:
        """Return what to raise where an answer says that a request has failed."""
        status, (reason, message) = answer.status, _details(answer.body)
        says = " ".join(filter(None, ("the server says", str(status), reason)))
        if status == 401:
            return StorageDenied, "the credentials are not accepted"
        if status == 403 and _KEPT.search(message):
            return StorageError, message
        if status == 403:
            needs = _PERMISSION.search(message)
            return StorageDenied, f"access denied: {f'it needs {needs[0]}' if needs else message}"
        if status == 404:
            return StorageDenied, "no such bucket"
        if "requester pays" in message:
            return StorageDenied, "the requester pays here: name a project with ?billing_project="
        if status in (400, 412) and _CHECKSUM.search(message):
            return StorageUnavailable, DAMAGED
        if status in (408, 409, 429) or (status >= 500 and status != 501):
            return StorageUnavailable, says
        if 200 <= status < 400:  # a page to log in, perhaps
            return StorageUnavailable, "another kind of server answers"
        return StorageError, f"{says}: {message}" if message else says


def _details(body: bytes) -> tuple[str, str]:
    """Return the server's word for an error, and its message, each on one line."""
    reason: Any = ""
    message: Any = ""
    with suppress(ValueError, KeyError, TypeError, IndexError):
        error = json.loads(body)["error"]
        message = error["message"]
        reason = error["errors"][0]["reason"]
    reason, message = (" ".join(str(text).split())[:300] for text in (reason, message))
    return reason if reason.isalnum() else "", masked(message)
