# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Whole copies to and from a bucket that remove the source, of which each request in turn fails in
every way, or most of them do: what is said to be there is there, no crash is torn or lost, and a
rerun completes."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from click.testing import Result

from crashmover.crash import Kind
from crashmover.errors import CrashIDNotFound
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.registry import open_storage
from crashmover.testing import PROCESSED, RAW, Contents, read
from tests.cli_helpers import (
    MAIN_DUMP,
    Sample,
    is_harmless,
    processed_crash,
    put,
    run,
    sample,
    samples,
    statuses,
)
from tests.conftest import Figures, server_of_buckets
from tests.s3_proxy import Fault, Place, Replies, Reset, Says, behind_proxy
from tests.test_bucket_faults import FAULTS

slow = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = sample(1, dumps={MAIN_DUMP: b"MDMP", "memory_report": b"{}"}, processed=processed_crash())
LARGE = sample(2, dumps={MAIN_DUMP: bytes(range(251)) * (PART_SIZE // 250)})
ALL_FAULTS: dict[str, Fault] = FAULTS | {
    "error inside": Says(200, "InternalError"),
    "a page": Replies(b"<html>log in first</html>"),
}


@dataclass
class Copy:
    """A copy from one store to another, of which a bucket behind a bad network is one.

    :param ends: the two stores as everybody else sees them, source first
    :param args: the two as the copy sees them; it removes the source
    """

    crashes: list[Sample]
    ends: tuple[str, str]
    args: list[str]
    report: Path

    def run(self, *more: str) -> Result:
        self.report.unlink(missing_ok=True)
        return run(*self.args, "--report", self.report, *more)

    def faults(self, result: Result) -> Iterator[str]:
        """Yield what is wrong with how it has ended."""
        said = statuses(self.report) if self.report.exists() else {}
        source, destination = (found_in(end, self.crashes) for end in self.ends)
        for crash in self.crashes:
            there = destination[crash.crash_id]
            if there not in (None, contents_of(crash)):
                yield f"{crash.crash_id} is torn"
            if said.get(crash.crash_id) in ("copied", "skipped") and there is None:
                yield f"{crash.crash_id} is said to be there"
            if there is None and source[crash.crash_id] != contents_of(crash):
                yield f"{crash.crash_id} is lost"
        is_done = Counter(said.values()) == {"copied": len(self.crashes)}
        if result.exit_code not in ((0, 1, 4) if is_done else (1, 4)):
            yield f"exit code {result.exit_code}, and {said} was reported"
        if not is_harmless(result.stderr) or (not is_done and not result.stderr):
            yield f"it says {result.stderr!r}"

    def assert_rerun_completes(self) -> None:
        # What was copied and then not removed, the next run removes only if it compares.
        result = self.run("--existing", "compare")
        assert result.exit_code == 0, result.stderr
        source, destination = (found_in(end, self.crashes) for end in self.ends)
        assert destination == {crash.crash_id: contents_of(crash) for crash in self.crashes}
        assert not any(source.values())


def contents_of(crash: Sample) -> Contents:
    dumps = {(Kind.DUMP, name): data for name, data in crash.dumps.items()}
    processed = {} if crash.processed is None else {PROCESSED: crash.processed}
    return {RAW: crash.raw, **dumps, **processed}


def found_in(uri: str, crashes: list[Sample]) -> dict[str, Contents | None]:
    """What somebody who comes later finds of each crash; nothing, where it finds none."""
    found: dict[str, Contents | None] = {}
    with open_storage(uri) as storage:
        for crash in crashes:
            try:
                found[crash.crash_id] = read(storage, crash.crash_id)
            except CrashIDNotFound:
                found[crash.crash_id] = None
    return found


def make_copy(place: Place, directory: Path, way: str, crashes: list[Sample]) -> Copy:
    """Fill a source, and return a copy of it that has not begun."""
    directory.mkdir()
    bucket = place.server.new_bucket()
    files = f"fs://{put(directory / 'files', *crashes)}"
    direct, seen = place.server.uri(bucket), place.uri(bucket)
    ends = {"to": (files, direct), "from": (direct, f"fs://{directory / 'back'}")}
    if way == "from":
        assert run("copy", "-s", files, "-d", direct).exit_code == 0
    source, destination = (seen if end == direct else end for end in ends[way])
    args = ["copy", "-s", source, "-d", destination, "--remove-source"]
    return Copy(crashes, ends[way], args, directory / "report")


@pytest.fixture(params=["s3_strict"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with behind_proxy(server_of_buckets(request, request.param)) as place:
        yield place


# One request


WAYS = ["to", "from"]
UNNOTICED = ["damaged"]  # of what comes of large dumps, only the length is known
SIGNED = ["reset", "reset after", "503", "cut"]  # it looks at no checksum of what goes up
CASES = [
    pytest.param(place, way, how, 1000, marks=slow)
    for place, faults in (("s3_strict", ALL_FAULTS), ("s3_signed", SIGNED), ("gcs", ALL_FAULTS))
    for way, how in product(WAYS, faults)
]


@pytest.mark.parametrize(
    ("place", "way", "how", "most"),
    [("s3_signed", "from", "reset after", 2), *CASES],
    indirect=["place"],
)
def test_each_request_of_a_copy_may_fail(
    place: Place, tmp_path: Path, figures: Figures, way: str, how: str, most: int
) -> None:
    seen: Counter[str] = Counter()
    for number in range(1, most + 1):
        copy = make_copy(
            place, tmp_path / f"copy-{number}", way, [SMALL, *([] if how in UNNOTICED else [LARGE])]
        )
        place.fail_at(number, ALL_FAULTS[how])
        result = copy.run()
        if place.heal() < number:
            break
        faults = [*copy.faults(result)]
        assert not faults, f"request {number}: {faults}: {result.stderr}"
        copy.assert_rerun_completes()
        seen["requests"] += 1
        seen[{0: "got_over", 1: "some_failed", 4: "given_up"}[result.exit_code]] += 1
    figures(**seen)


# Most of them


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("place", "fault", "rate"),
    [
        pytest.param(*case, marks=slow)
        for case in (
            ("s3_strict", Says(503), 0.6),
            ("s3_strict", Reset(), 0.9),
            ("s3_strict", Says(503), 1.0),
            ("s3_strict", Reset(), 1.0),
            ("s3_signed", Says(503), 0.9),
            ("gcs", Says(503), 0.6),
            ("gcs", Reset(), 0.9),
            ("gcs", Says(503), 1.0),
            ("gcs", Reset(), 1.0),
        )
    ],
    indirect=["place"],
)
def test_a_server_so_bad_that_nothing_helps_is_given_up(
    place: Place, tmp_path: Path, figures: Figures, way: str, rate: float, fault: Fault
) -> None:
    rng = random.Random(f"{way} {rate}")
    copy = make_copy(place, tmp_path / "copy", way, samples(24))
    place.proxy.fail(fault, lambda _: rng.random() < rate)
    place.proxy.requests.clear()
    result = copy.run()
    requests = place.heal()
    faults = [*copy.faults(result)]
    assert not faults, f"seed {way} {rate}: {faults}: {result.stderr}"
    assert rate < 1 or result.exit_code == 4
    copy.assert_rerun_completes()
    ended = {0: "got_over", 1: "some_failed", 4: "given_up"}[result.exit_code]
    figures(requests=requests, **{ended: 1})
