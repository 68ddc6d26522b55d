# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""That source and destination are two is proved before anything is saved or removed: for stores of
every class, in every way to move crashes."""

import datetime as dt
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from crashmover import open_queue
from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.mover import Mover
from crashmover.errors import NotTwoStores, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.roles import Store
from crashmover.testing import CRASH_ID, DistinctConformance, contents, crash_of, read
from crashmover.uri import StorageURI
from tests.cli_helpers import assert_refused, put, run, samples, stored

CRASHES = samples(6)
MOVE = ("--verify", "--remove-source")


class Wrapper(CrashStorageBase):
    """A stranger's store that passes everything on to another, and knows nothing of proofs."""

    def __init__(self, inner: CrashStorageBase) -> None:
        self.inner = inner
        self.uri = "wrapper:"

    @classmethod
    def from_uri(cls, uri: StorageURI) -> "Wrapper":
        raise NotImplementedError

    def identity(self) -> object:
        return self.uri, self.inner.identity()

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        return self.inner.load_crash(crash_id, kinds)

    def save_crash(self, crash: Crash) -> None:
        self.inner.save_crash(crash)

    def remove(self, crash_id: str) -> None:
        self.inner.remove(crash_id)

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        return self.inner.new_crashes(since, until, kind)


class ProvingWrapper(Wrapper):
    """One whose author has written the proof."""

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        inner = other.inner if isinstance(other, Wrapper) else other
        return self.inner.is_same_store(inner, probe=probe)


def filled() -> InMemoryCrashStorage:
    storage = InMemoryCrashStorage()
    storage.save_crash(crash_of(contents()))
    return storage


def move(source: CrashStorageBase, destination: CrashStorageBase) -> None:
    """As a Python user does who asks for nothing beforehand."""
    list(Mover(source, destination, verify=True, remove_source=True).run([CRASH_ID]))


def test_a_store_whose_class_proves_nothing_is_not_moved(tmp_path: Path) -> None:
    inner = filled()
    directory = FSPermanentStorage(tmp_path)
    for source, destination in (
        (inner, Wrapper(inner)),
        (Wrapper(inner), inner),
        (Wrapper(inner), Wrapper(InMemoryCrashStorage())),
        (Wrapper(inner), directory),
    ):
        with pytest.raises(NotTwoStores, match=r"class Wrapper has no method is_same_store\(\)"):
            move(source, destination)
        with pytest.raises(NotTwoStores, match="cannot be proved"):
            Mover(source, destination, remove_source=True, dry_run=True).verify_access()
    assert read(inner) == contents()
    assert list(directory.new_crashes()) == []
    [outcome] = Mover(Wrapper(inner), directory).run([CRASH_ID])
    assert outcome.error is None


def test_a_store_whose_class_proves_it_is_moved() -> None:
    inner = filled()
    for source, destination in (
        (inner, ProvingWrapper(inner)),
        (ProvingWrapper(inner), inner),
        (ProvingWrapper(inner), ProvingWrapper(inner)),
        (inner, PolyCrashStorage([InMemoryCrashStorage(), PolyCrashStorage([Wrapper(inner)])])),
        (inner, PolyCrashStorage([InMemoryCrashStorage(), PolyCrashStorage([inner])])),
    ):
        with pytest.raises(NotTwoStores):
            move(source, destination)
        assert read(inner) == contents()
    other = InMemoryCrashStorage()
    move(ProvingWrapper(inner), ProvingWrapper(other))
    assert read(other) == contents()
    assert list(inner.new_crashes()) == []


def test_no_way_to_use_a_mover_passes_by_the_proof(tmp_path: Path) -> None:
    one, link = FSPermanentStorage(tmp_path / "one"), FSPermanentStorage(tmp_path / "link")
    mover = Mover(one, link, verify=True, remove_source=True)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    one.save_crash(crash_of(contents()))
    with pytest.raises(NotTwoStores, match="the same store"):
        mover.verify_access()
    for _ in range(2):
        with pytest.raises(NotTwoStores, match="the same store"):
            list(mover.run(one.new_crashes()))
    with mover, pytest.raises(NotTwoStores):
        next(mover.run([CRASH_ID]))
    assert read(one) == contents()


def test_a_proof_that_fails_in_passing_is_tried_again() -> None:
    class Flaky(InMemoryCrashStorage):
        times = 2

        def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
            self.times -= 1
            if self.times >= 0:
                raise StorageUnavailable("connection refused", uri="memory:flaky")
            return super().is_same_store(other, probe=probe)

    source, destination = Flaky(), InMemoryCrashStorage()
    source.save_crash(crash_of(contents()))
    move(source, destination)
    assert read(destination) == contents()


def test_a_queue_keeps_its_ids_where_a_move_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "source", *CRASHES)
    (tmp_path / "link").symlink_to(source)
    before = stored(source)
    uri = f"sqlite:{tmp_path}/queue.db"
    ids = sorted(crash.crash_id for crash in CRASHES)
    with open_queue(uri) as queue:
        queue.create()
        queue.publish("standard", ids)
    report = tmp_path / "report.jsonl"
    report.write_text("the last run's\n")
    config = tmp_path / "crashmover.toml"
    config.write_text(f'[storage]\none = "fs://{source}"\nother = "fs://{tmp_path}/link"\n')
    args = ("copy", "-s", "one", "-d", "other", "-q", uri, *MOVE, "--report", report)
    done = run("--config", config, *args)
    assert_refused(done, 2, "the same store")
    assert (stored(source), report.read_text()) == (before, "the last run's\n")
    with open_queue(uri) as queue:
        assert sorted(each.body for each in queue.pull(max_messages=len(ids))) == ids


def test_a_move_that_found_everything_there_says_so(tmp_path: Path) -> None:
    source = put(tmp_path / "source", *CRASHES)
    there = put(tmp_path / "there", *CRASHES)
    said = f"all {len(CRASHES)} crashes were in the destination already"
    assert said not in run("copy", "-s", source, "-d", there, "--verify").stderr
    assert said in run("copy", "-s", source, "-d", there, *MOVE).stderr
    assert not stored(source)
    put(source, *CRASHES)
    assert run("--quiet", "copy", "-s", source, "-d", there, *MOVE).stderr == ""


class TestInMemory(DistinctConformance):
    @pytest.fixture
    def storage(self) -> InMemoryCrashStorage:
        return InMemoryCrashStorage()

    @pytest.fixture
    def same_storage(self, storage: InMemoryCrashStorage) -> CrashStorageBase:
        again = InMemoryCrashStorage()
        again._crashes = storage._crashes
        return again

    @pytest.fixture
    def other_storage(self) -> CrashStorageBase:
        return InMemoryCrashStorage()
