# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Between a file system and Google Cloud Storage."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.buckets import SCRIPTS, Buckets, Peer, from_fs, to_fs
from tests.benchmarks.contest import Results
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import CPU, SERVER_CPU, Row, at_least, at_most
from tests.benchmarks.report import compare as row
from tests.benchmarks.suite import Suite

RCLONE, GCLOUD = "rclone copy", "gcloud storage cp -r"
GOOGLE, PYREQWEST = "Google's client", "bare pyreqwest calls"

_RCLONE_LINE: list[Argument] = ["rclone", "copy", "--config", "", "--transfers", "32"]
_GCLOUD_LINE: list[Argument] = ["gcloud", "storage", "cp", "--recursive", "--quiet"]
_GOOGLE_LINE: list[Argument] = [sys.executable, SCRIPTS / "google_storage.py"]
_PYREQWEST_LINE: list[Argument] = [sys.executable, SCRIPTS / "bare_pyreqwest.py"]


def made(directory: Path) -> Path:
    """Return a directory that gcloud wants to be there."""
    directory.mkdir()
    return directory


PEERS = (
    Peer(
        RCLONE,
        "rclone",
        lambda source, bucket: [*_RCLONE_LINE, source, f":gcs:{bucket}"],
        lambda bucket, to: [*_RCLONE_LINE, f":gcs:{bucket}", to],
    ),
    Peer(
        GCLOUD,
        "gcloud",
        lambda source, bucket: [*_GCLOUD_LINE, f"{source}/*", f"gs://{bucket}/"],
        lambda bucket, to: [*_GCLOUD_LINE, f"gs://{bucket}/*", made(to)],
    ),
    Peer(
        GOOGLE,
        sys.executable,
        lambda source, bucket: [*_GOOGLE_LINE, "put", source, bucket],
        lambda bucket, to: [*_GOOGLE_LINE, "get", bucket, to],
    ),
    Peer(
        PYREQWEST,
        sys.executable,
        lambda source, bucket: [*_PYREQWEST_LINE, "put", source, bucket],
        lambda bucket, to: [*_PYREQWEST_LINE, "get", bucket, to],
    ),
)


def buckets(suite: Suite) -> Buckets:
    """Return those of the server of Google Cloud Storage."""
    server = suite.gcs
    env = {
        "STORAGE_EMULATOR_HOST": server.endpoint_url,
        "RCLONE_GCS_ENDPOINT": f"{server.endpoint_url}/storage/v1/",
        "RCLONE_GCS_ANONYMOUS": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{server.endpoint_url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(suite.new_path()),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "NO_PROXY": server.host,
    }
    return Buckets("GCS", server, env)


def rows(work: str, results: Results) -> Iterator[Row]:
    """Return what both directions are held against."""
    yield row(work, results, RCLONE, at_least(1.5))
    yield row(f"{work}: client CPU", results, RCLONE, at_most(0.5), figure=CPU)
    yield row(f"{work}: server CPU", results, RCLONE, figure=SERVER_CPU)
    yield row(work, results, GCLOUD)
    yield row(f"{work}: client CPU", results, GCLOUD, figure=CPU)
    yield row(work, results, GOOGLE)
    yield row(work, results, PYREQWEST, at_least(0.85))
    yield row(f"{work}: client CPU", results, PYREQWEST, figure=CPU)
    yield row(f"{work}: server CPU", results, PYREQWEST, figure=SERVER_CPU)


def fs_to_gcs(suite: Suite) -> Iterator[Row]:
    yield from from_fs(suite, buckets(suite), PEERS, suite.corpus(suite.sizes.gcs), rows)


def gcs_to_fs(suite: Suite) -> Iterator[Row]:
    yield from to_fs(suite, buckets(suite), PEERS, suite.corpus(suite.sizes.gcs), rows)
