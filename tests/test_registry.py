# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""open_storage: paths, URIs, names and lists, and the stores of third parties."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from crashmover.config import Config
from crashmover.errors import InvalidConfig, InvalidURI, MissingExtra
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.registry import open_storage

ID = "0bba929f-8721-460c-dead-a43c22071025"


def roots_of(storage: CrashStorageBase) -> list[Path]:
    """Where the directories of a file-system store, or of several as one, are."""
    return [store.root for store in storage.stores if isinstance(store, FSPermanentStorage)]


# One store


def test_a_path_is_a_file_system_store_that_is_not_made_yet(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "crashes")) as storage:
        assert isinstance(storage, FSPermanentStorage)
        assert storage.root == tmp_path / "crashes"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["./crashes", "../here/crashes", "fs:./crashes", "fs:crashes"])
def test_a_relative_path_is_one_from_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with open_storage(text) as storage:
        assert roots_of(storage) == [tmp_path / "here" / "crashes"]


def test_a_uri_of_the_file_system_says_how_files_are_made(tmp_path: Path) -> None:
    with open_storage(f"fs://{tmp_path}/crashes?umask=077&json_file_suffix=.raw") as storage:
        storage.save_raw_crash({}, None, ID)
    [file] = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.name == f"{ID}.raw"
    assert file.stat().st_mode & 0o777 == 0o600


def test_every_memory_store_is_one_of_its_own() -> None:
    with open_storage("memory:") as one, open_storage("memory:") as other:
        assert isinstance(one, InMemoryCrashStorage)
        one.save_raw_crash({}, None, ID)
        assert not other.has_crash(ID)


# Several


@pytest.mark.parametrize("as_sequence", [list, tuple])
def test_several_stores_are_one_that_saves_to_all(
    tmp_path: Path, as_sequence: Callable[[list[str]], Sequence[str]]
) -> None:
    with open_storage(as_sequence([f"{tmp_path}/a", f"fs://{tmp_path}/b", "memory:"])) as storage:
        assert isinstance(storage, PolyCrashStorage)
        storage.save_raw_crash({"a": 1}, None, ID)
        assert [store.get_raw_crash(ID) for store in storage.stores] == [{"a": 1}] * 3


@pytest.mark.parametrize("name", ["crashes", "what?umask=0", "100%25", "a b"])
def test_a_path_that_is_an_object_is_a_directory_whatever_it_is_called(
    tmp_path: Path, name: str
) -> None:
    assert roots_of(open_storage(tmp_path / name)) == [tmp_path / name]


def test_a_list_of_one_store_is_that_store(tmp_path: Path) -> None:
    with open_storage([str(tmp_path)]) as storage:
        assert isinstance(storage, FSPermanentStorage)


def test_no_store_at_all_is_refused() -> None:
    with pytest.raises(InvalidURI, match="no store is named"):
        open_storage([])


# Names


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        tmp_path / "config.toml",
        storage={
            "prod": f"{tmp_path}/prod",
            "single": ["prod"],
            "archive": [f"fs://{tmp_path}/archive", "cold"],
            "cold": [f"{tmp_path}/cold-a", f"{tmp_path}/cold-b"],
            "cycle": ["prod", "cycle"],
            "broken": [f"{tmp_path}/good", "nosuch://k:CANARY@b"],
        },
        queue={"waiting": "memory:"},
    )


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("prod", ["prod"]),
        ("single", ["prod"]),
        ("cold", ["cold-a", "cold-b"]),
        ("archive", ["archive", "cold-a", "cold-b"]),
        (["prod", "archive"], ["prod", "archive", "cold-a", "cold-b"]),
    ],
)
def test_a_name_opens_every_store_behind_it(
    tmp_path: Path, config: Config, where: str | list[str], names: list[str]
) -> None:
    with open_storage(where, config=config) as storage:
        assert roots_of(storage) == [tmp_path / name for name in names]
        assert isinstance(storage, PolyCrashStorage) == (len(names) > 1)


def test_names_and_uris_go_together(tmp_path: Path, config: Config) -> None:
    with open_storage(["prod", f"{tmp_path}/other"], config=config) as storage:
        assert roots_of(storage) == [tmp_path / "prod", tmp_path / "other"]


@pytest.mark.parametrize("name", ["nosuch", "cycle", "waiting"])
def test_a_name_without_a_store_is_refused(tmp_path: Path, config: Config, name: str) -> None:
    with pytest.raises(InvalidConfig, match=name):
        open_storage(["prod", name], config=config)
    assert os.listdir(tmp_path) == []


def test_a_name_is_looked_up_in_the_file_that_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f'[storage]\nprod = "{tmp_path}/prod"\n')
    monkeypatch.setenv("CRASHMOVER_CONFIG", str(tmp_path / "config"))
    with open_storage("prod") as storage:
        assert roots_of(storage) == [tmp_path / "prod"]


def test_a_broken_configuration_is_in_nobodys_way_who_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRASHMOVER_CONFIG", str(tmp_path / "none"))
    open_storage(["memory:", str(tmp_path)]).close()
    with pytest.raises(InvalidConfig, match="no such configuration file"):
        open_storage("prod")


