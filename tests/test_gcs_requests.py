# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Google Cloud Storage: what is sent, on which condition, how often, and what answers mean."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crashmover.errors import (
    CrashExists,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.bucket.client import ObjectExists
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, MAIN, RAW, contents, crash_of, read
from tests.cli_helpers import MAIN_DUMP, put, report_of, run, sample, samples
from tests.s3_proxy import (
    DamagedUpload,
    Fault,
    Proxy,
    Replies,
    Request,
    Reset,
    ResetAfter,
    Says,
    proxy_of,
)
from tests.strict_gcs import Refusal, StrictGCS

LARGE = 3 * PART_SIZE + 1
DUMP = f"v1/dump/{CRASH_ID}"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)


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
    uri = gcs.uri(bucket, endpoint_url=proxy.endpoint_url)
    with open_storage(uri) as storage:
        yield storage


def client_of(storage: CrashStorageBase) -> Any:
    assert isinstance(storage, BucketCrashStorage)
    return storage._client


def is_insert(request: Request) -> bool:
    return request.method in ("POST", "PUT") and "/upload/" in request.path


def is_insert_after(left: Iterator[int], request: Request) -> bool:
    return is_insert(request) and next(left, None) is None


def is_piece_after(left: Iterator[int], request: Request) -> bool:
    return request.method == "PUT" and next(left, None) is None


def is_delete_after(left: Iterator[int], request: Request) -> bool:
    return request.method == "DELETE" and next(left, None) is None


# What is sent


def test_what_is_put_says_what_it_is(gcs: StrictGCS, bucket: str) -> None:
    uri = gcs.uri(bucket, "a b/c", storage_class="NEARLINE", kms_key="projects/p/key")
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents() | {MAIN: bytes(LARGE)}))
        dumps = {part.key: part for part in storage.load_crash(CRASH_ID).dumps}
        assert dumps[MAIN].location == f"gs://{bucket}/a b/c/{DUMP}"
    objects = gcs.buckets[bucket].objects
    assert {each.resource["storageClass"] for each in objects.values()} == {"NEARLINE"}
    assert {each.resource["kmsKeyName"] for each in objects.values()} == {"projects/p/key"}
    kinds = {name.split("/")[3]: each.resource["contentType"] for name, each in objects.items()}
    assert kinds["raw_crash"] == kinds["dump_names"] == "application/json"
    assert kinds["dump"] == "application/octet-stream"


