# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Archived objects, as in Glacier: every command says so, and takes none for damaged."""

from pathlib import Path

import pytest

from tests.cli_helpers import processed_crash, put, run, sample
from tests.conftest import Figures, UseAWS
from tests.servers.s3 import Bucket, S3Server

pytestmark = pytest.mark.slow
DAYS = ("--since", "2026-11-20", "--until", "2026-11-20")
ARCHIVED = "it is archived (GLACIER): restore it first"
PLACES = ["raw_crash", "dump_names", "dump", "processed_crash"]


@pytest.fixture
def bucket(s3_moto: S3Server, aws: UseAWS) -> Bucket:
    return Bucket(aws(s3_moto))


def archive(bucket: Bucket, place: str, crash_id: str) -> str:
    """Archive one object of a crash; return its key."""
    for key in bucket.objects():
        if key.startswith(f"v1/{place}/") and key.endswith(crash_id):
            found = bucket.get(key)
            bucket.client.put_object(
                Bucket=bucket.name,
                Key=key,
                Body=found["Body"],
                Metadata=found["Metadata"],
                StorageClass="GLACIER",
            )
            return key
    raise AssertionError(f"no {place} of {crash_id}")


@pytest.mark.parametrize("place", PLACES)
def test_one_archived_crash_is_said_and_keeps_no_other(
    bucket: Bucket, tmp_path: Path, place: str, figures: Figures
) -> None:
    """And when it is restored, it is read."""
    crashes = [sample(n, processed=processed_crash()) for n in range(4)]
    put(tmp_path / "a", *crashes)
    uri = bucket.uri()
    assert run("copy", "-s", tmp_path / "a", "-d", uri, *DAYS).exit_code == 0
    crash_id = crashes[1].crash_id
    key = archive(bucket, place, crash_id)
    before = bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"]
    commands = [
        ("copy", "-s", uri, "-d", tmp_path / "b", *DAYS),
        ("copy", "-s", uri, "-d", tmp_path / "c", "--verify", "--remove-source", crash_id),
        ("check", "-s", tmp_path / "a", "-d", uri, "--digest", *DAYS),
        ("get", "-s", uri, crash_id),
        ("get", "-s", uri, crash_id, "--all", "-o", tmp_path / "all"),
        ("get", "-s", uri, crash_id, "--json"),
    ]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 1, result.output
        assert ARCHIVED in result.output
        output = result.output.replace('"damaged": false', "")
        assert "damaged" not in output and "denied" not in output
    assert "copied 3, skipped 0, failed 1" in run(*commands[0], "--existing", "overwrite").output
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == before
    bucket.client.restore_object(Bucket=bucket.name, Key=key, RestoreRequest={"Days": 1})
    assert "copied 1" in run("copy", "-s", uri, "-d", tmp_path / "d", crash_id).output
    figures(commands=len(commands))


@pytest.mark.parametrize("place", ["raw_crash", "dump_names"])
def test_one_archived_crash_at_the_destination_does_not_stop_the_run(
    bucket: Bucket, tmp_path: Path, place: str
) -> None:
    crashes = [sample(n, processed=processed_crash()) for n in range(4)]
    put(tmp_path / "a", *crashes)
    uri = bucket.uri()
    copy = ("copy", "-s", tmp_path / "a", "-d", uri, *DAYS)
    assert run(*copy).exit_code == 0
    archive(bucket, place, crashes[1].crash_id)
    assert "skipped 4" in run(*copy).output
    result = run(*copy, "--existing", "overwrite", "--verify")
    assert "failed 1" in result.output or "failed 0" in result.output
    assert result.exit_code < 2


def test_a_store_of_archived_crashes_is_copied_to_and_skipped(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(tmp_path / "a", *(sample(n, processed=processed_crash()) for n in range(3)))
    uri = bucket.uri(storage_class="GLACIER")
    assert "copied 3" in run("copy", "-s", tmp_path / "a", "-d", uri, *DAYS).output
    assert "skipped 3" in run("copy", "-s", tmp_path / "a", "-d", uri, *DAYS).output
    assert "listed 3" in run("list", "-s", uri, *DAYS).output
    assert {found["StorageClass"] for found in stored_classes(bucket)} == {"GLACIER"}


def stored_classes(bucket: Bucket) -> list[dict[str, str]]:
    found: list[dict[str, str]] = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    return found
