# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The commands, of which each call to the kernel in turn is the last, or fails.

`tests.fs_faults` does the same between the store and Python, and much faster; what is whole is
judged as there.  Here nothing of the program is exchanged: strace stands between a whole process
and the kernel, so that no call goes unnoticed.  It counts those alone that are about the store's
own files, and not what the interpreter does when it starts.
"""

import json
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.fs.layouts import Layout
from crashmover.testing import CRASH_ID, crash_of
from tests import fs_faults
from tests.cli_helpers import is_harmless, run_process, statuses, without_risks
from tests.conftest import Figures, missing, wanted
from tests.fs_faults import SCENARIOS, Scenario

CALLS = {
    "close": "close",
    "copy_file_range": "copy_file_range",
    "fchmod": "fchmod",
    "flock": "flock",
    "fsync": "fsync,fdatasync",
    "ftruncate": "ftruncate",
    "mkdir": "?mkdir,mkdirat",
    "open": "openat",
    "rename": "?rename,?renameat,?renameat2",
    "syncfs": "syncfs",
    "unlink": "?unlink,unlinkat,?rmdir",
    "write": "write",
}
"""What changes something -> what the kernel calls it, on this machine or another."""

NEW = frozenset(CALLS) - {"ftruncate", "mkdir", "syncfs", "unlink"}
GROUP = frozenset({"rename", "syncfs"})


@dataclass(frozen=True)
class Way:
    """How a scenario is done by a command.

    :param calls: that it makes, of those that are tried
    :param after_a_death: whether it finds what a save has left that was killed
    """

    scenario: Scenario
    calls: frozenset[str]
    after_a_death: bool = False

    @property
    def is_copy(self) -> bool:
        return len(self.scenario.crash_ids) > 1

    def prepare(self, root: Path) -> None:
        """Lay down what is there before."""
        fs_faults.prepare(self.scenario, root)
        if self.after_a_death:
            for path in list(root.rglob(f"{CRASH_ID}.*")):
                path.with_name(durable.temporary_name(path.name)).write_bytes(b"left" * 999)

    def paths(self, root: Path) -> Iterator[Path]:
        """Yield all that it may touch in the store."""
        layout = Layout()
        keys = {*(self.scenario.before or {}), *self.scenario.saved}
        for crash_id in self.scenario.crash_ids:
            where = layout.directories(crash_id)[0]
            yield from (root.joinpath(*where[:depth]) for depth in range(len(where) + 1))
            for name in [layout.file_name(crash_id, *key) for key in sorted(keys)]:
                yield root.joinpath(*where, name)
                yield root.joinpath(*where, durable.temporary_name(name))


WAYS = {
    "new": Way(SCENARIOS["new"], NEW),
    "other dumps": Way(SCENARIOS["other dumps"], NEW | {"unlink"}),
    "group": Way(SCENARIOS["group"], GROUP | {"mkdir"}),
    "group replaced": Way(SCENARIOS["group replaced"], GROUP | {"unlink"}),
}
AFTER_A_DEATH = Way(SCENARIOS["other dumps"], NEW | {"ftruncate"}, after_a_death=True)


class Traced:
    """A command of a way that strace watches, done anew for each call.

    :param directory: on a file system where several crashes are forced to the disk by one call
    """

    def __init__(self, way: Way, directory: Path) -> None:
        self.way = way
        self.log = directory / "log"
        self.report = directory / "report"
        self.root = directory / "root"
        self._command = self._copy(directory) if way.is_copy else self._save(directory)

    def _save(self, directory: Path) -> list[str | Path]:
        files = []
        for (kind, name), data in self.way.scenario.saved.items():
            file = directory / f"{kind}{name}"
            file.write_bytes(data)
            files.append(f"--{kind.replace('_', '-')}")
            files.append(f"{name}={file}" if kind is Kind.DUMP else str(file))
        return ["save", "-d", self.root, *files, CRASH_ID]

    def _copy(self, directory: Path) -> list[str | Path]:
        with FSPermanentStorage(directory / "source") as source:
            for crash_id in self.way.scenario.crash_ids:
                source.save_crash(crash_of(self.way.scenario.saved, crash_id))
        options = ("--existing", "overwrite", "--workers", "1", "--report", self.report)
        return ["copy", "-s", directory / "source", "-d", self.root, *options]

    def run(self, call: str, injected: str) -> "subprocess.CompletedProcess[bytes]":
        """Prepare, and run the command; let something be injected when it makes a call."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.report.unlink(missing_ok=True)
        self.way.prepare(self.root)
        calls = CALLS[call]
        watched = [word for path in self.way.paths(self.root) for word in ("-P", str(path))]
        options = ["-e", f"trace={calls}", "-e", f"inject={calls}:{injected}", "-e", "signal=none"]
        prefix = ["strace", "-f", "-qq", "-o", str(self.log), *options, *watched]
        return run_process(*self._command, prefix=prefix)

    @property
    def calls_made(self) -> int:
        """How many of the calls there were that were watched, the last one included."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return sum("resumed>" not in line for line in lines)

    @property
    def injected(self) -> int:
        """How many of them were kept from being made."""
        return self.log.read_text("utf-8", "replace").count("(INJECTED)")

    def said_to_be_saved(self, ended: "subprocess.CompletedProcess[bytes]") -> set[str]:
        """The crashes that are there, if one believes what was said."""
        if not self.way.is_copy:
            return set(ended.stdout.decode().split())
        found = statuses(self.report) if self.report.exists() else {}
        return {crash_id for crash_id, status in found.items() if status == "copied"}


@pytest.fixture
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where strace can be used; in memory, so that no disk is waited for."""
    wanted(request, "strace")
    try:
        subprocess.run(["strace", "-o", "/dev/null", "true"], check=True, capture_output=True)
        made = tempfile.TemporaryDirectory(dir="/dev/shm")
    except (OSError, subprocess.CalledProcessError) as error:
        missing("strace", error)
    with made as name:
        yield Path(name)


