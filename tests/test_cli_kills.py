# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A copy that is killed at any moment, many times: it, or one of its workers."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    Manifest,
    by_crash_id,
    command_line,
    environment,
    manifest,
    put,
    run_process,
    samples,
    snapshot,
    stored,
)
from tests.conftest import Figures, over_grounds
from tests.test_cli_processes import children_of

CRASHES = samples(600)
KILLS = 300
IN_A_ROW = 5  # before a copy is let to its end

quick_and_slow = pytest.mark.parametrize(
    ("ground", "kills"),
    [
        (None, 5),
        pytest.param(None, KILLS, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        *over_grounds(5),
    ],
    indirect=["ground"],
)


@quick_and_slow
def test_a_copy_may_be_killed_at_any_moment(
    ground: Path, tmp_path: Path, figures: Figures, kills: int
) -> None:
    source = put(tmp_path / "source", *CRASHES)
    before = snapshot(source)
    seconds = seconds_of_a_copy(source, ground / "whole")
    rng = random.Random(kills)
    seen: Counter[str] = Counter()
    for number in range(kills):
        destination = ground / f"destination-{number // IN_A_ROW}"
        report = tmp_path / f"report-{number}"
        who = kill_a_copy(source, destination, report, rng.uniform(0.05, seconds), rng)
        there = stored(destination)
        faults = [*torn(destination, there), *said_too_early(report, there)]
        assert not faults, f"kill {number} (seed {kills}): {faults}"
        seen[who] += 1
        seen[how_far(there)] += 1
        if number % IN_A_ROW == IN_A_ROW - 1 or number == kills - 1:
            done = run_process("copy", "-s", source, "-d", destination)
            assert (done.returncode, stored(destination)) == (0, manifest(*CRASHES))
    assert snapshot(source) == before
    figures(kills=kills, **seen)


def start_copy(source: Path, destination: Path, report: Path) -> "subprocess.Popen[bytes]":
    line = command_line("copy", "-s", source, "-d", destination, "--report", report)
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(line, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment())


def seconds_of_a_copy(source: Path, destination: Path) -> float:
    begun = time.monotonic()
    with start_copy(source, destination, source.with_name("report")) as process:
        assert process.wait(TIMEOUT) == 0
    return time.monotonic() - begun


def kill_a_copy(
    source: Path, destination: Path, report: Path, after: float, rng: random.Random
) -> str:
    """Kill a copy, or a worker of it that there is at that moment; return which."""
    destination.mkdir(exist_ok=True)
    with start_copy(source, destination, report) as process:
        time.sleep(after)
        workers = []
        with suppress(FileNotFoundError):  # it has ended
            workers = children_of(process)
        if workers and rng.random() < 0.3:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
            process.wait(TIMEOUT)
            return "workers"
        process.kill()
        process.wait(TIMEOUT)
        wait_for_the_end_of(workers)
    return "copies"


def wait_for_the_end_of(pids: list[int]) -> None:
    """Those that lose who has started them are killed by the system, which may take a moment."""
    deadline = time.monotonic() + TIMEOUT
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives its copy"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def torn(destination: Path, there: Manifest) -> Iterator[str]:
    """Yield the crashes that a reader finds and that are not whole."""
    for crash in CRASHES:
        if crash.path(destination).exists() and not manifest(crash).items() <= there.items():
            yield f"{crash.crash_id} is torn"


def said_too_early(report: Path, there: Manifest) -> Iterator[str]:
    """Yield the crashes that were reported and are not there."""
    lines = report.read_bytes().splitlines(keepends=True) if report.exists() else []
    reported = by_crash_id(line for line in lines if line.endswith(b"\n"))
    for crash in CRASHES:
        outcome = reported.get(crash.crash_id, {"status": "not said"})
        is_there = manifest(crash).items() <= there.items()
        if outcome["status"] in ("copied", "skipped") and not is_there:
            yield f"{crash.crash_id} was {outcome['status']} and is not there"


def how_far(there: Manifest) -> str:
    left = len(manifest(*CRASHES).items() - there.items())
    if left == 0:
        return "all_there"
    return "some_there" if any("/." not in name for name in there) else "none_there"
