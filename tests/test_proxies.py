# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Proxies: which one applies to a URL, and that its password is never shown."""

import pytest

from crashmover.proxies import proxy_for, with_proxy

URL = "http://files.example.com:9000/x"
SECURE = "https://files.example.com/x"


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({"HTTP_PROXY": "http://a:1"}, URL, ("HTTP_PROXY", "a:1")),
        ({"http_proxy": "http://a:1"}, URL, ("http_proxy", "a:1")),
        ({"HTTP_PROXY": "http://a:1", "http_proxy": "http://b:2"}, URL, ("HTTP_PROXY", "a:1")),
        ({"HTTP_PROXY": "", "http_proxy": "http://b:2"}, URL, None),
        ({"HTTP_PROXY": "", "ALL_PROXY": "http://b:2"}, URL, ("ALL_PROXY", "b:2")),
        ({"HTTP_PROXY": "http://a:1"}, SECURE, None),
        ({"HTTPS_PROXY": "http://a:1"}, SECURE, ("HTTPS_PROXY", "a:1")),
        ({"https_proxy": "http://a:1"}, URL, None),
        ({"all_proxy": "socks5h://a:1"}, SECURE, ("all_proxy", "a:1")),
        ({"ALL_PROXY": "a:1", "http_proxy": "b:2"}, URL, ("http_proxy", "b:2")),
        ({"http_proxy": "a"}, URL, ("http_proxy", "a:80")),
        ({"http_proxy": "https://a"}, URL, ("http_proxy", "a:443")),
        ({"http_proxy": "socks5://a"}, URL, ("http_proxy", "a:1080")),
        ({"http_proxy": "http://[::1]:8888/"}, URL, ("http_proxy", "[::1]:8888")),
        ({"http_proxy": "http://me:pass@a:1"}, URL, ("http_proxy", "a:1")),
        ({"http_proxy": "me:pass@a:1"}, URL, ("http_proxy", "a:1")),
        ({"http_proxy": "ftp://a:1"}, URL, None),
        ({"http_proxy": "http://a:port"}, URL, None),
        ({"http_proxy": "http://[a:1"}, URL, None),
        ({"http_proxy": "http://a:1", "REQUEST_METHOD": "GET"}, URL, None),
        ({}, URL, None),
    ],
)
def test_the_variable_that_counts_is_named(
    environment: dict[str, str], url: str, expected: tuple[str, str] | None
) -> None:
    proxy = proxy_for(url, environment)
    assert (proxy and (proxy.variable, proxy.address)) == expected


@pytest.mark.parametrize(
    ("listed", "host", "is_excepted"),
    [
        ("example.com", "example.com", True),
        ("example.com", "files.example.com", True),
        (".example.com", "files.example.com", True),
        (".example.com", "example.com", True),
        ("EXAMPLE.com", "Files.Example.COM", True),
        ("example.com", "anexample.com", False),
        ("files.example.com", "example.com", False),
        ("other.org, example.com", "example.com", True),
        ("*", "example.com", True),
        ("", "example.com", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.11", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("::1", "[::1]", True),
        ("fe80::/10", "[fe80::7]", True),
        ("10.0.0.0/8", "[::1]", False),
        ("10.0.0.0/8", "example.com", False),
        ("*", "127.0.0.1", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_hosts_that_are_excepted_are_asked_without_a_proxy(
    variable: str, listed: str, host: str, is_excepted: bool
) -> None:
    environment = {"http_proxy": "http://a:1", variable: listed}
    assert (proxy_for(f"http://{host}:9000/", environment) is None) is is_excepted


def test_other_variables_can_be_asked_for() -> None:
    """As gRPC has them."""
    environment = {"grpc_proxy": "http://a:1", "no_grpc_proxy": "example.org", "NO_PROXY": "*"}
    rules = {"variables": ("grpc_proxy", "https_proxy"), "exceptions": ("no_grpc_proxy",)}
    proxy = proxy_for("https://example.com", environment, **rules)
    assert proxy
    assert proxy.variable == "grpc_proxy"
    assert proxy_for("https://example.org", environment, **rules) is None


def test_the_environment_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert str(proxy_for(URL)) == "the proxy 127.0.0.1:1 of HTTP_PROXY"


def test_a_message_names_the_proxy_without_its_password() -> None:
    proxy = proxy_for(URL, {"http_proxy": "http://me:pass@127.0.0.1:8888"})
    said = with_proxy("access denied", proxy)
    assert said == "access denied (through the proxy 127.0.0.1:8888 of http_proxy)"
    assert "pass" not in said + repr(proxy)
    assert with_proxy("access denied", None) == "access denied"
