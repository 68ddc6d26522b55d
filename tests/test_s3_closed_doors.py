# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage where something around it is missing: a home, credentials, threads, a way out."""

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from crashmover.errors import StorageUnavailable
from crashmover.external.s3 import calling
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, PROCESSED, RAW, contents, crash_of, read
from tests.cli_helpers import put, run, sample
from tests.conftest import UseAWS, missing, wanted
from tests.s3_proxy import Says, proxy_of, refusing_proxy
from tests.servers.s3 import S3Server

SECRET = "CaNaRySeCrEt0123456789"
ROLE = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/crashes", "AWS_REGION": "us-west-2"}


@pytest.fixture
def signed(s3_signed: S3Server, aws: UseAWS) -> S3Server:
    return aws(s3_signed)


@pytest.fixture
def without_credentials(signed: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return signed


def assert_refused(expected: str, *args: str | Path) -> None:
    """One line that says this, exit code 4, and no secret."""
    result = run(*args)
    assert (result.exit_code, result.stdout) == (4, ""), result.output
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr
    assert SECRET not in result.stderr


def assert_no_credentials(server: S3Server, tmp_path: Path, expected: str, **options: str) -> None:
    uri = server.uri(server.new_bucket(), **options)
    store = put(tmp_path / "store", *[sample(n) for n in range(8)])
    expected = f"no credentials: {expected}"
    assert_refused(expected, "list", "-s", uri)
    assert_refused(expected, "copy", "-s", store, "-d", uri)
    doctor = run("doctor", "-d", uri)
    assert doctor.exit_code == 4
    assert expected in doctor.output


# A home


@pytest.fixture
def homeless(signed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user without an entry, as OpenShift has them."""

    def no_entry(_: object) -> NoReturn:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("homeless")
def test_no_home_is_no_profile(signed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(signed.uri(signed.new_bucket()))
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()
    monkeypatch.delenv("NO_PROXY")
    with refusing_proxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        at_amazon = "s3://crashes?region=us-west-2"
        result = run("doctor", "-s", at_amazon)
        assert result.exit_code == 4
        assert "cannot be reached (through the proxy" in result.stdout
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        assert_refused("no credentials: set AWS_ACCESS_KEY_ID", "list", "-s", at_amazon)
        assert_refused("(nobody) could not be found", "list", "-s", f"{at_amazon}&profile=nobody")


# Credentials


def test_a_token_file_that_is_missing_is_named(
    without_credentials: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ROLE.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "token"
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    assert_no_credentials(without_credentials, tmp_path, f"{file}: No such file or directory")
    file.mkdir()
    assert_no_credentials(without_credentials, tmp_path, f"{file}: Is a directory")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (None, "{path}: No such file or directory"),
        ("", "{path}: Permission denied"),
        ("#!/bin/sh\nexit 1\n", "Error when retrieving credentials from custom-process"),
        (f"#!/bin/sh\necho '{{{SECRET}'\n", "what was found cannot be used (JSONDecodeError)"),
        (f"#!/bin/sh\necho '[\"{SECRET}\"]'\n", "what was found cannot be used"),
        ("#!/bin/sh\necho '{\"Version\": 1}'\n", "Error when retrieving credentials from custom"),
    ],
    ids=["missing", "not a program", "fails", "no JSON", "a list", "no key"],
)
def test_a_program_for_credentials_that_does_not_work_is_said(
    without_credentials: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str | None,
    expected: str,
) -> None:
    path = tmp_path / "credentials"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755 if program else 0o644)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {path} --key {SECRET}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert_no_credentials(without_credentials, tmp_path, expected.format(path=path))


SSO = """[default]
sso_session = s
sso_account_id = 123456789012
sso_role_name = r
region = us-east-1
[sso-session s]
sso_region = us-east-1
sso_start_url = https://example.com/start
"""


@pytest.mark.parametrize(
    "cached",
    [None, f"no JSON {SECRET}", f'["{SECRET}"]', f'{{"accessToken": "{SECRET}"}}'],
    ids=["none", "no JSON", "a list", "no date"],
)
def test_a_login_that_cannot_be_read_is_said(
    without_credentials: S3Server, tmp_path: Path, cached: str | None
) -> None:
    """In a process of its own: botocore fixes the place of logins when it is imported."""
    cache = tmp_path / ".aws/sso/cache"
    cache.mkdir(parents=True)
    if cached:
        (cache / f"{hashlib.sha1(b's', usedforsecurity=False).hexdigest()}.json").write_text(cached)
    (tmp_path / "config").write_text(SSO)
    uri = without_credentials.uri(without_credentials.new_bucket())
    done = subprocess.run(
        [sys.executable, "-m", "crashmover", "list", "-s", uri],
        env={**os.environ, "HOME": str(tmp_path), "AWS_CONFIG_FILE": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert ": no credentials: " in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x", "Could not connect"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x", "cannot be used"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "abc", "cannot be used (ValueError)"),
        ("AWS_ACCESS_KEY_ID", "AKIAALONE", "missing: AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_variables_that_lead_to_no_credentials_are_one_line(
    without_credentials: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)
    uri = without_credentials.uri(without_credentials.new_bucket())
    assert_refused(expected, "list", "-s", uri)


def test_many_workers_that_get_no_credentials_say_the_same(
    without_credentials: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread is told why, and not only the first one that asks."""
    from concurrent.futures import ThreadPoolExecutor

    for name, value in ROLE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    storage = open_storage(without_credentials.uri(without_credentials.new_bucket()))

    def why(_: int) -> str:
        try:
            storage.has_crash(CRASH_ID)
        except Exception as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(16) as pool:
        said = set(pool.map(why, range(64)))
    assert len(said) == 1
    assert f"no credentials: {tmp_path / 'token'}: No such file" in said.pop()


# Proxies


@pytest.fixture
def proxied(signed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """Use a proxy at this port, with a password; return how it is named."""

    def use(port: int) -> str:
        monkeypatch.setenv("NO_PROXY", "example.com,10.0.0.0/8")
        monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:{port}")
        return f"(through the proxy 127.0.0.1:{port} of http_proxy)"

    return use


@pytest.fixture
def in_bucket(signed: S3Server) -> str:
    return signed.uri(signed.new_bucket(), connect_timeout="1")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("403 Forbidden", "access denied"),
        ("407 Proxy Authentication Required", "access denied"),
        ("502 Bad Gateway", "the server says 502"),
        ("200 OK", "the answer is not that of an S3 server"),
    ],
)
def test_a_proxy_that_refuses_is_named(
    in_bucket: str, proxied: Callable[[int], str], status: str, expected: str
) -> None:
    with refusing_proxy(status) as proxy:
        named = proxied(proxy.port)
        result = run("doctor", "-s", in_bucket)
        assert proxy.asked
    assert result.exit_code == 4
    assert f"{expected} {named}" in result.stdout
    assert SECRET not in result.output


def test_a_proxy_that_is_dead_is_named(in_bucket: str, proxied: Callable[[int], str]) -> None:
    result = run("doctor", "-s", in_bucket, env={"NO_PROXY": os.environ["NO_PROXY"]})
    assert result.exit_code == 0
    named = proxied(9)
    result = run("doctor", "-s", in_bucket)
    assert result.exit_code == 4
    assert f"connection refused {named}" in result.stdout
    assert SECRET not in result.output


def test_a_proxy_that_works_is_not_blamed_for_what_the_server_says(
    signed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy_of(signed.endpoint_url) as proxy:  # it takes whole URLs, too
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint_url)
        result = run("list", "-s", signed.uri("no-such-bucket"))
    assert (result.exit_code, proxy.requests != []) == (4, True)
    assert "no such bucket" in result.stderr
    assert "proxy" not in result.stderr


def test_where_no_proxy_applies_none_is_named(
    signed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    bucket = signed.new_bucket()
    assert run("list", "-s", signed.uri(bucket)).exit_code == 0
    result = run("doctor", "-s", f"s3://{bucket}?endpoint_url=http://127.0.0.1:9")
    assert "connection refused" in result.stdout
    assert "proxy" not in result.output


# Certificates


def test_a_system_without_certificates_is_said(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that has no package ca-certificates."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert_refused("install the package ca-certificates", "list", "-s", signed.uri("crashes"))


# Threads


def test_too_few_threads_are_said(
    in_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calling, "_is_started", False)
    monkeypatch.setattr(calling, "possible_threads", lambda _: 1)
    storage = open_storage(in_bucket)
    with pytest.raises(StorageUnavailable, match="too few threads can be started: allow more"):
        storage.verify_access()
    monkeypatch.setattr(calling, "possible_threads", lambda wanted: wanted)
    storage.verify_access()


@pytest.fixture
def limited(request: pytest.FixtureRequest) -> Iterator[Callable[[int], list[str]]]:
    """What to put before a command that may have only so many threads."""
    wanted(request, "setpriv")
    tools = [shutil.which("setpriv"), shutil.which("prlimit")]
    if os.getuid() or not all(tools):
        missing("setpriv", "it is not installed" if os.getuid() == 0 else "not run by root")
    # Another user's limit counts; Python may lie where only root can read it.
    user = ["--reuid=1000653", "--regid=1000653", "--clear-groups"]
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    yield lambda count: ["setpriv", *user, *rights, "prlimit", f"--nproc={count}"]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_under_any_limit_of_processes_a_list_works_or_says_so(
    signed: S3Server, limited: Callable[[int], list[str]], host: str
) -> None:
    bucket = signed.new_bucket()
    with open_storage(signed.uri(bucket)) as storage:
        storage.save_crash(crash_of({RAW: b"{}", PROCESSED: b"{}"}))
    uri = signed.uri(bucket).replace(signed.host, host)
    days = ["--since", "2007-10-25", "--until", "2007-10-25"]
    worked = []
    for count in range(1, 11):
        done = subprocess.run(
            [*limited(count), sys.executable, "-m", "crashmover", "list", "-s", uri, *days],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            assert (done.returncode, done.stderr.count("\n")) == (4, 1), done
            assert done.stdout in ("", f"{CRASH_ID}\n")  # the listing may have come so far
            assert "too few threads can be started" in done.stderr
        else:
            assert done.stdout == f"{CRASH_ID}\n"
            worked.append(count)
    assert worked and worked[-1] == 10


# The archive


def test_an_archived_object_is_neither_damaged_nor_denied(signed: S3Server, tmp_path: Path) -> None:
    """What Amazon answers: docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html."""
    bucket = signed.new_bucket()
    crashes = [sample(n) for n in range(3)]
    days = ("--since", "2026-11-20", "--until", "2026-11-20")
    with proxy_of(signed.endpoint_url) as proxy:
        uri = f"s3://{bucket}?endpoint_url={proxy.endpoint_url}"
        put(tmp_path / "a", *crashes)
        assert run("copy", "-s", tmp_path / "a", "-d", uri, *days).exit_code == 0
        archived = crashes[1].crash_id
        detail = "<Message>not valid</Message><StorageClass>GLACIER</StorageClass>"
        proxy.fail(
            Says(403, "InvalidObjectState", detail),
            lambda request: f"GET /{bucket}/v1/dump/{archived}" in request,
        )
        result = run("copy", "-s", uri, "-d", tmp_path / "b", *days)
        assert result.exit_code == 1
        assert "copied 2, skipped 0, failed 1" in result.output
        assert "it is archived (GLACIER): restore it first" in result.output
        shown = run("get", "-s", uri, archived)
        assert shown.exit_code == 1
        assert "it is archived (GLACIER): restore it first" in shown.output
        assert "unreadable" in shown.output
        assert "damaged" not in shown.output
        assert "denied" not in result.output + shown.output
        proxy.fail(Says(403, "InvalidObjectState", detail), f"/raw_crash/20261120/{archived}")
        raw = run("get", "-s", uri, archived)
        assert "archived" in raw.output
