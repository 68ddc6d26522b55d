# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""How many bytes the crashes of a bucket have: by listings, and the same as if each was loaded."""

import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Set
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from crashmover import crashid
from crashmover.crash import Crash, Kind
from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket import rounds, sizes, undated
from crashmover.external.bucket.client import Pages
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.external.roles import ListedSource
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, MAIN, contents, crash_of
from tests.benchmarks.measure import measure
from tests.bucket_in_memory import Bucket, open_bucket
from tests.cli_helpers import run
from tests.conftest import Figures, UseAWS
from tests.large_bucket import SIZES, LargeBucket
from tests.s3_proxy import behind_proxy
from tests.servers.s3 import S3Server
from tests.strict_gcs import StrictGCS

DAYS = ("071025", "071026", "261129")
REPORT, BROWSER = "memory_report", "upload_file_minidump_browser"
CONTENT = "upload_file_minidump_content"
Put = Callable[[str, bytes], object]


def some_ids(count: int, *, days: tuple[str, ...] = DAYS[:1]) -> list[str]:
    """Return random ids, as a collector makes them, by day and id."""
    word = random.Random(count)
    found = [
        f"{word.getrandbits(32):08x}-{word.getrandbits(16):04x}-4{word.getrandbits(12):03x}"
        f"-8{word.getrandbits(12):03x}-{word.getrandbits(20):05x}0{days[number % len(days)]}"
        for number in range(count)
    ]
    return sorted(found, key=crashid.sort_key)


def lay_out(put: Put, crash_id: str, **parts: bytes) -> int:
    """Put a crash as another program does; return its bytes.  A dump is named by a keyword."""
    dumps = {
        name: data for name, data in parts.items() if name not in ("raw", "names", "processed")
    }
    names = json.dumps([MAIN[1] if name == "dump" else name for name in dumps]).encode()
    bodies = {keys.raw_crash_keys(crash_id)[0]: parts.get("raw", b"{}")}
    bodies |= {f"v1/{name}/{crash_id}": data for name, data in dumps.items()}
    if "processed" in parts:
        bodies[keys.processed_crash_key(crash_id)] = parts["processed"]
    for key, data in bodies.items():
        put(key, data)
    put(keys.dump_names_key(crash_id), parts.get("names", names))
    return sum(map(len, bodies.values()))


def by_loading(storage: ListedSource, kind: Kind = Kind.RAW_CRASH) -> list[tuple[str, Any]]:
    return _told(ListedSource.crash_sizes(storage, kind=kind))


def by_listing(storage: ListedSource, kind: Kind = Kind.RAW_CRASH) -> list[tuple[str, Any]]:
    return _told(storage.crash_sizes(kind=kind))


