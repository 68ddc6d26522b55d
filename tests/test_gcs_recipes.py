# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The recipes of the README for Google Cloud Storage, run as they are shown."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as google_storage

from tests.cli_helpers import MAIN_DUMP, TIMEOUT, Sample, manifest, put, run, samples, stored
from tests.conftest import UseAWS
from tests.servers.gcs import FakeGCS
from tests.servers.s3 import S3Server
from tests.test_readme import named_blocks

EXAMPLE = Path(__file__).parent.parent / "examples" / "archive_by_day.sh"
FIRST, LAST = "2026-11-19", "2026-11-20"


class SocorroBucket:
    """A bucket that Socorro writes to."""

    def __init__(self, server: FakeGCS) -> None:
        self._name = server.new_bucket()
        self.uri = server.uri(self._name)
        self._client = google_storage.Client(
            project="tests",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": server.endpoint_url},
        )

    def save(self, crash: Sample) -> None:
        """Save a crash, but for what is processed."""
        crash_id = crash.crash_id
        self.put(f"raw_crash/20{crash_id[-6:]}/{crash_id}", crash.raw)
        self.put(f"dump_names/{crash_id}", json.dumps(list(crash.dumps)).encode())
        for name, data in crash.dumps.items():
            self.put(f"{'dump' if name == MAIN_DUMP else name}/{crash_id}", data)

    def save_processed(self, crash: Sample) -> None:
        if crash.processed is not None:
            self.put(f"processed_crash/{crash.crash_id}", crash.processed)

    def put(self, key: str, data: bytes) -> None:
        self._client.bucket(self._name).blob(f"v1/{key}").upload_from_string(data)

    def delete(self, key: str) -> None:
        self._client.bucket(self._name).blob(f"v1/{key}").delete()


def crashmover_by_script(script: str, cwd: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Run a script of bash; return its exit code and what it said."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script, "bash", *arguments],
        cwd=cwd,
        env={"PATH": path, "HOME": str(cwd), "LC_ALL": "C.UTF-8", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    return done.returncode, done.stdout


def test_what_socorro_has_saved_is_archived_by_days(tmp_path: Path, fake_gcs: FakeGCS) -> None:
    bucket, crashes = SocorroBucket(fake_gcs), samples(12)
    archive, script = tmp_path / "archive", EXAMPLE.read_text("utf-8")
    days = [bucket.uri, str(archive), FIRST, LAST]
    for crash in crashes:
        bucket.save(crash)

    code, said = crashmover_by_script(script, tmp_path, *days)
    assert code == 0, said
    assert said.count("copied 6, skipped 0, failed 0") == said.count("checked 6: ok 6") == 2

    for crash in crashes:
        bucket.save_processed(crash)  # which takes Socorro a while
    code, said = crashmover_by_script(script, tmp_path, *days)
    assert code == 0, said
    assert "processed missing 6" in said
    assert stored(archive) == manifest(*crashes)


def test_a_day_that_is_not_whole_is_named_and_the_others_follow(
    tmp_path: Path, fake_gcs: FakeGCS
) -> None:
    bucket, crashes = SocorroBucket(fake_gcs), samples(4)
    for crash in crashes:
        bucket.save(crash)
    lost = next(
        crash for crash in crashes if MAIN_DUMP in crash.dumps and "261119" in crash.crash_id
    )
    bucket.delete(f"dump/{lost.crash_id}")
    days = [bucket.uri, str(tmp_path / "archive"), FIRST, LAST]
    code, said = crashmover_by_script(EXAMPLE.read_text("utf-8"), tmp_path, *days)
    assert code == 1
    assert f"{FIRST} is not whole" in said and f"{LAST} is not whole" not in said
    assert f"{lost.crash_id}: " in said and "copied 2, skipped 0, failed 0" in said


def test_a_store_that_does_not_answer_ends_the_days(tmp_path: Path, fake_gcs: FakeGCS) -> None:
    nowhere = fake_gcs.uri("no-such-bucket")
    days = [nowhere, str(tmp_path / "archive"), FIRST, LAST]
    code, said = crashmover_by_script(EXAMPLE.read_text("utf-8"), tmp_path, *days)
    assert code == 4
    assert said.count("no such bucket") == 1


def test_crashes_go_from_s3_to_google_as_shown(
    tmp_path: Path, fake_gcs: FakeGCS, s3_signed: S3Server, aws: UseAWS
) -> None:
    crashes = samples(8)
    s3 = aws(s3_signed).uri(s3_signed.new_bucket())
    gcs = fake_gcs.uri(fake_gcs.new_bucket())
    assert run("copy", "-s", put(tmp_path / "made", *crashes), "-d", s3).exit_code == 0
    script = named_blocks()["s3-to-gcs.sh"]
    script = script.replace("s3://crashes-old", f"'{s3}'").replace("gs://crashes-new", f"'{gcs}'")
    code, said = crashmover_by_script(script, tmp_path, **s3_signed.credentials)
    assert code == 0, said
    assert re.findall(r"^copied \d+, skipped \d+, failed \d+", said, re.MULTILINE) == [
        "copied 8, skipped 0, failed 0",
        "copied 0, skipped 8, failed 0",
        "copied 0, skipped 4, failed 0",
    ]
    assert "checked 8: ok 8" in said
    assert run("copy", "-s", gcs, "-d", tmp_path / "back").exit_code == 0
    assert stored(tmp_path / "back") == manifest(*crashes)
