# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Requests that obstore cannot send: deletes and large uploads on conditions."""

import hashlib
import os
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket.client import ObjectChanged, ObjectExists
from crashmover.external.s3.account import VARIABLES
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.deleting import ConditionalDelete
from crashmover.external.s3.options import S3Options
from crashmover.external.s3.policies import PolicyClient
from crashmover.external.s3.signed import SignedClient
from crashmover.external.s3.uploading import LargeUpload
from tests.conftest import Figures, UseAWS
from tests.postgresql_stub import make_certificate
from tests.s3_policies import conditional_deletes, conditional_writes
from tests.s3_proxy import (
    Drip,
    Fault,
    Hang,
    Place,
    Replies,
    Reset,
    ResetAfter,
    Says,
    behind_proxy,
    proxy_of,
    refusing_proxy,
)
from tests.servers.s3 import Bucket, S3Server
from tests.test_s3_environment import OF_ONE_REQUEST, SIGNED, configuration_keys, spellings

slow = pytest.mark.slow
SERVERS = ["s3_signed", "s3_strict", pytest.param("s3_moto", marks=slow)]
HONOURING = ["s3_strict", pytest.param("s3_moto", marks=slow)]
PROBE = "v1/dump/probe"
STALE = '"0123456789abcdef0123456789abcdef"'
pytestmark = pytest.mark.usefixtures("short_pauses")

MIB = 1 << 20


@pytest.fixture
def server(request: pytest.FixtureRequest, aws: UseAWS) -> S3Server:
    return aws(request.getfixturevalue(request.param))


on_all = pytest.mark.parametrize("server", SERVERS, indirect=True)
on_honouring = pytest.mark.parametrize("server", HONOURING, indirect=True)
on_strict = pytest.mark.parametrize("server", ["s3_strict"], indirect=True)


@pytest.fixture
def place(server: S3Server) -> Iterator[Place]:
    with behind_proxy(server) as place:
        yield place


@pytest.fixture
def bucket(server: S3Server) -> Bucket:
    return Bucket(server)


def context_of(bucket: Bucket, endpoint_url: str | None = None, **options: Any) -> Any:
    url = endpoint_url or bucket.server.endpoint_url
    said = {"endpoint_url": url, "region": bucket.server.region} | options
    return S3ConnectionContext(bucket.name, S3Options(**said), f"s3://{bucket.name}")


class Deletes:
    """Deletes of one bucket, where the server honours conditions."""

    def __init__(self, context: S3ConnectionContext) -> None:
        self._delete = ConditionalDelete(SignedClient(context))

    def is_honoured(self) -> bool:
        return self._delete.is_honoured(PROBE)

    def __call__(self, versions: dict[str, str]) -> list[str]:
        assert self.is_honoured()
        return self._delete(versions, None)


def deletes(bucket: Bucket, endpoint_url: str | None = None, **options: Any) -> Deletes:
    return Deletes(context_of(bucket, endpoint_url, **options))


def upload(
    bucket: Bucket, key: str, endpoint_url: str | None = None, **options: Any
) -> LargeUpload:
    context = context_of(bucket, endpoint_url, **options)
    return LargeUpload(SignedClient(context), key)


def e_tags(bucket: Bucket) -> dict[str, str]:
    found = bucket.client.list_objects_v2(Bucket=bucket.name).get("Contents", [])
    return {each["Key"]: each["ETag"] for each in found}


# Deleting


@on_all
def test_whether_a_server_looks_at_conditions_is_found_out(
    server: S3Server, bucket: Bucket
) -> None:
    assert deletes(bucket).is_honoured() == (server.__class__.__name__ != "Rclone")


@on_all
def test_finding_it_out_takes_two_requests_once_and_changes_nothing(
    place: Place, bucket: Bucket, figures: Figures
) -> None:
    bucket.put({"a": b"1"})
    delete = deletes(bucket, place.proxy.endpoint_url)
    for _ in range(3):
        delete.is_honoured()
    assert place.proxy.count() <= 2
    assert e_tags(bucket).keys() == {"a"}
    figures(requests=place.proxy.count())