def _told(found: Iterator[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(each, size if isinstance(size, int) else str(size)) for each, size in found]


# Oddities


def put_oddities(put: Put) -> set[str]:
    """Put crashes of every kind, sound ones among them; return those whose size no listing
    shows."""
    odd: set[str] = set()
    ids = iter(some_ids(60, days=DAYS))

    def crash(is_odd: bool, **parts: bytes) -> str:
        crash_id = next(ids)
        lay_out(put, crash_id, **parts)
        odd.update([crash_id] * is_odd)
        return crash_id

    sound: dict[str, bytes] = {"raw": b'{"a": 1}', "dump": b"MDMP", REPORT: b"report"}
    crash(False, **sound)
    crash(False, **sound, processed=b"{}")
    crash(False, raw=b"")
    crash(False, dump=b"")
    crash(False, **{f"dump_{n}": b"x" * n for n in range(9)})
    for order in ([REPORT, MAIN[1]], [MAIN[1], REPORT]):
        crash(False, **sound, names=json.dumps(order).encode())
    for names in (
        b"not JSON",
        b"[",
        b"",
        b"{}",
        b"null",
        b'["dump", "memory_report"]',
        b'["upload_file_minidump","memory_report"]',
        b'["upload_file_minidump", "memory_report", "memory_report"]',
        b'["upload_file_minidump", "memory_report", "../../x"]',
        b'["upload_file_minidump", "raw_crash"]',
        b'["upload_file_minidump", "memory_reporx"]',  # of the right length
        b"x" * len(b'["upload_file_minidump", "memory_report"]'),
        b'["upload_file_minidump"]',  # a dump is left of another save
        b'["upload_file_minidump", "memory_report", "another"]',  # a dump is missing
        b" " * (1 << 20) + b"[]",  # too long
    ):
        crash(True, **sound, names=names)
    crash(
        True, **{"dump": b"MDMP", BROWSER: b"b", "names": json.dumps([MAIN[1], CONTENT]).encode()}
    )
    for key in (1, 2, 3):
        crash_id = next(ids)
        put(keys.raw_crash_keys(crash_id)[key], b"older")
        put(f"v1/dump/{crash_id}", b"MDMP")
        put(keys.dump_names_key(crash_id), b'["upload_file_minidump"]')
        odd.add(crash_id)
    put(keys.raw_crash_keys(crash(False, **sound))[3], b"hidden by the other one")
    for raw in (b"{}", b"no JSON", b'{"MinidumpSha256Hash": 1}'):  # there is no list of dumps
        crash_id = next(ids)
        put(keys.raw_crash_keys(crash_id)[0], raw)
        put(f"v1/dump/{crash_id}", b"MDMP")
        odd.add(crash_id)
    put(keys.processed_crash_key(next(ids)), b"alone")
    put(f"v1/dump/{next(ids)}", b"alone")
    put(keys.dump_names_key(next(ids)), b"[]")
    for directory in ("upload_file_minidump", "crash_report", "crashmover-mark", "another"):
        put(f"v1/{directory}/not-an-id", b"x")
    for directory in ("dump", "dump_names", "processed_crash"):
        put(f"v1/{directory}/{next(ids).upper()}", b"x")
        put(f"v1/{directory}/.probe", b"x")
        put(f"v1/{directory}/zzz", b"x")
    return odd


@pytest.fixture(params=["memory", "s3", "gcs"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[BucketCrashStorage, Put]]:
    """A store, and what puts an object into its bucket as another program does."""
    if request.param == "memory":
        bucket = Bucket()
        yield open_bucket(bucket), bucket.add
        return
    if request.param == "gcs":
        gcs: StrictGCS = request.getfixturevalue("gcs")
        name = gcs.new_bucket()
        put: Put = partial(gcs.put, name)
        uri = gcs.uri(name)
    else:
        aws: UseAWS = request.getfixturevalue("aws")
        s3 = aws(request.getfixturevalue("s3_strict"))
        name = s3.new_bucket()
        uri, put = s3.uri(name), _put_into(s3, name)
    with open_storage(uri) as storage:
        assert isinstance(storage, BucketCrashStorage)
        yield storage, put


def _put_into(server: S3Server, bucket: str) -> Put:
    client = server.client()
    return lambda key, data: client.put_object(Bucket=bucket, Key=key, Body=data)


def test_sizes_are_those_of_the_crashes_that_are_loaded(
    place: tuple[BucketCrashStorage, Put], monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    storage, put = place
    odd = put_oddities(put)
    loaded = by_loading(storage)
    assert {isinstance(size, int) for _, size in loaded} == {True, False}
    asked: list[str] = []
    load = storage.load_crash

    def load_crash(crash_id: str, kinds: Set[Kind]) -> Crash:
        asked.append(crash_id)
        return load(crash_id, kinds)

    monkeypatch.setattr(storage, "load_crash", load_crash)
    assert by_listing(storage) == loaded
    assert set(asked) == odd
    assert by_listing(storage, Kind.PROCESSED_CRASH) == by_loading(storage, Kind.PROCESSED_CRASH)
    figures(odd_crashes=len(odd), sizes=len(loaded))


# Requests


class PagedBucket(Bucket):
    """A bucket that counts the pages that are listed."""

    pages = 0

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        for page in super().list_objects(prefix, after, surely=surely):
            self.pages += 1
            yield page


@pytest.fixture
def bucket() -> PagedBucket:
    return PagedBucket()


def fill(
    bucket: Bucket,
    count: int,
    *,
    days: tuple[str, ...] = DAYS,
    ids: Callable[..., list[str]] = some_ids,
) -> dict[str, int]:
    """Put crashes of one to three dumps; return their sizes, by day and id."""
    word = random.Random(count)
    found = {}
    for number, crash_id in enumerate(ids(count, days=days)):
        dumps = islice(("dump", REPORT, BROWSER), 1 + number % 3)
        parts = {name: bytes(word.randrange(100)) for name in dumps}
        if number % 2:
            parts["processed"] = b"{}"
        found[crash_id] = lay_out(bucket.add, crash_id, raw=bytes(number % 7), **parts)
    return found


def test_a_bucket_of_few_crashes_takes_a_handful_of_requests(bucket: PagedBucket) -> None:
    expected = fill(bucket, 900, days=DAYS[:1])
    assert dict(open_bucket(bucket).crash_sizes()) == expected
    assert len(bucket.requests) <= 10
    assert {request.split()[0] for request in bucket.requests} == {"list"}


@pytest.mark.parametrize("provider", ["s3", "gcs"])
def test_no_object_is_asked_for(
    provider: str, request: pytest.FixtureRequest, figures: Figures
) -> None:
    server: Any = request.getfixturevalue("gcs" if provider == "gcs" else "s3_strict")
    if provider == "s3":
        request.getfixturevalue("aws")(server)
    with behind_proxy(server) as place:
        name = server.new_bucket()
        with open_storage(place.uri(name)) as storage:
            ids = some_ids(40)
            for crash_id in ids:
                storage.save_crash(crash_of(contents(), crash_id))
        place.proxy.requests.clear()
        result = run("list", "-s", place.uri(name), "--bytes")
        sizes = [int(line.split()[1]) for line in result.stdout.splitlines()]
        assert sizes == [sum(map(len, contents().values()))] * len(ids)
        asked = [each.path for each in place.proxy.requests if any(i in each.path for i in ids)]
        figures(requests=len(place.proxy.requests))
        assert asked == []
        assert len(place.proxy.requests) <= 16


@pytest.mark.parametrize("ids", ["spread", "one after the other"])
def test_large_directories_are_listed_in_ranges(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch, ids: str
) -> None:
    bucket.page = 10
    monkeypatch.setattr(undated, "_RANGE", 2)
    expected = fill(bucket, 1200, ids=some_ids if ids == "spread" else counted_ids)
    for window in (10**6, 250):
        monkeypatch.setattr(sizes, "_WINDOW", window)
        bucket.requests.clear()
        assert dict(open_bucket(bucket).crash_sizes()) == expected
        assert not any(each.startswith(("get", "look")) for each in bucket.requests)


def counted_ids(count: int, *, days: tuple[str, ...] = DAYS[:1]) -> list[str]:
    found = [f"{n:08x}{CRASH_ID[8:-6]}{days[n % len(days)]}" for n in range(count)]
    return sorted(found, key=crashid.sort_key)


def test_a_few_crashes_of_a_large_bucket_are_loaded(bucket: PagedBucket) -> None:
    bucket.page = 10
    expected = fill(bucket, 3000, days=("071025",) * 999 + ("071026",))
    [crashes] = [[each for each in expected.items() if each[0].endswith("071026")]]
    assert len(crashes) == 3
    day = crashid.date_of(crashes[0][0])
    assert list(open_bucket(bucket).crash_sizes(day, day)) == crashes
    pages_in_all = len(bucket.there) // bucket.page
    assert len(bucket.requests) < 60 < pages_in_all


def test_where_the_first_pages_mislead_it_takes_at_most_twice_as_many_requests(
    bucket: PagedBucket,
) -> None:
    """The first crashes are far apart, and then thousands lie side by side."""
    bucket.page = 5
    for crash_id in (f"{n:02x}{CRASH_ID[2:]}" for n in range(0xF0)):
        lay_out(bucket.add, crash_id)
    for number in range(3000):
        bucket.add(f"v1/dump_names/f0000001-{number:04x}{CRASH_ID[13:]}", b"[]")
    starts = (f"{n * 8:02x}800000" if n < 20 else f"f00000{n:02x}" for n in range(40))
    wanted = [f"{start}{CRASH_ID[8:-1]}6" for start in starts]
    expected = {each: lay_out(bucket.add, each, dump=b"x") for each in wanted}
    day = crashid.date_of(wanted[0])
    storage = open_bucket(bucket)
    assert dict(storage.crash_sizes(day, day)) == expected
    assert 4 * len(wanted) <= bucket.pages < 4 * len(wanted) + 60
    assert bucket.requests.count("look raw_crash") == len(wanted)


def test_a_listing_of_a_day_takes_few_requests(bucket: PagedBucket, figures: Figures) -> None:
    """Those before the first crash are four: two for crashes without a day, one for the days of
    each version of the layout."""
    ids = fill(bucket, 500, days=DAYS[:1])
    assert list(open_bucket(bucket).new_crashes()) == list(ids)
    figures(few_crashes=len(bucket.requests))
    assert len(bucket.requests) <= 4
    large = LargeBucket(100_000)
    assert sum(1 for _ in open_bucket(large).new_crashes()) == 100_000
    assert large.pages <= 100 + 10
    figures(hundred_thousand_crashes=large.pages)


@pytest.mark.parametrize(
    "prefixes",
    [
        {"v1/raw_crash", "v2/raw_crash"},
        {f"v1/raw_crash/20{day}" for day in DAYS},
        {"v1/raw_crash", "v1", "v1/dump_names", "v1/processed_crash"},
    ],
    ids=["for the days", "of the days", "beside them"],
)
def test_what_has_no_order_is_asked_for_at_the_same_time(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch, prefixes: set[str]
) -> None:
    monkeypatch.setattr(rounds, "FAR_AWAY", 0)
    expected = fill(bucket, 30)
    waiting, met = set(prefixes), Barrier(len(prefixes), timeout=10)
    ask = bucket.ask

    def ask_together(verb: str, key: str) -> None:
        if key in waiting:
            waiting.remove(key)
            met.wait()
        ask(verb, key)

    monkeypatch.setattr(bucket, "ask", ask_together)
    assert dict(open_bucket(bucket).crash_sizes()) == expected
    assert not waiting


# Servers of their own kind


@pytest.mark.parametrize("checksums", ["those of other bytes", "none"])
def test_checksums_that_are_of_other_bytes_cost_no_more_than_a_few_crashes(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch, checksums: str
) -> None:
    expected = fill(bucket, 900)
    told = "" if checksums == "none" else "0" * 32
    monkeypatch.setattr(bucket, "_shown", lambda key: (len(bucket.there[key][0]), told))
    assert dict(open_bucket(bucket).crash_sizes()) == expected
    loaded = bucket.requests.count("look raw_crash")
    assert loaded == 0 if checksums == "none" else 0 < loaded <= 3 * 64


@pytest.mark.parametrize("trouble", ["out of order", "denied", "odd key"])
@pytest.mark.parametrize("place", ["v1", "v1/dump", "v1/dump_names", "v1/processed_crash"])
def test_crashes_are_loaded_where_what_is_beside_them_cannot_be_listed(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch, trouble: str, place: str
) -> None:
    expected = fill(bucket, 90)
    disturb(bucket, monkeypatch, place, trouble)
    assert dict(open_bucket(bucket).crash_sizes()) == expected


def test_a_server_that_is_down_ends_the_listing(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket, 90)
    disturb(bucket, monkeypatch, "v1/dump", "down")
    with pytest.raises(StorageUnavailable):
        list(open_bucket(bucket).crash_sizes())


def test_what_was_listed_before_a_listing_fails_comes_with_its_size(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(bucket, 90)
    disturb(bucket, monkeypatch, f"v1/raw_crash/20{DAYS[2]}", "denied")
    found = open_bucket(bucket).crash_sizes()
    before = [each for each in expected if not each.endswith(DAYS[2])]
    assert dict(islice(found, len(before))) == {each: expected[each] for each in before}
    with pytest.raises(StorageDenied):
        next(found)


def disturb(bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch, place: str, trouble: str) -> None:
    """Let one directory not be listed as it should be."""
    inner, inner_directory = bucket.list_objects, bucket.list_directory

    def fail() -> None:
        kinds = {"denied": StorageDenied, "odd key": StorageError, "down": StorageUnavailable}
        if kind := kinds.get(trouble):
            raise kind(trouble, uri=bucket.uri)

    def list_objects(prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        if prefix == place:
            fail()
            return (page[::-1] for page in inner(prefix, after))
        return inner(prefix, after)

    def list_directory(prefix: str) -> tuple[list[str], list[str]]:
        if prefix == place:
            fail()
        return inner_directory(prefix)

    monkeypatch.setattr(bucket, "list_objects", list_objects)
    monkeypatch.setattr(bucket, "list_directory", list_directory)


# What changes meanwhile


def test_what_is_removed_meanwhile_is_passed_over(
    bucket: PagedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(bucket, 60, days=DAYS[:1])
    removed = list(expected)[3]
    inner, is_listed = bucket.list_objects, Event()

    def list_objects(prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        if not prefix.startswith("v1/raw_crash"):
            is_listed.wait(10)
        yield from inner(prefix, after)
        if prefix.startswith("v1/raw_crash/2007"):
            for key in [each for each in bucket.there if removed in each]:
                del bucket.there[key]
            is_listed.set()

    monkeypatch.setattr(bucket, "list_objects", list_objects)
    del expected[removed]
    assert dict(open_bucket(bucket).crash_sizes()) == expected


# Many


def test_a_hundred_thousand_crashes_take_few_requests_more_than_they_have_pages() -> None:
    bucket = LargeBucket(100_000)
    assert sum(1 for _ in open_bucket(bucket).crash_sizes()) == 100_000
    assert bucket.pages <= 1.1 * 4 * 100


@pytest.mark.slow
def test_the_sizes_of_many_crashes_take_little_memory(tmp_path: Path, figures: Figures) -> None:
    count = 400_000
    usual = sum(size for name, size in SIZES.items() if name != "dump_names")
    command = [sys.executable, "-m", "tests.large_bucket", str(count)]
    done = measure(command, os.environ, output=tmp_path / "said")
    found, size, pages = map(int, (tmp_path / "said").read_text().split())
    assert (found, size) == (count, count * usual)
    assert pages < 1.1 * (count + 4 * 3 * count) / 1000  # four times all that has no day
    assert done.memory < 75 << 20
    figures(crashes=count)
