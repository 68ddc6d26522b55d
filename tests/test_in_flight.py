# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""How many crashes are in flight at once: by the stores, by the user, by what a server asks for."""

import threading
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.checker import Checker
from crashmover.engine.mover import Mover, Status
from crashmover.engine.remover import Remover
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.tuning import Tuning
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, RAW, contents, crash_of, read
from tests.benchmarks.servers import LatencyProxy
from tests.cli_helpers import put, run, samples
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import Replies, Says, proxy_of
from tests.servers.s3 import S3Server
from tests.store_helpers import peak_of_copy
from tests.strict_gcs import StrictGCS

IDS = [f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(400)]


class Far(InMemoryCrashStorage):
    """A store whose every crash takes a while, however many are asked for."""

    tuning = Tuning(workers=4, most_workers=64)
    seconds = 0.02
    busy = highest = 0
    asked_for_fewer = 0

    @property
    def slowdowns(self) -> int:
        return self.asked_for_fewer

    @contextmanager
    def _taking_a_while(self) -> Iterator[None]:
        with self._counting:
            self.busy += 1
            self.highest = max(self.highest, self.busy)
        time.sleep(self.seconds)
        yield
        with self._counting:
            self.busy -= 1

    def __init__(self) -> None:
        super().__init__()
        self._counting = threading.Lock()

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        with self._taking_a_while():
            return super().load_crash(crash_id, kinds)

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        with self._taking_a_while():
            return super().remove_crashes(crash_ids)


class Wide(InMemoryCrashStorage):
    """A store that takes any number at once."""

    tuning = Tuning(most_workers=1000)


class Narrow(InMemoryCrashStorage):
    """A store that has few connections."""

    tuning = Tuning(workers=4, savers=2)


def filled(store: Far) -> Far:
    for crash_id in IDS:
        store.save_crash(crash_of({RAW: b"{}"}, crash_id))
    return store


def copied(source: Far, destination: InMemoryCrashStorage, count: int | None = None) -> None:
    outcomes = list(Mover(source, destination, workers=count).run(IDS))
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}
    assert len(outcomes) == len(set(destination.new_crashes())) == len(IDS)


def test_more_are_in_flight_as_long_as_that_raises_the_rate() -> None:
    source = filled(Far())
    copied(source, Wide())
    assert 32 < source.highest <= 64


@pytest.mark.parametrize("most", [3, 12])
def test_what_the_user_says_is_the_most(most: int) -> None:
    source = filled(Far())
    copied(source, Wide(), most)
    assert source.highest == most


@pytest.mark.parametrize("destination", [Narrow, InMemoryCrashStorage])
def test_the_store_that_allows_the_fewest_decides(
    destination: type[InMemoryCrashStorage],
) -> None:
    source = filled(Far())
    copied(source, destination())
    assert source.highest <= 4


def test_beside_a_store_that_says_nothing_there_are_as_many_as_the_user_says() -> None:
    source = filled(Far())
    copied(source, Narrow(), 16)
    assert source.highest == 16


def test_a_server_that_asks_for_fewer_requests_gets_fewer() -> None:
    class Overloaded(Far):
        seconds = 0.005

        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            if self.busy > 8:
                self.asked_for_fewer += 1
            return super().load_crash(crash_id, kinds)

    source = filled(Overloaded())
    mover = Mover(source, Wide())
    assert len(list(mover.run(IDS))) == len(IDS)
    assert source.asked_for_fewer
    assert mover._pace.slowdowns == source.asked_for_fewer
    assert mover._pace.limit < mover._pace.highest


def test_what_it_asked_for_before_the_run_does_not_count() -> None:
    source = filled(Far())
    source.asked_for_fewer = 1000
    copied(source, Wide())
    assert source.highest > 32


def test_a_check_has_more_in_flight_too_and_keeps_their_order() -> None:
    source = filled(Far())
    findings = list(Checker(source, source).run(IDS))
    assert [finding.crash_id for finding in findings] == IDS
    assert source.highest > 32


def test_a_removal_by_ids_has_more_in_flight_too_and_keeps_their_order() -> None:
    source = filled(Far())
    with Remover(source) as remover:
        assert [result.crash_id for result in remover.crashes(IDS)] == IDS
    assert source.highest > 12
    assert not list(source.new_crashes())


