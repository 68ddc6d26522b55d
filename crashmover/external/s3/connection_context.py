# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3ConnectionContext: from a profile, a region and credentials to a client.

boto3 resolves what its users have set up (environment, profiles, single sign-on, roles); the
bytes go through obstore, which does not hold the interpreter's lock.  boto3 takes half a second
to import, and is imported only when its credential chain is needed.
"""

import datetime as dt
import os
import re
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from obstore.store import S3Store

from crashmover.errors import StorageDenied, StorageError
from crashmover.external.s3.account import (
    Account,
    Accounts,
    endpoint_of,
    endpoint_of_environment,
    may_have_endpoint,
)
from crashmover.external.s3.options import CHECKSUMS, S3Options, check_endpoint
from crashmover.external.s3.s3errors import DRIVER_ERRORS, explain

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_DNS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)

# A server that lets one byte after the other drip would never be given up otherwise.  What is
# too large to come in that time is asked for again from there on.
_TIMES = 20  # read_timeout, which a request as a whole may take

# A request is tried again at once, so that one that is throttled does not cost the whole crash.
# Five in a row take about two seconds; the caller's own policy goes on from there.
_RETRY: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": dt.timedelta(seconds=10),
    "backoff": {
        "init_backoff": dt.timedelta(milliseconds=100),
        "max_backoff": dt.timedelta(seconds=2),
        "base": 2,
    },
}


class S3ConnectionContext:
    """Makes the client for a bucket when it is first needed; safe for many threads.

    :param bucket: its name
    :param options: how to reach it
    :param uri: what messages call the store
    """

    def __init__(self, bucket: str, options: S3Options, uri: str) -> None:
        self.options = options
        self.uri = uri
        self._bucket = bucket
        self._client: S3Store | None = None
        self._endpoint: str | None = None
        self._region = ""
        self._accounts = Accounts(options, uri)
        self._lock = Lock()

    @property
    def is_aws(self) -> bool:
        """Whether the server is Amazon's own; known once there is a client."""
        return self._endpoint is None

    def endpoint_url(self) -> str | None:
        """Return the URL of the server, as it is said or as the profile has it; None where it
        is Amazon's.  Nobody is contacted."""
        endpoint = endpoint_of_environment(self.options)
        if endpoint or not may_have_endpoint(self.options.profile):
            return endpoint
        try:
            import boto3

            return endpoint_of(boto3.Session(profile_name=self.options.profile))
        except Exception:  # whatever is wrong with the profile is said when it is used
            return None

    def client(self) -> S3Store:
        """Return the client.

        :raises StorageDenied: there are no credentials, or no such profile
        :raises MissingExtra: boto3 is needed to find them, and not installed
        """
        if self._client is None:
            with self._lock:
                self._client = self._client or self._make_client(self._accounts.find())
        return self._client

    def server_url(self) -> str:
        """Return the URL of the server, be it Amazon's own.

        :raises StorageDenied: as `client`, for it may be in a profile
        """
        self.client()
        return self._endpoint or f"https://s3.{self._region}.amazonaws.com"

    def ca_bundle(self) -> str | None:
        """Return the file of certificates to be trusted besides the system's."""
        return self.options.ca_bundle or os.environ.get("AWS_CA_BUNDLE")

    def translating(self, crash_id: str | None = None) -> "_Translating":
        """Raise what the client raises as a `StorageError` of this store."""
        return _Translating(self, crash_id)

    def explain(self, error: Exception, crash_id: str | None = None) -> StorageError:
        """Return what to raise instead of what the client raised."""
        # The client wraps, and garbles, what goes wrong when it asks for credentials.
        refusal, self._accounts.refusal = self._accounts.refusal, None
        self._mask(error)
        return refusal or explain(error, self.uri, crash_id)

    def _mask(self, error: Exception) -> None:
        """Take our credentials out of its text, which has the server's answer in it: some of
        these repeat a token that they do not accept."""
        text = known = str(error)
        for secret in self._accounts.secrets:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        if text != known:
            error.args = (text,)

    def _make_client(self, account: Account) -> S3Store:
        options = self.options
        endpoint = self._endpoint = endpoint_of_environment(options, account.endpoint_url)
        try:
            check_endpoint(endpoint or "https://s3")
        except ValueError as error:
            reason = f"AWS_ENDPOINT_URL, or the profile's endpoint_url: {error}"
            raise StorageDenied(reason, uri=self.uri) from None
        region = self._region = options.region or account.region or "us-east-1"
        config: S3Config = {
            "bucket": self._bucket,
            "region": region,
            "conditional_put": "etag",
            "skip_signature": options.anonymous,
        }
        config |= self._addressing(endpoint, region)
        config |= _given(
            checksum_algorithm=CHECKSUMS[options.checksum],
            server_side_encryption=options.sse,
            sse_kms_key_id=options.sse_kms_key_id,
            request_payer=options.request_payer,
        )
        client_config: ClientConfig = {
            "allow_http": bool(endpoint and endpoint.startswith("http:")),
            "allow_invalid_certificates": not options.verify_ssl,
            "connect_timeout": dt.timedelta(seconds=options.connect_timeout),
            "read_timeout": dt.timedelta(seconds=options.read_timeout),
            "timeout": dt.timedelta(seconds=_TIMES * options.read_timeout),
        }
        if bundle := self.ca_bundle():
            client_config["root_certificate"] = self._read_ca_bundle(bundle)
        try:
            return S3Store(
                config=config,
                client_options=client_config,
                retry_config=_RETRY,
                credential_provider=account.credentials,
            )
        except DRIVER_ERRORS as error:
            if not bundle:
                raise
            reason = f"ca_bundle {bundle} has no certificate in it that can be read"
            raise StorageDenied(reason, uri=self.uri) from error

    def _addressing(self, endpoint: str | None, region: str) -> "S3Config":
        style = self.options.addressing_style
        if style == "auto":
            virtual = not endpoint and _DNS_NAME.fullmatch(self._bucket) is not None
        else:
            virtual = style == "virtual"
        config: S3Config = {"virtual_hosted_style_request": virtual}
        if endpoint and virtual:
            scheme, _, host = endpoint.partition("://")
            endpoint = f"{scheme}://{self._bucket}.{host}"
        if endpoint:
            config["endpoint"] = endpoint
        return config

    def _read_ca_bundle(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            reason = f"ca_bundle {path} cannot be read: {error.strerror}"
            raise StorageDenied(reason, uri=self.uri) from error


class _Translating:
    """A context; no generator, because every object has one."""

    __slots__ = ("_context", "_crash_id")

    def __init__(self, context: S3ConnectionContext, crash_id: str | None) -> None:
        self._context = context
        self._crash_id = crash_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, DRIVER_ERRORS):
            raise self._context.explain(error, self._crash_id) from error


def _given(**values: Any) -> Any:
    return {key: value for key, value in values.items() if value is not None}
