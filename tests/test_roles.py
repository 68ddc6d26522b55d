# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores that have one role: their suites, and which commands and options go with which role."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crashmover.cli import main
from crashmover.engine.mover import Existing, Mover
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyListedSource, PolySource
from crashmover.registry import open_destination, open_source, open_storage
from crashmover.testing import (
    CRASH_ID,
    NEIGHBOUR,
    RAW,
    Contents,
    DestinationConformance,
    ListedSourceConformance,
    SourceConformance,
    contents,
    crash_of,
    held_by,
    read,
    without,
)
from crashmover.testing.roles import Held, Put
from tests.one_role import ByIDOnly, ReadOnly, WriteOnly, install


class TestByID(SourceConformance):
    @pytest.fixture
    def source(self, tmp_path: Path) -> ByIDOnly:
        return ByIDOnly(str(tmp_path))

    @pytest.fixture
    def put(self, tmp_path: Path) -> Put:
        return FSPermanentStorage(tmp_path).save_crash


class TestReadOnly(ListedSourceConformance):
    @pytest.fixture
    def source(self, tmp_path: Path) -> ReadOnly:
        return ReadOnly(str(tmp_path))

    @pytest.fixture
    def put(self, tmp_path: Path) -> Put:
        return FSPermanentStorage(tmp_path).save_crash


class TestWriteOnly(DestinationConformance):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> WriteOnly:
        return WriteOnly(str(tmp_path))

    @pytest.fixture
    def held(self, tmp_path: Path) -> Held:
        storage = FSPermanentStorage(tmp_path)
        return lambda: held_by(storage)


