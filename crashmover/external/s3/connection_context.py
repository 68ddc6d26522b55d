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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from obstore.store import S3Store

from crashmover.errors import MissingExtra, StorageDenied, StorageError
from crashmover.external.s3.s3errors import DRIVER_ERRORS, explain

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

CHECKSUMS = {"sha256": "SHA256", "crc64nvme": "CRC64NVME", "none": None}

_DNS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)
_ENDPOINT = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")
_IN_HEADERS = re.compile(r"[\x20-\x7e]+")
_CREDENTIALS_LAST = dt.timedelta(minutes=5)  # botocore renews them at least ten minutes ahead

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


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """How to reach a bucket; what is not said comes from the environment and the profile, as
    with the AWS command line.

    :param region: the bucket's
    :param endpoint_url: of a server that is not Amazon's
    :param profile: in the AWS configuration files
    :param anonymous: send no credentials
    :param checksum: that the server holds each upload against: ``sha256``, ``crc64nvme`` or
        ``none``
    :param addressing_style: whether the bucket is in the host name: ``virtual``, ``path``,
        or ``auto``: at Amazon yes, elsewhere no
    :param storage_class: of what is saved
    :param sse: server-side encryption: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``
    :param sse_kms_key_id: the key for it
    :param request_payer: ``requester``: pay for the requests
    :param ca_bundle: file of certificates to be trusted besides the system's
    :param verify_ssl: whether to check the server's certificate
    :param connect_timeout: seconds
    :param read_timeout: seconds without an answer, or without a further byte of one; a request
        as a whole may take 20 times as long
    """

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    anonymous: bool = False
    checksum: str = "sha256"
    addressing_style: str = "auto"
    storage_class: str | None = None
    sse: str | None = None
    sse_kms_key_id: str | None = None
    request_payer: str | None = None
    ca_bundle: str | None = None
    verify_ssl: bool = True
    connect_timeout: float = 5.0
    read_timeout: float = 30.0


