# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A secret in each place that one can come from, and every failure: nothing shows it."""

import json
import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from crashmover import open_queue, open_storage
from crashmover.errors import CrashMoverError
from crashmover.external.postgresql.crashstorage import PostgreSQLCrashStorage
from tests.canary import CANARY, CRASH, IN_URI, QUOTED, Commands, Failing, echoing, is_shown, some
from tests.cli_helpers import TIMEOUT, put, run, samples, start
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import ResetAfter, proxy_of, shorten_pauses
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server
from tests.store_helpers import every_call
from tests.strict_gcs import StrictGCS
from tests.test_cli_processes import children_of
from tests.token_server import USER, token_server

ACCOUNT = f"me:{IN_URI}"
MALFORMED = [
    f"postgresql://{ACCOUNT}@h:port/db",
    f"postgresql://{ACCOUNT}@h:99999/db",
    f"postgresql://{ACCOUNT}@[::1/db",
    f"postgresql://{ACCOUNT}@a:1,b:c/db",
    f"postgresql://{ACCOUNT}@h/db#x",
    f"postgresql://{ACCOUNT}#@h/db",
    f"postgresql://{ACCOUNT}/@h/db",
    f"postgresql://me:a/{IN_URI}@h/db",
    f"postgresql://me:{CANARY}@h/db",
    f"postgresql://{ACCOUNT}?@h/db",
    f"postgresql://{ACCOUNT}%00@h/db",
    f"postgresql://{ACCOUNT}\t@h/db",
    f"postgresql://me:{QUOTED}@h:port/db",
    f"postgresql://{ACCOUNT}@h/db?colour=red",
    f"postgresql://{ACCOUNT}@h/db?schema=A;b",
    f"postgresql://{ACCOUNT}@h/db?timeout=never",
    f"postgresql://{ACCOUNT}@h/db?password={IN_URI}",
    f"postgresql://{ACCOUNT}@h/db?password",
    f"postgresql://h/db?password={IN_URI}&password={IN_URI}",
    f"postgresql://h/db?passwort={IN_URI}",
    f"postgresql://h/db?schema={IN_URI}&user=me",
    f"postgresql://{ACCOUNT}",
    f"postgresql:{ACCOUNT}@h/db",
    f"postgresql:/{ACCOUNT}@h/db",
    f"postgresql//{ACCOUNT}@h/db",
    f"POSTGRESQL_://{ACCOUNT}@h/db",
    f"{ACCOUNT}@h/db",
    f"nosuch://{ACCOUNT}@h/db",
    f"https://{ACCOUNT}@h/db",
    f"fs://{ACCOUNT}@h/db",
    f"fs:///db?password={IN_URI}",
    f"./db?secret={IN_URI}",
    f"memory://{ACCOUNT}@h",
    f"s3://AKIA:{IN_URI}@bucket",
    f"s3://AKIA:{CANARY}@bucket",
    f"s3://AKIA:{IN_URI}/bucket",
    f"s3://bucket?aws_secret_access_key={IN_URI}",
    f"s3://bucket?endpoint_url=http://{ACCOUNT}@h",
    f"s3://bucket?endpoint_url=http://me:{QUOTED}@h&region=x",
    f"gs://me:{IN_URI}@bucket",
    f"gs://{CANARY}@bucket",
    f"gs://me:{IN_URI}/bucket",
    f"gs://bucket?access_token={IN_URI}",
    f"gs://bucket?endpoint_url=http://{ACCOUNT}@h",
    f"gs://bucket?endpoint_url=https://me:{QUOTED}@h&anonymous=true",
    f"gs://bucket?universe_domain=me:{IN_URI}@h",
]
MALFORMED_QUEUES = [
    f"sqlite://{ACCOUNT}@h/queue.db",
    f"sqlite:///queue.db?password={IN_URI}",
    f"pubsub://{ACCOUNT}@project/prefix",
    f"pubsub://project:{IN_URI}/prefix",
    f"pubsub://project/prefix?token={IN_URI}",
    f"postgresql://{ACCOUNT}@h/db",
    f"amqp://{ACCOUNT}@h/db",
]
BLANKS = [
    f"postgresql://me:my {IN_URI[:20]} password@127.0.0.1:1/db",
    f"postgresql://me:1234 {IN_URI[:20]} password@127.0.0.1:1/db",
]
QUICK, QUICK_OF_SERVERS = 40, 5

