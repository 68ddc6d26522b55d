# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A crash id that can never be copied ends in the quarantine; one that was only looked at, or could
not be copied because a store is down, does not."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crashmover import open_queue
from crashmover.errors import InvalidURI
from crashmover.external.crashqueue_base import CrashQueueBase
from crashmover.testing.queues import new_ids
from tests.cli_helpers import put, run, sample
from tests.conftest import Figures

MOST = 3


@pytest.fixture
def quarantine(tmp_path: Path) -> Path:
    return tmp_path / "quarantine.jsonl"


@pytest.fixture
def uri(tmp_path: Path, quarantine: Path) -> str:
    uri = f"sqlite:{tmp_path}/queue.db?quarantine={quarantine}&max_deliveries={MOST}&lease=1"
    with open_queue(uri) as queue:
        queue.create()
    return uri


@pytest.fixture(params=["sqlite", "memory"])
def queue(request: pytest.FixtureRequest, uri: str) -> Iterator[CrashQueueBase]:
    where = uri if request.param == "sqlite" else f"memory:?{uri.partition('?')[2]}"
    with open_queue(where) as queue:
        yield queue


def lines(quarantine: Path) -> list[dict[str, Any]]:
    if not quarantine.exists():
        return []
    return [json.loads(line) for line in quarantine.read_text().splitlines()]


def kept(quarantine: Path) -> list[str]:
    return [base64.b64decode(line["body"]).decode() for line in lines(quarantine)]


def attempts(uri: str) -> list[int]:
    """Return how often each crash id has been handed out, this look included, which is undone."""
    with open_queue(uri) as queue:
        queue.max_deliveries = None
        found = queue.pull()
        queue.give_back(found)
    return [delivery.attempt for delivery in found]


def test_what_is_nacked_too_often_is_put_aside(
    queue: CrashQueueBase, quarantine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    poison, good = new_ids(2)
    queue.publish("reprocessing", [f"{poison}:rules"])
    for number in range(1, MOST + 1):
        assert not quarantine.exists()
        [delivery] = queue.pull()
        assert delivery.attempt == number
        queue.nack([delivery])
    queue.publish("standard", [good])
    assert [delivery.crash_id for delivery in queue.pull()] == [good]
    [line] = lines(quarantine)
    assert kept(quarantine) == [f"{poison}:rules"]
    assert line["queue"] == "reprocessing" and line["attempts"] == MOST
    assert line["reason"] == "handed out 3 times, and never acknowledged"
    assert queue.given_up_count == 1
    [said] = [text for text in caplog.messages if poison in text]
    assert said.endswith(f"was handed out 3 times, and never acknowledged; now in {quarantine}")


def test_what_kills_its_consumer_each_time_is_put_aside(
    queue: CrashQueueBase, quarantine: Path
) -> None:
    [poison] = new_ids(1)
    queue.publish("standard", [poison])
    for _ in range(MOST):
        assert len(queue.pull(wait=3)) == 1  # and its lease ends
    assert queue.pull(wait=1.5) == []
    assert kept(quarantine) == [poison]


def test_what_is_given_back_unused_counts_for_nothing(
    queue: CrashQueueBase, quarantine: Path
) -> None:
    ids = new_ids(4)
    queue.publish("standard", ids)
    for _ in range(3 * MOST):
        found = queue.pull(max_messages=2)
        assert [(d.crash_id, d.attempt) for d in found] == [(ids[0], 1), (ids[1], 1)]
        queue.give_back(found)
    assert not quarantine.exists()
    assert [d.crash_id for d in queue.pull()] == ids


def test_what_was_given_back_is_ours_no_more(queue: CrashQueueBase) -> None:
    queue.publish("standard", new_ids(1))
    stale = queue.pull()
    queue.give_back(stale)
    current = queue.pull()
    assert queue.ack_messages(stale) == 1
    queue.nack_messages(stale)
    queue.return_messages(stale)
    assert queue.pull() == []
    assert queue.ack_messages(current) == 0


@pytest.mark.parametrize("name", ["queue.db", "ids.txt"])
def test_a_file_of_another_kind_is_no_quarantine(tmp_path: Path, name: str) -> None:
    """The line would damage it, as in the queue's own database, which writes over the line."""
    [crash_id] = new_ids(1)
    (tmp_path / "ids.txt").write_text(f"{crash_id}\n")
    with open_queue(f"sqlite:{tmp_path}/queue.db") as made:
        made.create()
    uri = f"sqlite:{tmp_path}/queue.db?max_deliveries=1&quarantine={tmp_path / name}"
    with open_queue(uri) as queue:
        queue.publish("standard", [crash_id])
        for _ in range(3):
            [delivery] = queue.pull()
            assert delivery.crash_id == crash_id
            queue.nack([delivery])
    assert (tmp_path / "ids.txt").read_text() == f"{crash_id}\n"
    assert b'{"time"' not in (tmp_path / name).read_bytes()
    assert "holds something else than lines of JSON" in run("doctor", "-q", uri).stdout


def test_without_an_end_nothing_is_put_aside(tmp_path: Path, quarantine: Path) -> None:
    ids = new_ids(1)
    with open_queue(f"memory:?quarantine={quarantine}&max_deliveries=0") as queue:
        queue.publish("standard", ids)
        for number in range(1, 60):
            [delivery] = queue.pull()
            assert delivery.attempt == number
            queue.nack([delivery])
    assert not quarantine.exists()


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "٣", "10000"])
def test_a_number_that_is_not_understood_is_refused(text: str) -> None:
    for where in ("memory:", "sqlite:///queue.db"):
        with pytest.raises(InvalidURI, match="max_deliveries"):
            open_queue(f"{where}?max_deliveries={text}")


