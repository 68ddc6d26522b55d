# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Copies into and out of PostgreSQL while its backends are terminated, or the server is stopped
as if it had crashed: no half crash, nothing reported that is not there, and a rerun completes."""

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    by_crash_id,
    command_line,
    environment,
    is_harmless,
    manifest,
    put,
    run_process,
    samples,
    stored,
)
from tests.conftest import Figures
from tests.servers.postgresql import PostgreSQL

SEED = 1
CRASHES = samples(300)
SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]

Fault = Callable[[PostgreSQL], None]
Ended = subprocess.CompletedProcess[bytes]


def terminate(server: PostgreSQL) -> None:
    """End whatever any client is doing."""
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def crash(server: PostgreSQL) -> None:
    """End the server, which recovers as it starts."""
    server.crash()
    server.start()


FAULTS: dict[str, Fault] = {"terminated": terminate, "crashed": crash}

some_times = pytest.mark.parametrize("times", [1, pytest.param(40, marks=SLOW)])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("crashes") / "source", *CRASHES)


@dataclass
class Scene:
    """A server whose clients are disturbed now and then."""

    server: PostgreSQL
    fault: Fault
    directory: Path
    seen: Counter[str] = field(default_factory=Counter)
    _rng: random.Random = field(default_factory=lambda: random.Random(SEED))

    def new_uri(self, source: Path) -> str:
        """Return a store that has one of the crashes."""
        uri = self.server.uri(schema=self.server.new_name())
        assert run_process("copy", "-s", source, "-d", uri, CRASHES[0].crash_id).returncode == 0
        return uri

    def copy(self, source: str | Path, destination: str | Path) -> Ended:
        """Copy, and be disturbed at some moment."""
        self.report.unlink(missing_ok=True)
        line = command_line("copy", "-s", source, "-d", destination, "--report", self.report)
        pipe = subprocess.PIPE
        with subprocess.Popen(line, stdout=pipe, stderr=pipe, env=environment()) as process:
            wait_for_clients(self.server, process)
            self._wait_for_reports(self._rng.randrange(len(CRASHES)), process)
            self.seen["at_work" if process.poll() is None else "had_ended"] += 1
            self.fault(self.server)
            out, errors = process.communicate(timeout=TIMEOUT)
        return subprocess.CompletedProcess(line, process.returncode, out, errors)

    def _wait_for_reports(self, count: int, process: "subprocess.Popen[bytes]") -> None:
        """Return when so many crashes were reported, or none will be any more."""
        while process.poll() is None:
            if self.report.exists() and self.report.read_bytes().count(b"\n") >= count:
                return
            sleep(0.002)

    @property
    def report(self) -> Path:
        return self.directory / "report"

    def judge(self, ended: Ended, found: Path) -> None:
        """Look at how a copy has ended, and at what a reader finds, which lies there."""
        there = stored(found) if found.exists() else {}
        whole = {each.crash_id for each in CRASHES if manifest(each).items() <= there.items()}
        files = manifest(*(each for each in CRASHES if each.crash_id in whole))
        faults = [
            *(f"{name} is of a torn crash" for name in there.keys() - files.keys()),
            *(f"{i} is said to be there" for i in reported(self.report) if i not in whole),
            *badly_ended(ended, len(CRASHES) - len(whole)),
        ]
        assert not faults, f"seed {SEED}, after {self.seen}: {faults}"
        self.seen[{0: "got_over", 1: "some_failed", 4: "given_up"}[ended.returncode]] += 1


@pytest.fixture(params=list(FAULTS.values()), ids=list(FAULTS))
def scene(request: pytest.FixtureRequest, own_postgresql: PostgreSQL, tmp_path: Path) -> Scene:
    return Scene(own_postgresql, request.param, tmp_path)


@some_times
def test_what_fails_on_the_way_in_leaves_no_half_crash(
    scene: Scene, source: Path, figures: Figures, times: int
) -> None:
    for number in range(times):
        uri = scene.new_uri(source)
        ended = scene.copy(source, uri)
        found = scene.directory / f"found-{number}"
        assert run_process("copy", "-s", uri, "-d", found).returncode == 0
        scene.judge(ended, found)
        assert run_process("copy", "-s", source, "-d", uri).returncode == 0
        assert run_process("copy", "-s", uri, "-d", found).returncode == 0
        assert stored(found) == manifest(*CRASHES)
    figures(faults=times, **scene.seen)


@some_times
def test_what_fails_on_the_way_out_leaves_no_half_crash(
    scene: Scene, source: Path, figures: Figures, times: int
) -> None:
    uri = scene.new_uri(source)
    assert run_process("copy", "-s", source, "-d", uri).returncode == 0
    for number in range(times):
        destination = scene.directory / f"destination-{number}"
        scene.judge(scene.copy(uri, destination), destination)
        assert run_process("copy", "-s", uri, "-d", destination).returncode == 0
        assert stored(destination) == manifest(*CRASHES)
    figures(faults=times, **scene.seen)


def wait_for_clients(server: PostgreSQL, process: "subprocess.Popen[bytes]") -> None:
    """Return when somebody else is connected, or has been."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    deadline = monotonic() + TIMEOUT
    with server.connect() as connection:
        while process.poll() is None and monotonic() < deadline:
            row = connection.execute(count).fetchone()
            if row and row[0] > 1:
                return
            sleep(0.01)


def reported(report: Path) -> Iterator[str]:
    """Yield the crashes that were said to be there."""
    lines = report.read_bytes().splitlines(keepends=True) if report.exists() else []
    for crash_id, outcome in by_crash_id(line for line in lines if line.endswith(b"\n")).items():
        if outcome["status"] in ("copied", "skipped"):
            yield crash_id


def badly_ended(ended: Ended, left: int) -> Iterator[str]:
    """Yield what is wrong with how a copy has ended that has left so many crashes."""
    said = ended.stderr.decode()
    if ended.returncode not in ((1, 4) if left else (0, 1, 4)):
        yield f"exit code {ended.returncode}, and {left} are left: {said}"
    if "Traceback" in said or not is_harmless(said):
        yield f"it says {said}"
