# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3ConnectionContext: from a profile, a region and credentials to a client.

boto3 resolves what its users have set up (environment, profiles, single sign-on, roles); the
bytes go through obstore, which does not hold the interpreter's lock.  boto3 takes half a second
to import, and is imported only when its credential chain is needed.
"""

import datetime as dt
import re
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from obstore.store import S3Store

from crashmover.errors import CrashMoverError, StorageDenied, StorageError, StorageUnavailable
from crashmover.external.s3.account import VARIABLES, Account, CredentialProvider, Place
from crashmover.external.s3.calling import DRIVER_ERRORS
from crashmover.external.s3.options import CHECKSUMS, S3Options
from crashmover.external.s3.s3errors import (
    NOT_S3,
    explain,
    lacks_certificates,
)
from crashmover.hiding import hidden
from crashmover.proxies import Proxy, proxy_for, with_proxy
from crashmover.retry import RetryPolicy

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

_NO_CREDENTIALS = "External AWS credential provider"
_DNS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)

# A server that lets one byte after the other drip would never be given up otherwise.  What is
# too large to come in that time is asked for again from there on.
TIMES = 20  # read_timeout, which a request as a whole may take


class S3ConnectionContext:
    """Makes the client for a bucket when it is first needed; safe for many threads.

    :param bucket: its name
    :param options: how to reach it
    :param uri: what messages call the store
    :param retry: how often each request is sent again, and for how long
    """

    def __init__(
        self,
        bucket: str,
        options: S3Options,
        uri: str,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.options = options
        self.uri = uri
        self.retry = retry or RetryPolicy()
        self.location = f"s3://{bucket}"
        self._bucket = bucket
        self._client: S3Store | None = None
        self._account = Account(options, uri)
        self._lock = Lock()
        self._provide: CredentialProvider | None = None
        self._slowdowns = 0

    @property
    def slowdowns(self) -> int:
        """How often the server has asked for fewer requests (429, 503)."""
        return self._slowdowns

    def note_slowdown(self) -> None:
        """Count one more answer that asks for fewer requests."""
        with self._lock:
            self._slowdowns += 1

    @property
    def is_aws(self) -> bool:
        """Whether the server is Amazon's own.

        :raises StorageDenied: as `place`
        """
        return self.place.endpoint_url is None

    @property
    def place(self) -> Place:
        """Where the store is; no server is asked.

        :raises StorageDenied: there is no such profile, or what it says is invalid
        :raises MissingExtra: boto3 is needed to read the profile, and not installed
        """
        return self._account.place

    def endpoint_url(self) -> str | None:
        """Return the URL of the server, as `place` has it; None where it is Amazon's, or where
        the profile cannot be read, which is said when it is used."""
        try:
            return self.place.endpoint_url
        except CrashMoverError:
            return self.options.endpoint_url

    def client(self) -> S3Store:
        """Return the client.

        :raises StorageDenied: there are no credentials, or no such profile
        :raises MissingExtra: boto3 is needed to find them, and not installed
        """
        if self._client is None:
            with self._lock:
                self._client = self._client or self._make_client()
        return self._client

    def credentials(self) -> "S3Credential":
        """Return the credentials, as they are now; raises as `client`."""
        if self._provide is None:
            self._provide = self._account.credentials()
        return self._provide()

    def object_url(self, path: str) -> str:
        """Return the URL of an object; of the bucket, where the path is empty.

        :param path: the key, as it is written in a URL
        """
        steps = [self._url()] if self._is_virtual() else [self._url(), self._bucket]
        return "/".join([*steps, path] if path or self._is_virtual() else steps)

    def explain(self, error: Exception, crash_id: str | None = None) -> StorageError:
        """Return what to raise instead of what the client raised."""
        # The client wraps, and garbles, what goes wrong when it asks for credentials.
        if _NO_CREDENTIALS in str(error) and self._account.refusal:
            return StorageDenied(f"no credentials: {self._account.refusal}", uri=self.uri)
        self._mask(error)
        return explain(error, self.uri, crash_id, self._proxy())

    def wrong_server(self, crash_id: str | None) -> StorageUnavailable:
        """Return what to raise if something else than an S3 server answers."""
        reason = with_proxy(NOT_S3, self._proxy())
        return StorageUnavailable(reason, crash_id=crash_id, uri=self.uri)

    def _proxy(self) -> Proxy | None:
        return proxy_for(self._url())

    def _mask(self, error: Exception) -> None:
        """Take our credentials out of its text, which has the server's answer in it: some of
        these repeat a token that they do not accept."""
        text = known = str(error)
        for secret in self._account.secrets:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        if text != known:
            error.args = (text,)

    def _make_client(self) -> S3Store:
        credentials = self._account.credentials()
        config, client_config = self._config(), self._client_config()
        bundle = self.place.ca_bundle
        try:
            with hidden(_is_hidden):
                return S3Store(
                    config=config,
                    client_options=client_config,
                    retry_config={"max_retries": 0},  # the `Repeater` does that
                    credential_provider=credentials,
                )
        except DRIVER_ERRORS as error:
            if not bundle or lacks_certificates(error):
                raise self.explain(error) from error
            reason = f"ca_bundle {bundle} has no certificate in it that can be read"
            raise StorageDenied(reason, uri=self.uri) from error

    def _config(self) -> "S3Config":
        options, place, url = self.options, self.place, self._url()
        config: S3Config = {
            "bucket": self._bucket,
            "region": place.region,
            "endpoint": url,
            "aws_endpoint_url_s3": url,  # which counts more than the other one
            "virtual_hosted_style_request": self._is_virtual(),
            "skip_signature": options.anonymous,
            "request_payer": bool(options.request_payer),
            "conditional_put": "etag",
            "copy_if_not_exists": "multipart",
            "disable_bulk_delete": False,
            "disable_tagging": False,
            "s3_express": False,
            "unsigned_payload": False,
        }
        config |= _given(
            checksum_algorithm=CHECKSUMS[options.checksum],
            server_side_encryption=options.sse,
            sse_kms_key_id=options.sse_kms_key_id,
        )
        return config

    def _url(self) -> str:
        """Return the URL that requests go to, with the bucket where that is in the host name."""
        scheme, _, host = self.place.server_url.partition("://")
        return f"{scheme}://{self._bucket}.{host}" if self._is_virtual() else f"{scheme}://{host}"

    def _is_virtual(self) -> bool:
        """Whether the bucket is in the host name."""
        if self.options.addressing_style == "auto":
            return self.is_aws and _DNS_NAME.fullmatch(self._bucket) is not None
        return self.options.addressing_style == "virtual"

    def _client_config(self) -> "ClientConfig":
        options, place = self.options, self.place
        config: ClientConfig = {
            "allow_http": place.server_url.startswith("http:"),
            "allow_invalid_certificates": not options.verify_ssl,
            "connect_timeout": dt.timedelta(seconds=options.connect_timeout),
            "read_timeout": dt.timedelta(seconds=options.read_timeout),
            "timeout": dt.timedelta(seconds=TIMES * options.read_timeout),
        }
        if place.ca_bundle:
            config["root_certificate"] = self._read_ca_bundle(place.ca_bundle)
        return config

    def _read_ca_bundle(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            reason = f"ca_bundle {path} cannot be read: {error.strerror}"
            raise StorageDenied(reason, uri=self.uri) from error


def _given(**values: Any) -> Any:
    return {key: value for key, value in values.items() if value is not None}


def _is_hidden(variable: str) -> bool:
    """Whether the client must not see a variable of the environment.

    It makes an option of each ``AWS_`` variable, in small letters or large ones, whose name it
    knows.  Some options have no value that says what not to give them says.  Those of `VARIABLES`
    can stay: the client is given all that they stand for.
    """
    return variable.startswith("AWS_") and variable not in VARIABLES
