# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Google Cloud Storage: whose credentials count, how long, and what is said of others."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crashmover.errors import InvalidURI, StorageDenied, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, MAIN, contents, crash_of, read
from tests.cli_helpers import manifest, put, run, run_process, sample, samples, stored
from tests.s3_proxy import Request, proxy_of
from tests.strict_gcs import StrictGCS
from tests.token_server import WORKFORCE, WORKLOAD, TokenServer, token_server

VARIABLES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
    "STORAGE_EMULATOR_HOST",
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests, and no look for a metadata server."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "no-gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with token_server() as server:
        yield server


@pytest.fixture
def account(tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tokens.service_account(tmp_path / "account.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


def asking(gcs: StrictGCS, tokens: TokenServer, **options: str) -> str:
    """Return the URI of a new bucket on the server, which asks for tokens from now on."""
    gcs.tokens = set()

    def only(token: str) -> None:
        gcs.tokens = {token}

    tokens.on_token = only
    return gcs.uri(gcs.new_bucket(), anonymous="false", **options)


def test_a_service_account_is_asked_for_one_token(
    gcs: StrictGCS, tokens: TokenServer, account: Path
) -> None:
    uri = asking(gcs, tokens)
    with open_storage(uri) as storage:

        def save(number: int) -> None:
            crash_id = f"{number:08x}{CRASH_ID[8:]}"
            storage.save_crash(crash_of(contents(), crash_id))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(save, range(32)))
        assert len(list(storage.new_crashes())) == 32
    assert len(tokens.given) == 1
    assert account.exists()


def test_a_token_that_the_server_accepts_no_longer_is_renewed_once(
    gcs: StrictGCS, tokens: TokenServer, account: Path
) -> None:
    uri = asking(gcs, tokens)
    barrier = threading.Barrier(16)
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents()))
        for _ in range(3):
            gcs.tokens = set()  # it has expired, whatever was said

            def load(_: int) -> object:
                barrier.wait(10)
                return read(storage)

            with ThreadPoolExecutor(16) as pool:
                assert list(pool.map(load, range(16))) == [contents()] * 16
    assert len(tokens.given) == 4
    assert account.exists()


def test_a_token_that_is_about_to_expire_is_renewed_before(
    gcs: StrictGCS, tokens: TokenServer, account: Path
) -> None:
    uri = asking(gcs, tokens)
    tokens.lasts = 60  # google-auth renews it in its last minutes
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
    assert len(tokens.given) > 1
    assert "401" not in gcs.requests
    assert account.exists()


def test_what_the_server_refuses_twice_is_refused(
    gcs: StrictGCS, tokens: TokenServer, account: Path, tmp_path: Path
) -> None:
    gcs.tokens = {"of another account"}
    uri = gcs.uri(gcs.new_bucket(), anonymous="false")
    with open_storage(uri) as storage, pytest.raises(StorageDenied, match="are not accepted"):
        storage.load_crash(CRASH_ID)
    assert len(tokens.given) == 2
    assert gcs.count() == 2
    result = run("copy", "-s", put(tmp_path / "store", sample()), "-d", uri)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
    assert "token" not in result.stderr
    assert account.exists()


