# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Every store, whatever is done to it in whatever order, is as a dictionary would be."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from crashmover.crash import Kind
from crashmover.errors import CrashExists, CrashIDNotFound, PolyCrashStorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    crash_of,
    read,
    without,
)
from crashmover.testing.creating import only
from tests.conftest import Figures, UseAWS, over_grounds
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server
from tests.strict_gcs import StrictGCS

IDS = [CRASH_ID, NEIGHBOUR, "c0de929f-8721-460c-dead-a43c20261120"]

crash_ids = st.sampled_from(IDS)
bodies = st.binary(max_size=30)
json_bodies = st.sampled_from([b"{}", b'{"a": 1}', b'{"a":1} '])
dumps = st.fixed_dictionaries({}, optional={MAIN: bodies, BROWSER: bodies})


def whole(raw: bytes, dumps: Contents, processed: bytes | None) -> Contents:
    return {RAW: raw, **dumps} | ({} if processed is None else {PROCESSED: processed})


class Stores(RuleBasedStateMachine):
    """Does something to a store and to a dictionary, and holds one against the other."""

    storage: CrashStorageBase
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Contents] = {}

    @rule(crash_id=crash_ids, raw=json_bodies, dumps=dumps, processed=st.none() | json_bodies)
    def save(self, crash_id: str, raw: bytes, dumps: Contents, processed: bytes | None) -> None:
        parts = whole(raw, dumps, processed)
        self.storage.save_crash(crash_of(parts, crash_id))
        kept = self.known.get(crash_id, {})
        self.known[crash_id] = without(kept, *kept.keys() - {PROCESSED}) | parts

    @rule(crash_id=crash_ids, raw=json_bodies, dumps=dumps, processed=st.none() | json_bodies)
    def create(self, crash_id: str, raw: bytes, dumps: Contents, processed: bytes | None) -> None:
        parts = whole(raw, dumps, processed)
        [error] = self.storage.create_crashes([crash_of(parts, crash_id)])
        if RAW in self.known.get(crash_id, {}):
            assert only(error, CrashExists)
        else:
            assert error is None
            self.known.setdefault(crash_id, {}).update(parts)

    @rule(crash_id=crash_ids, dumps=dumps.filter(bool))
    def create_dumps(self, crash_id: str, dumps: Contents) -> None:
        known = self.known.get(crash_id, {})
        [error] = self.storage.create_crashes([crash_of(dumps, crash_id)])
        if RAW not in known:
            assert only(error, CrashIDNotFound)
        elif dumps.keys() & known.keys():
            assert only(error, CrashExists)
        else:
            assert error is None
            self.known[crash_id] |= dumps

    @rule(crash_id=crash_ids, processed=json_bodies)
    def save_processed(self, crash_id: str, processed: bytes) -> None:
        self.storage.save_crash(crash_of({PROCESSED: processed}, crash_id))
        self.known.setdefault(crash_id, {})[PROCESSED] = processed

    @rule(crash_id=crash_ids, dumps=dumps.filter(bool))
    def add_dumps(self, crash_id: str, dumps: Contents) -> None:
        if RAW in self.known.get(crash_id, {}):
            self.storage.save_crash(crash_of(dumps, crash_id))
            self.known[crash_id] |= dumps
        else:
            with pytest.raises((CrashIDNotFound, PolyCrashStorageError)):
                self.storage.save_crash(crash_of(dumps, crash_id))

    @rule(crash_id=crash_ids)
    def remove(self, crash_id: str) -> None:
        if self.known.pop(crash_id, None):
            self.storage.remove(crash_id)
        else:
            with pytest.raises(CrashIDNotFound):
                self.storage.remove(crash_id)

    @invariant()
    def is_as_it_should_be(self) -> None:
        type(self).steps += 1
        for crash_id in IDS:
            known = self.known.get(crash_id, {})
            assert self.storage.has_crash(crash_id) == (RAW in known)
            assert self.storage.has_crash(crash_id, Kind.PROCESSED_CRASH) == (PROCESSED in known)
            assert self.found(crash_id) == (known if RAW in known else None)
        for kind, key in ((Kind.RAW_CRASH, RAW), (Kind.PROCESSED_CRASH, PROCESSED)):
            there = [crash_id for crash_id in IDS if key in self.known.get(crash_id, {})]
            assert sorted(self.storage.new_crashes(kind=kind)) == sorted(there)

    def found(self, crash_id: str) -> Contents | None:
        try:
            return read(self.storage, crash_id)
        except CrashIDNotFound:
            return None

    def teardown(self) -> None:
        self.storage.close()


Open = Callable[[], CrashStorageBase]


def hold_against_a_dictionary(open_one: Open, examples: int) -> int:
    """Do many things to new stores of a kind; return how often it was looked at them."""

    class Kind(Stores):
        def __init__(self) -> None:
            super().__init__()
            self.storage = open_one()

    run_state_machine_as_test(
        Kind,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Kind.steps


def many(quick: int, slow: int) -> pytest.MarkDecorator:
    """How many stores are tried."""
    marks = [pytest.mark.slow, pytest.mark.timeout(900)]
    return pytest.mark.parametrize("examples", [quick, pytest.param(slow, marks=marks)])


@many(20, 500)
def test_in_memory(figures: Figures, examples: int) -> None:
    figures(looks=hold_against_a_dictionary(InMemoryCrashStorage, examples))


@pytest.mark.parametrize(
    ("ground", "examples"),
    [
        (None, 8),
        pytest.param(None, 300, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        *over_grounds(30),
    ],
    indirect=["ground"],
)
def test_on_a_file_system_and_together_with_another(
    ground: Path, figures: Figures, examples: int
) -> None:
    numbers = count()

    def open_both() -> CrashStorageBase:
        root = ground / str(next(numbers))
        return PolyCrashStorage([open_storage(str(root)), InMemoryCrashStorage()])

    figures(looks=hold_against_a_dictionary(open_both, examples))


@many(1, 60)
def test_in_a_bucket(s3_strict: S3Server, aws: UseAWS, figures: Figures, examples: int) -> None:
    aws(s3_strict)

    def open_one() -> CrashStorageBase:
        return open_storage(s3_strict.uri(s3_strict.new_bucket()))

    figures(looks=hold_against_a_dictionary(open_one, examples))


@many(1, 60)
def test_in_google_cloud_storage(gcs: StrictGCS, figures: Figures, examples: int) -> None:
    def open_one() -> CrashStorageBase:
        return open_storage(gcs.uri(gcs.new_bucket()))

    figures(looks=hold_against_a_dictionary(open_one, examples))


@many(1, 60)
def test_in_postgresql(postgresql_server: PostgreSQL, figures: Figures, examples: int) -> None:
    def open_one() -> CrashStorageBase:
        return open_storage(postgresql_server.uri(schema=postgresql_server.new_name()))

    figures(looks=hold_against_a_dictionary(open_one, examples))
