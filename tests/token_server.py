# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A server that gives out Google's access tokens, and the files of credentials that lead to it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

WORKFORCE = "//iam.googleapis.com/locations/global/workforcePools/p/providers/q"
WORKLOAD = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
_ACTS = ":generateAccessToken"
USER = {
    "type": "authorized_user",
    "client_id": "client",
    "client_secret": "a client secret",
    "refresh_token": "a refresh token",
}


class TokenServer:
    """Each token that it gives out is another; they last an hour, as far as it says."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.on_token: Callable[[str], None] = lambda token: None
        """Is told each token before it is given out."""
        self.paths: list[str] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        """What it says instead: a status and a JSON object."""
        self.lasts = 3600
        """Seconds, as the server says."""
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tokens = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens: host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def service_account(self, path: Path, **changed: str) -> Path:
        """Write the key file of a service account."""
        account = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "key",
            "private_key": private_key(),
            "client_email": "me@project.iam.gserviceaccount.com",
            "token_uri": f"http://{self.address}/token",
        }
        path.write_text(json.dumps(account | changed))
        return path

    def authorized_user(self, path: Path) -> Path:
        """Write what ``gcloud auth application-default login`` leaves."""
        path.write_text(json.dumps(USER))
        return path

    def identity_federation(self, path: Path, audience: str, source: dict[str, str]) -> Path:
        """Write a configuration of identity federation.

        :param audience: one of `WORKFORCE` and `WORKLOAD`
        :param source: where the token of the other provider is
        """
        account = {
            "type": "external_account",
            "audience": audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"http://{self.address}/sts",
            "credential_source": source,
        }
        path.write_text(json.dumps(account))
        return path

    def impersonation(self, path: Path, source: Path) -> Path:
        """Write the credentials of a service account that another account acts as.

        :param source: the file of the other account: of a user, or of a service account
        """
        account = {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": f"http://{self.address}/you@project{_ACTS}",
            "source_credentials": json.loads(source.read_text()),
        }
        path.write_text(json.dumps(account))
        return path

    def use_for_google(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let google-auth ask this server where its own constants name Google's: for the tokens of
        users and of impersonation, and for the project of a workload."""
        url = f"http://{self.address}"
        for name, value in {
            "google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT": f"{url}/token",
            "google.auth.iam._IAM_ENDPOINT": f"{url}/{{}}{_ACTS}",
            "google.auth.external_account._CLOUD_RESOURCE_MANAGER": f"{url}/projects/",
        }.items():
            monkeypatch.setattr(name, value)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def token_server() -> Iterator[TokenServer]:
    """Run a server."""
    server = TokenServer()
    try:
        yield server
    finally:
        server.close()


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


@cache
def private_key() -> str:
    """Return a key, as the file of a service account has it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tokens: TokenServer


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        assert isinstance(self.server, _Server)
        tokens = self.server.tokens
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        tokens.paths.append(self.path)
        if tokens.refusal:
            self._say(*tokens.refusal)
        elif self.path.endswith(("/token", "/sts", _ACTS)) or "/token?" in self.path:
            with tokens.lock:
                token = f"token-{len(tokens.given)}-secret"
                tokens.given.append(token)
                tokens.on_token(token)
            self._say(
                200,
                {
                    "access_token": token,
                    "expires_in": tokens.lasts,
                    "token_type": "Bearer",
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                    "accessToken": token,  # of an account that another acts as
                    "expireTime": f"{now() + timedelta(seconds=tokens.lasts):%Y-%m-%dT%H:%M:%SZ}",
                },
            )
        elif self.path.startswith("/projects/"):
            self._say(200, {"projectId": "project"})
        elif "service-accounts" in self.path:  # of the metadata server
            self._say(200, {"email": "me@project", "scopes": [], "aliases": []})
        elif "universe" in self.path:
            self._say(200, "googleapis.com")
        else:
            self._say(200, "project")

    do_GET = do_POST = _serve

    def _say(self, status: int, shown: dict[str, Any] | str) -> None:
        is_text = isinstance(shown, str)
        data = (shown if isinstance(shown, str) else json.dumps(shown)).encode()
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
