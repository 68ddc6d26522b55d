# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Publish and pull crash ids: the commands against Google's client, on the same server.

The client publishes with its own batching, and pulls and acks five at a time, as Socorro's
processor did.  It is timed without its start, the commands with theirs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from google.api_core.exceptions import DeadlineExceeded
from google.pubsub_v1 import SubscriberClient

from crashmover import crashid
from tests.servers import pubsub
from tests.servers.pubsub import PubSub

IDS, CLIENT_IDS, RUNS = 100_000, 20_000, 3
"""How many the commands carry, and how many the slow client does: rates are compared."""

MEMORY = 150e6  # bytes at most

GOALS = {"queue-publish": 3.0, "queue-pull": 8.0}


class Queue:
    """A topic and its subscription, empty."""

    def __init__(self, server: PubSub) -> None:
        self.uri = server.uri()
        project, prefix = self.uri.removeprefix("pubsub://").split("/")
        self.topic = f"projects/{project}/topics/{prefix}-standard-topic"
        self.subscription = f"projects/{project}/subscriptions/{prefix}-standard-sub"
        command("queue-publish", "-q", self.uri, "--create")


_LAUNCH = """
import resource, subprocess, sys, time
begun = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
took = time.perf_counter() - begun
memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
sys.exit(done.stderr.decode() if done.returncode else print(took, memory))
"""
"""A process is charged with the memory of the one that started it: so a small one does."""


def command(*args: str | Path) -> tuple[float, int]:
    """Run a command; return seconds, and the most memory it took, in bytes."""
    line = [sys.executable, "-m", "crashmover", *map(str, args)]
    launch = [sys.executable, "-S", "-c", _LAUNCH, *line]
    done = subprocess.run(launch, check=True, stdout=subprocess.PIPE, text=True)
    took, memory = done.stdout.split()
    return float(took), int(memory)


def client_publish(queue: Queue, ids: list[str]) -> float:
    """Publish with the client's own batching."""
    from google.cloud.pubsub_v1 import PublisherClient

    client = PublisherClient()
    begun = time.perf_counter()
    for future in [client.publish(queue.topic, crash_id.encode()) for crash_id in ids]:
        future.result(timeout=60)
    took = time.perf_counter() - begun
    client.stop()
    return took


def client_pull(queue: Queue, count: int) -> float:
    """Pull and ack five at a time."""
    with SubscriberClient() as client:
        begun = time.perf_counter()
        while count > 0:
            try:
                found = client.pull(
                    subscription=queue.subscription, max_messages=5, timeout=30
                ).received_messages
            except DeadlineExceeded:
                continue
            if found:
                client.acknowledge(
                    subscription=queue.subscription, ack_ids=[item.ack_id for item in found]
                )
            count -= len(found)
        return time.perf_counter() - begun


def bench(server: PubSub, file: Path, ids: list[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Return the rates of each command and of the client, in ids a second."""
    rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in GOALS}
    for _ in range(RUNS):
        ours, theirs = Queue(server), Queue(server)
        rates["queue-publish"][0].append(rate("queue-publish", ours, "--ids-from", file))
        rates["queue-publish"][1].append(CLIENT_IDS / client_publish(theirs, ids[:CLIENT_IDS]))
        rates["queue-pull"][0].append(rate("queue-pull", ours, "--limit", str(IDS)))
        rates["queue-pull"][1].append(CLIENT_IDS / client_pull(theirs, CLIENT_IDS))
    return rates


def rate(name: str, queue: Queue, *args: str | Path) -> float:
    """Run a command over all crash ids; return how many a second it carried."""
    took, memory = command(name, "-q", queue.uri, *args)
    assert memory < MEMORY, f"{name} took {memory / 1e6:.0f} MB"
    return IDS / took


def main() -> None:
    server_class = pubsub.servers()[0]
    ids = [crashid.create() for _ in range(IDS)]
    with tempfile.TemporaryDirectory() as directory, server_class() as server:
        os.environ["PUBSUB_EMULATOR_HOST"] = server.address
        file = Path(directory) / "ids.txt"
        file.write_text("\n".join(ids))
        print(f"{IDS:,} crash ids on {server_class.__name__}; {RUNS} runs each, in turns")
        for name, (ours, theirs) in bench(server, file, ids).items():
            mine, others = statistics.median(ours), statistics.median(theirs)
            ratio, goal = mine / others, GOALS[name]
            verdict = "holds" if ratio >= goal else "does not hold"
            print(
                f"  {name:<14} {mine:>8,.0f}/s  client {others:>7,.0f}/s"
                f"  ratio {ratio:5.1f}  goal {goal:.0f}: {verdict}"
            )


if __name__ == "__main__":
    main()
