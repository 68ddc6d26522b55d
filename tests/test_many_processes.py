# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Eight processes that save crashes by the same ids at the same moment, and one that reads."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from crashmover.errors import CrashIDNotFound, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.registry import open_storage
from crashmover.testing import Contents, read
from tests.cli_helpers import (
    TIMEOUT,
    by_crash_id,
    environment,
    is_harmless,
    run_process,
    snapshot,
    without_warnings,
)
from tests.conftest import Figures, UseAWS, directory_on
from tests.fs_faults import temporary_files
from tests.grounds import FILE_SYSTEMS, STORE, FileSystem
from tests.many_processes import IDS, crash_of, variant
from tests.s3_proxy import Proxy, proxy_of
from tests.servers.s3 import S3Server

EIGHT = 8


@dataclass(frozen=True)
class Place:
    """A store that many processes use.

    :param root: where it lies, if it lies in files
    """

    uri: str
    root: Path | None = None

    def contents(self) -> dict[str, Contents]:
        """All that there is in it, for somebody who has just come."""
        with open_storage(self.uri) as storage:
            return {crash_id: read(storage, crash_id) for crash_id in storage.new_crashes()}

    def left_over(self) -> list[str]:
        return temporary_files(self.root) if self.root else []

    def state(self) -> dict[str, tuple[object, ...]]:
        """All that a change below the root would show in; in the root a copy tries the mount."""
        found = snapshot(self.root) if self.root else {}
        return {name: state for name, state in found.items() if name != "."}


def file_system(request: pytest.FixtureRequest) -> Place:
    root = request.getfixturevalue("tmp_path") / "store"
    return Place(f"fs://{root}", root)


def s3(request: pytest.FixtureRequest) -> Place:
    """On a server that knows conditions."""
    use: UseAWS = request.getfixturevalue("aws")
    server = use(request.getfixturevalue("s3_strict"))
    return Place(server.uri(server.new_bucket()))