# Killed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", [*WAYS.values(), AFTER_A_DEATH], ids=[*WAYS, "after a death"])
def test_whatever_call_is_the_last_that_the_kernel_sees_no_crash_is_torn(
    directory: Path, figures: Figures, way: Way
) -> None:
    traced = Traced(way, directory)
    seen: Counter[str] = Counter()
    made = {call for call in sorted(way.calls) if kill_at_each(traced, call, seen)}
    assert made == way.calls
    figures(kills=seen.total(), **seen)


def kill_at_each(traced: Traced, call: str, seen: Counter[str]) -> int:
    """Kill the command at each of these calls; return how many there are."""
    scenario, root = traced.way.scenario, traced.root
    for number in count(1):
        ended = traced.run(call, f"signal=SIGKILL:when={number}")
        if ended.returncode != -signal.SIGKILL:
            break
        assert traced.calls_made == number, traced.log.read_text()
        seen[fs_faults.what_is_there(scenario, root)] += 1
        broken = list(fs_faults.broken_promises(scenario, root, done=False))
        broken += fs_faults.unfinished(scenario, root)
        assert not broken, f"killed at {call} {number}: {broken}"
    assert ended.returncode == 0, ended.stderr
    assert not list(fs_faults.broken_promises(scenario, root, done=True))
    return number - 1


# Refused


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["error=EIO:when={}", "error=ENOSPC:when={}+"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_whatever_call_the_kernel_refuses_it_is_said_and_nothing_is_torn(
    directory: Path, figures: Figures, way: Way, fault: str
) -> None:
    traced = Traced(way, directory)
    seen: Counter[str] = Counter()
    made = {call for call in sorted(way.calls) if refuse_each(traced, call, fault, seen)}
    assert made == way.calls
    figures(refusals=seen.total(), **seen)


def refuse_each(traced: Traced, call: str, fault: str, seen: Counter[str]) -> int:
    """Let each of these calls fail; return how many there are."""
    scenario, root = traced.way.scenario, traced.root
    for number in count(1):
        ended = traced.run(call, fault.format(number))
        if not traced.injected:
            break
        seen["said" if ended.returncode else "got_over"] += 1
        broken = list(wrong_with(traced, ended, call))
        broken += fs_faults.broken_promises(scenario, root, done=ended.returncode == 0)
        # What cannot be locked may be somebody else's by now: it is left to the next save.
        if call not in ("flock", "unlink") and (left := fs_faults.temporary_files(root)):
            broken.append(f"left over: {left}")
        broken += fs_faults.unfinished(scenario, root)
        assert not broken, f"{call} {number}, {fault}: {broken}; it said {ended.stderr!r}"
    assert ended.returncode == 0, ended.stderr
    return number - 1


def wrong_with(
    traced: Traced, ended: "subprocess.CompletedProcess[bytes]", call: str
) -> Iterator[str]:
    """Yield what is wrong with what a command says of which a call has failed."""
    said = without_risks(ended.stderr)
    saved = traced.said_to_be_saved(ended)
    crash_ids = traced.way.scenario.crash_ids
    if ended.returncode not in (0, 1, 4):
        yield f"exit code {ended.returncode}"
    if (ended.returncode == 0) != (saved == set(crash_ids)):
        yield f"exit code {ended.returncode}, and saved is {len(saved)} of {len(crash_ids)}"
    if ended.returncode == 0 and call not in ("close", "copy_file_range", "unlink"):
        yield "nothing is said"
    if not is_harmless(said) or "Traceback" in said:
        yield "that is nothing to show to anybody"
    if not traced.way.is_copy and said.count("\n") != bool(ended.returncode):
        yield f"{said.count(chr(10))} lines"
    yield from badly_named(traced, said)
    with FSPermanentStorage(traced.root) as storage:
        for crash_id in saved:
            if fs_faults.contents_of(storage, crash_id) != traced.way.scenario.after:
                yield f"{crash_id} was said to be saved"


def badly_named(traced: Traced, said: str) -> Iterator[str]:
    """Yield the crashes that a copy has not copied, and names in no line, or in several."""
    if not traced.way.is_copy or not traced.report.exists():
        return
    for line in traced.report.read_text().splitlines():
        outcome = json.loads(line)
        named = said.count(f"{outcome['crash_id']}: failed: ")
        if named != (outcome["status"] == "failed"):
            yield f"{outcome['crash_id']} is {outcome['status']} and named {named} times"
