# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Config: named stores and queues, every way to get the file wrong, and no secret shown."""

import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashmover.config import Config, default_path, is_name
from crashmover.errors import InvalidConfig

SECRET = "s3://k:CANARY@b"

quick = settings(deadline=None, max_examples=100)

# What such files are made of, in any order, and bytes that are no text.
marks = st.sampled_from(
    [b"[", b"]", b" = ", b'"', b"'", b"\n", b"\r\n", b"#", b"{", b"}", b",", b"."]
)
words = st.sampled_from([b"[storage]\n", b"[queue]\n", b"a", b'"a"', b'["b", "a"]', b"5"])
no_text = st.sampled_from([b"\0", b"\xff", b"\xef\xbb\xbf"])
pieces = st.lists(marks | words | no_text)
files = st.one_of(st.binary(), st.text().map(str.encode), pieces.map(b"".join))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The platform's place for the file, which is not there yet."""
    monkeypatch.delenv("CRASHMOVER_CONFIG", raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    path = default_path()
    assert path
    return path


def config_of(file: Path, text: str) -> Config:
    file.write_text(text, "utf-8")
    return Config.load(file)


def refusal(file: Path) -> str:
    """Why a file is refused: one line that names it; and a traceback without the secret."""
    with pytest.raises(InvalidConfig) as caught:
        Config.load(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    return text


# Where the file is


def test_without_a_file_nothing_has_a_name(at_home: Path) -> None:
    config = Config.load()
    assert (config.path, config.storage, config.queue) == (at_home, {}, {})


def test_the_file_is_where_the_platform_keeps_such_files(at_home: Path) -> None:
    at_home.parent.mkdir(parents=True)
    at_home.write_text('[storage]\nprod = "./home"\n')
    assert Config.load().stores("prod") == ["./home"]


def test_the_environment_names_another_file_and_an_argument_goes_before_it(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home.parent.mkdir(parents=True)
    for path in (at_home, tmp_path / "environment", tmp_path / "argument"):
        path.write_text(f'[storage]\nprod = "./{path.name}"\n')
    monkeypatch.setenv("CRASHMOVER_CONFIG", str(tmp_path / "environment"))
    assert Config.load().stores("prod") == ["./environment"]
    assert Config.load(tmp_path / "argument").stores("prod") == ["./argument"]
    assert Config.load(str(tmp_path / "argument")).stores("prod") == ["./argument"]


def test_an_empty_variable_names_no_file(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRASHMOVER_CONFIG", "")
    assert Config.load().path == at_home


def test_a_file_that_was_asked_for_must_be_there(
    at_home: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(file) == f"{file}: no such configuration file"
    monkeypatch.setenv("CRASHMOVER_CONFIG", str(file))
    with pytest.raises(InvalidConfig, match="no such configuration file"):
        Config.load()


def test_a_directory_is_no_file(file: Path) -> None:
    file.mkdir()
    assert refusal(file) == f"{file}: cannot be read: Is a directory"


# What is refused

REFUSED = {
    "unknown section": (f'[storages]\nprod = "{SECRET}"', r"unknown section \[storages\]"),
    "one unknown section of several": (
        f'[storage]\nprod = "{SECRET}"\n[logging]\nlevel = 1',
        r"unknown section \[logging\]; there are: storage, queue",
    ),
    "no section": (f'prod = "{SECRET}"', r"unknown section \[prod\]"),
    "a section that is a URI": (f'storage = "{SECRET}"', "storage must be a section"),
    "a section that is a list": (f'queue = ["{SECRET}"]', "queue must be a section"),
    "a section twice as a table": (
        f'[[storage]]\nprod = "{SECRET}"',
        "storage must be a section",
    ),
    "number": ("[storage]\nprod = 5", r"storage\.prod must be a URI or a list"),
    "truth": ("[queue]\nprod = true", r"queue\.prod must be a URI or a list"),
    "date": ("[storage]\nprod = 2026-11-20", r"storage\.prod must be a URI or a list"),
    "empty": ('[storage]\nprod = ""', r"storage\.prod must be a URI or a list"),
    "empty list": ("[storage]\nprod = []", r"storage\.prod must be a URI or a list"),
    "list with an empty text": (
        f'[storage]\nprod = ["{SECRET}", ""]',
        r"storage\.prod must be a URI or a list",
    ),
    "list with a number": (
        f'[storage]\nprod = ["{SECRET}", 5]',
        r"storage\.prod must be a URI or a list",
    ),
    "list in a list": (
        f'[storage]\nprod = [["{SECRET}"]]',
        r"storage\.prod must be a URI or a list",
    ),
    "table": (f'[storage.prod]\nuri = "{SECRET}"', r"storage\.prod must be a URI or a list"),
    "name with a dot": (f'[storage]\na.b = "{SECRET}"', r"storage\.a must be a URI or a list"),
    "name with a blank": (f'[storage]\n"a b" = "{SECRET}"', r"storage.* name"),
    "name with a newline": (f'[storage]\n"a\\n" = "{SECRET}"', r"storage.* name"),
    "name of nothing": (f'[storage]\n"" = "{SECRET}"', r"storage.* name"),
    "name with an accent": (f'[storage]\n"\u00e9" = "{SECRET}"', r"storage.* name"),
    "name that is too long": (f'[storage]\n{"a" * 65} = "{SECRET}"', r"storage.* name"),
    "name and URI exchanged": (f'[storage]\n"{SECRET}" = "prod"', r"storage.* name"),
    "no quotes": (f"[storage]\nprod = {SECRET}", "not TOML: .*line 2"),
    "unclosed quotes": (f'[storage]\nprod = "{SECRET}', "not TOML: "),
    "bad escape": (f'[storage]\nprod = "{SECRET}\\d"', "not TOML: .*line 2"),
    "a name twice": (f'[storage]\nprod = "{SECRET}"\nprod = "{SECRET}"', "not TOML: "),
    "a section twice": (f'[storage]\nprod = "{SECRET}"\n[storage]', "not TOML: .*line 3"),
    "no equals sign": (f'[storage]\nprod "{SECRET}"', "not TOML: .*line 2"),
    "lists without end": ("[storage]\nprod = " + "[" * 5000, "nested|not TOML"),
    "null": (f'[storage]\nprod = "{SECRET}\0"', "not TOML: .*line 2"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_by_place_and_never_quoted(
    file: Path, text: str, why: str
) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidConfig, match=why):
        Config.load(file)
    refusal(file)


@pytest.mark.parametrize(
    "content",
    [
        f'[storage]\nprod = "{SECRET}\u00e9"'.encode("latin-1"),
        f'[storage]\nprod = "{SECRET}"'.encode("utf-16"),
        b"\xff",
    ],
    ids=["latin-1", "utf-16", "no text"],
)
def test_a_file_that_is_not_utf_8_is_refused_without_its_bytes(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert "not TOML: 'utf-8' codec can't decode" in refusal(file)


@quick
@given(content=files)
def test_any_bytes_are_a_configuration_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-config.toml"
    file.write_bytes(content)
    try:
        config = Config.load(file)
    except InvalidConfig as error:
        assert str(error).startswith(f"{file}: ")
    else:
        assert all(is_name(name) for name in (*config.storage, *config.queue))


def test_a_bad_configuration_is_a_value_error() -> None:
    assert issubclass(InvalidConfig, ValueError)


# What names stand for


def test_a_name_stands_for_a_uri_or_for_a_list_of_uris_and_names(file: Path) -> None:
    config = config_of(
        file,
        """
        # two buckets make the archive
        [storage]
        prod    = "s3://crashes-prod?region=us-west-2"
        archive = ["fs:///archive", "cold"]
        cold    = ["s3://cold-a", "s3://cold-b"]
        alias   = "archive"
        [queue]
        prod    = "pubsub://my-project/prod"
        """,
    )
    assert config.stores("prod") == ["s3://crashes-prod?region=us-west-2"]
    assert config.stores("cold") == ["s3://cold-a", "s3://cold-b"]
    assert config.stores("archive") == ["fs:///archive", "s3://cold-a", "s3://cold-b"]
    assert config.stores("alias") == config.stores("archive")
    assert config.queue == {"prod": "pubsub://my-project/prod"}


def test_two_lists_may_share_a_store(file: Path) -> None:
    config = config_of(
        file, '[storage]\nall = ["a", "b"]\na = ["c", "./a"]\nb = ["c", "./b"]\nc = "./c"\n'
    )
    assert config.stores("all") == ["./c", "./a", "./c", "./b"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('a = "a"', "a"),
        ('a = ["./x", "a"]', "a"),
        ('a = "b"\nb = "a"', "a"),
        ('a = ["./x", "b"]\nb = ["./y", "c"]\nc = ["./z", "b"]', "b"),
    ],
)
def test_a_list_that_contains_itself_is_refused_by_name(file: Path, text: str, name: str) -> None:
    config = config_of(file, f"[storage]\n{text}\n")
    with pytest.raises(InvalidConfig) as caught:
        config.stores("a")
    assert str(caught.value) == f"{file}: storage.{name} contains itself"


def test_a_name_that_is_not_there_is_refused_with_those_that_are(file: Path) -> None:
    config = config_of(file, f'[storage]\nprod = "{SECRET}"\ncold = ["lost"]\n[queue]\nq = "x:"\n')
    for asked, missing in {"nosuch": "nosuch", "q": "q", "cold": "lost"}.items():
        with pytest.raises(InvalidConfig) as caught:
            config.stores(asked)
        text = str(caught.value)
        assert f"named '{missing}' in {file} (there: cold, prod)" in text
        assert "./" in text, "a path that was mistaken for a name needs a hint"
        assert "CANARY" not in text


def test_a_configuration_that_is_no_file_is_not_called_one() -> None:
    with pytest.raises(InvalidConfig, match="named 'prod'") as caught:
        Config(storage={}).stores("prod")
    assert "None" not in str(caught.value)


def test_a_configuration_never_shows_what_its_names_stand_for(file: Path) -> None:
    config = config_of(file, f'[storage]\nprod = "{SECRET}"\n[queue]\nq = ["{SECRET}"]\n')
    assert "CANARY" not in f"{config} {config!r}"


@pytest.mark.parametrize("text", ["prod", "PROD-2", "_", "7", "a" * 64])
def test_a_name_is_neither_a_path_nor_a_uri(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "./a", "/a", "a/b", "a.b", "a:", "a b", "a\n", "\u00e9", "a" * 65]
)
def test_what_has_other_characters_is_no_name(text: str) -> None:
    assert not is_name(text)
