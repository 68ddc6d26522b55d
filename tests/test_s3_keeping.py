# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A process that keeps the dumps of a crash in a bucket, and another that saves, removes or adds to
the same crash: in every order of their requests, and killed before each of them."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from crashmover.errors import StorageUnavailable
from crashmover.testing import BROWSER, CRASH_ID, MAIN, RAW, Contents, crash_of, without
from tests.bucket_in_memory import HONOURING
from tests.conftest import Figures
from tests.test_s3_interleavings import (
    ALL,
    OLD,
    THEIRS,
    SharedBucket,
    Stores,
    only_harmless,
    outcomes,
    succeeded,
)

NEW: Contents = {RAW: b'{"new": "raw crash"}'}
NEWER: Contents = {RAW: b'{"newer": "raw crash"}'}
LATE: Contents = {BROWSER: b"late"}
SMALL = without(OLD, BROWSER)
OF_OLD, OF_THEIRS = without(OLD, RAW), without(THEIRS, RAW)

Act = Callable[[Stores], Callable[[], None]]


def keep(state: Contents) -> Act:
    return lambda stores: lambda: stores.open().save_keeping_dumps(crash_of(state))


OTHERS: dict[str, tuple[Act, Contents, list[Contents | None]]] = {
    "replaces": (lambda s: s.save(THEIRS), OLD, [THEIRS, NEW | OF_THEIRS]),
    "replaces by the same": (lambda s: s.save(OLD), OLD, [OLD, NEW | OF_OLD]),
    "creates": (lambda s: s.create(THEIRS), OLD, [NEW | OF_OLD]),
    "creates where there is none": (lambda s: s.create(THEIRS), {}, [NEW, NEW | OF_THEIRS, THEIRS]),
    "keeps, too": (keep(NEWER), OLD, [NEW | OF_OLD, NEWER | OF_OLD]),
    "adds a dump": (lambda s: s.save(LATE), SMALL, [NEW | {MAIN: OLD[MAIN]} | LATE]),
    "removes": (lambda s: lambda: s.open().remove(CRASH_ID), OLD, [None, NEW]),
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crashmover.external.bucket.putting.time.sleep", lambda _seconds: None)


def bucket(create: str, before: Contents) -> Stores:
    return Stores(*filter(None, [before]), bucket=SharedBucket(create))


@ALL
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("create", [*HONOURING, "ignores"])
def test_what_is_there_is_one_save_after_the_other(
    create: str, other: str, most: int, figures: Figures
) -> None:
    act, before, after = OTHERS[other]

    def both(stores: Stores) -> list[Callable[[], None]]:
        return [keep(NEW)(stores), act(stores)]

    count = 0
    for stores, processes, order in outcomes(both, partial(bucket, create, before), most=most):
        found = stores.found()
        assert only_harmless(processes), (order.taken, [p.error for p in processes])
        allowed = after if all(map(succeeded, processes)) else [*after, before, NEW | OF_OLD]
        assert found in allowed, (order.taken, found)
        count += 1
    figures(orders=count)


def test_a_save_that_was_stopped_half_way_is_not_taken_for_a_crash_without_dumps() -> None:
    stores = bucket("honours", OLD)
    for key in [key for key in stores.bucket.there if "/raw_crash/" in key]:
        del stores.bucket.there[key]
    with pytest.raises(StorageUnavailable, match="stopped half-way: save it with its dumps"):
        stores.open().save_keeping_dumps(crash_of(NEW))
    stores.open().save_raw_crash({}, {}, CRASH_ID)
    assert stores.found() == {RAW: b"{}"}


@pytest.mark.parametrize("create", [*HONOURING, "ignores", "refuses"])
def test_a_process_that_is_killed_leaves_the_old_crash_or_the_new(
    create: str, figures: Figures
) -> None:
    count = 0
    for request in itertools.count():
        runs = list(
            outcomes(
                lambda stores: [keep(NEW)(stores)],
                partial(bucket, create, OLD),
                most=0,
                killed_before=request,
            )
        )
        for stores, _, _ in runs:
            assert stores.found() in (OLD, NEW | OF_OLD)
            stores.open().save_keeping_dumps(crash_of(NEWER))
            assert stores.found() == NEWER | OF_OLD
            count += 1
        if not any(processes[0].was_killed for _, processes, _ in runs):
            break
    assert request > 3
    figures(kills=count)
