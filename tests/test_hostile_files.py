# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What strangers have put into the directories of a store, in place of files and directories: no
link is followed, no FIFO waited for, nothing elsewhere is read or touched, and other crashes are
copied all the same."""

import itertools
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli_helpers import (
    MAIN_DUMP,
    Manifest,
    all_of,
    is_harmless,
    manifest,
    put,
    run_on_terminal,
    sample,
    sha256,
    snapshot,
    statuses,
    stored,
)
from tests.conftest import Figures, missing, wanted
from tests.hostile import Ended, invoke

SECRET = b"what nobody may see"

# The first is tampered with; one is in the same directory, others beside it and on other days.
CRASH = sample(1, dumps={MAIN_DUMP: b"MDMP", "browser": b"MDMB"}, processed=b"{}")
SAME_LEAF = sample(2, processed=b"{}")
OTHER_LEAF = sample(3, leaf="0bbb")
BEFORE, AFTER = sample(4, day="261119", processed=b"{}"), sample(5, day="261121")
OTHERS = [SAME_LEAF, OTHER_LEAF, BEFORE, AFTER]

DIRECTORIES = [CRASH.directory.rsplit("/", n)[0] if n else CRASH.directory for n in (3, 2, 1, 0)]
FILES = list(CRASH.parts)


# What is put there


def link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / CRASH.directory / "secret")


def link_to_directory(path: Path, elsewhere: Path) -> None:
    """To where all is as it should be, but for the link."""
    path.symlink_to(elsewhere / path.name)


def dangling_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "nothing")


def link_to_itself(path: Path, elsewhere: Path) -> None:
    path.symlink_to(path.name)


def fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path, elsewhere: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_PATH)
        made.bind(f"/proc/self/fd/{here}/{path.name}")  # a path as such may be too long for it
        os.close(here)


def directory(path: Path, elsewhere: Path) -> None:
    path.mkdir()


def file(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"")


def device(path: Path, elsewhere: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero


Plant = Callable[[Path, Path], None]
LINKS: list[Plant] = [link, link_to_directory, dangling_link, link_to_itself]
SPECIAL: list[Plant] = [fifo, listening_socket]
PLANTS: list[Plant] = [*LINKS, *SPECIAL, directory, file]


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value))


# Reading


class Scene:
    """A store that was tampered with, what is beside it, and where it is copied to."""

    def __init__(self, tmp: Path) -> None:
        self.source = put(tmp / "source", CRASH, *OTHERS)
        self.elsewhere = put(tmp / "elsewhere", CRASH)
        (self.elsewhere / CRASH.directory / "secret").write_bytes(SECRET)
        shutil.copytree(self.elsewhere / CRASH.directory, self.elsewhere / "leaf")
        self.copies = tmp / "copies"
        self.report = tmp / "report"

    def plant(self, plant: Plant, where: str) -> None:
        path = self.source / where if where in DIRECTORIES else CRASH.path(self.source, where)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        plant(path, self.elsewhere)

    def copy(self, *args: str) -> tuple[Ended, dict[str, str]]:
        where = ("-s", self.source, "-d", self.copies, "--report", self.report)
        return invoke("copy", *where, *args), statuses(self.report)


quick: list[tuple[Plant, str]] = [
    (link_to_directory, DIRECTORIES[0]),
    (fifo, DIRECTORIES[1]),
    (link_to_directory, DIRECTORIES[3]),
    (link, ".json"),
    (fifo, ".jsonz"),
    (listening_socket, ".dump"),
]
every = list(itertools.product(PLANTS, [*DIRECTORIES, *FILES]))
planted = pytest.mark.parametrize(
    ("plant", "where"),
    [*quick, *(pytest.param(*case, marks=pytest.mark.slow) for case in every if case not in quick)],
    ids=name_of,
)


@planted
def test_what_is_no_part_of_a_store_is_neither_followed_nor_waited_for(
    tmp_path: Path, figures: Figures, plant: Plant, where: str
) -> None:
    look(Scene(tmp_path), plant, where, figures)


@pytest.mark.slow
@pytest.mark.parametrize("where", [*DIRECTORIES, *FILES])
def test_a_device_is_not_read(
    tmp_path: Path, request: pytest.FixtureRequest, figures: Figures, where: str
) -> None:
    wanted(request, "devices")
    try:
        look(Scene(tmp_path), device, where, figures)
    except PermissionError as error:
        missing("devices", error)


def look(scene: Scene, plant: Plant, where: str, figures: Figures) -> None:
    """Plant it, copy all, ask for the crash by its name and show it; nothing may be changed."""
    scene.plant(plant, where)
    before = [snapshot(path) for path in (scene.source, scene.elsewhere)]
    in_reach = [crash for crash in OTHERS if crash.path(scene.source).exists()]
    done, found = scene.copy()
    assert {found.pop(crash.crash_id) for crash in in_reach} == {"copied"}
    assert_named(done, plant, where, found)
    named, _ = scene.copy(CRASH.crash_id)
    shown = invoke("get", "-s", scene.source, CRASH.crash_id)
    for each in (named, shown):
        assert len(each.said) == bool(each.code)
    there = stored(scene.copies)
    assert manifest(*in_reach).items() <= there.items()
    assert sha256(SECRET) not in there.values() and SECRET not in shown.out
    assert [snapshot(path) for path in (scene.source, scene.elsewhere)] == before
    figures(said=bool(done.code), nobodys=not done.code)


def assert_named(done: Ended, plant: Plant, where: str, found: dict[str, str]) -> None:
    """One line says what is wrong; but what can hide no crash is nobody's, as any file may be
    that is in nobody's way."""
    is_directory_of_ids = where in DIRECTORIES[2:]
    if plant is directory and where != ".jsonz":
        expected = 0
    elif where in DIRECTORIES:
        expected = 4 if plant in LINKS or not is_directory_of_ids else 0
    else:
        expected = 0 if (plant, where) in [(file, s) for s in FILES if s != ".jsonz"] else 1
    assert done.code == expected, done.said
    assert len(done.said) == bool(expected)
    if expected == 1:
        assert found == {CRASH.crash_id: "failed"}
    if expected == 4:
        assert where in done.said[0]


