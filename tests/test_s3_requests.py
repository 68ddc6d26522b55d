# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""How many requests a bucket gets: for a crash that is copied by its id, and from a server that
fails."""

import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Barrier

import pytest

from crashmover.comparison import MeasuredCrash
from crashmover.engine.destination import Destination
from crashmover.engine.plan import CopyOptions
from crashmover.errors import CrashIDNotFound, StorageDenied, StorageUnavailable
from crashmover.external.bucket import finding
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.s3 import client as s3_client
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    PROCESSED,
    RAW,
    contents,
    crash_of,
    read,
    without,
)
from tests.bucket_in_memory import Bucket, open_bucket
from tests.cli_helpers import run
from tests.conftest import Figures, UseAWS
from tests.s3_policies import creates_only
from tests.s3_proxy import (
    Fault,
    Place,
    Replies,
    Request,
    Reset,
    Says,
    behind_proxy,
    shorten_pauses,
    use_retry,
)
from tests.servers.s3 import S3Server

THREE_OBJECTS = without(without(contents(), PROCESSED), BROWSER)
IDS = [f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(90)]
TRIES = RetryPolicy().attempts


@pytest.fixture
def place(s3_strict: S3Server, aws: UseAWS) -> Iterator[Place]:
    with behind_proxy(aws(s3_strict)) as place:
        yield place


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)
    monkeypatch.setattr(s3_client, "_PAUSES", (0.01,) * (TRIES - 1))


# Copying by id


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("layout", ["socorro", "v1-only"])
def test_a_crash_that_is_copied_by_its_id_costs_four_requests_at_most(
    place: Place, tmp_path: Path, figures: Figures, older: bool, layout: str
) -> None:
    bucket = place.server.new_bucket()
    if older:
        key = keys.raw_crash_keys(CRASH_ID)[3]
        place.server.client().put_object(Bucket=bucket, Key=key, Body=b"{}")
    with open_storage(str(tmp_path)) as source:
        for crash_id in IDS:
            source.save_crash(crash_of(THREE_OBJECTS, crash_id))
    counts = []
    for ids in (IDS[:30], IDS[30:]):
        place.proxy.requests.clear()
        uri = place.uri(bucket, layout=layout)
        result = run("copy", "-s", tmp_path, "-d", uri, "--workers", "1", *ids)
        assert result.exit_code == 0, result.stderr
        counts.append(len(place.proxy.requests))
    per_crash = (counts[1] - counts[0]) / (len(IDS) - 2 * 30)
    figures(requests_for_ten=round(10 * per_crash))
    assert per_crash <= (4 if layout == "v1-only" or not older else 7)


def test_one_thread_finds_out_what_a_server_honours_and_the_others_wait() -> None:
    bucket = Bucket()
    storage = open_bucket(bucket)
    barrier = Barrier(16)

    def save(crash_id: str) -> None:
        barrier.wait()
        storage.save_crash(crash_of({RAW: b"{}"}, crash_id))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(save, IDS[:16]))
    assert bucket.requests.count("create dump_names") == 16 + 1


# Older keys


def test_the_older_keys_are_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, now = Bucket(), [100.0]
    monkeypatch.setattr(finding, "monotonic", lambda: now[0])
    storage = open_bucket(bucket)
    for crash_id in IDS[:10]:
        assert not storage.has_crash(crash_id)
    assert bucket.requests == ["look raw_crash", *["list raw_crash"] * 3, *["look raw_crash"] * 9]
    bucket.add(keys.raw_crash_keys(CRASH_ID)[1], b"{}")
    now[0] += 60
    assert storage.has_crash(CRASH_ID)
    now[0] += 1000
    bucket.add(keys.raw_crash_keys(IDS[0])[2], b"{}")
    assert storage.has_crash(IDS[0])  # they are looked at from now on


@pytest.mark.parametrize("key", keys.raw_crash_keys(CRASH_ID)[1:])
@pytest.mark.parametrize("start", ["00", "19", "20", "21", "ff"])
def test_no_raw_crash_under_an_older_key_is_missed(key: str, start: str) -> None:
    """Whatever its id begins with: undated ids lie among the directories of days."""
    crash_id = start + CRASH_ID[2:]
    number = keys.raw_crash_keys(CRASH_ID).index(key)
    bucket = Bucket()
    open_bucket(bucket).save_crash(crash_of(contents()))
    bucket.add(keys.raw_crash_keys(crash_id)[number], b"{}")
    assert open_bucket(bucket).has_crash(crash_id)
    assert read(open_bucket(bucket), crash_id) == {RAW: b"{}"}
    open_bucket(bucket).remove(crash_id)
    assert not open_bucket(bucket).has_crash(crash_id)


@pytest.mark.parametrize("older", [1, 2, 3])
def test_no_raw_crash_loses_its_dumps_that_another_program_has_just_put_under_an_older_key(
    older: int,
) -> None:
    bucket = Bucket()
    storage = open_bucket(bucket)
    assert not storage.has_crash(CRASH_ID)  # that none is used is believed from now on
    bucket.add(keys.raw_crash_keys(CRASH_ID)[older], b"{}")
    bucket.add(keys.dump_names_key(CRASH_ID), b'["upload_file_minidump"]')
    bucket.add(keys.dump_key(CRASH_ID, "upload_file_minidump"), b"MDMP")
    storage.remove(CRASH_ID)
    assert not bucket.there


def test_a_listing_that_fails_in_passing_is_asked_for_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not for each crash, which is looked for under the older keys meanwhile."""
    bucket, now = Bucket(), [100.0]
    monkeypatch.setattr(finding, "monotonic", lambda: now[0])
    failures = [StorageUnavailable("no answer in time", uri=bucket.uri)]
    ask = bucket.ask

    def fail(verb: str, key: str) -> None:
        ask(verb, key)
        if verb == "list" and failures:
            now[0] += 1000  # it took longer than a minute
            raise failures[0]

    monkeypatch.setattr(bucket, "ask", fail)
    bucket.add(keys.raw_crash_keys(CRASH_ID)[2], b"{}")
    storage = open_bucket(bucket)
    for _ in range(10):
        assert storage.has_crash(CRASH_ID)
    assert bucket.requests.count("list raw_crash") == 1
    failures.clear()
    del bucket.there[keys.raw_crash_keys(CRASH_ID)[2]]
    now[0] += 60
    bucket.requests.clear()
    for _ in range(10):
        assert not storage.has_crash(CRASH_ID)
    assert bucket.requests.count("look raw_crash") == 10


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("older", [1, 2, 3])
def test_an_answer_that_is_no_listing_hides_no_raw_crash(
    place: Place, older: int, number: int
) -> None:
    bucket = place.server.new_bucket()
    place.server.client().put_object(
        Bucket=bucket, Key=keys.raw_crash_keys(CRASH_ID)[older], Body=b"{}"
    )
    for times in (1, 1_000_000):
        left = iter(range(number - 1))

        def is_next(request: Request, left: Iterator[int] = left) -> bool:
            return "list-type" in request and next(left, None) is None

        with open_storage(place.uri(bucket)) as storage:
            place.proxy.fail(Replies(b"<html>busy</html>"), is_next, times)
            assert storage.has_crash(CRASH_ID)


