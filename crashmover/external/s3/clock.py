# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The clock of an S3 server."""

import datetime as dt
from typing import TYPE_CHECKING

from crashmover.external.s3.connection_context import S3ConnectionContext

if TYPE_CHECKING:
    import ssl
    from email.message import Message


def clock_of(context: S3ConnectionContext) -> dt.datetime | None:
    """Return the time by the server's clock, to the second; None if it does not say.

    It is in every answer, and so in that to a question without credentials, be it a refusal.  The
    client shows it of none.
    """
    from email.utils import parsedate_to_datetime

    headers = _headers(context)
    try:
        time = parsedate_to_datetime(headers["Date"]) if headers else None
    except (TypeError, ValueError):
        return None
    return time and time.replace(tzinfo=time.tzinfo or dt.UTC)


def _headers(context: S3ConnectionContext) -> "Message | None":
    """Return the headers of an answer; None where there is none."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import (
        HTTPRedirectHandler,
        HTTPSHandler,
        ProxyHandler,
        Request,
        build_opener,
    )

    from crashmover.proxies import proxy_for

    class Stay(HTTPRedirectHandler):
        """Another server may have another clock."""

        def redirect_request(self, *_args: object) -> None:
            return None

    url = context.place.server_url
    request = Request(url, method="HEAD")
    proxy = proxy_for(url)  # the same one as the client's
    proxies = ProxyHandler({urlsplit(url).scheme: proxy.url} if proxy else {})
    try:
        opener = build_opener(HTTPSHandler(context=_tls(context)), Stay, proxies)
        with opener.open(request, timeout=context.options.connect_timeout) as answer:
            headers: Message = answer.headers
            return headers
    except HTTPError as error:
        with error:
            return error.headers
    except (OSError, HTTPException, ValueError):
        return None


def _tls(context: S3ConnectionContext) -> "ssl.SSLContext":
    import ssl

    tls = ssl.create_default_context()
    if bundle := context.place.ca_bundle:
        tls.load_verify_locations(bundle)
    if not context.options.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls
