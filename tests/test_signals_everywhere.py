# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Signals at any moment of every command: it ends in time, with 128 + N, nothing is torn or lost,
and nothing stays leased."""

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from crashmover.cli.signals import GRACE
from tests.cli_helpers import Argument, command_line, environment, put, run, start, stored
from tests.conftest import Figures, server_of_buckets
from tests.s3_proxy import Hang, Proxy, Request, proxy_of
from tests.servers import pubsub
from tests.servers.pubsub import PubSub
from tests.signalled import (
    SIGNALS,
    Ended,
    in_queue,
    pick_signals,
    run_signalled,
    send,
    wait_until,
)
from tests.signalled_scenes import (
    CRASHES,
    IDS,
    Check,
    Copy,
    CopyByThreads,
    CopyQueue,
    Doctor,
    Get,
    List,
    Look,
    Publish,
    PublishDays,
    PublishSlowly,
    PubSubCopy,
    PubSubLook,
    PubSubPull,
    Pull,
    PullAndFollow,
    Remove,
    Save,
    Scene,
    fill,
)

OF_STORES: list[type[Scene]] = [
    Save,
    Get,
    List,
    Check,
    Doctor,
    Remove,
    Copy,
    CopyByThreads,
    CopyQueue,
]
OF_QUEUES: list[type[Scene]] = [Pull, PullAndFollow, Look, Publish, PublishSlowly, PublishDays]


def is_about_a_dump(request: Request) -> bool:
    """Or about anything that is put into Google Cloud Storage, whose name is not in the path."""
    path = unquote(request.path)
    return "/v1/dump/" in path or path.startswith("/upload/")


MANY = 30
SPAN = 0.3  # seconds of a command, where it is not worth while to measure them

amounts = pytest.mark.parametrize(
    "runs", [1, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("stores") / "source", *CRASHES)


@amounts
@pytest.mark.parametrize("scene", OF_STORES + OF_QUEUES, ids=lambda scene: scene.__name__)
def test_a_command_may_be_stopped_at_any_moment(
    source: Path, tmp_path: Path, figures: Figures, scene: type[Scene], runs: int
) -> None:
    span = SPAN if runs == 1 else None
    seed = f"{scene.__name__} {runs}"
    stop_often(lambda place: scene(source, place), tmp_path, figures, runs, seed, span)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("pubsub_server", pubsub.servers()[:1], indirect=True)
@pytest.mark.parametrize(
    "scene", [PubSubCopy, PubSubPull, PubSubLook], ids=lambda scene: scene.__name__
)
def test_a_command_that_pulls_from_a_service_may_be_stopped_at_any_moment(
    source: Path,
    tmp_path: Path,
    figures: Figures,
    pubsub_server: PubSub,
    use_pubsub: Callable[[PubSub], None],
    scene: type[PubSubCopy] | type[PubSubPull],
) -> None:
    use_pubsub(pubsub_server)
    stop_often(
        lambda place: scene(source, place, pubsub_server), tmp_path, figures, MANY, scene.__name__
    )


# What hangs


@pytest.fixture(params=["s3_signed", "fake_gcs"])
def hanging(
    request: pytest.FixtureRequest, source: Path, tmp_path: Path
) -> Iterator[tuple[str, Proxy]]:
    """A bucket with a crash, of which no dump comes, and into which none goes."""
    server = server_of_buckets(request, request.param)
    uri = server.uri(server.new_bucket())
    assert run("copy", "-s", source, "-d", uri, CRASHES[5].crash_id).exit_code == 0
    with proxy_of(server.endpoint_url) as proxy:
        proxy.fail(Hang(), is_about_a_dump)
        yield uri.replace(server.endpoint_url, proxy.endpoint_url), proxy


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [SIGNALS[:1], SIGNALS[:2]], ids=["once", "twice"])
@pytest.mark.parametrize("what", ["get", "save", "copy to", "copy from", "copy of a queue"])
def test_a_command_whose_server_hangs_ends_in_time(
    source: Path,
    tmp_path: Path,
    hanging: tuple[str, Proxy],
    figures: Figures,
    what: str,
    numbers: tuple[signal.Signals, ...],
) -> None:
    """A second signal ends it at once.  What is given back by a queue is there again."""
    uri, proxy = hanging
    crash, out, database = CRASHES[5], tmp_path / "out", tmp_path / "queue.db"
    (tmp_path / "dump").write_bytes(b"MDMP")
    fill(f"sqlite:{database}", {crash.crash_id})
    raw = crash.path(source)
    commands: dict[str, list[Argument]] = {
        "get": ["get", "-s", uri, crash.crash_id, "--all", "-o", out],
        "save": ["save", "-d", uri, "-d", out, "--raw-crash", raw, "--dump", tmp_path / "dump"],
        "copy to": ["copy", "-s", source, "-d", uri, "--existing", "overwrite", "--limit", "20"],
        "copy from": ["copy", "-s", uri, "-d", out],
        "copy of a queue": ["copy", "-s", uri, "-d", out, "-q", f"sqlite:{database}", "--follow"],
    }
    command = command_line(*commands[what])
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
        try:
            wait_until(
                lambda: any(map(is_about_a_dump, proxy.requests)),
                "it does not come as far as its server hangs",
            )
            seconds, sent = send(process, numbers, pause=0.3)
            assert process.stderr
            stderr = process.stderr.read().decode()
        finally:
            process.kill()
    ended = Ended(process.returncode, b"", stderr, sent, seconds)
    assert not [*ended.faults()], ended
    assert ended.code > 128
    if len(sent) > 1:
        assert seconds < GRACE, "a second signal does not end it sooner"
    elif what == "copy of a queue":
        assert in_queue(database) == ({crash.crash_id}, 0)
    there = stored(out) if out.exists() and what.startswith("copy") else {}
    # Dumps of a crash that is new have their names at once; nobody sees them without its raw crash.
    visible = [name for name in there if "/." not in name and not name.endswith(".dump")]
    assert not visible, "a crash is torn"
    figures(runs=1, **{"at_once" if seconds < GRACE / 2 else "after_the_grace_time": 1})


@pytest.mark.slow
def test_what_nobody_reads_goes_back_to_its_queue(tmp_path: Path, figures: Figures) -> None:
    """A pipe takes a page, and that is full."""
    database = tmp_path / "queue.db"
    fill(f"sqlite:{database}", IDS)
    with start("queue-pull", "-q", f"sqlite:{database}", "--follow") as process:
        wait_until(lambda: in_queue(database)[1], "it does not pull")
        assert process.stdout and process.stdout.read(1)  # it writes
        send(process, SIGNALS[:1])
        assert process.returncode == 128 + signal.SIGTERM
    assert in_queue(database) == (IDS, 0)
    figures(given_back=len(IDS))


def stop_often(
    make: Callable[[Path], Scene],
    directory: Path,
    figures: Figures,
    runs: int,
    seed: str,
    span: float | None = None,
) -> None:
    """Stop a command in so many places of its own, each time at another moment."""
    seen: Counter[str] = Counter()
    span = span or seconds_of(make, directory)
    rng = random.Random(seed)
    for number in range(runs):
        place = directory / f"place-{number}"
        place.mkdir()
        scene = make(place)
        after = rng.uniform(0, scene.span or span)
        numbers, pause = pick_signals(rng, twice=scene.twice)
        where = f"run {number} (seed {seed!r}), {numbers} after {after:.3f} s"
        try:
            ended = run_signalled(scene.args(), place, after, numbers, pause)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{where}: does not end")
        faults = [*ended.faults(), *scene.faults(ended), *rerun_faults(scene, number)]
        assert not faults, f"{where}: {faults}, {ended}"
        seen[ended.how] += 1
        seen["twice"] += len(ended.numbers) > 1
        shutil.rmtree(place)
    figures(runs=runs, **seen)


def seconds_of(make: Callable[[Path], Scene], directory: Path) -> float:
    """How long it takes when nobody stops it; it may be less the next time."""
    place = directory / "whole"
    place.mkdir()
    scene = make(place)
    if scene.span:
        return scene.span
    begun = time.monotonic()
    ended = run_signalled(scene.args(), place, 60.0, [])
    assert ended.code == 0, ended
    assert not [*scene.faults(ended)]
    return time.monotonic() - begun


def rerun_faults(scene: Scene, number: int) -> Iterator[str]:
    if isinstance(scene, Copy | Remove) and number % 5 == 4:
        yield from scene.rerun_faults()


def test_a_copy_that_cannot_write_its_report_leaves_nothing_leased(
    source: Path, tmp_path: Path
) -> None:
    """It ends as by a signal, at any moment, and by no error of a store or queue."""
    database = tmp_path / "queue.db"
    fill(f"sqlite:{database}", IDS)
    where = ("-s", source, "-d", tmp_path / "out", "-q", f"sqlite:{database}")
    result = run("copy", *where, "--report", "/dev/full")
    assert result.exit_code == 1 and "No space left" in result.stderr
    bodies, leased = in_queue(database)
    assert bodies and not leased
