# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes in a bucket that have no list of dumps: none of their dumps is left behind."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover.crash import MAIN_DUMP, Crash, Kind, Part
from crashmover.crash_data import CrashData
from crashmover.errors import (
    CorruptCrash,
    CrashChanged,
    CrashExists,
    CrashIDNotFound,
    StorageUnavailable,
)
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import BROWSER, CRASH_ID, MAIN, RAW, Contents, crash_of, read
from tests.bucket_in_memory import Bucket as BucketInMemory
from tests.bucket_in_memory import open_bucket
from tests.cli_helpers import run, sha256
from tests.conftest import Figures, mostly_slow, server_of_buckets
from tests.servers.buckets import Bucket

REPORT = (Kind.DUMP, "memory_report")
DUMPS: Contents = {MAIN: b"MDMP main", BROWSER: b"MDMP browser", REPORT: b"report"}
LIST_KEY = keys.dump_names_key(CRASH_ID)


def raw_crash(dumps: Contents = DUMPS, *, version: int = 2) -> bytes:
    """The raw crash of these dumps, as Antenna writes it."""
    checksums = {name: sha256(data) for (_, name), data in dumps.items()}
    if version == 1:
        return json.dumps({"ProductName": "Firefox", "dump_checksums": checksums}).encode()
    metadata = {"dump_checksums": checksums}
    return json.dumps({"ProductName": "Firefox", "metadata": metadata, "version": 2}).encode()


def dumps_of(dumps: Contents = DUMPS) -> dict[str, bytes]:
    """The objects of dumps."""
    return {keys.dump_key(CRASH_ID, name): data for (_, name), data in dumps.items()}


def laid_out(key: str, raw: bytes, dumps: Contents = DUMPS) -> dict[str, bytes]:
    """The objects of a crash without a list of dumps."""
    return {key: raw, **dumps_of(dumps)}


@pytest.fixture(params=mostly_slow(["s3_signed", "s3_strict", "fake_gcs"], ["s3_signed"]))
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(server_of_buckets(request, request.param))


@pytest.fixture
def storage(bucket: Bucket) -> Iterator[CrashStorageBase]:
    with open_storage(bucket.uri()) as storage:
        yield storage


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("key", keys.raw_crash_keys(CRASH_ID))
def test_its_dumps_are_read_moved_and_removed(
    bucket: Bucket, storage: CrashStorageBase, tmp_path: Path, key: str, version: int
) -> None:
    raw = raw_crash(version=version)
    bucket.put(laid_out(key, raw))
    expected = {RAW: raw, **DUMPS}
    assert read(storage) == expected
    assert storage.get_raw_dump(CRASH_ID, "memory_report") == DUMPS[REPORT]
    found = CrashData(storage).get(CRASH_ID, "raw", MAIN_DUMP)
    assert found == (DUMPS[MAIN], "application/octet-stream")
    assert run("get", "-s", bucket.uri(), CRASH_ID).exit_code == 0
    copied = run("copy", "-s", bucket.uri(), "-d", tmp_path / "a", "--verify")
    assert copied.exit_code == 0
    assert run("check", "-s", bucket.uri(), "-d", tmp_path / "a", "--digest").exit_code == 0
    moved = run("copy", "-s", bucket.uri(), "-d", tmp_path / "b", "--remove-source", CRASH_ID)
    assert (moved.exit_code, bucket.objects()) == (0, {})
    for place in "ab":
        assert read(open_storage(str(tmp_path / place))) == expected


def test_list_counts_the_bytes_of_its_dumps(bucket: Bucket) -> None:
    bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[0], raw_crash()))
    listed = run("list", "-s", bucket.uri(), "--bytes", "--json")
    size = len(raw_crash()) + sum(map(len, DUMPS.values()))
    assert str(size).encode() in listed.stdout_bytes


