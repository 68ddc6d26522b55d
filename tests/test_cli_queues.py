# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``queue-publish`` and ``queue-pull``: every crash id is in the queue, in the output, or said
to be in neither."""

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crashmover import crashid, open_queue
from crashmover.external.crashqueue_base import Delivery, QueueName
from tests.benchmarks.measure import cpu_of
from tests.cli_helpers import (
    TIMEOUT,
    assert_refused,
    command_line,
    environment,
    put,
    run,
    run_process,
    sample,
    start,
)
from tests.other_users import OtherUser
from tests.other_users import other_user as other_user
from tests.servers import pubsub
from tests.servers.pubsub import PubSub

RULES = "regenerate_signature"


@pytest.fixture
def ids() -> list[str]:
    return [crashid.create() for _ in range(5)]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A queue in a file that is there."""
    uri = f"sqlite:{tmp_path}/queue.db"
    with open_queue(uri) as queue:
        queue.create()
    return uri


def publish(uri: str, ids: list[str], name: str = "standard") -> None:
    with open_queue(uri) as queue:
        queue.publish(name, ids)


def left(uri: str, *names: str) -> list[str]:
    """What can be pulled, and is given back."""
    return sorted(delivery.body for delivery in deliveries(uri, *names))


def deliveries(uri: str, *names: str) -> list[Delivery]:
    with open_queue(uri) as queue:
        found = queue.pull(names or None, max_messages=10_000)
        queue.nack(found)
    return found


# Publishing


def test_crash_ids_are_published_as_people_type_them(uri: str, ids: list[str]) -> None:
    typed = [ids[0], f"bp-{ids[1]}", ids[2].upper(), f"{ids[3]}:{RULES}", f"bp-{ids[4]}:x"]
    result = run("queue-publish", "-q", uri, *typed)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "published 5\n")
    assert left(uri, "standard") == sorted([*ids[:3], f"{ids[3]}:{RULES}", f"{ids[4]}:x"])


@pytest.mark.parametrize("name", list(QueueName))
def test_they_go_to_the_queue_that_is_named(uri: str, ids: list[str], name: str) -> None:
    assert run("queue-publish", "-q", uri, "--to", name, *ids).exit_code == 0
    assert {d.queue for d in deliveries(uri)} == {name}