def test_where_a_bucket_may_not_be_listed_each_older_key_is_asked_for(place: Place) -> None:
    bucket = place.server.new_bucket()
    key = keys.raw_crash_keys(CRASH_ID)[1]
    place.server.client().put_object(Bucket=bucket, Key=key, Body=b"{}")
    with open_storage(place.uri(bucket)) as storage:
        for fault in (Says(403, "AccessDenied"), Says(503, "SlowDown")):
            place.proxy.fail(fault, "list-type=2")
            assert storage.has_crash(CRASH_ID)


def test_the_layout_without_older_keys_neither_finds_nor_removes_them(place: Place) -> None:
    bucket = place.server.new_bucket()
    for number, key in enumerate(keys.raw_crash_keys(CRASH_ID)[1:]):
        place.server.client().put_object(Bucket=bucket, Key=key, Body=b"%d" % number)
    with open_storage(place.uri(bucket, layout="v1-only")) as storage:
        assert list(storage.new_crashes()) == []
        assert not storage.has_crash(CRASH_ID)
        [line] = storage.strangers()
        assert line.endswith(f"{CRASH_ID} (is it layout=socorro?)")
        storage.save_crash(crash_of(contents()))
        assert list(storage.new_crashes(dt.date(2007, 10, 25))) == [CRASH_ID]
        storage.remove_loaded(storage.load_crash(CRASH_ID))
        with pytest.raises(CrashIDNotFound):
            storage.remove(CRASH_ID)
    with open_storage(place.uri(bucket)) as storage:
        assert read(storage) == {RAW: b"0"}


