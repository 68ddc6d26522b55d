# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Every promise of a store, tried on this one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover import CrashStorageBase, open_storage
from crashmover.testing import StorageConformance


class TestSQLite(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[CrashStorageBase]:
        with open_storage(f"sqlite://{tmp_path}/crashes.db") as storage:
            yield storage
