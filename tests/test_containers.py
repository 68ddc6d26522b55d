# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Containers: no home directory, and no line in /etc/passwd for the uid."""

import json
import os
from pathlib import Path

import pytest

from crashmover import QueueName, StorageURI, open_queue
from crashmover.errors import InvalidURI, masked
from tests.cli_helpers import (
    manifest,
    processed_crash,
    put,
    run,
    sample,
    samples,
    stored,
)
from tests.conftest import Figures
from tests.other_users import OtherUser
from tests.other_users import other_user as other_user

HOMES: dict[str, dict[str, str]] = {
    "no variable": {},
    "an empty one": {"HOME": ""},
    "the root": {"HOME": "/"},
    "a relative one": {"HOME": "home"},
    "one that is not there": {"HOME": "/nonexistent"},
    "a device": {"HOME": "/dev/null"},
    "a directory of state that cannot be": {"XDG_STATE_HOME": "/dev/null/state"},
    "a directory of configuration that cannot be": {"XDG_CONFIG_HOME": "/dev/null/config"},
    "relative directories": {"XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state"},
}


# Without a home


@pytest.mark.slow
@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
def test_without_a_home_every_command_does_its_work_or_says_what_is_missing(
    other_user: OtherUser, figures: Figures, home: dict[str, str]
) -> None:
    root = other_user.home
    crashes = samples(6)
    source, copied = put(root / "source", *crashes), root / "copied"
    first = crashes[0].crash_id
    raw = crashes[0].path(source)
    q = ["-q", f"sqlite:{root}/queue.db"]
    commands: list[tuple[int, list[str]]] = [
        (0, ["copy", "-s", f"{source}", "-d", f"{copied}", "--verify"]),
        (0, ["check", "-s", f"{source}", "-d", f"{copied}", "--digest"]),
        (0, ["list", "-s", f"{copied}"]),
        (0, ["get", "-s", f"{copied}", first]),
        (0, ["save", "-d", f"{copied}", "--raw-crash", f"{raw}", first]),
        (0, ["doctor", "-s", f"{source}", "-d", f"{copied}"]),
        (0, ["queue-publish", *q, "--create", first]),
        (0, ["queue-pull", *q, "--wait", "0"]),
        (0, ["remove", "-s", f"{copied}", first]),
        (0, ["config"]),
        (0, ["config", "--json"]),
        (2, ["doctor"]),
        (2, ["list", "-s", "prod"]),
        (2, ["queue-pull", "-q", "prod"]),
        (2, ["--config", "~/config.toml", "list", "-s", "prod"]),
    ]
    for code, args in commands:
        done = other_user.run(*args, env=home)
        assert done.returncode == code, (args, done.stderr)
        assert "Traceback" not in done.stderr
        assert code == 0 or done.stderr.count("\n") == 1, done.stderr
    figures(commands=len(commands), homes=1)


@pytest.mark.slow
@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
def test_without_a_home_a_malformed_message_stays_and_the_others_are_copied(
    other_user: OtherUser, figures: Figures, home: dict[str, str]
) -> None:
    crashes = samples(6)
    root = other_user.home
    source, copied = put(root / "source", *crashes), root / "copied"
    uri = f"sqlite:{root}/queue.db"
    with open_queue(uri) as queue:
        queue.create()
        bodies = [crash.crash_id.encode() for crash in crashes]
        queue.send_messages(QueueName.STANDARD, [*bodies[:3], b"no crash id", *bodies[3:]])
    for path in root.glob("queue.db*"):
        path.chmod(0o777)
    where = ["-s", f"{source}", "-d", f"{copied}"]
    done = other_user.run("copy", *where, "-q", uri, "--wait", "0", env=home)
    assert done.returncode == 0, done.stderr
    assert "a malformed message stays: " in done.stderr
    assert "Traceback" not in done.stderr
    assert stored(copied) == manifest(*crashes)
    figures(copied=len(crashes), malformed=1)


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"HOME": ""}, {"HOME": "home"}])
def test_a_name_without_a_home_is_refused_with_a_way_out(
    other_user: OtherUser, given: dict[str, str]
) -> None:
    done = other_user.run("list", "-s", "prod", env=given)
    assert done.returncode == 2
    expected = (
        "no such store 'prod': there is no configuration file: no home directory; use --config"
    )
    assert expected in done.stderr
    shown = other_user.run("config", "--json", env=given)
    assert json.loads(shown.stdout)["file"] == {"path": None, "exists": False, "from": "default"}


@pytest.mark.slow
def test_without_a_home_the_shell_completes_nothing_and_says_nothing(
    other_user: OtherUser,
) -> None:
    words = {"COMP_WORDS": "crashmover list -s p", "COMP_CWORD": "3"}
    variable = {"_PYTHON _M CRASHMOVER_COMPLETE": "bash_complete"}
    done = other_user.run(env=words | variable)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_home_that_is_no_directory_is_one_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    home = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": ""}
    listed = run("list", "-s", "prod", env=home)
    assert listed.exit_code == 2 and "there is no configuration file" in listed.stderr
    put(tmp_path / "store", sample())
    store = {"CRASHMOVER_SOURCE": str(tmp_path / "store")}
    assert run("doctor", env=home | store).exit_code == 0


