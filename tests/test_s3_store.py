# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage: the objects, as other programs put and see them, on real servers."""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from click.testing import CliRunner

from crashmover import crashid
from crashmover.cli import main
from crashmover.crash import Crash, Kind, Part
from crashmover.engine.mover import Mover, Status
from crashmover.errors import (
    CorruptCrash,
    CrashChanged,
    CrashIDNotFound,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.bucket.client import Pages
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    ReadFailed,
    broken,
    contents,
    crash_of,
    read,
    without,
)
from crashmover.testing.samples import Key
from tests.conftest import UseAWS
from tests.s3_proxy import Proxy, proxy_of
from tests.servers.s3 import Bucket, S3Server

DAY = "20071025"
LARGE = (20 << 20) + 1


@pytest.fixture(params=["s3_signed", "s3_strict"])
def bucket(request: pytest.FixtureRequest, aws: UseAWS) -> Bucket:
    return Bucket(aws(request.getfixturevalue(request.param)))


@pytest.fixture
def strict(s3_strict: S3Server, aws: UseAWS) -> Bucket:
    """On a server that honours conditions."""
    return Bucket(aws(s3_strict))


@pytest.fixture
def fast(s3_signed: S3Server, aws: UseAWS) -> Bucket:
    """On the server that is the faster one."""
    return Bucket(aws(s3_signed))


@pytest.fixture
def storage(bucket: Bucket) -> Iterator[CrashStorageBase]:
    with open_storage(bucket.uri()) as storage:
        yield storage


@pytest.fixture
def proxy(strict: Bucket) -> Iterator[Proxy]:
    with proxy_of(strict.server.endpoint_url) as proxy:
        yield proxy


def through(proxy: Proxy, bucket: Bucket, **options: str) -> CrashStorageBase:
    uri = bucket.uri(**options).replace(bucket.server.endpoint_url, proxy.endpoint_url)
    return open_storage(uri)


def laid_out(raw_crash_key: str, names: bytes | None = None) -> dict[str, bytes]:
    """The objects of a crash as other programs put them."""
    parts = contents()
    objects = {
        raw_crash_key: parts[RAW],
        f"v1/dump/{CRASH_ID}": parts[MAIN],
        f"v1/upload_file_minidump_browser/{CRASH_ID}": parts[BROWSER],
        f"v1/processed_crash/{CRASH_ID}": parts[PROCESSED],
        f"v1/dump_names/{CRASH_ID}": names or b'["dump", "upload_file_minidump_browser"]',
    }
    return objects


# What is written


def test_the_objects_are_those_of_the_layout(bucket: Bucket) -> None:
    with open_storage(bucket.uri("a/b")) as storage:
        storage.save_crash(crash_of(contents()))
    objects = bucket.objects()
    names = json.loads(objects.pop(f"a/b/v1/dump_names/{CRASH_ID}"))
    assert names == ["upload_file_minidump", "upload_file_minidump_browser"]
    assert objects == {
        f"a/b/v1/raw_crash/{DAY}/{CRASH_ID}": contents()[RAW],
        f"a/b/v1/dump/{CRASH_ID}": contents()[MAIN],
        f"a/b/v1/upload_file_minidump_browser/{CRASH_ID}": contents()[BROWSER],
        f"a/b/v1/processed_crash/{CRASH_ID}": contents()[PROCESSED],
    }


@pytest.mark.parametrize("prefix", ["", "a/b"])
def test_where_a_part_lies_is_the_address_of_its_object(fast: Bucket, prefix: str) -> None:
    below = f"{prefix}/" if prefix else ""
    fast.put({below + key: data for key, data in laid_out(f"v1/raw_crash/{CRASH_ID}").items()})
    with open_storage(fast.uri(prefix)) as storage:
        lying = {part.key: part.location for part in storage.load_crash(CRASH_ID).parts}
    found = {}
    for key, location in lying.items():
        scheme, _, bucket, name = (location or "").split("/", 3)
        assert (scheme, bucket) == ("s3:", fast.name)
        found[key] = fast.get(name)["Body"]
    assert found == contents()


def test_a_crash_without_dumps_has_an_empty_list_of_them(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of({RAW: b"{}"}))
    assert bucket.objects() == {
        f"v1/raw_crash/{DAY}/{CRASH_ID}": b"{}",
        f"v1/dump_names/{CRASH_ID}": b"[]",
    }