def test_of_amazon_it_is_known(aws: UseAWS, s3_strict: S3Server) -> None:
    aws(s3_strict)
    context = S3ConnectionContext("crashes", S3Options(region="us-west-2"), "s3://crashes")
    with refusing_proxy() as proxy:
        assert Deletes(context).is_honoured()
        assert not proxy.asked


@on_honouring
def test_what_was_replaced_stays(server: S3Server, bucket: Bucket) -> None:
    bucket.put({f"v1/dump/{name}": name.encode() for name in "abc"})
    seen = e_tags(bucket)
    bucket.put({"v1/dump/b": b"new"})
    assert deletes(bucket)(seen) == ["v1/dump/b"]
    assert bucket.objects() == {"v1/dump/b": b"new"}


@on_honouring
def test_what_is_missing_is_no_error(server: S3Server, bucket: Bucket) -> None:
    bucket.put({"a": b"1"})
    assert deletes(bucket)({**e_tags(bucket), "b": STALE}) == []
    assert bucket.objects() == {}


@on_honouring
def test_an_etag_of_parts_is_one_as_well(server: S3Server, bucket: Bucket) -> None:
    upload(bucket, "a")(
        [bytes(5 * MIB), b"x"], 5 * MIB, attributes={}, condition={"If-None-Match": "*"}
    )
    seen = e_tags(bucket)
    assert seen["a"].strip('"').endswith("-2")
    assert deletes(bucket)({"a": STALE}) == ["a"]
    assert deletes(bucket)(seen) == []
    assert bucket.objects() == {}


@on_honouring
def test_every_spelling_of_a_key(server: S3Server, bucket: Bucket) -> None:
    keys = [" a", "a b+c%20&<d>'é/v1/dump/x", "~._-!*()/x", "x//y", "ü" * 50, "a?b=c#d"]
    if type(server).__name__ == "Moto":
        keys.remove("a?b=c#d")
    bucket.put(dict.fromkeys(keys, b"1"))
    seen = e_tags(bucket)
    assert seen.keys() == set(keys)
    assert sorted(deletes(bucket)(dict.fromkeys(keys, STALE))) == sorted(keys)
    assert deletes(bucket)(seen) == []
    assert bucket.objects() == {}


@on_honouring
def test_more_keys_than_one_request_takes(
    server: S3Server, bucket: Bucket, figures: Figures
) -> None:
    names = [f"{number:04}" for number in range(1003)]
    bucket.fill(names)
    e_tag = e_tags(bucket)["0000"]
    bucket.put({"0007": b"new", "1001": b"new"})
    assert deletes(bucket)(dict.fromkeys(names, e_tag)) == ["0007", "1001"]
    assert e_tags(bucket).keys() == {"0007", "1001"}
    figures(keys=len(names))


@on_honouring
def test_a_bucket_that_keeps_versions_gets_no_markers_for_what_is_missing(
    server: S3Server, bucket: Bucket
) -> None:
    versioning = {"Status": "Enabled"}
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=versioning)
    bucket.put({"a": b"1", "b": b"1"})
    seen = e_tags(bucket)
    assert deletes(bucket)({"a": seen["a"]}) == []
    assert deletes(bucket)({"b": STALE}) == ["b"]
    found = bucket.client.list_object_versions(Bucket=bucket.name)
    assert [each["Key"] for each in found["DeleteMarkers"]] == ["a"]


