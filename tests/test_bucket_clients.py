# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The clients of buckets, on servers and in memory."""

from collections.abc import Iterator

import pytest

from crashmover.external.bucket.client import BucketClient
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import (
    BucketClientConformance,
    DistinctConformance,
    StorageConformance,
)
from tests.bucket_in_memory import Bucket, InMemoryBucketCrashStorage, open_bucket
from tests.conftest import UseAWS
from tests.servers.gcs import FakeGCS
from tests.servers.s3 import S3Server
from tests.strict_gcs import StrictGCS


def client_of(server: S3Server, prefix: str = "") -> BucketClient:
    storage = open_storage(server.uri(server.new_bucket(), prefix))
    assert isinstance(storage, BucketCrashStorage)
    return storage._client


class TestClientOfStrictServer(BucketClientConformance):
    @pytest.fixture
    def client(self, s3_strict: S3Server, aws: UseAWS) -> Iterator[BucketClient]:
        yield client_of(aws(s3_strict), "a prefix/b")


class TestClientOfMoto(BucketClientConformance):
    """Which honours the version of one object to delete, and of many none."""

    @pytest.fixture
    def client(self, s3_moto: S3Server, aws: UseAWS) -> Iterator[BucketClient]:
        yield client_of(aws(s3_moto))

    @pytest.mark.slow
    def test_more_than_a_request_holds_is_deleted(self, client: BucketClient) -> None:
        super().test_more_than_a_request_holds_is_deleted(client)


class TestClientOfServerWithoutConditions(BucketClientConformance):
    conditions = deletes_versions = False

    @pytest.fixture
    def client(self, s3_signed: S3Server, aws: UseAWS) -> Iterator[BucketClient]:
        yield client_of(aws(s3_signed))


@pytest.mark.parametrize("deletes_versions", [True, False])
@pytest.mark.parametrize("create", ["amazon", "honours", "ignores"])
class TestClientInMemory(BucketClientConformance):
    @pytest.fixture
    def client(self, create: str, deletes_versions: bool) -> Iterator[BucketClient]:
        self.conditions = create != "ignores"
        self.deletes_versions = deletes_versions
        yield Bucket(create, deletes_versions=deletes_versions)


class TestStoreOverAnyClient(StorageConformance):
    """What the store promises, it promises over every client that keeps the promises above."""

    @pytest.fixture(params=["amazon", "honours", "ignores"])
    def storage(self, request: pytest.FixtureRequest) -> CrashStorageBase:
        return open_bucket(Bucket(request.param))


class TestClientOfGCS(BucketClientConformance):
    """Whatever the server sends along with an object's bytes."""

    deleted_at_once = 1

    @pytest.fixture(params=["with metadata", "without metadata", "none"])
    def client(self, request: pytest.FixtureRequest, gcs: StrictGCS) -> Iterator[BucketClient]:
        gcs.xml = request.param
        yield gcs_client(gcs.uri(gcs.new_bucket(), "a prefix/b"))


class TestClientOfFakeGCS(BucketClientConformance):
    """fake-gcs-server honours no generation where an object is deleted."""

    deletes_versions = False
    deleted_at_once = 1

    @pytest.fixture
    def client(self, fake_gcs: FakeGCS) -> Iterator[BucketClient]:
        yield gcs_client(fake_gcs.uri(fake_gcs.new_bucket()))


def gcs_client(uri: str) -> BucketClient:
    storage = open_storage(uri)
    assert isinstance(storage, BucketCrashStorage)
    return storage._client


class OtherProvider(InMemoryBucketCrashStorage):
    """Reaches the same buckets, and calls them by other names."""

    def identity(self) -> object:
        return "other", self.uri


class TestOneBucketByTwoProviders(DistinctConformance):
    """As Google's buckets are reached by S3's way, too."""

    @pytest.fixture
    def bucket(self) -> Bucket:
        return Bucket()

    @pytest.fixture
    def storage(self, bucket: Bucket) -> CrashStorageBase:
        return open_bucket(bucket)

    @pytest.fixture
    def same_storage(self, bucket: Bucket) -> CrashStorageBase:
        return OtherProvider(bucket)

    @pytest.fixture
    def other_storage(self) -> CrashStorageBase:
        bucket = Bucket()
        bucket.uri = "s3://other"
        return OtherProvider(bucket)
