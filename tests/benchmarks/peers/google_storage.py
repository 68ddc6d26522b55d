# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""google-cloud-storage with many threads: ``google_storage.py put DIRECTORY BUCKET | get BUCKET
DIRECTORY``."""

import os
import sys
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import transfer_manager

_THREADS = 16


def put(directory: Path, bucket: storage.Bucket) -> None:
    """Put each file of a directory."""
    names = [
        (Path(root) / name).relative_to(directory).as_posix()
        for root, _, names in os.walk(directory)
        for name in names
    ]
    transfer_manager.upload_many_from_filenames(
        bucket,
        names,
        source_directory=str(directory),
        worker_type=transfer_manager.THREAD,
        max_workers=_THREADS,
        raise_exception=True,
    )


def get(bucket: storage.Bucket, directory: Path) -> None:
    """Get each object of a bucket."""
    transfer_manager.download_many_to_path(
        bucket,
        [blob.name for blob in bucket.list_blobs()],
        destination_directory=str(directory),
        worker_type=transfer_manager.THREAD,
        max_workers=_THREADS,
        raise_exception=True,
    )


def _bucket(name: str) -> storage.Bucket:
    client = storage.Client(project="tests", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    return client.bucket(name)


if __name__ == "__main__":
    if sys.argv[1] == "put":
        put(Path(sys.argv[2]), _bucket(sys.argv[3]))
    else:
        get(_bucket(sys.argv[2]), Path(sys.argv[3]))
