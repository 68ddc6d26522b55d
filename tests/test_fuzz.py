# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A fuzzer, led by what of the code is reached, looks for bytes that any parser takes for what they
are not, or refuses by anything but the one error that is for it."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import Figures, missing, wanted
from tests.fuzzing.targets import TARGETS

SEED = 1
RUNS = 10_000
SLOW = {"uri": 3_000, "config": 3_000}  # whose runs take longer

REACHED = re.compile(r"DONE\s+cov: (\d+) ")


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_fuzzer_begins_with_is_taken_for_what_it_is(name: str, figures: Figures) -> None:
    """So are the inputs that it has once found to matter."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)
    figures(inputs=len(TARGETS[name].seeds))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_finds_nothing(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, figures: Figures
) -> None:
    wanted(request, "atheris")
    if not find_spec("atheris"):
        missing("atheris", "no module of that name")
    runs = SLOW.get(name, RUNS)
    options = [f"-runs={runs}", f"-seed={SEED}", "-max_len=400", "-len_control=0", "-timeout=20"]
    line = [sys.executable, "-m", "tests.fuzzing", name, str(tmp_path / "corpus"), *options]
    done = subprocess.run(
        [*line, f"-artifact_prefix={tmp_path}/found-"],
        capture_output=True,
        cwd=Path(__file__).parents[1],
        timeout=580,
    )
    found = {path.name: path.read_bytes() for path in tmp_path.glob("found-*")}
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0 and not found, f"seed {SEED}: {found}\n{said[-3000:]}"
    reached = REACHED.search(said)
    assert reached, said[-3000:]
    figures(
        runs=runs,
        places_reached=int(reached[1]),
        inputs_kept=len(list((tmp_path / "corpus").iterdir())),
    )
