# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Account: whose credentials a store uses, and where its server is.

What the URI says counts first, then the environment, then the profile, by the rules of the AWS
command line: ``docs.aws.amazon.com/sdkref``, "Service-specific endpoints", and
``botocore.configprovider``.  An empty variable counts as one that is not set.
"""

import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from crashmover.errors import MissingExtra, StorageDenied
from crashmover.external.s3.options import S3Options
from crashmover.uri import endpoint as checked_endpoint

if TYPE_CHECKING:
    from obstore.store import S3Credential

VARIABLES = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_CA_BUNDLE",
        "AWS_CONFIG_FILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
    }
)
"""The variables that count here; boto3 reads more of them to find credentials."""

_REGION = re.compile(r"[A-Za-z0-9-]{1,63}", re.ASCII)
_IN_HEADERS = re.compile(r"[\x20-\x7e]+")
_CREDENTIALS_LAST = dt.timedelta(minutes=5)  # botocore renews them at least ten minutes ahead

CredentialProvider = Callable[[], "S3Credential"]


@dataclass(frozen=True)
class Place:
    """Where a store is.

    :param region: the bucket's
    :param endpoint_url: of a server that is not Amazon's, without a slash at its end
    :param ca_bundle: file of certificates to be trusted besides the system's
    """

    region: str
    endpoint_url: str | None
    ca_bundle: str | None

    @property
    def server_url(self) -> str:
        """The URL of the server, Amazon's own too."""
        suffix = ".cn" if self.region.startswith("cn-") else ""
        return self.endpoint_url or f"https://s3.{self.region}.amazonaws.com{suffix}"