def test_a_layout_that_is_unknown_is_refused(place: Place) -> None:
    result = run("list", "-s", place.uri("bucket", layout="v3"))
    assert result.exit_code == 2
    assert "layout" in result.stderr and "socorro, v1-only" in result.stderr


# Servers that fail

QUESTIONS: dict[str, Callable[[CrashStorageBase], object]] = {
    "verify": lambda storage: storage.verify_access(),
    "has": lambda storage: storage.has_crash(CRASH_ID),
    "load": lambda storage: storage.load_crash(CRASH_ID),
    "list": lambda storage: list(storage.new_crashes()),
    "save": lambda storage: storage.save_crash(crash_of(contents())),
    "create": lambda storage: storage.create_crashes([crash_of(contents())])[0],
    "remove": lambda storage: storage.remove(CRASH_ID),
}


def asked(storage: CrashStorageBase, question: str) -> object:
    result = QUESTIONS[question](storage)
    if isinstance(result, Exception):
        raise result
    return result


FAULTS: dict[str, Fault] = {"503": Says(503, "SlowDown"), "429": Says(429), "reset": Reset()}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_question_that_fails_for_ever_is_asked_five_times(
    place: Place, question: str, fault: str, figures: Figures
) -> None:
    """And not five times five: by the client, or by the policy where the client does not."""
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        place.proxy.fail(FAULTS[fault])
        with pytest.raises(StorageUnavailable):
            storage.tuning.retry.call(lambda: asked(storage, question))
    figures(requests=len(place.proxy.requests))
    assert len(place.proxy.requests) == TRIES


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "command",
    [["doctor", "-s"], ["list", "-s"], ["get", CRASH_ID, "-s"], ["remove", CRASH_ID, "-s"]],
)
def test_a_command_asks_a_server_that_fails_for_ever_five_times(
    place: Place, command: list[str], fault: str
) -> None:
    uri = place.uri(place.server.new_bucket())
    place.proxy.fail(FAULTS[fault])
    result = run(*command, uri)
    assert result.exit_code == 4, result.output
    assert len(place.proxy.requests) == TRIES


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_store_s_own_tuning_says_how_often_a_question_is_asked(
    place: Place, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_retry(monkeypatch, RetryPolicy(attempts=2, wait=0.01))
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        place.proxy.fail(Says(503, "SlowDown"))
        with pytest.raises(StorageUnavailable):
            storage.tuning.retry.call(lambda: asked(storage, question))
    assert len(place.proxy.requests) == 2


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_library_survives_each_request_that_fails_once(
    place: Place, question: str, figures: Figures
) -> None:
    """Without a policy of its own."""
    failures = 0
    for number in range(1, 100):
        with open_storage(place.uri(place.server.new_bucket())) as storage:
            if question not in ("save", "create"):
                storage.save_crash(crash_of(contents()))
            place.fail_at(number, Says(503, "SlowDown"))
            assert not isinstance(QUESTIONS[question](storage), Exception)
            if place.heal() <= number:
                break
            failures += 1
    assert failures or question == "verify"
    figures(failures=failures)


@pytest.mark.parametrize("last", [Says(400, "RequestTimeout"), Says(409, "OperationAborted")])
def test_two_kinds_of_failures_do_not_use_up_the_tries(place: Place, last: Fault) -> None:
    """The client repeats after the first kind, and not after the second."""
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of(contents()))
        faults: list[Fault] = [Says(503), last]

        def fail(request: Request, _head: dict[str, str], _body: bytes) -> Fault | None:
            return faults.pop(0) if "raw_crash" in request and faults else None

        place.proxy.policy = fail
        crash = RetryPolicy(wait=0.01).call(lambda: storage.load_crash(CRASH_ID))
        assert crash.raw_crash and not faults


