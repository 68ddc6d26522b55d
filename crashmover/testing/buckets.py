# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What every client of a bucket promises: `BucketClientConformance`."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from typing import Any, BinaryIO

import pytest

from crashmover.crash import Kind, Part
from crashmover.errors import StorageError
from crashmover.external.bucket.client import (
    SHA256,
    BucketClient,
    ObjectChanged,
    ObjectExists,
    StoredObject,
)
from crashmover.testing.samples import CRASH_ID, NEIGHBOUR, ReadFailed, broken

KEY, OTHER = f"v1/dump/{CRASH_ID}", f"v1/dump/{NEIGHBOUR}"
LARGE = (9 << 20) + 1  # bytes: it goes up in parts
SIZES = pytest.mark.parametrize("size", [0, 1, 300_000, 2 << 20, LARGE])


def put(client: BucketClient, key: str, body: bytes | Part, **options: Any) -> str | None:
    metadata = options.pop("metadata", {})
    content_type = "application/json" if "dump_names" in key else "application/octet-stream"
    return client.put(key, body, content_type=content_type, metadata=metadata, **options)


def part_of(data: bytes, size: int | None = None) -> Part:
    def open_data() -> BinaryIO:
        return io.BytesIO(data)

    return Part(Kind.DUMP, "upload_file_minidump", open_data, size)


def stored(client: BucketClient, key: str) -> StoredObject:
    found = client.head(key)
    assert found is not None
    return found


def read(client: BucketClient, key: str) -> bytes:
    found = client.get(key)
    assert found is not None
    with found[1] as file:
        return file.read()


def _crc32c(data: bytes) -> str:
    """Return the CRC-32C in base64, which needs a library of Google's."""
    google_crc32c = pytest.importorskip("google_crc32c")
    return base64.b64encode(google_crc32c.value(data).to_bytes(4)).decode()


def listed(client: BucketClient, prefix: str, after: str = "") -> list[str]:
    return [key for page in client.list_keys(prefix, after) for key in page]


