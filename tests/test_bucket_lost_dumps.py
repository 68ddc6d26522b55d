# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What another program puts in the moment before a crash is removed: it stays, and is told of."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from crashmover.crash import MAIN_DUMP
from crashmover.registry import open_storage
from tests.cli_helpers import Sample, manifest, processed_crash, put, run, sample, stored
from tests.conftest import Figures, server_of_buckets
from tests.s3_proxy import Fault, Place, Request, behind_proxy
from tests.servers.buckets import Bucket
from tests.servers.s3 import Moto
from tests.strict_gcs import StrictGCS

slow = pytest.mark.slow

DAYS = ("--since", "2026-11-20", "--until", "2026-11-20")
CRASH = sample(1, dumps={MAIN_DUMP: b"MDMP", "other": b"o"}, processed=processed_crash())
RAW = f"v1/raw_crash/20261120/{CRASH.crash_id}"
LIST = f"v1/dump_names/{CRASH.crash_id}"
DUMP = f"v1/dump/{CRASH.crash_id}"
OTHER = f"v1/other/{CRASH.crash_id}"
PROCESSED = f"v1/processed_crash/{CRASH.crash_id}"
ONE_BY_ONE = (Moto, StrictGCS)
"""The servers that are asked to delete one object after the other."""
NEW = b'{"new": "dump, or what else it is"}'


@pytest.fixture(
    params=["s3_strict", *(pytest.param(each, marks=slow) for each in ("gcs", "s3_moto"))]
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with behind_proxy(server_of_buckets(request, request.param)) as place:
        yield place


@pytest.fixture
def bucket(place: Place, tmp_path: Path) -> Bucket:
    put(tmp_path / "a", CRASH)
    bucket = Bucket(place.server)
    assert "copied 1" in run("copy", "-s", tmp_path / "a", "-d", bucket.uri(), *DAYS).output
    return bucket


def before_deleting(key: str, act: Callable[[], object]) -> Callable[..., Fault | None]:
    """Let another program act once, in the moment before a request deletes this key."""
    acts = iter([act])

    def policy(request: Request, _head: dict[str, str], body: bytes) -> Fault | None:
        is_many = request.method == "POST" and "?delete" in request and key.encode() in body
        if is_many or (request.method == "DELETE" and key in unquote(request.path)):
            for each in acts:
                each()
        return None

    return policy


def move(place: Place, bucket: Bucket, to: Path) -> str:
    command = ("copy", "-s", place.uri(bucket.name), "-d", to, "--verify", "--remove-source")
    result = run(*command, *DAYS)
    assert result.exit_code == 1, result.output
    assert "is not what was loaded" in result.output
    return str(result.output)


@pytest.mark.parametrize("replaced", [RAW, LIST, DUMP, OTHER, PROCESSED])
@pytest.mark.parametrize("moment", [RAW, DUMP], ids=["raw", "rest"])
def test_what_is_replaced_in_the_moment_before_it_is_deleted_stays(
    place: Place, bucket: Bucket, tmp_path: Path, replaced: str, moment: str, figures: Figures
) -> None:
    """By another program, which knows nothing of ours."""
    before = bucket.objects()
    new = b'["upload_file_minidump"]' if replaced == LIST else NEW
    act = lambda: bucket.put({replaced: new})  # noqa: E731
    place.proxy.policy = before_deleting(moment, act)
    if (replaced, moment) == (RAW, DUMP):  # it is a new crash by then, of which nothing was there
        result = run(
            *("copy", "-s", place.uri(bucket.name), "-d", tmp_path / "b"),
            *("--verify", "--remove-source", *DAYS),
        )
        assert result.exit_code == 0
        assert bucket.objects() == {RAW: NEW}
        return
    if (replaced, moment) == (OTHER, DUMP) and isinstance(place.server, ONE_BY_ONE):
        return  # it has been deleted before
    move(place, bucket, tmp_path / "b")
    assert stored(tmp_path / "b") == manifest(CRASH)
    after = bucket.objects()
    assert after[replaced] == new
    if replaced == RAW:  # nothing of what it belongs to is taken away
        assert after == before | {RAW: NEW}
    figures(replaced=1)


@pytest.mark.parametrize("moment", [RAW, DUMP], ids=["raw", "rest"])
def test_a_new_dump_is_found_and_copied_by_the_next_run(
    place: Place, tmp_path: Path, moment: str
) -> None:
    crash = sample(1, dumps={MAIN_DUMP: b"MDMP"}, metadata={})
    bucket = Bucket(place.server)
    put(tmp_path / "a", crash)
    assert "copied 1" in run("copy", "-s", tmp_path / "a", "-d", bucket.uri(), *DAYS).output
    act = lambda: bucket.put({DUMP: NEW})  # noqa: E731
    place.proxy.policy = before_deleting(moment, act)
    assert DUMP in move(place, bucket, tmp_path / "b")
    assert bucket.objects() == {
        RAW: crash.raw,
        LIST: b'["upload_file_minidump"]',
        DUMP: NEW,
    }
    again = run("copy", "-s", bucket.uri(), "-d", tmp_path / "c", *DAYS)
    assert "copied 1" in again.output
    assert NEW in stored_bytes(tmp_path / "c")


def stored_bytes(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("moment", [RAW, DUMP], ids=["raw", "rest"])
@pytest.mark.parametrize(
    "new",
    [
        Sample(CRASH.crash_id, CRASH.raw, {MAIN_DUMP: b"new", "other": b"o"}, None),
        Sample(CRASH.crash_id, CRASH.raw, {MAIN_DUMP: b"new", "other": b"new"}, None),
        sample(1, dumps={MAIN_DUMP: b"new"}, mark="new"),
    ],
    ids=["one dump", "dumps", "all"],
)
def test_no_dump_that_this_program_saves_meanwhile_is_lost(
    place: Place, bucket: Bucket, tmp_path: Path, moment: str, new: Sample
) -> None:
    put(tmp_path / "new", new)

    def act() -> None:
        with open_storage(str(tmp_path / "new")) as source, open_storage(bucket.uri()) as there:
            there.save_crash(source.load_crash(CRASH.crash_id))

    place.proxy.policy = before_deleting(moment, act)
    command = ("copy", "-s", place.uri(bucket.name), "-d", tmp_path / "b", "--verify")
    result = run(*command, "--remove-source", *DAYS)
    assert stored(tmp_path / "b") == manifest(CRASH)
    assert result.exit_code == 1 or (moment == DUMP and new.raw != CRASH.raw)
    left = set(bucket.objects().values())
    assert {dump for name, dump in new.dumps.items() if dump != CRASH.dumps.get(name)} <= left
    if new.raw != CRASH.raw:
        assert new.raw in left


@pytest.mark.parametrize("moment", [RAW, DUMP], ids=["raw", "rest"])
def test_remove_takes_what_it_saw(
    place: Place, bucket: Bucket, moment: str, figures: Figures
) -> None:
    """A raw crash that is put meanwhile, and all that it belongs to, are not taken for it; the next
    attempt sees them."""
    act = lambda: bucket.put({RAW: NEW})  # noqa: E731
    place.proxy.policy = before_deleting(moment, act)
    result = run("remove", "-s", place.uri(bucket.name), CRASH.crash_id)
    assert result.exit_code == 0
    assert bucket.objects() == ({} if moment == RAW else {RAW: NEW})
    figures(removed=1)