@pytest.mark.parametrize("status", [400, 403])
def test_expired_credentials_are_a_refusal_whatever_is_asked(place: Place, status: int) -> None:
    """The answer to HEAD has no body, and 400 alone does not say it."""
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of(contents()))
        place.proxy.fail(Says(status, "ExpiredToken"))
        with pytest.raises(StorageDenied, match="the credentials have expired"):
            storage.has_crash(CRASH_ID)


# Requests that meet another

CONFLICT = Says(409, "ConditionalRequestConflict")


@pytest.mark.parametrize(
    ("what", "key"), list(product(["save", "create"], ["dump_names", "raw_crash", "v1/dump/"]))
)
def test_a_conflict_with_another_request_is_tried_again(place: Place, what: str, key: str) -> None:
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of({RAW: b"{}"}, IDS[0]))  # it finds out about conditions
        place.proxy.fail(CONFLICT, lambda r: r.method == "PUT" and key in r, times=2)
        assert QUESTIONS[what](storage) is None
        assert place.proxy.plan.times == 0
        assert read(storage) == contents()


def test_a_large_upload_that_meets_another_begins_anew(place: Place) -> None:
    """Amazon's server takes no further request for the same upload."""
    large = {**contents(), MAIN: bytes(9 << 20)}
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of({RAW: b"{}"}, IDS[0]))
        refused: list[str] = []

        def refuse(request: Request, _head: dict[str, str], _body: bytes) -> Fault | None:
            if request.method != "POST" or "uploadId" not in request:
                return None
            refused[:] = refused or [request.path]
            return CONFLICT if request.path in refused else None

        place.proxy.policy = refuse
        destination = Destination(storage, CopyOptions())
        [result] = destination.copy([(MeasuredCrash(crash_of(large), hashing=False), True)])
        assert result.error is None
        assert place.proxy.count(refused[0]) == 2  # its end is asked for once, then it is forgotten
        assert read(storage) == large


def test_an_object_that_has_made_room_is_put_in_spite_of_conflicts(place: Place) -> None:
    """A policy allows to create only, so the old object goes before the new one comes: by then its
    bytes may be nowhere else."""
    conflicts = [CONFLICT] * 3

    def refuse(request: Request, head: dict[str, str], body: bytes) -> Fault | None:
        if is_end(request) and place.proxy.count("?delete") > 1 and conflicts:
            return conflicts.pop()
        return creates_only(request, head, body)

    def is_end(request: Request) -> bool:
        is_post = request.method == "POST" and "uploadId" in request
        return is_post and "crashmover-probe" not in request

    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of(contents()))
        place.proxy.policy = refuse
        storage.save_crash(crash_of({**contents(), MAIN: b"MDMP new"}))
        assert not conflicts
        assert read(storage) == {**contents(), MAIN: b"MDMP new"}


@pytest.mark.parametrize("key", ["dump_names", "raw_crash"])
def test_a_conflict_that_lasts_is_no_crash_that_is_there(place: Place, key: str) -> None:
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of({RAW: b"{}"}, IDS[0]))
        place.proxy.fail(CONFLICT, lambda r: r.method == "PUT" and key in r)
        place.proxy.requests.clear()
        [error] = storage.create_crashes([crash_of(contents())])
        assert isinstance(error, StorageUnavailable)
        assert error.reason == "the server says 409 ConditionalRequestConflict"
        assert place.proxy.count(f"/{key}/") == TRIES
        assert not storage.has_crash(CRASH_ID)
