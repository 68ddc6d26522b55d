# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores that have one role each, over a directory: as a third party writes them.

Installed by `install`, they are found as every store is, by entry points.
"""

import datetime as dt
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Self

from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.roles import CrashDestination, CrashSource, ListedSource, Store
from crashmover.uri import StorageURI


class _OverDirectory(Store):
    def __init__(self, path: str) -> None:
        self._directory = FSPermanentStorage(path)
        self.uri = f"{self.scheme}:{path}"

    scheme: str

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        uri.refuse("host", "user", "password", "port")
        return cls(uri.path, **uri.options())

    def close(self) -> None:
        self._directory.close()


class ByIDOnly(_OverDirectory, CrashSource):
    """Can be read by crash ids, as a web service can."""

    scheme = "byid"

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        return self._directory.load_crash(crash_id, kinds)


class ReadOnly(ByIDOnly, ListedSource):
    """Can be read and listed."""

    scheme = "readonly"

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        return self._directory.new_crashes(since, until, kind)


class WriteOnly(_OverDirectory, CrashDestination):
    """Can be saved to, as a collector can."""

    scheme = "writeonly"

    def save_crash(self, crash: Crash) -> None:
        self._directory.save_crash(crash)


_CLASSES: Sequence[type[_OverDirectory]] = (ByIDOnly, ReadOnly, WriteOnly)


def install(directory: Path) -> None:
    """Make what a package that registers these stores has in a directory of ``sys.path``."""
    info = directory / "one_role-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: one-role\nVersion: 1\n")
    lines = [f"{each.scheme} = {each.__module__}:{each.__name__}" for each in _CLASSES]
    (info / "entry_points.txt").write_text("\n".join(["[crashmover.storage]", *lines, ""]))
