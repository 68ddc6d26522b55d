# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a removal leaves in a bucket of S3 that keeps versions, and on a server that honours no
conditions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_helpers import put, run, sample
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import Place, Says, behind_proxy
from tests.servers.s3 import Bucket, S3Server
from tests.test_bucket_lost_dumps import CRASH, DAYS, LIST, PROCESSED


@pytest.fixture(params=["s3_strict", pytest.param("s3_moto", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, aws: UseAWS) -> Iterator[Place]:
    with behind_proxy(aws(request.getfixturevalue(request.param))) as place:
        yield place


@pytest.fixture
def bucket(place: Place, tmp_path: Path) -> Bucket:
    put(tmp_path / "a", CRASH)
    bucket = Bucket(place.server)
    assert "copied 1" in run("copy", "-s", tmp_path / "a", "-d", bucket.uri(), *DAYS).output
    return bucket


def markers(bucket: Bucket) -> list[str]:
    found = bucket.client.list_object_versions(Bucket=bucket.name)
    return sorted(each["Key"] for each in found.get("DeleteMarkers", []))


@pytest.mark.parametrize("by", ["remove", "move", "overwrite"])
def test_only_what_is_there_is_deleted(
    place: Place, bucket: Bucket, tmp_path: Path, by: str, figures: Figures
) -> None:
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    uri = place.uri(bucket.name)
    keys = sorted(bucket.objects())
    command: tuple[object, ...]
    if by == "remove":
        result = run("remove", "-s", uri, "--yes", *DAYS)
    elif by == "move":
        command = ("copy", "-s", uri, "-d", tmp_path / "b", "--verify", "--remove-source")
        result = run(*command, *DAYS)
    else:
        put(tmp_path / "new", sample(1, dumps={}, mark="new"))
        command = ("copy", "-s", tmp_path / "new", "-d", uri, "--existing", "overwrite")
        result = run(*command, *DAYS)
        keys = [key for key in keys if key not in (LIST, PROCESSED)]
    assert result.exit_code == 0, result.output
    assert markers(bucket) == keys
    assert ("keeps versions" in result.output) == (by != "overwrite")
    figures(markers=len(keys))


def test_doctor_says_that_versions_stay(place: Place, bucket: Bucket) -> None:
    uri = place.uri(bucket.name)
    assert "versions" not in run("doctor", "-s", uri).output
    versioning = {"Status": "Enabled"}
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=versioning)
    for option in ("-s", "-d"):
        result = run("doctor", option, uri)
        assert result.exit_code == 0
        assert "keeps versions" in result.output
    assert "keeps versions" not in run("remove", "-s", uri, "--dry-run", CRASH.crash_id).output


def test_who_may_not_ask_for_versions_is_told_nothing(place: Place, bucket: Bucket) -> None:
    place.proxy.fail(Says(403, "AccessDenied"), "?versioning")
    uri = place.uri(bucket.name)
    for command in (("doctor", "-s", uri), ("remove", "-s", uri, CRASH.crash_id)):
        result = run(*command)
        assert result.exit_code == 0
        assert "versions" not in result.output


def test_without_conditions_it_is_as_the_readme_says(
    s3_signed: S3Server, aws: UseAWS, tmp_path: Path
) -> None:
    """Seen before the delete it is changed; put in the moment before, it is gone."""
    with behind_proxy(aws(s3_signed)) as place:
        bucket = Bucket(place.server)
        put(tmp_path / "a", CRASH)
        assert "copied 1" in run("copy", "-s", tmp_path / "a", "-d", bucket.uri(), *DAYS).output
        command = ("copy", "-s", place.uri(bucket.name), "-d", tmp_path / "b", "--verify")
        result = run(*command, "--remove-source", *DAYS)
        assert result.exit_code == 0, result.output
        assert bucket.objects() == {}
