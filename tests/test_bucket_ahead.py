# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.


"""What is begun ahead of its turn: together, in order, and never too early."""

from threading import Barrier

import pytest

from crashmover.external.bucket import ahead
from crashmover.external.bucket.ahead import begun_ahead


def test_what_follows_each_other_is_begun_together_and_comes_in_order() -> None:
    met = Barrier(16, timeout=10)

    def begin(number: int) -> int:
        met.wait()
        return number * 2

    assert list(begun_ahead(begin, range(16))) == [number * 2 for number in range(16)]
    assert list(begun_ahead(begin, [])) == []


def test_no_more_is_begun_than_a_few() -> None:
    begun: list[int] = []
    found = begun_ahead(begun.append, range(1000))
    next(found)
    found.close()
    assert len(begun) <= 16


def test_what_has_grown_old_is_begun_anew_and_nothing_ahead_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, begun = [100.0], []

    def begin(number: int) -> tuple[int, float]:
        begun.append(number)
        return number, now[0]

    monkeypatch.setattr(ahead, "monotonic", lambda: now[0])
    found = []
    for number, when in begun_ahead(begin, range(30)):
        assert now[0] - when <= 5
        found.append(number)
        now[0] += 6
    assert found == [*range(30)]
    assert len(begun) <= 30 + 16


def test_what_fails_fails_in_its_turn() -> None:
    def begin(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        return number

    found = begun_ahead(begin, range(5))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(found)