def gs(request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("gcs")
    return Place(server.uri(server.new_bucket()))


def s3_without_conditions(request: pytest.FixtureRequest) -> Place:
    """On the same server, which is never told of any: one that knows none by itself, and replaces
    objects in one step all the same, is not to be had."""
    proxy = request.getfixturevalue("forgetting_proxy")
    place = s3(request)
    return Place(place.uri.replace(proxy.upstream.geturl(), proxy.endpoint_url))


@pytest.fixture
def forgetting_proxy(s3_strict: S3Server) -> Iterator[Proxy]:
    with proxy_of(s3_strict.endpoint_url) as proxy:
        proxy.forgotten = {"if-none-match"}
        yield proxy


def postgresql(request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("postgresql_server")
    return Place(server.uri(schema=server.new_name()))


def at(ground: FileSystem) -> Callable[[pytest.FixtureRequest], Place]:
    def make(request: pytest.FixtureRequest) -> Place:
        root = directory_on(ground, request) / STORE
        return Place(f"fs://{root}", root)

    return make


def grounds(*arguments: object) -> list[ParameterSet]:
    """Return a place on each ground, followed by these."""
    return [
        pytest.param(
            at(ground),
            *arguments,
            id="-".join(map(str, [*arguments, ground.name])),
            marks=pytest.mark.slow,
        )
        for ground in FILE_SYSTEMS
    ]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    made: Place = request.param(request)
    return made


def on(*params: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", params, indirect=True)


# Starting them


@contextmanager
def begun_together(
    commands: Sequence[Sequence[str]],
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start a process for each of these, and let all begin when all are ready."""
    with ExitStack() as stack:
        ours, theirs = os.pipe()
        stack.callback(os.close, ours)
        gate = stack.enter_context(open(theirs, "wb"))  # noqa: PTH123
        line = [sys.executable, "-m", "tests.many_processes"]
        processes = []
        for command in commands:
            process = subprocess.Popen(
                [*line, *command],
                stdin=ours,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == b"ready\n", process.stderr.read().decode()
        gate.close()
        yield processes


# Saving


@pytest.mark.parametrize(
    ("place", "variants", "rounds"),
    [
        (file_system, 4, 1),
        *(
            pytest.param(make, variants, 8, marks=pytest.mark.slow)
            for make in (file_system, s3, gs, s3_without_conditions, postgresql)
            for variants in (1, 4, EIGHT)
        ),
        *grounds(1, 3),
        *grounds(EIGHT, 3),
    ],
    indirect=["place"],
)
def test_eight_that_save_the_same_ids_tear_no_crash(
    place: Place, figures: Figures, variants: int, rounds: int
) -> None:
    seen, broken = save_and_read(place, variants, rounds)
    assert not broken, f"(seeds 0 to 7) {broken}"
    there = place.contents()
    assert there.keys() == set(IDS)
    for crash_id, found in there.items():
        assert found in states_of(crash_id, variants), f"(seeds 0 to 7) {crash_id} is torn"
    assert place.left_over() == []
    assert seen["saved"] + seen["gave_up"] == EIGHT * rounds * len(IDS)
    figures(**seen)


def states_of(crash_id: str, variants: int) -> list[Contents]:
    return [variant(crash_id, number) for number in range(variants)]


def save_and_read(place: Place, variants: int, rounds: int) -> tuple[Counter[str], list[str]]:
    """Let eight processes save while this one reads; return what was seen, and what was wrong."""
    with open_storage(place.uri) as storage:
        reader = Reader(storage, variants)
        commands = [
            ["save", place.uri, str(seed), str(variants), str(rounds)] for seed in range(EIGHT)
        ]
        with begun_together(commands) as processes:
            while any(process.poll() is None for process in processes):
                reader.read_one()
            for output, said in [process.communicate(timeout=TIMEOUT) for process in processes]:
                if said:
                    reader.broken.append(said.decode())
                else:
                    reader.seen.update(json.loads(output))
    return reader.seen, reader.broken


class Reader:
    """Reads one crash after the other, by chance, and sees whether it is one that was saved."""

    def __init__(self, storage: CrashStorageBase, variants: int) -> None:
        self.seen: Counter[str] = Counter()
        self.broken: list[str] = []
        self._storage = storage
        self._variants = variants
        self._found: set[str] = set()
        self._rng = random.Random(EIGHT)

    def read_one(self) -> None:
        crash_id = self._rng.choice(IDS)
        try:
            found = read(self._storage, crash_id)
        except CrashIDNotFound:
            self.seen["not_found"] += 1
            if self._variants == 1 and crash_id in self._found:
                self.broken.append(f"{crash_id} was replaced by the same, and not there meanwhile")
        except StorageError:  # it was replaced while it was read: the reader is told
            self.seen["told_to_read_again"] += 1
        else:
            self.seen["read_whole"] += 1
            self._found.add(crash_id)
            if found not in states_of(crash_id, self._variants):
                self.broken.append(f"{crash_id} is torn: {sorted(found)}")


# Copying


Ended = tuple[int, str, dict[str, str]]


def copies(sources: list[Path], place: Place, *options: str) -> list[Ended]:
    """Copy from each source at the same moment; return how each copy ended."""
    options = ("--report", "/dev/stdout", *options)
    commands = [["run", "copy", "-s", str(root), "-d", place.uri, *options] for root in sources]
    with begun_together(commands) as processes:
        return [how_it_ended(process) for process in processes]


def how_it_ended(process: "subprocess.Popen[bytes]") -> Ended:
    output, said = process.communicate(timeout=TIMEOUT)
    outcomes = by_crash_id(output.splitlines())
    statuses = {crash_id: outcome["status"] for crash_id, outcome in outcomes.items()}
    return process.returncode, without_warnings(said.decode()), statuses


@pytest.fixture
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Stores with different crashes by the same ids, the first with the variant 0."""
    roots = [tmp_path / f"source-{number}" for number in range(request.param)]
    for number, root in enumerate(roots):
        with FSPermanentStorage(root) as storage:
            storage.save_crashes([crash_of(each, number) for each in IDS])
    return roots


def conflicting(
    sources: list[Path], ended: list[Ended], there: dict[str, Contents]
) -> Iterator[str]:
    """Yield what is wrong with how copies ended to which all of this was there already."""
    for number, (code, said, statuses) in enumerate(ended):
        same = {crash_id for crash_id in IDS if there[crash_id] == variant(crash_id, number)}
        expected = {each: "skipped" if each in same else "conflict" for each in IDS}
        if statuses != expected:
            yield f"{sources[number].name}: {statuses}"
        if code != (len(same) < len(IDS)):
            yield f"{sources[number].name}: exit code {code}"
        named = [line.partition(": conflict: ")[0] for line in said.splitlines()[:-1]]
        if sorted(named) != sorted(set(IDS) - same) or not is_harmless(said):
            yield f"{sources[number].name}: {said}"


@pytest.mark.parametrize(
    ("place", "sources"),
    [
        (file_system, 3),
        *(
            pytest.param(make, EIGHT, marks=pytest.mark.slow)
            for make in (file_system, s3, gs, s3_without_conditions, postgresql)
        ),
        *grounds(3),
    ],
    indirect=True,
)
def test_what_differs_is_a_conflict_to_each_and_the_first_stays_untouched(
    place: Place, sources: list[Path], figures: Figures
) -> None:
    assert run_process("copy", "-s", sources[0], "-d", place.uri).returncode == 0
    there = place.contents()
    assert there == {crash_id: variant(crash_id, 0) for crash_id in IDS}
    before = place.state()
    ended = copies(sources, place, "--existing", "compare")
    assert not list(conflicting(sources, ended, there))
    assert place.contents() == there
    assert place.state() == before
    figures(conflicts=(len(sources) - 1) * len(IDS))


@pytest.mark.parametrize("existing", ["skip", "compare"])
@pytest.mark.parametrize(
    ("place", "sources"),
    [
        (file_system, 3),
        *(
            pytest.param(make, EIGHT, marks=pytest.mark.slow)
            for make in (file_system, s3, gs, postgresql)
        ),
        *grounds(4),
    ],
    indirect=True,
)
def test_of_those_that_move_to_nothing_one_brings_each_crash_and_the_others_keep_theirs(
    place: Place, sources: list[Path], existing: str, figures: Figures
) -> None:
    ended = copies(sources, place, "--existing", existing, "--remove-source")
    there = place.contents()
    assert not list(lost(sources, ended, there))
    assert place.left_over() == []
    kept = [root for root in sources if root.exists()]
    ended = copies(kept, place, "--existing", "compare", "--remove-source")
    assert not [said for _, said, _ in ended if not is_harmless(said)]
    assert place.contents() == there
    figures(crashes=len(sources) * len(IDS), copied=len(IDS))


@pytest.mark.slow
@pytest.mark.parametrize("existing", ["skip", "compare"])
@pytest.mark.parametrize("sources", [EIGHT], indirect=True)
@on(s3_without_conditions)
def test_those_that_copy_to_nothing_tear_no_crash_where_nobody_can_tell_who_was_first(
    place: Place, sources: list[Path], existing: str, figures: Figures
) -> None:
    """More than one may say that it has brought a crash; the last of them has."""
    ended = copies(sources, place, "--existing", existing)
    there = place.contents()
    assert there.keys() == set(IDS)
    seen = Counter[str]()
    for crash_id, found in there.items():
        assert found in states_of(crash_id, EIGHT), f"{crash_id} is torn"
        seen.update(statuses[crash_id] for _, _, statuses in ended)
    ended = copies(sources, place, "--existing", "compare")
    assert not list(conflicting(sources, ended, there))
    figures(**seen)


def lost(sources: list[Path], ended: list[Ended], there: dict[str, Contents]) -> Iterator[str]:
    """Yield what was said, or is, of crashes of which each can be there only once."""
    for crash_id in IDS:
        bringers = [n for n, (_, _, said) in enumerate(ended) if said[crash_id] == "copied"]
        if [there.get(crash_id)] != [variant(crash_id, number) for number in bringers]:
            yield f"{crash_id} was brought by {bringers}, and that is not what is there"
        for number, root in enumerate(sources):
            with FSPermanentStorage(root) as storage:
                if storage.has_crash(crash_id) == (number in bringers):
                    yield f"{crash_id} in {root.name}, bringers: {bringers}"