@on_strict
@pytest.mark.parametrize("again", range(3))
def test_of_many_that_delete_and_put_nothing_new_is_lost(
    server: S3Server, bucket: Bucket, again: int, figures: Figures
) -> None:
    """One object, replaced all the time, and deleted by the ETag that it had: what was put last is
    there, or was deleted by its own ETag."""
    delete, client = deletes(bucket), bucket.client
    deleted = 0
    for number in range(40):
        client.put_object(Bucket=bucket.name, Key="a", Body=b"old%d" % number)
        old = e_tags(bucket)
        with ThreadPoolExecutor(2) as pool:
            gone = pool.submit(delete, old)
            body = b"new%d" % number
            pool.submit(client.put_object, Bucket=bucket.name, Key="a", Body=body).result()
            deleted += not gone.result()
        assert bucket.objects() == {"a": body}
    figures(races=40, deleted=deleted)


# What can go wrong

TROUBLE: dict[str, tuple[Fault, type[StorageError], str]] = {
    "denied": (Says(403, "AccessDenied"), StorageDenied, "access denied"),
    "throttled": (Says(503, "SlowDown"), StorageUnavailable, "SlowDown"),
    "throttled later": (Says(429), StorageUnavailable, "429"),
    "conflict": (Says(409, "ConditionalRequestConflict"), StorageUnavailable, "409"),
    "no bucket": (Says(404, "NoSuchBucket"), StorageDenied, "no such bucket"),
    "expired": (Says(400, "ExpiredToken"), StorageDenied, "expired"),
    "reset": (Reset(), StorageUnavailable, "connection"),
    "reset after": (ResetAfter(), StorageUnavailable, "connection"),
    "silence": (Hang(), StorageUnavailable, "no answer in time"),
    "drip": (Drip(0.2), StorageUnavailable, "no answer in time"),
    "a page": (
        Replies(b"<html>log in</html>"),
        StorageUnavailable,
        "not that of an S3",
    ),
    "nothing": (Replies(b""), StorageUnavailable, "not that of an S3"),
    "no results": (
        Replies(b"<DeleteResult/>"),
        StorageUnavailable,
        "not that of an S3",
    ),
    "key denied": (
        Replies(
            b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
        ),
        StorageDenied,
        "access denied",
    ),
    "key fails": (
        Replies(
            b"<DeleteResult><Error><Key>a</Key><Code>InternalError</Code></Error></DeleteResult>"
        ),
        StorageUnavailable,
        "InternalError",
    ),
    "key fails without a word": (
        Replies(b"<DeleteResult><Error><Key>a</Key></Error></DeleteResult>"),
        StorageError,
        "the server says Error",
    ),
    "key deleted and denied": (
        Replies(
            b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error>"
            b"<Deleted><Key>a</Key></Deleted></DeleteResult>"
        ),
        StorageDenied,
        "access denied",
    ),
    "all denied, and all is well": (Says(200, "AccessDenied"), StorageDenied, "access denied"),
}
PASSING = {"throttled", "throttled later", "conflict", "reset", "reset after", "silence", "drip"}


@on_strict
@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_one_of_ours(place: Place, bucket: Bucket, name: str) -> None:
    """A request that fails in passing is sent five times, as every other one."""
    fault, kind, text = TROUBLE[name]
    delete = deletes(bucket, place.proxy.endpoint_url, read_timeout=0.1)
    assert delete.is_honoured()
    bucket.put({"a": b"1"})
    place.proxy.requests.clear()
    place.proxy.fail(fault)
    with pytest.raises(kind, match=text) as found:
        delete(e_tags(bucket))
    assert found.value.uri == f"s3://{bucket.name}"
    assert len(place.proxy.requests) == (5 if name in PASSING else 1)
    for secret in (bucket.server.secret_key, "Signature", "urllib3", "\n"):
        assert secret not in str(found.value)
    assert found.value.__cause__ is None or bucket.server.secret_key not in repr(found.value)