class Account:
    """What the URI, the environment and the profile say of a store.  Safe for many threads.

    :param options: what the URI says
    :param uri: what messages call the store
    """

    def __init__(self, options: S3Options, uri: str) -> None:
        self._options = options
        self._uri = uri
        self._lock = RLock()
        self.secrets: set[str] = set()
        """What must not be shown: credentials that were used."""
        self.refusal: str | None = None
        """Why the client got no credentials when it asked for them last."""

    @property
    def place(self) -> Place:
        """Where the store is; no server is asked.

        :raises StorageDenied: there is no such profile, or what it says is invalid
        :raises MissingExtra: boto3 is needed to read the profile, and not installed
        """
        with self._lock:
            return self._place

    def credentials(self) -> CredentialProvider:
        """Return what gives the client its credentials; for `anonymous`, it is never asked.

        :raises StorageDenied: there are none, or no such profile
        :raises MissingExtra: boto3 is needed to find them, and not installed
        """
        if self._options.anonymous:
            return lambda: self._credential("", "", None)
        key, secret = _variable("AWS_ACCESS_KEY_ID"), _variable("AWS_SECRET_ACCESS_KEY")
        if key and secret and not self._options.profile:
            token = _variable("AWS_SESSION_TOKEN")
            return lambda: self._credential(key, secret, token)
        with self._lock:
            return self._credentials_of_boto3()

    # Where

    @cached_property
    def _place(self) -> Place:
        options = self._options
        region, endpoint, bundle = self._configured()
        place = Place(
            region=options.region or region or "us-east-1",
            endpoint_url=(options.endpoint_url or endpoint or "").rstrip("/") or None,
            ca_bundle=options.ca_bundle or bundle,
        )
        if not place.endpoint_url and not _REGION.fullmatch(place.region):
            raise StorageDenied(f"the region {place.region!r} is invalid", uri=self._uri)
        try:
            checked_endpoint(place.server_url)
        except ValueError as error:
            reason = f"AWS_ENDPOINT_URL, or the profile's endpoint_url: {error}"
            raise StorageDenied(reason, uri=self._uri) from None
        return place

    def _configured(self) -> tuple[str | None, str | None, str | None]:
        """Return region, endpoint and bundle, as the environment and the profile have them."""
        if self._needs_profile():
            session = self._session
            try:
                return _configured_in(session)
            except Exception as error:
                raise self._denied(error) from None
        endpoint = _variable("AWS_ENDPOINT_URL_S3") or _variable("AWS_ENDPOINT_URL")
        ignores = (_variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") or "").lower() == "true"
        region = _variable("AWS_REGION") or _variable("AWS_DEFAULT_REGION")
        return region, None if ignores else endpoint, _variable("AWS_CA_BUNDLE")

    def _needs_profile(self) -> bool:
        """Return True if the files of profiles may say what nothing before them has said.  botocore
        has to read them, and takes long to import."""
        if self._options.profile or _variable("AWS_DEFAULT_PROFILE") or _variable("AWS_PROFILE"):
            return True
        said = {
            b"endpoint": self._options.endpoint_url,
            b"region": self._options.region
            or _variable("AWS_REGION")
            or _variable("AWS_DEFAULT_REGION"),
            b"ca_bundle": self._options.ca_bundle or _variable("AWS_CA_BUNDLE"),
        }
        files = b"\n".join(map(_read, _FILES.items()))
        return any(word in files for word, value in said.items() if not value)

    # Whose

    @cached_property
    def _session(self) -> Any:
        """A session of botocore, to which an empty variable is one that is not set."""
        try:
            from botocore.session import Session
        except ModuleNotFoundError as error:
            raise MissingExtra("s3: no module named 'botocore'; try: pip install boto3") from error
        variables = Session.SESSION_VARIABLES | _REGION_VARIABLES
        return Session(
            session_vars={
                name: (key, list(filter(_variable, _names(names))), *rest)
                for name, (key, names, *rest) in variables.items()
            },
            profile=self._options.profile,
        )

    def _credentials_of_boto3(self) -> CredentialProvider:
        session = self._session
        try:
            credentials = session.get_credentials()
        except Exception as error:
            # Not from it: it comes from what quotes a line of the file, with the secret.
            raise self._denied(error) from None
        if credentials is None:
            reason = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a"
            raise StorageDenied(f"{reason} ?profile=, or say ?anonymous=true", uri=self._uri)

        def provide() -> "S3Credential":
            try:
                frozen = credentials.get_frozen_credentials()
            except Exception as error:
                self.refusal = _words(error)
                raise self._denied(error) from None
            expires = dt.datetime.now(dt.UTC) + _CREDENTIALS_LAST
            return self._credential(frozen.access_key, frozen.secret_key, frozen.token, expires)

        return provide

    def _credential(
        self, key: str, secret: str, token: str | None, expires: dt.datetime | None = None
    ) -> "S3Credential":
        for name, value in (("access key", key), ("session token", token)):
            if value and not _IN_HEADERS.fullmatch(value):
                self.refusal = f"the {name} has an invalid character in it: a line's end?"
                raise StorageDenied(f"no credentials: {self.refusal}", uri=self._uri)
        self.secrets |= {text for text in (key, secret, token) if text}
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": expires,
        }

    def _denied(self, error: Exception) -> StorageDenied:
        return StorageDenied(f"no credentials: {_words(error)}", uri=self._uri)


_FILES = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}

# The command line knows AWS_REGION, botocore does not.
_REGION_VARIABLES = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}


def _variable(name: str) -> str | None:
    return os.environ.get(name) or None


def _names(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else names or []


def _read(file: tuple[str, str]) -> bytes:
    """Return what is in a file of profiles; nothing where there is none, or no home."""
    variable, default = file
    try:
        return Path(os.path.expanduser(_variable(variable) or default)).read_bytes()
    except OSError:
        return b""


def _configured_in(session: Any) -> tuple[str | None, str | None, str | None]:
    """Return region, endpoint and bundle, as the environment and the profile have them."""
    from botocore.configprovider import ConfiguredEndpointProvider

    endpoint: str | None = None
    if not session.get_config_variable("ignore_configured_endpoint_urls"):
        endpoint = ConfiguredEndpointProvider(
            full_config=session.full_config,
            scoped_config=session.get_scoped_config(),
            client_name="s3",
            environ={name: value for name, value in os.environ.items() if value},
        ).provide()
    region, bundle = map(session.get_config_variable, ("region", "ca_bundle"))
    return region, endpoint, bundle


def _words(error: Exception) -> str:
    """Return what may be shown of an error in finding credentials."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (BotoCoreError, ClientError)):
        return " ".join(str(error).split())[:300]
    # Its text may quote what it could not read.
    kind = type(error).__name__
    return f"what was found cannot be used ({kind}); aws sts get-caller-identity may say more"
