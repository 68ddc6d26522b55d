# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover config``: what is configured, where it stands, and no secret."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashmover import registry
from crashmover.errors import MissingExtra
from tests.canary import CANARY, IN_URI, is_shown
from tests.cli_helpers import assert_refused, is_harmless, run
from tests.test_canaries import BLANKS, MALFORMED, MALFORMED_QUEUES

Configure = Callable[[str], Path]

WHOLE = """
[storage]
prod    = "s3://crashes-prod?region=us-west-2"
archive = ["fs:///archive", "cold", "./mirror"]
cold    = ["s3://cold-a", "s3://cold-b"]
alias   = "prod"
db      = "postgresql://me:secret@db.example.com/crashes?schema=crashes"
[queue]
prod    = "pubsub://my-project/prod"
"""


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def shown(config: Path, **env: str) -> dict[str, Any]:
    """What is said as JSON."""
    result = run("--config", config, "config", "--json", env=env)
    said: dict[str, Any] = json.loads(result.stdout)
    return {"code": result.exit_code, **said}


def test_all_names_are_shown_as_they_are_written_and_what_they_stand_for(
    configure: Configure,
) -> None:
    config = configure(WHOLE)
    result = run("--config", config, "config")
    assert (
        result.stdout
        == f"""\
file  {config}  (--config)

store  alias    prod
                = s3://crashes-prod?region=us-west-2
store  archive  fs:///archive, cold, fs:./mirror
                = fs:///archive
                = s3://cold-a
                = s3://cold-b
                = fs:./mirror
store  cold     s3://cold-a
                s3://cold-b
store  db       postgresql://me:***@db.example.com/crashes?schema=crashes
store  prod     s3://crashes-prod?region=us-west-2
queue  prod     pubsub://my-project/prod
"""
    )
    assert (result.exit_code, result.stderr) == (0, "")


def test_everything_is_there_as_json(configure: Configure) -> None:
    config = configure(WHOLE)
    said = shown(config)
    assert said["code"] == 0
    assert said["file"] == {"path": str(config), "exists": True, "from": "--config"}
    assert said["storage"]["archive"] == {
        "value": ["fs:///archive", "cold", "fs:./mirror"],
        "uris": ["fs:///archive", "s3://cold-a", "s3://cold-b", "fs:./mirror"],
        "error": None,
    }
    assert said["queue"] == {
        "prod": {
            "value": ["pubsub://my-project/prod"],
            "uris": ["pubsub://my-project/prod"],
            "error": None,
        }
    }
    assert said["environment"] == {}


def test_it_says_which_file_is_used_and_who_says_so(configure: Configure, tmp_path: Path) -> None:
    config = configure("")
    asked = run("config", env={"CRASHMOVER_CONFIG": str(config)})
    assert (asked.exit_code, asked.stdout) == (0, f"file  {config}  (CRASHMOVER_CONFIG)\n")
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    usual = tmp_path / "crashmover" / "config.toml"
    assert run("config", env=home).stdout == f"file  {usual}  (default; not there)\n"
    usual.parent.mkdir()
    usual.write_text('[storage]\nhere = "./here"\n')
    assert run("config", env=home).stdout == (
        f"file  {usual}  (default)\n\nstore  here  fs:./here\n"
    )


def test_a_file_that_cannot_be_used_is_an_error(configure: Configure, tmp_path: Path) -> None:
    result = run("--config", tmp_path / "none", "config")
    assert (result.exit_code, result.stdout) == (
        2,
        f"file  {tmp_path}/none  (--config; not there)\n",
    )
    assert result.stderr == f"crashmover: {tmp_path}/none: no such configuration file\n"
    assert_refused(run("--config", configure("[storage"), "config", "--json"), 2, "not TOML")


