# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The servers for the tests: each is what it claims to be, and none is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import psycopg
import pytest

from tests.conftest import UseAWS
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import Rclone, S3Server

ROOT = Path(__file__).parent.parent


def pytest_run(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own on one quick test."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    kept = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=kept | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


QUICK = "tests/test_servers.py::test_a_quick_one"


def test_a_quick_one() -> None:
    """For the runs in here."""


def test_the_signed_server_refuses_a_wrong_secret(s3_signed: S3Server, aws: UseAWS) -> None:
    bucket = aws(s3_signed).new_bucket()
    refused = pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch")
    with s3_signed.client_with("wrong" * 8) as client, refused:
        client.list_objects_v2(Bucket=bucket)


def test_the_strict_server_refuses_wrong_checksums_and_honours_conditions(
    s3_strict: S3Server, aws: UseAWS
) -> None:
    bucket, client = aws(s3_strict).new_bucket(), s3_strict.client()
    with pytest.raises(botocore.exceptions.ClientError, match="BadDigest"):
        client.put_object(
            Bucket=bucket,
            Key="a",
            Body=b"a",
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256="ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        )
    client.put_object(Bucket=bucket, Key="a", Body=b"a", IfNoneMatch="*")
    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a", Body=b"b", IfNoneMatch="*")


def test_the_database_refuses_a_wrong_password(postgresql_server: PostgreSQL) -> None:
    uri = postgresql_server.uri(postgresql_server.new_database())
    with psycopg.connect(uri) as connection:
        assert connection.info.server_version >= 120000
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(uri.replace(postgresql_server.password, "wrong"))


@pytest.mark.parametrize("kind", [Rclone, PostgreSQL])
def test_a_server_goes_away_with_all_that_it_had(kind: type[Rclone | PostgreSQL]) -> None:
    with kind() as server:
        pids, port = server.pids(), server.port
        server.pause()
        server.resume()
        server.kill()
        server.start()
        assert server.port == port
        pids += server.pids()
    assert not server.directory.exists()
    assert not list(_living(pids))


def _living(pids: list[int]) -> Iterator[int]:
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":  # ended, and nobody has asked how
            yield pid


def test_no_server_outlives_tests_that_are_killed(tmp_path: Path) -> None:
    report = tmp_path / "pids"
    script = f"""
import pathlib, time
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import Ministack, Rclone
with PostgreSQL() as a, Rclone() as b, Ministack() as c:
    print(a.directory, b.directory, c.directory, flush=True)
    pids = [str(pid) for server in (a, b, c) for pid in server.pids()]
    pathlib.Path({str(report)!r}).write_text(" ".join(pids))
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=-1) as process:
        while not report.exists() or not report.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        directories, _ = process.communicate()
    pids = [int(pid) for pid in report.read_text().split()]
    deadline = time.monotonic() + 10
    while list(_living(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    subprocess.run(["rm", "-rf", *directories.decode().split()], check=True)
    assert not list(_living(pids))


@pytest.mark.slow  # pytest in pytest
def test_the_run_says_which_servers_there_are() -> None:
    for quiet in ([], ["-q"]):
        done = pytest_run(QUICK, *quiet)
        assert done.returncode == 0, done.stdout
        [servers] = [line for line in done.stdout.splitlines() if line.startswith("servers: ")]
        for name in ("PostgreSQL", "fake-gcs-server", "rclone", "ministack"):
            assert f"{name} " in servers


@pytest.mark.slow  # pytest in pytest
def test_a_missing_server_fails_the_run_unless_it_is_left_out_by_name() -> None:
    hide = {"PATH": "/nowhere"}
    script = (
        "import sys, pytest; from tests.servers import s3, process\n"
        "def missing(): raise process.MissingServer('rclone')\n"
        "s3.rclone = missing\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    for left_out, code in (([], 4), (["--without", "s3-signed"], 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, "-p", "no:cacheprovider", QUICK, *left_out],
            cwd=ROOT,
            env=os.environ | hide,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        if code:
            assert "s3-signed cannot be started, rclone is missing" in done.stderr
            assert "--without s3-signed" in done.stderr


@pytest.mark.slow  # pytest in pytest
def test_tests_of_a_server_that_is_left_out_are_skipped_with_the_reason() -> None:
    test = "tests/test_servers.py::test_the_database_refuses_a_wrong_password"
    done = pytest_run(test, environment={"CRASHMOVER_TEST_WITHOUT": "postgresql,s3-strict"})
    assert done.returncode == 0, done.stdout
    assert "without postgresql" in done.stdout
    assert "opted out of postgresql" in done.stdout


def test_a_server_that_nobody_knows_cannot_be_left_out() -> None:
    done = pytest_run(QUICK, "--without", "oracle")
    assert done.returncode == 4
    assert "no such server: oracle" in done.stderr
