# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""From the text of a URI to an open store or queue: scheme -> class, by entry point.

The built-in stores and queues are registered as a third party's are, in the groups
``crashmover.storage`` and ``crashmover.queue`` of the package's metadata.
"""

import os
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from crashmover.config import Config, is_name
from crashmover.errors import InvalidURI, MissingExtra, describe
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.uri import StorageURI

if TYPE_CHECKING:
    from crashmover.external.crashqueue_base import CrashQueueBase

STORAGE_GROUP = "crashmover.storage"
QUEUE_GROUP = "crashmover.queue"


def open_storage(
    where: str | os.PathLike[str] | Sequence[str], *, config: Config | None = None
) -> CrashStorageBase:
    """Return the store at a URI, a path, a name from the configuration file, or several of
    these: then a `PolyCrashStorage` of them all.

    Nothing is contacted yet.

    :raises InvalidURI: malformed, of an unknown scheme, or with an unknown option
    :raises InvalidConfig: a name that the configuration file does not have
    :raises MissingExtra: the driver for it is not installed, or its package is broken
    """
    if isinstance(where, os.PathLike):  # a directory, whatever it is called
        where = str(StorageURI("fs", path=os.path.abspath(where)))
    named = [where] if isinstance(where, str) else where
    for text in named:
        # Before any name is looked up and shown: a URI with a blank in its password is several
        # in the environment, and the middle of it may look like a name.
        if not is_name(text):
            StorageURI.parse(text)
    uris: list[str] = []
    for text in named:
        if is_name(text):
            config = config or Config.load()
            uris += _readable(f"storage.{text}", config.stores(text))
        else:
            uris.append(text)
    if not uris:
        raise InvalidURI("no store is named")
    stores = [_open_one(StorageURI.parse(uri)) for uri in uris]
    if len(stores) == 1:
        return stores[0]
    from crashmover.external.poly import PolyCrashStorage

    return PolyCrashStorage(stores)


def open_queue(where: str, *, config: Config | None = None) -> "CrashQueueBase":
    """Return the queue at a URI, or of a name from the configuration file.

    Nothing is contacted yet.

    :raises InvalidURI: malformed, of an unknown scheme, or with an unknown option
    :raises InvalidConfig: a name that the configuration file does not have
    :raises MissingExtra: the driver for it is not installed, or its package is broken
    """
    if is_name(where):
        [where] = _readable(f"queue.{where}", [(config or Config.load()).queue_uri(where)])
    uri = StorageURI.parse(where)
    queue: CrashQueueBase = _load_class(QUEUE_GROUP, uri.scheme).from_uri(uri)
    return queue


def _readable(key: str, uris: list[str]) -> list[str]:
    """Return the URIs behind a key of the configuration file.

    :raises InvalidURI: one cannot be parsed; the message names the key
    """
    for uri in uris:
        try:
            StorageURI.parse(uri)
        except InvalidURI as error:
            raise InvalidURI(f"{key}: {error}") from None
    return uris


def _open_one(uri: StorageURI) -> CrashStorageBase:
    storage_class = _load_class(STORAGE_GROUP, uri.scheme)
    storage: CrashStorageBase = storage_class.from_uri(uri)
    return storage


def _load_class(group: str, scheme: str) -> Any:
    found = entry_points(group=group)
    matches = [entry for entry in found if entry.name == scheme]
    if not matches:
        if group == QUEUE_GROUP and scheme == "fs":
            raise InvalidURI("'fs' is no scheme of a queue; a queue in a file is sqlite:./queue.db")
        known = ", ".join(sorted({entry.name for entry in found}))
        raise InvalidURI(f"unknown scheme {scheme!r}; there are: {known}")
    return _load(matches[0])


def _load(entry: EntryPoint) -> Any:
    package = entry.dist.name if entry.dist else entry.module
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        extras = f"[{','.join(entry.extras)}]" if entry.extras else ""
        raise MissingExtra(
            f"{entry.name}: no module named {error.name!r}; try: pip install '{package}{extras}'"
        ) from error
    except (ImportError, AttributeError) as error:  # it was written for another version, perhaps
        raise MissingExtra(f"{entry.name}: {package} is broken: {describe(error)}") from error
