# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Google's servers: where they are, whose requests they take, and how they say what is wrong."""

import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from crashmover.errors import InvalidURI, StorageDenied, StorageError, StorageUnavailable, masked
from crashmover.external.http_session import Answer, Asker
from crashmover.uri import endpoint

logger = logging.getLogger(__name__)

_HERE = ("localhost", "127.0.0.1", "::1")
_TIMEOUT = 30.0  # seconds, for a token
_FORBIDDEN = re.compile(r"orgPolicy|violates constraint", re.IGNORECASE)


class GoogleServer:
    """A server of Google's, or another one in its place.

    What is not said comes from the environment, as with Google's clients.

    :param service: the first step of its name: ``storage``
    :param emulator: the variable that may name another server, which is told no credentials
    :param endpoint_url: of another server
    :param universe: the domain of a cloud that is run apart from Google's own
    :raises InvalidURI: the environment names no server, or a token would go out unencrypted
    """

    def __init__(
        self,
        service: str,
        *,
        emulator: str,
        endpoint_url: str | None,
        universe: str | None,
        anonymous: bool,
    ) -> None:
        universe = universe or os.environ.get("GOOGLE_CLOUD_UNIVERSE_DOMAIN")
        self.universe = universe or "googleapis.com"
        emulated = None if endpoint_url else os.environ.get(emulator)
        url = endpoint_url or emulated or f"https://{service}.{self.universe}"
        try:
            self.url = endpoint(url if "://" in url else f"http://{url}").rstrip("/")
        except ValueError as error:
            said = emulator if emulated else "GOOGLE_CLOUD_UNIVERSE_DOMAIN"
            raise InvalidURI(f"{said}: {error}") from None
        self.is_anonymous = anonymous or emulated is not None
        self.is_googles = (urlsplit(self.url).hostname or "").endswith(f".{self.universe}")
        """Whether Google runs it: no emulator, nor another server in its place."""
        if emulated:
            logger.warning("%s is set: using the emulator at %s", emulator, emulated)
        is_open = self.url.startswith("http:") and urlsplit(self.url).hostname not in _HERE
        if is_open and not self.is_anonymous:
            reason = "the endpoint_url would get your credentials unencrypted"
            raise InvalidURI(f"{reason}: write https://, or say anonymous=true")

    def asker(self, scope: str, project: str | None, uri: str) -> Asker:
        """Return what gives requests the headers that say whose they are.

        :param scope: what a token is for
        :param project: whose quota the requests count against; None: as the credentials say
        :param uri: what messages call the store
        """
        if self.is_anonymous:
            return lambda _refused: {}
        return GoogleTokens(scope, project, self.universe, uri)


def details(answer: Answer) -> tuple[str, str]:
    """Return the word of a server of Google's for an error, and its message, each on one line."""
    reason: Any = ""
    message: Any = ""
    with suppress(ValueError, KeyError, TypeError, IndexError):
        error = answer.object()["error"]
        message = error["message"]
        reason = error["errors"][0]["reason"]
    reason, message = (" ".join(str(text).split())[:300] for text in (reason, message))
    return reason if reason.isalnum() else "", masked(message)


def own_status(answer: Answer) -> int:
    """Return the status; `ValueError` if the answer is a page, as only something in between sends:
    its "404" is not about an object."""
    if answer.body.lstrip().startswith(b"<"):
        raise ValueError(answer.status)
    return answer.status


def is_forbidden(answer: Answer) -> bool:
    """Return whether a policy of the organization forbids what was asked for.

    Google says so with the status 412, and often with the reason of a condition that is not met.
    """
    return _FORBIDDEN.search(" ".join(details(answer))) is not None


class GoogleTokens:
    """Gives requests the headers with a token.

    Safe for many threads: one of them finds the credentials, and renews the token for all.

    :param scope: what the token is for
    :param project: whose quota the requests count against; None: as the credentials say
    :param universe: the domain that the credentials must be of
    :param uri: what messages call the store
    """

    def __init__(self, scope: str, project: str | None, universe: str, uri: str) -> None:
        self._scope = scope
        self._project = project
        self._universe = universe
        self._uri = uri
        self._lock = Lock()
        self._credentials: Any = None
        self._headers: Mapping[str, str] = {}

    def __call__(self, refused: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return the headers.  After a refusal the token is renewed, unless another thread has.

        :param refused: headers that the server has not accepted
        :raises StorageDenied: there are no credentials, or they are not accepted
        :raises StorageUnavailable: the server of tokens does not answer
        """
        with self._lock:
            try:
                self._credentials = self._credentials or self._find()
                # Credentials may come with a token: google-auth asks for the project with it.
                is_valid = self._headers and self._credentials.valid
                if not is_valid or refused == self._headers:
                    self._renew()
            except StorageError:
                raise
            except Exception as error:
                # Not from it: what it comes from may quote a file of credentials.
                raise self._failure(error) from None
            return self._headers

    def _find(self) -> Any:
        import google.auth

        found, _ = google.auth.default(scopes=[self._scope], quota_project_id=self._project)
        if found.universe_domain != self._universe:
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
            words = " ".join(f"{error.args[0]}{_said_by_server(error)}".split())[:300]
        return StorageDenied(f"no credentials: {words}", uri=self._uri)


def _said_by_server(error: Exception) -> str:
    """Return what the server of tokens says, where google-auth passes its answer on unread."""
    with suppress(ValueError, TypeError, KeyError, IndexError):
        return f": {masked(str(json.loads(error.args[1])['error']['message']))}"
    return ""
