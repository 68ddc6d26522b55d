# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Signatures of requests to S3: those that botocore would make."""

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from crashmover.external.s3.signing import signed_headers

if TYPE_CHECKING:
    from obstore.store import S3Credential

TIME = dt.datetime(2026, 11, 29, 0, 30, 7, tzinfo=dt.UTC)
SERVERS = (
    "http://127.0.0.1:8080",
    "http://[::1]:8080",
    "http://LocalHost:8080",
    "https://bucket.s3.eu-west-1.amazonaws.com",
    "https://bucket.s3.amazonaws.com:443",
    "http://storage.example:80",
    "https://storage.example:80",
)

texts = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20)
queries = st.dictionaries(
    st.sampled_from(["uploads", "uploadId", "partNumber", "prefix", "start-after", "versioning"]),
    st.text(max_size=20),
    max_size=4,
)
headers = st.dictionaries(
    st.sampled_from(["Content-Type", "If-Match", "x-amz-meta-sha256", "x-amz-request-payer"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)


def as_botocore(url: str, method: str, said: dict[str, str], token: str | None) -> dict[str, Any]:
    """Return the headers that botocore gives this request."""
    request = AWSRequest(method, url, headers=said)
    signer = S3SigV4Auth(Credentials("AKIA123", "se/cret+", token), "s3", "eu-west-1")
    signer.payload = lambda _: hashlib.sha256(b"body").hexdigest()
    with patch("botocore.auth.get_current_datetime", return_value=TIME):
        signer.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize("server", SERVERS)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    steps=st.lists(texts, max_size=4),
    query=queries,
    said=headers,
    token=st.none() | st.just("to/ken=="),
)
def test_a_signature_is_that_of_botocore(
    server: str,
    method: str,
    steps: list[str],
    query: dict[str, str],
    said: dict[str, str],
    token: str | None,
) -> None:
    url = f"{server}/{quote('/'.join(steps), safe='/-_.~')}"
    if query:
        url += f"?{urlencode(query, quote_via=quote, safe='-_.~')}"
    credentials: S3Credential = {
        "access_key_id": "AKIA123",
        "secret_access_key": "se/cret+",
        "expires_at": None,
    }
    if token:
        credentials["token"] = token
    ours = signed_headers(
        method,
        url,
        said,
        hashlib.sha256(b"body").hexdigest(),
        credentials=credentials,
        region="eu-west-1",
        time=TIME,
    )
    lowered = {name.lower(): value for name, value in ours.items()}
    assert lowered == as_botocore(url, method, said, token)