def test_they_come_from_a_file_and_the_command_line(
    uri: str, ids: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(f"# yesterday's\n\n{ids[0]}\n{ids[1]}:{RULES}\n{ids[0]}\n")
    result = run("queue-publish", "-q", uri, "--ids-from", path, ids[2], ids[0])
    assert result.stderr == "published 3\n"
    assert left(uri) == sorted([ids[0], f"{ids[1]}:{RULES}", ids[2]])


def test_they_come_from_standard_input(uri: str, ids: list[str]) -> None:
    result = run("queue-publish", "-q", uri, "--ids-from", "-", stdin="\n".join(ids).encode())
    assert (result.exit_code, left(uri)) == (0, sorted(ids))


def test_they_come_from_the_days_of_a_store(uri: str, tmp_path: Path) -> None:
    crashes = [sample(n, day=f"26112{n}") for n in range(5)]
    source = put(tmp_path / "source", *crashes)
    days = ("--since", "2026-11-21", "--until", "2026-11-23")
    result = run("queue-publish", "-q", uri, "-s", source, *days)
    assert result.stderr == "published 3\n"
    assert left(uri) == sorted(crash.crash_id for crash in crashes[1:4])


def test_a_queue_is_made_once(tmp_path: Path, ids: list[str]) -> None:
    uri = f"sqlite:{tmp_path}/a/b/queue.db"
    first = run("queue-publish", "-q", uri, "--create", *ids)
    assert first.stderr == f"created {tmp_path}/a/b/queue.db\npublished 5\n"
    again = run("queue-publish", "-q", uri, "--create")
    assert (again.exit_code, again.stderr) == (0, "published 0\n")
    assert left(uri) == sorted(ids)


def test_a_queue_that_is_not_there_takes_nothing(tmp_path: Path, ids: list[str]) -> None:
    result = run("queue-publish", "-q", f"sqlite:{tmp_path}/queue.db", *ids)
    assert result.exit_code == 4
    assert sorted(result.stdout.split()) == sorted(ids)
    error, summary = result.stderr.splitlines()
    assert "no such queue; --create makes it" in error
    assert summary == "published 0"
    assert not list(tmp_path.iterdir())


def test_no_faster_than_the_rate(uri: str, ids: list[str]) -> None:
    begun = time.monotonic()
    assert run("queue-publish", "-q", uri, "--rate", "10", *ids).exit_code == 0
    assert time.monotonic() - begun >= 0.3
    assert left(uri) == sorted(ids)


def test_the_queue_may_come_from_the_environment_and_the_configuration(
    uri: str, ids: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[queue]\nprod = '{uri}'\n")
    env = {"CRASHMOVER_QUEUE": "prod", "CRASHMOVER_CONFIG": str(config)}
    assert run("queue-publish", *ids, env=env).exit_code == 0
    result = run("queue-pull", "--wait", "0", env=env)
    assert (result.exit_code, sorted(result.stdout.split())) == (0, sorted(ids))


def test_what_a_signal_kept_from_being_published_is_printed(
    uri: str, tmp_path: Path, ids: list[str]
) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(ids))
    with start("queue-publish", "-q", uri, "--ids-from", path, "--rate", "1") as process:
        wait_until(lambda: bool(left(uri)))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM
    published = left(uri)
    assert published and sorted([*published, *out.decode().split()]) == sorted(ids)
    assert f"published {len(published)}; {5 - len(published)} not tried".encode() in err


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        ([], "no crash ids"),
        (["no-crash-id"], "no-crash-id"),
        (["0bba929f-8721-460c-dead-a43c22071025:../x"], "ruleset"),
        (["--ids-from", "ids.txt"], "ids.txt, line 2"),
        (["--ids-from", "not-there.txt"], "not-there.txt"),
        (["--since", "7d"], "-s is missing"),
        (["-s", "./source", "--since", "7d", "0bba929f-8721-460c-dead-a43c22071025"], "either"),
        (["-s", "./source", "--since", "1d", "--until", "7d"], "is after"),
        (["-s", "./source"], "no crash ids"),
        (["--to", "other", "0bba929f-8721-460c-dead-a43c22071025"], "'other'"),
        (["--rate", "0", "0bba929f-8721-460c-dead-a43c22071025"], "--rate"),
    ],
)
def test_bad_usage_publishes_nothing(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ids: list[str],
    args: list[str],
    phrase: str,
) -> None:
    (tmp_path / "ids.txt").write_text(f"{ids[0]}\nno-crash-id\n")
    (tmp_path / "source").mkdir()
    monkeypatch.chdir(tmp_path)
    assert_refused(run("queue-publish", "-q", uri, *args), 2, phrase)
    assert left(uri) == []


@pytest.mark.parametrize(
    ("queue", "phrase"),
    [
        ("sqlite:", "the path of a file is missing"),
        ("sqlite:/a/b/", "the path of a file is missing"),
        ("sqlite://host/queue.db", "host"),
        ("sqlite:/queue.db?leese=3", "leese"),
        ("sqlite:/queue.db?lease=0", "lease"),
        ("pubsub:", "the project's id is missing"),
        ("pubsub://project", "neither a prefix"),
        ("fs:/queue", "'fs'"),
        ("not-a-name", "no queue named 'not-a-name'"),
        ("./queue.db", "sqlite"),
    ],
)
@pytest.mark.parametrize("command", ["queue-publish", "queue-pull"])
def test_what_is_no_queue_is_refused(queue: str, phrase: str, command: str, ids: list[str]) -> None:
    more = ids if command == "queue-publish" else []
    assert_refused(run(command, "-q", queue, *more), 2, phrase)


# Pulling


def test_each_line_is_taken_off_the_queue(uri: str, ids: list[str]) -> None:
    publish(uri, [*ids[:4], f"{ids[4]}:{RULES}"])
    result = run("queue-pull", "-q", uri, "--wait", "0")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [*ids[:4], f"{ids[4]}:{RULES}"]
    assert left(uri) == []


