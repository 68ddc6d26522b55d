# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the metadata of objects says of their save, to the letter: other versions read it."""

import hashlib

import pytest

from crashmover.external.bucket import stamps
from crashmover.external.bucket.client import StoredObject
from crashmover.external.bucket.stamps import SaveAttempt, is_marked, is_of
from crashmover.testing import CRASH_ID, MAIN, RAW, contents, crash_of

RAW_SHA256 = hashlib.sha256(contents()[RAW]).hexdigest()
DUMP_SHA256 = hashlib.sha256(contents()[MAIN]).hexdigest()
DUMP_KEY = f"v1/dump/{CRASH_ID}"


def stored(key: str = DUMP_KEY, **metadata: str) -> StoredObject:
    return StoredObject(key, 1, '"1"', {name.replace("_", "-"): x for name, x in metadata.items()})


def attempt() -> SaveAttempt:
    crash = crash_of(contents())
    assert crash.raw_crash
    return SaveAttempt(crash, crash.raw_crash)


def test_each_object_says_which_raw_crash_it_was_saved_with() -> None:
    assert stamps.of_save(RAW_SHA256) == {"raw-crash-sha256": RAW_SHA256}
    assert stamps.of_save(None) == {}
    assert stamps.of_save("ab", added=True) == {"raw-crash-sha256": "ab", "added": "true"}
    ours = attempt()
    assert ours.of_list() == {"raw-crash-sha256": RAW_SHA256, "save": ours.token}
    assert ours.token != attempt().token


def test_a_raw_crash_says_its_sha256_and_marks_its_dumps() -> None:
    ours = attempt()
    assert ours.of_raw_crash() == {"sha256": RAW_SHA256}
    ours.put = {DUMP_KEY: DUMP_SHA256, "v1/large/ID": None, f"v1/a/{CRASH_ID}": "0" * 64}
    assert ours.of_raw_crash() == {"sha256": RAW_SHA256, "dumps": "c3c5ea1f 3a09aa5c"}


@pytest.mark.parametrize(
    ("dump", "raw", "expected"),
    [
        ({"sha256": DUMP_SHA256}, {}, True),
        ({}, {"dumps": "00000000"}, True),
        ({"sha256": DUMP_SHA256}, {"dumps": "00000000 3a09aa5c"}, True),
        ({"sha256": DUMP_SHA256}, {"dumps": "00000000"}, False),
        ({"sha256": DUMP_SHA256, "added": "true"}, {"dumps": "00000000"}, True),
    ],
)
def test_a_dump_is_one_of_those_that_are_marked(
    dump: dict[str, str], raw: dict[str, str], expected: bool
) -> None:
    assert is_marked(stored(**dump), stored(**raw)) is expected


def test_what_says_nothing_may_be_of_any_save() -> None:
    assert is_of(stored(), "a")
    assert is_of(stored(raw_crash_sha256="a"), "a")
    assert not is_of(stored(raw_crash_sha256="b"), "a")
    assert not is_of(stored(raw_crash_sha256="b"), None)


@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_a_save_knows_its_own_objects(keeps_metadata: bool) -> None:
    ours, other = attempt(), attempt()
    ours.put = {DUMP_KEY: DUMP_SHA256}
    if not keeps_metadata:
        assert ours.has_put_list(stored())
        assert ours.has_put_dump(stored())
        return
    for is_ours, each in ((True, ours), (False, other)):
        assert ours.has_put_list(StoredObject("", 1, None, each.of_list())) is is_ours
    assert ours.has_put_dump(stored(raw_crash_sha256=RAW_SHA256, sha256=DUMP_SHA256))
    assert not ours.has_put_dump(stored(raw_crash_sha256=RAW_SHA256, sha256="another"))
    assert not ours.has_put_dump(stored(raw_crash_sha256="another", sha256=DUMP_SHA256))


@pytest.mark.parametrize(
    ("there", "listed", "expected"),
    [
        ({"sha256": "old", "dumps": "1 2"}, "old", {"dumps-of": "old", "dumps": "1 2"}),
        ({"sha256": "old", "dumps": "1 2"}, "other", {"dumps-of": "other"}),
        ({"sha256": "old"}, None, {"dumps-of": "old"}),
        ({"sha256": "old", "dumps_of": "older"}, "older", {"dumps-of": "older"}),
        ({"sha256": "old", "dumps_of": "new"}, "new", {}),
        ({}, None, {}),
    ],
)
def test_a_raw_crash_that_keeps_dumps_says_whose_they_are(
    there: dict[str, str], listed: str | None, expected: dict[str, str]
) -> None:
    found = stored(raw_crash_sha256=listed) if listed else None
    got = stamps.of_raw_crash_beside(stored(**there), found, "new")
    assert got == {"sha256": "new", **expected}
