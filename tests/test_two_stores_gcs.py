# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A bucket of Google Cloud Storage that is reached by its own API and by the one of S3, is moved
neither onto itself nor away from itself."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli_helpers import assert_refused, manifest, put, run, samples, stored
from tests.conftest import Figures, UseAWS, wanted
from tests.servers.gcs import FakeGCS
from tests.servers.s3 import Interoperability

CRASHES = samples(3)
MOVE = ("--verify", "--remove-source")
WAYS = (MOVE, (*MOVE, "--existing", "overwrite"), (*MOVE, "--existing", "compare"))

Gateway = Callable[[str], Interoperability]


@pytest.fixture
def gateway(request: pytest.FixtureRequest, fake_gcs: FakeGCS, aws: UseAWS) -> Iterator[Gateway]:
    """Starts a server that shows the same buckets by the API of S3, until the test ends."""
    wanted(request, "s3-signed")
    with ExitStack() as stack:

        def start(kept: str) -> Interoperability:
            server = stack.enter_context(Interoperability(fake_gcs.endpoint_url, kept))
            aws(server)
            return server

        yield start


@pytest.mark.parametrize(
    ("kept", "said"), [("1ms", "same store"), ("1h", "the same size and time")]
)
def test_a_bucket_is_not_moved_onto_itself_by_another_api(
    fake_gcs: FakeGCS, gateway: Gateway, tmp_path: Path, figures: Figures, kept: str, said: str
) -> None:
    """A server that goes by names which it has kept does not show the mark, and the versions of
    the two APIs have nothing in common."""
    other, bucket = gateway(kept), fake_gcs.new_bucket()
    uris = (fake_gcs.uri(bucket, "a"), other.uri(bucket, "a"))
    assert run("copy", "-s", put(tmp_path / "crashes", *CRASHES), "-d", uris[0]).exit_code == 0
    assert run("list", "-s", uris[1]).stdout.count("\n") == len(CRASHES)
    refused = 0
    for options in WAYS:
        assert_refused(run("copy", "-s", uris[0], "-d", uris[1], *options), 2, said)
        assert_refused(run("copy", "-s", uris[1], "-d", uris[0], *options), 2, "same store")
        refused += 2
    assert run("copy", "-s", uris[0], "-d", tmp_path / "back").exit_code == 0
    assert stored(tmp_path / "back") == manifest(*CRASHES)
    figures(moves_refused=refused, crashes_lost=0)