def test_what_was_pulled_can_be_published_again(uri: str, ids: list[str]) -> None:
    publish(uri, [f"{ids[0]}:{RULES}", ids[1]])
    pulled = run("queue-pull", "-q", uri, "--wait", "0").stdout
    run("queue-publish", "-q", uri, "--ids-from", "-", stdin=pulled.encode())
    assert left(uri) == sorted([f"{ids[0]}:{RULES}", ids[1]])


def test_json_has_all_there_is_to_know(uri: str, ids: list[str]) -> None:
    publish(uri, [f"{ids[0]}:{RULES}"], "reprocessing")
    publish(uri, [ids[1]], "priority")
    result = run("queue-pull", "-q", uri, "--wait", "0", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"crash_id": ids[1], "queue": "priority", "ruleset": None, "attempt": 1},
        {"crash_id": ids[0], "queue": "reprocessing", "ruleset": RULES, "attempt": 1},
    ]


def test_no_more_than_the_limit(uri: str, ids: list[str]) -> None:
    publish(uri, ids)
    result = run("queue-pull", "-q", uri, "--limit", "2")
    assert result.stdout.split() == ids[:2]
    assert left(uri) == sorted(ids[2:])


def test_only_from_the_queues_that_are_named(uri: str, ids: list[str]) -> None:
    for name, crash_id in zip(QueueName, ids, strict=False):
        publish(uri, [crash_id], name)
    names = ("--from", "standard", "--from", "priority")
    result = run("queue-pull", "-q", uri, *names, "--wait", "0")
    assert sorted(result.stdout.split()) == sorted(ids[:2])
    assert left(uri) == [ids[2]]


def test_looking_takes_nothing_off_the_queue(uri: str, ids: list[str]) -> None:
    publish(uri, ids)
    result = run("queue-pull", "-q", uri, "--no-ack", "--wait", "0")
    assert sorted(result.stdout.split()) == sorted(ids)
    assert left(uri) == sorted(ids)


def test_an_empty_queue_is_waited_for(uri: str, ids: list[str]) -> None:
    with start("queue-pull", "-q", uri, "--wait", "30", "--limit", "1") as process:
        assert process.stdout
        publish(uri, ids)
        assert process.stdout.read().decode().split() == ids[:1]
        assert process.wait(TIMEOUT) == 0


def test_the_wait_begins_again_with_each_that_came(uri: str) -> None:
    begun = time.monotonic()
    assert run("queue-pull", "-q", uri, "--wait", "0.4").exit_code == 0
    assert 0.4 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_following_ends_with_a_signal(uri: str, ids: list[str], number: signal.Signals) -> None:
    with start("queue-pull", "-q", uri, "--follow") as process:
        assert process.stdout
        publish(uri, ids[:2])
        assert [process.stdout.readline().decode().strip() for _ in ids[:2]] == ids[:2]
        publish(uri, ids[2:])
        assert [process.stdout.readline().decode().strip() for _ in ids[2:]] == ids[2:]
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
        assert process.stderr and process.stderr.read() == b""
    assert left(uri) == []


def test_following_an_empty_queue_takes_no_processor_time(uri: str, ids: list[str]) -> None:
    publish(uri, ids[:1])
    with start("queue-pull", "-q", uri, "--follow", "--wait", "0.1") as process:
        assert process.stdout and process.stdout.readline()
        before = cpu_of([process.pid])
        time.sleep(1.5)
        assert cpu_of([process.pid]) - before < 0.3
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)


