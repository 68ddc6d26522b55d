# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""No bucket of any provider is moved onto itself, by whatever address."""

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.cli_helpers import assert_refused, run
from tests.conftest import Figures, on_buckets
from tests.s3_proxy import proxy_of
from tests.servers.buckets import Bucket, BucketServer
from tests.test_two_stores_s3 import MOVE, WAYS, fill

OPTIONS = {
    "s3": ["checksum=none", "addressing_style=path"],
    "gs": ["storage_class=NEARLINE", "layout=v1-only", "project=another"],
}
"""What changes nothing in where a bucket is."""


@on_buckets("s3_signed", "s3_strict", "gcs")
def test_a_bucket_is_not_moved_onto_itself_by_any_address(
    bucket_server: BucketServer, tmp_path: Path, figures: Figures
) -> None:
    bucket, url = Bucket(bucket_server), bucket_server.endpoint_url
    source = fill(tmp_path, bucket.uri("a/prefix"))
    before = bucket.objects()
    with ExitStack() as stack:
        ends = [stack.enter_context(proxy_of(url)).endpoint_url for _ in range(2)]
        hosts = [
            f"http://{host}:{urlsplit(url).port}" for host in ("localhost", "LOCALHOST", "127.1")
        ]
        names: list[str] = [source.replace(url, end) for end in (*ends, *hosts)]
        names += [source.replace("a/prefix?", "a/prefix/?")]
        names += [f"{source}&{option}" for option in OPTIONS[source[:2]]]
        refused = 0
        for name in names:
            for options in WAYS:
                assert_refused(run("copy", "-s", source, "-d", name, *options), 2, "same store")
                assert_refused(run("copy", "-s", name, "-d", source, *options), 2, "same store")
                refused += 2
            dry = run("copy", "-s", source, "-d", name, *MOVE, "--dry-run")
            assert "same store" in dry.stderr or "--dry-run writes nothing" in dry.stderr
        assert_refused(run("copy", "-s", names[0], "-d", names[1], *MOVE), 2, "same store")
        several = ("-d", tmp_path / "elsewhere", "-d", names[0])
        assert_refused(run("copy", "-s", source, *several, *MOVE), 2, "same store")
    assert not (tmp_path / "elsewhere").exists()
    assert bucket.objects() == before
    figures(moves_refused=refused, crashes_lost=0)
