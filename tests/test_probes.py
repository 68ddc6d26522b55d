# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Probes: what a store or a queue is tried with leaves nothing, whatever happens meanwhile; and it
finds what would keep a crash from being saved."""

import datetime as dt
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crashmover import open_storage
from crashmover.crash import Crash, Kind
from crashmover.errors import (
    CrashMoverError,
    PolyCrashStorageError,
    StorageDenied,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.probing import probe_crash, probe_id
from crashmover.testing import contents, crash_of
from tests.conftest import UseAWS, on_buckets
from tests.postgresql_stub import make_certificate
from tests.s3_proxy import Place, ResetAfter, Says, behind_proxy
from tests.servers.buckets import BucketServer
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import Bucket, S3Server


def today() -> str:
    """The directory of the day that a probe is of."""
    return f"20{probe_id()[-6:]}"


def neighbour() -> str:
    """A crash id that file systems keep beside that of a probe."""
    return f"{probe_id()[:-8]}a{probe_id()[-7:]}"


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory: its path -> its bytes."""
    found = sorted(root.rglob("*"))
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in found}


def no_probe_is_seen(storage: CrashStorageBase) -> bool:
    """Whether no reader finds a crash of a probe, nor a part of one."""
    kinds = (Kind.RAW_CRASH, Kind.PROCESSED_CRASH)
    listed = [crash_id for kind in kinds for crash_id in storage.new_crashes(kind=kind)]
    return probe_id() not in listed and not storage.has_crash(probe_id())


# Directories


@pytest.mark.parametrize("there", ["nothing", "root", "day", "crash"])
def test_a_directory_is_afterwards_as_it_was_before(tmp_path: Path, there: str) -> None:
    root = tmp_path / "not" / "yet"
    if there == "root":
        root.mkdir(parents=True)
    elif there == "day":
        (root / today()).mkdir(parents=True)
    with open_storage(str(root)) as storage:
        if there == "crash":
            storage.save_crash(crash_of(contents(), neighbour()))
        before = tree(tmp_path)
        written = storage.probe_write()
        assert tree(tmp_path) == before
    assert written and abs((written - dt.datetime.now(dt.UTC)).total_seconds()) < 60


def test_a_day_that_cannot_be_saved_to_is_found_where_the_root_can(tmp_path: Path) -> None:
    (tmp_path / today()).write_text("in the way")
    with open_storage(str(tmp_path)) as storage:
        storage.verify_access(write=True)
        before = tree(tmp_path)
        with pytest.raises(StorageDenied, match=r"cannot be written to: .*no directory"):
            storage.probe_write()
        assert tree(tmp_path) == before


KILLED = """
import os, sys
from crashmover import open_storage
from crashmover.external.fs.staging import StagedSave
setattr(StagedSave, sys.argv[2], lambda self: os._exit(9))
open_storage(sys.argv[1]).probe_write()
"""


@pytest.mark.parametrize("step", ["publish_dumps", "time_of_dumps", "close"])
def test_what_a_probe_leaves_that_is_killed_is_seen_by_nobody_and_hinders_nobody(
    tmp_path: Path, step: str
) -> None:
    with open_storage(str(tmp_path)) as storage:
        storage.save_crash(crash_of(contents(), neighbour()))
        before = tree(tmp_path)
        killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path, step], check=False)
        assert killed.returncode == 9
        left = tree(tmp_path)
        added = left.keys() - before.keys()
        assert added and all("/.probe-" in path for path in added)
        assert list(storage.new_crashes()) == [neighbour()] and no_probe_is_seen(storage)
        storage.probe_write()
        assert tree(tmp_path) == left
        storage.save_crash(crash_of(contents(), probe_id()))
        storage.remove(probe_id())
        assert tree(tmp_path) == left


def test_many_probes_of_one_directory_and_a_save_are_not_in_each_other_s_way(
    tmp_path: Path,
) -> None:
    def try_often(_number: int) -> None:
        with open_storage(f"{tmp_path}/not/yet") as storage:
            for _ in range(5):
                storage.probe_write()

    with ThreadPoolExecutor(4) as pool, open_storage(f"{tmp_path}/not/yet") as storage:
        trying = pool.map(try_often, range(3))
        storage.save_crash(crash_of(contents(), neighbour()))
        assert len(list(trying)) == 3
        storage.remove(neighbour())
    assert tree(tmp_path) == {"not": None, "not/yet": None}


