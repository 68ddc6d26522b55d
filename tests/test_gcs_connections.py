# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Google Cloud Storage: connections that fail or hang, threads and signals, and commands that are
killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crashmover.errors import StorageDenied, StorageUnavailable
from crashmover.external import http_session
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, contents, crash_of, read
from tests.cli_helpers import command_line, environment, manifest, put, run, samples, stored
from tests.s3_proxy import Hang, proxy_of, refusing_proxy
from tests.strict_gcs import StrictGCS


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def uri_at(url: str, **options: str) -> str:
    more = "".join(f"&{name}={text}" for name, text in options.items())
    return f"gs://crashes?endpoint_url={url}&anonymous=true{more}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://no-such-host.invalid", "its host is not known"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_line(
    url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    uri = uri_at(url)
    for args in (["list", "-s", uri], ["copy", "-s", put(tmp_path / "a", *samples(2)), "-d", uri]):
        result = run(*args)
        assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
        assert result.stderr.rstrip().endswith(f": {expected}")


def test_a_server_that_no_certificate_proves_is_refused(gcs: StrictGCS) -> None:
    uri = uri_at(gcs.endpoint_url.replace("http:", "https:"))
    with open_storage(uri) as storage, pytest.raises(StorageDenied, match="no trusted TLS"):
        storage.load_crash(CRASH_ID)


def test_a_system_without_certificates_is_said(
    gcs: StrictGCS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a server without TLS needs none."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    denied = pytest.raises(StorageDenied, match="install the package ca-certificates")
    with open_storage(uri_at("https://127.0.0.1:1")) as storage, denied:
        storage.load_crash(CRASH_ID)
    with open_storage(gcs.uri(gcs.new_bucket())) as storage:
        storage.verify_access()


def test_a_proxy_that_refuses_is_named(gcs: StrictGCS, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = gcs.uri(gcs.new_bucket())
    with refusing_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:SECRET@127.0.0.1:{proxy.port}")
        with open_storage(uri) as storage, pytest.raises(StorageDenied) as caught:
            storage.load_crash(CRASH_ID)
    assert f"through the proxy 127.0.0.1:{proxy.port} of HTTP_PROXY" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert gcs.requests == []


def test_a_server_that_hangs_is_given_up(gcs: StrictGCS, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = gcs.new_bucket()
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    with proxy_of(gcs.endpoint_url) as proxy:
        uri = gcs.uri(bucket, endpoint_url=proxy.endpoint_url, read_timeout="0.2")
        with open_storage(uri) as storage:
            storage.save_crash(crash_of(contents()))
            proxy.fail(Hang())
            with pytest.raises(StorageUnavailable, match="no answer in time"):
                storage.load_crash(CRASH_ID)


def test_where_no_thread_can_be_started_it_is_said(
    gcs: StrictGCS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    with open_storage(gcs.uri(gcs.new_bucket())) as storage:
        monkeypatch.setattr(http_session, "possible_threads", lambda _: 1)
        with pytest.raises(StorageUnavailable, match="no further thread can be started"):
            storage.load_crash(CRASH_ID)
        monkeypatch.setattr(http_session, "possible_threads", lambda wanted: wanted)
        storage.verify_access()


IN_THREADS = """
import sys, threading
from crashmover.registry import open_storage

def work():
    with open_storage(sys.argv[1]) as storage:
        for _ in range(10):
            list(storage.new_crashes())

for _ in range(5):
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_open_the_first_store_may_end(gcs: StrictGCS) -> None:
    """pyreqwest 0.15.1 ends the process when the thread has ended that imported it."""
    uri = gcs.uri(gcs.new_bucket())
    done = subprocess.run(
        [sys.executable, "-c", IN_THREADS, uri], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["list", "copy"])
def test_a_command_whose_server_hangs_is_stopped_by_a_signal(
    gcs: StrictGCS, tmp_path: Path, command: str
) -> None:
    """A list asks in the main thread, where a signal must not meet the client."""
    bucket = gcs.new_bucket()
    with proxy_of(gcs.endpoint_url) as proxy:
        proxy.fail(Hang())
        uri = gcs.uri(bucket, endpoint_url=proxy.endpoint_url, read_timeout="2")
        args = ["list", "-s", uri] if command == "list" else ["copy", "-s", uri, "-d", tmp_path]
        with subprocess.Popen(
            command_line(*args), stderr=subprocess.PIPE, env=environment()
        ) as process:
            while not proxy.requests:
                time.sleep(0.02)
            for _ in range(2):  # the second ends it at once
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)
            _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT, stderr
    assert b"panicked" not in stderr and b"Traceback" not in stderr, stderr


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(20))])
def test_a_copy_that_is_killed_tears_no_crash_and_the_next_completes_it(
    gcs: StrictGCS, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    crashes = samples(60)
    source, uri = put(tmp_path / "source", *crashes), gcs.uri(gcs.new_bucket())
    for _ in range(3):
        asked = len(gcs.requests) + rng.randrange(1, 120)
        command = command_line("copy", "-s", source, "-d", uri)
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
            while process.poll() is None and len(gcs.requests) < asked:
                time.sleep(0.001)
            process.kill()
        with open_storage(uri) as storage:
            for crash_id in storage.new_crashes():
                assert read(storage, crash_id)
    result = run("copy", "-s", source, "-d", uri, "--existing", "overwrite")
    assert result.exit_code == 0, result.stderr
    assert run("copy", "-s", uri, "-d", tmp_path / "back").exit_code == 0
    assert stored(tmp_path / "back") == manifest(*crashes)
