# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Connections to PostgreSQL that break off, under TLS too, or are refused for now: another attempt
may help, and is made."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.postgresql.connection_context import ConnectionContext
from tests.conftest import Figures
from tests.postgresql_stub import (
    READY,
    Script,
    agree_to_tls,
    fatal,
    listen,
    make_certificate,
    stub,
    under_tls,
)


def breaks_off_at_once(client: socket.socket) -> None:
    listen(client)


def breaks_off_later(client: socket.socket) -> None:
    """After it has let the client in, and heard a statement."""
    listen(client)
    client.sendall(READY)
    listen(client)


def error_at(script: Script, mode: str) -> StorageError:
    with stub(script) as parameters:
        context = ConnectionContext({**parameters, "sslmode": mode}, timeout=10)
        with context, pytest.raises(StorageError) as caught, context() as connection:
            connection.execute("SELECT 1")
    return caught.value


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.mark.parametrize("script", [breaks_off_at_once, breaks_off_later])
@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_a_connection_that_breaks_off_is_no_refusal(
    certificate: Path, figures: Figures, script: Script, mode: str
) -> None:
    error = error_at(script if mode == "disable" else under_tls(certificate, script), mode)
    assert type(error) is StorageUnavailable, error
    figures(breaks=1)


def test_a_handshake_that_breaks_off_is_no_refusal(figures: Figures) -> None:
    error = error_at(agree_to_tls, "require")
    assert type(error) is StorageUnavailable, error
    figures(breaks=1)


def test_something_else_that_answers_is_a_refusal() -> None:
    def answer(client: socket.socket) -> None:
        agree_to_tls(client)
        listen(client)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert type(error_at(answer, "require")) is StorageDenied


def before_it_lets_in(said: bytes) -> Script:
    def script(client: socket.socket) -> None:
        listen(client)
        client.sendall(said)

    return script


def after_a_statement(said: bytes) -> Script:
    def script(client: socket.socket) -> None:
        breaks_off_later(client)
        client.sendall(said)

    return script


PASSING = {
    "the database system is starting up": "57P03",
    "the database system is shutting down": "57P03",
    "the database system is in recovery mode": "57P03",
    "the database system is not yet accepting connections": "57P03",
    "das Datenbanksystem startet": "57P03",
    "sorry, too many clients already": "53300",
    'too many connections for role "me"': "53300",
    "remaining connection slots are reserved for roles with the SUPERUSER attribute": "53300",
    "no more connections allowed (max_client_conn)": "53300",
    "terminating connection due to administrator command": "57P01",
    "terminating connection because of crash of another server process": "57P02",
    "canceling statement due to conflict with recovery": "40001",
    "server login has been failing, try again later (server_login_retry)": "08P01",
}


@pytest.mark.parametrize("when", [before_it_lets_in, after_a_statement])
@pytest.mark.parametrize("text", PASSING)
def test_what_passes_is_no_refusal(
    figures: Figures, when: Callable[[bytes], Script], text: str
) -> None:
    error = error_at(when(fatal(PASSING[text], text)), "disable")
    assert type(error) is StorageUnavailable and error.reason == text
    figures(said=1)
