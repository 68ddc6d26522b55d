# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""No bucket is moved onto itself, by whatever address; and two that are two are moved."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover import registry
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing import DistinctConformance
from tests.cli_helpers import assert_refused, put, run, samples, stored
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import Place, Says, behind_proxy
from tests.servers.s3 import Bucket, Rclone, S3Server

CRASHES = samples(6)
AN_HOUR = dt.timedelta(hours=1)
MOVE = ("--verify", "--remove-source")
WAYS = (
    MOVE,
    ("--existing", "compare", "--remove-source"),
    ("--existing", "overwrite", "--remove-source"),
)


@pytest.fixture(params=["s3_signed", "s3_strict"])
def server(request: pytest.FixtureRequest, aws: UseAWS) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    return aws(server)


def fill(tmp_path: Path, uri: str) -> str:
    """Copy the crashes there; return the URI."""
    assert run("copy", "-s", put(tmp_path / "crashes", *CRASHES), "-d", uri).exit_code == 0
    return uri


def test_buckets_prefixes_and_servers_that_are_two_are_moved(
    s3_signed: S3Server, aws: UseAWS, tmp_path: Path, figures: Figures
) -> None:
    aws(s3_signed)
    bucket, other = Bucket(s3_signed), Bucket(s3_signed)
    with Rclone() as another:
        another.stop()
        another.access_key, another.secret_key = s3_signed.access_key, s3_signed.secret_key
        another.start()
        another.client().create_bucket(Bucket=bucket.name)
        places: list[str | Path] = [
            bucket.uri(),
            bucket.uri("v1"),
            bucket.uri("v1/raw_crash"),
            bucket.uri("v1/raw_crash/20261120").replace("127.0.0.1", "localhost"),
            bucket.uri("v2/raw_crash/0bb"),
            bucket.uri("a"),
            bucket.uri("a/b"),
            bucket.uri("A"),
            other.uri("A"),
            another.uri(bucket.name, "A"),
            tmp_path / "back",
        ]
        source, moved = fill(tmp_path, bucket.uri("first")), 0
        for destination in places:
            done = run("copy", "-s", source, "-d", destination, *MOVE)
            assert (done.exit_code, f"copied {len(CRASHES)}" in done.stderr) == (0, True)
            source, moved = str(destination), moved + len(CRASHES)
    assert bucket.objects() == other.objects() == {}
    assert stored(tmp_path / "back") == stored(tmp_path / "crashes")
    figures(crashes_moved=moved)


def test_a_server_that_shows_one_place_by_another_bucket_and_prefix(
    s3_signed: S3Server, aws: UseAWS, tmp_path: Path
) -> None:
    """The text of two URIs has nothing in common, and yet they are one store.  The other server
    goes by a list of names that it has kept, and so does not see the mark."""
    aws(s3_signed)
    bucket = Bucket(s3_signed)
    source = fill(tmp_path, bucket.uri("inner"))
    before = bucket.objects()
    with Rclone() as below:
        below.stop()
        below.access_key, below.secret_key = s3_signed.access_key, s3_signed.secret_key
        (below.directory / "data").rmdir()
        (below.directory / "data").symlink_to(s3_signed.directory / "data" / bucket.name)
        below.start()
        inner = below.uri("inner")
        assert_refused(run("copy", "-s", source, "-d", inner, *MOVE), 2, "the same size and time")
    assert bucket.objects() == before


@pytest.fixture
def denying(s3_strict: S3Server, aws: UseAWS) -> Iterator[Place]:
    aws(s3_strict)
    with behind_proxy(s3_strict) as place:
        yield place


def test_a_source_that_takes_no_mark_is_looked_into_for_one(denying: Place, tmp_path: Path) -> None:
    bucket, other = Bucket(denying.server), Bucket(denying.server)
    source = denying.uri(bucket.name)
    fill(tmp_path, bucket.uri())
    before = bucket.objects()
    denying.proxy.fail(Says(403, "AccessDenied"), "PUT ")
    assert_refused(run("copy", "-s", source, "-d", bucket.uri(), *MOVE), 2, "same store")
    done = run("copy", "-s", source, "-d", source.replace("127.0.0.1", "localhost"), *MOVE)
    assert_refused(done, 2, "cannot be proved", "neither takes a mark", "nothing was copied")
    assert bucket.objects() == before
    assert run("copy", "-s", source, "-d", other.uri(), *MOVE).exit_code == 0
    assert (bucket.objects(), len(other.objects())) == ({}, len(before))


