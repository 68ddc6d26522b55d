# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Between a file system and S3."""

import sys
from collections.abc import Iterator

from tests.benchmarks.buckets import FROM_FS, SCRIPTS, TO_FS, Buckets, Peer, from_fs, to_fs
from tests.benchmarks.contest import Results
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import CPU, SERVER_CPU, Row, at_least, at_most
from tests.benchmarks.report import compare as row
from tests.benchmarks.suite import Suite
from tests.servers.s3 import S3Server

S5CMD, AWS, RCLONE = "s5cmd cp", "aws s3 cp -r", "rclone copy"
BOTO3, OBSTORE = "boto3, one thread", "bare obstore calls"

_BOTO3_LINE: list[Argument] = [sys.executable, SCRIPTS / "plain_boto3.py"]
_OBSTORE_LINE: list[Argument] = [sys.executable, SCRIPTS / "bare_obstore.py"]
_AWS_LINE: list[Argument] = ["aws", "s3", "cp", "--recursive", "--only-show-errors"]
_RCLONE_LINE: list[Argument] = ["rclone", "copy", "--config", "", "--transfers", "32"]

PEERS = (
    Peer(
        S5CMD,
        "s5cmd",
        lambda source, bucket: ["s5cmd", "--log", "error", "cp", f"{source}/", f"s3://{bucket}/"],
        lambda bucket, to: ["s5cmd", "--log", "error", "cp", f"s3://{bucket}/*", f"{to}/"],
        lambda one, other: ["s5cmd", "--log", "error", "cp", f"s3://{one}/*", f"s3://{other}/"],
    ),
    Peer(
        AWS,
        "aws",
        lambda source, bucket: [*_AWS_LINE, source, f"s3://{bucket}/"],
        lambda bucket, to: [*_AWS_LINE, f"s3://{bucket}/", to],
    ),
    Peer(
        BOTO3,
        sys.executable,
        lambda source, bucket: [*_BOTO3_LINE, "put", source, bucket],
        lambda bucket, to: [*_BOTO3_LINE, "get", bucket, to],
    ),
    Peer(
        RCLONE,
        "rclone",
        lambda source, bucket: [*_RCLONE_LINE, source, f":s3:{bucket}"],
        lambda bucket, to: [*_RCLONE_LINE, f":s3:{bucket}", to],
    ),
    Peer(
        OBSTORE,
        sys.executable,
        lambda source, bucket: [*_OBSTORE_LINE, "put", source, bucket],
        lambda bucket, to: [*_OBSTORE_LINE, "get", bucket, to],
    ),
)


def client_environment(server: S3Server, endpoint_url: str = "") -> dict[str, str]:
    """Return what all clients need to know, each by the names that it goes by."""
    endpoint_url = endpoint_url or server.endpoint_url
    return {
        **server.credentials,
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_ENDPOINT_URL": endpoint_url,
        "S3_ENDPOINT_URL": endpoint_url,
        "RCLONE_S3_PROVIDER": "Rclone",
        "RCLONE_S3_ENV_AUTH": "true",
        "RCLONE_S3_ENDPOINT": endpoint_url,
        "RCLONE_S3_REGION": server.region,
    }


def rows(work: str, results: Results) -> Iterator[Row]:
    """Return what both directions are held against."""
    yield row(work, results, S5CMD, at_least(1.5))
    yield row(f"{work}: client CPU", results, S5CMD, at_most(0.6), figure=CPU)
    yield row(f"{work}: server CPU", results, S5CMD, figure=SERVER_CPU)
    yield row(work, results, AWS, at_least(5))
    yield row(work, results, BOTO3, at_least(5))
    yield row(work, results, RCLONE)
    yield row(work, results, OBSTORE, at_least(0.9))
    yield row(f"{work}: client CPU", results, OBSTORE, at_most(1.25), figure=CPU)


def buckets(suite: Suite, away: int | None = None) -> Buckets:
    """Return those of the S3 server.

    :param away: as `Buckets.away`
    """
    server = suite.s3
    url = f"http://{server.host}:{suite.port(server, away)}"
    return Buckets("S3", server, client_environment(server, url), url, away)


def fs_to_s3(suite: Suite) -> Iterator[Row]:
    there, corpus = buckets(suite), suite.corpus(suite.sizes.s3)
    yield from rows(there.work(FROM_FS), from_fs(suite, there, PEERS, corpus))


def s3_to_fs(suite: Suite) -> Iterator[Row]:
    there, corpus = buckets(suite), suite.corpus(suite.sizes.s3)
    yield from rows(there.work(TO_FS), to_fs(suite, there, PEERS, corpus))