def test_what_cannot_be_put_aside_comes_again(
    queue: CrashQueueBase, quarantine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quarantine.mkdir()
    ids = new_ids(1)
    queue.publish("standard", ids)
    for _ in range(2 * MOST):
        [delivery] = queue.pull()
        queue.nack([delivery])
    assert any("stays: quarantine" in text for text in caplog.messages)
    quarantine.rmdir()
    queue.nack(queue.pull())
    assert (kept(quarantine), queue.pull()) == (ids, [])


# The commands


def copy(uri: str, source: Path, destination: Path, *options: str) -> Any:
    return run("copy", "-s", source, "-d", destination, "-q", uri, "--wait", "0", *options)


def test_runs_end_with_an_id_that_is_nowhere(
    uri: str, tmp_path: Path, quarantine: Path, figures: Figures
) -> None:
    crashes = [sample(n) for n in range(3)]
    source = put(tmp_path / "source", *crashes)
    [poison] = new_ids(1)
    with open_queue(uri) as queue:
        queue.publish("standard", [poison, *(crash.crash_id for crash in crashes)])
    codes = [copy(uri, source, tmp_path / "to").exit_code for _ in range(MOST + 2)]
    assert codes == [1] * MOST + [0, 0]
    assert (kept(quarantine), attempts(uri)) == ([poison], [])
    figures(runs=MOST + 2, put_aside=1)


def test_a_run_that_finds_an_id_that_was_handed_out_too_often_fails(
    uri: str, tmp_path: Path, quarantine: Path
) -> None:
    (tmp_path / "source").mkdir()
    [poison] = new_ids(1)
    with open_queue(uri) as queue:
        queue.publish("standard", [poison])
        for _ in range(MOST):
            assert queue.pull(wait=3)
        time.sleep(1.1)
    done = copy(uri, tmp_path / "source", tmp_path / "to")
    assert (done.exit_code, kept(quarantine)) == (1, [poison])
    assert done.stderr.count(poison) == 1


def test_looking_does_not_count(uri: str, quarantine: Path) -> None:
    ids = new_ids(5)
    with open_queue(uri) as queue:
        queue.publish("standard", ids)
    for _ in range(2 * MOST):
        done = run("queue-pull", "-q", uri, "--no-ack", "--limit", "2", "--json")
        seen = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(each["crash_id"], each["attempt"]) for each in seen] == [(i, 1) for i in ids[:2]]
    assert (attempts(uri), quarantine.exists()) == ([1] * 5, False)


def test_a_dry_run_does_not_count(uri: str, tmp_path: Path) -> None:
    crashes = [sample(n) for n in range(2)]
    source = put(tmp_path / "source", *crashes)
    with open_queue(uri) as queue:
        queue.publish("standard", [*(crash.crash_id for crash in crashes), *new_ids(1)])
    for _ in range(2 * MOST):
        copy(uri, source, tmp_path / "to", "--dry-run")
    assert attempts(uri) == [1, 1, 1]


def test_a_store_that_is_down_does_not_count(
    uri: str, tmp_path: Path, quarantine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = [sample(n) for n in range(3)]
    source = put(tmp_path / "source", *crashes)
    with open_queue(uri) as queue:
        queue.publish("standard", [crash.crash_id for crash in crashes])
    (tmp_path / "to").write_text("in the way")
    for _ in range(2 * MOST):
        assert copy(uri, source, tmp_path / "to").exit_code == 4
    assert (attempts(uri), quarantine.exists()) == ([1] * 3, False)


def test_a_person_who_takes_it_out_sees_it_however_often_it_was_handed_out(
    uri: str, quarantine: Path
) -> None:
    ids = new_ids(1)
    with open_queue(uri) as queue:
        queue.publish("standard", ids)
        for _ in range(MOST):
            assert queue.pull(wait=3)
        time.sleep(1.1)
    done = run("queue-pull", "-q", uri, "--no-ack", "--wait", "0")
    assert (done.stdout.split(), quarantine.exists()) == (ids, False)
    done = run("queue-pull", "-q", uri, "--wait", "0")
    assert (done.exit_code, done.stdout.split(), quarantine.exists()) == (0, ids, False)