def test_the_environment_is_shown(configure: Configure) -> None:
    config = configure('[storage]\ncold = "./cold"\n')
    env = {
        "CRASHMOVER_SOURCE": "cold postgresql://me:secret@h/db",
        "CRASHMOVER_DESTINATION": "",
        "CRASHMOVER_QUEUE": "sqlite:./a queue.db",
    }
    result = run("--config", config, "config", env=env)
    assert (
        result.stdout.partition("\n\n")[2]
        == """\
store  cold  fs:./cold

CRASHMOVER_SOURCE  cold, postgresql://me:***@h/db
                   = fs:./cold
                   = postgresql://me:***@h/db
CRASHMOVER_QUEUE   sqlite:./a%20queue.db
"""
    )
    said = shown(config, **env)["environment"]
    assert said["CRASHMOVER_SOURCE"]["uris"] == ["fs:./cold", "postgresql://me:***@h/db"]
    assert sorted(said) == ["CRASHMOVER_QUEUE", "CRASHMOVER_SOURCE"]


def test_what_is_wrong_is_said_where_it_stands_and_the_rest_is_shown(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = registry._load

    def without_s3(entry: Any) -> Any:
        if entry.name == "s3":
            raise MissingExtra("s3: no module named 'obstore'; try: pip install 'crashmover[s3]'")
        return load(entry)

    monkeypatch.setattr(registry, "_load", without_s3)
    config = configure(
        '[storage]\nloop = ["pool", "./a"]\npool = "loop"\nodd = ["./a", "fs://host/b"]\n'
        'lost = ["./a", "none"]\nscheme = "nosuch://me:secret@host"\nbucket = "s3://b"\n'
        'fine = "./fine"\n[queue]\ntwo = ["memory:", "memory:"]\n'
    )
    result = run("--config", config, "config", env={"CRASHMOVER_SOURCE": "none"})
    assert result.exit_code == 2
    lines = result.stdout.splitlines()[2:]
    assert (
        lines[0]
        == "store  bucket  s3://b: s3: no module named 'obstore'; try: pip install 'crashmover[s3]'"
    )
    assert lines[1] == "store  fine    fs:./fine"
    assert lines[2] == f"store  loop    pool, fs:./a: {config}: storage.loop contains itself"
    assert lines[3].startswith(f"store  lost    fs:./a, none: no store named 'none' in {config}")
    assert lines[4:6] == [
        "store  odd     fs:./a",
        "               fs://host/b: fs: a fs URI has no host",
    ]
    assert lines[7].startswith("store  scheme  nosuch://***@host: unknown scheme 'nosuch'")
    assert lines[8].startswith("queue  two     memory:, memory:: ")
    assert lines[10].startswith("CRASHMOVER_SOURCE  none: no store named 'none'")
    said = shown(config)
    assert said["code"] == 2
    assert said["storage"]["odd"]["uris"] == ["fs:./a"]
    assert said["storage"]["odd"]["error"] == "fs: a fs URI has no host"
    assert said["storage"]["loop"]["uris"] == []
    assert said["storage"]["fine"]["error"] is None


def test_no_secret_is_shown_of_any_uri(configure: Configure) -> None:
    def section(uris: list[str]) -> str:
        return "".join(f"n{number} = {json.dumps(uri)}\n" for number, uri in enumerate(uris))

    stores = [*MALFORMED, *BLANKS, f"postgresql://me:{IN_URI}@h/db", "s3://bucket/a"]
    queues = [*MALFORMED_QUEUES, f"sqlite:///{CANARY[:3]}.db"]
    config = configure(f"[storage]\n{section(stores)}[queue]\n{section(queues)}")
    for options in ([], ["--json"]):
        result = run("--config", config, "config", *options)
        assert result.exit_code == 2
        assert not is_shown(result.output), result.output
        assert is_harmless(result.stdout)


@pytest.mark.parametrize("variable", ["SOURCE", "DESTINATION", "QUEUE", "CONFIG"])
def test_no_secret_is_shown_of_the_environment(configure: Configure, variable: str) -> None:
    uris = [*MALFORMED, *MALFORMED_QUEUES, *BLANKS, f"postgresql://me:{IN_URI}@h/db"]
    for uri in uris:
        env = {"CRASHMOVER_CONFIG": str(configure("")), f"CRASHMOVER_{variable}": uri}
        for options in ([], ["--json"]):
            result = run("config", *options, env=env)
            assert not is_shown(result.output), (uri, result.output)