def test_a_probe_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("crashmover.external.fs.probing.os.fsync", full)
    with (
        open_storage(f"{tmp_path}/store") as storage,
        pytest.raises(StorageError, match="No space left on device"),
    ):
        storage.probe_write()
    assert list(tmp_path.iterdir()) == []


# Buckets


@pytest.fixture(params=["s3_strict", "s3_signed"])
def bucket(request: pytest.FixtureRequest, aws: UseAWS) -> Bucket:
    server: S3Server = request.getfixturevalue(request.param)
    return Bucket(aws(server))


@pytest.fixture
def place(bucket: Bucket) -> Iterator[Place]:
    with behind_proxy(bucket.server) as place:
        yield place


def uploads(bucket: Bucket) -> list[str]:
    """What is on its way there."""
    try:
        found = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    except bucket.client.exceptions.NoSuchUpload:  # how one of the servers says that there is none
        return []
    return [upload["Key"] for upload in found.get("Uploads", [])]


@pytest.mark.parametrize("prefix", ["", "a/prefix"])
def test_a_bucket_is_tried_by_an_upload_that_never_becomes_an_object(
    bucket: Bucket, place: Place, prefix: str
) -> None:
    bucket.put({"other": b"b"})
    uri = place.uri(bucket.name).replace(f"//{bucket.name}", f"//{bucket.name}/{prefix}")
    with open_storage(uri) as storage:
        storage.probe_write()
        assert no_probe_is_seen(storage)
    key = "/".join(filter(None, (bucket.name, prefix, "v1/dump", probe_id())))
    asked = [request.method for request in place.proxy.requests if key in request]
    assert asked == ["POST", "PUT", "DELETE", "POST"]  # the last one ends another, that is missing
    assert bucket.objects() == {"other": b"b"} and uploads(bucket) == []


@pytest.mark.parametrize(("refused", "left"), [("POST", 0), ("PUT", 0), ("DELETE", 1)])
def test_a_bucket_that_may_not_be_saved_to_says_so(
    bucket: Bucket, place: Place, refused: str, left: int
) -> None:
    """Who may not break off an upload may not save: that is how a save that fails ends."""
    place.proxy.fail(Says(403, "AccessDenied"), when=f"{refused} /{bucket.name}/v1/dump/")
    with open_storage(place.uri(bucket.name)) as storage:
        storage.verify_access(write=True)
        with pytest.raises(StorageDenied, match="access denied"):
            storage.probe_write()
    assert bucket.objects() == {} and len(uploads(bucket)) == left


def test_a_bucket_that_is_gone_half_way_has_no_object(bucket: Bucket, place: Place) -> None:
    place.proxy.fail(ResetAfter(), when="DELETE")
    with open_storage(place.uri(bucket.name)) as storage:
        with pytest.raises(CrashMoverError):
            storage.probe_write()
        assert no_probe_is_seen(storage)
    assert bucket.objects() == {}


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("Thu, 26 Nov 2026 01:16:41 GMT", dt.datetime(2026, 11, 26, 1, 16, 41, tzinfo=dt.UTC)),
        ("Thu, 26 Nov 2026 01:16:41 -0000", dt.datetime(2026, 11, 26, 1, 16, 41, tzinfo=dt.UTC)),
        ("yesterday", None),
    ],
)
@on_buckets("s3_signed", "fake_gcs")
def test_the_clock_of_a_bucket_is_in_each_answer(
    bucket_server: BucketServer, said: str, time: dt.datetime | None
) -> None:
    with behind_proxy(bucket_server) as place:
        place.proxy.said = {"Date": said}
        with open_storage(place.uri("no-such-bucket")) as storage:
            assert storage.clock() == time


@on_buckets("s3_signed", "fake_gcs")
def test_a_bucket_that_cannot_be_reached_has_no_clock(bucket_server: BucketServer) -> None:
    uri = bucket_server.uri("bucket", endpoint_url="http://127.0.0.1:1")
    with open_storage(uri) as storage:
        assert storage.clock() is None