# Names

NAMES_REFUSED = [
    b".\x1b]0;owned\x07.dump",
    b".a\nb.dump",
    b".\xff\xfe.dump",
    b".\xe2\x80\xae.dump",
    b"..dump.dump",
    b"..dump",
    b".raw_crash.dump",
    b".dump_names.dump",
    b"." + b"x" * 150 + b".dump",
    b".a b.dump",
    b".%2f.dump",
    b".dump.dump",  # the main dump once more
]
NAMES_OF_NOBODY = [
    b".json\n",
    b".JSON",
    b".dump\xff",
    b".jsonz.gz",
    b"\x1b[2J",
    b"x.json",
    b"-.dump",
    b".upload_file_minidump.dump.tmp",
]


@pytest.mark.parametrize(
    "end", [NAMES_REFUSED[0], *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES_REFUSED[1:])]
)
def test_a_dump_of_a_name_that_none_has_fails_its_crash_alone(
    tmp_path: Path, figures: Figures, end: bytes
) -> None:
    scene = Scene(tmp_path)
    add(scene, end)
    before = snapshot(scene.source)
    done, found = scene.copy()
    assert (done.code, len(done.said)) == (1, 1)
    assert found == all_of("copied", *OTHERS) | all_of("failed", CRASH)
    shown = invoke("get", "-s", scene.source, CRASH.crash_id)
    assert (shown.code, shown.out, len(shown.said)) == (1, b"", 1)
    assert snapshot(scene.source) == before
    assert stored(scene.copies) == manifest(*OTHERS)
    figures(names=1)


