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
    from crashmover.external.crashqueue_base import CrashQueueBase
    from crashmover.external.crashstorage_base import CrashStorageBase
    from crashmover.external.roles import CrashDestination, CrashSource, ListedSource

F = TypeVar("F", bound=Callable[..., Any])

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

    def open_storage(self, where: Sequence[str]) -> "CrashStorageBase":
        """Open the store, or the several as one, that the command line names."""
        from crashmover.registry import open_storage

        return open_storage(where, config=self._config_for(where))

    def open_source(self, where: Sequence[str]) -> "CrashSource":
        """As `open_storage`, of what can be read."""
        from crashmover.registry import open_source

        return open_source(where, config=self._config_for(where))

    def open_listed_source(self, where: Sequence[str]) -> "ListedSource":
        """As `open_storage`, of what can be listed."""
        from crashmover.registry import open_listed_source

        return open_listed_source(where, config=self._config_for(where))

    def open_destination(self, where: Sequence[str]) -> "CrashDestination":
        """As `open_storage`, of what can be saved to."""
        from crashmover.registry import open_destination

        return open_destination(where, config=self._config_for(where))

    def _config_for(self, where: Sequence[str]) -> "Config | None":
        """Return the configuration, if any of these is a name from it."""
        from crashmover.config import is_name

        return self.config if any(map(is_name, where)) else None

    def open_queue(self, where: str) -> "CrashQueueBase":
        """Open the queue that the command line names."""
        from crashmover.config import is_name
        from crashmover.registry import open_queue

        return open_queue(where, config=self.config if is_name(where) else None)


class CrashIDType(click.ParamType):
    """A crash id as people type it."""

    name = "crash_id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return crashid.parse(value)
        except InvalidCrashID as error:
            self.fail(str(error), param, ctx)


class DayType(click.ParamType):
    """A day as people type it."""

    name = "day"

    def convert(
        self, value: str | dt.date, param: click.Parameter | None, ctx: click.Context | None
    ) -> dt.date:
        from crashmover.selection import parse_day

        if isinstance(value, dt.date):
            return value
        try:
            return parse_day(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no day: write 2026-11-20, today, yesterday or 7d", param, ctx)


class DurationType(click.ParamType):
    """A length of time: ``90``, ``90s``, ``10m``, ``1h30m``, ``2d``; in seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(value.strip())
        numbers = [int(group or 0) for group in match.groups()] if match else []
        seconds = sum(n * unit for n, unit in zip(numbers, (86400, 3600, 60, 1), strict=False))
        if seconds <= 0:
            self.fail(f"{value!r} is no length of time: write 90s, 10m or 1h30m", param, ctx)
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
    return click.option(
        "-q",
        "--queue",
        type=QueueType(),
        metavar="URI",
        multiple=multiple,
        required=required,
        envvar="CRASHMOVER_QUEUE",
        show_envvar=True,
        help=help,
    )


def source_option(
    *,
    required: bool = True,
    help: str = "Store to read from; repeated: a crash comes from the first that has it.",
) -> Callable[[F], F]:
    """``-s``: the store to read from."""
    return click.option(
        "-s",
        "--source",
        "sources",
        type=StoreType(),
        metavar="URI",
        multiple=True,
        required=required,
        envvar="CRASHMOVER_SOURCE",
        show_envvar=True,
        help=help,
    )


def destination_option(
    *,
    required: bool = True,
    help: str = "Store to save to; repeated: a crash goes to all of them.",
) -> Callable[[F], F]:
    """``-d``: the store to save to."""
    return click.option(
        "-d",
        "--destination",
        "destinations",
        type=StoreType(),
        metavar="URI",
        multiple=True,
        required=required,
        envvar="CRASHMOVER_DESTINATION",
        show_envvar=True,
        help=help,
    )


def range_options(function: F) -> F:
    """``--since`` and ``--until``."""
    since = click.option(
        "--since",
        type=DayType(),
        metavar="DAY",
        help="First day, by the crash ids' dates: 2026-11-20, today, yesterday, 7d (days ago).",
    )
    until = click.option("--until", type=DayType(), metavar="DAY", help="Last day; it is included.")
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
