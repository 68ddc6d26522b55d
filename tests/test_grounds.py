# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store over each ground: the conformance suite, races over one crash, and moves.

Other files run over each ground, too: see where `tests.conftest.directory_on` is used.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Thread

import pytest

from crashmover import FSPermanentStorage, Kind
from crashmover.errors import CrashIDNotFound
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing import CRASH_ID, NEIGHBOUR, StorageConformance, contents, crash_of, read
from crashmover.testing.samples import Contents
from tests.cli_helpers import manifest, put, run, samples, stored
from tests.conftest import Figures, over_grounds
from tests.grounds import FILE_SYSTEMS, STORE

VERSIONS = ("a", "b", "c")

quick_and_slow = pytest.mark.parametrize(
    ("ground", "rounds"),
    [*(pytest.param(each, 3, id=each.name) for each in FILE_SYSTEMS), *over_grounds(40)],
    indirect=["ground"],
)


@pytest.mark.parametrize("ground", over_grounds(), indirect=True)
class TestConformance(StorageConformance):
    @pytest.fixture
    def storage(self, ground: Path) -> Iterator[CrashStorageBase]:
        with FSPermanentStorage(ground / STORE) as storage:
            yield storage


def version(name: str) -> Contents:
    """A crash of which one dump has another name in each version."""
    return contents(name) | {(Kind.DUMP, f"only_{name}"): name.encode() * 1000}


@pytest.fixture
def root(ground: Path) -> Path:
    """A store with a crash, and a neighbour that keeps its directory."""
    root = ground / STORE
    with FSPermanentStorage(root) as storage:
        storage.save_crashes([crash_of(version("z")), crash_of(contents("n"), NEIGHBOUR)])
    return root


@quick_and_slow
def test_of_those_that_save_one_crash_at_once_one_leaves_the_whole_of_it(
    root: Path, rounds: int, figures: Figures
) -> None:
    for _ in range(rounds):
        at_once(root, *(saving(name) for name in VERSIONS))
        assert found(root) in [version(name) for name in VERSIONS]
        assert files_of(root, CRASH_ID) == len(version("a"))
    figures(saves=rounds * len(VERSIONS), mixed=0)


@quick_and_slow
def test_a_removal_beside_a_save_leaves_the_whole_crash_or_nothing(
    root: Path, rounds: int, figures: Figures
) -> None:
    left = 0
    for _ in range(rounds):
        with FSPermanentStorage(root) as storage:
            storage.save_crash(crash_of(version("z")))
        at_once(root, saving("a"), lambda storage: storage.remove(CRASH_ID))
        assert found(root) in (None, version("a"))
        assert files_of(root, CRASH_ID) == len(found(root) or {})
        left += found(root) is not None
    with FSPermanentStorage(root) as storage:
        assert read(storage, NEIGHBOUR) == contents("n")
    figures(removals=rounds, saved_after_it=left, left_behind=0)


Step = Callable[[FSPermanentStorage], None]


def saving(name: str) -> Step:
    return lambda storage: storage.save_crash(crash_of(version(name)))


def at_once(root: Path, *steps: Step) -> None:
    """Let each do its step in a thread, with a store of its own, at the same moment.

    A lock is of an open file, so threads exclude each other by it as processes do: flock(2).
    """
    barrier = Barrier(len(steps))
    errors: list[Exception] = []

    def take(step: Step) -> None:
        with FSPermanentStorage(root) as storage:
            barrier.wait(30)
            try:
                step(storage)
            except Exception as error:
                errors.append(error)

    threads = [Thread(target=take, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def found(root: Path) -> Contents | None:
    with FSPermanentStorage(root) as storage:
        try:
            return read(storage)
        except CrashIDNotFound:
            return None


def files_of(root: Path, crash_id: str) -> int:
    return len([path for path in root.rglob(f"*{crash_id}*") if path.is_file()])


@pytest.mark.parametrize(
    "ground", [pytest.param(each, id=each.name) for each in FILE_SYSTEMS], indirect=True
)
def test_crashes_are_copied_there_and_back_whole(
    ground: Path, tmp_path: Path, figures: Figures
) -> None:
    copied = samples(12)
    roots = [put(tmp_path / "here", *copied), ground / STORE, tmp_path / "back"]
    for source, destination in pairwise(roots):
        done = run("copy", "-s", source, "-d", destination, "--verify")
        assert done.exit_code == 0, done.stderr
        assert stored(destination) == manifest(*copied)
    figures(copied=2 * len(copied))


@pytest.mark.slow
@pytest.mark.parametrize("ground", over_grounds(), indirect=True)
def test_crashes_are_moved_there_and_away_whole(
    ground: Path, tmp_path: Path, figures: Figures
) -> None:
    moved = samples(200)
    root, elsewhere = ground / STORE, put(tmp_path / "elsewhere", *moved)
    for source, destination in ((elsewhere, root), (root, elsewhere)):
        done = run("copy", "-s", source, "-d", destination, "--verify", "--remove-source")
        assert done.exit_code == 0, done.stderr
        assert (stored(destination), stored(source)) == (manifest(*moved), {})
    figures(moved=2 * len(moved))