# How a path is written


def test_a_relative_path_with_a_slash_is_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crashes = samples(3)
    put(tmp_path / "data" / "crashes", *crashes)
    assert run("copy", "-s", "data/crashes", "-d", "data/more?umask=027").exit_code == 0
    assert stored(tmp_path / "data" / "more") == manifest(*crashes)
    assert StorageURI.parse("data/crashes") == StorageURI.parse("fs:data/crashes")


@pytest.mark.parametrize(
    "text", ["127.0.0.1:5432/db", "user@host/db", "1u:secret@host/db", "a b:c/d", "wo/rd@host"]
)
def test_what_may_be_a_piece_of_a_uri_is_no_relative_path(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidURI, match=r"write \./ before") as caught:
        StorageURI.parse(text)
    assert text not in str(caught.value)
    assert StorageURI.parse(f"./{text}").path == f"./{text}"


@pytest.mark.parametrize("scheme", ["FS", "Fs", "fs"])
def test_a_scheme_may_be_in_any_case(tmp_path: Path, scheme: str) -> None:
    put(tmp_path, sample())
    assert run("list", "-s", f"{scheme}://{tmp_path}").exit_code == 0
    assert StorageURI.parse("S3://Bucket/K").scheme == "s3"
    assert StorageURI.parse("S3://Bucket/K").host == "Bucket"


TILDES: dict[str, list[str]] = {
    "-s": ["list", "-s", "~/crashes"],
    "-d": ["copy", "-s", "./nothere", "-d", "~"],
    "a user's": ["list", "-s", "~root/crashes"],
    "a URI": ["list", "-s", "fs:~/crashes"],
    "a queue": ["queue-publish", "-q", "sqlite:~/q.db", "--create"],
    "the quarantine": ["queue-pull", "-q", "sqlite:./q.db?quarantine=~/x"],
    "--config": ["--config", "~/config.toml", "list", "-s", "prod"],
    "a name": ["--config", "named.toml", "list", "-s", "t"],
    "a queue's name": ["--config", "named.toml", "queue-pull", "-q", "t"],
    "a name in doctor": ["--config", "named.toml", "doctor", "-s", "t"],
    "-o": ["get", "-s", "./nothere", sample().crash_id, "--all", "-o", "~/here"],
}


@pytest.mark.parametrize("args", TILDES.values(), ids=TILDES)
def test_a_tilde_is_refused_in_words_and_no_directory_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = '[storage]\nt = "~/crashes"\n[queue]\nt = "sqlite:~/q.db"\n'
    (tmp_path / "named.toml").write_text(names)
    done = run(*args)
    assert done.exit_code == 2, done.stderr
    assert "~ is not expanded here; write the full path" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["named.toml"]


def test_the_message_names_the_option_or_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named.toml").write_text('[storage]\nt = "~/crashes"')
    assert "'-s' / '--source'" in run(*TILDES["-s"]).stderr
    assert "storage.t: ~" in run(*TILDES["a name"]).stderr


# What is masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "from s3://b?endpoint_url=http://127.0.0.1:19011: it needs",
            "from s3://b?endpoint_url=http://127.0.0.1:19011: it needs",
        ),
        ("s3://b?endpoint_url=http://u:pw@h:1: x", "s3://***@h:1: x"),
        ("s3://b?endpoint_url=http://h/?token=S: y", "s3://b?endpoint_url=***: y"),
        ("s3://b?endpoint_url=http%3A//u%3Apw%40h: x", "s3://b?endpoint_url=***: x"),
        (
            "s3://b?endpoint_url=http://h:1&secret=x: z",
            "s3://b?endpoint_url=http://h:1&secret=***: z",
        ),
        ("postgresql://h/d?password=a:b:c: it", "postgresql://h/d?password=***: it"),
    ],
)
def test_an_endpoint_is_shown_and_the_colon_behind_it(text: str, shown: str) -> None:
    assert masked(text) == shown


# What get leaves out


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_get_all_says_what_it_leaves_out(tmp_path: Path, quiet: list[str]) -> None:
    crash = sample(processed=processed_crash())
    source = put(tmp_path / "source", crash)
    said = "processed_crash: protected fields left out; --unredacted keeps them"
    for more, expected in (([], not quiet), (["--unredacted"], False)):
        here = tmp_path / "here"
        done = run(*quiet, "get", "-s", source, crash.crash_id, "--all", *more, "-o", here)
        assert done.exit_code == 0
        assert (said in done.stderr) is expected
    public = sample(2, processed=b'{"signature": "f"}')
    put(source, public)
    done = run("get", "-s", source, public.crash_id, "--all", "-o", tmp_path / "there")
    assert (done.exit_code, done.stderr) == (0, "")
