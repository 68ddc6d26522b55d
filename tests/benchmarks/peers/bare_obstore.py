# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The library that our S3 store goes through, and nothing besides: what there is to reach.

``bare_obstore.py put DIRECTORY BUCKET | get BUCKET DIRECTORY``: many threads, as we have, but
the objects are nobody's crashes: nothing is checked, nothing follows from what was read, and
nothing is forced to the disk.
"""

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from obstore.store import S3Store

T = TypeVar("T")

_THREADS = 16


def put(directory: Path, store: S3Store) -> None:
    """Put each file of a directory."""

    def put_one(path: Path) -> None:
        store.put(path.relative_to(directory).as_posix(), path.read_bytes(), use_multipart=False)

    paths = (Path(root, name) for root, _, names in os.walk(directory) for name in names)
    _for_each(put_one, paths)


def get(store: S3Store, directory: Path) -> None:
    """Get each object of a bucket."""

    def get_one(key: str) -> None:
        path = directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(key).bytes())

    _for_each(get_one, (found["path"] for page in store.list() for found in page))


def _for_each(do: Callable[[T], None], things: Iterable[T]) -> None:
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(do, things):
            pass  # and so raise what was raised


def _store(bucket: str) -> S3Store:
    return S3Store(
        bucket,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


if __name__ == "__main__":
    if sys.argv[1] == "put":
        put(Path(sys.argv[2]), _store(sys.argv[3]))
    else:
        get(_store(sys.argv[2]), Path(sys.argv[3]))
