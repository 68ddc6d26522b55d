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


class TestPoly(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[CrashStorageBase]:
        children = [FSPermanentStorage(tmp_path / "a"), InMemoryCrashStorage()]
        with PolyCrashStorage(children) as storage:
            yield storage


class TestNestedPoly(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[CrashStorageBase]:
        inner = PolyCrashStorage([InMemoryCrashStorage(), FSPermanentStorage(tmp_path / "a")])
        outer = [PolyCrashStorage([inner, InMemoryCrashStorage()])]
        with PolyCrashStorage([*outer, FSPermanentStorage(tmp_path / "b")]) as storage:
            yield storage
