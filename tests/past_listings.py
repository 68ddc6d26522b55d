# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Directories whose listings are older than what is in them, on any file system.

`btrfs_listings` lets a descriptor list what was there when it was opened, as Btrfs does since Linux
6.5.  `hidden` lets a directory list none of certain files, as the cache of a mount does.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from crashmover.external.fs import syscalls

_SCANDIR, _OPEN, _CLOSE, _DUP = os.scandir, os.open, os.close, os.dup


class _Entries:
    """Some of what a directory has."""

    def __init__(self, entries: Any, is_listed: Callable[["os.DirEntry[str]"], bool]) -> None:
        self._entries = entries
        self._is_listed = is_listed

    def __enter__(self) -> Iterator["os.DirEntry[str]"]:
        return filter(self._is_listed, self._entries)

    def __exit__(self, *_exc: object) -> None:
        self._entries.close()


def btrfs_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each descriptor list only what was there when it was opened."""
    past: dict[int, set[tuple[str, int]]] = {}

    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        fd = _OPEN(path, flags, *args, **kwargs)
        if flags & os.O_DIRECTORY:
            with _SCANDIR(fd) as entries:
                past[fd] = {(entry.name, entry.inode()) for entry in entries}
        return fd

    def dup(fd: int) -> int:
        copy = _DUP(fd)
        if fd in past:
            past[copy] = past[fd]
        return copy

    def close(fd: int) -> None:
        past.pop(fd, None)
        _CLOSE(fd)

    def scandir(path: Any = ".") -> Any:
        if not isinstance(path, int):
            return _SCANDIR(path)
        there = past[path]  # each directory is opened by `os.open`
        return _Entries(_SCANDIR(path), lambda entry: (entry.name, entry.inode()) in there)

    def listdir(path: Any = ".") -> list[str]:
        with scandir(path) as entries:
            return [entry.name for entry in entries]

    monkeypatch.setattr(syscalls, "has_openat2", lambda: False)
    for name, function in {
        "open": open_,
        "dup": dup,
        "close": close,
        "scandir": scandir,
        "listdir": listdir,
    }.items():
        monkeypatch.setattr(os, name, function)


@contextmanager
def hidden(is_hidden: Callable[[str], bool]) -> Iterator[list[str]]:
    """Let no listing show the files with certain names; yield what was hidden so far."""
    found: list[str] = []

    def is_listed(entry: "os.DirEntry[str]") -> bool:
        if is_hidden(entry.name):
            found.append(entry.name)
            return False
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", lambda path=".": _Entries(_SCANDIR(path), is_listed))
        yield found
