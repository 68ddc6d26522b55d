# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Dumps whose names differ only in case, also in a directory that takes such names for one."""

import itertools
from pathlib import Path

import pytest

from crashmover import Crash, FSPermanentStorage, Kind, Part
from crashmover.errors import StorageError
from crashmover.external.fs import durable
from crashmover.external.fs.layouts import Layout
from crashmover.external.fs.staging import StagedSave
from crashmover.spelling import alike, refuse_taken
from tests.cli_helpers import run
from tests.conftest import Figures
from tests.odd_mounts import Lend, files_below

ID = "0bba929f-8721-460c-dead-a43c22261120"
LEAF = "20261120/name/0b/ba"
TEXT = "differ only in case, and the directory takes them for one name"
RAW = Part.of_bytes(Kind.RAW_CRASH, b"{}")


def crash_with(*names: str, raw: bool = True) -> Crash:
    dumps = [Part.of_bytes(Kind.DUMP, name.encode(), name) for name in names]
    return Crash(ID, [RAW] * raw + dumps)


def dumps_of(storage: FSPermanentStorage) -> dict[str, bytes]:
    return {part.name: part.read() for part in storage.load_crash(ID, {Kind.DUMP}).parts}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A crash with two such names, on a disk that knows them apart."""
    storage = FSPermanentStorage(tmp_path / "source")
    storage.save_crash(crash_with("Memory", "memory"))
    assert dumps_of(storage) == {"Memory": b"Memory", "memory": b"memory"}
    return storage.root


def test_names_alike() -> None:
    assert alike([]) is None
    assert alike(["a", "b", "ab"]) is None
    assert alike(["a", "b", "a"]) is None
    assert alike(["a", "B", "b"]) == ("B", "b")


def test_two_files_are_two_where_the_directory_knows_them_apart(tmp_path: Path) -> None:
    names = [tmp_path / "a.dump", tmp_path / "A.dump"]
    for path in names:
        refuse_taken(names[:1], path)
        path.write_text(path.name)
    refuse_taken(names, names[1])


def test_a_directory_that_knows_case_is_not_taken_for_another(tmp_path: Path, source: Path) -> None:
    done = run("copy", "-s", source, "-d", tmp_path / "to", "--verify", "--remove-source")
    assert done.exit_code == 0, done.stderr
    storage = FSPermanentStorage(tmp_path / "to")
    assert set(dumps_of(storage)) == {"Memory", "memory"}
    storage.save_crash(crash_with("MEMORY", raw=False))
    storage.save_crash(crash_with("memory", raw=False))
    assert set(dumps_of(storage)) == {"Memory", "memory", "MEMORY"}
    assert run("get", "-s", storage.root, ID, "--all", "-o", tmp_path / "got").exit_code == 0
    assert len(files_below(tmp_path / "got")) == 4


def test_what_was_refused_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without such a directory: that it is one is only pretended."""
    monkeypatch.setattr(StagedSave, "_takes_names_alike_for_one", lambda _self: True)
    storage = FSPermanentStorage(tmp_path)
    [error] = storage.save_crashes([crash_with("memory", "Memory")])
    assert isinstance(error, StorageError) and TEXT in str(error)
    assert files_below(tmp_path) == []
    storage.save_crash(crash_with("memory", "other"))
    (tmp_path / LEAF / f"{ID}.Memory.dump").write_bytes(b"the same file")
    before = [(path, path.stat().st_mtime_ns) for path in files_below(tmp_path)]
    [error] = storage.save_crashes([crash_with("Memory", raw=False)])
    assert isinstance(error, StorageError) and TEXT in str(error)
    assert [(path, path.stat().st_mtime_ns) for path in files_below(tmp_path)] == before


@pytest.fixture
def caseless(lend: Lend) -> Path:
    """A directory that takes names which differ only in case for one."""
    there = lend("exfat")
    (there / "a").write_text("a")
    assert (there / "A").read_text() == "a"
    (there / "a").unlink()
    return there