def test_a_mark_is_encrypted_and_has_no_storage_class(gcs: StrictGCS, bucket: str) -> None:
    """Some storage classes cannot be read at once, or are paid for a month."""
    uri = gcs.uri(bucket, "a", storage_class="NEARLINE", kms_key="projects/p/key")
    before = len(gcs.requests)
    with open_storage(uri) as storage, open_storage(gcs.uri(bucket, "b")) as other:
        assert storage.is_same_store(other, probe=True) is False
        storage.probe_write()
    puts = [each for each in gcs.requests[before:] if each.startswith("POST")]
    assert [each.partition("uploadType=")[2].partition("&")[0] for each in puts] == [
        "multipart",
        "resumable",
    ]
    assert all("kmsKeyName=projects" in each for each in puts)
    assert [resource.get("storageClass") for resource in gcs.begun] == [None, "NEARLINE"]


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "Invalid storage class.", "the server says 400 invalid: Invalid storage class."),
        (400, "Malformed Cloud KMS key: no/key", "400 invalid: Malformed Cloud KMS key: no/key"),
        (
            403,
            "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service"
            " account has been authorized to use this key.",
            "access denied: Permission denied on Cloud KMS key. Please ensure",
        ),
    ],
)
@pytest.mark.parametrize("size", [10, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_a_key_or_a_class_that_is_refused_is_said_in_the_words_of_the_server(
    gcs: StrictGCS, bucket: str, tmp_path: Path, status: int, message: str, expected: str, size: int
) -> None:
    gcs.forbidden = Refusal(status, message, "invalid")
    crash = sample(dumps={MAIN_DUMP: bytes(size)})
    uri = gcs.uri(bucket, kms_key="no/key", storage_class="COLDER")
    result = run("copy", "-s", put(tmp_path / "store", crash), "-d", uri)
    assert result.exit_code == (4 if status == 403 else 1)
    *said, summary = result.stderr.splitlines()
    lines = 2 if status == 403 else 1  # of the crash, and of the store that refuses all others, too
    assert (len(said), summary[:8]) == (lines, "copied 0"), result.stderr
    assert all(expected in line for line in said)
    assert gcs.objects(bucket) == {}


def test_every_request_that_changes_something_has_a_generation(gcs: StrictGCS, bucket: str) -> None:
    """But for what replaces, whatever is there: a processed crash, or a dump of a crash whose raw
    crash was removed."""
    with open_storage(gcs.uri(bucket)) as storage:
        parts = contents() | {MAIN: bytes(LARGE)}
        storage.create_crashes([crash_of({key: parts[key] for key in parts if key[0] != "x"})])
        storage.save_keeping_dumps(crash_of({RAW: b'{"another": 1}'}))
        storage.remove_loaded(storage.load_crash(CRASH_ID))
    changes = [each for each in gcs.requests if not each.startswith(("GET", "PUT"))]
    without = [each for each in changes if "ifGenerationMatch" not in each]
    processed = gcs.count("POST /upload") - sum("POST /upload" in each for each in changes)
    assert processed == 0
    assert len(without) == 1, without  # the processed crash
    assert gcs.objects(bucket) == {}


def test_a_new_crash_costs_a_request_for_each_object(gcs: StrictGCS, bucket: str) -> None:
    crash = crash_of(contents())
    with open_storage(gcs.uri(bucket)) as storage:
        assert storage.create_crashes([crash]) == [None]
        assert len(gcs.requests) == len(crash.parts) + 1
        gcs.requests.clear()
        [error] = storage.create_crashes([crash])
        assert isinstance(error, CrashExists)
        assert len(gcs.requests) <= 2 + 3  # the first time it is asked whether older keys are used


def test_many_crashes_are_listed_by_few_requests(gcs: StrictGCS, bucket: str) -> None:
    gcs.page = 100
    ids = [f"{number:08x}{CRASH_ID[8:]}" for number in range(950)]
    for crash_id in ids:
        gcs.put(bucket, f"v1/raw_crash/20071025/{crash_id}", b"{}")
    with open_storage(gcs.uri(bucket)) as storage:
        assert list(storage.new_crashes()) == ids
    assert len(gcs.requests) < 20


# Answers that are lost


@pytest.mark.parametrize("fault", [ResetAfter(), Reset(), Says(503), Says(429), Says(408)])
@pytest.mark.parametrize("size", [10, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_a_create_whose_answer_is_lost_is_no_crash_that_was_there(
    proxy: Proxy, storage: CrashStorageBase, fault: Fault, size: int
) -> None:
    crash = crash_of(contents() | {MAIN: bytes(size)})
    inserts = 0
    for number in range(30):
        proxy.requests.clear()
        left = iter(range(number))
        proxy.fail(fault, partial(is_insert_after, left), 1)
        assert storage.create_crashes([crash]) == [None], number
        assert read(storage) == contents() | {MAIN: bytes(size)}
        storage.remove(CRASH_ID)
        inserts = max(inserts, sum(map(is_insert, proxy.requests)))
        if proxy.plan.times:
            break
    assert 5 <= number <= inserts


def test_what_another_has_created_is_not_taken_for_ones_own(
    gcs: StrictGCS, proxy: Proxy, storage: CrashStorageBase, bucket: str
) -> None:
    """Not even after an answer was lost, if only a word of its metadata is another."""
    client = client_of(storage)
    options: dict[str, Any] = {"content_type": "application/octet-stream", "create": True}

    def meanwhile(request: Request) -> bool:
        if is_insert(request):
            gcs.put(bucket, DUMP, b"data", metadata={"save": "theirs"})
        return is_insert(request)

    proxy.fail(Says(503), meanwhile, times=1)
    with pytest.raises(ObjectExists):
        client.put(DUMP, b"data", metadata={"save": "ours"}, **options)


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_what_does_not_pass_is_asked_once(
    proxy: Proxy, storage: CrashStorageBase, status: int
) -> None:
    proxy.fail(Says(status), is_insert)
    with pytest.raises(StorageError):
        storage.save_crash(crash_of({RAW: b"{}"}))
    assert sum(map(is_insert, proxy.requests)) == 1


@pytest.mark.parametrize("fault", [Says(500), Says(429), Reset()])
def test_what_fails_for_ever_is_asked_five_times(
    proxy: Proxy, storage: CrashStorageBase, fault: Fault
) -> None:
    proxy.fail(fault)
    with pytest.raises(StorageUnavailable) as caught:
        storage.load_crash(CRASH_ID)
    assert caught.value.was_retried
    assert len(proxy.requests) == 5


@pytest.mark.parametrize("body", [b"<html>log in here</html>", b"{}", b"[1]", b'{"size": "x"}'])
def test_an_answer_of_another_server_is_no_missing_crash_and_no_empty_store(
    proxy: Proxy, storage: CrashStorageBase, body: bytes
) -> None:
    proxy.fail(Replies(body))
    for act in (
        lambda: storage.load_crash(CRASH_ID),
        lambda: list(storage.new_crashes()),
        lambda: storage.save_crash(crash_of(contents())),
        storage.verify_access,
    ):
        with pytest.raises(StorageUnavailable, match="another kind of server answers"):
            act()


@pytest.mark.parametrize("status", [403, 404, 502])
def test_a_page_says_neither_that_a_crash_is_missing_nor_that_it_is_removed(
    proxy: Proxy, storage: CrashStorageBase, status: int
) -> None:
    storage.save_crash(crash_of(contents()))
    loaded = storage.load_crash(CRASH_ID)
    assert {part.key: part.read() for part in loaded.parts} == contents()
    proxy.fail(Says(status, "a page"))
    acts: list[Callable[[], object]] = [
        lambda: storage.load_crash(CRASH_ID),
        lambda: storage.has_crash(CRASH_ID),
        lambda: storage.remove(CRASH_ID),
        lambda: storage.remove_loaded(loaded),
        storage.verify_access,
    ]
    for act in acts:
        with pytest.raises((StorageUnavailable, StorageDenied)):
            act()
    [error] = storage.create_crashes([crash_of(contents("b"))])
    assert isinstance(error, (StorageUnavailable, StorageDenied))
    for number in range(6):
        left = iter(range(number))
        proxy.fail(Says(status, "a page"), partial(is_delete_after, left))
        with suppress(StorageUnavailable, StorageDenied):
            storage.remove(CRASH_ID)
            break
    proxy.fail(Says(status), times=0)
    assert not storage.has_crash(CRASH_ID)
    assert list(storage.dumps_alone(CRASH_ID)) == []


GOOD = b'"size": "2", "generation": "1", "timeCreated": "2026-11-29T15:00:00Z"'
HOSTILE = {
    "no object": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "size": b'{"size": "a lot", "generation": "1", "timeCreated": "2026-11-29T15:00:00Z"}',
    "below zero": b'{"size": "-1", "generation": "1", "timeCreated": "2026-11-29T15:00:00Z"}',
    "too large": b'{"size": "%s", "generation": "1", "timeCreated": ""}' % (b"9" * 5000),
    "generation": b'{"size": "2", "generation": {}, "timeCreated": "2026-11-29T15:00:00Z"}',
    "time": b'{"size": "2", "generation": "1", "timeCreated": 7}',
    "metadata": b'{%s, "metadata": "text"}' % GOOD,
    "metadata in it": b'{%s, "metadata": {"dumps": {"a": 1}, "sha256": []}}' % GOOD,
    "checksum": b'{%s, "crc32c": [1]}' % GOOD,
    "items": b'{"kind": "storage#objects", "items": 7}',
    "names": b'{"kind": "storage#objects", "items": [{"name": {}}, {"name": "../\\u0000"}]}',
    "no name": b'{"kind": "storage#objects", "items": [{}]}',
    "prefixes": b'{"kind": "storage#objects", "prefixes": [null, "a", "/"]}',
    "token": b'{"kind": "storage#objects", "nextPageToken": {"a": 1}}',
    "the same token for ever": b'{"kind": "storage#objects", "nextPageToken": "x"}',
    "error": b'{"error": {"message": ["\\n"], "errors": 7}}',
}


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_no_answer_of_a_hostile_server_is_more_than_an_error_of_a_store(
    proxy: Proxy, storage: CrashStorageBase, body: bytes, status: int
) -> None:
    storage.save_crash(crash_of({RAW: b"{}"}))
    proxy.fail(Replies(body, status))
    for act in (
        lambda: read(storage),
        lambda: list(storage.new_crashes()),
        lambda: storage.save_crash(crash_of(contents("b"))),
        lambda: storage.create_crashes([crash_of(contents("b"))]),
        lambda: storage.remove(CRASH_ID),
        lambda: storage.clock(),
        lambda: list(storage.reading_risks(removing=True)),
    ):
        try:
            act()
        except StorageError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 1000


@pytest.mark.parametrize("fault", [Replies(b"<html>log in here</html>"), Replies(b"")])
def test_an_answer_of_another_server_to_a_piece_is_no_saved_dump(
    gcs: StrictGCS, proxy: Proxy, storage: CrashStorageBase, bucket: str, fault: Fault
) -> None:
    """Whichever piece it is."""
    crash = crash_of(contents() | {MAIN: bytes(LARGE)})
    for number in range(4):
        left = iter(range(number))
        proxy.fail(fault, partial(is_piece_after, left))
        with pytest.raises(StorageUnavailable):
            storage.save_crash(crash)
        assert f"v1/raw_crash/20071025/{CRASH_ID}" not in gcs.objects(bucket)
        proxy.fail(fault, times=0)
    storage.save_crash(crash)
    assert read(storage) == contents() | {MAIN: bytes(LARGE)}


# Large dumps


def test_a_large_dump_goes_up_in_pieces(gcs: StrictGCS, bucket: str) -> None:
    data = random.Random(1).randbytes(LARGE)
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents() | {MAIN: data}))
        assert read(storage)[MAIN] == data
    assert gcs.count("PUT /upload") == 4


def test_of_a_piece_that_arrives_in_part_the_rest_is_sent(gcs: StrictGCS, bucket: str) -> None:
    gcs.persists = 5 << 20
    data = random.Random(2).randbytes(LARGE)
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents() | {MAIN: data}))
        assert read(storage)[MAIN] == data