@dataclass(frozen=True)
class _Account:
    """What a profile or the environment says."""

    region: str | None
    endpoint_url: str | None
    credentials: "Callable[[], S3Credential] | None"


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
        self._refusal: StorageDenied | None = None
        self._secrets: set[str] = set()
        self._lock = Lock()

    @property
    def is_aws(self) -> bool:
        """Whether the server is Amazon's own; known once there is a client."""
        return self._endpoint is None

    def endpoint_url(self) -> str | None:
        """Return the URL of the server, as it is said or as the profile has it; None where it
        is Amazon's.  Nobody is contacted."""
        endpoint = self._endpoint_url(None)
        if endpoint or not _may_have_endpoint(self.options.profile):
            return endpoint
        try:
            import boto3

            return _endpoint_of(boto3.Session(profile_name=self.options.profile))
        except Exception:  # whatever is wrong with the profile is said when it is used
            return None

    def client(self) -> S3Store:
        """Return the client.

        :raises StorageDenied: there are no credentials, or no such profile
        :raises MissingExtra: boto3 is needed to find them, and not installed
        """
        if self._client is None:
            with self._lock:
                self._client = self._client or self._make_client(self._account())
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
        refusal, self._refusal = self._refusal, None
        self._mask(error)
        return refusal or explain(error, self.uri, crash_id)

    def _mask(self, error: Exception) -> None:
        """Take our credentials out of its text, which has the server's answer in it: some of
        these repeat a token that they do not accept."""
        text = known = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        if text != known:
            error.args = (text,)

    def _make_client(self, account: _Account) -> S3Store:
        options = self.options
        endpoint = self._endpoint = self._endpoint_url(account.endpoint_url)
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

    def _endpoint_url(self, of_profile: str | None) -> str | None:
        environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        endpoint = self.options.endpoint_url or environment or of_profile
        return endpoint.rstrip("/") if endpoint else None

    def _read_ca_bundle(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            reason = f"ca_bundle {path} cannot be read: {error.strerror}"
            raise StorageDenied(reason, uri=self.uri) from error

    # Whose credentials

    def _account(self) -> _Account:
        environment = os.environ
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        endpoint = self._endpoint_url(None)
        is_amazons = not endpoint and not _may_have_endpoint(self.options.profile)
        # Servers of other makers take any region, Amazon's only the right one.
        known = bool(endpoint or (is_amazons and (self.options.region or region)))
        profile = self.options.profile or environment.get("AWS_PROFILE")
        if self.options.anonymous and known:
            return _Account(region, None, None)
        key, secret = _environment("ACCESS_KEY_ID"), _environment("SECRET_ACCESS_KEY")
        if key and secret and known and not profile:
            token = _environment("SESSION_TOKEN")
            return _Account(region, None, lambda: self._credential(key, secret, token))
        return self._account_of_boto3()

    def _account_of_boto3(self) -> _Account:
        try:
            import boto3
            import botocore.exceptions
        except ModuleNotFoundError as error:
            raise MissingExtra("s3: no module named 'boto3'; try: pip install boto3") from error
        try:
            session = boto3.Session(profile_name=self.options.profile)
            endpoint = _endpoint_of(session)
            if self.options.anonymous:
                return _Account(session.region_name, endpoint, None)
            credentials = session.get_credentials()
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            # Not from it: it comes from what quotes a line of the file, with the secret.
            raise self._denied(error) from None
        if credentials is None:
            reason = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a"
            raise StorageDenied(f"{reason} ?profile=, or say ?anonymous=true", uri=self.uri)

        def provide() -> "S3Credential":
            try:
                frozen = credentials.get_frozen_credentials()
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                self._refusal = self._denied(error)
                raise
            expires = dt.datetime.now(dt.UTC) + _CREDENTIALS_LAST
            return self._credential(frozen.access_key, frozen.secret_key, frozen.token, expires)

        return _Account(session.region_name, endpoint, provide)

    def _credential(
        self, key: str, secret: str, token: str | None, expires: dt.datetime | None = None
    ) -> "S3Credential":
        for name, value in (("access key", key), ("session token", token)):
            if value and not _IN_HEADERS.fullmatch(value):
                reason = f"the {name} has a character in it that none can have: a line's end?"
                self._refusal = StorageDenied(f"no credentials: {reason}", uri=self.uri)
                raise self._refusal
        self._secrets |= {text for text in (key, secret, token) if text}
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": expires,
        }

    def _denied(self, error: Exception) -> StorageDenied:
        text = " ".join(str(error).split())
        return StorageDenied(f"no credentials: {text[:300]}", uri=self.uri)


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


def check_endpoint(text: str) -> str:
    """Return the URL of a server; `ValueError` where it is none.  One with a user and password in
    it would be in what the client says of every failure."""
    if not _ENDPOINT.fullmatch(text):
        raise ValueError("it is a URL such as https://127.0.0.1:9000, without a user")
    return text


def normalized(endpoint: str) -> str:
    """Return the URL of a server as all spellings of it have it: the host in lower case, and
    without the port that is usual."""
    url = urlsplit(endpoint)
    usual = {"http": ":80", "https": ":443"}.get(url.scheme, "")
    host = url.netloc.lower().removesuffix(usual)
    return f"{url.scheme}://{host}{url.path.rstrip('/')}"


def _may_have_endpoint(profile: str | None) -> bool:
    """Whether a profile has to be asked for an endpoint: by boto3, which takes long to import."""
    file = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    try:
        return bool(profile or os.environ.get("AWS_PROFILE")) or b"endpoint" in file.read_bytes()
    except OSError:
        return False


def _environment(name: str) -> str | None:
    return os.environ.get(f"AWS_{name}") or None


def _endpoint_of(session: Any) -> str | None:
    """Return the ``endpoint_url`` that the profile has for S3, or for every service."""
    from botocore.configprovider import ConfiguredEndpointProvider

    core = session._session
    provider = ConfiguredEndpointProvider(
        full_config=core.full_config,
        scoped_config=core.get_scoped_config(),
        client_name="s3",
    )
    endpoint: str | None = provider.provide()
    return endpoint


def _given(**values: Any) -> Any:
    return {key: value for key, value in values.items() if value is not None}