amounts_of_servers = pytest.mark.parametrize(
    "count",
    [QUICK_OF_SERVERS, pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
amounts = pytest.mark.parametrize(
    "count", [QUICK, pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.chdir(tmp_path)
    # What is tried again is tried at once.
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))
    commands = Commands(tmp_path)
    with open_queue(commands.queue) as queue:
        queue.create()
    return commands


Silent = Callable[[Iterable[Failing]], int]


@pytest.fixture
def silent(commands: Commands, caplog: pytest.LogCaptureFixture) -> Silent:
    """Run these; nothing may show the secret; return how many they were."""

    def run_all(runs: Iterable[Failing]) -> int:
        count = 0
        caplog.set_level(logging.DEBUG)
        for failing in runs:
            shown = failing.shown(commands.report)
            assert not is_shown(shown), (failing, shown)
            assert not is_shown(caplog.text), (failing, caplog.text)
            caplog.clear()
            commands.report.unlink(missing_ok=True)
            count += 1
        return count

    return run_all


@amounts
def test_no_malformed_uri_shows_a_secret(
    commands: Commands, silent: Silent, figures: Figures, count: int | None
) -> None:
    of_stores = [args for uri in MALFORMED for args in commands.of_store(uri)]
    of_queues = [args for uri in MALFORMED_QUEUES for args in commands.of_queue(uri)]
    runs = [each for args in of_stores + of_queues for each in commands.everywhere(args)]
    figures(runs=silent(some(runs, count)))


@amounts
def test_no_uri_shows_a_secret_where_none_belongs(
    commands: Commands, silent: Silent, figures: Figures, count: int | None
) -> None:
    uris = [f"postgresql://{ACCOUNT}@h/db", f"postgresql://h/db?password={IN_URI}", *MALFORMED]
    uris = [uri for uri in uris if not uri.startswith("./")]  # that may be a file
    runs = [Failing(args) for uri in uris for args in commands.out_of_place(uri)]
    figures(runs=silent(some(runs, count)))


def test_a_password_with_blanks_is_shown_in_no_part(
    commands: Commands, silent: Silent, figures: Figures
) -> None:
    """What the environment names is divided at blanks, and what is between them may look like
    a name from the configuration."""
    args = [args for uri in BLANKS for args in commands.of_store(uri)]
    runs = [failing for each in args for failing in commands.everywhere(each)]
    figures(runs=silent(some(runs, None)))


def text_of(error: BaseException, *others: object) -> str:
    """All that a program may show of an exception, and of what it comes from."""
    shown = [str(error), repr(error), *traceback.format_exception(error)]
    return "\n".join([*shown, *map(repr, others), *map(str, others)])


def within(thing: object) -> list[object]:
    """It, and what of ours it is made of."""
    inside = [each for each in getattr(thing, "__dict__", {}).values() if _is_ours(each)]
    return [thing, *inside, *(more for each in inside for more in within(each)[1:])]


def _is_ours(thing: object) -> bool:
    return type(thing).__module__.startswith("crashmover.") and not isinstance(thing, Exception)


@pytest.mark.parametrize("uri", MALFORMED)
def test_no_exception_of_a_malformed_uri_shows_a_secret(uri: str, figures: Figures) -> None:
    for open_it in (open_storage, open_queue):
        with pytest.raises(CrashMoverError) as caught:
            open_it(uri)
        assert not is_shown(text_of(caught.value))
    figures(exceptions=2)


# Databases


@pytest.fixture
def of_database(
    postgresql_server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, dict[str, str]]]:
    """URIs of databases that cannot be used, and the environment with each."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    server, place = postgresql_server, f"{postgresql_server.host}:{postgresql_server.port}"
    passwords, service = tmp_path / "pgpass", tmp_path / "services"
    passwords.write_text(f"*:*:*:*:{CANARY}\n")
    passwords.chmod(0o600)
    service.write_text(
        f"[right]\nhost={server.host}\nport={server.port}\nuser={server.user}\ndbname=postgres\n"
        f"password={CANARY}\n[wrong]\npasswort={CANARY}\n[worse]\n{CANARY}\n"
    )
    account = f"{server.user}:{IN_URI}"
    services = {"PGSERVICEFILE": str(service)}
    return [
        (f"postgresql://{account}@{place}/postgres", {}),
        (f"postgresql://{server.user}:{QUOTED}@{place}/postgres", {}),
        (f"postgresql://{account}@{place}/nowhere", {}),
        (f"postgresql://nobody:{IN_URI}@{place}/postgres", {}),
        (f"postgresql://{account}@{place}/postgres?sslmode=require", {}),
        (f"postgresql://{account}@{place}/postgres?sslmode=nosuch", {}),
        (f"postgresql://{account}@{place}/postgres?sslpassword={IN_URI}&sslmode=require", {}),
        (f"postgresql://{place}/postgres?user={server.user}&password={IN_URI}", {}),
        (f"postgresql://{server.user}@{place}/postgres", {"PGPASSWORD": CANARY}),
        (f"postgresql://{server.user}@{place}/postgres", {"PGPASSFILE": str(passwords)}),
        (f"postgresql://{server.user}@{place}/postgres?passfile={passwords}", {}),
        ("postgresql:///?service=right", services),
        ("postgresql:///?service=wrong", services),
        ("postgresql:///?service=worse", services),
        (f"postgresql://{ACCOUNT}@127.0.0.1:1/db", {}),
        (f"postgresql://{ACCOUNT}@127.0.0.1:1,127.0.0.1:2/db", {}),
        (f"postgresql://{ACCOUNT}@no-such-host.invalid/db", {"PGPASSWORD": CANARY}),
        (f"postgresql://{ACCOUNT}@%2Fnowhere/db", {}),
        (f"postgresql://{ACCOUNT}@127.0.0.1:1/db?keepalives={IN_URI[:5]}&options=-c%20x", {}),
    ]


@amounts_of_servers
def test_no_database_that_cannot_be_used_shows_a_secret(
    of_database: list[tuple[str, dict[str, str]]],
    commands: Commands,
    silent: Silent,
    figures: Figures,
    count: int | None,
) -> None:
    runs = [Failing(args, env) for uri, env in of_database for args in commands.of_store(uri)]
    figures(runs=silent(some(runs, count)))


def test_no_exception_of_a_database_shows_a_secret(
    of_database: list[tuple[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
) -> None:
    assert_exceptions_silent(of_database, monkeypatch, figures)


def assert_exceptions_silent(
    stores: list[tuple[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
    secret: str = CANARY,
) -> None:
    """Whatever the stores raise, and are made of, shows nothing."""
    count = 0
    for uri, env in stores:
        with monkeypatch.context() as patch, open_storage(uri) as storage:
            for name, value in env.items():
                patch.setenv(name, value)
            for call in every_call(storage):
                with pytest.raises(CrashMoverError) as caught:
                    call()
                shown = text_of(caught.value, *within(storage))
                assert not is_shown(shown, secret), (uri, env, shown)
                count += 1
    figures(exceptions=count)


# Buckets


@pytest.fixture
def of_bucket(
    s3_signed: S3Server, aws: UseAWS, tmp_path: Path
) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """URIs of buckets that cannot be used, and the environment with each."""
    server = aws(s3_signed)
    bucket, key = server.new_bucket(), server.access_key
    uri = server.uri(bucket)
    profiles = {
        "wrong": f"[default]\naws_access_key_id={key}\naws_secret_access_key={CANARY}\n",
        "torn": f"[default]\naws_access_key_id={key}\naws_secret_access_key {CANARY}\n",
        "headless": f"aws_secret_access_key={CANARY}\n",
        "partial": f"[default]\naws_secret_access_key={CANARY}\n",
        "twice": f"[default]\na={CANARY}\na={CANARY}\n[default]\n",
    }
    of_profiles = []
    for name, text in profiles.items():
        path = tmp_path / f"{name}.ini"
        path.write_text(text)
        env = {"AWS_SHARED_CREDENTIALS_FILE": str(path)}
        of_profiles.append((server.uri(bucket, profile="default"), env))
    wrong = {"AWS_SECRET_ACCESS_KEY": CANARY}
    endpoint = {"AWS_ENDPOINT_URL": f"http://me:{IN_URI}@127.0.0.1:1"}
    with echoing() as echo, proxy_of(server.endpoint_url) as proxy:
        proxy.fail(ResetAfter())
        echoed = f"s3://{bucket}?endpoint_url={echo}&region=x"
        yield [
            *of_profiles,
            (uri, wrong),
            (uri, {**wrong, "AWS_SESSION_TOKEN": CANARY}),
            (uri, {"AWS_ACCESS_KEY_ID": CANARY}),
            (uri, {**wrong, "AWS_ACCESS_KEY_ID": f"{CANARY}\r"}),
            (uri, {**wrong, "AWS_SESSION_TOKEN": f"{CANARY}\n"}),
            (server.uri("no-such-bucket"), wrong),
            (uri.replace("http:", "https:"), wrong),
            (uri.replace(server.endpoint_url, proxy.endpoint_url), wrong),
            (echoed, {**wrong, "AWS_SESSION_TOKEN": CANARY, "AWS_ACCESS_KEY_ID": CANARY}),
            (f"s3://{bucket}?endpoint_url=http://127.0.0.1:1&region=x", wrong),
            (f"s3://{bucket}?endpoint_url=http://no-such-host.invalid&region=x", wrong),
            (f"s3://{bucket}?region=x", {**wrong, **endpoint}),
            (f"s3://{bucket}", {**wrong, **endpoint}),
            (uri, {**wrong, "HTTP_PROXY": f"http://me:{IN_URI}@127.0.0.1:1", "NO_PROXY": ""}),
            (server.uri(bucket, profile="nosuch"), wrong),
        ]


@pytest.fixture
def of_google_bucket(gcs: StrictGCS, tmp_path: Path) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """The same for Google Cloud Storage."""
    nobody = {"CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true", "NO_PROXY": "127.0.0.1"}
    uri = gcs.uri(gcs.new_bucket(), anonymous="false")
    emulator = {"STORAGE_EMULATOR_HOST": f"http://me:{IN_URI}@127.0.0.1:1"}
    gcs.tokens, gcs.repeats = set(), True
    with token_server() as tokens, echoing() as echo, proxy_of(gcs.endpoint_url) as proxy:
        tokens.refusal = 400, {"error": "invalid_grant", "error_description": "not this"}
        proxy.fail(ResetAfter())
        account = tokens.service_account(tmp_path / "account.json")
        accounts = [account]
        for number, text in enumerate(
            (
                CANARY,
                json.dumps({"token": CANARY}),
                json.dumps({"type": "authorized_user", "refresh_token": CANARY}),
                json.dumps(USER | {"refresh_token": CANARY, "client_secret": CANARY}),
                json.dumps({"type": "external_account", "credential_source": {"file": CANARY}}),
                json.dumps(json.loads(account.read_text()) | {"private_key": CANARY}),
                json.dumps({"type": "impersonated_service_account", "source_credentials": CANARY}),
            )
        ):
            accounts.append(tmp_path / f"account-{number}.json")
            accounts[-1].write_text(text)
        envs = [nobody | {"GOOGLE_APPLICATION_CREDENTIALS": str(path)} for path in accounts]
        yield [
            *((uri, env) for env in envs),
            (uri, nobody),
            (uri.replace(gcs.endpoint_url, echo), envs[0]),
            (uri.replace(gcs.endpoint_url, proxy.endpoint_url), envs[0]),
            ("gs://bucket", nobody | emulator),
            (uri.replace("http:", "https:"), envs[0]),
            (uri, nobody | {"HTTP_PROXY": f"http://me:{IN_URI}@127.0.0.1:1", "NO_PROXY": ""}),
        ]


@pytest.fixture(params=["s3", "gs"])
def of_any_bucket(request: pytest.FixtureRequest) -> list[tuple[str, dict[str, str]]]:
    fixture = {"s3": "of_bucket", "gs": "of_google_bucket"}[request.param]
    found: list[tuple[str, dict[str, str]]] = request.getfixturevalue(fixture)
    return found


@amounts_of_servers
def test_no_bucket_that_cannot_be_used_shows_a_secret(
    of_any_bucket: list[tuple[str, dict[str, str]]],
    commands: Commands,
    silent: Silent,
    figures: Figures,
    count: int | None,
) -> None:
    runs = [Failing(args, env) for uri, env in of_any_bucket for args in commands.of_store(uri)]
    figures(runs=silent(some(runs, count)))


@pytest.mark.slow
def test_no_exception_of_a_bucket_shows_a_secret(
    of_any_bucket: list[tuple[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
) -> None:
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))
    shorten_pauses(monkeypatch)
    assert_exceptions_silent(of_any_bucket, monkeypatch, figures)


# Everything else


@pytest.mark.slow
def test_no_account_of_a_service_shows_its_key(
    commands: Commands,
    silent: Silent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
) -> None:
    for name in ("PUBSUB_EMULATOR_HOST", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://me:{IN_URI}@127.0.0.1:1")  # none is contacted
    account = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": CANARY,
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
        "client_email": "me@project.invalid",
        "token_uri": "http://127.0.0.1:1/token",
    }
    texts = [
        json.dumps(account),
        json.dumps({**account, "private_key": _private_key()}),
        json.dumps({**account, "type": "nosuch"}),
        json.dumps({**account, "private_key": CANARY}),
        json.dumps({"type": "authorized_user", "refresh_token": CANARY}),
        json.dumps(account)[:-5],
        CANARY,
    ]
    runs = []
    for number, text in enumerate(texts):
        path = tmp_path / f"account-{number}.json"
        path.write_text(text)
        env = {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
        runs += [Failing(args, env) for args in commands.of_queue("pubsub://project/prefix")]
    figures(runs=silent(some(runs, None)))


def _private_key() -> str:
    """A key that can be read, and that ends with the secret, as a comment."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return f"{pem.decode()}{CANARY}\n"


def test_an_error_of_ours_shows_no_secret(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has thought of ends in a traceback."""

    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("a mistake")

    uri = f"postgresql://{ACCOUNT}@127.0.0.1:1/db"
    monkeypatch.setattr(PostgreSQLCrashStorage, "load_crash", fail)
    with pytest.raises(RuntimeError) as caught:
        run("get", "-s", uri, CRASH.crash_id)
    assert not is_shown(text_of(caught.value))


@pytest.mark.slow
def test_the_list_of_processes_shows_no_secret(
    own_postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """A copy, its workers, and then their server dies; the password is the right one."""
    server, source = own_postgresql, put(tmp_path / "source", *samples(200))
    monkeypatch.setenv("PGPASSWORD", server.password)
    uri = f"postgresql://{server.user}@{server.host}:{server.port}/postgres"
    where = ("-s", source, "-d", uri, "--workers", "2", "--report", "/dev/stdout", "--no-progress")
    with start("-vv", "copy", *where) as process:
        assert process.stdout
        said = process.stdout.readline()
        pids = [process.pid, *children_of(process)]
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
        server.kill()
        rest, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (1, 4)
    assert len(lines) > 1
    shown = "\n".join([*lines, *(each.decode() for each in (said, rest, errors))])
    assert not is_shown(shown, server.password)
    figures(processes=len(lines))
