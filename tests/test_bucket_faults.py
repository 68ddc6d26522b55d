# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A bucket behind a network of which each request in turn fails: a reader finds the crash as it
was, as it will be, or not at all, and the next try completes it."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import monotonic

import pytest

from crashmover.engine.mover import Mover, Status
from crashmover.errors import CrashIDNotFound, StorageError
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    Contents,
    contents,
    crash_of,
    read,
    whole_or_none,
    without,
)
from tests.cli_helpers import manifest, put, report_of, run, samples, stored
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import (
    Cut,
    Damaged,
    DamagedUpload,
    Drip,
    Fault,
    Hang,
    Place,
    Request,
    Reset,
    ResetAfter,
    ResetWithin,
    Says,
    behind_proxy,
)

slow = pytest.mark.slow


FAULTS: dict[str, Fault] = {
    "reset": Reset(),
    "reset after": ResetAfter(),
    "503": Says(503, "SlowDown"),
    "cut": Cut(after=3),
    "cut without length": Cut(after=3, length=False),
    "damaged": Damaged(),
    "damaged upload": DamagedUpload(),
}


@dataclass(frozen=True)
class Scenario:
    """What is there, and what is saved then; nothing where it is removed."""

    before: Contents | None
    after: Contents | None

    def act(self, storage: CrashStorageBase) -> None:
        if self.after is None:
            storage.remove(CRASH_ID)
        else:
            storage.save_crash(crash_of(self.after))

    @property
    def states(self) -> list[Contents]:
        return [state for state in (self.before, self.after) if state is not None]


SCENARIOS = {
    "new": Scenario(None, contents("b")),
    "other": Scenario(contents("a"), without(contents("b"), BROWSER)),
    "other dump": Scenario(contents("a"), contents("a") | {MAIN: b"MDMPx"}),
    "removed": Scenario(contents("a"), None),
}


@pytest.fixture(params=["s3", "gs"])
def place(request: pytest.FixtureRequest, aws: UseAWS) -> Iterator[Place]:
    if request.param == "s3":
        server = aws(request.getfixturevalue("s3_strict"))
    else:
        server = request.getfixturevalue("gcs")
    with behind_proxy(server) as place:
        yield place


def tried(act: Callable[[CrashStorageBase], object], storage: CrashStorageBase) -> object:
    """Return what that returns, or the error that it raises, which must be one of ours."""
    try:
        return act(storage)
    except StorageError as error:
        assert str(error).count("\n") == 0
        return error


LONG = [slow, pytest.mark.timeout(900)]
QUICK = [("new", "reset after", False), ("new", "damaged upload", False)]
CASES = [
    case if case in QUICK else pytest.param(*case, marks=LONG)
    for case in [*product(SCENARIOS, FAULTS, [False]), *product(["other"], FAULTS, [True])]
]


@pytest.mark.parametrize(("what", "how", "lasting"), CASES)
def test_no_request_that_fails_tears_a_crash(
    place: Place, figures: Figures, what: str, how: str, lasting: bool
) -> None:
    scenario, fault = SCENARIOS[what], FAULTS[how]
    seen: Counter[str] = Counter()
    for number in range(1, 100):
        bucket = place.server.new_bucket()
        with (
            open_storage(place.server.uri(bucket)) as direct,
            open_storage(place.uri(bucket)) as storage,
        ):
            if scenario.before:
                direct.save_crash(crash_of(scenario.before))
            place.fail_at(number, fault, lasting=lasting)
            error = tried(scenario.act, storage)
            count = place.heal()
            assert whole_or_none(direct, *scenario.states), f"request {number}: torn"
            if error is None:
                assert_is(direct, scenario.after)
            complete(scenario, storage)
            assert_is(direct, scenario.after)
        if count < number:
            break
        seen["failures"] += 1
        seen["said" if error else "got_over"] += 1
    assert seen["failures"] >= 3
    figures(**seen)


def complete(scenario: Scenario, storage: CrashStorageBase) -> None:
    """Do once more what may have failed."""
    try:
        scenario.act(storage)
    except CrashIDNotFound:  # it was removed, and only the answer was lost
        assert scenario.after is None


def assert_is(storage: CrashStorageBase, state: Contents | None) -> None:
    """The store has the crash like this, or has none."""
    if state is None:
        assert not storage.has_crash(CRASH_ID)
    else:
        assert read(storage) == state


