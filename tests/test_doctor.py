# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Checkup: what is tried, what it means, and that whatever hangs or breaks stops nobody else."""

import datetime as dt
import threading
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from crashmover import crashid, open_queue, open_storage
from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine import doctor
from crashmover.engine.doctor import Checkup, Need, check_queue, check_storage, run
from crashmover.errors import CorruptCrash, CrashMoverError, StorageDenied, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing import contents, crash_of
from tests.conftest import new_uri
from tests.faulty import FaultyStorage, denied

PROBE, VERIFY = "probe_write", "verify_access"
TO_WRITE = f"{VERIFY}, to write"


class Tried(FaultyStorage):
    """A store that takes note of how it is tried, whose clock is set."""

    def __init__(
        self, *failing: str, error: StorageError | None = None, ahead: float | None = None
    ) -> None:
        super().__init__(*failing, error=error)
        self.ahead = ahead

    def probe_write(self) -> None:
        self._call(PROBE)

    def clock(self) -> dt.datetime | None:
        if self.ahead is None:
            return None
        return doctor.now() + dt.timedelta(seconds=self.ahead)


def checked(storage: CrashStorageBase, need: Need = Need.WRITE, *, probe: bool = True) -> Checkup:
    """What is found of a store."""
    [found] = run([(storage.uri, lambda each: check_storage(storage, need, probe, each))], 30.0)
    return found


# What is tried


def test_a_store_that_is_read_is_not_written_to() -> None:
    storage = Tried(PROBE, TO_WRITE, error=denied())
    found = checked(storage, Need.READ)
    assert (found.verdict, found.found, found.warnings) == ("ok", ["read"], [])
    assert PROBE not in storage.calls and storage.closed


def test_a_store_that_is_saved_to_is_written_to() -> None:
    storage = Tried()
    found = checked(storage)
    assert (found.verdict, found.found) == ("ok", ["read", "write"])
    assert storage.calls.count(PROBE) == 1 and storage.closed


def test_without_a_probe_only_the_right_to_write_is_looked_at() -> None:
    storage = Tried(PROBE)
    found = checked(storage, probe=False)
    assert (found.verdict, found.found) == ("ok", ["read", "write not tried"])
    assert TO_WRITE in storage.calls and PROBE not in storage.calls


@pytest.mark.parametrize("failing", [PROBE, TO_WRITE])
def test_that_a_store_cannot_be_saved_to_matters_where_it_must(failing: str) -> None:
    must = checked(Tried(failing, error=denied()))
    assert (must.verdict, must.error) == ("failed", "memory:faulty: access denied")
    may = checked(Tried(failing, error=denied()), Need.EITHER)
    assert (may.verdict, may.found) == ("warn", ["read"])
    assert may.warnings == ["cannot be saved to: access denied"]


@pytest.mark.parametrize("need", Need)
@pytest.mark.parametrize("failing", [VERIFY, "new_crashes"])
def test_a_store_that_cannot_be_read_has_failed(failing: str, need: Need) -> None:
    found = checked(Tried(failing, TO_WRITE, error=denied()), need)
    assert (found.verdict, found.error) == ("failed", "memory:faulty: access denied")


@pytest.mark.parametrize("need", [Need.WRITE, Need.EITHER])
def test_a_store_that_is_down_is_not_taken_for_one_that_is_only_read(need: Need) -> None:
    storage = Tried(PROBE)
    assert checked(storage, need).error == "memory:faulty: connection refused"
    assert storage.calls.count(PROBE) == 2


def test_what_passes_is_tried_again() -> None:
    storage = Tried(VERIFY)
    storage.times = 1
    assert checked(storage, Need.READ).verdict == "ok"


class Damaged(Tried):
    """Lists a crash that cannot be read."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        raise self.error


@pytest.mark.parametrize("kind", [CorruptCrash, StorageDenied])
def test_a_crash_of_these_days_is_read_and_may_be_damaged(kind: type[StorageError]) -> None:
    """What can be listed and not read is not the same as what is damaged."""
    storage = Damaged(error=kind("cannot be read", uri="memory:faulty"))
    storage.save_crash(crash_of(contents(), crashid.create()))
    found = checked(storage, Need.READ)
    assert found.verdict == ("ok" if kind is CorruptCrash else "failed")


# Clocks


@pytest.mark.parametrize(
    ("ahead", "verdict", "said"),
    [
        (0.0, "ok", "clock right"),
        (-1.5, "ok", "clock right"),
        (30.0, "ok", "clock +30 s"),
        (-30.0, "ok", "clock -30 s"),
        (3600.4, "warn", "its clock is 1:00:00 ahead of this machine's"),
        (-90.0, "warn", "its clock is 0:01:30 behind this machine's"),
    ],
)
def test_a_clock_is_held_against_ours(ahead: float, verdict: str, said: str) -> None:
    found = checked(Tried(ahead=ahead), Need.READ)
    assert (found.verdict, [*found.found, *found.warnings]) == (verdict, ["read", said])
    assert found.clock is not None and abs(found.clock - ahead) < 1


@pytest.fixture(params=["fs", "s3_signed", "fake_gcs", "postgresql"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CrashStorageBase]:
    """Stores whose clocks nobody can set."""
    uri = str(tmp_path) if request.param == "fs" else new_uri(request, request.param)
    with open_storage(uri) as storage:
        yield storage


def test_stores_are_all_right_until_the_clock_of_this_machine_is_wrong(
    real: CrashStorageBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checked(real)
    assert (found.verdict, found.found) == ("ok", ["read", "write", "clock right"])
    late = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    monkeypatch.setattr(doctor, "now", lambda: late)
    found = checked(real)
    assert found.verdict == "warn"
    [said] = found.warnings
    assert said.endswith(" ahead of this machine's")
    assert found.clock and abs(found.clock - 7200) < 60


# Several at once


def test_whatever_hangs_is_given_up_and_the_others_are_told_in_order() -> None:
    end, names = threading.Event(), ["first", "hangs", "breaks", "fails", "last"]

    def check(found: Checkup) -> None:
        if found.uri == "hangs":
            end.wait()
        if found.uri == "breaks":
            raise ZeroDivisionError("at postgresql://me:secret@host/db")
        if found.uri == "fails":
            raise CrashMoverError("no such thing")

    try:
        found = list(run([(name, check) for name in names], 1.0))
    finally:
        end.set()
    assert [each.uri for each in found] == names
    assert [each.error for each in found] == [
        None,
        "no answer in 1 s",
        "ZeroDivisionError: at postgresql://***@host/db",
        "no such thing",
        None,
    ]


def test_a_queue_is_what_it_says_it_is(tmp_path: Path) -> None:
    def found(uri: str, *, create: bool = True) -> Checkup:
        queue = open_queue(uri)
        if create:
            queue.create()
        [found] = run([(queue.uri, lambda each: check_queue(queue, each))], 30.0)
        return found

    good = found(f"sqlite:{tmp_path}/a.db")
    assert (good.verdict, good.found) == ("ok", ["priority", "standard", "reprocessing"])
    assert found(f"sqlite:{tmp_path}/b.db?lease=1").verdict == "warn"
    bad = found(f"sqlite:{tmp_path}/c.db", create=False)
    assert bad.error == f"sqlite://{tmp_path}/c.db: no such queue; --create makes it"
