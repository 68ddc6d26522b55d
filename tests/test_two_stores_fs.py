# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""No directory is moved onto itself, by whatever path or mount; and two that are two are moved."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from crashmover.errors import NotTwoStores
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs import sameness
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.fs.mounts import Mount, below, kind_at, mounts
from crashmover.testing import DistinctConformance
from tests import mounting
from tests.cli_helpers import assert_refused, put, run, samples, snapshot, stored
from tests.conftest import Figures, missing, wanted

CRASHES = samples(6)
MOVE = ("--verify", "--remove-source")
WAYS = (
    MOVE,
    ("--existing", "compare", "--remove-source"),
    ("--existing", "overwrite", "--remove-source"),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", *CRASHES)


def everything(root: Path) -> tuple[object, ...]:
    """All files and what they hold, and all names; not when a mark was in a directory."""
    return stored(root), sorted(root.rglob("*"))


def assert_stays(source: Path, *destinations: Path | str, why: str = "the same store") -> int:
    """A move there is refused, and leaves everything as it is; return how many ways were tried."""
    before = everything(source)
    for options in WAYS:
        for destination in destinations:
            assert_refused(run("copy", "-s", source, "-d", destination, *options), 2, why)
    assert everything(source) == before
    return len(WAYS) * len(destinations)


def test_a_directory_is_not_moved_onto_itself_by_any_path(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "above").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = [
        str(source),
        f"{source}/",
        "./source",
        f"fs://{source}?umask=077",
        f"fs://{source}?dump_field=upload_file_minidump_x",
        str(source / ".." / "source"),
        str(source / "20261119" / ".."),
        str(tmp_path / "link"),
        str(tmp_path / "above" / "above" / "source"),
    ]
    refused = assert_stays(source, *names)
    for name in names:
        assert_refused(run("copy", "-s", source, "-d", name, *MOVE, "--dry-run"), 2, "same store")
    several = ("-d", tmp_path / "elsewhere", "-d", names[-1])
    assert_refused(run("copy", "-s", source, *several, *MOVE), 2, "the same store")
    assert not (tmp_path / "elsewhere").exists()
    figures(moves_refused=refused, crashes_lost=0)


def test_directories_that_are_two_are_moved(source: Path, tmp_path: Path, figures: Figures) -> None:
    before = stored(source)
    day, base = source / "20261119", source / "20261119" / "name"
    places = [
        str(source / "inside"),
        str(source),
        str(base),
        f"fs://{source}?name_branch_base=date",
        str(day),
        str(base / "0b"),
        str(tmp_path),
        f"fs://{tmp_path}?name_branch_base=date&json_file_suffix=.raw",
        str(tmp_path / "not" / "yet" / "there"),
    ]
    at = str(source)
    for place in places:
        done = run("copy", "-s", at, "-d", place, *MOVE)
        assert (done.exit_code, f"copied {len(CRASHES)}" in done.stderr) == (0, True), place
        at = place
    assert {Path(name).name for name in stored(Path(at))} == {Path(name).name for name in before}
    assert not list(tmp_path.rglob(".*"))
    figures(crashes_moved=len(places) * len(CRASHES))


def test_two_sets_of_names_in_one_directory_are_not_proved_to_be_two(source: Path) -> None:
    """Both call dumps the same: with those of the source, those of the destination would go."""
    other = f"fs://{source}?json_file_suffix=.raw"
    assert_stays(source, other, why="with two sets of file names")
    assert run("copy", "-s", source, "-d", other).exit_code == 0


def test_two_directories_that_are_not_there_are_not_proved_to_be_two(tmp_path: Path) -> None:
    stores = [FSPermanentStorage(tmp_path / name) for name in ("one", "two", "one")]
    assert stores[0].is_same_store(stores[2], probe=True) is True
    for probe in (True, False):
        with pytest.raises(NotTwoStores, match="neither directory is there"):
            stores[0].is_same_store(stores[1], probe=probe)


def test_a_mark_shows_what_no_inode_number_does(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if both were seen through a network, which shows files late."""
    (tmp_path / "view").symlink_to(source)
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(sameness, "_ON_DISK", frozenset())
    monkeypatch.setattr(sameness, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(os.path, "samestat", lambda one, another: False)
    stores = [FSPermanentStorage(path) for path in (source, tmp_path / "view", other)]
    before = snapshot(tmp_path)
    for mark in (source, other):
        old = mark / f".crashmover-mark-{'0' * 32}.tmp"
        old.touch()
        os.utime(old, (0, 0))
    assert stores[0].is_same_store(stores[1], probe=True) is True
    assert stores[0].is_same_store(stores[2], probe=True) is False
    assert stores[0].is_same_store(stores[2]) is None
    assert snapshot(tmp_path).keys() == before.keys()


def test_a_mount_is_found_by_the_deepest_and_latest(tmp_path: Path) -> None:
    found = [
        Mount(Path("/"), "ext4"),
        Mount(Path("/data"), "xfs"),
        Mount(Path("/data"), "nfs4"),
        Mount(Path("/data/a b/20261119"), "fuse.sshfs"),
    ]
    assert kind_at(Path("/data/x"), found) == "nfs4"
    assert kind_at(Path("/database"), found) == "ext4"
    assert kind_at(Path("/x"), []) == ""
    assert list(below(Path("/data/a b"), found)) == [("20261119",)]
    assert Path("/proc") in [mount.point for mount in mounts()]


Mounting = Callable[..., Path]


@pytest.fixture
def mount(request: pytest.FixtureRequest) -> Iterator[Mounting]:
    """Mount something at a directory, which is made, until the test ends."""
    wanted(request, "devices")
    with ExitStack() as stack:

        def mount(at: Path, *command: str | Path) -> Path:
            try:
                return stack.enter_context(mounting.mounted(at, *command))
            except mounting.CannotMount as error:
                missing("devices", error)

        yield mount


@pytest.fixture
def view(request: pytest.FixtureRequest) -> Iterator[Mounting]:
    """Show a directory at another, through FUSE, until the test ends."""
    wanted(request, "bindfs")
    with ExitStack() as stack:

        def view(of: Path, at: Path) -> Path:
            try:
                return stack.enter_context(mounting.served(at, "bindfs", "-f", of))
            except mounting.CannotMount as error:
                missing("bindfs", error)

        yield view


@pytest.mark.slow
def test_a_bind_mount_and_a_view_are_the_directory_itself(
    source: Path, tmp_path: Path, mount: Mounting, view: Mounting, figures: Figures
) -> None:
    bound = mount(tmp_path / "bound", "mount", "--bind", source)
    seen = view(source, tmp_path / "seen")
    above = view(tmp_path, tmp_path.with_name(f"{tmp_path.name}-above")) / "source"
    twice = view(seen, tmp_path / "twice")
    refused = assert_stays(source, bound, seen, above, twice)
    for path in (bound, seen, above):
        refused += assert_stays(path, source, twice)
    dry = run("copy", "-s", source, "-d", seen, *MOVE, "--dry-run")
    assert (dry.exit_code, "--dry-run writes nothing" in dry.stderr) == (0, True)
    assert len(stored(source)) == len(stored(seen))
    figures(moves_refused=refused, crashes_lost=0)


@pytest.mark.slow
def test_a_view_of_another_directory_is_moved_to(
    source: Path, tmp_path: Path, view: Mounting
) -> None:
    (tmp_path / "other").mkdir()
    seen = view(tmp_path / "other", tmp_path / "seen")
    assert run("copy", "-s", source, "-d", seen, *MOVE).exit_code == 0
    assert not stored(source)
    assert run("copy", "-s", seen, "-d", source, *MOVE).exit_code == 0
    assert len(stored(source)) and not list((tmp_path / "other").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bind", "view"])
def test_a_day_that_is_mounted_into_another_tree_is_the_day_itself(
    source: Path, tmp_path: Path, mount: Mounting, view: Mounting, kind: str
) -> None:
    """The roots are two, and what lies below them is not."""
    day, there = source / "20261119", tmp_path / "other" / "20261119"
    if kind == "bind":
        mount(there, "mount", "--bind", day)
    else:
        view(day, there)
    assert_stays(source, tmp_path / "other")
    assert_stays(tmp_path / "other", source)
    assert run("copy", "-s", source, "-d", tmp_path / "other").exit_code == 0
    other = f"fs://{tmp_path}/third?name_branch_base=date"
    view(day / "name", tmp_path / "third" / "20261119" / "date")
    assert_stays(source, other)
    mount(day / "date", "mount", "--bind", day / "name")
    assert_stays(source, f"fs://{source}?name_branch_base=date")


@pytest.mark.slow
def test_an_overlay_shows_the_layers_below(source: Path, tmp_path: Path, mount: Mounting) -> None:
    """What is removed from a layer is gone from the overlay, and the other way round."""
    disk = mount(tmp_path / "disk", "mount", "-t", "tmpfs", "tmpfs")
    for name in ("upper", "work"):
        (disk / name).mkdir()
    lower = put(disk / "lower", *CRASHES)
    options = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work"
    merged = mount(tmp_path / "merged", "mount", "-t", "overlay", "overlay", "-o", options)
    assert_stays(lower, merged)
    assert_stays(merged, disk / "upper")
    assert run("copy", "-s", source, "-d", tmp_path / "elsewhere", *MOVE).exit_code == 0


class TestFileSystem(DistinctConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> CrashStorageBase:
        return FSPermanentStorage(tmp_path / "one")

    @pytest.fixture
    def same_storage(self, tmp_path: Path) -> CrashStorageBase:
        (tmp_path / "link").symlink_to(tmp_path / "one")
        return FSPermanentStorage(tmp_path / "link")

    @pytest.fixture
    def other_storage(self, tmp_path: Path) -> CrashStorageBase:
        return FSPermanentStorage(tmp_path / "two")
