# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of knowing itself: by that, no store is moved onto itself."""

import copy

import pytest

from crashmover.crash import MARKERS
from crashmover.engine.distinct import require_two_stores
from crashmover.engine.mover import Existing, Mover
from crashmover.errors import NotTwoStores
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.retry import RetryPolicy
from crashmover.testing.samples import CRASH_ID, contents, crash_of, read


class SamenessConformance:
    """Knowing itself, by any object that stands for it."""

    def test_it_knows_itself_by_a_second_object(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents()))
        for store in storage.stores:
            again = copy.copy(store)
            assert again.is_same_store(store, probe=True) is True
            assert store.is_same_store(again, probe=True) is True
            assert store.is_same_store(again) is not False
        assert read(storage) == contents()
        _assert_only_one_crash(storage)


class DistinctConformance:
    """Being told from other stores of the same class.

    Give it three fixtures: `storage`, `same_storage` (the same store, best under another name)
    and `other_storage` (another store of the class).
    """

    def test_it_is_the_same_by_another_name_and_another_is_not(
        self,
        storage: CrashStorageBase,
        same_storage: CrashStorageBase,
        other_storage: CrashStorageBase,
    ) -> None:
        for store in (storage, other_storage):
            store.save_crash(crash_of(contents()))
        for one, other in ((storage, same_storage), (same_storage, storage)):
            assert one.is_same_store(other, probe=True) is True
        for one, other in ((storage, other_storage), (other_storage, same_storage)):
            assert one.is_same_store(other) is not True
            assert one.is_same_store(other, probe=True) is False
        _assert_only_one_crash(storage)
        _assert_only_one_crash(other_storage)

    def test_it_is_not_moved_onto_itself(
        self, storage: CrashStorageBase, same_storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        for existing in Existing:
            with pytest.raises(NotTwoStores, match="the same store"):
                list(
                    Mover(
                        storage, same_storage, existing=existing, verify=True, remove_source=True
                    ).run([CRASH_ID])
                )
        assert read(storage) == contents()
        _assert_only_one_crash(storage)

    def test_it_is_moved_to_another(
        self, storage: CrashStorageBase, other_storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        [outcome] = Mover(storage, other_storage, verify=True, remove_source=True).run([CRASH_ID])
        assert outcome.error is None
        assert read(other_storage) == contents()
        assert not storage.has_crash(CRASH_ID)

    def test_a_dry_run_writes_no_mark(
        self, storage: CrashStorageBase, other_storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(contents()))
        require_two_stores(storage, [other_storage], dry_run=True, retry=RetryPolicy())
        _assert_only_one_crash(storage)
        assert list(other_storage.new_crashes()) == []


def _assert_only_one_crash(storage: CrashStorageBase) -> None:
    for kind in MARKERS:
        assert list(storage.new_crashes(kind=kind)) == [CRASH_ID]
