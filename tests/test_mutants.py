# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What mutation testing is run on."""

from collections import Counter
from typing import Any

import pytest

from tests.mutants import HERE, PARTS, percentage, undecorated

DECORATED = """
class Place:
    @property
    def text(self):
        return "here"

    @staticmethod
    def number():
        return 7

    @contextmanager
    def entered(self):
        yield self.text

@lru_cache(maxsize=1)
def known():  # not remembered
    calls.append(1)

last = True
"""


def test_what_hides_a_function_is_applied_below_it_or_dropped() -> None:
    source = undecorated("from contextlib import contextmanager\ncalls = []\n" + DECORATED)
    assert source.count("@") == source.count("@staticmethod") == 1
    names: dict[str, Any] = {}
    exec(compile(source, "undecorated", "exec"), names)
    place = names["Place"]()
    with place.entered() as entered:
        assert (place.text, place.number(), entered) == ("here", 7, "here")
    for _ in range(2):
        names["known"]()
    assert (names["calls"], names["last"]) == ([1, 1], True)


@pytest.mark.parametrize("name", PARTS)
def test_what_a_part_names_is_there(name: str) -> None:
    part = PARTS[name]
    files = [f"crashmover/{module}.py" for module in part.modules]
    files += [f"tests/test_{test}.py" for test in (*part.tests, *part.programs)]
    assert [file for file in files if not (HERE / file).is_file()] == []


def test_what_no_test_has_run_or_is_in_doubt_was_not_noticed() -> None:
    counts = Counter({"killed": 6, "timeout": 1, "survived": 1, "no tests": 1, "suspicious": 1})
    assert percentage(counts) == 70
