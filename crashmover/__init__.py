# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""crashmover moves crash reports between stores: whole, verified and fast.

The public names are here; each is imported when it is first used, so that ``import
crashmover`` costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # not from typing, which would be imported before anything else is done

__version__ = "0.1.0"

if TYPE_CHECKING:
    from crashmover import crashid as crashid
    from crashmover.config import Config as Config
    from crashmover.crash import ALL_KINDS as ALL_KINDS
    from crashmover.crash import Crash as Crash
    from crashmover.crash import Kind as Kind
    from crashmover.crash import Part as Part
    from crashmover.crash_data import CrashData as CrashData
    from crashmover.dumps import FileDumpsMapping as FileDumpsMapping
    from crashmover.dumps import MemoryDumpsMapping as MemoryDumpsMapping
    from crashmover.engine.mover import Existing as Existing
    from crashmover.engine.mover import Mover as Mover
    from crashmover.engine.mover import Outcome as Outcome
    from crashmover.engine.mover import Status as Status
    from crashmover.external.crashqueue_base import CrashQueueBase as CrashQueueBase
    from crashmover.external.crashqueue_base import Delivery as Delivery
    from crashmover.external.crashqueue_base import QueueName as QueueName
    from crashmover.external.crashstorage_base import CrashStorageBase as CrashStorageBase
    from crashmover.external.fs.crashstorage import FSPermanentStorage as FSPermanentStorage
    from crashmover.external.memory import InMemoryCrashQueue as InMemoryCrashQueue
    from crashmover.external.memory import InMemoryCrashStorage as InMemoryCrashStorage
    from crashmover.external.poly import PolyCrashStorage as PolyCrashStorage
    from crashmover.external.roles import CrashDestination as CrashDestination
    from crashmover.external.roles import CrashSource as CrashSource
    from crashmover.external.roles import ListedSource as ListedSource
    from crashmover.external.roles import ReadableDestination as ReadableDestination
    from crashmover.external.roles import Store as Store
    from crashmover.external.tuning import Tuning as Tuning
    from crashmover.redaction import Redactor as Redactor
    from crashmover.registry import open_queue as open_queue
    from crashmover.registry import open_storage as open_storage
    from crashmover.uri import StorageURI as StorageURI

_HOMES = {
    "ALL_KINDS": "crash",
    "Config": "config",
    "Crash": "crash",
    "CrashData": "crash_data",
    "CrashDestination": "external.roles",
    "CrashQueueBase": "external.crashqueue_base",
    "CrashSource": "external.roles",
    "CrashStorageBase": "external.crashstorage_base",
    "Delivery": "external.crashqueue_base",
    "Existing": "engine.mover",
    "FSPermanentStorage": "external.fs.crashstorage",
    "FileDumpsMapping": "dumps",
    "InMemoryCrashQueue": "external.memory",
    "InMemoryCrashStorage": "external.memory",
    "Kind": "crash",
    "ListedSource": "external.roles",
    "MemoryDumpsMapping": "dumps",
    "Mover": "engine.mover",
    "Outcome": "engine.mover",
    "Part": "crash",
    "PolyCrashStorage": "external.poly",
    "QueueName": "external.crashqueue_base",
    "ReadableDestination": "external.roles",
    "Redactor": "redaction",
    "Status": "engine.mover",
    "StorageURI": "uri",
    "Store": "external.roles",
    "Tuning": "external.tuning",
    "open_queue": "registry",
    "open_storage": "registry",
}

__all__ = ["__version__", "crashid", "errors", *_HOMES]


def __getattr__(name: str) -> object:
    if name in ("crashid", "errors"):
        return import_module(f"crashmover.{name}")
    if name in _HOMES:
        return getattr(import_module(f"crashmover.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is found as soon as it is asked for, too."""
    return sorted({*globals(), *__all__})
