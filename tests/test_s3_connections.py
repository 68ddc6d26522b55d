# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage: credentials, and a server that fails, refuses, or stops answering."""

import datetime as dt
import json
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover.crash import MAIN_DUMP, Crash, Kind, Part
from crashmover.engine.mover import Existing, Mover, Outcome, Status
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    InvalidURI,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    contents,
    crash_of,
    read,
)
from tests.conftest import UseAWS
from tests.s3_proxy import (
    CHECKED,
    Cut,
    Damaged,
    DamagedUpload,
    Fault,
    Hang,
    Proxy,
    Request,
    Reset,
    ResetAfter,
    Says,
    proxy_of,
)
from tests.servers.s3 import S3Server
from tests.store_helpers import every_call, peak_of_copy

pytestmark = pytest.mark.usefixtures("short_pauses")

LARGE = (2 << 20) + 1  # more than is read in one piece
CANARY = "cAnArYsEcReT0123456789cAnArYsEcReT0123456"


@pytest.fixture
def signed(s3_signed: S3Server, aws: UseAWS) -> S3Server:
    return aws(s3_signed)


@pytest.fixture
def strict(s3_strict: S3Server, aws: UseAWS) -> S3Server:
    return aws(s3_strict)


@pytest.fixture
def proxy(strict: S3Server) -> Iterator[Proxy]:
    with proxy_of(strict.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def storage(strict: S3Server, proxy: Proxy) -> Iterator[CrashStorageBase]:
    """A store behind the proxy that has a crash and knows its server."""
    uri = strict.uri(strict.new_bucket(), read_timeout="0.5")
    with open_storage(uri.replace(strict.endpoint_url, proxy.endpoint_url)) as storage:
        storage.save_crash(crash_of(contents()))
        proxy.requests.clear()
        yield storage


# Credentials


def test_a_wrong_secret_is_refused_once_and_not_shown(
    signed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    with proxy_of(signed.endpoint_url) as proxy:
        uri = signed.uri(signed.new_bucket())
        storage = open_storage(uri.replace(signed.endpoint_url, proxy.endpoint_url))
        for call in every_call(storage):
            with pytest.raises(StorageDenied) as caught:
                call()
            assert str(caught.value).startswith(storage.uri)
            assert "the secret key does not fit the access key" in str(caught.value)
            everything = "".join(traceback.format_exception(caught.value)) + repr(storage)
            assert CANARY not in everything
        assert len(proxy.requests) < 2 * len(every_call(storage))


def test_an_unknown_access_key_is_said(signed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWNUNKNOWN00")
    with pytest.raises(StorageDenied, match="the access key is not known there"):
        open_storage(signed.uri(signed.new_bucket())).verify_access()


def test_a_missing_bucket_is_said_by_every_call(signed: S3Server) -> None:
    for call in every_call(open_storage(signed.uri("no-such-bucket"))):
        with pytest.raises(StorageDenied, match="no such bucket"):
            call()


def test_no_credentials_are_said(signed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageDenied, match="no credentials: set AWS_ACCESS_KEY_ID"):
        open_storage(signed.uri(signed.new_bucket())).verify_access()


def test_an_unknown_profile_is_said(signed: S3Server) -> None:
    with pytest.raises(StorageDenied, match=r"profile \(nobody\) could not be found"):
        open_storage(signed.uri(signed.new_bucket(), profile="nobody")).verify_access()


def _profile(path: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    lines = ["[profile crashes]", *(f"{key} = {value}" for key, value in settings.items())]
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_profile_gives_credentials_region_and_endpoint(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    bucket = signed.new_bucket()
    _profile(
        tmp_path / "config",
        monkeypatch,
        aws_access_key_id=signed.access_key,
        aws_secret_access_key=signed.secret_key,
        endpoint_url=signed.endpoint_url,
        region=signed.region,
    )
    if by == "environment":
        monkeypatch.setenv("AWS_PROFILE", "crashes")
    uri = f"s3://{bucket}" + ("?profile=crashes" if by == "option" else "")
    storage = open_storage(uri)
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()


def test_the_default_profile_has_its_say_beside_the_environment(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Amazon's own clients."""
    config = tmp_path / "config"
    config.write_text(f"[default]\nendpoint_url = {signed.endpoint_url}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_REGION", signed.region)
    storage = open_storage(f"s3://{signed.new_bucket()}")
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()


def test_credentials_that_expire_are_asked_for_again(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "credentials"
    answer = {
        "Version": 1,
        "AccessKeyId": signed.access_key,
        "SecretAccessKey": signed.secret_key,
        "Expiration": (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=9)).isoformat(),
    }
    program.write_text(f"#!/bin/sh\necho >>{tmp_path}/asked\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    _profile(tmp_path / "config", monkeypatch, credential_process=str(program))
    ago = dt.timedelta(minutes=-1)
    monkeypatch.setattr("crashmover.external.s3.account._CREDENTIALS_LAST", ago)
    storage = open_storage(signed.uri(signed.new_bucket(), profile="crashes"))
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()
    asked = (tmp_path / "asked").read_text().count("\n")
    program.write_text("#!/bin/sh\nexit 1\n")
    assert asked > 2
    with pytest.raises(StorageDenied, match="no credentials"):
        storage.load_crash(CRASH_ID)


def test_a_program_for_credentials_that_fails_is_said(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _profile(tmp_path / "config", monkeypatch, credential_process="/bin/false")
    storage = open_storage(signed.uri(signed.new_bucket(), profile="crashes"))
    with pytest.raises(StorageDenied, match=r"no credentials: .*custom-process"):
        storage.verify_access()


def test_anonymous_requests_carry_no_signature(signed: S3Server, strict: S3Server) -> None:
    bucket = strict.new_bucket()
    open_storage(strict.uri(bucket, anonymous="true")).save_crash(crash_of(contents()))
    with pytest.raises(StorageError):
        open_storage(signed.uri(signed.new_bucket(), anonymous="true")).verify_access()


def test_credentials_in_the_environment_need_no_boto3(signed: S3Server) -> None:
    script = f"""
import sys
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy
from crashmover.testing import contents, crash_of
storage = open_storage({signed.uri(signed.new_bucket())!r})
storage.save_crash(crash_of(contents()))
assert "obstore" in sys.modules
assert not {{"boto3", "botocore"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# A server that fails in passing


@pytest.mark.parametrize(
    "fault",
    [
        Says(503, "SlowDown"),
        Says(500, "InternalError"),
        Says(429),
        Reset(),
        ResetAfter(),
        DamagedUpload(),
    ],
    ids=lambda fault: type(fault).__name__ + str(getattr(fault, "status", "")),
)
def test_a_request_that_fails_twice_is_tried_again(
    storage: CrashStorageBase, proxy: Proxy, fault: Fault
) -> None:
    destination = InMemoryCrashStorage()
    destination.save_crash(crash_of(contents("b")))
    proxy.headers = {CHECKED: "SHA256"} if isinstance(fault, DamagedUpload) else {}
    proxy.fail(fault, "PUT", times=2)
    [outcome] = Mover(destination, storage, existing=Existing.OVERWRITE).run([CRASH_ID])
    assert outcome.status is Status.COPIED, outcome.error
    assert read(storage) == contents("b")
    proxy.fail(fault, "GET", times=2)
    assert storage.load_crash(CRASH_ID).parts


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Says(503, "SlowDown"), "the server says SlowDown"),
        (Says(500), "the server says 500"),
        (Reset(), "connection reset by peer|broke off"),
        (Hang(), "no answer in time"),
    ],
    ids=["throttled", "error", "reset", "hangs"],
)
def test_a_server_that_goes_on_failing_is_given_up(
    storage: CrashStorageBase, proxy: Proxy, fault: Fault, reason: str
) -> None:
    proxy.fail(fault)
    for call in every_call(storage)[:1]:
        start = time.monotonic()
        with pytest.raises(StorageUnavailable, match=reason) as caught:
            call()
        assert time.monotonic() - start < 15
        assert storage.uri in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(proxy.requests) > 1


def test_what_is_denied_is_asked_once(storage: CrashStorageBase, proxy: Proxy) -> None:
    proxy.fail(Says(403, "AccessDenied"), "PUT")
    with pytest.raises(StorageDenied, match="access denied"):
        storage.save_crash(crash_of(contents("b")))
    assert proxy.count("PUT") == 1
    storage.verify_access()
    with pytest.raises(StorageDenied, match="access denied"):
        storage.verify_access(write=True)  # it has just been refused
    proxy.fail(Says(403), times=0)
    storage.save_crash(crash_of(contents("b")))
    storage.verify_access(write=True)


def test_a_bucket_elsewhere_is_said(storage: CrashStorageBase, proxy: Proxy) -> None:
    proxy.fail(Says(400, "AuthorizationHeaderMalformed"))
    with pytest.raises(StorageDenied, match="the bucket is in another region: say so"):
        storage.verify_access()


def test_a_raw_crash_whose_answer_was_lost_is_saved(
    storage: CrashStorageBase, proxy: Proxy
) -> None:
    """The second attempt meets what the first has put there, and goes on."""
    storage.remove(CRASH_ID)
    proxy.fail(ResetAfter(), "/raw_crash/", times=1)
    storage.save_crash(crash_of(contents("b")))
    assert read(storage) == contents("b")


# Bytes


@pytest.mark.parametrize(
    "fault",
    [Cut(), Cut(length=False), Cut(hang=True), Cut(after=0)],
    ids=["short", "no length", "stops", "empty"],
)
@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_body_that_ends_early_is_an_error(
    storage: CrashStorageBase, proxy: Proxy, fault: Fault, size: int
) -> None:
    storage.save_crash(crash_of({RAW: b"{}", MAIN: bytes(size)}))
    dump = storage.find_dump(CRASH_ID)
    proxy.fail(fault, "/dump/")
    with pytest.raises(StorageUnavailable) as caught:
        dump.read()
    assert caught.value.crash_id == CRASH_ID


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_body_that_is_damaged_on_the_way_is_an_error(
    storage: CrashStorageBase, proxy: Proxy, size: int
) -> None:
    storage.save_crash(crash_of({RAW: b"{}", MAIN: bytes(size)}))
    dump = storage.find_dump(CRASH_ID)
    proxy.fail(Damaged(), "/dump/")
    with pytest.raises(CorruptCrash, match="SHA-256 differs"):
        dump.read()


@pytest.mark.parametrize("checksum", ["sha256", "crc64nvme"])
def test_an_upload_that_is_damaged_on_the_way_is_refused(
    strict: S3Server, proxy: Proxy, checksum: str
) -> None:
    uri = strict.uri(strict.new_bucket(), checksum=checksum)
    storage = open_storage(uri.replace(strict.endpoint_url, proxy.endpoint_url))
    proxy.headers = {CHECKED: checksum}
    proxy.fail(DamagedUpload(), "/dump/")
    with pytest.raises(StorageUnavailable, match="the server says BadDigest"):
        storage.save_crash(crash_of(contents()))
    assert not storage.has_crash(CRASH_ID)


def test_checksums_can_be_left_out(strict: S3Server, proxy: Proxy) -> None:
    uri = strict.uri(strict.new_bucket(), checksum="none")
    storage = open_storage(uri.replace(strict.endpoint_url, proxy.endpoint_url))
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()


@pytest.mark.parametrize("answer", [Says(501, "NotImplemented"), Says(400, "InvalidArgument")])
def test_a_server_that_refuses_conditions_is_used_without(
    storage: CrashStorageBase, proxy: Proxy, answer: Says
) -> None:
    other = open_storage(storage.uri)  # which knows nothing of its server yet
    seen: list[Request] = []

    def second_list(request: Request) -> bool:
        """The first is put on no condition; the second is, to find out."""
        is_list = "dump_names" in request and "PUT" in request
        seen.extend([request] * is_list)
        return is_list and len(seen) > 1

    proxy.fail(answer, second_list, times=1)
    other.save_crash(crash_of(contents("b"), NEIGHBOUR))
    assert read(other, NEIGHBOUR) == contents("b")
    other.save_crash(crash_of(contents("c"), NEIGHBOUR))
    assert read(other, NEIGHBOUR) == contents("c")


def test_a_server_in_the_middle_of_a_change_is_asked_again(
    storage: CrashStorageBase, proxy: Proxy
) -> None:
    proxy.fail(Says(409, "OperationAborted"), "PUT")
    with pytest.raises(StorageUnavailable, match="409 OperationAborted"):
        storage.save_crash(crash_of({PROCESSED: b"{}"}))


# Whole runs


def test_a_copy_goes_on_where_it_stopped(storage: CrashStorageBase, proxy: Proxy) -> None:
    source = InMemoryCrashStorage()
    ids = [f"0bba{n:04x}-8721-460c-dead-a43c22071025" for n in range(30)]
    for crash_id in ids:
        source.save_crash(crash_of(contents(crash_id), crash_id))
    proxy.fail(Reset(), lambda _: len(proxy.requests) > 60)
    outcomes: list[Outcome] = []
    with pytest.raises(StorageUnavailable):
        # A policy of one attempt, so that the test does not wait for a server to come back.
        for outcome in Mover(source, storage, workers=2, retry=RetryPolicy(1)).run(ids):
            outcomes.append(outcome)
    proxy.fail(Reset(), times=0)
    copied = {outcome.crash_id for outcome in outcomes if outcome.status is Status.COPIED}
    assert copied
    assert len(copied) < len(ids)
    for outcome in Mover(source, storage).run(ids):
        assert outcome.status in (Status.COPIED, Status.SKIPPED)
        assert outcome.status is Status.SKIPPED or outcome.crash_id not in copied
    for crash_id in ids:
        assert read(storage, crash_id) == contents(crash_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_server(
    storage: CrashStorageBase, proxy: Proxy, number: signal.Signals
) -> None:
    proxy.fail(Hang())
    uri = storage.uri.replace("read_timeout=0.5", "read_timeout=60")
    command = [sys.executable, "-m", "crashmover", "get", "-s", uri, CRASH_ID]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not proxy.requests:
            time.sleep(0.01)
        process.send_signal(number)
        _, messages = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert "Traceback" not in messages


@pytest.mark.slow
def test_large_dumps_move_in_little_memory(signed: S3Server, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    size = 300 << 20
    with dump.open("wb") as file:
        file.truncate(size)
    source = open_storage(str(tmp_path / "source"))
    for number in range(4):
        parts = [Part.of_bytes(Kind.RAW_CRASH, b"{}"), Part.of_file(Kind.DUMP, dump, MAIN_DUMP)]
        source.save_crash(Crash(f"0bba{number:04x}-8721-460c-dead-a43c22071025", parts))
    uri = signed.uri(signed.new_bucket())
    for where in ([str(tmp_path / "source"), uri], [uri, str(tmp_path / "back")]):
        assert peak_of_copy(*where) < 150 << 20


# URIs


@pytest.mark.parametrize(
    "options",
    [
        "region=eu-central-1&endpoint_url=https://s3.example.com",
        "anonymous=true&checksum=none&addressing_style=virtual",
        "storage_class=STANDARD_IA&sse=aws:kms&sse_kms_key_id=alias/crashes&request_payer=requester",
        "ca_bundle=/etc/ca.pem&verify_ssl=false&connect_timeout=1&read_timeout=2.5&profile=crashes",
    ],
)
def test_options_are_taken_without_contacting_anybody(options: str) -> None:
    uri = f"s3://bucket/a/b?{options}"
    storage = open_storage(uri)
    assert storage.uri.startswith("s3://bucket/a/b?")
    assert storage.identity() == open_storage(uri).identity()
    assert storage.identity() != open_storage("s3://other/a/b").identity()


def test_one_bucket_is_one_store_however_its_server_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy to itself that removes its source would remove everything."""
    server = "http://127.0.0.1:9000"
    by_option = open_storage(f"s3://crashes/a?endpoint_url={server}/&region=x").identity()
    assert open_storage("s3://crashes/a").identity() != by_option
    _profile(tmp_path / "config", monkeypatch, endpoint_url=server)
    assert open_storage("s3://crashes/a?profile=crashes").identity() == by_option
    assert open_storage("s3://crashes/a").identity() != by_option
    monkeypatch.setenv("AWS_PROFILE", "crashes")
    assert open_storage("s3://crashes/a").identity() == by_option
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert open_storage("s3://crashes/a/").identity() == by_option
    assert open_storage("s3://crashes/b").identity() != by_option


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3:///prefix", "the bucket is missing"),
        ("s3://b", "the bucket is missing or is not one"),
        ("s3://bu%20cket/", "the bucket is missing or is not one"),
        ("s3://user:secret@bucket/", "a s3 URI has no user"),
        ("s3://bucket:9000/", "a s3 URI has no port"),
        ("s3://bucket/a//b", "empty step"),
        ("s3://bucket/a/../b", "one that is . or .."),
        ("s3://bucket?colour=red", "unknown option 'colour'"),
        ("s3://bucket?anonymous=yes", "anonymous: it is true or false"),
        ("s3://bucket?checksum=md5", "checksum: it is one of sha256, crc64nvme, none"),
        ("s3://bucket?endpoint_url=ftp://x", "endpoint_url: it is a URL"),
        ("s3://bucket?read_timeout=soon", "read_timeout: it is a number of seconds"),
        ("s3://bucket?read_timeout=0", "read_timeout: it is a number of seconds"),
        ("s3://bucket?region=", "region: it is empty"),
        ("s3://bucket?sse=none", "sse: it is one of"),
    ],
)
def test_a_bad_uri_is_a_usage_error(uri: str, reason: str) -> None:
    with pytest.raises(InvalidURI, match=reason.replace("(", r"\(").replace(".", r"\.")) as caught:
        open_storage(uri)
    assert "secret" not in str(caught.value)


def test_a_certificate_bundle_that_cannot_be_read_is_said(strict: S3Server) -> None:
    storage = open_storage(strict.uri(strict.new_bucket(), ca_bundle="/no/such/file"))
    with pytest.raises(StorageDenied, match="/no/such/file cannot be read: No such file"):
        storage.verify_access()


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\n"])
def test_a_certificate_bundle_without_a_certificate_is_said(
    strict: S3Server, tmp_path: Path, text: str
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(text)
    storage = open_storage(strict.uri(strict.new_bucket(), ca_bundle=str(bundle)))
    with pytest.raises(StorageDenied, match=r"ca\.pem has no certificate in it that can be read"):
        storage.verify_access()


def test_a_server_without_tls_is_said(strict: S3Server) -> None:
    uri = strict.uri(strict.new_bucket()).replace("http:", "https:")
    with pytest.raises(StorageDenied, match="no trusted TLS connection"):
        open_storage(uri).verify_access()


def test_what_is_not_there_is_not_found(storage: CrashStorageBase) -> None:
    storage.remove(CRASH_ID)
    with pytest.raises(CrashIDNotFound, match="no such crash"):
        storage.load_crash(CRASH_ID)
