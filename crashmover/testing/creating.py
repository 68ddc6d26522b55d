# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a store promises of saving without replacing: `create_crashes`."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from crashmover.crash import Crash
from crashmover.errors import (
    CrashExists,
    CrashIDNotFound,
    PolyCrashStorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing.samples import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
    with_broken,
    without,
)


def only(error: Exception | None, *kinds: type[Exception]) -> bool:
    """Whether that is what was raised, by each store of several that raised something."""
    if isinstance(error, PolyCrashStorageError):
        return all(only(each, *kinds) for each in error.exceptions)
    return isinstance(error, kinds)


class CreatingConformance:
    """Creating a crash where there is none, and only there."""

    def test_what_is_not_there_is_created(self, storage: CrashStorageBase) -> None:
        ids = [CRASH_ID, NEIGHBOUR]
        crashes = [crash_of(contents(crash_id), crash_id) for crash_id in ids]
        assert storage.create_crashes(crashes) == [None, None]
        for crash_id in ids:
            assert read(storage, crash_id) == contents(crash_id)

    def test_what_is_there_is_not_replaced(self, storage: CrashStorageBase) -> None:
        storage.save_crash(crash_of(contents("a")))
        for other in (contents("a"), contents("b"), {RAW: b"{}"}):
            news = [crash_of(other), crash_of(contents(), NEIGHBOUR)]
            exists, saved = storage.create_crashes(news)
            assert only(exists, CrashExists)
            assert saved is None
            storage.remove(NEIGHBOUR)
            assert read(storage) == contents("a")

    def test_of_two_by_one_id_in_a_batch_the_first_is_created(
        self, storage: CrashStorageBase
    ) -> None:
        saved, exists = storage.create_crashes([crash_of(contents(each)) for each in "ab"])
        assert saved is None
        assert only(exists, CrashExists)
        assert read(storage) == contents("a")

    def test_dumps_alone_are_created_beside_those_that_are_there(
        self, storage: CrashStorageBase
    ) -> None:
        storage.save_crash(crash_of(without(contents(), BROWSER, PROCESSED)))
        [exists] = storage.create_crashes([crash_of({BROWSER: b"late", MAIN: b"another"})])
        assert only(exists, CrashExists)
        assert read(storage) == without(contents(), BROWSER, PROCESSED)
        assert storage.create_crashes([crash_of({BROWSER: b"late"})]) == [None]
        assert read(storage) == without(contents(), PROCESSED) | {BROWSER: b"late"}
        [not_found] = storage.create_crashes([crash_of({MAIN: b"lost"}, NEIGHBOUR)])
        assert only(not_found, CrashIDNotFound)

    def test_a_processed_crash_is_replaced_all_the_same(self, storage: CrashStorageBase) -> None:
        for data in (b'{"a": 1}', b'{"b": 2}'):
            assert storage.create_crashes([crash_of({PROCESSED: data})]) == [None]
            assert storage.get_processed(CRASH_ID) is not None
        new = without(contents(), PROCESSED) | {PROCESSED: b'{"c": 3}'}
        assert storage.create_crashes([crash_of(new)]) == [None]
        assert read(storage) == new

    def test_a_crash_that_could_not_be_created_can_be_created_later(
        self, storage: CrashStorageBase
    ) -> None:
        for bad in contents():
            [failed] = storage.create_crashes([with_broken(contents(), bad, 5)])
            assert failed is not None
            assert not only(failed, CrashExists)
            assert not storage.has_crash(CRASH_ID)
        assert storage.create_crashes([crash_of(contents())]) == [None]
        assert read(storage) == contents()

    def test_of_many_that_create_one_crash_one_does(self, storage: CrashStorageBase) -> None:
        states = [without(contents(version), PROCESSED) for version in "abcdefgh"]

        def create(state: Contents) -> Exception | None:
            [result] = storage.create_crashes([crash_of(state)])
            return result

        with ThreadPoolExecutor(len(states)) as pool:
            results = list(pool.map(create, states))
        assert all(r is None or only(r, CrashExists, StorageUnavailable) for r in results)
        winners = [state for state, result in zip(states, results, strict=True) if result is None]
        found = [read(store) for store in storage.stores]
        if len(found) == 1:  # of several, each may have been won by another
            assert winners == found
        assert all(state in states for state in found)

    def test_a_crash_of_nothing_is_not_created(self, storage: CrashStorageBase) -> None:
        [error] = storage.create_crashes([Crash(CRASH_ID, [])])
        assert error is not None
        assert storage.create_crashes([]) == []
        with pytest.raises(CrashIDNotFound):
            storage.remove(CRASH_ID)
