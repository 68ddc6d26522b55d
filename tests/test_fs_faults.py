# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store: a save that is killed, or refused, at each of its calls in turn."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fs_faults
from tests.conftest import Figures, over_grounds

QUICK = [name for name in fs_faults.SCENARIOS if not name.startswith("group")]
SLOW = [
    pytest.param(name, marks=[pytest.mark.slow, pytest.mark.timeout(300)])
    for name in fs_faults.SCENARIOS
    if name not in QUICK
]

scenarios = pytest.mark.parametrize("scenario", [*QUICK, *SLOW])
grounds = pytest.mark.parametrize("ground", over_grounds(), indirect=True)


def calls_tried(figures: Figures, *args: str | Path) -> int:
    """Run the program; return how many calls it has tried, all of them without harm."""
    command = [sys.executable, "-m", "tests.fs_faults", *args]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["broken"] == []
    figures(calls=found["calls"], **found["seen"])
    return int(found["calls"])


@scenarios
def test_whatever_call_is_the_last_no_crash_is_torn_and_the_next_save_completes(
    tmp_path: Path, figures: Figures, scenario: str
) -> None:
    assert calls_tried(figures, "kill", scenario, tmp_path) > 10


@grounds
@pytest.mark.parametrize("scenario", QUICK)
def test_nor_is_it_on_other_grounds(ground: Path, figures: Figures, scenario: str) -> None:
    assert calls_tried(figures, "kill", scenario, ground) > 10


@scenarios
@pytest.mark.parametrize(("error", "how"), [("EIO", "once"), ("ENOSPC", "lasting"), ("EIO", "all")])
def test_whatever_call_fails_it_is_said_and_no_crash_is_torn(
    tmp_path: Path, figures: Figures, scenario: str, error: str, how: str
) -> None:
    assert calls_tried(figures, "fail", scenario, tmp_path, error, how) > 10


@grounds
@pytest.mark.parametrize("scenario", QUICK)
@pytest.mark.parametrize("how", ["once", "all"])
def test_so_it_is_on_other_grounds(ground: Path, figures: Figures, scenario: str, how: str) -> None:
    assert calls_tried(figures, "fail", scenario, ground, "EIO", how) > 10
