# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A new kind of part cannot be forgotten: the type checker names each place that has to know it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crashmover.crash import COLLECTED, MARKERS, Kind, marker_of
from crashmover.testing.samples import contents_of, some_kinds

_ROOT = Path(__file__).parents[1]
_LAST = f'    {list(Kind)[-1].name} = "{list(Kind)[-1]}"\n'
_NEW = '    CRASH_REPORT = "crash_report"\n'


def test_every_kind_belongs_to_a_marker() -> None:
    assert all(kind.marker in MARKERS for kind in Kind)
    assert {kind for kind in Kind if kind.marker is Kind.RAW_CRASH} == COLLECTED
    for kinds in some_kinds():
        assert marker_of(kinds) in {kind.marker for kind in kinds}


def test_every_kind_has_a_sample() -> None:
    for kind in Kind:
        assert {key[0] for key in contents_of(kind)} == {kind}


@pytest.mark.slow
def test_the_type_checker_names_each_place_that_has_to_know_a_new_kind(tmp_path: Path) -> None:
    shutil.copytree(_ROOT / "crashmover", tmp_path / "crashmover")
    shutil.copy(_ROOT / "setup.cfg", tmp_path)
    file = tmp_path / "crashmover" / "kinds.py"
    text = file.read_text()
    assert text.count(_LAST) == 1
    file.write_text(text.replace(_LAST, _LAST + _NEW))
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "crashmover"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^crashmover/(\S+?):\d+: error: .*CRASH_REPORT", run.stdout, re.MULTILINE)
    assert set(found) == {
        "cli/get.py",
        "cli/overview.py",
        "cli/save.py",
        "cli/selecting.py",
        "engine/checker.py",
        "engine/loading.py",
        "external/fs/layouts.py",
        "kinds.py",
        "soundness.py",
        "testing/samples.py",
    }, run.stdout
