# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Few processes and threads allowed, as in a container."""

import pytest

from crashmover import QueueName, open_queue
from tests.cli_helpers import manifest, put, samples, stored
from tests.conftest import Figures
from tests.other_users import OtherUser
from tests.other_users import other_user as other_user
from tests.servers.gcs import FakeGCS
from tests.servers.postgresql import PostgreSQL
from tests.servers.pubsub import Drongo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMITS = (*range(1, 21), 33, 34, 40)
CRASHES = samples(12)
NO_THREAD = "no further thread can be started"


class Runs:
    """Runs commands under one limit after the other, and counts them."""

    def __init__(self, user: OtherUser, figures: Figures) -> None:
        self.user = user
        self._figures = figures

    def run(self, limit: int, *args: str, may_refuse: bool = False) -> bool:
        """Run a command; return whether it did its work, and did not refuse to begin."""
        done = self.user.run(*args, limit=limit)
        where = f"{limit} processes: {args}: {done.stderr}"
        self._figures(runs=1)
        assert "Traceback" not in done.stderr, where
        if done.returncode == 4 and may_refuse:
            assert done.stderr.count("\n") == 1 and NO_THREAD in done.stderr, where
            self._figures(refused_in_one_line=1)
            return False
        assert done.returncode == 0, where
        return True


@pytest.fixture
def runs(other_user: OtherUser, figures: Figures) -> Runs:
    put(other_user.home / "source", *CRASHES)
    return Runs(other_user, figures)


@pytest.mark.parametrize("workers", ["2", "16"])
def test_directories_are_copied_checked_and_emptied_with_any_number(
    runs: Runs, workers: str
) -> None:
    root = runs.user.home
    ids = [crash.crash_id for crash in CRASHES]
    many = ["--workers", workers]
    for limit in LIMITS:
        to = [f"./{limit}-a", f"./{limit}-b"]
        there = ["-d", to[0], "-d", to[1]]
        runs.run(limit, "copy", "-s", "./source", "-d", to[0], "--verify", *many)
        runs.run(limit, "copy", "-s", "./source", *there, "--existing", "compare", *many)
        assert stored(root / to[0]) == stored(root / to[1]) == manifest(*CRASHES)
        runs.run(limit, "check", "-s", "./source", *there, "--digest", *many)
        runs.run(limit, "list", "-s", to[0], "-s", to[1], "--bytes")
        runs.run(limit, "doctor", "-s", "./source", *there)
        runs.run(limit, "remove", "-s", to[0], "-s", to[1], "--yes", *ids)
        assert stored(root / to[0]) == stored(root / to[1]) == {}


def test_what_needs_a_thread_of_its_own_runs_or_does_nothing(runs: Runs) -> None:
    root = runs.user.home
    for limit in LIMITS:
        new = root / f"{limit}-timed"
        args = ["copy", "-s", "./source", "-d", f"./{new.name}", "--workers", "8"]
        copied = runs.run(limit, *args, "--max-duration", "1h", may_refuse=True)
        assert (stored(new) if new.exists() else {}) == (manifest(*CRASHES) if copied else {})


def test_a_queue_is_emptied_or_left_alone(runs: Runs) -> None:
    root = runs.user.home
    for limit in LIMITS:
        uri = f"sqlite:./{limit}.db"
        ids = [crash.crash_id for crash in CRASHES]
        runs.run(limit, "queue-publish", "-q", uri, "--create", *ids)
        args = ["copy", "-s", "./source", "-d", f"./{limit}", "-q", uri, "--wait", "0"]
        copied = runs.run(limit, *args, may_refuse=True)
        with open_queue(f"sqlite:{root}/{limit}.db") as queue:
            waiting = queue.receive_messages([QueueName.STANDARD], 100, 0)
        assert len(waiting) == (0 if copied else len(CRASHES))


@pytest.mark.parametrize("own_pubsub_server", [Drongo], indirect=True)
def test_a_service_is_asked_or_left_alone(runs: Runs, own_pubsub_server: Drongo) -> None:
    """gRPC aborts a process in which it can start no thread: none is begun there."""
    env = {"PUBSUB_EMULATOR_HOST": own_pubsub_server.address}
    args = ("queue-publish", "-q", own_pubsub_server.uri(), "--create", CRASHES[0].crash_id)
    for limit in (2, 4, 6, 8, 12, 40):
        done = runs.user.run(*args, limit=limit, env=env)
        assert done.returncode in (0, 4), done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or NO_THREAD in done.stderr.splitlines()[-1], done.stderr
    assert done.returncode == 0


def test_a_database_is_filled_read_and_emptied_with_any_number(
    runs: Runs, postgresql_server: PostgreSQL
) -> None:
    ids = [crash.crash_id for crash in CRASHES]
    for limit in (1, 2, 3, 4, 5, 9, 20):
        uri = postgresql_server.uri(schema=postgresql_server.new_name())
        runs.run(limit, "copy", "-s", "./source", "-d", uri)
        runs.run(limit, "copy", "-s", uri, "-d", f"./{limit}-back", "--verify")
        assert stored(runs.user.home / f"{limit}-back") == manifest(*CRASHES)
        runs.run(limit, "check", "-s", uri, "-d", "./source", "--digest")
        runs.run(limit, "remove", "-s", uri, "--yes", *ids)


def test_a_bucket_is_filled_read_and_emptied_or_left_alone(runs: Runs, fake_gcs: FakeGCS) -> None:
    """The client of a bucket needs threads of its own."""
    ids = [crash.crash_id for crash in CRASHES]
    for limit in (1, 3, 4, 6, 10, 20, 40):
        uri, back = fake_gcs.uri(fake_gcs.new_bucket()), runs.user.home / f"{limit}-back"
        copied = runs.run(limit, "copy", "-s", "./source", "-d", uri, may_refuse=True)
        if copied and runs.run(limit, "copy", "-s", uri, "-d", str(back), may_refuse=True):
            assert stored(back) == manifest(*CRASHES)
            removed = runs.user.run("remove", "-s", uri, "--yes", *ids, limit=limit)
            refused = [NO_THREAD in line for line in removed.stderr.splitlines()[:-1]]
            assert (removed.returncode, all(refused)) in ((0, True), (4, True)), removed.stderr
    assert copied