@pytest.mark.slow
def test_a_terminal_with_a_bar_on_it_and_the_report_are_shown_no_name_as_it_is(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    add(scene, NAMES_REFUSED[0])
    where = ("-s", scene.source, "-d", scene.copies, "--report", scene.report)
    code, shown = run_on_terminal("-v", "copy", *where)
    assert code == 1 and b"owned" in shown and b"\x1b]0;" not in shown
    assert is_harmless(scene.report.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("end", NAMES_OF_NOBODY)
def test_a_file_of_another_name_is_nobodys(tmp_path: Path, figures: Figures, end: bytes) -> None:
    scene = Scene(tmp_path)
    add(scene, end)
    done, found = scene.copy("--remove-source")
    assert (done.code, set(found.values())) == (0, {"copied"})
    assert stored(scene.copies) == manifest(CRASH, *OTHERS)
    assert [path.read_bytes() for path in scene.source.rglob("*") if path.is_file()] == [b"MDMP"]
    figures(names=1)


def add(scene: Scene, end: bytes) -> None:
    """Put a file beside the crash's own, whose name begins as theirs do."""
    leaf = os.fsencode(scene.source / CRASH.directory)
    with open(leaf + b"/" + CRASH.crash_id.encode() + end, "wb") as file:  # noqa: PTH123
        file.write(b"MDMP")


# Removing what was copied


@pytest.mark.parametrize("suffix", [".json", pytest.param(".dump", marks=pytest.mark.slow)])
def test_a_hard_link_to_what_is_elsewhere_is_a_file_like_any_other(
    tmp_path: Path, suffix: str
) -> None:
    scene = Scene(tmp_path)
    secret = scene.elsewhere / CRASH.directory / "secret"
    CRASH.path(scene.source, suffix).unlink()
    CRASH.path(scene.source, suffix).hardlink_to(secret)
    done, found = scene.copy("--remove-source")
    assert (done.code, set(found.values())) == (0, {"copied"})
    assert CRASH.path(scene.copies, suffix).read_bytes() == SECRET == secret.read_bytes()
    assert stored(scene.source) == {}


@pytest.mark.slow
@pytest.mark.parametrize("plant", LINKS + SPECIAL, ids=name_of)
@pytest.mark.parametrize("where", [*DIRECTORIES, *FILES])
def test_what_could_not_be_copied_is_not_removed(
    tmp_path: Path, figures: Figures, plant: Plant, where: str
) -> None:
    scene = Scene(tmp_path)
    scene.plant(plant, where)
    kept = [path for path in scene.source.rglob(f"{CRASH.crash_id}*") if path.is_file()]
    before = [snapshot(scene.elsewhere), *(path.lstat().st_ino for path in kept)]
    scene.copy("--remove-source")
    assert [snapshot(scene.elsewhere), *(path.lstat().st_ino for path in kept)] == before
    assert not any(crash.path(scene.source).is_file() for crash in OTHERS)
    figures(kept=len(kept))


# Saving


TEMPORARY = {f".{CRASH.crash_id}{suffix}.tmp": suffix for suffix in (".json", ".dump", ".jsonz")}
FINAL = {CRASH.crash_id + suffix: suffix for suffix in FILES}
quick_to: list[tuple[Plant, str]] = [
    (link_to_directory, DIRECTORIES[0]),
    (link, f".{CRASH.crash_id}.json.tmp"),
    (fifo, f".{CRASH.crash_id}.dump.tmp"),
    (link, f"{CRASH.crash_id}.dump"),
]


def hard_link(path: Path, elsewhere: Path) -> None:
    path.hardlink_to(elsewhere / CRASH.directory / "secret")


every_to = [
    *itertools.product([*PLANTS, hard_link], [*TEMPORARY, *FINAL]),
    *itertools.product([*LINKS, *SPECIAL, file], DIRECTORIES),
]


@pytest.mark.parametrize(
    ("plant", "where"),
    [
        *quick_to,
        *(pytest.param(*case, marks=pytest.mark.slow) for case in every_to if case not in quick_to),
    ],
    ids=name_of,
)
def test_nothing_is_written_to_what_is_not_ours(
    tmp_path: Path, figures: Figures, plant: Plant, where: str
) -> None:
    scene = Scene(tmp_path)
    path = scene.copies / (where if where in DIRECTORIES else f"{CRASH.directory}/{where}")
    path.parent.mkdir(parents=True)
    plant(path, scene.elsewhere)
    before = [snapshot(at) for at in (scene.source, scene.elsewhere)]
    # What has the name of a raw crash says that the crash is there, unless one looks into it.
    args = ("--existing", "compare") if where == f"{CRASH.crash_id}.json" else ()
    done, found = scene.copy(*args)
    assert [snapshot(at) for at in (scene.source, scene.elsewhere)] == before
    in_the_way = [c for c in [CRASH, *OTHERS] if where in c.directory or c is CRASH]
    reached: Manifest = manifest(*(c for c in OTHERS if c not in in_the_way))
    there = stored(scene.copies)
    assert reached.items() <= there.items()
    failed = {crash_id for crash_id, status in found.items() if status != "copied"}
    assert failed <= {crash.crash_id for crash in in_the_way}
    assert (done.code, len(done.said)) == (min(1, len(failed)), len(failed)), done.said
    for crash in [CRASH, *OTHERS]:
        if crash.crash_id not in failed:
            assert manifest(crash).items() <= there.items()
    figures(in_the_way=bool(failed), got_over=not failed)
