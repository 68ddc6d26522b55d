# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Options and types of values that several commands share."""

import datetime as dt
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from crashmover import crashid, streams
from crashmover.errors import CrashMoverError, InvalidCrashID

if TYPE_CHECKING:
    from crashmover.config import Config

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", re.ASCII)


class Settings:
    """What the options before the command say."""

    def __init__(self, config_path: str | None = None) -> None:
        self._config_path = config_path

    @cached_property
    def config(self) -> "Config":
        """The configuration, read when something in it is looked up."""
        from crashmover.config import Config

        return Config.load(self._config_path)

    def open(self, opener: Callable[..., T], where: str | Sequence[str]) -> T:
        """Open what the command line names, by a function of `crashmover.registry`.  The
        configuration is read only if that is a name from it."""
        from crashmover.config import is_name

        names = [where] if isinstance(where, str) else where
        return opener(where, config=self.config if any(map(is_name, names)) else None)


def to_crash_id(text: str) -> str:
    """Return the crash id that was typed."""
    try:
        return crashid.parse(text)
    except InvalidCrashID as error:
        raise click.BadParameter(str(error)) from None


def to_day(text: str) -> dt.date:
    """Return the day that was typed."""
    from crashmover.selection import parse_day

    try:
        return parse_day(text)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no day: write 2026-11-20, today, yesterday or 7d"
        ) from None


def to_seconds(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``10m``, ``1h30m``, ``2d``."""
    match = _DURATION.fullmatch(text.strip())
    numbers = [int(group or 0) for group in match.groups()] if match else []
    seconds = sum(n * unit for n, unit in zip(numbers, (86400, 3600, 60, 1), strict=False))
    if seconds <= 0:
        raise click.BadParameter(f"{text!r} is no length of time: write 90s, 10m or 1h30m")
    return float(seconds)


class IdsFileType(click.File):
    """A file of crash ids, opened for reading; ``-`` is standard input."""

    def __init__(self) -> None:
        super().__init__("r", encoding="utf-8", errors="replace")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse a standard input that is closed: it would look like an empty file."""
        path = "/dev/stdin" if value == "-" else value
        if isinstance(path, str) and (name := streams.closed_name(path)):
            self.fail(f"{name} is closed", param, ctx)
        return super().convert(value, param, ctx)


class StoreType(click.ParamType):
    """The URI of a store, the path of one, or a name from the configuration file."""

    name = "uri"
    section = "storage"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse a tilde here, where the option that it came from can be named."""
        from crashmover.uri import refuse_tilde

        try:
            return refuse_tilde(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the configured names; directories are offered by the shell."""
        settings = ctx.find_object(Settings) or Settings(ctx.find_root().params.get("config"))
        try:
            known = getattr(settings.config, self.section)
            names = [name for name in known if name.startswith(incomplete)]
        except CrashMoverError:
            names = []
        return [CompletionItem(name) for name in sorted(names)] or [
            CompletionItem(incomplete, type="dir")
        ]


class QueueType(StoreType):
    """The URI of a queue, or a name from the configuration file."""

    section = "queue"

    def split_envvar_value(self, rv: str) -> list[str]:
        """One, where several may be given: it may be a path with a blank in it."""
        return [rv]


def queue_option(*, required: bool, help: str, multiple: bool = False) -> Callable[[F], F]:
    """``-q``: the queue, or several."""
    names = ("-q", "--queue", "queue")
    return _uri_option(*names, type=QueueType(), required=required, multiple=multiple, help=help)


def source_option(
    *,
    required: bool = True,
    help: str = "Store to read from; repeated: a crash comes from the first that has it.",
) -> Callable[[F], F]:
    """``-s``: the store to read from."""
    names = ("-s", "--source", "sources")
    return _uri_option(*names, type=StoreType(), required=required, multiple=True, help=help)


def destination_option(
    *,
    required: bool = True,
    help: str = "Store to save to; repeated: a crash goes to all of them.",
) -> Callable[[F], F]:
    """``-d``: the store to save to."""
    names = ("-d", "--destination", "destinations")
    return _uri_option(*names, type=StoreType(), required=required, multiple=True, help=help)


def _uri_option(short: str, long: str, name: str, **attributes: Any) -> Callable[[F], F]:
    """Return an option for URIs, which the environment may give, too."""
    variable = f"CRASHMOVER_{long.removeprefix('--').upper()}"
    return click.option(
        short, long, name, metavar="URI", envvar=variable, show_envvar=True, **attributes
    )


def range_options(function: F) -> F:
    """``--since`` and ``--until``."""
    since = click.option(
        "--since",
        type=to_day,
        metavar="DAY",
        help="First day, by the crash ids' dates: 2026-11-20, today, yesterday, 7d (days ago).",
    )
    until = click.option("--until", type=to_day, metavar="DAY", help="Last day; it is included.")
    return since(until(function))


def check_range(since: dt.date | None, until: dt.date | None) -> None:
    """Refuse a range of days that ends before it begins, or begins in the future.

    Tomorrow is no future: clocks differ, and a day begins somewhere before it does in UTC.
    """
    tomorrow = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    if since and since > tomorrow:
        raise click.UsageError(f"--since {since} is in the future")
    if since and until and since > until:
        raise click.UsageError(f"--since {since} is after --until {until}")
