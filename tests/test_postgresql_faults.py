# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Copies into and out of PostgreSQL while its backends are terminated, once or again and again, or
the server is stopped as if it had crashed, or is gone for good: no half crash, nothing reported
that is not there, one line says why, and a rerun completes."""

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    by_crash_id,
    is_harmless,
    manifest,
    put,
    run_process,
    samples,
    start,
    stored,
)
from tests.conftest import Figures
from tests.servers.postgresql import PostgreSQL

SEED = 1
CRASHES = samples(400)
WORKERS = 2
IN_HAND = 250
"""More crashes than a copy by so many has in hand, with those whose lines a pipe takes."""

SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]

Process = subprocess.Popen[bytes]
Fault = Callable[[PostgreSQL, Process], AbstractContextManager[None]]
"""What happens to the server while a copy goes on, until it has ended."""

Ended = subprocess.CompletedProcess[bytes]


def terminate(server: PostgreSQL) -> None:
    """End whatever any client is doing."""
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


@contextmanager
def terminated(server: PostgreSQL, _process: Process) -> Iterator[None]:
    """Once."""
    terminate(server)
    yield


@contextmanager
def crashed(server: PostgreSQL, _process: Process) -> Iterator[None]:
    """The server recovers as it starts."""
    server.crash()
    server.start()
    yield


@contextmanager
def disturbed(server: PostgreSQL, process: Process) -> Iterator[None]:
    """Whatever any client is doing is ended again and again."""
    pauses = random.Random(SEED)

    def go_on() -> None:
        while process.poll() is None:
            terminate(server)
            sleep(pauses.uniform(0, 0.1))

    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(go_on)
        yield
        disturbing.result()


@contextmanager
def down(server: PostgreSQL, _process: Process) -> Iterator[None]:
    """The server does not come back as long as anybody waits for it."""
    server.crash()
    try:
        yield
    finally:
        server.start()


PASSING: dict[str, Fault] = {"terminated": terminated, "crashed": crashed}
LASTING: dict[str, Fault] = {"disturbed": disturbed, "down": down}

some_times = pytest.mark.parametrize(
    ("scene", "times"),
    [
        ("terminated", 1),
        *(pytest.param(fault, 40, marks=SLOW) for fault in PASSING),
        *(pytest.param(fault, 5, marks=SLOW) for fault in LASTING),
    ],
    indirect=["scene"],
)


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
        """Copy, and be disturbed at some moment.

        Who reads the report reads so many lines, and no more until that has happened: so the copy
        comes to a halt before its end, as the pipe takes no more either.
        """
        where = ("-s", source, "-d", destination, "--report", "/dev/stdout")
        with start("copy", *where, "--workers", str(WORKERS)) as process:
            assert process.stdout
            count = self._rng.randrange(1, len(CRASHES) - IN_HAND)
            lines = [process.stdout.readline() for _ in range(count)]
            assert process.poll() is None, "it has ended"
            with self.fault(self.server, process):
                rest, errors = process.communicate(timeout=TIMEOUT)
        out = b"".join((*lines, rest))
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def judge(self, ended: Ended, found: Path) -> None:
        """Look at how a copy has ended, and at what a reader finds, which lies there."""
        there = stored(found) if found.exists() else {}
        whole = {each.crash_id for each in CRASHES if manifest(each).items() <= there.items()}
        files = manifest(*(each for each in CRASHES if each.crash_id in whole))
        faults = [
            *(f"{name} is of a torn crash" for name in there.keys() - files.keys()),
            *(f"{i} is said to be there" for i in reported(ended) if i not in whole),
            *badly_ended(ended, len(CRASHES) - len(whole)),
        ]
        assert not faults, f"seed {SEED}, after {self.seen}: {faults}"
        self.seen[{0: "got_over", 1: "some_failed", 4: "given_up"}[ended.returncode]] += 1


@pytest.fixture
def scene(request: pytest.FixtureRequest, own_postgresql: PostgreSQL, tmp_path: Path) -> Scene:
    return Scene(own_postgresql, (PASSING | LASTING)[request.param], tmp_path)


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


def reported(ended: Ended) -> Iterator[str]:
    """Yield the crashes that were said to be there."""
    lines = ended.stdout.splitlines(keepends=True)
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
    reasons = [line for line in said.splitlines() if line.startswith("crashmover: ")]
    if len(reasons) != (ended.returncode == 4):
        yield f"it gives {len(reasons)} reasons: {said}"
