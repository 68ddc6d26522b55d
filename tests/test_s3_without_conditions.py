# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Two who save a crash at the same moment to a bucket whose server knows no conditions: both find
that there is none, and what one has put is covered by the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event, Thread

import pytest

from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import BROWSER, NEIGHBOUR, RAW, Contents, contents, crash_of, read, without
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import Place, Request, Reset, behind_proxy
from tests.servers.s3 import S3Server

SECONDS = 30.0  # reached only when something hangs
CLAIM, FIRST_DUMP = "PUT", "/v1/dump/"


@pytest.fixture
def ways(s3_strict: S3Server, aws: UseAWS) -> Iterator[tuple[Place, Place]]:
    """Two ways to a server, on which conditions are lost."""
    with ExitStack() as stack:
        ways = [stack.enter_context(behind_proxy(aws(s3_strict))) for _ in range(2)]
        for way in ways:
            way.proxy.forgotten = {"if-none-match"}
        yield ways[0], ways[1]


def call_before(way: Place, steps: dict[str, Callable[[], object]]) -> None:
    """Do something before the first request on this way that has one of these texts in it."""
    left = dict(steps)

    def look(request: Request) -> bool:
        for text in [text for text in left if text in request]:
            left.pop(text)()
        return False

    way.proxy.fail(Reset(), look)


def save(storage: CrashStorageBase, state: Contents) -> None:
    storage.save_crash(crash_of(state))


def create(storage: CrashStorageBase, state: Contents) -> None:
    assert storage.create_crashes([crash_of(state)]) == [None]


OTHERS = {
    "fewer dumps": without(contents("b"), BROWSER),
    "other dumps": contents("b"),
    "the same": contents("a"),
}


@pytest.mark.parametrize("act", [save, create])
@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param(state, id=name, marks=[pytest.mark.slow] if name != "fewer dumps" else [])
        for name, state in OTHERS.items()
    ],
)
def test_of_two_who_claim_a_crash_the_one_that_was_covered_saves_it_again(
    ways: tuple[Place, Place],
    figures: Figures,
    act: Callable[[CrashStorageBase, Contents], None],
    theirs: Contents,
) -> None:
    """We claim, they claim and save all of theirs, and only then we go on."""
    bucket = ways[0].server.new_bucket()
    have_looked, may_claim = Event(), Event()
    with open_storage(ways[0].uri(bucket)) as our, open_storage(ways[1].uri(bucket)) as their:
        for storage in (our, their):  # finds out about conditions
            storage.save_crash(crash_of({RAW: b"{}"}, NEIGHBOUR))
        they = Thread(target=act, args=(their, theirs))

        def let_them_look() -> None:
            they.start()
            assert have_looked.wait(SECONDS)

        def wait_to_claim() -> None:
            have_looked.set()
            assert may_claim.wait(SECONDS)

        def let_them_save() -> None:
            may_claim.set()
            they.join(SECONDS)

        call_before(ways[1], {CLAIM: wait_to_claim})
        call_before(ways[0], {CLAIM: let_them_look, FIRST_DUMP: let_them_save})
        act(our, contents("a"))
        assert read(our) == contents("a")
    figures(races=1)