def test_objects_say_what_they_are(strict: Bucket) -> None:
    with open_storage(strict.uri(storage_class="STANDARD_IA")) as storage:
        storage.save_crash(crash_of(contents()))
    raw = strict.get(f"v1/raw_crash/{DAY}/{CRASH_ID}")
    dump = strict.get(f"v1/dump/{CRASH_ID}")
    assert raw["ContentType"] == "application/json"
    assert dump["ContentType"] == "application/octet-stream"
    assert dump["StorageClass"] == "STANDARD_IA"
    assert dump["Metadata"]["raw-crash-sha256"] == raw["Metadata"]["sha256"]


def test_a_large_dump_goes_up_in_parts(strict: Bucket, proxy: Proxy) -> None:
    storage = through(proxy, strict)
    dump = Part(*MAIN, lambda: cast(BinaryIO, io.BytesIO(bytes(LARGE))), LARGE)
    storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), dump]))
    assert proxy.count("partNumber=") == 3
    assert strict.objects()[f"v1/dump/{CRASH_ID}"] == bytes(LARGE)
    assert read(storage)[MAIN] == bytes(LARGE)


@pytest.mark.parametrize("size", [None, LARGE])
def test_a_large_dump_that_breaks_off_is_taken_back(
    strict: Bucket, proxy: Proxy, size: int | None
) -> None:
    storage = through(proxy, strict)
    bad = broken(MAIN, bytes(LARGE), after=LARGE - 100)
    bad = Part(bad.kind, bad.name, bad.open, size)
    with pytest.raises(ReadFailed):
        storage.save_crash(Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), bad]))
    assert proxy.count("DELETE") == 1
    assert "Uploads" not in strict.client.list_multipart_uploads(Bucket=strict.name)
    assert f"v1/dump/{CRASH_ID}" not in strict.objects()
    assert not storage.has_crash(CRASH_ID)


def test_a_large_raw_crash_is_the_commit_marker_all_the_same(bucket: Bucket) -> None:
    raw = b'{"a": "' + bytes(LARGE) + b'"}'
    with open_storage(bucket.uri()) as storage:
        storage.save_crash(crash_of({RAW: raw, MAIN: b"dump"}))
        assert read(storage) == {RAW: raw, MAIN: b"dump"}
        storage.save_crash(crash_of({RAW: raw + b" ", MAIN: b"other"}))
        assert read(storage) == {RAW: raw + b" ", MAIN: b"other"}


@pytest.mark.parametrize(("again", "announced"), [(LARGE, LARGE), (LARGE, None), (10, None)])
def test_a_large_raw_crash_must_be_the_same_when_it_is_read_again(
    bucket: Bucket, again: int, announced: int | None
) -> None:
    versions = iter([b"a" * LARGE, b"b" * again])
    part = Part(*RAW, lambda: io.BytesIO(next(versions)), announced)
    with open_storage(bucket.uri()) as storage:
        with pytest.raises(CorruptCrash, match="raw_crash changed while it was read"):
            storage.save_crash(Crash(CRASH_ID, [part]))
        assert not storage.has_crash(CRASH_ID)


# What is read


