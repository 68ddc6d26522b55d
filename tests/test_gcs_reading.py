# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Google Cloud Storage: what reading costs, from servers that send metadata along with the bytes,
from servers that do not, and from those without the XML API; and what may go wrong on the way.
"""

import gzip
import hashlib
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crashmover.errors import CorruptCrash, StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.gcs.client import GCSClient
from crashmover.external.google_api import GoogleServer
from crashmover.registry import open_storage
from crashmover.testing import (
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
)
from tests.conftest import Figures
from tests.s3_proxy import Cut, Damaged, Drip, Proxy, Replies, Request, Reset, Says, proxy_of
from tests.strict_gcs import Object, StrictGCS
from tests.token_server import TokenServer, token_server

RAW_KEY = f"v1/raw_crash/20071025/{CRASH_ID}"
LIST_KEY = f"v1/dump_names/{CRASH_ID}"
PROCESSED_KEY = f"v1/processed_crash/{CRASH_ID}"
DUMP = f"v1/dump/{CRASH_ID}"

KINDS = ("with metadata", "without metadata", "none")
"""What XML APIs there are."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, gcs: StrictGCS) -> StrictGCS:
    """A server of each kind."""
    gcs.xml = request.param
    return gcs


@pytest.fixture
def bucket(gcs: StrictGCS) -> str:
    return gcs.new_bucket()


@pytest.fixture
def proxy(gcs: StrictGCS) -> Iterator[Proxy]:
    with proxy_of(gcs.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def storage(gcs: StrictGCS, proxy: Proxy, bucket: str) -> Iterator[CrashStorageBase]:
    """The bucket, through a network that fails."""
    with open_storage(gcs.uri(bucket, endpoint_url=proxy.endpoint_url)) as storage:
        yield storage


def client_of(storage: CrashStorageBase) -> GCSClient:
    assert isinstance(storage, BucketCrashStorage)
    assert isinstance(storage._client, GCSClient)
    return storage._client


def as_googles(storage: CrashStorageBase) -> None:
    """Let a store believe that Google runs its server."""
    client_of(storage)._sends_metadata = True


def is_read(request: Request) -> bool:
    """Of an object's bytes."""
    return is_xml(request) or "alt=media" in request


def is_xml(request: Request) -> bool:
    return request.method == "GET" and not request.path.startswith(("/storage/", "/upload/"))


def is_xml_after(left: Iterator[int], request: Request) -> bool:
    return is_xml(request) and next(left, None) is None


def put_as_socorro(gcs: StrictGCS, bucket: str, crash: Contents) -> dict[str, Object]:
    """Put a crash without any metadata, and the list of its one dump."""
    data = {RAW_KEY: crash[RAW], LIST_KEY: b'["upload_file_minidump"]', DUMP: crash[MAIN]}
    data |= {PROCESSED_KEY: crash[PROCESSED]} if PROCESSED in crash else {}
    return {key: gcs.put(bucket, key, each) for key, each in data.items()}


def small(size: int = 10) -> Contents:
    return {RAW: b'{"a": 1}', MAIN: random.Random(size).randbytes(size), PROCESSED: b'{"b": 2}'}


# What it costs


def test_an_object_costs_one_request(gcs: StrictGCS, bucket: str, figures: Figures) -> None:
    crash = contents()
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(crash))
    with open_storage(gcs.uri(bucket)) as storage:
        gcs.requests.clear()
        gcs.headers.clear()
        assert read(storage) == crash
    assert len(gcs.requests) == len(crash) + 1, gcs.requests  # one for the list of dumps
    assert gcs.count("/storage/") == 0
    assert {head["cache-control"] for head in gcs.headers} == {"no-cache"}
    figures(requests=len(gcs.requests), objects=len(crash) + 1)


def test_an_object_that_is_missing_costs_one_request(gcs: StrictGCS, bucket: str) -> None:
    crash = {key: data for key, data in contents().items() if key != PROCESSED}
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(crash))
    with open_storage(gcs.uri(bucket)) as storage:
        gcs.requests.clear()
        assert read(storage) == crash
    assert len(gcs.requests) == len(crash) + 2, gcs.requests


def test_to_find_that_the_bucket_is_there_costs_one_request(gcs: StrictGCS, bucket: str) -> None:
    """Google says which of both is missing, the object or the bucket."""
    with open_storage(gcs.uri(bucket)) as storage:
        storage.verify_access()
    assert len(gcs.requests) == 1, gcs.requests


def test_socorros_objects_at_googles_cost_one_request_each(gcs: StrictGCS, bucket: str) -> None:
    """They have no metadata at all."""
    put_as_socorro(gcs, bucket, small())
    with open_storage(gcs.uri(bucket)) as storage:
        as_googles(storage)
        assert read(storage) == small()
    assert len(gcs.requests) == 4, gcs.requests


