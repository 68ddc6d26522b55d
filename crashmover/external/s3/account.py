# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Account: whose credentials a store uses, and what else a profile or the environment says."""

import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crashmover.errors import MissingExtra, StorageDenied
from crashmover.external.s3.options import S3Options

if TYPE_CHECKING:
    from obstore.store import S3Credential

_IN_HEADERS = re.compile(r"[\x20-\x7e]+")
_CREDENTIALS_LAST = dt.timedelta(minutes=5)  # botocore renews them at least ten minutes ahead


@dataclass(frozen=True)
class Account:
    """What a profile or the environment says."""

    region: str | None
    endpoint_url: str | None
    credentials: "Callable[[], S3Credential] | None"


class Accounts:
    """Finds the account of a store.

    :param options: how to reach the bucket
    :param uri: what messages call the store
    """

    def __init__(self, options: S3Options, uri: str) -> None:
        self.options = options
        self.uri = uri
        self.secrets: set[str] = set()
        self.refusal: StorageDenied | None = None

    def find(self) -> Account:
        environment = os.environ
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        endpoint = endpoint_of_environment(self.options)
        is_amazons = not endpoint and not may_have_endpoint(self.options.profile)
        # Servers of other makers take any region, Amazon's only the right one.
        known = bool(endpoint or (is_amazons and (self.options.region or region)))
        profile = self.options.profile or environment.get("AWS_PROFILE")
        if self.options.anonymous and known:
            return Account(region, None, None)
        key, secret = _environment("ACCESS_KEY_ID"), _environment("SECRET_ACCESS_KEY")
        if key and secret and known and not profile:
            token = _environment("SESSION_TOKEN")
            return Account(region, None, lambda: self._credential(key, secret, token))
        return self._account_of_boto3()

    def _account_of_boto3(self) -> Account:
        try:
            import boto3
            import botocore.exceptions
        except ModuleNotFoundError as error:
            raise MissingExtra("s3: no module named 'boto3'; try: pip install boto3") from error
        try:
            session = boto3.Session(profile_name=self.options.profile)
            endpoint = endpoint_of(session)
            if self.options.anonymous:
                return Account(session.region_name, endpoint, None)
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
                self.refusal = self._denied(error)
                raise
            expires = dt.datetime.now(dt.UTC) + _CREDENTIALS_LAST
            return self._credential(frozen.access_key, frozen.secret_key, frozen.token, expires)

        return Account(session.region_name, endpoint, provide)

    def _credential(
        self, key: str, secret: str, token: str | None, expires: dt.datetime | None = None
    ) -> "S3Credential":
        for name, value in (("access key", key), ("session token", token)):
            if value and not _IN_HEADERS.fullmatch(value):
                reason = f"the {name} has a character in it that none can have: a line's end?"
                self.refusal = StorageDenied(f"no credentials: {reason}", uri=self.uri)
                raise self.refusal
        self.secrets |= {text for text in (key, secret, token) if text}
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": expires,
        }

    def _denied(self, error: Exception) -> StorageDenied:
        text = " ".join(str(error).split())
        return StorageDenied(f"no credentials: {text[:300]}", uri=self.uri)


def endpoint_of_environment(options: S3Options, of_profile: str | None = None) -> str | None:
    """Return the URL of the server: the URI's, the environment's or the profile's."""
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = options.endpoint_url or environment or of_profile
    return endpoint.rstrip("/") if endpoint else None


def may_have_endpoint(profile: str | None) -> bool:
    """Whether a profile has to be asked for an endpoint: by boto3, which takes long to import."""
    file = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    try:
        return bool(profile or os.environ.get("AWS_PROFILE")) or b"endpoint" in file.read_bytes()
    except OSError:
        return False


def _environment(name: str) -> str | None:
    return os.environ.get(f"AWS_{name}") or None


def endpoint_of(session: Any) -> str | None:
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