# What is refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("crashes.d", "neither a URI"),
        ("nosuch://u:CANARY@h/db", "unknown scheme 'nosuch'; there are: .*fs.*memory"),
        ("nosuch://h/db?password=CANARY", "unknown scheme 'nosuch'"),
        ("fs://h:port:CANARY@/a", "fs"),
        ("fs:", "fs: the path is missing"),
        ("fs://?umask=027", "fs: the path is missing"),
        ("fs://var/crashes", "a fs URI has no host"),
        ("fs://u:CANARY@/var/crashes", "a fs URI has no user"),
        ("fs://:CANARY@/var/crashes", "a fs URI has no password"),
        ("fs:///a?umask=9", "option umask: .*octal number such as 027"),
        ("fs:///a?umask=777", "umask is 000 to 077"),
        ("fs:///a?umask=-1", "umask is 000 to 077"),
        ("fs:///a?unmask=027", "unknown option 'unmask'; there are: .*umask"),
        ("fs:///a?password=CANARY", "unknown option 'password'"),
        ("fs:///a?name_branch_base=..", "name_branch_base must be the name of a directory"),
        ("fs:///a?json_file_suffix=json", "a suffix starts with a dot"),
        ("fs:///a?json_file_suffix=.dump", "two suffixes are the same"),
        ("fs:///a?dump_field=raw_crash", "reserved"),
        ("fs:///a%00b", "fs"),
        ("memory:a", "a memory URI has no path"),
        ("memory://k:CANARY@h", "a memory URI has no host"),
        ("memory:?password=CANARY", "unknown option 'password'; there are: none"),
    ],
)
def test_what_a_store_does_not_understand_is_refused_without_a_secret(text: str, why: str) -> None:
    with pytest.raises(InvalidURI, match=why) as caught:
        open_storage(["memory:", text])
    assert str(caught.value).isprintable()
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_a_list_with_one_bad_store_is_refused_as_a_whole(tmp_path: Path, config: Config) -> None:
    with pytest.raises(InvalidURI, match="unknown scheme 'nosuch'") as caught:
        open_storage("broken", config=config)
    assert "CANARY" not in str(caught.value)
    assert os.listdir(tmp_path) == []


# Third parties


class Package:
    """A package as pip installs it: a module, and metadata that announces a store in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.module = f"shelf_{uuid4().hex}"
        self.scheme = self.module.replace("_", "-")
        self.name = f"crashmover-{self.scheme}"

    def install(self, source: str, extras: str = "") -> None:
        (self.directory / f"{self.module}.py").write_text(source)
        info = self.directory / f"crashmover_{self.module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {self.name}\nVersion: 1.0\nProvides-Extra: driver\n"
        )
        (info / "entry_points.txt").write_text(
            f"[crashmover.storage]\n{self.scheme} = {self.module}:ShelfStorage {extras}\n"
        )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    return Package(site)


SHELF = """
from crashmover.errors import InvalidURI
from crashmover.external.memory import InMemoryCrashStorage

class ShelfStorage(InMemoryCrashStorage):
    @classmethod
    def from_uri(cls, uri):
        storage = cls()
        storage.uri = str(uri)
        storage.boards = uri.options(boards=int).get("boards")
        return storage
"""


def test_the_store_of_an_installed_package_is_found_by_its_scheme(package: Package) -> None:
    package.install(SHELF)
    with open_storage(f"{package.scheme}://wall?boards=3") as storage:
        assert type(storage).__name__ == "ShelfStorage"
        assert storage.uri == f"{package.scheme}://wall?boards=3"
        assert vars(storage)["boards"] == 3
        storage.save_raw_crash({"a": 1}, None, ID)
        assert storage.get_raw_crash(ID) == {"a": 1}


def test_the_store_of_a_package_goes_together_with_others(package: Package) -> None:
    package.install(SHELF)
    with open_storage([f"{package.scheme}://wall", "memory:"]) as storage:
        storage.save_raw_crash({}, None, ID)
        assert [store.has_crash(ID) for store in storage.stores] == [True, True]


def test_an_unknown_scheme_is_refused_with_those_of_packages_too(package: Package) -> None:
    package.install(SHELF)
    with pytest.raises(
        InvalidURI, match=rf"unknown scheme 'nosuch'; there are: .*{package.scheme}"
    ):
        open_storage("nosuch://wall")


def test_a_package_is_not_imported_before_its_scheme_is_opened(package: Package) -> None:
    package.install("raise RuntimeError('imported')")
    open_storage("memory:").close()
    with pytest.raises(InvalidURI):
        open_storage("nosuch:")
    assert package.module not in sys.modules


@pytest.mark.parametrize(("extras", "shown"), [("[driver]", "[driver]"), ("", "")])
def test_a_missing_driver_is_said_with_the_command_that_installs_it(
    package: Package, extras: str, shown: str
) -> None:
    package.install("import driver_of_the_shelf", extras)
    uri = f"{package.scheme}://u:CANARY@wall"
    with pytest.raises(MissingExtra) as caught:
        open_storage(uri)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(f"{package.scheme}: ")
    assert "'driver_of_the_shelf'" in text
    assert text.endswith(f"pip install '{package.name}{shown}'")
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("class Shelf:\n    pass", "AttributeError: module '.*' has no attribute 'ShelfStorage'"),
        ("from crashmover import Nosuch", "ImportError: cannot import name 'Nosuch' from .*"),
    ],
)
def test_a_package_that_is_broken_is_said_in_one_line(
    package: Package, source: str, why: str
) -> None:
    package.install(source)
    with pytest.raises(
        MissingExtra, match=rf"\A{package.scheme}: {package.name} is broken: {why}\Z"
    ):
        open_storage(f"{package.scheme}:")
