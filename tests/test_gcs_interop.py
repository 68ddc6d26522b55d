# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Google Cloud Storage beside Google's own client: crashes that Socorro and Antenna have saved are
read, and what crashmover has saved is read by theirs."""

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as google_storage

from crashmover.crash import Crash, Kind, Part
from crashmover.errors import CrashExists
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    PROCESSED,
    RAW,
    DistinctConformance,
    contents,
    crash_of,
    read,
)
from tests.cli_helpers import manifest, put, run, samples, stored
from tests.conftest import Figures, UseAWS
from tests.servers.gcs import FakeGCS
from tests.servers.s3 import S3Server
from tests.store_helpers import peak_of_copy
from tests.strict_gcs import StrictGCS

KEYS = {
    RAW: f"v1/raw_crash/20071025/{CRASH_ID}",
    MAIN: f"v1/dump/{CRASH_ID}",
    BROWSER: f"v1/{BROWSER[1]}/{CRASH_ID}",
    PROCESSED: f"v1/processed_crash/{CRASH_ID}",
}
NAMES = f"v1/dump_names/{CRASH_ID}"
LARGE = PART_SIZE + 1
MIB = 1 << 20


@pytest.fixture(params=["gcs", "fake_gcs"])
def server(request: pytest.FixtureRequest) -> StrictGCS | FakeGCS:
    found: StrictGCS | FakeGCS = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(server: StrictGCS | FakeGCS) -> str:
    return server.new_bucket()


@pytest.fixture
def theirs(server: StrictGCS | FakeGCS, bucket: str) -> Iterator[Any]:
    """The bucket, as Google's own client sees it."""
    client = google_storage.Client(
        project="tests",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": server.endpoint_url},
    )
    yield client.bucket(bucket)
    client.close()


def save_as_socorro_does(bucket: Any, parts: dict[Any, bytes]) -> None:
    """Without conditions, without metadata: the raw crash, the names of the dumps, the dumps."""
    bucket.blob(KEYS[RAW]).upload_from_string(parts[RAW])
    names = ["dump" if key == MAIN else key[1] for key in parts if key in (MAIN, BROWSER)]
    bucket.blob(NAMES).upload_from_string(json.dumps(names).encode())
    for key in (MAIN, BROWSER, PROCESSED):
        if key in parts:
            bucket.blob(KEYS[key]).upload_from_string(parts[key])


@pytest.mark.parametrize("size", [100, LARGE])
def test_what_socorro_saves_is_read_to_the_byte(
    server: StrictGCS | FakeGCS, bucket: str, theirs: Any, size: int
) -> None:
    parts = contents() | {MAIN: bytes(size)}
    save_as_socorro_does(theirs, parts)
    with open_storage(server.uri(bucket)) as storage:
        assert list(storage.new_crashes()) == [CRASH_ID]
        assert read(storage) == parts
        [error] = storage.create_crashes([crash_of(contents("b"))])
        assert isinstance(error, CrashExists)
        storage.save_crash(crash_of(contents("b")))
        assert read(storage) == contents("b")
        storage.remove(CRASH_ID)
    assert list(theirs.list_blobs()) == []


def test_what_crashmover_saves_is_read_by_googles_client(
    server: StrictGCS | FakeGCS, bucket: str, theirs: Any
) -> None:
    parts = contents() | {MAIN: bytes(LARGE)}
    with open_storage(server.uri(bucket)) as storage:
        storage.save_crash(crash_of(parts))
    assert {key: theirs.blob(KEYS[key]).download_as_bytes() for key in parts} == parts
    names = json.loads(theirs.blob(NAMES).download_as_bytes())
    assert sorted(names) == sorted(key[1] for key in parts if key in (MAIN, BROWSER))
    assert theirs.get_blob(KEYS[RAW]).content_type == "application/json"


def test_what_googles_client_has_gzipped_stays_as_it_is(
    server: StrictGCS | FakeGCS, bucket: str, theirs: Any
) -> None:
    save_as_socorro_does(theirs, contents())
    blob, data = theirs.blob(KEYS[PROCESSED]), gzip.compress(contents()[PROCESSED])
    blob.content_encoding = "gzip"
    blob.upload_from_string(data)
    with open_storage(server.uri(bucket)) as storage:
        assert read(storage)[PROCESSED] == data


