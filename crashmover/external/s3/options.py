# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3Options: how to reach a bucket."""

from dataclasses import dataclass
from urllib.parse import urlsplit

CHECKSUMS = {"sha256": "SHA256", "crc64nvme": "CRC64NVME", "none": None}


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


def normalized(endpoint: str) -> str:
    """Return the URL of a server as all spellings of it have it: the host in lower case, and
    without the port that is usual."""
    url = urlsplit(endpoint)
    usual = {"http": ":80", "https": ":443"}.get(url.scheme, "")
    host = url.netloc.lower().removesuffix(usual)
    return f"{url.scheme}://{host}{url.path.rstrip('/')}"