@on_all
@pytest.mark.parametrize(
    "fault",
    [
        Says(503),
        Says(403, "ExpiredToken"),
        Says(400, "ExpiredToken"),
        Says(400, "RequestTimeout"),
        Reset(),
    ],
    ids=["503", "403", "400", "slow", "reset"],
)
def test_what_could_not_be_found_out_is_asked_again(
    place: Place, bucket: Bucket, fault: Fault
) -> None:
    delete = deletes(bucket, place.proxy.endpoint_url)
    place.proxy.fail(fault)
    with pytest.raises(StorageError):
        delete.is_honoured()
    place.heal()
    assert delete.is_honoured() == deletes(bucket).is_honoured()


@on_strict
@pytest.mark.parametrize("status", [400, 405, 501])
def test_a_server_that_does_not_know_the_request_honours_nothing(
    place: Place, bucket: Bucket, status: int
) -> None:
    place.proxy.fail(Says(status, "NotImplemented"))
    assert not deletes(bucket, place.proxy.endpoint_url).is_honoured()


@on_honouring
def test_a_policy_that_demands_conditions_is_satisfied(place: Place, bucket: Bucket) -> None:
    bucket.put({"a": b"1", "b": b"2"})
    place.proxy.policy = conditional_deletes
    assert deletes(bucket, place.proxy.endpoint_url)(e_tags(bucket)) == []
    assert bucket.objects() == {}


@pytest.mark.parametrize("server", ["s3_signed"], indirect=True)
def test_the_signature_is_right_or_refused(
    server: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not deletes(bucket).is_honoured()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    with pytest.raises(StorageDenied, match="does not fit the access key"):
        deletes(bucket).is_honoured()


@on_strict
def test_without_credentials_nothing_is_signed(place: Place, bucket: Bucket) -> None:
    bucket.put({"a": b"1"})
    assert not deletes(bucket, place.proxy.endpoint_url, anonymous=True)(e_tags(bucket))
    assert place.proxy.heads
    assert not [head for head in place.proxy.heads if "authorization" in head]


@on_strict
def test_a_server_that_is_not_there(server: S3Server, bucket: Bucket) -> None:
    for url, text in (
        ("http://127.0.0.1:9", "connection refused"),
        ("http://x.invalid", "host"),
    ):
        with pytest.raises(StorageUnavailable, match=text):
            deletes(bucket, url, connect_timeout=2).is_honoured()


@on_strict
def test_after_a_fork_no_connection_is_shared(place: Place, bucket: Bucket) -> None:
    delete = deletes(bucket, place.proxy.endpoint_url)
    bucket.put(dict.fromkeys("abcdef", b"1"))
    seen = e_tags(bucket)
    assert delete({"a": seen["a"]}) == []
    child = os.fork()
    if not child:
        os._exit(0 if delete({"b": seen["b"]}) == [] else 1)
    assert delete({"c": seen["c"]}) == []
    assert os.waitpid(child, 0)[1] == 0
    assert delete({"d": seen["d"]}) == []
    assert bucket.objects().keys() == {"e", "f"}


# Uploading


def pieces(size: int) -> list[bytes]:
    data = hashlib.shake_128(str(size).encode()).digest(MIB)
    whole = (data * (size // MIB + 1))[:size]
    return [whole[start : start + 700_000] for start in range(0, size, 700_000)]


@on_all
@pytest.mark.parametrize("checksum", ["sha256", "crc64nvme", "none"])
@pytest.mark.parametrize("size", [5 * MIB, 5 * MIB + 1, 17 * MIB])
def test_a_large_object_arrives_whole(
    server: S3Server, bucket: Bucket, checksum: str, size: int
) -> None:
    attributes = {
        "Content-Type": "application/octet-stream",
        "sha256": "00",
        "dumps-of": "x",
    }
    chunks = pieces(size)
    upload(bucket, "a b/ü", checksum=checksum)(
        chunks, 5 * MIB, attributes=attributes, condition={"If-None-Match": "*"}
    )
    found = bucket.get("a b/ü")
    assert found["Body"] == b"".join(chunks)
    metadata = {key.lower(): value for key, value in found["Metadata"].items()}
    assert metadata.items() >= {"sha256": "00", "dumps-of": "x"}.items()
    assert found["ContentType"] == "application/octet-stream"


def unfinished(bucket: Bucket) -> object:
    return bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])


@on_honouring
def test_what_is_there_is_not_written_over(server: S3Server, bucket: Bucket) -> None:
    bucket.put({"a": b"there"})
    create = {"If-None-Match": "*"}
    with pytest.raises(ObjectExists):
        upload(bucket, "a")(pieces(6 * MIB), 5 * MIB, attributes={}, condition=create)
    assert bucket.objects() == {"a": b"there"}
    assert not unfinished(bucket)


@on_strict
def test_only_what_was_seen_is_written_over(server: S3Server, bucket: Bucket) -> None:
    bucket.put({"a": b"there"})
    for key in ("a", "missing"):
        with pytest.raises(ObjectChanged):
            upload(bucket, key)(pieces(MIB), 5 * MIB, attributes={}, condition={"If-Match": STALE})
    assert bucket.objects() == {"a": b"there"}
    assert not unfinished(bucket)
    match = {"If-Match": e_tags(bucket)["a"]}
    upload(bucket, "a")(pieces(MIB), 5 * MIB, attributes={}, condition=match)
    assert bucket.objects() == {"a": b"".join(pieces(MIB))}


@on_strict
def test_of_two_that_create_one_wins(server: S3Server, bucket: Bucket, figures: Figures) -> None:
    bodies = [bytes([n]) * MIB for n in range(6)]

    def create(body: bytes) -> bool:
        put = upload(bucket, "a")
        try:
            put([body], 5 * MIB, attributes={}, condition={"If-None-Match": "*"})
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(create, bodies))
    assert won.count(True) == 1
    assert bucket.objects() == {"a": bodies[won.index(True)]}
    figures(creators=len(bodies))


