# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""GCSOptions: how to reach a bucket."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from crashmover.errors import InvalidURI
from crashmover.uri import endpoint

EMULATOR = "STORAGE_EMULATOR_HOST"

_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class GCSOptions:
    """How to reach a bucket; what is not said comes from the environment, as with Google's clients.

    :param project: whose quota the requests count against
    :param billing_project: that pays for the requests, where the requester pays
    :param kms_key: that encrypts what is saved: ``projects/P/locations/L/keyRings/R/cryptoKeys/K``
    :param storage_class: of what is saved
    :param endpoint_url: of a server that is not Google's
    :param universe_domain: of a cloud that is run apart from Google's own
    :param anonymous: send no credentials
    :param connect_timeout: seconds
    :param read_timeout: seconds without an answer, or without a further byte of one; a request
        as a whole may take 20 times as long
    """

    project: str | None = None
    billing_project: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    endpoint_url: str | None = None
    universe_domain: str | None = None
    anonymous: bool = False
    connect_timeout: float = 5.0
    read_timeout: float = 30.0

    @property
    def universe(self) -> str:
        """The domain that the server and the credentials are of."""
        said = self.universe_domain or os.environ.get("GOOGLE_CLOUD_UNIVERSE_DOMAIN")
        return said or "googleapis.com"

    @property
    def emulator(self) -> str | None:
        """The server that the environment names instead of Google's: it is told no credentials."""
        return None if self.endpoint_url else os.environ.get(EMULATOR) or None

    def server_url(self) -> str:
        """Return the URL of the server, without a slash at its end.

        :raises InvalidURI: the environment names no server, or a token would go out unencrypted
        """
        url = self.endpoint_url or self.emulator or f"https://storage.{domain(self.universe)}"
        try:
            url = endpoint(url if "://" in url else f"http://{url}").rstrip("/")
        except ValueError as error:
            raise InvalidURI(f"gs: {EMULATOR}: {error}") from None
        host = urlsplit(url).hostname
        if not (self.anonymous or self.emulator or url.startswith("https:") or host in _HERE):
            reason = "the endpoint_url would get your credentials unencrypted"
            raise InvalidURI(f"gs: {reason}: write https://, or say anonymous=true")
        return url


def domain(text: str) -> str:
    """Return the name of a domain; `ValueError` where it is none."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError("it is a domain, such as googleapis.com")
    return text
