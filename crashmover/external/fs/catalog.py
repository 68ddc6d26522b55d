# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Catalog: which crashes there are, directory by directory, in the order of their ids."""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from crashmover import crashid
from crashmover.crash import Kind
from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.finding import is_collectors_link
from crashmover.external.fs.layouts import ID_LENGTH, Layout, Where
from crashmover.external.passed_over import PassedOver, why_invalid


class Catalog:
    """The crashes in a store's directories, found by one walk through them.

    A directory that cannot be entered, or something else in its place, hides the crashes in it
    and no others: it is noted, and raised at the end.

    :param kind: of crashes that have this part
    :param passed_over: counts what looks like a crash and is not yielded
    """

    def __init__(self, root_fd: int, layout: Layout, kind: Kind, passed_over: PassedOver) -> None:
        self._root_fd = root_fd
        self._layout = layout
        self._passed_over = passed_over
        self._suffix = layout.file_name("", kind)
        self._failures: list[OSError] = []

    def crashes(self, since: dt.date | None, until: dt.date | None) -> Iterator[str]:
        """Yield, in order, the crashes of these days.

        :raises OSError: at the end, where a directory could not be looked into
        """
        for day in sorted(durable.names(self._root_fd)):
            if crashid.parse_day_name(day) and is_between(day, since, until):
                yield from self._below(self._layout.top(day))
            elif crashid.is_impossible_day(day) and is_between(day, since, until):
                self._note_impossible(day)
        if self._failures:
            raise self._failures[0]

    def _below(self, where: Where) -> Iterator[str]:
        """Yield, in order, the crashes in a directory and below it."""
        try:
            with opened(durable.walk_down(self._root_fd, where)) as dir_fd:
                here, directories = self._look_into(dir_fd, where)
        except FileNotFoundError:  # emptied and removed during the walk
            return
        except OSError as error:
            self._failures.append(at_place(error, where))
            return
        # The crashes of a subdirectory all begin with its name and those above: in order.
        inner = [(*where, name) for name in directories if self._layout.leads_on(name, where)]
        below = chain.from_iterable(map(self._below, inner))
        # Above the leaves there are no crashes, in the leaves no directories.  It may be flat and
        # deep.
        yield from crashid.merged(here, below) if here and inner else chain(here, below)

    def _look_into(self, dir_fd: int, where: Where) -> tuple[list[str], list[str]]:
        """Return the crashes that belong right here, and the directories, both in order."""
        found, directories = _list(dir_fd, self._suffix)
        belongs = self._layout.belongs
        here = []
        for each in found:
            if belongs(each, where):
                here.append(each)
            else:
                self._passed_over.note_id(each, "/".join(where))
        for name in directories:  # the older form: one more directory, named by the id
            if len(name) != ID_LENGTH:
                continue
            if belongs(name, where):
                if self._is_in(dir_fd, name, where):
                    here.append(name)
            elif why_invalid(name):
                self._passed_over.note_id(name, "/".join(where))
        return sorted(here), sorted(directories)

    def _is_in(self, dir_fd: int, crash_id: str, where: Where) -> bool:
        """Return True if the crash is in its own directory."""
        try:
            with opened(durable.step(dir_fd, crash_id)) as inner_fd:
                return durable.exists(inner_fd, crash_id + self._suffix)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._failures.append(at_place(error, where))
            return False

    def _note_impossible(self, day: str) -> None:
        """Count the directory of a day that no calendar has, where it has the store's layout."""
        with suppress(OSError):
            os.close(durable.walk_down(self._root_fd, self._layout.top(day)))
            self._passed_over.note(day, "", "a day that no calendar has")


def _list(dir_fd: int, suffix: str) -> tuple[list[str], list[str]]:
    """Return what may be the ids of crashes that have a file ``ID + suffix`` in an open directory,
    and the directories there.  No `DirectoryIndex`: there may be a million such directories."""
    found: list[str] = []
    directories: list[str] = []
    length = ID_LENGTH + len(suffix)
    with durable.entries(dir_fd) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if entry.is_dir(follow_symlinks=False):
                directories.append(name)
            elif len(name) == length and name.endswith(suffix):
                found.append(name[:ID_LENGTH])
            elif len(name) <= ID_LENGTH and entry.is_symlink():
                if len(name) == ID_LENGTH and is_collectors_link(dir_fd, name):
                    continue
                directories.append(name)  # in place of one: entering it is refused
    return found, directories


def at_place(error: OSError, where: Where) -> OSError:
    """Return the error with the directory that it is about."""
    return OSError(error.errno, f"{'/'.join(where)}: {error.strerror}")


def is_between(name: str, since: dt.date | None, until: dt.date | None) -> bool:
    """Return True if a day of that name, be it an impossible one, lies between these."""
    after = since is None or name >= crashid.day_name(since)
    return after and (until is None or name <= crashid.day_name(until))
