# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover config``."""

import json
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from crashmover.cli import exit_codes
from crashmover.cli.console import printable, require_output
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import Settings
from crashmover.cli.places import KINDS, Place, place_at, places_of
from crashmover.config import ENVIRONMENT, Config, default_path, is_name
from crashmover.directories import NO_HOME
from crashmover.errors import masked

_WIDTH = 80
_SAYS = {ParameterSource.COMMANDLINE: "--config", ParameterSource.ENVIRONMENT: ENVIRONMENT}
_VARIABLES = {
    "CRASHMOVER_SOURCE": "storage",
    "CRASHMOVER_DESTINATION": "storage",
    "CRASHMOVER_QUEUE": "queue",
}


@dataclass(frozen=True)
class Entry:
    """A name, or a variable of the environment.

    :param written: what it says, item by item
    :param places: what that stands for in the end
    """

    kind: str
    name: str
    written: list[str]
    places: list[Place]

    @property
    def error(self) -> str | None:
        """What is wrong with it, or with anything that it stands for."""
        return "; ".join(str(place.error) for place in self.places if place.error) or None

    def as_dict(self) -> dict[str, Any]:
        uris = [place.shown for place in self.places if not place.error]
        return {"value": self.written, "uris": uris, "error": self.error}


@click.command("config", epilog=exit_codes.HELP)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one object.")
@click.pass_context
def command(context: click.Context, /, as_json: bool) -> None:
    """Show the configured stores and queues: which file is used, what it names, what that stands
    for in the end, and what the environment says.

    Nothing is contacted, and no password is shown.  What is wrong is said where it stands.

    \b
    Examples:
      crashmover config
      crashmover config --json | jq .storage
    """
    require_output()
    file = _file(context)
    if not as_json:
        is_missing = "" if file["exists"] else "; not there"
        path = file["path"] or NO_HOME
        click.echo(printable(f"file  {path}  ({file['from']}{is_missing})"))
    settings: Settings = context.obj
    config = settings.config
    names = [
        _entry(config, section, name)
        for section in KINDS
        for name in sorted(getattr(config, section))
    ]
    variables = [_variable(config, *each) for each in _VARIABLES.items() if os.environ.get(each[0])]
    if as_json:
        click.echo(json.dumps({"file": file, **_as_dict(names, variables)}))
    else:
        _print(names)
        _print(variables)
    wrong = any(entry.error for entry in names + variables)
    raise click.exceptions.Exit(ExitCode.USAGE if wrong else ExitCode.OK)


def _file(context: click.Context) -> dict[str, Any]:
    """Return where the file is, whether it is there, and what says that it is this one.

    The path is None without a home directory.
    """
    root = context.find_root()
    asked = root.params.get("config")
    path = Path(asked) if asked else default_path()
    says = _SAYS.get(root.get_parameter_source("config") or ParameterSource.DEFAULT, "default")
    if path is None:
        return {"path": None, "exists": False, "from": says}
    return {"path": masked(str(path)), "exists": os.path.exists(path), "from": says}


def _entry(config: Config, section: str, name: str) -> Entry:
    value: str | list[str] = getattr(config, section)[name]
    items = [value] if isinstance(value, str) else value
    written = [item if is_name(item) else place_at(section, item).shown for item in items]
    return Entry(KINDS[section], name, written, places_of(config, section, name))


def _variable(config: Config, variable: str, section: str) -> Entry:
    """Return what a variable names.  A password with a blank in it makes several of one URI, and
    what is in the middle may look like a name: so it is all in order, or shown as one text."""
    text = os.environ[variable]
    items = [text] if section == "queue" else text.split()
    opened = [place_at(section, item) for item in items if not is_name(item)]
    if error := next((place.error for place in opened if place.error), None):
        return Entry("", variable, [masked(text)], [Place("", "", "", error=error)])
    written: list[str] = []
    places: list[Place] = []
    for item in items:
        found = places_of(config, section, item) if is_name(item) else [place_at(section, item)]
        written.append(item if is_name(item) else found[0].shown)
        places += found
    return Entry("", variable, written, places)


def _as_dict(names: list[Entry], variables: list[Entry]) -> dict[str, Any]:
    sections = {
        section: {entry.name: entry.as_dict() for entry in names if entry.kind == kind}
        for section, kind in KINDS.items()
    }
    return {**sections, "environment": {entry.name: entry.as_dict() for entry in variables}}


def _print(entries: list[Entry]) -> None:
    """Print the entries in columns, behind an empty line."""
    width = max((len(entry.name) for entry in entries), default=0)
    if entries:
        click.echo()
    for entry in entries:
        kind = f"{entry.kind:<5}  " if entry.kind else ""
        start = f"{kind}{entry.name:<{width}}  "
        for line in _lines(entry, _WIDTH - len(start)):
            click.echo(printable(start + line))
            start = " " * len(start)


def _lines(entry: Entry, width: int) -> list[str]:
    written = ", ".join(entry.written)
    if [place.shown for place in entry.places] == entry.written:  # it says it all
        return [_line(place) for place in entry.places]
    if any(not place.shown for place in entry.places):
        return [f"{written}: {entry.error}"]
    wrapped = textwrap.wrap(written, width, break_long_words=False, break_on_hyphens=False)
    return [*wrapped, *(f"= {_line(place)}" for place in entry.places)]


def _line(place: Place) -> str:
    return f"{place.shown}: {place.error}" if place.error else place.shown
