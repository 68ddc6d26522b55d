# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Commands to be stopped, each in a place of its own, and what must hold of each when it has
been."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from crashmover import open_queue
from crashmover.external.crashqueue_base import CrashQueueBase
from tests.cli_helpers import Argument, Sample, by_crash_id, manifest, put, run, samples, stored
from tests.servers.pubsub import PubSub
from tests.signalled import Ended, in_queue

CRASHES = samples(250)
IDS = {crash.crash_id for crash in CRASHES}


class Scene(ABC):
    """A command, its place, and what must hold.

    :param source: a store with `CRASHES`, which all share
    :param place: an empty directory
    """

    span: float | None = None
    """Seconds in which it is stopped; None: as long as it takes when nobody stops it."""

    twice = True
    """Whether it may be sent a second signal, which leaves what it holds to its lease."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source = source
        self.place = place

    @abstractmethod
    def args(self) -> list[Argument]:
        """The command."""

    @abstractmethod
    def faults(self, ended: Ended) -> Iterator[str]:
        """Yield what does not hold."""


class Save(Scene):
    """A crash with some megabytes, over one that is there."""

    def __init__(self, source: Path, place: Path) -> None:
        super().__init__(source, place)
        old, self.other = CRASHES[1], CRASHES[7]  # of one directory
        dumps = {"upload_file_minidump": b"MDMP" * 500_000}
        self.states = [old, Sample(old.crash_id, b"{}", dumps, old.processed)]
        self.store = put(place / "store", old, self.other)
        self.files = [place / "raw.json", place / "dump"]
        self.files[0].write_bytes(b"{}")
        self.files[1].write_bytes(dumps["upload_file_minidump"])

    def args(self) -> list[Argument]:
        raw, dump = self.files
        crash_id = self.states[0].crash_id
        return ["save", "-d", self.store, "--raw-crash", raw, "--dump", dump, crash_id]

    def faults(self, ended: Ended) -> Iterator[str]:
        there = stored(self.store)
        whole = [manifest(state, self.other) for state in self.states]
        if str(self.states[0].path(Path())) in there:
            is_right = any(there == state for state in whole)
            is_torn = not any(state.items() <= there.items() for state in whole)
        else:  # while one state takes the place of another, there is none
            processed = str(self.states[0].path(Path(), ".jsonz"))
            is_right = there.keys() <= {*manifest(self.other), processed}
            is_torn = False
        if is_torn or (not is_right and len(ended.numbers) == 1):
            yield f"neither the old crash nor the new one nor none: {sorted(there)}"
        if (ended.code == 0 or ended.lines) and not whole[1].items() <= there.items():
            yield "it was said to be saved and is not there"


class Get(Scene):
    """All parts of a crash into a directory."""

    def args(self) -> list[Argument]:
        return ["get", "-s", self.source, CRASHES[5].crash_id, "--all", "-o", self.place / "out"]

    def faults(self, ended: Ended) -> Iterator[str]:
        crash = CRASHES[5]
        parts = {f".{name}.dump": data for name, data in crash.dumps.items()}
        parts[".raw_crash.json"] = crash.raw
        found = {path.name.removeprefix(crash.crash_id): path for path in self._files()}
        for name, path in found.items():
            if name == ".processed_crash.json":
                continue
            if name not in parts:
                yield f"{path} is left behind"
            elif path.read_bytes() != parts[name]:
                yield f"{path} is not whole"
        if ended.code == 0 and not parts.keys() <= found.keys():
            yield f"only {sorted(found)} is there"

    def _files(self) -> Iterator[Path]:
        return (path for path in self.place.glob("out/*") if not path.name.startswith(".."))


class List(Scene):
    """The ids of all crashes, and the bytes they have."""

    def args(self) -> list[Argument]:
        return ["list", "-s", self.source, "--bytes"]

    def faults(self, ended: Ended) -> Iterator[str]:
        expected = [f"{crash.crash_id}  {crash.size}" for crash in CRASHES]
        if not set(ended.lines) <= set(expected):
            yield f"{ended.lines} are not the crashes that are there"
        if ended.code == 0 and sorted(ended.lines) != sorted(expected):
            yield f"only {ended.lines} were listed"


class Check(Scene):
    """The crashes of a store that another has, too."""

    def __init__(self, source: Path, place: Path) -> None:
        super().__init__(source, place)
        self.there = put(place / "there", *CRASHES)

    def args(self) -> list[Argument]:
        return ["check", "-s", self.source, "-d", self.there, "--digest", "--all"]

    def faults(self, ended: Ended) -> Iterator[str]:
        expected = [f"{crash.crash_id}  # ok" for crash in CRASHES]
        if not set(ended.lines) <= set(expected):
            yield f"{ended.lines} are not what is there"
        if ended.code == 0 and sorted(ended.lines) != sorted(expected):
            yield f"only {ended.lines} were checked"


class Doctor(Scene):
    """Two stores that are written to, of which one is not there yet."""

    def __init__(self, source: Path, place: Path) -> None:
        super().__init__(source, place)
        self.stores = [put(place / "store", CRASHES[1]), place / "new"]

    def args(self) -> list[Argument]:
        return ["doctor", *(word for store in self.stores for word in ("-d", store))]

    def faults(self, ended: Ended) -> Iterator[str]:
        there = stored(self.stores[0])
        if len(ended.numbers) == 1 and (there != manifest(CRASHES[1]) or self.stores[1].exists()):
            yield f"left behind: {sorted(there)}, {sorted(self.place.iterdir())}"
        for store in self.stores:
            listed = run("list", "-s", store).stdout.split()
            if not set(listed) <= {CRASHES[1].crash_id}:
                yield f"{listed} are seen"
        if ended.code == 0 and [line[:2] for line in ended.lines] != ["ok", "ok"]:
            yield f"{ended.lines} do not say that all is well"


class Remove(Scene):
    """All crashes of some days."""

    def __init__(self, source: Path, place: Path) -> None:
        super().__init__(source, place)
        self.store = put(place / "store", *CRASHES)

    def args(self) -> list[Argument]:
        days = ("--since", "2026-11-19", "--until", "2026-11-20")
        return ["remove", "-s", self.store, *days, "--yes"]

    def faults(self, ended: Ended) -> Iterator[str]:
        there, gone = stored(self.store), set(ended.lines)
        left = [crash for crash in CRASHES if crash.path(self.store).exists()]
        if not manifest(*left).items() <= there.items():
            yield "a crash is torn"
        if gone - {crash.crash_id for crash in CRASHES if crash not in left}:
            yield "something is said to be gone that is there"
        if ended.code == 0 and there:
            yield f"not removed: {sorted(there)}"
        if len(ended.numbers) == 1 and len(left) + len(gone) < len(CRASHES):
            yield f"{len(CRASHES) - len(left)} are gone, and {len(gone)} said to be"

    def rerun_faults(self) -> Iterator[str]:
        done = run(*map(str, self.args()))
        if done.exit_code or list(self.store.iterdir()):
            yield f"a rerun does not complete: {done.stderr}"


class Copy(Scene):
    """A copy by processes."""

    options: tuple[str, ...] = ()

    @property
    def destination(self) -> Path:
        return self.place / "destination"

    @property
    def report(self) -> Path:
        return self.place / "report"

    def args(self) -> list[Argument]:
        where = ("-s", self.source, "-d", self.destination, "--report", self.report)
        return ["copy", *where, *self.options]

    def arrived(self) -> list[Sample]:
        return [crash for crash in CRASHES if crash.path(self.destination).exists()]

    def faults(self, ended: Ended) -> Iterator[str]:
        there, arrived = stored(self.destination), self.arrived()
        if not manifest(*arrived).items() <= there.items():
            yield "a crash is torn"
        # What a second signal, or the end of our patience, leaves: the next save takes it over.
        if len(ended.numbers) == 1 and there != manifest(*arrived):
            yield f"left behind: {sorted(there.keys() - manifest(*arrived).keys())}"
        whole = self.report.read_bytes().splitlines(True) if self.report.exists() else []
        reported = by_crash_id(line for line in whole if line.endswith(b"\n"))
        if not reported.keys() <= {crash.crash_id for crash in arrived}:
            yield "something is reported and not there"
        if ended.code == 0 and len(arrived) < len(CRASHES):
            yield f"only {len(arrived)} are there"

    def rerun_faults(self) -> Iterator[str]:
        done = run("copy", "-s", self.source, "-d", self.destination)
        if done.exit_code or stored(self.destination) != manifest(*CRASHES):
            yield f"a rerun does not complete: {done.stderr}"


class CopyByThreads(Copy):
    options = ("--workers", "1", "--verify")


class QueuedCopy(Copy):
    """A copy of what is in a queue."""

    def __init__(self, source: Path, place: Path, uri: str) -> None:
        super().__init__(source, place)
        self.uri = uri
        fill(uri, IDS)

    def args(self) -> list[Argument]:
        return [*super().args(), "-q", self.uri]

    def faults(self, ended: Ended) -> Iterator[str]:
        yield from super().faults(ended)
        yield from self.queue_faults(ended, {crash.crash_id for crash in self.arrived()})

    @abstractmethod
    def queue_faults(self, ended: Ended, arrived: set[str]) -> Iterator[str]:
        """Yield what is wrong with the queue when so much has arrived."""


class CopyQueue(QueuedCopy):
    """The same, where the queue is a file."""

    options = ("--wait", "0")

    def __init__(self, source: Path, place: Path) -> None:
        self.database = place / "queue.db"
        super().__init__(source, place, f"sqlite:{self.database}")

    def queue_faults(self, ended: Ended, arrived: set[str]) -> Iterator[str]:
        return queue_faults(self.database, ended, arrived)


class Pull(Scene):
    """Crash ids from a queue, which is a file."""

    options: tuple[str, ...] = ("--wait", "0")

    def __init__(self, source: Path, place: Path) -> None:
        super().__init__(source, place)
        self.database = place / "queue.db"
        self.uri = f"sqlite:{self.database}"
        fill(self.uri, IDS)

    def args(self) -> list[Argument]:
        return ["queue-pull", "-q", self.uri, *self.options]

    def faults(self, ended: Ended) -> Iterator[str]:
        yield from queue_faults(self.database, ended, set(ended.lines))


class PullAndFollow(Pull):
    options = ("--follow",)
    span = 1.0


class Look(Pull):
    """The crash ids are only looked at: all stay."""

    options = ("--no-ack", "--wait", "0.3")

    def faults(self, ended: Ended) -> Iterator[str]:
        bodies, leased = in_queue(self.database)
        if bodies != IDS:
            yield f"{len(IDS - bodies)} were taken off the queue"
        if leased and len(ended.numbers) == 1:
            yield f"{leased} are left leased"


class Publish(Scene):
    """Crash ids from a file to a queue, which is a file."""

    def __init__(self, source: Path, place: Path) -> None:
        super().__init__(source, place)
        self.database = place / "queue.db"
        self.ids = place / "ids.txt"
        self.ids.write_text("\n".join(IDS))
        fill(f"sqlite:{self.database}", set())

    def args(self) -> list[Argument]:
        return ["queue-publish", "-q", f"sqlite:{self.database}", "--ids-from", self.ids]

    def faults(self, ended: Ended) -> Iterator[str]:
        bodies, printed = in_queue(self.database)[0], set(ended.lines)
        if not bodies | printed <= IDS:
            yield f"{(bodies | printed) - IDS} come from nowhere"
        if len(ended.numbers) > 1:
            return
        if bodies & printed:
            yield f"{len(bodies & printed)} were published, and said not to be"
        # Before it began, and after its end, it says nothing.
        if bodies | printed != IDS and (bodies or printed or ended.code == 0):
            yield f"{len(IDS - bodies - printed)} are neither published nor printed"


class PublishSlowly(Publish):
    def args(self) -> list[Argument]:
        return [*super().args(), "--rate", "500"]


class PublishDays(Publish):
    """The crash ids of a store."""

    def args(self) -> list[Argument]:
        where = ("-s", self.source, "--since", "2026-11-19", "--until", "2026-11-20")
        return ["queue-publish", "-q", f"sqlite:{self.database}", "--rate", "1000", *where]


class PubSubCopy(QueuedCopy):
    """The same, where the queue is a subscription."""

    twice = False  # a server keeps what was leased, for a minute
    options = ("--wait", "0.5")

    def __init__(self, source: Path, place: Path, server: PubSub) -> None:
        super().__init__(source, place, server.uri())

    def queue_faults(self, ended: Ended, arrived: set[str]) -> Iterator[str]:
        return pubsub_faults(self.uri, arrived)


class PubSubPull(Scene):
    """Crash ids from a subscription."""

    twice = False
    options: tuple[str, ...] = ("--wait", "0.5")

    def __init__(self, source: Path, place: Path, server: PubSub) -> None:
        super().__init__(source, place)
        self.uri = server.uri()
        fill(self.uri, IDS)

    def args(self) -> list[Argument]:
        return ["queue-pull", "-q", self.uri, *self.options]

    def faults(self, ended: Ended) -> Iterator[str]:
        yield from pubsub_faults(self.uri, set(ended.lines))


class PubSubLook(PubSubPull):
    options = ("--no-ack", "--wait", "0.5")

    def faults(self, ended: Ended) -> Iterator[str]:
        yield from pubsub_faults(self.uri, set())


def fill(uri: str, ids: set[str]) -> None:
    with open_queue(uri) as queue:
        queue.create()
        queue.publish("standard", sorted(ids))


def queue_faults(database: Path, ended: Ended, done: set[str]) -> Iterator[str]:
    """Yield what is wrong with a queue in a file.

    :param done: what may have left it
    """
    bodies, leased = in_queue(database)
    if lost := IDS - bodies - done:
        yield f"{len(lost)} are lost"
    if leased and len(ended.numbers) == 1:
        yield f"{leased} are left leased"
    if ended.code == 0 and bodies:
        yield f"{len(bodies)} were not done"


def pubsub_faults(uri: str, done: set[str]) -> Iterator[str]:
    """Yield what is wrong with a subscription: what is not done must come at once."""
    with open_queue(uri) as queue:
        found = _pull_all(queue, IDS - done)
        if missing := IDS - done - found:
            yield f"{len(missing)} of {len(IDS - done)} do not come again at once"


def _pull_all(queue: CrashQueueBase, wanted: set[str]) -> set[str]:
    """Pull until all of these have come, or nothing more does."""
    found: set[str] = set()
    while deliveries := queue.pull(wait=0.2 if wanted <= found else 3.0):
        found |= {delivery.crash_id for delivery in deliveries}
        queue.ack(deliveries)
    return found