@pytest.mark.parametrize("lasting", [False, pytest.param(True, marks=LONG)])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_answer_that_fails_is_taken_for_the_crash(
    place: Place, figures: Figures, fault: Fault, lasting: bool
) -> None:
    bucket = place.server.new_bucket()
    seen: Counter[str] = Counter()
    with open_storage(place.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        for number in range(1, 100):
            place.fail_at(number, fault, lasting=lasting)
            found = tried(read, storage)
            assert found == contents() or isinstance(found, StorageError), f"request {number}"
            assert not isinstance(found, CrashIDNotFound), f"request {number}"
            if place.heal() < number:
                break
            seen["failures"] += 1
            seen["said" if isinstance(found, StorageError) else "got_over"] += 1
    assert seen["failures"] >= 3
    figures(**seen)


def test_a_crash_that_goes_while_it_is_read_is_not_one_without_dumps(place: Place) -> None:
    bucket = place.server.new_bucket()
    with (
        open_storage(place.server.uri(bucket)) as direct,
        open_storage(place.uri(bucket)) as storage,
    ):
        direct.save_crash(crash_of(contents()))

        def remove(request: Request) -> bool:
            if "/v1/dump_names/" in request.path.replace("%2F", "/"):
                with suppress(CrashIDNotFound):
                    direct.remove(CRASH_ID)
            return False

        place.proxy.fail(Reset(), remove)
        with pytest.raises(StorageError, match="replaced or removed"):
            storage.load_crash(CRASH_ID)


# Whole copies


@pytest.mark.parametrize(
    ("name", "count", "seed"),
    [
        ("503", 8, 1),
        *(
            pytest.param(name, 24, seed, marks=LONG)
            for name, seed in product(["503", "reset", "reset after"], range(2, 7))
        ),
    ],
)
def test_a_fifth_of_all_requests_may_fail(
    place: Place, tmp_path: Path, figures: Figures, name: str, count: int, seed: int
) -> None:
    crashes = samples(count)
    source = put(tmp_path / "source", *crashes)
    uri = place.uri(place.server.new_bucket())
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    back = tmp_path / "back"
    ways: list[tuple[str | Path, str | Path]] = [(source, uri), (uri, back)]
    for number, (from_, to) in enumerate(ways):
        place.proxy.requests.clear()
        place.proxy.fail(FAULTS[name], lambda _: rng.random() < 0.2)
        report = tmp_path / f"report-{number}"
        result = run("copy", "-s", from_, "-d", to, "--report", report)
        seen["requests"] += place.heal()
        statuses = Counter(outcome["status"] for outcome in report_of(report).values())
        assert set(statuses) <= {"copied", "failed"}, f"seed {seed}"
        whole = statuses == {"copied": len(crashes)}
        assert whole or result.exit_code in (1, 4), f"seed {seed}: {result.stderr}"
        seen.update(statuses)
        assert run("copy", "-s", from_, "-d", to).exit_code == 0, f"seed {seed}"
    assert stored(back) == manifest(*crashes)
    figures(**seen)


# Large dumps


@pytest.fixture
def large() -> Contents:
    """A crash with a dump that goes up in parts."""
    return contents() | {MAIN: random.Random(8).randbytes(3 * PART_SIZE + 1)}


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=slow) for n in range(2, 12))])
def test_a_large_dump_survives_resets_of_its_upload_and_breaks_in_its_download(
    place: Place, figures: Figures, large: Contents, seed: int
) -> None:
    rng = random.Random(seed)
    uri = place.uri(place.server.new_bucket())
    source, back = InMemoryCrashStorage(), InMemoryCrashStorage()
    source.save_crash(crash_of(large))
    with open_storage(uri) as storage:
        place.proxy.fail(ResetWithin(rng.randrange(PART_SIZE)), is_part_of_upload, times=2)
        [outcome] = Mover(source, storage).run([CRASH_ID])
        assert outcome.status is Status.COPIED, f"seed {seed}: {outcome.error}"
        resets = 2 - place.proxy.plan.times
        place.proxy.fail(Cut(after=rng.randrange(len(large[MAIN]))), is_large_download, times=2)
        [outcome] = Mover(storage, back).run([CRASH_ID])
        assert outcome.status is Status.COPIED, f"seed {seed}: {outcome.error}"
    assert read(back) == large, f"seed {seed}"
    figures(resets=resets, breaks=2 - place.proxy.plan.times)


def is_part_of_upload(request: Request) -> bool:
    return "partNumber=" in request or "PUT /upload/" in request


def is_large_download(request: Request) -> bool:
    name = request.path.replace("%2F", "/")
    return request.method == "GET" and "/v1/dump/" in name and "fields=" not in name


def test_what_is_replaced_while_it_comes_is_not_mixed(place: Place, large: Contents) -> None:
    bucket = place.server.new_bucket()
    other = large | {MAIN: large[MAIN][::-1]}
    with (
        open_storage(place.server.uri(bucket)) as direct,
        open_storage(place.uri(bucket)) as storage,
    ):
        direct.save_crash(crash_of(large))
        [dump] = [part for part in storage.load_crash(CRASH_ID).parts if part.key == MAIN]
        place.proxy.fail(Cut(after=PART_SIZE), is_large_download, times=1)
        with dump.open() as file, pytest.raises(StorageError, match="replaced or removed"):
            got = file.read(1 << 20)
            direct.save_crash(crash_of(other))
            while piece := file.read(1 << 20):
                got += piece
    assert large[MAIN].startswith(got)


# Servers that take their time


@slow
@pytest.mark.parametrize(
    "fault", [Drip(0.05), Hang(), Cut(after=100, hang=True)], ids=["drips", "hangs", "stops"]
)
@pytest.mark.parametrize("size", [20_000, 2 << 20, 3 * PART_SIZE])
def test_a_server_that_stops_or_drips_is_given_up(
    place: Place, figures: Figures, fault: Fault, size: int
) -> None:
    parts = contents() | {MAIN: bytes(size)}
    uri = place.uri(place.server.new_bucket(), read_timeout="0.3")
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(parts))
        place.proxy.fail(fault, is_large_download)
        begun = monotonic()
        error = tried(read, storage)
        seconds = monotonic() - begun
    assert isinstance(error, StorageError)
    assert seconds < 90, "a request may take 20 times read_timeout, and is tried a few times"
    figures(given_up=1)