def test_a_large_dump_whose_bytes_are_damaged_on_their_way_is_not_kept(
    gcs: StrictGCS, proxy: Proxy, storage: CrashStorageBase, bucket: str
) -> None:
    def is_piece(request: Request) -> bool:
        return request.method == "PUT"

    proxy.fail(DamagedUpload(), is_piece, times=1)
    with pytest.raises(StorageUnavailable, match="have not arrived as they were sent"):
        storage.save_crash(crash_of(contents() | {MAIN: bytes(LARGE)}))
    assert DUMP not in gcs.objects(bucket)
    assert gcs.uploads == {}
    storage.save_crash(crash_of(contents() | {MAIN: bytes(LARGE)}))
    assert read(storage)[MAIN] == bytes(LARGE)


def test_a_server_that_keeps_other_bytes_than_it_was_sent_is_noticed(
    gcs: StrictGCS, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it has kept is removed again."""
    made = StrictGCS.put
    left = [True]

    def put_damaged(self: StrictGCS, to: str, name: str, data: bytes, **resource: Any) -> Any:
        if left and name == DUMP:
            left.pop()
            data = data[:-1]
        return made(self, to, name, data, **resource)

    monkeypatch.setattr(StrictGCS, "put", put_damaged)
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
    assert not left


# Refusals


@pytest.mark.parametrize(
    ("permission", "act"),
    [
        ("storage.objects.get", "read"),
        ("storage.objects.list", "list"),
        ("storage.objects.create", "save"),
        ("storage.objects.delete", "remove"),
    ],
)
def test_a_permission_that_is_missing_is_named(
    gcs: StrictGCS, bucket: str, permission: str, act: str
) -> None:
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        acts: dict[str, Callable[[], object]] = {
            "read": lambda: storage.load_crash(CRASH_ID),
            "list": lambda: list(storage.new_crashes()),
            "save": lambda: storage.save_crash(crash_of(contents("b"))),
            "remove": lambda: storage.remove(CRASH_ID),
        }
        gcs.denied = {permission}
        with pytest.raises(StorageDenied, match=f"access denied: it needs {permission}$"):
            acts[act]()


def test_to_try_a_new_crash_needs_one_permission_and_leaves_nothing(
    gcs: StrictGCS, bucket: str
) -> None:
    with open_storage(gcs.uri(bucket)) as storage:
        gcs.denied = {"storage.objects.get", "storage.objects.list", "storage.objects.delete"}
        storage.probe_write()
        gcs.denied = {"storage.objects.create"}
        with pytest.raises(StorageDenied, match=r"it needs storage\.objects\.create"):
            storage.probe_write()
    assert (gcs.objects(bucket), gcs.uploads) == ({}, {})


def test_a_bucket_that_is_missing_is_said(gcs: StrictGCS) -> None:
    with open_storage(gcs.uri("nosuch")) as storage:
        for act in (
            lambda: storage.load_crash(CRASH_ID),
            lambda: list(storage.new_crashes()),
            lambda: storage.save_crash(crash_of(contents())),
        ):
            with pytest.raises(StorageDenied, match="no such bucket"):
                act()


def test_where_the_requester_pays_it_is_said_who(gcs: StrictGCS) -> None:
    bucket = gcs.new_bucket(billing={"requesterPays": True})
    refused = pytest.raises(StorageDenied, match=r"name a project with \?billing_project=")
    with open_storage(gcs.uri(bucket)) as storage, refused:
        storage.save_crash(crash_of(contents()))
    with open_storage(gcs.uri(bucket, billing_project="mine")) as storage:
        storage.save_crash(crash_of(contents() | {MAIN: bytes(LARGE)}))
        assert read(storage)[MAIN] == bytes(LARGE)
        storage.remove(CRASH_ID)


HELD = "Object is under active Temporary hold and cannot be deleted, overwritten or archived."
RETAINED = "Object is subject to bucket's retention policy and cannot be deleted or overwritten."


@pytest.mark.parametrize("why", [HELD, RETAINED])
def test_an_object_that_is_kept_fails_its_crash_and_no_other(
    gcs: StrictGCS, bucket: str, tmp_path: Path, why: str
) -> None:
    crashes = samples(8)
    store, uri = put(tmp_path / "store", *crashes), gcs.uri(bucket)
    assert run("copy", "-s", store, "-d", uri).exit_code == 0
    kept = crashes[3].crash_id
    gcs.kept = {kept: why}
    report = tmp_path / "report"
    result = run("copy", "-s", uri, "-d", tmp_path / "back", "--remove-source", "--report", report)
    assert result.exit_code == 1, result.stderr
    failed = {each: line for each, line in report_of(report).items() if line["error"]}
    assert list(failed) == [kept]
    assert why in failed[kept]["error"]
    result = run("remove", "-s", uri, kept)
    assert (result.exit_code, result.stderr.count(why)) == (1, 1)


# What a bucket keeps


def test_what_a_bucket_keeps_of_what_is_removed_is_said(gcs: StrictGCS) -> None:
    bucket = gcs.new_bucket(
        versioning={"enabled": True},
        retentionPolicy={"retentionPeriod": "3600"},
        softDeletePolicy={"retentionDurationSeconds": "604800"},
    )
    with open_storage(gcs.uri(bucket)) as storage:
        assert [line.partition(": ")[2] for line in storage.diagnose()] != []
        said = "\n".join(storage.reading_risks(removing=True))
        assert "the bucket keeps versions" in said
        assert "nothing can be replaced or removed for 3600 seconds" in said
        assert "soft delete: what is removed stays 604800 s" in said
        assert "604800" not in "\n".join(storage.diagnose())
        gcs.denied = {"storage.buckets.get"}
        assert list(storage.reading_risks(removing=True)) == []
    with open_storage(gcs.uri(gcs.new_bucket(softDeletePolicy={}))) as storage:
        assert list(storage.reading_risks(removing=True)) == []


# Policies of an organization


POLICY = "Request violates constraint 'constraints/gcp.restrictNonCmekServices'"


@pytest.mark.parametrize("reason", ["conditionNotMet", "orgPolicyConstraintFailed"])
@pytest.mark.parametrize("size", [10, PART_SIZE + 1])
def test_what_a_policy_forbids_is_no_crash_that_is_there(
    gcs: StrictGCS, bucket: str, tmp_path: Path, reason: str, size: int
) -> None:
    """Google says 412 for both."""
    crash = crash_of(contents() | {MAIN: bytes(size)})
    with open_storage(gcs.uri(bucket)) as storage:
        gcs.forbidden = Refusal(412, POLICY, reason)
        for act in (lambda: storage.save_crash(crash), storage.probe_write):
            with pytest.raises(StorageDenied, match=POLICY):
                act()
        [error] = storage.create_crashes([crash])
        assert isinstance(error, StorageDenied), error
    result = run("copy", "-s", put(tmp_path / "store", *samples(3)), "-d", gcs.uri(bucket))
    assert result.exit_code == 4, result.stderr
    assert POLICY in result.stderr
    assert "Traceback" not in result.stderr
    assert (gcs.objects(bucket), gcs.uploads) == ({}, {})


@pytest.mark.parametrize("reason", ["conditionNotMet", "orgPolicyConstraintFailed"])
def test_a_removal_that_a_policy_forbids_is_no_change_by_another_process(
    gcs: StrictGCS, bucket: str, reason: str
) -> None:
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        before = gcs.objects(bucket)
        loaded = storage.load_crash(CRASH_ID)
        gcs.forbidden = Refusal(412, POLICY, reason)
        with pytest.raises(StorageDenied, match=POLICY):
            storage.remove(CRASH_ID)
        with pytest.raises(StorageDenied, match=POLICY):
            storage.remove_loaded(loaded)
    assert gcs.objects(bucket) == before