def test_a_run_that_is_stopped_ends_soon_however_many_are_in_flight() -> None:
    source = filled(Far())
    mover = Mover(source, Wide())
    outcomes = mover.run(IDS)
    for _ in range(100):
        next(outcomes)
    mover.stop()
    assert len(list(outcomes)) <= 2 * 64
    assert source.busy == 0


def test_few_open_files_allow_few_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _what: (64, 64))
    source = filled(Far())
    copied(source, Wide())
    assert source.highest <= 8


def test_crashes_of_a_database_or_of_files_have_as_many_workers_as_ever(tmp_path: Path) -> None:
    with FSPermanentStorage(tmp_path / "a") as one, FSPermanentStorage(tmp_path / "b") as other:
        assert Mover(one, other)._pace.most == FSPermanentStorage.tuning.workers
        assert Mover(one, other, workers=9)._pace.most == 9
        pace = Mover(Far(), other)._pace
        assert (pace.limit, pace.most) == (4, 64)


# Over real servers


@pytest.mark.parametrize("status", [429, 503])
def test_the_summary_says_that_a_server_has_asked_for_fewer_requests(
    gcs: StrictGCS, tmp_path: Path, status: int
) -> None:
    put(tmp_path, *samples(30))
    with proxy_of(gcs.endpoint_url) as proxy:
        uri = gcs.uri(gcs.new_bucket(), endpoint_url=proxy.endpoint_url)
        proxy.fail(Replies(b"{}", status), "/upload/", times=4)
        result = run("-v", "copy", "-s", tmp_path, "-d", uri)
    assert result.exit_code == 0
    [said] = [line for line in result.stderr.splitlines() if "in flight" in line]
    start = "crashmover: info: the server asked for fewer requests 4 times: 32 in flight at most, "
    assert said.startswith(start)


def test_a_store_says_how_often_its_server_has_asked(gcs: StrictGCS) -> None:
    with proxy_of(gcs.endpoint_url) as proxy:
        uri = gcs.uri(gcs.new_bucket(), endpoint_url=proxy.endpoint_url)
        with open_storage(uri) as storage:
            proxy.fail(Replies(b"{}", 503), "", times=1)
            assert not storage.has_crash(IDS[0])
            assert storage.slowdowns == 1
            proxy.fail(Replies(b"{}", 500), "", times=1)
            assert not storage.has_crash(IDS[0])
            assert storage.slowdowns == 1


@pytest.mark.parametrize("verb", ["PUT", "GET", "POST"])
def test_an_s3_store_counts_what_is_repeated_for_it(
    s3_strict: S3Server, aws: UseAWS, verb: str
) -> None:
    """Requests of obstore, and those that we sign (POST)."""
    server = aws(s3_strict)
    with proxy_of(server.endpoint_url) as proxy:
        uri = server.uri(server.new_bucket(), endpoint_url=proxy.endpoint_url)
        with open_storage(uri) as storage:
            for fault, count in ((Says(503, "SlowDown"), 2), (Says(500, "InternalError"), 2)):
                proxy.fail(fault, verb, times=2)
                storage.save_crash(crash_of(contents()))
                assert read(storage) == contents()
                storage.remove(CRASH_ID)
                assert storage.slowdowns == count


@pytest.mark.slow
@pytest.mark.parametrize("size", [20_000, 300_000, 1_000_000])
def test_any_number_in_flight_take_little_memory(
    s3_signed: S3Server, aws: UseAWS, tmp_path: Path, size: int, figures: Figures
) -> None:
    """Far away, where as many are in flight as there may be."""
    source = FSPermanentStorage(tmp_path / "source")
    count = min(2000, 400_000_000 // size)
    main = (Kind.DUMP, "upload_file_minidump")
    crashes = [
        crash_of({RAW: b"{}", main: bytes(size)}, f"{n:08x}{IDS[0][8:]}") for n in range(count)
    ]
    for at in range(0, count, 64):
        assert not any(source.save_crashes(crashes[at : at + 64]))
    del crashes
    server = aws(s3_signed)
    with LatencyProxy(server.port, 0.1) as proxy:
        uri = server.uri(server.new_bucket(), endpoint_url=f"http://{proxy.host}:{proxy.port}")
        ways = {"in": (str(source.root), uri), "out": (uri, str(tmp_path / "back"))}
        for way, where in ways.items():
            peak = peak_of_copy(*where)
            figures(**{f"MB {way} with dumps of {size}": peak >> 20})
            assert peak < 130 << 20
