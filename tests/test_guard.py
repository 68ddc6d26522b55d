# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Guard: whether an error is about one crash or about the whole store."""

from collections.abc import Callable

import pytest

from crashmover.engine.guard import Guard, outage
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageError, StorageUnavailable
from crashmover.external.tuning import Tuning
from crashmover.retry import RetryPolicy
from crashmover.testing import CRASH_ID
from tests.faulty import FaultyStorage, denied, unavailable
from tests.moving import AT_ONCE

BAD = CorruptCrash("torn")


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize("error", [unavailable(), denied()])
@pytest.mark.parametrize("is_down", [False, True])
def test_after_an_outage_or_a_refusal_the_store_is_looked_at(
    error: StorageError, is_down: bool
) -> None:
    store = FaultyStorage(*["verify_access"] * is_down)
    guard = Guard(store, AT_ONCE)
    with pytest.raises(type(error)):
        guard.call(raising(error))
    assert store.calls == ["verify_access"]
    assert (guard.down is not None) is is_down


@pytest.mark.parametrize("error", [BAD, CrashIDNotFound(CRASH_ID), ZeroDivisionError()])
def test_what_is_about_one_crash_costs_no_request(error: Exception) -> None:
    store = FaultyStorage("verify_access")
    guard = Guard(store, AT_ONCE)
    with pytest.raises(type(error)):
        guard.call(raising(error))
    assert (store.calls, guard.down) == ([], None)


def test_a_store_that_is_down_is_called_and_looked_at_no_more() -> None:
    store = FaultyStorage("verify_access")
    guard = Guard(store, AT_ONCE)
    guard.down = unavailable()
    with pytest.raises(StorageUnavailable) as caught:
        guard.call(raising(BAD), first=raising(BAD))
    guard.check()
    assert caught.value is guard.down
    assert store.calls == []


@pytest.mark.parametrize("write", [False, True])
def test_a_store_that_can_only_be_read_is_down_for_those_who_save(write: bool) -> None:
    store = FaultyStorage("verify_access, to write", error=denied())
    guard = Guard(store, write=True) if write else Guard(store)
    guard.check()
    assert (guard.down is not None) is write


def test_a_store_that_raises_what_no_store_should_is_down() -> None:
    class Raw(FaultyStorage):
        def verify_access(self, *, write: bool = False) -> None:
            raise ConnectionResetError("reset")

    guard = Guard(Raw())
    guard.check()
    assert str(guard.down) == "memory:faulty: ConnectionResetError: reset"


def test_a_store_has_its_own_retry_unless_another_is_given() -> None:
    class Patient(FaultyStorage):
        tuning = Tuning(retry=RetryPolicy(attempts=7))

    assert Guard(Patient()).retry.attempts == 7
    assert Guard(Patient(), AT_ONCE).retry is AT_ONCE


@pytest.mark.parametrize(
    ("source", "destinations", "is_out"),
    [("", " ", False), ("", "x ", False), ("", "xx", True), ("", "x", True), ("x", "  ", True)],
)
def test_a_copy_goes_on_while_its_source_and_one_destination_are_there(
    source: str, destinations: str, is_out: bool
) -> None:
    guards = [Guard(FaultyStorage(), AT_ONCE) for _ in range(1 + len(destinations))]
    for guard, mark in zip(guards, f"{source or ' '}{destinations}", strict=True):
        guard.down = unavailable() if mark == "x" else None
    first = next((guard.down for guard in guards if guard.down), None)
    assert outage(guards[0], guards[1:]) is (first if is_out else None)