@pytest.mark.parametrize("size", [10, 2 << 20])
def test_elsewhere_objects_without_metadata_cost_two_requests_and_come_once(
    gcs: StrictGCS, bucket: str, size: int
) -> None:
    put_as_socorro(gcs, bucket, small(size))
    with open_storage(gcs.uri(bucket)) as storage:
        assert read(storage) == small(size)
        assert client_of(storage)._sends_metadata is None
    assert gcs.count() == 2 * 4, gcs.requests
    assert gcs.count("alt=media") == 0
    assert gcs.sent < size + 10_000


@pytest.mark.parametrize(("kind", "most"), [("without metadata", 2), ("none", 2)])
def test_where_no_metadata_comes_along_an_object_costs_two_requests(
    gcs: StrictGCS, bucket: str, kind: Any, most: int
) -> None:
    gcs.xml = kind
    with open_storage(gcs.uri(bucket)) as storage:
        for crash_id in (CRASH_ID, NEIGHBOUR):
            storage.save_crash(crash_of(contents(), crash_id))
        assert read(storage) == contents()
        gcs.requests.clear()
        assert read(storage, NEIGHBOUR) == contents()
    assert len(gcs.requests) == most * (len(contents()) + 1), gcs.requests


def test_of_a_large_processed_crash_only_the_beginning_comes_before_it_is_read(
    server: StrictGCS, bucket: str
) -> None:
    parts = contents() | {PROCESSED: random.Random(1).randbytes(4 << 20)}
    with open_storage(server.uri(bucket)) as storage:
        storage.save_crash(crash_of(parts))
        read(storage)  # and so the store learns what the server sends
        server.sent = 0
        crash = storage.load_crash(CRASH_ID)
        assert server.sent < 270_000
        assert {part.key: part.read() for part in crash.parts} == parts
        assert server.sent < 4_600_000


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 1 << 20, (1 << 20) + 1])
def test_an_object_of_any_size_is_read(server: StrictGCS, bucket: str, size: int) -> None:
    """Whether other programs have put it there or the store has; the first one and the next."""
    parts = small(size) | {PROCESSED: bytes(size)}
    put_as_socorro(server, bucket, parts)
    with open_storage(server.uri(bucket)) as storage:
        for _ in range(2):
            assert read(storage) == parts
        storage.save_crash(crash_of(parts, NEIGHBOUR))
        for _ in range(2):
            assert read(storage, NEIGHBOUR) == parts
            assert read(storage) == parts


@pytest.mark.parametrize(
    ("options", "is_googles"),
    [
        ({}, True),
        ({"endpoint_url": "https://storage.googleapis.com"}, True),
        ({"endpoint_url": "https://storage.europe-west3.rep.googleapis.com/"}, True),
        ({"universe": "apis-berlin.example"}, True),
        ({"universe": "apis-berlin.example", "endpoint_url": "https://a.googleapis.com"}, False),
        ({"endpoint_url": "https://googleapis.com.example.org"}, False),
        ({"endpoint_url": "https://notgoogleapis.com"}, False),
        ({"endpoint_url": "http://localhost:4443"}, False),
    ],
)
def test_only_googles_servers_are_known_to_send_metadata(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], is_googles: bool
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    said: dict[str, Any] = {"endpoint_url": None, "universe": None, "anonymous": False, **options}
    server = GoogleServer("storage", emulator="STORAGE_EMULATOR_HOST", **said)
    assert server.is_googles == is_googles
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9000")
    if not said["endpoint_url"]:
        server = GoogleServer("storage", emulator="STORAGE_EMULATOR_HOST", **said)
        assert not server.is_googles


# What is checked


@pytest.mark.parametrize("size", [100, PART_SIZE])
def test_bytes_are_held_against_what_was_saved(server: StrictGCS, bucket: str, size: int) -> None:
    """On each server, also if its own checksum is of the bytes that it has now."""
    with open_storage(server.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents() | {MAIN: bytes(size)}))
        dump = server.buckets[bucket].objects[DUMP]
        dump.data = bytes(size - 1) + b"\1"
        [main] = [each for each in storage.load_crash(CRASH_ID).dumps if each.key == MAIN]
        with pytest.raises(CorruptCrash, match=r"the SHA-256 differs|other dumps"):
            main.read()


