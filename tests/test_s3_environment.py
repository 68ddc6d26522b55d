# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3CrashStorage: which variables of the environment count, and that no other one does."""

import ctypes
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import obstore
import pytest

from crashmover.errors import StorageDenied
from crashmover.external.s3.account import VARIABLES, Account
from crashmover.external.s3.options import S3Options
from crashmover.hiding import hidden
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, contents, crash_of, read
from tests.cli_helpers import manifest, put, run, sample, stored
from tests.conftest import Figures, UseAWS, mostly_slow
from tests.s3_proxy import Proxy, proxy_of, refusing_proxy
from tests.servers.s3 import Rclone, S3Server

SIGNED = re.compile(r"Credential=[^/]+/\d+/([^,]+), SignedHeaders=([^,]+)")
OF_ONE_REQUEST = {"authorization", "x-amz-date", "x-amz-content-sha256", "host", "date"}


@pytest.fixture
def signed(s3_signed: S3Server, aws: UseAWS) -> S3Server:
    return aws(s3_signed)


@pytest.fixture(scope="module")
def decoy(s3_signed: S3Server) -> Iterator[S3Server]:
    """A server that takes the same credentials, and that nothing may arrive at."""
    server = Rclone()
    server.access_key, server.secret_key = s3_signed.access_key, s3_signed.secret_key
    with server:
        yield server


def is_empty(server: S3Server) -> bool:
    client = server.client()
    names = [bucket["Name"] for bucket in client.list_buckets().get("Buckets", [])]
    return not any(client.list_objects_v2(Bucket=name).get("Contents") for name in names)


def configuration_keys() -> set[str]:
    """Return each key and each variable that the installed client's type stubs name."""
    stubs = Path(obstore.__file__).with_name("_store")
    found: set[str] = set()
    for file, name in (("_aws.pyi", "S3Config"), ("_client.pyi", "ClientConfig")):
        text = (stubs / file).read_text().partition(f"class {name}(")[2].partition("\nclass ")[0]
        found |= set(re.findall(r"^    ([a-z0-9_]+):", text, re.MULTILINE))
        found |= {variable.lower() for variable in re.findall(r"\bAWS_[A-Z0-9_]+", text)}
    return {key.removeprefix("aws_") for key in found}


def spellings(key: str) -> set[str]:
    """Return the variables that a key may be set by; the client looks at ``AWS_`` and then
    takes large and small letters for the same."""
    return {f"AWS_{key.upper()}", f"AWS_{key}", f"AWS_{key.title()}", key, key.upper()}


def test_the_client_names_its_keys() -> None:
    keys = configuration_keys()
    assert len(keys) > 50
    assert {"endpoint", "endpoint_url_s3", "s3_express", "timeout", "proxy_url"} <= keys


def trace(proxy: Proxy) -> list[object]:
    """Return what was asked through a proxy, as far as it is the same each time."""
    asked: list[object] = []
    for request, head in zip(proxy.requests, proxy.heads, strict=True):
        names = {name for name in head if not name.startswith("x-amz-meta-")} - OF_ONE_REQUEST
        scope = SIGNED.search(head.get("authorization", ""))
        signed = scope and scope.groups()
        asked.append((request, sorted((name, head[name]) for name in names), signed))
    return sorted(asked, key=repr)


@pytest.mark.parametrize("value", mostly_slow(["decoy", "nonsense", "true", ""], ["decoy", ""]))
def test_no_variable_that_the_client_knows_reaches_it(
    signed: S3Server,
    decoy: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
    value: str,
) -> None:
    """All is asked as without it, header by header, of the server that the URI names.

    The profile keeps the credentials, as variables may say whose they are.
    """
    config = tmp_path / "config"
    config.write_text(
        "[profile crashes]\n"
        f"aws_access_key_id = {signed.access_key}\naws_secret_access_key = {signed.secret_key}\n"
        f"endpoint_url = {decoy.endpoint_url}\nregion = eu-central-1\n"
    )
    for name in signed.credentials:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    bucket = signed.new_bucket()
    crash = crash_of(contents())
    with proxy_of(signed.endpoint_url) as proxy:
        uri = f"s3://{bucket}?endpoint_url={proxy.endpoint_url}&region=us-west-2&profile=crashes"

        def asked() -> list[object]:
            proxy.requests.clear()
            proxy.heads.clear()
            with open_storage(uri) as storage:
                assert storage.identity() == (proxy.endpoint_url, bucket, "")
                storage.save_crash(crash)
                assert read(storage) == contents()
                storage.remove(CRASH_ID)
            return trace(proxy)

        expected = asked()
        count = 0
        for key in sorted(configuration_keys()):
            with monkeypatch.context() as patch:
                for variable in spellings(key):
                    patch.setenv(variable, decoy.endpoint_url if value == "decoy" else value)
                    count += 1
                assert asked() == expected, key
    assert is_empty(decoy)
    figures(variables=count, requests=len(expected) * len(configuration_keys()))