class BucketClientConformance:
    """Joins with a fixture `client` of a bucket that is empty, and says what its server honours."""

    conditions: bool = True
    """Whether the server honours `create` and `replaced`."""

    deletes_versions: bool = True
    """Whether it honours the versions that `delete` is told."""

    keeps_metadata: bool = True

    deleted_at_once: int = 1000
    """How many objects one of its requests deletes at most."""

    @pytest.fixture
    def client(self) -> Iterator[BucketClient]:
        raise NotImplementedError

    # Reading and saving

    @SIZES
    @pytest.mark.parametrize("kind", ["bytes", "part", "part of unknown size"])
    def test_bytes_out_are_bytes_in(self, client: BucketClient, size: int, kind: str) -> None:
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        body = data if kind == "bytes" else part_of(data, size if kind == "part" else None)
        sha256 = put(client, KEY, body, metadata={"raw-crash-sha256": "0" * 64})
        found = stored(client, KEY)
        assert (found.key, found.size) == (KEY, size)
        if self.keeps_metadata:
            assert found.metadata["raw-crash-sha256"] == "0" * 64
            assert found.metadata.get(SHA256) == sha256
        assert read(client, KEY) == data
        small = client.get_small(KEY)
        assert small is not None
        assert small.state == found.state
        assert small.body in (None, data)

    def test_what_is_missing_is_none(self, client: BucketClient) -> None:
        put(client, OTHER, b"other")
        assert [client.head(KEY), client.get(KEY), client.get_small(KEY)] == [None] * 3
        client.verify_access()

    def test_an_object_that_is_replaced_has_another_version(self, client: BucketClient) -> None:
        versions = set()
        for data in (b"a", b"bb", b"c"):
            put(client, KEY, data)
            versions.add(stored(client, KEY).version)
            assert stored(client, KEY).version == stored(client, KEY).version
            assert read(client, KEY) == data
        assert len(versions) == 3
        assert None not in versions

    def test_a_large_object_that_is_replaced_while_it_is_read_is_not_mixed(
        self, client: BucketClient
    ) -> None:
        old, new = bytes(LARGE), b"\1" * LARGE
        put(client, KEY, old)
        found = client.get(KEY)
        assert found is not None
        with found[1] as file:
            got = file.read(100)
            put(client, KEY, new)
            try:
                while chunk := file.read(1 << 20):
                    got += chunk
            except StorageError:
                assert old.startswith(got)
            else:
                assert got == old

    @pytest.mark.parametrize("size", [1000, LARGE])
    @pytest.mark.parametrize("announced", [True, False])
    def test_a_part_that_cannot_be_read_becomes_no_object(
        self, client: BucketClient, size: int, announced: bool
    ) -> None:
        bad = broken((Kind.DUMP, "upload_file_minidump"), bytes(size), after=size - 10)
        bad = Part(bad.kind, bad.name, bad.open, size if announced else None)
        with pytest.raises(ReadFailed):
            put(client, KEY, bad)
        assert client.head(KEY) is None

    def test_to_try_puts_nothing(self, client: BucketClient) -> None:
        client.try_put(KEY)
        assert client.head(KEY) is None
        assert list(client.list_keys("v1")) == []

    # Conditions

    def test_what_is_there_is_not_created(self, client: BucketClient) -> None:
        assert client.honours_conditions() in (None, self.conditions)
        put(client, KEY, b"first", create=True)
        if self.conditions:
            with pytest.raises(ObjectExists):
                put(client, KEY, b"second", create=True)
        else:
            put(client, KEY, b"second", create=True)
        assert read(client, KEY) == (b"first" if self.conditions else b"second")

    def test_of_many_that_create_an_object_one_does(self, client: BucketClient) -> None:
        def create(number: int) -> int | None:
            try:
                put(client, KEY, b"%d" % number, create=True)
            except ObjectExists:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(create, range(8)) if number is not None]
        assert len(winners) == (1 if self.conditions else 8)
        assert int(read(client, KEY)) in winners

    @pytest.mark.parametrize("since", ["the same", "replaced", "removed"])
    def test_what_has_changed_is_not_replaced(self, client: BucketClient, since: str) -> None:
        put(client, KEY, b"first")
        first = stored(client, KEY)
        if since == "replaced":
            put(client, KEY, b"second")
        elif since == "removed":
            client.delete({KEY: None})
        if since == "the same" or not self.conditions:
            put(client, KEY, b"third", replaced=first)
            assert read(client, KEY) == b"third"
            return
        with pytest.raises(ObjectChanged):
            put(client, KEY, b"third", replaced=first)
        assert since == "removed" or read(client, KEY) == b"second"

    # Deleting

    def test_what_is_deleted_is_gone_and_nothing_else(self, client: BucketClient) -> None:
        keys = [f"v1/dump/{CRASH_ID}", f"v1/minidump/{CRASH_ID}", f"v1/dump_names/{CRASH_ID}"]
        for key in [*keys, OTHER]:
            put(client, key, b"x")
        versions = {keys[0]: None, keys[1]: stored(client, keys[1]).version}
        assert client.delete({**versions, f"v1/missing/{CRASH_ID}": None}) == []
        assert [key for key in [*keys, OTHER] if client.head(key)] == [keys[2], OTHER]
        assert client.delete(dict.fromkeys(keys)) == []
        assert client.delete({keys[0]: "a version of what is missing"}) == []
        assert client.delete({}) == []
        assert client.head(OTHER)

    def test_what_has_changed_is_not_deleted(self, client: BucketClient) -> None:
        for key in (KEY, OTHER):
            put(client, key, b"first")
        versions = {key: stored(client, key).version for key in (KEY, OTHER)}
        put(client, KEY, b"second")
        left = [KEY] if self.deletes_versions else []
        assert client.delete(versions) == left
        assert [key for key in (KEY, OTHER) if client.head(key)] == left

    def test_more_than_a_request_holds_is_deleted(self, client: BucketClient) -> None:
        put(client, KEY, b"x")
        count = self.deleted_at_once * 3 // 2 + 1
        missing = {f"v1/dump/{number:08x}{CRASH_ID[8:]}": None for number in range(count)}
        assert client.delete({**missing, KEY: None}) == []
        assert client.head(KEY) is None

    # Listing

    def test_keys_are_listed_in_order_below_whole_steps(self, client: BucketClient) -> None:
        keys = [f"v1/dump/{number:08x}{CRASH_ID[8:]}" for number in (3, 1, 2)]
        for key in [*keys, f"v1/dump_names/{CRASH_ID}", f"v2/dump/{CRASH_ID}"]:
            put(client, key, b"x")
        assert listed(client, "v1/dump") == sorted(keys)
        assert listed(client, "v1/dump", sorted(keys)[0]) == sorted(keys)[1:]
        assert listed(client, "v1/dump", "v1/dump/0") == sorted(keys)
        assert list(client.list_keys("v1/nothing")) == []
        assert client.list_directory("v1") == (["dump", "dump_names"], [])
        directories, names = client.list_directory("v1/dump")
        assert (directories, sorted(names)) == ([], [key[8:] for key in sorted(keys)])
        assert client.list_directory("v1/nothing") == ([], [])

    def test_an_object_is_listed_with_its_size(self, client: BucketClient) -> None:
        bodies = {OTHER: b"", KEY: b"a body", f"v1/dump_names/{CRASH_ID}": b"[]"}
        for key, data in bodies.items():
            put(client, key, data)
        for directory in ("v1/dump", "v1/dump_names"):
            found = [each for page in client.list_objects(directory) for each in page]
            assert [key for key, _, _ in found] == listed(client, directory)
            for key, size, checksum in found:
                assert size == len(bodies[key])
                assert checksum in ("", md5(bodies[key]).hexdigest(), _crc32c(bodies[key]))
        put(client, KEY, bytes(LARGE))
        [page] = client.list_objects("v1/dump")
        assert {key: size for key, size, _ in page} == {KEY: LARGE, OTHER: 0}
        [page] = client.list_objects("v1/dump", min(KEY, OTHER))
        assert [key for key, _, _ in page] == [max(KEY, OTHER)]

    def test_where_a_key_is_begins_with_where_the_bucket_is(self, client: BucketClient) -> None:
        assert client.location(KEY) == client.location("") + KEY
        assert "://" in client.location("")
