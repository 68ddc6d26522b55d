# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The library that crashmover sends the requests of Google Cloud Storage with, and nothing besides:
what there is to reach.

``bare_pyreqwest.py put DIRECTORY BUCKET | get BUCKET DIRECTORY``: as many threads as crashmover
has, and one request an object.  Nothing is checked, no crash is looked for, and nothing is forced
to the disk.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.response import SyncResponse

T = TypeVar("T")

_THREADS = 16
_URL = os.environ["STORAGE_EMULATOR_HOST"]
_KIND = "multipart/related; boundary=x"
_HEAD = "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\n"


def put(client: SyncClient, directory: Path, bucket: str) -> None:
    """Put each file of a directory, where there is no object yet."""
    url = f"{_URL}/upload/storage/v1/b/{bucket}/o?uploadType=multipart&ifGenerationMatch=0"

    def put_one(path: Path) -> None:
        name = path.relative_to(directory).as_posix()
        head = _HEAD.format(json.dumps({"name": name})).encode()
        body = b"".join((head, path.read_bytes(), b"\r\n--x--\r\n"))
        request = client.post(url).headers({"Content-Type": _KIND}).body_bytes(body)
        request.error_for_status(True).build().send()

    paths = (Path(root, name) for root, _, names in os.walk(directory) for name in names)
    _for_each(put_one, paths)


def get(client: SyncClient, bucket: str, directory: Path) -> None:
    """Get each object of a bucket.

    The XML API sends the metadata of an object along with its bytes, in the headers.
    """

    def get_one(name: str) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_ask(client, f"{_URL}/{bucket}/{quote(name)}").bytes())

    _for_each(get_one, _names(client, bucket))


def _names(client: SyncClient, bucket: str) -> Iterator[str]:
    url = f"{_URL}/storage/v1/b/{bucket}/o"
    token = ""
    while token is not None:
        listed = f"{url}?fields=items(name),nextPageToken&pageToken={token}"
        page = _ask(client, listed).json()
        yield from (item["name"] for item in page.get("items", ()))
        token = page.get("nextPageToken")


def _ask(client: SyncClient, url: str) -> SyncResponse:
    return client.get(url).error_for_status(True).build().send()


def _for_each(do: Callable[[T], None], things: Iterable[T]) -> None:
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(do, things):
            pass  # and so raise what was raised


if __name__ == "__main__":
    with SyncClientBuilder().build() as session:
        if sys.argv[1] == "put":
            put(session, Path(sys.argv[2]), sys.argv[3])
        else:
            get(session, sys.argv[2], Path(sys.argv[3]))
