# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A bucket of any provider, as another program sees it."""

from typing import Protocol


class BucketServer(Protocol):
    """A server that has buckets."""

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""

    def uri(self, bucket: str, prefix: str = "", **options: str) -> str:
        """Return the URI of a store there."""

    def put_object(self, bucket: str, key: str, data: bytes, encoding: str | None = None) -> None:
        """Put any object there, without a condition and without metadata.

        :param encoding: what it says of itself as its ``Content-Encoding``
        """

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete an object, if it is there."""

    def objects(self, bucket: str, text: str = "") -> dict[str, bytes]:
        """Return the objects that have this text in their keys."""


class Bucket:
    """A new bucket on a server."""

    def __init__(self, server: BucketServer) -> None:
        self.server = server
        self.name = server.new_bucket()

    def uri(self, prefix: str = "", **options: str) -> str:
        return self.server.uri(self.name, prefix, **options)

    def put(self, objects: dict[str, bytes]) -> None:
        for key, data in objects.items():
            self.server.put_object(self.name, key, data)

    def delete(self, key: str) -> None:
        self.server.delete_object(self.name, key)

    def objects(self) -> dict[str, bytes]:
        return self.server.objects(self.name)
