# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover doctor``."""

import json
import logging
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from crashmover.cli import exit_codes, signals
from crashmover.cli.console import printable, say
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import Settings, destination_option, queue_option, source_option
from crashmover.cli.places import KINDS, Place, place_at, places_of
from crashmover.config import is_name
from crashmover.directories import NO_HOME
from crashmover.engine.doctor import Check, Checkup, Need, check_queue, check_storage, run
from crashmover.external.crashqueue_base import CrashQueueBase

_OPTIONS = {
    "sources": ("storage", Need.READ),
    "destinations": ("storage", Need.WRITE),
    "queue": ("queue", Need.READ),
}


@dataclass(frozen=True)
class Patient:
    """What is to be tried.

    :param need: what it is for, if it is a store
    """

    place: Place
    need: Need

    @property
    def key(self) -> Hashable:
        """Equal for those that are tried once for all: two names may stand for the same."""
        place = self.place
        return place if place.error else (place.kind, place.shown, place.uri, self.need)

    def check(self, write: bool) -> Check:
        """Return what tries it."""
        opened = self.place.opened
        if isinstance(opened, CrashQueueBase):
            return partial(check_queue, opened)
        if opened:
            return partial(check_storage, opened, self.need, write)
        return self._cannot_be_opened

    def _cannot_be_opened(self, _checkup: Checkup) -> None:
        assert self.place.error
        raise self.place.error


@click.command("doctor", epilog=exit_codes.HELP)
@source_option(required=False, help="Store that must be readable; may be repeated.")
@destination_option(
    required=False, help="Store that one must be able to read and to save to; may be repeated."
)
@queue_option(required=False, multiple=True, help="Queue to try; may be repeated.")
@click.option(
    "--write/--no-write",
    default=True,
    show_default=True,
    help="Write a probe into stores that are to be saved to, and take it away again; or only look"
    " whether one might.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=20.0,
    show_default=True,
    metavar="S",
    help="Give up what has not answered after S seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object for each, one a line.")
@click.pass_context
def command(
    context: click.Context, /, write: bool, timeout: float, as_json: bool, **_options: Any
) -> None:
    """Try stores and queues: whether they can be reached, read and written to, whether their clocks
    are right, what a mount cannot promise, whether topics and subscriptions are there and ack
    deadlines long enough, and whether a queue could put a malformed message aside.

    Tries those that are named; without any, all in the configuration and in the environment.
    One line each: ok, warn or failed.  A store that is only in the configuration and cannot be
    saved to is a warning; one that -d names has failed.

    \b
    Examples:
      crashmover doctor
      crashmover doctor -s prod -d archive -q pubsub://project/prod
      crashmover doctor --no-write --json | jq -r 'select(.error) | .uri'
    """
    patients = _patients(context)
    distinct = {patient.key: patient for patient in patients}.values()
    checks = [(patient.place.uri, patient.check(write)) for patient in distinct]
    stopper = signals.Stopper()
    with signals.handling(stopper):
        code = stopper.end_of(lambda: _print(patients, run(checks, timeout), as_json))
    raise click.exceptions.Exit(code)


def _patients(context: click.Context) -> list[Patient]:
    """Return what the command line names; else what the environment and the configuration do.

    :raises CrashMoverError: something that is named is nothing
    """
    settings: Settings = context.obj
    typed = [
        option
        for option in _OPTIONS
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE
    ]
    named = {option: context.params[option] for option in typed or _OPTIONS}
    patients = list(_named(settings, named))
    if not typed:
        patients += _configured(settings, {patient.place.name for patient in patients})
    if not patients:
        config = settings.config
        where = config.path or f"--config ({NO_HOME})"
        raise click.UsageError(f"nothing is named: -s, -d and -q name something, or {where}")
    return patients


def _named(settings: Settings, named: dict[str, tuple[str, ...]]) -> Iterator[Patient]:
    # URIs before names: what looks like a name may be a piece of a URI, and then is not shown.
    items = [(option, text) for option, texts in named.items() for text in texts]
    opened = {
        (option, text): [place_at(_OPTIONS[option][0], text)]
        for option, text in items
        if not is_name(text)
    }
    for [place] in opened.values():
        if place.error:
            raise place.error
    for option, text in items:
        section, need = _OPTIONS[option]
        places = opened.get((option, text)) or places_of(settings.config, section, text)
        for place in places:
            if place.error:
                raise place.error
            yield Patient(place, need)


def _configured(settings: Settings, but: set[str]) -> Iterator[Patient]:
    for section in KINDS:
        for name in sorted(getattr(settings.config, section)):
            if name not in but:
                places = places_of(settings.config, section, name)
                yield from (Patient(place, Need.EITHER) for place in places)


def _print(patients: list[Patient], checkups: Iterator[Checkup], as_json: bool) -> int:
    """Print what was found, as it comes; return the exit code."""
    width = max(len(patient.place.name) for patient in patients)
    line = _as_json if as_json else partial(_line, width=width)
    known: dict[Hashable, Checkup] = {}
    verdicts: list[str] = []
    try:
        for patient in patients:
            if patient.key not in known:
                known[patient.key] = next(checkups)
            checkup = known[patient.key]
            verdicts.append(checkup.verdict)
            click.echo(line(patient.place, checkup))
    finally:
        for _ in checkups:  # the reader may leave, and yet each probe must be taken away
            pass
    warnings, failed = (verdicts.count(verdict) for verdict in ("warn", "failed"))
    text = f"checked {len(verdicts)}, warnings {warnings}, failed {failed}"
    level = logging.WARNING if warnings or failed else logging.INFO
    say(text, level=level, checked=len(verdicts), warnings=warnings, failed=failed)
    return ExitCode.UNAVAILABLE if failed else ExitCode.OK


def _line(place: Place, checkup: Checkup, width: int) -> str:
    error, uri = checkup.error, checkup.uri
    first = error.removeprefix(f"{uri}: ") if error else ", ".join(checkup.found)
    text = "; ".join(filter(None, (first, *checkup.warnings)))
    name = f"{place.name:<{width}}" if width else ""
    columns = (f"{checkup.verdict:<6}", f"{place.kind:<5}", name, uri, text)
    return printable("  ".join(filter(None, columns)))


def _as_json(place: Place, checkup: Checkup) -> str:
    return json.dumps(
        {
            "kind": place.kind,
            "name": place.name or None,
            "uri": checkup.uri,
            "verdict": checkup.verdict,
            "found": checkup.found,
            "warnings": checkup.warnings,
            "clock": checkup.clock,
            "error": checkup.error,
        }
    )
