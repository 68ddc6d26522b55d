# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the tests of several stores do with each of them."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crashmover import crashid
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import CRASH_ID, contents, crash_of
from tests.benchmarks.measure import measure

DAY = crashid.date_of(CRASH_ID)


def every_call(storage: CrashStorageBase) -> list[Callable[[], object]]:
    """Each way of using a store that contacts its server, reading first."""
    return [
        lambda: storage.load_crash(CRASH_ID),
        lambda: storage.has_crash(CRASH_ID),
        lambda: storage.save_crash(crash_of(contents("b"))),
        lambda: storage.remove(CRASH_ID),
        lambda: list(storage.new_crashes()),
        lambda: list(storage.remove_days(DAY, DAY)),
        lambda: storage.verify_access(),
        lambda: storage.verify_access(write=True),
        lambda: storage.probe_write(),
    ]


def peak_of_copy(source: str, destination: str) -> int:
    """Copy and return how much memory that took, in bytes: of its workers too."""
    command = [sys.executable, "-m", "crashmover", "copy", "-s", source, "-d", destination]
    return measure(command, os.environ).memory


def remove_once_listed(monkeypatch: pytest.MonkeyPatch, crash_id: str) -> None:
    """Let somebody remove a crash from a directory as soon as it has been listed."""
    new_crashes = FSPermanentStorage.new_crashes

    def listed(self: FSPermanentStorage, *args: Any) -> Iterator[str]:
        found = list(new_crashes(self, *args))
        self.remove(crash_id)
        return iter(found)

    monkeypatch.setattr(FSPermanentStorage, "new_crashes", listed)