def test_the_default_profile_counts_less_than_the_uri(
    signed: S3Server, decoy: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = signed.new_bucket()
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nendpoint_url = {decoy.endpoint_url}\nservices = s\n"
        f"[services s]\ns3 =\n  endpoint_url = {decoy.endpoint_url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    storage = open_storage(signed.uri(bucket))
    storage.save_crash(crash_of(contents()))
    assert read(storage) == contents()
    assert signed.client().list_objects_v2(Bucket=bucket)["KeyCount"]
    assert is_empty(decoy)


def test_no_variable_leads_away_from_amazon(
    signed: S3Server, decoy: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the client knows at once, but for those of the AWS command line."""
    with refusing_proxy() as proxy:
        for key in configuration_keys():
            for variable in spellings(key) - VARIABLES:
                monkeypatch.setenv(variable, decoy.endpoint_url)
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        storage = open_storage("s3://crashes?region=us-west-2&connect_timeout=1")
        assert storage.identity() == (None, "crashes", "")
        through = f"through the proxy 127.0.0.1:{proxy.port} of https_proxy"
        with pytest.raises(Exception, match=through):
            storage.verify_access()
        assert {line.split()[1] for line in proxy.asked} == {
            b"crashes.s3.us-west-2.amazonaws.com:443"
        }
    assert is_empty(decoy)


# As the AWS command line has it

IN_PROFILE = {
    "service": "services = s\n",
    "endpoint": "endpoint_url = http://d:1\n",
}
SERVICES = "[services s]\ns3 =\n  endpoint_url = http://c:1\n"
IGNORES = [None, "TRUE", "yes"]


def profiles(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Write every profile that says something else of endpoints."""
    settings = [*IN_PROFILE.values(), "ignore_configured_endpoint_urls = true\n"]
    choices = itertools.chain.from_iterable(
        itertools.combinations(settings, n) for n in range(len(settings) + 1)
    )
    for number, chosen in enumerate(choices):
        path = tmp_path / f"config{number}"
        path.write_text(f"[profile p]\nregion = eu-west-1\n{''.join(chosen)}\n{SERVICES}")
        yield "".join(chosen), path


def account(**options: Any) -> Account:
    return Account(S3Options(**options), "s3://crashes")


@pytest.mark.parametrize("ignore", IGNORES)
def test_the_endpoint_is_that_of_boto3(
    signed: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
    ignore: str | None,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "p")
    if ignore is not None:
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", ignore)
    variables = [("AWS_ENDPOINT_URL_S3", "http://a:1"), ("AWS_ENDPOINT_URL", "http://b:1/x/")]
    loader = botocore.loaders.create_loader()
    count = 0
    some = list(profiles(tmp_path))[-1 if ignore else 0 :]
    for (said, path), of_s3, of_all in itertools.product(some, [False, True], [False, True]):
        with monkeypatch.context() as patch:
            patch.setenv("AWS_CONFIG_FILE", str(path))
            for wanted, (name, value) in zip((of_s3, of_all), variables, strict=True):
                if wanted:
                    patch.setenv(name, value)
            session = botocore.session.Session()
            session.register_component("data_loader", loader)  # read once, not for each setting
            expected = boto3.Session(botocore_session=session).client("s3").meta.endpoint_url
            place = account().place
            assert place.server_url == expected.rstrip("/"), (said, of_s3, of_all)
            assert (place.endpoint_url is None) == expected.endswith("amazonaws.com")
            # What the URI says counts more than all of it.
            assert account(endpoint_url="http://e:1").place.endpoint_url == "http://e:1"
            count += 1
    figures(settings=count)


@pytest.mark.parametrize("where", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_the_files_of_profiles_count_beside_credentials_in_variables(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    file = tmp_path / "file"
    file.write_text(
        "[default]\nregion = eu-west-1\nendpoint_url = http://a:1\nca_bundle = /a.pem\n"
    )
    monkeypatch.setenv(where, str(file))
    place = account().place
    assert (place.region, place.endpoint_url, place.ca_bundle) == (
        "eu-west-1",
        "http://a:1",
        "/a.pem",
    )
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/b.pem")
    place = account().place
    assert (place.region, place.ca_bundle) == ("eu-west-2", "/b.pem")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    place = account(ca_bundle="/c.pem").place
    assert (place.region, place.ca_bundle) == ("eu-west-3", "/c.pem")
    assert account(region="eu-west-4").place.region == "eu-west-4"


@pytest.mark.parametrize("by", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
def test_a_variable_names_the_profile(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    file = tmp_path / "config"
    file.write_text("[profile p]\nregion = eu-west-1\n[profile q]\nregion = eu-west-2\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv(by, "p")
    assert account().place.region == "eu-west-1"
    assert account(profile="q").place.region == "eu-west-2"


def test_an_empty_variable_is_as_one_that_is_not_set(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that botocore knows too, as Kubernetes and Compose leave them behind."""
    import botocore.configprovider

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(
        "[default]\nendpoint_url = http://a:1\nregion = eu-west-1\n"
    )
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = AKIAOFFILE\naws_secret_access_key = s\n"
    )
    known = botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES.values()
    for _, names, *_ in known:
        for name in [names] if isinstance(names, str) else names or []:
            monkeypatch.setenv(name, "")
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    found = account()
    assert (found.place.endpoint_url, found.place.region) == ("http://a:1", "eu-west-1")
    assert found.place.ca_bundle is None
    assert found.credentials()()["access_key_id"] == "AKIAOFFILE"


def test_a_region_that_is_invalid_is_said(
    signed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "x@127.0.0.1:1/")
    with pytest.raises(StorageDenied, match="is invalid"):
        open_storage("s3://crashes").verify_access()


def test_china_has_a_domain_of_its_own(signed: S3Server) -> None:
    url = "https://s3.cn-north-1.amazonaws.com.cn"
    assert account(region="cn-north-1").place.server_url == url
    assert boto3.client("s3", region_name="cn-north-1").meta.endpoint_url == url


# Whole commands


@pytest.mark.parametrize("value", ["source", "destination", "decoy", ""])
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
def test_a_move_goes_where_the_uris_say(
    signed: S3Server,
    decoy: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
    variable: str,
    value: str,
) -> None:
    """Between two buckets of one name, on two servers."""
    crashes = [sample(n) for n in range(4)]
    bucket = signed.new_bucket()
    source, destination = signed.uri(bucket), decoy.uri(bucket)
    decoy.client().create_bucket(Bucket=bucket)
    put(tmp_path / "a", *crashes)
    days = ("--since", "2026-11-20", "--until", "2026-11-20")
    assert run("copy", "-s", tmp_path / "a", "-d", source, *days).exit_code == 0
    urls = {"source": signed.endpoint_url, "destination": decoy.endpoint_url}
    monkeypatch.setenv(variable, urls.get(value, "http://127.0.0.1:9" if value else ""))
    move = ("copy", "-s", source, "-d", destination, *days, "--verify", "--remove-source")
    result = run(*move)
    assert (result.exit_code, result.output) == (0, result.output)
    assert "copied 4, skipped 0" in result.output
    assert run("copy", "-s", destination, "-d", tmp_path / "b", *days).exit_code == 0
    assert stored(tmp_path / "b") == manifest(*crashes)
    assert not signed.client().list_objects_v2(Bucket=bucket).get("Contents")
    assert run("remove", "-s", destination, *days, "--yes").exit_code == 0
    assert "listed 0" in run("list", "-s", destination, *days).output
    figures(crashes_moved=len(crashes))


@pytest.mark.parametrize(("by", "endpoint"), [("variable", "profile"), ("profile", "variable")])
def test_endpoints_that_are_to_be_ignored_are_ignored(
    signed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, endpoint: str
) -> None:
    """The proxy sees where a command turns to."""
    lines = ["[default]", "region = us-west-2"]
    if endpoint == "variable":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    else:
        lines.append("endpoint_url = http://127.0.0.1:1")
    if by == "variable":
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    else:
        lines.append("ignore_configured_endpoint_urls = true")
    (tmp_path / "config").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("NO_PROXY")
    with refusing_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        result = run("doctor", "-s", "s3://crashes")
    assert result.exit_code == 4
    assert f"the proxy 127.0.0.1:{proxy.port} of HTTPS_PROXY" in result.output
    assert {line.split()[1] for line in proxy.asked} == {b"crashes.s3.us-west-2.amazonaws.com:443"}


# Hiding


def in_c(name: str) -> bytes | None:
    """Return a variable as compiled code finds it."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    value: bytes | None = getenv(name.encode())
    return value


def is_mine(name: str) -> bool:
    return name.startswith("MINE_")


def test_variables_are_hidden_from_compiled_code_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_A", "1")
    monkeypatch.setenv("OTHER", "2")
    with hidden(is_mine, {"SHOWN": "3"}):
        assert (in_c("MINE_A"), in_c("OTHER"), in_c("SHOWN")) == (None, b"2", b"3")
        assert os.environ["MINE_A"] == "1"
    assert (in_c("MINE_A"), in_c("OTHER"), in_c("SHOWN")) == (b"1", b"2", None)


def test_what_is_hidden_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_A", "1")
    with pytest.raises(ZeroDivisionError), hidden(is_mine):
        raise ZeroDivisionError
    assert in_c("MINE_A") == b"1"


def test_what_another_thread_sets_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_A", "1")
    monkeypatch.setenv("MINE_B", "2")
    with hidden(is_mine):
        monkeypatch.setenv("NEW", "3")
        monkeypatch.delenv("MINE_B")
    assert (in_c("MINE_A"), in_c("MINE_B"), in_c("NEW")) == (b"1", None, b"3")


@pytest.mark.parametrize("value", ["0", "many", ""])
def test_the_number_of_the_clients_threads_is_not_the_environments(
    signed: S3Server, value: str
) -> None:
    """In a process of its own: the client starts them once."""
    uri = signed.uri(signed.new_bucket())
    done = subprocess.run(
        [sys.executable, "-m", "crashmover", "list", "-s", uri],
        env={**os.environ, "TOKIO_WORKER_THREADS": value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "listed 0\n"
