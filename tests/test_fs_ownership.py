# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Root is warned before it saves into somebody else's tree.

Where root runs these tests, the tree is given away.  Where anybody else does, the tree is theirs,
and the process is made believe that it is root.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover.external.fs.modes import another_owner
from tests.cli_helpers import Argument, manifest, put, run, sample, stored

ONE = sample(1)
SOMEBODY = 4_123_456  # whom no machine has

GiveAway = Callable[[Path], Path]


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> GiveAway:
    """Make a directory somebody else's than root's, and us root; return it."""

    def give(directory: Path) -> Path:
        directory.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(directory, SOMEBODY, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 0)
        return directory

    return give


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", ONE)


def warnings_of(*args: Argument) -> list[str]:
    """The directories that a command warns of, each once."""
    result = run("--log-format", "json", *args)
    assert result.exit_code == 0
    messages = [json.loads(line) for line in result.stderr.splitlines()]
    warnings = [each["message"] for each in messages if each["level"] == "warning"]
    assert all("it belongs to " in text and "root's" in text for text in warnings)
    return [text.removeprefix("fs://").partition(":")[0] for text in warnings]


def test_an_owner_is_told_by_name_or_else_by_number(tmp_path: Path, give_away: GiveAway) -> None:
    owner = another_owner(give_away(tmp_path / "theirs"))
    uid = (tmp_path / "theirs").stat().st_uid
    assert owner == f"the user {uid}" if uid == SOMEBODY else owner
    assert another_owner(tmp_path / "missing") is None


def test_a_copy_as_root_into_anothers_tree_warns_once_and_copies(
    source: Path, tmp_path: Path, give_away: GiveAway
) -> None:
    theirs, others = give_away(tmp_path / "theirs"), tmp_path / "others"
    args = ("copy", "-s", source, "-d", others, "-d", theirs)
    assert warnings_of(*args, "--dry-run") == []
    assert warnings_of(*args) == [str(theirs)]
    assert stored(theirs) == stored(others) == manifest(ONE)


def test_a_save_as_root_into_anothers_tree_warns(tmp_path: Path, give_away: GiveAway) -> None:
    raw, theirs = tmp_path / "raw.json", give_away(tmp_path / "theirs")
    raw.write_bytes(b"{}")
    save = ("save", "--raw-crash", raw, ONE.crash_id)
    assert warnings_of(*save, "-d", theirs) == [str(theirs)]
    assert warnings_of(*save, "-d", tmp_path / "not" / "yet") == []


def test_a_source_is_warned_of_only_if_crashes_are_removed_from_it(
    source: Path, tmp_path: Path, give_away: GiveAway
) -> None:
    args = ("copy", "-s", give_away(source), "-d")
    assert warnings_of(*args, tmp_path / "first") == []
    assert warnings_of(*args, tmp_path / "second", "--remove-source") == [str(source)]
    assert stored(source) == {}


def test_whoever_is_not_root_is_not_warned(
    source: Path, tmp_path: Path, give_away: GiveAway, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = give_away(tmp_path / "theirs")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert warnings_of("copy", "-s", source, "-d", theirs) == []