@pytest.mark.parametrize("size", [100, PART_SIZE])
def test_bytes_of_another_program_are_held_against_the_checksum_of_the_server(
    server: StrictGCS, bucket: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = put_as_socorro(server, bucket, small(size))[DUMP]
    with open_storage(server.uri(bucket)) as storage:
        assert read(storage)[MAIN] == small(size)[MAIN]
        [dump] = storage.load_crash(CRASH_ID).dumps
        crc32c = there.crc32c
        monkeypatch.setattr(Object, "crc32c", crc32c)
        there.data = there.data[:-1] + bytes([there.data[-1] ^ 1])
        with pytest.raises(CorruptCrash, match="the CRC-32C differs"):
            dump.read()


def test_a_dump_of_another_save_is_noticed(server: StrictGCS, bucket: str) -> None:
    """By the metadata alone: its bytes are whole."""
    with open_storage(server.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        loaded = storage.load_crash(CRASH_ID)
        data, digest = b"other", hashlib.sha256(b"other").hexdigest()
        theirs = {"sha256": digest, "raw-crash-sha256": "0" * 64}
        server.put(bucket, DUMP, data, metadata=theirs)
        [main] = [each for each in loaded.dumps if each.key == MAIN]
        with pytest.raises(CorruptCrash, match="was saved with another raw crash"):
            main.read()


def test_gzipped_objects_are_read_as_they_are_stored(server: StrictGCS, bucket: str) -> None:
    data = gzip.compress(b'{"ProductName": "Firefox"}')
    for name in (RAW_KEY, PROCESSED_KEY):
        server.put(bucket, name, data, contentEncoding="gzip")
    with open_storage(server.uri(bucket)) as storage:
        assert set(read(storage).values()) == {data}


def test_metadata_that_no_header_can_hold_makes_no_object_unreadable(
    server: StrictGCS, bucket: str
) -> None:
    """Nor another one: the JSON API says it as it is."""
    there = put_as_socorro(server, bucket, small())
    for each in there.values():
        each.resource["metadata"] = {"Größe": "1", "From": "Zürich", "UPPER": " a  b "}
        each.resource["metadata"] |= {"sha256": hashlib.sha256(each.data).hexdigest()}
    with open_storage(server.uri(bucket)) as storage:
        assert read(storage) == small()
        [dump] = storage.load_crash(CRASH_ID).dumps
        assert dump.find_version() == dump.find_version()
        assert dump.find_size() == 10
        assert dump.read() == small()[MAIN]
        storage.remove_loaded(storage.load_crash(CRASH_ID))
    assert server.objects(bucket) == {}


@pytest.mark.parametrize("size", [10, 2 << 20])
def test_what_is_replaced_between_two_requests_is_not_mixed(
    gcs: StrictGCS, proxy: Proxy, storage: CrashStorageBase, bucket: str, size: int
) -> None:
    """The bytes come by the first one, and the metadata of other bytes by the second."""
    put_as_socorro(gcs, bucket, small(size))
    new = b"new" * size
    seen = iter([False])

    def meanwhile(request: Request) -> bool:
        is_second = f"/o/v1%2Fdump%2F{CRASH_ID}" in request.path
        if is_second and not next(seen, True):
            gcs.put(bucket, DUMP, new, metadata={"sha256": hashlib.sha256(new).hexdigest()})
        return False

    [dump] = storage.load_crash(CRASH_ID).dumps
    proxy.fail(Reset(), meanwhile)
    assert dump.read() == new


# What goes wrong


@pytest.mark.parametrize("after", [0, 10, 300 << 10, 900 << 10])
@pytest.mark.parametrize("size", [1 << 20, PART_SIZE])
def test_bytes_that_are_cut_are_asked_for_again(
    server: StrictGCS, proxy: Proxy, storage: CrashStorageBase, size: int, after: int
) -> None:
    data = random.Random(3).randbytes(size)
    storage.save_crash(crash_of(contents() | {MAIN: data}))
    [dump] = [part for part in storage.load_crash(CRASH_ID).dumps if part.key == MAIN]
    for times in (1, 3):
        proxy.fail(Cut(after), is_read, times)
        assert dump.read() == data
        assert proxy.plan.times == 0
    assert server.count()


@pytest.mark.parametrize("size", [100, 2 << 20])
def test_bytes_that_are_damaged_on_their_way_are_noticed(
    server: StrictGCS, proxy: Proxy, storage: CrashStorageBase, size: int
) -> None:
    data = random.Random(4).randbytes(size)
    storage.save_crash(crash_of(contents() | {MAIN: data}))
    [dump] = [part for part in storage.load_crash(CRASH_ID).dumps if part.key == MAIN]
    proxy.fail(Damaged(), is_read, 1)
    with pytest.raises((CorruptCrash, StorageUnavailable)):
        dump.read()
    assert dump.read() == data
    proxy.fail(Damaged(), is_read)
    with pytest.raises(CorruptCrash):
        dump.read()
    assert server.count()


FAULTS = {
    "reset": Reset(),
    "drip": Drip(0.0),
    "503": Says(503),
    "429": Says(429),
    "408": Says(408),
    "a page": Replies(b"<html>log in here</html>"),
    "a page, 404": Says(404, "a page"),
    "a page, 403": Says(403, "a page"),
    "no bucket": Says(404, "NoSuchBucket"),
    "no method": Says(405),
    "not done": Says(501),
    "empty": Replies(b""),
}


@pytest.mark.parametrize("is_sure", [True, False])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_one_answer_of_the_xml_api_that_is_none_leaves_the_crash_readable(
    proxy: Proxy, storage: CrashStorageBase, fault: Any, is_sure: bool
) -> None:
    """Whichever it is: the request is sent again, or the JSON API asked."""
    storage.save_crash(crash_of(contents()))
    if is_sure:
        as_googles(storage)
    for number in range(len(contents()) + 1):
        proxy.fail(fault, partial(is_xml_after, iter(range(number))), 1)
        assert read(storage) == contents()
        assert proxy.plan.times == 0 or not is_sure  # if it is not, the first one may settle it


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_answer_that_is_none_is_no_missing_crash(
    proxy: Proxy, storage: CrashStorageBase, fault: Any
) -> None:
    storage.save_crash(crash_of(contents()))
    as_googles(storage)
    proxy.fail(fault)
    with suppress(StorageUnavailable, StorageDenied, StorageError):
        assert read(storage) == contents()


@pytest.mark.parametrize("is_sure", [True, False])
def test_a_missing_crash_is_missing(server: StrictGCS, bucket: str, is_sure: bool) -> None:
    with open_storage(server.uri(bucket)) as storage:
        if is_sure and server.xml == "with metadata":
            as_googles(storage)
        client = client_of(storage)
        for key in (RAW_KEY, PROCESSED_KEY):
            assert (client.get(key), client.get_small(key)) == (None, None)
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
        assert (client.get(DUMP + "x"), client.get_small(DUMP + "x")) == (None, None)


@pytest.mark.parametrize("is_sure", [True, False])
def test_a_refusal_reads_as_the_json_api_says_it(
    server: StrictGCS, bucket: str, is_sure: bool
) -> None:
    with open_storage(server.uri("nosuch")) as storage:
        client_of(storage)._sends_metadata = is_sure or None
        with pytest.raises(StorageDenied, match="no such bucket"):
            client_of(storage).get(DUMP)
    with open_storage(server.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        client_of(storage)._sends_metadata = is_sure or None
        server.denied = {"storage.objects.get"}
        with pytest.raises(StorageDenied, match=r"access denied: it needs storage\.objects\.get$"):
            storage.load_crash(CRASH_ID)
        server.denied, server.tokens = set(), set()
        with pytest.raises(StorageDenied, match=r"none were sent|the credentials are not accepted"):
            storage.load_crash(CRASH_ID)
    billed = server.new_bucket(billing={"requesterPays": True})
    with open_storage(server.uri(billed)) as storage:
        server.tokens = None
        client_of(storage)._sends_metadata = is_sure or None
        with pytest.raises(StorageDenied, match=r"name a project with \?billing_project="):
            storage.load_crash(CRASH_ID)


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """A server of tokens, and an account that is asked for there."""
    with token_server() as server:
        path = server.service_account(tmp_path / "account.json")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        yield server


def test_the_xml_api_is_told_who_pays(gcs: StrictGCS, tokens: TokenServer) -> None:
    """In a header, where the JSON API is told whose quota is used."""
    bucket = gcs.new_bucket(billing={"requesterPays": True})
    options = {"anonymous": "false", "project": "theirs", "billing_project": "mine"}
    with open_storage(gcs.uri(bucket, **options)) as storage:
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
    payers = {
        (" /storage/" in request or "/upload/" in request, head["x-goog-user-project"])
        for request, head in zip(gcs.requests, gcs.headers, strict=True)
    }
    assert payers == {(True, "theirs"), (False, "mine")}
    assert tokens.given


def test_a_token_that_expires_before_a_read_is_renewed(
    gcs: StrictGCS, tokens: TokenServer, bucket: str
) -> None:
    with open_storage(gcs.uri(bucket, anonymous="false")) as storage:
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
        gcs.tokens = set()
        tokens.on_token = lambda token: gcs.tokens.add(token) if gcs.tokens is not None else None
        gcs.requests.clear()
        assert read(storage) == contents()
        assert len(gcs.requests) == len(contents()) + 2, gcs.requests