@on_strict
def test_a_policy_on_writes_is_satisfied(place: Place, bucket: Bucket) -> None:
    place.proxy.policy = conditional_writes
    put = upload(bucket, "a", place.proxy.endpoint_url)
    put(pieces(6 * MIB), 5 * MIB, attributes={}, condition={"If-None-Match": "*"})
    with pytest.raises(StorageDenied, match="access denied"):
        upload(bucket, "b", place.proxy.endpoint_url)([b"x"], 5 * MIB, attributes={}, condition={})
    assert bucket.objects().keys() == {"a"}
    assert not unfinished(bucket)


@on_strict
def test_a_server_without_the_condition_completes_without_it(place: Place, bucket: Bucket) -> None:
    refuses: Callable[..., Fault | None] = lambda request, head, _: (  # noqa: E731
        Says(501, "NotImplemented") if "if-none-match" in head else None
    )
    place.proxy.policy = refuses
    put = upload(bucket, "a", place.proxy.endpoint_url)
    put([b"x"], 5 * MIB, attributes={}, condition={"If-None-Match": "*"})
    assert bucket.objects() == {"a": b"x"}


UPLOAD_TROUBLE: dict[str, tuple[Fault, str, type[StorageError]]] = {
    "begin denied": (Says(403, "AccessDenied"), "?uploads", StorageDenied),
    "begin without an id": (Replies(b"<x/>"), "?uploads", StorageUnavailable),
    "part throttled": (Says(503, "SlowDown"), "partNumber=2", StorageUnavailable),
    "part reset": (Reset(), "partNumber=2", StorageUnavailable),
    "part without an ETag": (Replies(b""), "partNumber=1", StorageUnavailable),
    "end conflicts": (
        Says(409, "ConditionalRequestConflict"),
        "POST",
        StorageUnavailable,
    ),
    "end fails inside": (Says(200, "InternalError"), "POST", StorageUnavailable),
    "end is a page": (Replies(b"<html/>"), "POST", StorageUnavailable),
    "end is unheard of": (Says(404, "NoSuchUpload"), "POST", StorageUnavailable),
}