@pytest.fixture
def under_tls(tmp_path: Path) -> Iterator[str]:
    """The URL of a server whose certificate nobody has signed, and that says what time it is."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(make_certificate(tmp_path / "certificate"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("options", "is_told"),
    [("", False), ("&verify_ssl=false", True), ("&verify_ssl=false&ca_bundle=certificate", True)],
)
def test_a_server_that_is_not_trusted_tells_no_time(
    under_tls: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_signed: S3Server,
    aws: UseAWS,
    options: str,
    is_told: bool,
) -> None:
    aws(s3_signed)
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.chdir(tmp_path)
    with open_storage(f"s3://bucket?region=x&endpoint_url={under_tls}{options}") as storage:
        assert (storage.clock() is not None) == is_told


# Databases


Tables = dict[str, int]


def tables(server: PostgreSQL, schema: str) -> Tables:
    """The tables of a schema, and how many rows each has."""
    names = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    with server.connect() as connection:
        found = [name for (name,) in connection.execute(names, [schema]).fetchall()]
        count = "SELECT count(*) FROM {}.{}"
        rows = [connection.execute(count.format(schema, name)).fetchall() for name in found]
    return {name: row[0][0] for name, row in zip(found, rows, strict=True)}


@pytest.mark.parametrize("there", ["nothing", "another week", "this week"])
def test_a_database_is_afterwards_as_it_was_before(
    postgresql_server: PostgreSQL, there: str
) -> None:
    schema = postgresql_server.new_name()
    with open_storage(postgresql_server.uri(schema=schema)) as storage:
        if there == "another week":
            storage.save_crash(crash_of(contents()))
        elif there == "this week":
            storage.save_crash(crash_of(contents(), neighbour()))
        before = tables(postgresql_server, schema)
        assert bool(before) == (there != "nothing")
        storage.probe_write()
        assert tables(postgresql_server, schema) == before
        storage.save_crash(crash_of(contents()))


def test_a_database_tells_its_time(postgresql_server: PostgreSQL) -> None:
    with open_storage(postgresql_server.uri()) as storage:
        time = storage.clock()
    assert time and abs((time - dt.datetime.now(dt.UTC)).total_seconds()) < 60


# What stands in the base


class ReadsFirst(InMemoryCrashStorage):
    """Its errors are its own."""

    def save_crash(self, crash: Crash) -> None:
        try:
            super().save_crash(crash)
        except StorageError as error:
            raise StorageError("it could not be read", uri=self.uri) from error


class Invents(InMemoryCrashStorage):
    """What cannot be read is empty."""

    def save_crash(self, crash: Crash) -> None:
        super().save_crash(Crash(crash.crash_id, crash_of(contents()).parts))


class Refuses(InMemoryCrashStorage):
    def save_crash(self, crash: Crash) -> None:
        raise StorageDenied("read-only", uri=self.uri)


@pytest.mark.parametrize("kind", [InMemoryCrashStorage, ReadsFirst])
def test_a_store_without_a_probe_of_its_own_begins_a_save(
    kind: type[InMemoryCrashStorage],
) -> None:
    storage = kind()
    assert storage.probe_write() is None
    assert no_probe_is_seen(storage)
    assert storage.clock() is None


def test_a_store_that_saves_what_cannot_be_read_is_found_out() -> None:
    storage = Invents()
    with pytest.raises(StorageError, match="saved what cannot be read"):
        storage.probe_write()
    assert no_probe_is_seen(storage)


def test_of_several_stores_each_is_tried() -> None:
    with PolyCrashStorage([InMemoryCrashStorage(), Refuses(), Invents()]) as poly:
        with pytest.raises(PolyCrashStorageError) as caught:
            poly.probe_write()
        assert [type(error) for error in caught.value.exceptions] == [StorageDenied, StorageError]


def test_the_id_of_a_probe_is_of_today_and_a_probe_is_small() -> None:
    crash = probe_crash()
    assert crash.crash_id == f"00000000-0000-0000-0000-000002{today()[2:]}"
    assert sum(part.size or 0 for part in crash.parts) < 100
