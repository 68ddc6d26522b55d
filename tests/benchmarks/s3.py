# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Between a file system and S3: against those who move the same objects.

We read and write the layout of a file system, and what we write there is durable; the others
read and write plain files.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.contest import OURS, Command, Contender, Results
from tests.benchmarks.corpus import Corpus, Manifest, files_in
from tests.benchmarks.measure import Argument, measure
from tests.benchmarks.report import CPU, SERVER_CPU, Row, at_least, at_most
from tests.benchmarks.report import compare as row
from tests.benchmarks.suite import Suite, compare, copy, files_are
from tests.servers.s3 import S3Server

S5CMD, AWS, RCLONE = "s5cmd cp", "aws s3 cp -r", "rclone copy"
BOTO3, OBSTORE = "boto3, one thread", "bare obstore calls"
_SCRIPTS = Path(__file__).parent / "peers"


class Peer(NamedTuple):
    """What puts the objects of a directory into a bucket, and gets them out again."""

    name: str
    program: str
    put: Callable[[Path, str], list[Argument]]
    get: Callable[[str, Path], list[Argument]]


_BOTO3_LINE: list[Argument] = [sys.executable, _SCRIPTS / "plain_boto3.py"]
_OBSTORE_LINE: list[Argument] = [sys.executable, _SCRIPTS / "bare_obstore.py"]
_AWS_LINE: list[Argument] = ["aws", "s3", "cp", "--recursive", "--only-show-errors"]
_RCLONE_LINE: list[Argument] = ["rclone", "copy", "--config", "", "--transfers", "32"]

PEERS = (
    Peer(
        S5CMD,
        "s5cmd",
        lambda source, bucket: ["s5cmd", "--log", "error", "cp", f"{source}/", f"s3://{bucket}/"],
        lambda bucket, to: ["s5cmd", "--log", "error", "cp", f"s3://{bucket}/*", f"{to}/"],
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
    yield row(work, results, OBSTORE)
    yield row(f"{work}: client CPU", results, OBSTORE, figure=CPU)


# -- Into a bucket -------------------------------------------------------------------------


def fs_to_s3(suite: Suite) -> Iterator[Row]:
    """All of them fill buckets of their own."""
    corpus, server = suite.corpus(suite.sizes.s3), suite.s3
    staged = corpus.stage(suite.new_path())
    env = client_environment(server)

    def ours() -> Command:
        bucket = server.new_bucket()
        line = copy(corpus.root, server.uri(bucket))
        check = partial(check_bucket, suite, bucket, corpus)
        return Command(line, corpus.count, check, env, servers=[server])

    def turn_of(peer: Peer) -> Command:
        bucket = server.new_bucket()
        check = partial(check_bucket, suite, bucket, corpus)
        return Command(peer.put(staged, bucket), corpus.count, check, env, servers=[server])

    peers = [Contender(peer.name, partial(turn_of, peer), peer.program) for peer in PEERS]
    yield from rows("fs -> S3", suite.hold("fs -> S3", [Contender(OURS, ours), *peers]))


def check_bucket(suite: Suite, bucket: str, corpus: Corpus) -> None:
    """Raise `WrongBytes` unless a bucket holds these crashes; it is not needed any more."""
    directory = suite.s3.path_of(bucket)
    compare(partial(files_in, directory), lambda: corpus.objects)
    shutil.rmtree(directory)  # it takes memory


# -- Out of a bucket -----------------------------------------------------------------------


def filled_bucket(suite: Suite, corpus: Corpus) -> str:
    """Return a bucket that we have put these crashes into."""
    bucket = suite.s3.new_bucket()
    measure(copy(corpus.root, suite.s3.uri(bucket)), client_environment(suite.s3))
    compare(partial(files_in, suite.s3.path_of(bucket)), lambda: corpus.objects)
    return bucket


def s3_to_fs(suite: Suite) -> Iterator[Row]:
    """All of them read the same bucket."""
    corpus = suite.corpus(suite.sizes.s3)
    bucket = filled_bucket(suite, corpus)
    ours = partial(copy, suite.s3.uri(bucket))
    contenders = [
        Contender(OURS, partial(read, suite, corpus, ours, lambda: corpus.files)),
        *(peer_reader(suite, peer, bucket, corpus) for peer in PEERS),
    ]
    yield from rows("S3 -> fs", suite.hold("S3 -> fs", contenders))


def peer_reader(suite: Suite, peer: Peer, bucket: str, corpus: Corpus) -> Contender:
    """Return a peer that gets these crashes from a bucket."""
    line = partial(peer.get, bucket)
    return Contender(
        peer.name, partial(read, suite, corpus, line, lambda: corpus.objects), peer.program
    )


def read(
    suite: Suite,
    corpus: Corpus,
    line: Callable[[Path], list[Argument]],
    wanted: Callable[[], Manifest],
) -> Command:
    """Return the turn of one who gets the crashes into a directory.

    :param line: the command
    :param wanted: the files that must be there then
    """
    target = suite.new_path()
    check = files_are(target, wanted)
    env = client_environment(suite.s3)
    return Command(line(target), corpus.count, check, env, servers=[suite.s3])