@pytest.mark.parametrize(
    ("raw", "there", "expected"),
    [
        (b"{}", {MAIN: b"1", REPORT: b"2"}, {MAIN: b"1"}),
        (b"", {MAIN: b"1"}, {MAIN: b"1"}),
        (b"not JSON", {}, {}),
        (raw_crash(), {}, {}),
        (raw_crash(), {REPORT: b"2"}, {REPORT: b"2"}),
        (raw_crash({MAIN: b""}), DUMPS, {MAIN: DUMPS[MAIN]}),
    ],
    ids=["no checksums", "empty", "no JSON", "no dumps", "one dump", "a dump of no checksum"],
)
def test_those_that_are_there_are_read(
    bucket: Bucket, storage: CrashStorageBase, raw: bytes, there: Contents, expected: Contents
) -> None:
    bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[0], raw, there))
    assert read(storage) == {RAW: raw, **expected}
    storage.remove(CRASH_ID)
    assert bucket.objects() == dumps_of({key: there[key] for key in there.keys() - expected.keys()})


def test_a_list_that_is_there_is_the_store_s_word(
    bucket: Bucket, storage: CrashStorageBase, tmp_path: Path
) -> None:
    key = keys.raw_crash_keys(CRASH_ID)[0]
    bucket.put({**laid_out(key, raw_crash()), LIST_KEY: b'["dump"]'})
    assert read(storage) == {RAW: raw_crash(), MAIN: DUMPS[MAIN]}
    where = ("-s", bucket.uri(), "-d", tmp_path / "copies")
    verified = run("copy", *where, "--verify")
    assert verified.exit_code == 1 and "is missing: the raw crash has a checksum" in verified.stderr
    assert not list((tmp_path / "copies").rglob("*.json"))
    copied = run("copy", *where, "--json")
    assert (copied.exit_code, json.loads(copied.stdout)["lacking_dumps"]) == (0, 1)


