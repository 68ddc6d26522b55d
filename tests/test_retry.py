# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The one retry policy: what is tried again, how often, and what comes out at the end."""

import time
from collections.abc import Iterable

import pytest

from crashmover.errors import (
    CorruptCrash,
    CrashConflict,
    CrashIDNotFound,
    CrashIdsFailedToPublish,
    CrashMoverError,
    DumpNotFound,
    InvalidConfig,
    InvalidCrashID,
    InvalidURI,
    MissingExtra,
    PolyCrashStorageError,
    QueueError,
    QueueUnavailable,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.retry import RetryPolicy, is_retryable

ID = "0bba929f-8721-460c-dead-a43c22071025"

WITHOUT_WAITING = RetryPolicy(attempts=4, wait=0)

DOWN = StorageUnavailable("down", uri="s3://a")
DENIED = StorageDenied("denied", uri="s3://b")

RETRIED = [
    DOWN,
    QueueUnavailable("down"),
    PolyCrashStorageError([DOWN]),
    PolyCrashStorageError([DENIED, DOWN]),
    PolyCrashStorageError([DENIED, PolyCrashStorageError([DENIED, DOWN])]),
]

NOT_RETRIED = [
    DENIED,
    StorageError("StorageUnavailable: timed out, try again"),
    CrashIDNotFound(ID),
    DumpNotFound(ID),
    CrashConflict("differs"),
    CorruptCrash("damaged"),
    QueueError("broken"),
    CrashIdsFailedToPublish([ID]),
    InvalidCrashID("x"),
    InvalidConfig("x"),
    InvalidURI("x"),
    MissingExtra("x"),
    CrashMoverError("x"),
    PolyCrashStorageError([DENIED]),
    PolyCrashStorageError([DENIED, PolyCrashStorageError([CorruptCrash("damaged")])]),
    ExceptionGroup("several", [DOWN]),
    ValueError("x"),
    OSError(11, "Resource temporarily unavailable"),
    TimeoutError("timed out"),
    ConnectionError("reset"),
]


def name(error: BaseException) -> str:
    return type(error).__name__


class Store:
    """Fails once with each of these errors, then answers; counts how often it was asked."""

    def __init__(self, errors: Iterable[BaseException]) -> None:
        self._errors = iter(errors)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        for error in self._errors:
            raise error
        return "answer"


def test_what_succeeds_is_done_once() -> None:
    store = Store([])
    assert RetryPolicy().call(store) == "answer"
    assert store.asked == 1


@pytest.mark.parametrize("error", RETRIED, ids=name)
def test_what_is_down_is_tried_again_until_it_answers(error: Exception) -> None:
    assert is_retryable(error)
    store = Store([error, error, error])
    assert WITHOUT_WAITING.call(store) == "answer"
    assert store.asked == 4


@pytest.mark.parametrize("error", NOT_RETRIED, ids=name)
def test_whatever_else_goes_wrong_is_raised_at_once(error: Exception) -> None:
    assert not is_retryable(error)
    store = Store([error])
    with pytest.raises(type(error)) as caught:
        WITHOUT_WAITING.call(store)
    assert caught.value is error
    assert store.asked == 1


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_it_is_tried_so_often_and_the_last_error_is_raised(attempts: int) -> None:
    errors = [StorageUnavailable(f"attempt {n}") for n in range(1, attempts + 3)]
    store = Store(errors)
    with pytest.raises(StorageUnavailable) as caught:
        RetryPolicy(attempts=attempts, wait=0).call(store)
    assert caught.value is errors[attempts - 1]
    assert store.asked == attempts


@pytest.mark.parametrize("error", [DENIED, CrashIDNotFound(ID), ValueError("x")], ids=name)
def test_it_is_not_tried_again_once_another_error_comes(error: Exception) -> None:
    store = Store([DOWN, error, DOWN])
    with pytest.raises(type(error)) as caught:
        WITHOUT_WAITING.call(store)
    assert caught.value is error
    assert store.asked == 2


def test_no_further_attempt_is_begun_when_time_is_up() -> None:
    store = Store([DOWN] * 5)
    with pytest.raises(StorageUnavailable) as caught:
        RetryPolicy(timeout=0, wait=0).call(store)
    assert caught.value is DOWN
    assert store.asked == 1


def test_the_first_attempt_takes_its_time_from_the_whole() -> None:
    store = Store([DOWN] * 5)

    def slowly() -> str:
        time.sleep(0.02)
        return store()

    with pytest.raises(StorageUnavailable):
        RetryPolicy(timeout=0.01, wait=0).call(slowly)
    assert store.asked == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)], ids=name)
@pytest.mark.parametrize("errors", [[], [DOWN]], ids=["first", "second"])
def test_a_signal_ends_it_at_any_attempt(errors: list[BaseException], stop: BaseException) -> None:
    store = Store([*errors, stop, DOWN])
    with pytest.raises(type(stop)):
        WITHOUT_WAITING.call(store)
    assert store.asked == len(errors) + 1


def test_a_policy_serves_many_calls_one_after_another() -> None:
    for _ in range(3):
        store = Store([DOWN] * 3)
        assert WITHOUT_WAITING.call(store) == "answer"
        assert store.asked == 4


def test_the_first_attempt_may_be_another_and_counts() -> None:
    first, store = Store([DOWN]), Store([DOWN] * 2)
    assert WITHOUT_WAITING.call(store, first=first) == "answer"
    assert (first.asked, store.asked) == (1, 3)


def test_a_first_attempt_that_succeeds_is_all() -> None:
    store = Store([])
    assert WITHOUT_WAITING.call(store, first=lambda: "first") == "first"
    assert store.asked == 0


def test_a_first_attempt_that_fails_for_good_is_all() -> None:
    store = Store([])
    with pytest.raises(StorageDenied):
        WITHOUT_WAITING.call(store, first=Store([DENIED]))
    assert store.asked == 0
