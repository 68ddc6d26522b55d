# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Between a file system and Google Cloud Storage."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.buckets import FROM_FS, SCRIPTS, TO_FS, Buckets, Peer, from_fs, to_fs
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


def client_environment(suite: Suite, url: str) -> dict[str, str]:
    """Return what all clients need to know, each by the names that it goes by."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "RCLONE_GCS_ENDPOINT": f"{url}/storage/v1/",
        "RCLONE_GCS_ANONYMOUS": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(suite.new_path()),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "NO_PROXY": "127.0.0.1",
    }


def buckets(suite: Suite, away: int | None = None) -> Buckets:
    """Return those of the server of Google Cloud Storage.

    :param away: as `Buckets.away`
    """
    url = f"http://{suite.gcs.host}:{suite.port(suite.gcs, away)}"
    return Buckets("GCS", suite.gcs, client_environment(suite, url), url, away)


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
    there, corpus = buckets(suite), suite.corpus(suite.sizes.gcs)
    yield from rows(there.work(FROM_FS), from_fs(suite, there, PEERS, corpus))


def gcs_to_fs(suite: Suite) -> Iterator[Row]:
    there, corpus = buckets(suite), suite.corpus(suite.sizes.gcs)
    yield from rows(there.work(TO_FS), to_fs(suite, there, PEERS, corpus))