@pytest.mark.slow
def test_neither_is_lost_by_a_move(caseless: Path, source: Path, tmp_path: Path) -> None:
    sound = FSPermanentStorage(source)
    other = crash_with("memory")
    sound.save_crash(Crash(ID.replace("0bba", "0bbb"), other.parts))
    raw = tmp_path / "raw.json"
    raw.write_text("{}")
    dumps = ("--dump", f"Memory={raw}", "--dump", f"memory={raw}")
    commands: list[tuple[str | Path, ...]] = [
        ("copy", "-s", source, "-d", caseless / "to", "--remove-source"),
        ("copy", "-s", source, "-d", caseless / "to", "--verify"),
        ("copy", "-s", source, "-d", caseless / "to", "--existing", "overwrite"),
        ("save", "-d", caseless / "to", "--raw-crash", raw, ID, *dumps),
    ]
    for command in commands:
        done = run(*command)
        assert done.exit_code == 1, done.stderr
        assert done.stderr.count(TEXT) == 1
        assert not [path for path in files_below(caseless) if ID in path.name]
    assert list(sound.new_crashes()) == [ID]  # the other was moved
    assert set(dumps_of(sound)) == {"Memory", "memory"}
    assert list(FSPermanentStorage(caseless / "to").new_crashes()) == [ID.replace("0bba", "0bbb")]


@pytest.mark.slow
def test_a_dump_in_another_case_takes_the_place_of_the_old_one(
    caseless: Path, figures: Figures
) -> None:
    storage = FSPermanentStorage(caseless / "to")
    names = [("memory",), ("Memory",), ("MEMORY", "b"), ("B",), ("b", "Memory"), ("memory",)]
    for names_now in names:
        storage.save_crash(crash_with(*names_now))
        assert dumps_of(storage) == {name: name.encode() for name in names_now}
        assert len(files_below(caseless / "to")) == 1 + len(names_now)
    figures(replaced=len(names))


@pytest.mark.slow
@pytest.mark.parametrize("is_locked", [False, True], ids=["a collector's", "of a killed save"])
def test_so_does_one_in_the_place_of_a_dump_of_no_crash(caseless: Path, is_locked: bool) -> None:
    storage = FSPermanentStorage(caseless / "to")
    leaf = caseless / "to" / LEAF
    leaf.mkdir(parents=True)
    (leaf / f"{ID}.memory.dump").write_bytes(b"left")
    if is_locked:
        (leaf / durable.temporary_name(f"{ID}.json")).write_bytes(b"")
    storage.save_crash(crash_with("Memory"))
    assert dumps_of(storage) == {"Memory": b"Memory"}


@pytest.mark.slow
def test_a_dump_that_is_added_replaces_none_of_another_name(caseless: Path) -> None:
    storage = FSPermanentStorage(caseless / "to")
    storage.save_crash(crash_with("memory", "other"))
    for save in (storage.save_crashes, storage.create_crashes):
        [error] = save([crash_with("Memory", raw=False)])
        assert isinstance(error, StorageError) and TEXT in str(error)
        assert dumps_of(storage) == {"memory": b"memory", "other": b"other"}
    storage.save_crash(crash_with("memory", "third", raw=False))
    assert set(dumps_of(storage)) == {"memory", "other", "third"}
    assert len(files_below(caseless / "to")) == 4


@pytest.mark.slow
def test_files_for_people_and_programs_are_not_written_one_over_the_other(
    caseless: Path, source: Path
) -> None:
    for directory in (caseless / "new", caseless / "new"):
        done = run("get", "-s", source, ID, "--all", "-o", directory)
        assert done.exit_code == 2
        assert TEXT in done.stderr
    storage = FSPermanentStorage(source)
    with pytest.raises(FileExistsError, match=TEXT):
        storage.get_raw_dumps_as_files(ID, caseless)
    assert not list(caseless.glob("*TEMPORARY*"))


@pytest.mark.slow
def test_suffixes_may_be_alike(caseless: Path) -> None:
    """Any two files of a crash count, not only dumps."""
    layout = Layout(json_file_suffix=".DUMP")
    storage = FSPermanentStorage(caseless / "to", layout=layout)
    for parts in itertools.permutations(crash_with("upload_file_minidump").parts):
        [error] = storage.save_crashes([Crash(ID, parts)])
        assert TEXT in str(error)
    assert files_below(caseless / "to") == []
