# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The figures of a copy, as a statsd server gets them."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover.cli.metrics import to_address
from tests.cli_helpers import (
    TIMEOUT,
    Argument,
    assert_refused,
    manifest,
    put,
    run,
    sample,
    stored,
)
from tests.copied import where as where

ONE, TWO, ABSENT = sample(1), sample(2), sample(99)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A socket that gets what is sent to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(TIMEOUT)
        yield listening


def received(server: socket.socket) -> list[str]:
    """The lines of one datagram."""
    return server.recv(1 << 16).decode().split("\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_when_a_copy_ends_its_figures_are_sent(
    where: tuple[Argument, ...], server: socket.socket, host: str
) -> None:
    put(Path(where[3]), TWO)
    ids = (ONE.crash_id, TWO.crash_id, ABSENT.crash_id)
    result = run("copy", *where, *ids, "--statsd", f"{host}:{server.getsockname()[1]}")
    assert result.exit_code == 1
    *counters, timer = received(server)
    assert counters == [
        "crashmover.copied:1|c",
        "crashmover.skipped:1|c",
        "crashmover.failed:1|c",
        f"crashmover.bytes:{ONE.size}|c",
    ]
    assert re.fullmatch(r"crashmover\.duration:\d+\|ms", timer)


def test_of_a_host_with_two_addresses_the_older_kind_is_used(
    where: tuple[Argument, ...], server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = server.getsockname()
    new = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", port, 0, 0))
    old = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", (host, port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [new, old])
    assert run("copy", *where, "--statsd", f"localhost:{port}").exit_code == 0
    assert "crashmover.copied:2|c" in received(server)


def test_the_environment_may_name_the_server(
    where: tuple[Argument, ...], server: socket.socket
) -> None:
    env = {"CRASHMOVER_STATSD": f"127.0.0.1:{server.getsockname()[1]}"}
    assert run("copy", *where, "--dry-run", env=env).exit_code == 0
    assert received(server)[:2] == ["crashmover.copied:0|c", "crashmover.would_copy:2|c"]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", f"{'a' * 64}.invalid"])
def test_a_server_that_is_not_there_is_warned_of_and_fails_nothing(
    where: tuple[Argument, ...], host: str
) -> None:
    result = run("copy", *where, "--statsd", f"{host}:8125")
    assert result.exit_code == 0
    assert stored(Path(where[3])) == manifest(ONE, TWO)
    summary, warning = result.stderr.splitlines()
    assert summary.startswith("copied 2, ")
    sent = f"crashmover: warning: no metrics were sent to {host}:8125: "
    assert warning.startswith(sent) and len(warning) > len(sent)


def test_where_nobody_listens_nothing_is_lost_but_the_figures(
    where: tuple[Argument, ...], server: socket.socket
) -> None:
    port = server.getsockname()[1]
    server.close()
    result = run("copy", *where, "--statsd", f"127.0.0.1:{port}")
    assert (result.exit_code, result.stderr.count("\n")) == (0, 1)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":8125", "host:0", "host:65536", "ho st:1", "::1:8125", "[]:1"]
)
def test_what_is_no_address_is_refused(where: tuple[Argument, ...], address: str) -> None:
    assert_refused(run("copy", *where, "--statsd", address), 2, "--statsd", "HOST:PORT")
    assert not Path(where[3]).exists()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("statsd.example.com:8125", ("statsd.example.com", 8125)),
        ("[::1]:8125", ("::1", 8125)),
    ],
)
def test_an_address_has_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert to_address(text) == address
