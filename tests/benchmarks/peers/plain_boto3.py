# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Plain boto3, one thread: ``plain_boto3.py put DIRECTORY BUCKET | get BUCKET DIRECTORY``."""

import os
import sys
from pathlib import Path

import boto3


def put(directory: Path, bucket: str) -> None:
    """Put each file of a directory."""
    client = boto3.client("s3")
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            key = path.relative_to(directory).as_posix()
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def get(bucket: str, directory: Path) -> None:
    """Get each object of a bucket."""
    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", ()):
            path = directory / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read())


if __name__ == "__main__":
    if sys.argv[1] == "put":
        put(Path(sys.argv[2]), sys.argv[3])
    else:
        get(sys.argv[2], Path(sys.argv[3]))