def test_what_could_not_be_written_is_not_taken_off_the_queue(uri: str, ids: list[str]) -> None:
    publish(uri, ids)
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        command = command_line("queue-pull", "-q", uri, "--wait", "0")
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment())
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"No space left" in done.stderr
    assert left(uri) == sorted(ids)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_into_a_broken_pipe_nothing_more_is_acked(
    uri: str, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ids = [crashid.create() for _ in range(3000)]
    publish(uri, ids)
    with start("queue-pull", "-q", uri, "--wait", "0") as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        process.wait(TIMEOUT)
        assert process.stderr and process.stderr.read() == b""
    # The pipe takes a page: less than the first batch.
    assert len(left(uri)) == 3000


def test_a_malformed_message_is_told_of_and_kept(uri: str, ids: list[str], tmp_path: Path) -> None:
    uri = f"{uri}?quarantine={tmp_path}/bad.jsonl"
    publish(uri, ids)
    with open_queue(uri) as queue:
        queue.send_messages(QueueName.STANDARD, [b"\x1b[31mno-crash-id"])
    result = run("queue-pull", "-q", uri, "--wait", "0")
    assert (result.exit_code, result.stdout.split()) == (0, ids)
    assert "a malformed message, now in" in result.stderr and "\x1b" not in result.stderr
    assert (tmp_path / "bad.jsonl").read_text().count("\n") == 1
    assert left(uri) == []


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (["--no-ack", "--follow"], "--follow"),
        (["--limit", "0"], "--limit"),
        (["--wait", "-1"], "--wait"),
        (["--from", "other"], "'other'"),
        (["extra"], "extra"),
    ],
)
def test_bad_usage_pulls_nothing(uri: str, ids: list[str], args: list[str], phrase: str) -> None:
    publish(uri, ids)
    assert_refused(run("queue-pull", "-q", uri, *args), 2, phrase)
    assert [d.attempt for d in deliveries(uri)] == [1] * 5


@pytest.mark.parametrize("command", ["queue-publish", "queue-pull"])
def test_a_queue_must_be_named(command: str) -> None:
    assert_refused(run(command), 2, "-q")


# A queue that cannot be used


def test_a_file_that_is_no_queue_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"no database" * 1000)
    assert_refused(run("queue-pull", "-q", f"sqlite:{path}"), 4, "not a database")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (a)")
    result = run("queue-pull", "-q", f"sqlite:{tmp_path}/other.db")
    assert_refused(result, 4, "no such queue; --create makes it")


@pytest.mark.slow  # root may write everywhere
def test_a_file_that_may_not_be_written_is_said_to_be_so(
    uri: str, ids: list[str], other_user: OtherUser
) -> None:
    Path(uri.removeprefix("sqlite:")).chmod(0o444)
    result = other_user.run("queue-publish", "-q", uri, *ids)
    assert (result.returncode, sorted(result.stdout.split())) == (4, sorted(ids))
    assert "readonly" in result.stderr


@pytest.fixture
def own_pubsub(
    own_pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None], ids: list[str]
) -> Iterator[tuple[PubSub, str]]:
    use_pubsub(own_pubsub_server)
    uri = own_pubsub_server.uri()
    assert run("queue-publish", "-q", uri, "--create", *ids).exit_code == 0
    yield own_pubsub_server, uri


@pytest.mark.parametrize("own_pubsub_server", pubsub.servers()[:1], indirect=True)
def test_a_server_that_has_stopped_ends_each_command_with_4(
    own_pubsub: tuple[PubSub, str], ids: list[str], tmp_path: Path
) -> None:
    server, uri = own_pubsub
    server.kill()
    begun = time.monotonic()
    source = put(tmp_path / "source", sample())
    processes = [
        start("queue-publish", "-q", uri, *ids),
        start("queue-pull", "-q", uri),
        start("copy", "-q", uri, "-s", source, "-d", tmp_path / "destination"),
    ]
    ended = [(process.communicate(timeout=TIMEOUT), process.returncode) for process in processes]
    for (_, said), exit_code in ended:
        assert exit_code == 4
        lines = said.decode().splitlines()
        assert "using the emulator" in lines[0]
        assert [line for line in lines if "does not answer" in line] == [lines[1]]
    assert sorted(ended[0][0][0].decode().split()) == sorted(ids)
    assert time.monotonic() - begun < 30


@pytest.mark.slow
@pytest.mark.parametrize("own_pubsub_server", pubsub.servers()[:1], indirect=True)
def test_a_server_that_hangs_ends_each_command_with_4(
    own_pubsub: tuple[PubSub, str], ids: list[str]
) -> None:
    server, uri = own_pubsub
    server.pause()
    for args in (("queue-publish", "-q", uri, *ids), ("queue-pull", "-q", uri)):
        begun = time.monotonic()
        ended = run_process(*args)
        assert ended.returncode == 4
        assert time.monotonic() - begun < 45
        assert b"does not answer" in ended.stderr
        if args[0] == "queue-publish":
            assert sorted(ended.stdout.decode().split()) == sorted(ids)