@on_strict
@pytest.mark.parametrize("name", UPLOAD_TROUBLE)
def test_an_upload_that_fails_leaves_nothing(place: Place, bucket: Bucket, name: str) -> None:
    fault, where, kind = UPLOAD_TROUBLE[name]
    place.proxy.fail(
        fault,
        lambda request: where in request and (where != "POST" or "uploadId=" in request),
    )
    put = upload(bucket, "a", place.proxy.endpoint_url)
    with pytest.raises(kind):
        put(pieces(12 * MIB), 5 * MIB, attributes={}, condition={"If-None-Match": "*"})
    assert bucket.objects() == {}
    assert not unfinished(bucket) or name == "begin without an id"


@on_strict
def test_what_cannot_be_read_is_raised_as_it_is(server: S3Server, bucket: Bucket) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(6 * MIB)
        raise EOFError("mine")

    with pytest.raises(EOFError, match="mine"):
        upload(bucket, "a")(chunks(), 5 * MIB, attributes={}, condition={"If-None-Match": "*"})
    assert bucket.objects() == {}
    assert not unfinished(bucket)


# As the URI says


def test_no_variable_of_the_environment_changes_a_request(
    aws: UseAWS, s3_signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that obstore knows is set to a server that nothing may arrive at.  The
    credentials come from the profile that the URI names."""
    bucket = Bucket(aws(s3_signed))
    for name in s3_signed.credentials:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile crashes]\naws_access_key_id = {s3_signed.access_key}\n"
        f"aws_secret_access_key = {s3_signed.secret_key}\n"
    )
    with proxy_of(s3_signed.endpoint_url) as proxy, refusing_proxy() as decoy:

        def asked() -> list[object]:
            proxy.requests.clear()
            proxy.heads.clear()
            client = PolicyClient(context_of(bucket, proxy.endpoint_url, profile="crashes"))
            client.delete({"a": "a version that no object has"})
            client.try_put("a")
            assert client.clock()
            client.keeps_versions()
            names = [sorted(set(head) - OF_ONE_REQUEST) for head in proxy.heads]
            scopes = [SIGNED.findall(head.get("authorization", "")) for head in proxy.heads]
            paths = [request.path.partition("uploadId=")[0] for request in proxy.requests]
            return [paths, names, scopes]

        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        expected = asked()
        for key in configuration_keys():
            for variable in spellings(key) - VARIABLES:
                monkeypatch.setenv(variable, f"http://127.0.0.1:{decoy.port}")
        assert asked() == expected
        assert not decoy.asked


def test_a_proxy_of_the_environment_is_used_and_named(
    aws: UseAWS, s3_strict: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(aws(s3_strict))
    monkeypatch.delenv("NO_PROXY")
    with refusing_proxy("502 Bad Gateway") as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pa%40ss@127.0.0.1:{proxy.port}")
        with pytest.raises(StorageUnavailable, match=r"\(through the proxy 127") as found:
            deletes(bucket).is_honoured()
        assert proxy.asked
        assert "pa" + "ss" not in repr(found.value)


def test_the_trusted_certificates_are_those_of_the_uri(
    aws: UseAWS, s3_strict: S3Server, tmp_path: Path
) -> None:
    bucket = Bucket(aws(s3_strict))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(make_certificate(tmp_path / "certificate"))
    with proxy_of(s3_strict.endpoint_url) as proxy:
        proxy._server.socket = tls.wrap_socket(proxy._server.socket, server_side=True)
        https = proxy.endpoint_url.replace("http:", "https:")
        with pytest.raises(StorageDenied, match="TLS"):
            deletes(bucket, https).is_honoured()
        assert deletes(bucket, https, verify_ssl=False).is_honoured()
        with pytest.raises(StorageDenied, match="ca_bundle"):
            deletes(bucket, https, ca_bundle=str(tmp_path / "none")).is_honoured()