@pytest.mark.parametrize(
    ("status", "said", "kind", "expected"),
    [
        (400, {"error": "invalid_grant", "error_description": "Invalid JWT"}, StorageDenied, "JWT"),
        (401, {"error": "invalid_client"}, StorageDenied, "invalid_client"),
        (503, {"error": "unavailable"}, StorageUnavailable, "the server of tokens"),
    ],
)
def test_a_server_of_tokens_that_refuses_is_one_line(
    gcs: StrictGCS,
    tokens: TokenServer,
    account: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    said: dict[str, str],
    kind: type[Exception],
    expected: str,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    tokens.refusal = status, said
    uri = asking(gcs, tokens)
    with open_storage(uri) as storage, pytest.raises(kind, match=expected) as caught:
        storage.load_crash(CRASH_ID)
    assert "\n" not in str(caught.value)
    assert gcs.requests == []
    assert account.exists()


def test_no_credentials_are_one_line_with_a_way_out(gcs: StrictGCS, tmp_path: Path) -> None:
    uri = gcs.uri(gcs.new_bucket(), anonymous="false")
    result = run("copy", "-s", put(tmp_path / "store", sample()), "-d", uri)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
    assert "no credentials: Your default credentials were not found" in result.stderr
    assert gcs.requests == []


@pytest.mark.parametrize("text", ["SECRET", '{"type": "nosuch", "refresh_token": "SECRET"}'])
def test_a_file_that_is_no_account_is_not_quoted(
    gcs: StrictGCS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "account.json"
    path.write_text(text)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    result = run("list", "-s", gcs.uri(gcs.new_bucket(), anonymous="false"))
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
    assert "account.json" in result.stderr
    assert "SECRET" not in result.stderr


MakeAccount = Callable[[TokenServer, Path], Path]


def user(tokens: TokenServer, directory: Path) -> Path:
    return tokens.authorized_user(directory / "user.json")


def by_file(audience: str) -> MakeAccount:
    def make(tokens: TokenServer, directory: Path) -> Path:
        (directory / "subject").write_text("a token of another provider")
        source = {"file": str(directory / "subject")}
        return tokens.identity_federation(directory / "account.json", audience, source)

    return make


def workload_by_url(tokens: TokenServer, directory: Path) -> Path:
    source = {"url": f"http://{tokens.address}/subject"}
    return tokens.identity_federation(directory / "account.json", WORKLOAD, source)


def user_acts_as_another(tokens: TokenServer, directory: Path) -> Path:
    return tokens.impersonation(directory / "account.json", user(tokens, directory))


def account_acts_as_another(tokens: TokenServer, directory: Path) -> Path:
    account = tokens.service_account(directory / "source.json")
    return tokens.impersonation(directory / "account.json", account)


ACTING = "/you@project:generateAccessToken"
ACCOUNTS: dict[str, tuple[MakeAccount, list[str]]] = {
    "service account": (lambda tokens, to: tokens.service_account(to / "a.json"), ["/token"]),
    "user": (user, ["/token"]),
    "workforce by file": (by_file(WORKFORCE), ["/sts"]),
    "workload by file": (by_file(WORKLOAD), ["/sts"]),
    "workload by URL": (workload_by_url, ["/subject", "/sts"]),
    "user that acts as another": (user_acts_as_another, ["/token", ACTING]),
    "account that acts as another": (account_acts_as_another, ["/token", ACTING]),
}
"""How the file of an account is made, and what is asked for a token."""


@pytest.mark.parametrize(("make", "paths"), ACCOUNTS.values(), ids=ACCOUNTS)
def test_accounts_of_every_kind_get_tokens_and_renew_them(
    gcs: StrictGCS,
    tokens: TokenServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: MakeAccount,
    paths: list[str],
) -> None:
    tokens.use_for_google(monkeypatch)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(make(tokens, tmp_path)))
    with open_storage(asking(gcs, tokens)) as storage:
        storage.save_crash(crash_of(contents()))
        assert [path for path in tokens.paths if path in paths][: len(paths)] == paths
        gcs.tokens, tokens.paths = set(), []
        assert read(storage) == contents()
    assert tokens.paths[-1] == paths[-1]
    assert all("authorization" in head for head in gcs.headers)


def test_an_account_that_may_not_act_as_another_is_one_line(
    gcs: StrictGCS, tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.use_for_google(monkeypatch)
    account = user_acts_as_another(tokens, tmp_path)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    uri = asking(gcs, tokens)
    denied = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource"

    def refuse(_: str) -> None:
        tokens.refusal = 403, {"error": {"code": 403, "message": denied}}

    tokens.on_token = refuse  # once the user has a token
    result = run("copy", "-s", put(tmp_path / "store", sample()), "-d", uri)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
    assert denied in result.stderr
    assert not any(secret in result.stderr for secret in ("a refresh token", "a client secret"))


# Tokens that expire


def is_piece(request: Request) -> bool:
    return request.method == "PUT"


def test_a_token_may_expire_before_each_piece_of_a_large_dump(
    gcs: StrictGCS, tokens: TokenServer, account: Path
) -> None:
    parts = contents() | {MAIN: bytes(3 * PART_SIZE + 1)}
    uri = asking(gcs, tokens)
    with proxy_of(gcs.endpoint_url) as proxy:

        def expire(request: Request, _head: dict[str, str], _body: bytes) -> None:
            if is_piece(request) and proxy.count("PUT") % 2:
                gcs.tokens = set()

        proxy.policy = expire
        with open_storage(uri.replace(gcs.endpoint_url, proxy.endpoint_url)) as storage:
            storage.save_crash(crash_of(parts))
            assert read(storage) == parts
        assert sum(map(is_piece, proxy.requests)) == 2 * 4
    assert len(tokens.given) == 1 + 4
    assert account.exists()


def test_tokens_may_expire_in_the_middle_of_copies(
    gcs: StrictGCS, tokens: TokenServer, account: Path, tmp_path: Path
) -> None:
    crashes, back = samples(60), tmp_path / "back"
    uri = asking(gcs, tokens)
    with proxy_of(gcs.endpoint_url) as proxy:

        def expire(_request: Request, _head: dict[str, str], _body: bytes) -> None:
            if len(proxy.requests) in (30, 150):
                gcs.tokens = set()

        proxy.policy = expire
        there = uri.replace(gcs.endpoint_url, proxy.endpoint_url)
        ways = ((put(tmp_path / "store", *crashes), there), (there, back))
        for source, destination in ways:
            proxy.requests.clear()
            result = run("copy", "-s", source, "-d", destination, "--verify")
            assert (result.exit_code, result.stderr.count("failed 0")) == (0, 1), result.stderr
    assert stored(back) == manifest(*crashes)
    assert len(tokens.given) == 2 * (1 + 2)  # each command has its own
    assert account.exists()


def test_the_metadata_server_of_a_machine_is_asked(
    gcs: StrictGCS, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NO_GCE_CHECK")
    names = ("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT")
    uri = asking(gcs, tokens)
    done = run_process(
        *("copy", "-s", put(tmp_path / "store", sample()), "-d", uri),
        prefix=["env", *(f"{name}={tokens.address}" for name in names)],
    )
    assert done.returncode == 0, done.stderr
    assert len(tokens.given) == 1


def test_the_quota_of_a_project_is_used(gcs: StrictGCS, tokens: TokenServer, account: Path) -> None:
    uri = asking(gcs, tokens, project="theirs", billing_project="mine")
    with open_storage(uri) as storage:
        storage.save_crash(crash_of(contents()))
    assert {head["x-goog-user-project"] for head in gcs.headers} == {"theirs"}
    assert all("userProject=mine" in request for request in gcs.requests)
    assert account.exists()


def test_credentials_of_another_universe_are_not_sent(
    gcs: StrictGCS, tokens: TokenServer, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = asking(gcs, tokens, universe_domain="example.com")
    with open_storage(uri) as storage, pytest.raises(StorageDenied, match="of googleapis"):
        storage.load_crash(CRASH_ID)
    tokens.service_account(account, universe_domain="example.org")
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.org")
    with open_storage(asking(gcs, tokens)) as storage:
        gcs.tokens = None  # the account signs its tokens itself there
        storage.save_crash(crash_of(contents()))
    assert "authorization" in gcs.headers[-1]


# Permissions

# README names storage.objects.list for all of them: Google does not say that an object is missing
# (404, but 403) to those that must not list.  The strict server does.
LIST = "storage.objects.list"
READ = {"storage.objects.get", LIST}
SAVE = READ | {"storage.objects.create"}
REMOVE = READ | {"storage.objects.delete"}
REPLACE = SAVE | REMOVE
COMMANDS: dict[str, tuple[set[str], list[str]]] = {
    "doctor of a source": (READ, ["doctor", "-s", "there"]),
    "list": (READ, ["list", "-s", "there", "--bytes"]),
    "get": (READ - {LIST}, ["get", "-s", "there", "ID"]),
    "check": (READ - {LIST}, ["check", "-s", "here", "-d", "there"]),
    "copy from it": (READ, ["copy", "-s", "there", "-d", "new"]),
    "doctor of a destination": (SAVE, ["doctor", "-d", "there"]),
    "copy to it": (SAVE - {LIST}, ["copy", "-s", "more", "-d", "there"]),
    "copy that replaces": (
        REPLACE - {LIST},
        ["copy", "-s", "more", "-d", "there", "--existing", "overwrite"],
    ),
    "move to a directory": (REMOVE, ["copy", "-s", "there", "-d", "new", "--remove-source"]),
    "remove": (REMOVE - {LIST}, ["remove", "-s", "there", "ID"]),
}


@pytest.mark.parametrize(("needed", "args"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_needs_the_permissions_that_the_readme_names_and_no_other(
    gcs: StrictGCS, tmp_path: Path, needed: set[str], args: list[str]
) -> None:
    crashes = samples(3)
    here, more = put(tmp_path / "here", crashes[0]), put(tmp_path / "more", *crashes)
    for without in (None, *sorted(needed)):
        uri = gcs.uri(gcs.new_bucket())
        gcs.denied = set()
        assert run("copy", "-s", here, "-d", uri).exit_code == 0
        new = tmp_path / f"new-{without}"
        names: dict[str, str | Path] = {"here": here, "more": more, "there": uri, "new": new}
        names["ID"] = crashes[0].crash_id
        gcs.denied = REPLACE | {"storage.buckets.get"}
        gcs.denied -= needed - {without}
        result = run(*(names.get(arg, arg) for arg in args))
        if without is None:
            assert result.exit_code == 0, result.stderr
        else:
            assert result.exit_code in (1, 4), without
            assert f"it needs {without}" in result.output


# Servers that are told no credentials


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_an_emulator_is_told_no_credentials(
    gcs: StrictGCS,
    account: Path,
    tokens: TokenServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scheme: str,
) -> None:
    host = gcs.endpoint_url.removeprefix("http://")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", scheme + host)
    with caplog.at_level(logging.WARNING), open_storage(f"gs://{gcs.new_bucket()}") as storage:
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
    assert [record.message for record in caplog.records] == [
        f"STORAGE_EMULATOR_HOST is set: using the emulator at {scheme}{host}"
    ]
    assert not any("authorization" in head for head in gcs.headers)
    assert tokens.paths == []
    assert account.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGE_EMULATOR_HOST", "http://me:SECRET@host/"),
        ("STORAGE_EMULATOR_HOST", "http://[::1"),
        ("STORAGE_EMULATOR_HOST", "host:99999"),
        ("STORAGE_EMULATOR_HOST", "ftp://host"),
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.com:SECRET"),
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "a b"),
    ],
)
def test_a_variable_that_names_no_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidURI, match=f"{name}: it is a URL") as caught:
        open_storage("gs://crashes")
    assert "SECRET" not in str(caught.value)


def test_what_the_uri_says_counts_more_than_the_environment(
    gcs: StrictGCS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with open_storage(gcs.uri(gcs.new_bucket())) as storage:
        assert not storage.has_crash(CRASH_ID)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("gs://crashes?endpoint_url=http://gcs.example.com", "unencrypted: write https://"),
        ("gs://crashes?endpoint_url=http://me:pw%40host", "without a user"),
        ("gs://crashes?universe_domain=a/b", "it is a domain"),
        ("gs://crashes?anonymous=perhaps", "it is true or false"),
        ("gs://crashes?nosuch=1", "unknown option 'nosuch'"),
        ("gs://Crashes", "the bucket is missing or is not one"),
        ("gs:", "the bucket is missing or is not one"),
        ("gs://me@crashes", "a gs URI has no user"),
        ("gs://crashes/a//b", "the prefix has an empty step"),
    ],
)
def test_what_cannot_be_meant_is_refused(uri: str, expected: str) -> None:
    result = run("list", "-s", uri)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert expected in result.stderr


@pytest.mark.parametrize("repeats", [False, True])
def test_no_account_shows_its_token(
    gcs: StrictGCS,
    tokens: TokenServer,
    account: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    repeats: bool,
) -> None:
    """A server may repeat what it is sent, and clients may log it."""
    uri = asking(gcs, tokens)
    gcs.denied, gcs.repeats = {"storage.objects.create"}, repeats
    source = put(tmp_path / "store", sample())
    with caplog.at_level(logging.DEBUG):
        result = run("-v", "copy", "-s", source, "-d", uri)
    assert result.exit_code == 4
    said = "not with Bearer ***" if repeats else "it needs storage.objects.create"
    assert said in result.stderr
    assert tokens.given
    secrets = [*tokens.given, json.loads(account.read_text())["private_key"][40:80]]
    for secret in secrets:
        assert secret not in result.output + result.stderr + caplog.text