class TestSameness(DistinctConformance):
    @pytest.fixture
    def bucket(self, gcs: StrictGCS) -> str:
        return gcs.new_bucket()

    @pytest.fixture
    def storage(self, gcs: StrictGCS, bucket: str) -> Iterator[CrashStorageBase]:
        with open_storage(gcs.uri(bucket)) as storage:
            yield storage

    @pytest.fixture
    def same_storage(self, gcs: StrictGCS, bucket: str) -> Iterator[CrashStorageBase]:
        with open_storage(gcs.uri(bucket).replace("127.0.0.1", "localhost")) as storage:
            yield storage

    @pytest.fixture
    def other_storage(self, gcs: StrictGCS, bucket: str) -> Iterator[CrashStorageBase]:
        with open_storage(gcs.uri(bucket, "v1")) as storage:
            yield storage


def test_a_bucket_is_not_moved_onto_itself(gcs: StrictGCS, tmp_path: Path) -> None:
    uri = gcs.uri(gcs.new_bucket())
    crashes = samples(3)
    assert run("copy", "-s", put(tmp_path / "source", *crashes), "-d", uri).exit_code == 0
    same = uri.replace("127.0.0.1", "localhost")
    result = run("copy", "-s", uri, "-d", same, "--remove-source", "--existing", "overwrite")
    assert result.exit_code == 2, result.stderr
    with open_storage(uri) as storage:
        assert len(list(storage.new_crashes())) == 3


@pytest.mark.slow
def test_dumps_of_300_mb_take_little_memory(
    fake_gcs: FakeGCS, s3_signed: S3Server, aws: UseAWS, tmp_path: Path, figures: Figures
) -> None:
    """From a directory, to another bucket, to S3 and back: only pieces are in memory."""
    s3, stores = aws(s3_signed), [str(tmp_path / "source")]
    stores += [fake_gcs.uri(fake_gcs.new_bucket()) for _ in range(2)]
    stores += [s3.uri(s3.new_bucket()), fake_gcs.uri(fake_gcs.new_bucket()), str(tmp_path / "back")]
    chunks = [bytes([n % 256]) * MIB for n in range(300)]
    with open_storage(stores[0]) as storage:
        dump = Part.of_chunks(Kind.DUMP, lambda: iter(chunks), MAIN[1])
        raw = Part.of_bytes(Kind.RAW_CRASH, b"{}")
        storage.save_crash(Crash(CRASH_ID, [raw, dump]))
    peaks = [peak_of_copy(*pair) for pair in pairwise(stores)]
    assert max(peaks) < 100 * MIB, peaks
    with open_storage(stores[-1]) as storage:
        [found] = storage.load_crash(CRASH_ID).dumps
        with found.open() as file:
            assert all(file.read(MIB) == chunk for chunk in chunks)
            assert file.read(1) == b""
    figures(copies=len(peaks), above_100_MB=0)


def test_what_another_program_puts_meanwhile_is_not_removed(gcs: StrictGCS, tmp_path: Path) -> None:
    """In the moment before the first object is deleted."""
    bucket = gcs.new_bucket()
    with open_storage(gcs.uri(bucket)) as storage:
        storage.save_crash(crash_of(contents()))
        loaded = storage.load_crash(CRASH_ID)
        assert {part.key: part.read() for part in loaded.parts} == contents()
        gcs.put(bucket, KEYS[MAIN], b"a dump that came later")
        with pytest.raises(Exception, match="is not what was loaded"):
            storage.remove_loaded(loaded)
    assert gcs.objects(bucket)[KEYS[MAIN]] == b"a dump that came later"


def test_of_many_that_save_one_crash_one_is_whole(gcs: StrictGCS) -> None:
    uri = gcs.uri(gcs.new_bucket())
    versions = [contents(word) for word in "abcdefgh"]

    def save(parts: Any) -> None:
        with open_storage(uri) as storage:
            storage.save_crash(crash_of(parts))

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(save, versions))
        with open_storage(uri) as storage:
            assert read(storage) in versions


def test_crashes_go_there_and_back(server: StrictGCS | FakeGCS, tmp_path: Path) -> None:
    crashes = samples(40)
    source, back = put(tmp_path / "source", *crashes), tmp_path / "back"
    first, second = (server.uri(server.new_bucket(), "a/prefix") for _ in range(2))
    for source_uri, destination in ((source, first), (first, second), (second, back)):
        result = run("copy", "-s", source_uri, "-d", destination, "--verify")
        assert result.exit_code == 0, result.stderr
    assert stored(back) == manifest(*crashes)