class TestSeveralSources(ListedSourceConformance):
    """Several read-only stores as one."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> PolyListedSource:
        return PolyListedSource([ReadOnly(str(tmp_path / name)) for name in "ab"])

    @pytest.fixture
    def put(self, tmp_path: Path) -> Put:
        return FSPermanentStorage(tmp_path / "b").save_crash


# The command line


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a store of two crashes in it; stores with one role are installed."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for crash_id in (CRASH_ID, NEIGHBOUR):
        FSPermanentStorage(tmp_path / "full").save_crash(crash_of(contents(), crash_id))
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(
        main, [*map(str, arguments)], prog_name="crashmover", catch_exceptions=False
    )


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("copy -s readonly:{full} -d {new} --remove-source", "no crash can be removed from it"),
        ("copy -s byid:{full} -d {new}", "its crashes cannot be listed"),
        ("copy -s byid:{full} -d {new} --since 2007-10-25", "its crashes cannot be listed"),
        ("copy -s writeonly:{full} -d {new}", "crashes can only be saved to it"),
        ("copy -s {full} -d readonly:{new}", "crashes can only be read from it"),
        ("copy -s {full} -d writeonly:{new}", "use --existing overwrite"),
        ("copy -s {full} -d writeonly:{new} --existing compare", "use --existing overwrite"),
        ("copy -s {full} -d writeonly:{new} --existing overwrite --verify", "leave out --verify"),
        (
            "copy -s {full} -d writeonly:{new} --existing overwrite --remove-source",
            "leave out --remove-source",
        ),
        (
            "copy -s {full} -d writeonly:{new} --existing overwrite --kinds raw",
            "copy raw crashes together with their dumps",
        ),
        ("copy -s {full} -d {new} -d writeonly:{new}2", "use --existing overwrite"),
        ("check -s byid:{full} -d {new}", "its crashes cannot be listed"),
        ("check -s {full} -d writeonly:{new}", "crashes can only be saved to it"),
        ("list -s byid:{full}", "its crashes cannot be listed"),
        ("list -s writeonly:{full}", "its crashes cannot be listed"),
        ("get -s writeonly:{full} {id}", "crashes can only be saved to it"),
        ("remove -s readonly:{full} {id}", "crashes cannot be removed from it"),
        ("save -d readonly:{new} --raw-crash {raw}", "crashes can only be read from it"),
        ("queue-publish -q memory: -s byid:{full} --since 2007-10-25", "cannot be listed"),
    ],
)
def test_what_a_role_lacks_is_said_before_anything_is_touched(
    place: Path, arguments: str, reason: str
) -> None:
    raw = place / "raw.json"
    raw.write_text("{}")
    before = files(place)
    names = {"full": place / "full", "new": place / "new", "raw": raw, "id": CRASH_ID}
    result = run(*arguments.format(**names).split())
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("crashmover")
    assert reason in line
    assert files(place) == before


def test_a_read_only_store_is_copied_listed_shown_and_checked(place: Path) -> None:
    source, new = f"readonly:{place / 'full'}", place / "new"
    assert run("list", "-s", source).stdout.split() == [CRASH_ID, NEIGHBOUR]
    assert run("copy", "-s", source, "-d", new, "--verify").exit_code == 0
    assert run("check", "-s", new, "-d", source, "--digest").exit_code == 0
    assert CRASH_ID in run("get", "-s", source, CRASH_ID).stdout
    assert read(FSPermanentStorage(new)) == contents()


def test_a_store_that_is_read_by_crash_ids_is_copied_and_checked_by_them(place: Path) -> None:
    source, new = f"byid:{place / 'full'}", place / "new"
    assert run("copy", "-s", source, "-d", new, CRASH_ID, "--verify").exit_code == 0
    assert run("check", "-s", new, "-d", source).exit_code == 0
    assert run("check", "-s", source, "-d", new, CRASH_ID).exit_code == 0
    assert read(FSPermanentStorage(new)) == contents()
    assert not FSPermanentStorage(new).has_crash(NEIGHBOUR)


def test_a_store_that_is_only_saved_to_gets_every_crash(place: Path) -> None:
    new = place / "new"
    arguments = ("-s", place / "full", "-d", f"writeonly:{new}", "--existing", "overwrite")
    assert run("copy", *arguments).exit_code == 0
    assert {*FSPermanentStorage(new).new_crashes()} == {CRASH_ID, NEIGHBOUR}
    (place / "raw.json").write_text("{}")
    saved = run("save", "-d", f"writeonly:{new}", "--raw-crash", place / "raw.json", CRASH_ID)
    assert saved.exit_code == 0
    assert read(FSPermanentStorage(new))[RAW] == b"{}"


def test_a_crash_comes_from_the_first_of_several_sources_whatever_their_roles(place: Path) -> None:
    FSPermanentStorage(place / "other").save_crash(crash_of(contents("b"), CRASH_ID))
    new = place / "new"
    sources = ("-s", f"byid:{place / 'other'}", "-s", place / "full")
    assert run("copy", *sources, "-d", new, CRASH_ID, NEIGHBOUR).exit_code == 0
    assert read(FSPermanentStorage(new)) == contents("b")
    assert read(FSPermanentStorage(new), NEIGHBOUR) == contents()


@pytest.mark.parametrize(
    ("arguments", "verdict", "found"),
    [
        ("-s readonly:{full}", "ok", ["read"]),
        ("-s byid:{full}", "ok", ["read by crash id not tried"]),
        ("-d writeonly:{full}", "ok", ["write"]),
        ("-s writeonly:{full}", "failed", []),
        ("-d readonly:{full}", "failed", []),
    ],
)
def test_doctor_asks_a_store_what_its_role_is(
    place: Path, arguments: str, verdict: str, found: list[str]
) -> None:
    before = files(place / "full")
    result = run("doctor", "--json", *arguments.format(full=place / "full").split())
    said = json.loads(result.stdout)
    assert (said["verdict"], said["found"]) == (verdict, found), said
    assert result.exit_code == (4 if verdict == "failed" else 0)
    assert files(place / "full") == before


def test_doctor_does_not_blame_a_configured_store_for_a_role_that_it_has_not(place: Path) -> None:
    config = place / "config.toml"
    roles = ("readonly", "byid", "writeonly")
    lines = [f'{role} = "{role}:{place / "full"}"' for role in roles]
    config.write_text("\n".join(["[storage]", *lines]))
    result = run("--config", config, "doctor", "--json")
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["verdict"] for each in said] == ["ok"] * 3, said


# The library


def test_several_are_opened_with_the_roles_that_all_of_them_have(place: Path) -> None:
    full = place / "full"
    mixed = open_source([f"byid:{full}", f"readonly:{full}"])
    assert isinstance(mixed, PolySource)
    assert not isinstance(mixed, PolyListedSource)
    assert isinstance(open_source([f"readonly:{full}", str(full)]), PolyListedSource)
    assert type(open_source([str(full), str(full)])) is type(open_storage([str(full), str(full)]))
    everywhere = open_destination([f"writeonly:{place / 'a'}", str(place / "b")])
    everywhere.save_crash(crash_of(contents()))
    for name in "ab":
        assert read(FSPermanentStorage(place / name)) == contents()


def test_a_mover_refuses_what_a_role_lacks(tmp_path: Path) -> None:
    source, destination = ReadOnly(str(tmp_path)), WriteOnly(str(tmp_path / "new"))
    with pytest.raises(ValueError, match="use --existing overwrite"):
        Mover(source, destination)
    with pytest.raises(ValueError, match="no crash can be removed"):
        Mover(source, InMemoryCrashStorage(), remove_source=True)


def test_a_source_that_is_only_read_comes_with_the_methods_of_socorro(tmp_path: Path) -> None:
    kept: Contents = without(contents())
    FSPermanentStorage(tmp_path).save_crash(crash_of(kept))
    source = ByIDOnly(str(tmp_path))
    assert source.get_raw_crash(CRASH_ID)["ProductName"] == "Firefox"
    assert source.get_raw_dump(CRASH_ID) == kept[next(key for key in kept if key[1])]
    mover = Mover(source, InMemoryCrashStorage(), existing=Existing.COMPARE)
    assert [outcome.status for outcome in mover.run([CRASH_ID])] == ["copied"]
