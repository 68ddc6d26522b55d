# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The conformance suite over every store, and every nesting of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover import registry
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.testing import StorageConformance
from crashmover.testing.creating import CreatingConformance
from crashmover.testing.keeping import KeepingConformance
from crashmover.testing.removing import RemovingConformance
from tests.conftest import UseAWS
from tests.servers.gcs import FakeGCS
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server
from tests.strict_gcs import StrictGCS


class TestInMemory(StorageConformance):
    @pytest.fixture
    def storage(self) -> Iterator[CrashStorageBase]:
        with InMemoryCrashStorage() as storage:
            yield storage


class TestFileSystem(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[CrashStorageBase]:
        with FSPermanentStorage(tmp_path / "not" / "there" / "yet") as storage:
            yield storage


class TestFileSystemByOptions(StorageConformance):
    """With every name in the layout another than usual."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[CrashStorageBase]:
        uri = (
            f"fs://{tmp_path}/crashes?umask=077&name_branch_base=date&json_file_suffix=.raw"
            "&jsonz_file_suffix=.processed&dump_file_suffix=.mini&dump_field=memory_report"
        )
        with registry.open_storage(uri) as storage:
            yield storage


class TestS3(StorageConformance):
    """On a server that knows conditions."""

    @pytest.fixture
    def storage(self, s3_strict: S3Server, aws: UseAWS) -> Iterator[CrashStorageBase]:
        aws(s3_strict)
        with registry.open_storage(s3_strict.uri(s3_strict.new_bucket())) as storage:
            yield storage


class TestS3WithoutConditions(StorageConformance):
    @pytest.fixture
    def storage(self, s3_signed: S3Server, aws: UseAWS) -> Iterator[CrashStorageBase]:
        aws(s3_signed)
        uri = s3_signed.uri(s3_signed.new_bucket(), "a/prefix", checksum="none")
        with registry.open_storage(uri) as storage:
            yield storage


class TestGCS(StorageConformance):
    """On a server that holds every generation."""

    @pytest.fixture
    def storage(self, gcs: StrictGCS) -> Iterator[CrashStorageBase]:
        with registry.open_storage(gcs.uri(gcs.new_bucket(), "a/prefix")) as storage:
            yield storage


@pytest.mark.slow
class TestGCSWithoutMetadata(StorageConformance):
    """On servers that send no metadata along with an object's bytes, or have no XML API."""

    @pytest.fixture(params=["without metadata", "none"])
    def storage(self, request: pytest.FixtureRequest, gcs: StrictGCS) -> Iterator[CrashStorageBase]:
        gcs.xml = request.param
        with registry.open_storage(gcs.uri(gcs.new_bucket())) as storage:
            yield storage


@pytest.mark.slow
class TestFakeGCS(StorageConformance):
    @pytest.fixture
    def storage(self, fake_gcs: FakeGCS) -> Iterator[CrashStorageBase]:
        with registry.open_storage(fake_gcs.uri(fake_gcs.new_bucket())) as storage:
            yield storage


class TestPostgreSQL(StorageConformance):
    @pytest.fixture
    def storage(self, each_postgresql: PostgreSQL) -> Iterator[CrashStorageBase]:
        uri = each_postgresql.uri(schema=each_postgresql.new_name())
        with registry.open_storage(uri) as storage:
            yield storage


class TestPoly(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[CrashStorageBase]:
        children = [FSPermanentStorage(tmp_path / "a"), InMemoryCrashStorage()]
        with PolyCrashStorage(children) as storage:
            yield storage


class _Nested:
    """Every store, as deep as they go."""

    @pytest.fixture
    def storage(
        self, tmp_path: Path, s3_signed: S3Server, aws: UseAWS, postgresql_server: PostgreSQL
    ) -> Iterator[CrashStorageBase]:
        aws(s3_signed)
        database = postgresql_server.uri(schema=postgresql_server.new_name())
        bucket = s3_signed.uri(s3_signed.new_bucket())
        inner = PolyCrashStorage([InMemoryCrashStorage(), registry.open_storage(database)])
        middle = PolyCrashStorage([FSPermanentStorage(tmp_path / "a"), inner])
        outer = [PolyCrashStorage([middle, registry.open_storage(bucket)])]
        with PolyCrashStorage([*outer, FSPermanentStorage(tmp_path / "b")]) as storage:
            yield storage


class TestNestedPolyQuickly(_Nested, CreatingConformance, RemovingConformance, KeepingConformance):
    """What a poly itself makes of its stores' answers; all else they answer by themselves."""


@pytest.mark.slow
class TestNestedPoly(_Nested, StorageConformance):
    pass
