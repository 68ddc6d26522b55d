# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Several programs at the same work, in turns."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from statistics import median
from typing import Protocol

from tests.benchmarks.measure import Argument, MissingProgram, Sample, cpu_of, measure, program
from tests.servers.process import ServerProcess

OURS = "crashmover"


class WrongBytes(Exception):
    """What arrived is not what was sent."""


class Turn(Protocol):
    """One run of a contender, in a place of its own that is ready."""

    def go(self) -> Sample:
        """Do the work."""

    def check(self) -> None:
        """Raise `WrongBytes` unless all that should be there is."""


@dataclass(frozen=True)
class Command:
    """A turn that is a process.

    :param count: how many things it moves
    :param checked: looks at what it did
    :param servers: whose processor time is counted too
    """

    line: Sequence[Argument]
    count: int
    checked: Callable[[], None]
    env: Mapping[str, str] = field(default_factory=dict)
    output: Argument = os.devnull
    servers: Sequence[ServerProcess] = ()

    def go(self) -> Sample:
        before = self._server_cpu()
        sample = measure(self.line, self.env, self.count, self.output)
        return replace(sample, server_cpu=self._server_cpu() - before)

    def _server_cpu(self) -> float:
        return sum(cpu_of(server.pids()) for server in self.servers)

    def check(self) -> None:
        self.checked()


@dataclass(frozen=True)
class Contender:
    """Who takes part.

    :param turn: makes a new place, and all else that is not to be timed
    :param program: that must be installed for it
    """

    name: str
    turn: Callable[[], Turn]
    program: str = OURS


@dataclass
class Results:
    """What a contest gave.

    :param samples: of each contender
    :param missing: why another has none
    :param ours: which of them are us
    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    ours: list[str] = field(default_factory=list)

    def median(self, name: str, figure: Callable[[Sample], float]) -> float:
        """Return the median of a figure over the runs of a contender."""
        return median(map(figure, self.samples[name]))

    def medians(self, name: str) -> Sample:
        """Return the medians of all figures."""
        return Sample(
            *(median(column) for column in zip(*map(astuple, self.samples[name]), strict=True))
        )


Say = Callable[[str], None]


def hold(contenders: Sequence[Contender], runs: int, say: Say) -> Results:
    """Let each do the work so many times, in turns; another begins each round.

    :raises WrongBytes: one did it wrong
    """
    results = Results()
    present = [contender for contender in contenders if _is_present(contender, results, say)]
    results.samples = {contender.name: [] for contender in present}
    results.ours = [contender.name for contender in present if contender.program == OURS]
    for n in range(runs):
        first = n % len(present)
        for contender in [*present[first:], *present[:first]]:
            sample = take_turn(contender)
            results.samples[contender.name].append(sample)
            say(f"  {n + 1}/{runs} {contender.name:<28} {described(sample)}")
    return results


def take_turn(contender: Contender) -> Sample:
    """Let one do the work once; look at what it did, and return what that took."""
    turn = contender.turn()
    os.sync()  # so that nobody pays for what another has left to be written
    sample = turn.go()
    os.sync()  # or else what was written could not be dropped from memory as it is looked at
    try:
        turn.check()
    except WrongBytes as error:
        raise WrongBytes(f"{contender.name}: {error}") from None
    return sample


def described(sample: Sample) -> str:
    """Return a sample as a line of the log."""
    took = f"{sample.seconds:8.3f} s {sample.count / sample.seconds:9,.1f}/s"
    server = f" {sample.server_cpu:7.2f} s CPU of the server" if sample.server_cpu else ""
    return f"{took} {sample.cpu:7.2f} s CPU {sample.memory / 1e6:6.1f} MB{server}"


def _is_present(contender: Contender, results: Results, say: Say) -> bool:
    try:
        program(contender.program)
    except MissingProgram as error:
        results.missing[contender.name] = str(error)
        say(f"  {contender.name}: not run: {error}; {error.install}")
        return False
    return True