@pytest.mark.parametrize("form", range(4))
def test_every_older_key_is_read(
    bucket: Bucket, storage: CrashStorageBase, form: int, tmp_path: Path
) -> None:
    bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[form]))
    assert storage.has_crash(CRASH_ID)
    assert read(storage) == contents()
    assert list(storage.new_crashes()) == [CRASH_ID]
    for since in (None, crashid.date_of(CRASH_ID)):
        destination = InMemoryCrashStorage()
        ids = list(storage.new_crashes(since, since))
        [outcome] = Mover(storage, destination, verify=True).run(ids)
        assert outcome.status is Status.COPIED
        assert read(destination) == contents()
    result = CliRunner().invoke(
        main, ["get", "-s", bucket.uri(), CRASH_ID, "--dump", "", "-o", str(tmp_path / "d")]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "d").read_bytes() == contents()[MAIN]
    result = CliRunner().invoke(main, ["copy", "-s", bucket.uri(), "-d", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    assert read(open_storage(str(tmp_path / "store"))) == contents()


def test_what_lies_under_an_older_key_is_not_removed_with_the_crash(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    """A reader has not seen it."""
    storage.save_crash(crash_of(contents()))
    crash = storage.load_crash(CRASH_ID)
    bucket.put({f"v1/raw_crash/{CRASH_ID}": b"{}"})
    with pytest.raises(CrashChanged):
        storage.remove_loaded(crash)
    assert bucket.objects()[f"v1/raw_crash/{CRASH_ID}"] == b"{}"
    assert read(storage) == contents()


@pytest.mark.parametrize("left", ["dump_names", "dump", "processed_crash"])
def test_what_a_removal_has_left_is_removed_by_the_next_attempt(
    bucket: Bucket, storage: CrashStorageBase, left: str
) -> None:
    """And what somebody has begun to save since is not."""
    storage.save_crash(crash_of(contents()))
    crash = storage.load_crash(CRASH_ID)
    assert {part.key: part.read() for part in crash.parts} == contents()
    key = f"v1/{left}/{CRASH_ID}"
    gone = sorted(bucket.objects().keys() - {key})
    for each in gone:
        bucket.client.delete_object(Bucket=bucket.name, Key=each)
    storage.remove_loaded(crash)
    assert not bucket.objects()
    with pytest.raises(CrashIDNotFound):
        storage.remove_loaded(crash)
    storage.save_crash(crash_of(contents("another")))
    for each in gone:
        bucket.client.delete_object(Bucket=bucket.name, Key=each)
    with pytest.raises(CrashIDNotFound):
        storage.remove_loaded(crash)
    assert list(bucket.objects()) == [key]


def test_a_save_that_goes_on_is_no_rest_of_a_removal(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    """Of the same raw crash with another dump, which is listed already."""
    storage.save_crash(crash_of(contents()))
    crash = storage.load_crash(CRASH_ID)
    assert {part.key: part.read() for part in crash.parts} == contents()
    storage.save_crash(crash_of(contents() | {(Kind.DUMP, "late"): b"late"}))
    bucket.client.delete_object(Bucket=bucket.name, Key=f"v1/raw_crash/{DAY}/{CRASH_ID}")
    before = bucket.objects()
    with pytest.raises(CrashIDNotFound):
        storage.remove_loaded(crash)
    assert bucket.objects() == before


def test_a_dump_that_another_program_has_replaced_is_not_removed_with_the_crash(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    """Of which no other object says anything."""
    bucket.put(laid_out(f"v1/raw_crash/{DAY}/{CRASH_ID}"))
    crash = storage.load_crash(CRASH_ID)
    assert {part.key: part.read() for part in crash.parts} == contents()
    bucket.put({f"v1/dump/{CRASH_ID}": b"another"})
    with pytest.raises(CrashChanged):
        storage.remove_loaded(crash)
    assert read(storage) == contents() | {MAIN: b"another"}


def test_the_new_key_comes_before_the_older_ones(bucket: Bucket, storage: CrashStorageBase) -> None:
    for number, key in reversed(list(enumerate(keys.raw_crash_keys(CRASH_ID)))):
        bucket.put({key: str(number).encode()})
        assert read(storage) == {RAW: str(number).encode()}
        assert list(storage.new_crashes()) == [CRASH_ID]


def test_a_missing_list_of_dumps_is_no_missing_crash(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    bucket.put({f"v1/raw_crash/{DAY}/{CRASH_ID}": b"{}"})
    assert read(storage) == {RAW: b"{}"}


def test_the_main_dump_is_listed_by_either_name(bucket: Bucket, storage: CrashStorageBase) -> None:
    for names in (b'["dump"]', b'["upload_file_minidump"]'):
        bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[0], names))
        assert read(storage) == without(contents(), BROWSER)


def test_a_list_of_dumps_that_is_none_is_said(bucket: Bucket, storage: CrashStorageBase) -> None:
    bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[0], b'{"dump"'))
    with pytest.raises(CorruptCrash, match="dump_names is not JSON") as caught:
        storage.load_crash(CRASH_ID)
    assert (caught.value.crash_id, caught.value.uri) == (CRASH_ID, storage.uri)
    assert storage.get_raw_crash(CRASH_ID)


def test_a_dump_that_is_listed_and_not_there_is_named(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    bucket.put(laid_out(keys.raw_crash_keys(CRASH_ID)[0], b'["memory_report"]'))
    with pytest.raises(CorruptCrash, match="dump memory_report is listed and not there"):
        storage.get_raw_dumps(CRASH_ID)
    destination = InMemoryCrashStorage()
    [outcome] = Mover(storage, destination).run([CRASH_ID])
    assert outcome.status is Status.FAILED
    assert not destination.has_crash(CRASH_ID)


def test_a_dump_of_another_save_is_not_taken_for_the_crashs(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    bucket.put({f"v1/dump/{CRASH_ID}": b"of another"}, **{"raw-crash-sha256": "0" * 64})
    with pytest.raises(CorruptCrash, match="saved with another raw crash"):
        storage.get_raw_dump(CRASH_ID)


def test_what_other_programs_put_over_it_is_taken_as_it_is(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    storage.save_crash(crash_of(contents()))
    bucket.put({f"v1/dump/{CRASH_ID}": b"edited", f"v1/raw_crash/{DAY}/{CRASH_ID}": b"{ }"})
    assert read(storage) == contents() | {MAIN: b"edited", RAW: b"{ }"}


def test_a_crash_that_is_replaced_while_it_is_read_is_said(bucket: Bucket) -> None:
    with open_storage(bucket.uri()) as storage, open_storage(bucket.uri()) as other:
        storage.save_crash(crash_of(contents("a")))
        loaded = storage.load_crash(CRASH_ID)
        other.save_crash(crash_of(contents("b")))
        for part in loaded.dumps:
            with pytest.raises(StorageUnavailable, match="replaced"):
                part.read()
        other.remove(CRASH_ID)
        for part in loaded.dumps:
            with pytest.raises(StorageUnavailable, match="replaced"):
                part.read()


# Requests


def test_a_new_crash_costs_a_request_for_each_object(strict: Bucket, proxy: Proxy) -> None:
    storage = through(proxy, strict)
    storage.save_crash(crash_of({RAW: b"{}"}, NEIGHBOUR))  # which finds out about conditions
    proxy.requests.clear()
    storage.save_crash(crash_of(contents()))
    assert [f"{request.method} {request.path.split('?')[0]}" for request in proxy.requests] == [
        f"PUT /{strict.name}/v1/dump_names/{CRASH_ID}",
        f"PUT /{strict.name}/v1/dump/{CRASH_ID}",
        f"PUT /{strict.name}/v1/upload_file_minidump_browser/{CRASH_ID}",
        f"PUT /{strict.name}/v1/processed_crash/{CRASH_ID}",
        f"PUT /{strict.name}/v1/raw_crash/{DAY}/{CRASH_ID}",
    ]
    proxy.requests.clear()
    assert read(storage) == contents()
    assert len(proxy.requests) == 5


def test_the_sizes_of_dumps_are_asked_for_and_not_read(strict: Bucket, proxy: Proxy) -> None:
    storage = through(proxy, strict)
    storage.save_crash(crash_of(contents()))
    crash = storage.load_crash(CRASH_ID)
    proxy.requests.clear()
    sizes = {part.name: len(contents()[part.key]) for part in crash.dumps}
    assert {part.name: part.find_size() for part in crash.dumps} == sizes
    assert {part.name: part.check() for part in crash.dumps} == sizes
    assert [request.method for request in proxy.requests] == ["HEAD"] * len(sizes)
    strict.server.client().delete_object(Bucket=strict.name, Key=f"v1/dump/{CRASH_ID}")
    with pytest.raises(CorruptCrash, match="not there"):
        storage.find_dump(CRASH_ID).check()


def test_what_a_listing_has_just_found_missing_is_not_asked_for(fast: Bucket) -> None:
    """On a server without conditions, where each save begins with a question otherwise."""
    known, early, late = (f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(3))
    with proxy_of(fast.server.endpoint_url) as proxy, through(proxy, fast) as storage:

        def asks(crash_id: str) -> bool:
            proxy.requests.clear()
            storage.save_crash(crash_of({RAW: b"{}"}, crash_id))
            return proxy.requests[0].method == "HEAD"

        asks(known)  # and finds out about conditions
        assert asks(early)
        assert list(storage.new_crashes()) == [known, early]
        assert not asks(late)
        assert asks(late)  # now it is there
        assert asks(known)


def test_a_crash_saved_twice_after_a_listing_is_replaced_and_not_mixed(fast: Bucket) -> None:
    with open_storage(fast.uri()) as storage:
        assert list(storage.new_crashes()) == []
        storage.save_crash(crash_of(contents("a")))
        storage.save_crash(crash_of(without(contents("b"), BROWSER)))
        assert read(storage) == without(contents("b"), BROWSER)
    assert f"v1/upload_file_minidump_browser/{CRASH_ID}" not in fast.objects()


def test_the_raw_crash_goes_before_its_dumps_are_replaced(strict: Bucket, proxy: Proxy) -> None:
    storage = through(proxy, strict)
    storage.save_crash(crash_of(contents("a")))
    proxy.requests.clear()
    storage.save_crash(crash_of(without(contents("b"), BROWSER)))
    changes = [request for request in proxy.requests if request.method not in ("GET", "HEAD")]
    assert "dump_names" in changes[0]  # refused: it is there
    assert changes[1].method == changes[2].method == "POST"  # deletes the raw, then the obsolete
    assert f"raw_crash/{DAY}" in changes[-1]
    assert f"v1/upload_file_minidump_browser/{CRASH_ID}" not in strict.objects()


@pytest.mark.parametrize("bad", [RAW, MAIN, BROWSER, PROCESSED])
def test_a_crash_that_cannot_be_read_takes_the_place_of_none(
    storage: CrashStorageBase, bad: Key
) -> None:
    storage.save_crash(crash_of(contents("a")))
    parts = [
        broken(key, data, after=5) if key == bad else Part.of_bytes(key[0], data, key[1])
        for key, data in contents("b").items()
    ]
    with pytest.raises(ReadFailed):
        storage.save_crash(Crash(CRASH_ID, parts))
    assert read(storage) == contents("a")


def test_saving_the_same_again_never_takes_it_away(bucket: Bucket) -> None:
    with proxy_of(bucket.server.endpoint_url) as proxy:
        through(proxy, bucket).save_crash(crash_of(contents()))
        through(proxy, bucket).save_crash(crash_of(contents()))
        assert proxy.count("POST") == proxy.count("DELETE") == 0


def test_an_older_key_gives_way_to_the_new_one(bucket: Bucket, storage: CrashStorageBase) -> None:
    for key in keys.raw_crash_keys(CRASH_ID)[1:]:
        bucket.put(laid_out(key))
        storage.save_crash(crash_of(contents("b")))
        assert read(storage) == contents("b")
        assert key not in bucket.objects()
        storage.remove(CRASH_ID)
        assert bucket.objects() == {}


def test_removing_deletes_every_form_and_nothing_else(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    for key in keys.raw_crash_keys(CRASH_ID):
        bucket.put(laid_out(key))
    storage.save_crash(crash_of(contents(), NEIGHBOUR))
    others = {name for name in bucket.objects() if NEIGHBOUR in name}
    storage.remove(CRASH_ID)
    assert set(bucket.objects()) == others


def test_two_processes_that_save_one_crash_do_not_mix(strict: Bucket) -> None:
    states = [without(contents(version), PROCESSED) for version in "abcd"]

    def save(state: Contents) -> None:
        with open_storage(strict.uri()) as storage:  # which shares no lock with the others
            for _ in range(5):
                try:
                    storage.save_crash(crash_of(state))
                    return
                except StorageUnavailable:
                    continue

    with ThreadPoolExecutor(4) as pool, open_storage(strict.uri()) as reader:
        for _ in range(5):
            list(pool.map(save, states))
            assert read(reader) in states


# Lists


def test_a_prefix_is_a_store_of_its_own(bucket: Bucket) -> None:
    prefixes = ["", "a", "ab", "a/b", "odd name %~+ü"]
    stores = [open_storage(bucket.uri(prefix)) for prefix in prefixes]
    for number, store in enumerate(stores):
        store.save_crash(crash_of({RAW: str(number).encode()}, _id(number)))
    for number, store in enumerate(stores):
        assert list(store.new_crashes()) == [_id(number)]
        assert read(store, _id(number)) == {RAW: str(number).encode()}
    assert len({store.identity() for store in stores}) == len(stores)


def _id(number: int, start: str = "0bba", day: str = "071025") -> str:
    return f"{start}{number:04x}-8721-460c-dead-a43c22{day}"


def test_what_is_no_crash_is_not_listed(bucket: Bucket, storage: CrashStorageBase) -> None:
    bucket.put(
        {
            f"v1/raw_crash/{DAY}/{CRASH_ID}": b"{}",
            f"v1/raw_crash/{DAY}/README": b"",
            f"v1/raw_crash/{DAY}/{CRASH_ID}.bak": b"",
            f"v1/raw_crash/20071026/{CRASH_ID}": b"filed under another day",
            f"v1/raw_crash/20079999/{_id(1)}": b"",
            "v1/raw_crash/notes.txt": b"",
            f"v2/raw_crash/0bb/{DAY}/notes": b"",
            f"v1/processed_crash/{CRASH_ID}.json": b"",
        }
    )
    assert list(storage.new_crashes()) == [CRASH_ID]
    assert list(storage.new_crashes(kind=Kind.PROCESSED_CRASH)) == []


def test_more_than_a_page_is_listed(fast: Bucket) -> None:
    ids = [_id(number) for number in range(1100)]
    later = [_id(number, day="071026") for number in range(3)]
    fast.fill([keys.raw_crash_keys(crash_id)[0] for crash_id in ids + later])
    with open_storage(fast.uri()) as storage:
        assert list(storage.new_crashes()) == ids + later
        day = crashid.date_of(later[0])
        with proxy_of(fast.server.endpoint_url) as proxy:
            assert list(through(proxy, fast).new_crashes(day)) == later
            assert len(proxy.requests) < 6


def test_all_forms_are_merged_in_order(fast: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = ["0bba", "2007", "2010", "20ff", "21aa", "ffff"]
    ids = [
        _id(number, start, day)
        for day in ("071025", "071026", "101231")
        for start in starts
        for number in range(4)
    ]
    fast.fill([keys.raw_crash_keys(crash_id)[n % 4] for n, crash_id in enumerate(ids)])
    fast.fill([keys.raw_crash_keys(crash_id)[(n + 1) % 4] for n, crash_id in enumerate(ids[::3])])
    for page in (1000, 1):  # with 1, as if the crashes without a day were too many to list at once
        monkeypatch.setattr("crashmover.external.bucket.listing._PAGE", page)
        with open_storage(fast.uri()) as storage:
            assert list(storage.new_crashes()) == ids
            first, last = crashid.date_of(ids[24]), crashid.date_of(ids[47])
            assert list(storage.new_crashes(first, last)) == ids[24:48]


def test_many_crashes_without_a_day_are_listed(fast: Bucket) -> None:
    ids = sorted(_id(number, start) for number in range(650) for start in ("20aa", "aaaa"))
    fast.fill([keys.raw_crash_keys(crash_id)[3] for crash_id in ids[::2]])
    fast.fill([keys.raw_crash_keys(crash_id)[0] for crash_id in ids[1::2]])
    with open_storage(fast.uri()) as storage:
        assert list(storage.new_crashes()) == ids


def test_a_bucket_that_lists_out_of_order_is_refused(
    fast: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast.fill([keys.raw_crash_keys(_id(number))[0] for number in range(3)])
    with open_storage(fast.uri()) as storage:
        pages: Callable[..., Pages] = storage._client.list_objects  # type: ignore[attr-defined]

        def reversed_pages(*args: str, **options: bool) -> Pages:
            return (page[::-1] for page in pages(*args, **options))

        monkeypatch.setattr(storage._client, "list_objects", reversed_pages)  # type: ignore[attr-defined]
        with pytest.raises(StorageError, match="out of order"):
            list(storage.new_crashes())


# Adding dumps


def test_a_late_dump_joins_the_list(bucket: Bucket, storage: CrashStorageBase) -> None:
    bucket.put({keys.raw_crash_keys(CRASH_ID)[3]: b"{}"})
    storage.save_crash(crash_of({BROWSER: b"late"}))
    storage.save_crash(crash_of({MAIN: b"later"}))
    assert read(storage) == {RAW: b"{}", BROWSER: b"late", MAIN: b"later"}
    with pytest.raises(CrashIDNotFound, match="no raw crash to add dumps to"):
        storage.save_crash(crash_of({BROWSER: b"lost"}, NEIGHBOUR))
    assert not [name for name in bucket.objects() if NEIGHBOUR in name]