def test_a_destination_needs_no_right_but_to_save(denying: Place, tmp_path: Path) -> None:
    """The mark is put into the source, of which crashes may be deleted anyway."""
    bucket, other = Bucket(denying.server), Bucket(denying.server)
    source = fill(tmp_path, bucket.uri())
    denying.proxy.fail(Says(403, "AccessDenied"), lambda it: "DELETE " in it or "?delete" in it)
    done = run("copy", "-s", source, "-d", denying.uri(other.name), *MOVE)
    assert (done.exit_code, bucket.objects()) == (0, {})
    assert denying.proxy.count("crashmover-mark") == 1


def test_a_source_that_lets_nothing_be_deleted_is_said_at_once(
    denying: Place, tmp_path: Path
) -> None:
    bucket, other = Bucket(denying.server), Bucket(denying.server)
    fill(tmp_path, bucket.uri())
    before = bucket.objects()
    denying.proxy.fail(Says(403, "AccessDenied"), lambda it: "DELETE " in it or "?delete" in it)
    done = run("copy", "-s", denying.uri(bucket.name), "-d", other.uri(), *MOVE)
    assert_refused(done, 4, "access denied")
    assert other.objects() == {}
    left = bucket.objects().keys() - before.keys()
    assert len(left) == 1 and left.pop().startswith("v1/crashmover-mark/")


def test_a_mark_that_was_left_behind_is_not_seen_and_goes_in_an_hour(
    s3_strict: S3Server, aws: UseAWS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws(s3_strict)
    bucket, other = Bucket(s3_strict), Bucket(s3_strict)
    bucket.put({f"v1/crashmover-mark/{'0' * 32}": b"left behind"})
    assert run("list", "-s", bucket.uri()).stdout == ""
    assert run("copy", "-s", bucket.uri(), "-d", other.uri(), *MOVE).exit_code == 0
    assert len(bucket.objects()) == 1
    monkeypatch.setattr("crashmover.external.bucket.sameness._OLD", -AN_HOUR)
    assert run("copy", "-s", bucket.uri(), "-d", other.uri(), *MOVE).exit_code == 0
    assert bucket.objects() == {}


def test_a_copy_that_removes_nothing_puts_no_mark(denying: Place, tmp_path: Path) -> None:
    bucket, other = Bucket(denying.server), Bucket(denying.server)
    fill(tmp_path, bucket.uri())
    source = denying.uri(bucket.name)
    for options in ((), (*MOVE, "--dry-run")):
        assert run("copy", "-s", source, "-d", other.uri(), *options).exit_code == 0
    assert run("check", "-s", source, "-d", other.uri()).exit_code == 0
    assert denying.proxy.count("crashmover-mark") == denying.proxy.count("PUT ") == 0


def test_one_spelling_of_a_host_is_the_other() -> None:
    def identity(endpoint: str) -> object:
        return registry.open_storage(f"s3://crashes/a?endpoint_url={endpoint}").identity()

    same = ("http://Host.Example", "http://host.example:80", "http://HOST.example/")
    assert len({identity(endpoint) for endpoint in same}) == 1
    others = ("http://host.example:81", "https://host.example", "http://host.example/a")
    assert len({identity(endpoint) for endpoint in (same[0], *others)}) == 4


class TestS3(DistinctConformance):
    @pytest.fixture
    def bucket(self, server: S3Server) -> str:
        return server.new_bucket()

    @pytest.fixture
    def storage(self, server: S3Server, bucket: str) -> Iterator[CrashStorageBase]:
        with registry.open_storage(server.uri(bucket)) as storage:
            yield storage

    @pytest.fixture
    def same_storage(self, server: S3Server, bucket: str) -> Iterator[CrashStorageBase]:
        with registry.open_storage(server.uri(bucket).replace("127.0.0.1", "localhost")) as storage:
            yield storage

    @pytest.fixture
    def other_storage(self, server: S3Server, bucket: str) -> Iterator[CrashStorageBase]:
        with registry.open_storage(server.uri(bucket, "v1")) as storage:
            yield storage
