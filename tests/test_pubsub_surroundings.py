# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What is around Pub/Sub: the variable that names an emulator, proxies, and messages of other
programs."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from crashmover import open_queue
from crashmover.errors import InvalidURI, QueueUnavailable
from crashmover.external.crashqueue_base import CrashQueueBase
from crashmover.retry import RetryPolicy
from tests.cli_helpers import assert_refused, run
from tests.servers.late_pubsub import LatePubSub

URI = "pubsub://project?standard_topic=abc&standard_subscription=abc"
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LatePubSub]:
    with LatePubSub() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        yield server


# The emulator's address

BAD = [
    "http://127.0.0.1:8085",
    "https://user:s3cret@127.0.0.1:8085",
    "127.0.0.1:8085/",
    "127.0.0.1:8085/v1",
    "127.0.0.1",
    "localhost",
    "127.0.0.1:",
    ":8085",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "127.0.0.1:port",
    "user:s3cret@127.0.0.1:8085",
    "::1:8085",
    "dns:///127.0.0.1:8085",
    "unix:/tmp/socket",
    "127.0.0.1:8085 ",
    "127.0.0.1:8085\n",
    "127.0.0.1:8085,127.0.0.1:8086",
]


@pytest.mark.parametrize("address", BAD)
def test_an_emulator_that_is_not_host_and_port_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
    with pytest.raises(InvalidURI, match=r"PUBSUB_EMULATOR_HOST must be HOST:PORT") as caught:
        open_queue(URI)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("command", ["queue-pull", "queue-publish", "doctor", "copy"])
def test_every_command_refuses_it_in_a_line(command: str, tmp_path: Path) -> None:
    where = {
        "copy": ("-s", tmp_path, "-d", tmp_path / "to"),
        "queue-publish": ("0bba929f-8721-460c-dead-a43c22071025",),
    }.get(command, ())
    done = run(command, "-q", URI, *where, env={"PUBSUB_EMULATOR_HOST": BAD[0]})
    assert_refused(done, 2, "PUBSUB_EMULATOR_HOST must be HOST:PORT")


@pytest.mark.parametrize("address", ["", "127.0.0.1:8085", "localhost:1", "[::1]:8085", "a-b.c:80"])
def test_an_emulator_that_is_host_and_port_is_taken(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
    open_queue(URI).close()


# Proxies


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(CrashQueueBase, "retry", RetryPolicy(attempts=1))
    monkeypatch.setattr("crashmover.external.pubsub.crashqueue._ASK_TIMEOUT", 3.0)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("variable", PROXIES)
def test_a_proxy_that_is_in_the_way_is_named(
    variable: str, server: LatePubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://user:s3cret@127.0.0.1:9")
    through = rf"does not answer: UNAVAILABLE \(through the proxy 127.0.0.1:9 of {variable}\)$"
    with open_queue(URI) as queue, pytest.raises(QueueUnavailable, match=through) as caught:
        queue.verify_access()
    assert "s3cret" not in str(caught.value)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("exception", ["no_grpc_proxy", "no_proxy"])
def test_a_proxy_that_is_not_asked_is_not_named(
    exception: str, server: LatePubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(exception, "127.0.0.1")
    with open_queue(server.uri()) as queue:
        queue.create()
        queue.verify_access()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:9")
    with open_queue(URI) as queue, pytest.raises(QueueUnavailable, match=r"UNAVAILABLE$"):
        queue.verify_access()


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_a_variable_that_grpc_does_not_know_is_not_named(
    variable: str, server: LatePubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with open_queue(server.uri()) as queue:
        queue.create()
        queue.verify_access()


# Messages of other programs


def test_all_that_a_malformed_message_says_is_kept(server: LatePubSub, tmp_path: Path) -> None:
    quarantine = tmp_path / "bad.jsonl"
    uri = f"{server.uri()}?quarantine={quarantine}"
    with open_queue(uri) as queue:
        queue.create()
        [topic] = [name for name in server.topics if uri[17:29] in name and "standard" in name]
        channel = grpc.insecure_channel(server.address)
        publisher = PublisherGrpcTransport(channel=channel)
        messages: list[dict[str, Any]] = [
            {
                "data": b"",
                "attributes": {"crash_id": "abc", "é\n": "\x00\x1b[2J"},
                "ordering_key": "key",
                "message_id": "4711",
                "publish_time": "2026-11-20T01:02:03.5Z",
            },
            {"data": b"no-id"},
        ]
        publisher.publish(types.PublishRequest(topic=topic, messages=messages))
        assert queue.pull(wait=1) == []
        channel.close()
    first, second = (json.loads(line) for line in quarantine.read_text().splitlines())
    assert first["attributes"] == messages[0]["attributes"]
    assert (first["ordering_key"], first["message_id"]) == ("key", "4711")
    assert (first["publish_time"], first["body"]) == ("2026-11-20T01:02:03.500Z", "")
    assert first["reason"] == second["reason"] == "malformed"
    assert base64.b64decode(second["body"]) == b"no-id"
    assert "attributes" not in second


# What doctor says of the quarantine


@pytest.mark.parametrize("plant", ["directory", "fifo", "link", "file above"])
def test_doctor_says_that_the_quarantine_cannot_be_written(plant: str, tmp_path: Path) -> None:
    path = tmp_path / "state" / "bad.jsonl"
    path.parent.mkdir()
    if plant == "directory":
        path.mkdir()
    elif plant == "fifo":
        os.mkfifo(path)
    elif plant == "link":
        path.symlink_to(tmp_path / "nothing")
    else:
        path.parent.rmdir()
        path.parent.write_text("in the way")
    uri = f"sqlite:{tmp_path}/queue.db?quarantine={path}"
    with open_queue(uri) as queue:
        queue.create()
    done = run("doctor", "-q", uri)
    assert (done.exit_code, done.stdout.split()[0]) == (0, "warn")
    assert f"its quarantine {path} cannot be written: " in done.stdout
    assert "?quarantine= names another" in done.stdout
    done = run("doctor", "-q", uri, "--json")
    [warning] = json.loads(done.stdout)["warnings"]
    assert "cannot be written" in warning


@pytest.mark.parametrize("there", ["file", "directory", "nothing"])
def test_doctor_leaves_the_quarantine_as_it_is(there: str, tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "bad.jsonl"
    if there != "nothing":
        path.parent.mkdir(parents=True)
    if there == "file":
        path.write_text("{}\n")
    with open_queue(f"sqlite:{tmp_path}/queue.db?quarantine={path}") as queue:
        queue.create()
    before = sorted((tmp_path / "state").rglob("*")) if there != "nothing" else []
    done = run("doctor", "-q", f"sqlite:{tmp_path}/queue.db?quarantine={path}")
    assert (done.exit_code, done.stdout.split()[0]) == (0, "ok")
    assert sorted((tmp_path / "state").rglob("*")) == before
    assert there != "file" or path.read_text() == "{}\n"
