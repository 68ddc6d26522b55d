# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A crash that is replaced by one with the very same raw crash and other dumps while somebody is
in the middle of reading it: a reader gets the one or the other, never some of both."""

import re
from collections.abc import Callable, Iterator, Sequence, Set

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind, Part
from crashmover.engine.mover import Mover, Status
from crashmover.errors import StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs import durable
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    Contents,
    contents,
    crash_of,
    observed,
    read,
)
from tests.conftest import Figures, directory_on, new_uri
from tests.grounds import FILE_SYSTEMS, STORE, FileSystem

OLD = contents("a")
NEW = contents("a") | {MAIN: b"MDMP another", BROWSER: b"another" * 200}


def file_system(request: pytest.FixtureRequest) -> str:
    return f"fs://{request.getfixturevalue('tmp_path')}/store"


def file_system_by_path(request: pytest.FixtureRequest) -> str:
    """Where no directory is held open for whoever reads the crash."""
    request.getfixturevalue("monkeypatch").setattr(durable, "MOST_HELD", 0)
    return file_system(request)


def s3_strict(request: pytest.FixtureRequest) -> str:
    return new_uri(request, "s3_strict")


def s3_signed(request: pytest.FixtureRequest) -> str:
    return new_uri(request, "s3_signed")


def gs(request: pytest.FixtureRequest) -> str:
    return new_uri(request, "fake_gcs")


def postgresql(request: pytest.FixtureRequest) -> str:
    return new_uri(request, "postgresql")


def at(ground: FileSystem) -> Callable[[pytest.FixtureRequest], str]:
    return lambda request: f"fs://{directory_on(ground, request)}/{STORE}"


QUICK = (file_system, file_system_by_path, s3_signed)


@pytest.fixture(
    params=[
        *(
            pytest.param(make, id=make.__name__, marks=[] if make in QUICK else pytest.mark.slow)
            for make in (*QUICK, s3_strict, gs, postgresql)
        ),
        *(pytest.param(at(each), id=each.name, marks=pytest.mark.slow) for each in FILE_SYSTEMS),
    ]
)
def uri(request: pytest.FixtureRequest) -> str:
    """A store that has the crash."""
    made: str = request.param(request)
    with open_storage(made) as storage:
        storage.save_crash(crash_of(OLD))
    return made


@pytest.fixture
def storage(uri: str) -> Iterator[CrashStorageBase]:
    with open_storage(uri) as storage:
        yield storage


def put(uri: str, parts: Contents) -> None:
    with open_storage(uri) as other:
        other.save_crash(crash_of(parts))


def put_new(uri: str) -> None:
    put(uri, NEW)


@pytest.mark.parametrize(("first", "second"), [(MAIN, BROWSER), (BROWSER, MAIN)])
def test_a_dump_of_another_save_is_not_read_with_the_first(
    uri: str,
    storage: CrashStorageBase,
    figures: Figures,
    first: tuple[Kind, str],
    second: tuple[Kind, str],
) -> None:
    parts = {part.key: part for part in storage.load_crash(CRASH_ID).parts}
    assert parts[first].read() == OLD[first]
    put_new(uri)
    with pytest.raises(StorageUnavailable, match="replaced or removed"):
        parts[second].read()
    assert read(storage) == NEW
    figures(races=1)


def test_a_copy_brings_the_one_or_the_other(
    uri: str, storage: CrashStorageBase, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its first dump has been read, the crash is replaced."""
    load, left = storage.load_crashes, [put_new]

    def then_replace(part: Part) -> Part:
        data = part.read()

        def replace() -> None:
            while left:
                left.pop()(uri)

        return observed(part.key, data, replace)

    def load_crashes(
        crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
    ) -> Iterator[Crash | Exception]:
        for crash in load(crash_ids, kinds):
            assert isinstance(crash, Crash)
            [first, *others] = crash.dumps
            rest = [part for part in crash.parts if part.kind is not Kind.DUMP]
            yield Crash(crash.crash_id, [*rest, then_replace(first) if left else first, *others])

    monkeypatch.setattr(storage, "load_crashes", load_crashes)
    destination = InMemoryCrashStorage()
    [outcome] = Mover(storage, destination, retry=RetryPolicy(wait=0, wait_max=0)).run([CRASH_ID])
    assert not left
    assert outcome.status is Status.COPIED
    assert read(destination) == NEW
    figures(races=1)


LARGE = b"MDMP" + bytes(9 << 20)
"""A dump that goes up in parts, of which the raw crash has no mark."""


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param(OLD | {MAIN: LARGE}, OLD | {MAIN: LARGE[::-1]}, id="large"),
        pytest.param(OLD, {MAIN: OLD[MAIN][::-1]}, id="added"),
    ],
)
def test_a_dump_that_was_replaced_alone_is_not_removed_as_if_it_were_the_one_that_was_copied(
    uri: str, storage: CrashStorageBase, figures: Figures, before: Contents, change: Contents
) -> None:
    """The raw crash says nothing of it."""
    put(uri, before)

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            super().save_crash(crash)
            put(uri, change)

    destination = Slow()
    [outcome] = Mover(storage, destination, remove_source=True).run([CRASH_ID])
    assert re.search("copied, not removed: .* is not what was loaded", str(outcome.error))
    assert (read(destination), read(storage)) == (before, before | change)
    figures(races=1)


def test_a_dump_is_the_same_for_all_who_read_it(uri: str, storage: CrashStorageBase) -> None:
    """Or else one destination might get the one, and another the other."""
    put(uri, OLD)
    crash = storage.load_crash(CRASH_ID)
    [dump] = [part for part in crash.parts if part.key == MAIN]
    assert dump.read() == dump.read() == OLD[MAIN]
    put(uri, {MAIN: OLD[MAIN][::-1]})
    with pytest.raises(StorageUnavailable, match="replaced or removed"):
        dump.read()


def test_what_replaces_a_crash_that_was_copied_is_not_removed_as_if_it_were_that(
    uri: str, storage: CrashStorageBase, figures: Figures
) -> None:
    """Though no size tells them apart."""
    another = {key: data[::-1] for key, data in OLD.items()}

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            super().save_crash(crash)
            put(uri, another)

    destination = Slow()
    [outcome] = Mover(storage, destination, remove_source=True).run([CRASH_ID])
    assert outcome.status is Status.FAILED
    assert re.search("copied, not removed: .* is not what was loaded", str(outcome.error))
    assert (read(destination), read(storage)) == (OLD, another)
    figures(races=1)