def test_one_without_a_list_is_of_the_size_that_can_be_read(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    bucket.put({keys.raw_crash_keys(CRASH_ID)[0]: b'{"a": "' + bytes(17 << 20) + b'"}'})
    with pytest.raises(CorruptCrash, match="no dump_names, and raw_crash is too large"):
        storage.load_crash(CRASH_ID)
    storage.remove(CRASH_ID)
    assert bucket.objects() == {}


# While other programs save


def test_no_order_of_another_program_s_save_loses_a_dump(tmp_path: Path, figures: Figures) -> None:
    """Socorro puts the raw crash, the list, and the dumps.  A reader comes before each of them,
    copies what there is, and removes it only if that is all of it."""
    put = [
        (keys.raw_crash_keys(CRASH_ID)[0], raw_crash()),
        (LIST_KEY, json.dumps([name for _, name in DUMPS]).encode()),
        *dumps_of().items(),
    ]
    verdicts = []
    for loaded in range(1, len(put) + 1):
        for removed in range(loaded, len(put) + 1):
            bucket = BucketInMemory()
            storage = open_bucket(bucket)
            for key, data in put[:loaded]:
                bucket.add(key, data)
            try:
                crash = storage.load_crash(CRASH_ID)
                states = [(part.read(), part.find_version()) for part in crash.parts]
            except (CorruptCrash, StorageUnavailable):
                verdicts.append("not read")
                continue
            for key, data in put[loaded:removed]:
                bucket.add(key, data)
            try:
                storage.remove_loaded(crash)
            except (CrashChanged, CorruptCrash):
                assert [bucket.there[key][0] for key, _ in put[:removed]]
                verdicts.append("kept")
            else:
                left = {key for key, _ in put[:removed]} & bucket.there.keys()
                assert not left and loaded == removed and len(states) in (1, 1 + len(DUMPS))
                verdicts.append("removed")
    assert verdicts.count("removed") == 2  # the raw crash alone, and all of it
    figures(moments=len(verdicts), kept=verdicts.count("kept"))


def test_a_list_that_comes_while_the_dumps_are_looked_for_is_read() -> None:
    bucket = BucketInMemory()
    bucket.add(keys.raw_crash_keys(CRASH_ID)[0], raw_crash())

    def put_list(number: int) -> None:
        if number == len(keys.raw_crash_keys(CRASH_ID)[:1]) + 2:  # beside the raw crash, no list
            bucket.add(LIST_KEY, b"[]")

    bucket.before = put_list
    with pytest.raises(StorageUnavailable, match="replaced"):
        open_bucket(bucket).load_crash(CRASH_ID)
    bucket.before = lambda number: None
    assert read(open_bucket(bucket)) == {RAW: raw_crash()}


# What this program does to them


@pytest.mark.parametrize("create", ["honours", "ignores", "amazon"])
@pytest.mark.parametrize("creates", [True, False])
def test_dumps_that_are_added_hide_none_that_are_there(create: str, creates: bool) -> None:
    bucket = BucketInMemory(create)
    raw = raw_crash({MAIN: b"", BROWSER: b""})
    there = {MAIN: b"main", BROWSER: b"browser"}
    for key, data in laid_out(keys.raw_crash_keys(CRASH_ID)[0], raw, there).items():
        bucket.add(key, data)
    storage = open_bucket(bucket)
    added = crash_of({REPORT: b"late"})
    if creates:
        assert storage.create_crashes([added]) == [None]
        [error] = storage.create_crashes([crash_of({MAIN: b"other"})])
        assert isinstance(error, CrashExists)
    else:
        storage.save_crash(added)
    assert read(storage) == {RAW: raw, **there, REPORT: b"late"}


def test_a_dump_that_was_saved_with_another_raw_crash_is_none_of_it() -> None:
    bucket = BucketInMemory()
    raw_key = keys.raw_crash_keys(CRASH_ID)[0]
    storage = open_bucket(bucket)
    storage.save_crash(crash_of({RAW: b'{"ours": 1}', MAIN: b"ours"}))
    del bucket.there[LIST_KEY]
    assert read(storage) == {RAW: b'{"ours": 1}', MAIN: b"ours"}
    bucket.add(raw_key, b'{"theirs": 1}')
    assert read(storage) == {RAW: b'{"theirs": 1}'}


@pytest.mark.parametrize("create", ["honours", "amazon"])
def test_who_creates_a_crash_that_is_there_without_a_list_leaves_it_as_it_is(create: str) -> None:
    bucket = BucketInMemory(create)
    for key, data in laid_out(keys.raw_crash_keys(CRASH_ID)[0], raw_crash()).items():
        bucket.add(key, data)
    storage = open_bucket(bucket)
    for parts in ({RAW: b"{}"}, {RAW: b"{}", MAIN: b"other"}, {RAW: raw_crash(), **DUMPS}):
        [error] = storage.create_crashes([crash_of(parts)])
        assert isinstance(error, CrashExists)
        assert read(storage) == {RAW: raw_crash(), **DUMPS}


def test_replacing_one_removes_the_dumps_that_the_other_has_not() -> None:
    bucket = BucketInMemory()
    for key, data in laid_out(keys.raw_crash_keys(CRASH_ID)[0], raw_crash()).items():
        bucket.add(key, data)
    storage = open_bucket(bucket)
    storage.save_crash(crash_of({RAW: b"{}", BROWSER: b"new"}))
    assert read(storage) == {RAW: b"{}", BROWSER: b"new"}
    assert not {key for key in dumps_of({MAIN: b"", REPORT: b""}) if key in bucket.there}


def test_a_removal_that_was_stopped_can_be_completed() -> None:
    bucket = BucketInMemory()
    bucket.add(keys.dump_key(CRASH_ID, MAIN_DUMP), b"left")
    storage = open_bucket(bucket)
    storage.remove(CRASH_ID)
    assert bucket.there == {}
    with pytest.raises(CrashIDNotFound):
        storage.remove(CRASH_ID)


def test_a_crash_with_a_list_costs_no_further_request() -> None:
    bucket = BucketInMemory()
    storage = open_bucket(bucket)
    storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, raw_crash())]))
    bucket.requests.clear()
    storage.load_crash(CRASH_ID)
    looks = ["look raw_crash", "look dump_names", "look processed_crash"]
    assert bucket.requests == [*looks, "get dump_names"]  # from a server the list comes along


def test_a_new_raw_crash_that_names_no_dumps_keeps_those_that_were_not_listed(
    bucket: Bucket,
) -> None:
    """As a processor does that leaves the checksums out: nothing else would name the dumps."""
    bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[0], raw_crash()))
    with open_storage(bucket.uri()) as storage:
        storage.save_raw_crash({"ProductName": "new"}, None, CRASH_ID)
        assert storage.get_raw_crash(CRASH_ID) == {"ProductName": "new"}
        assert storage.get_raw_dumps(CRASH_ID) == {name: data for (_, name), data in DUMPS.items()}
