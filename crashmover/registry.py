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
from typing import TYPE_CHECKING, Any, cast

from crashmover.config import Config, is_name
from crashmover.errors import InvalidURI, MissingExtra, describe
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.roles import CrashDestination, CrashSource, ListedSource, Store
from crashmover.uri import StorageURI

if TYPE_CHECKING:
    from crashmover.external.crashqueue_base import CrashQueueBase

STORAGE_GROUP = "crashmover.storage"
QUEUE_GROUP = "crashmover.queue"


Where = str | os.PathLike[str] | Sequence[str]
"""A URI, a path, a name from the configuration file, or several of these."""

_ROLES: dict[type, tuple[str, str]] = {
    CrashStorageBase: ("PolyCrashStorage", "crashes cannot be removed from it"),
    ListedSource: ("PolyListedSource", "its crashes cannot be listed"),
    CrashSource: ("PolySource", "crashes can only be saved to it"),
    CrashDestination: ("PolyDestination", "crashes can only be read from it"),
}
"""For each role: the class of several stores in one, and what is said of a store that has not the
role."""


def open_storage(where: Where, *, config: Config | None = None) -> CrashStorageBase:
    """Return the store at a URI, a path, a name from the configuration file, or several of
    these: then a `PolyCrashStorage` of them all.

    Nothing is contacted yet.

    :raises InvalidURI: malformed, of an unknown scheme, with an unknown option, or of a store
        that has not every role
    :raises InvalidConfig: a name that the configuration file does not have
    :raises MissingExtra: the driver for it is not installed, or its package is broken
    """
    return cast(CrashStorageBase, _open(where, config, CrashStorageBase))


def open_source(where: Where, *, config: Config | None = None) -> CrashSource:
    """As `open_storage`, of what crashes can be read from: a `ListedSource` or a
    `CrashStorageBase` at best."""
    return cast(CrashSource, _open(where, config, CrashSource))


def open_listed_source(where: Where, *, config: Config | None = None) -> ListedSource:
    """As `open_storage`, of what can be listed."""
    return cast(ListedSource, _open(where, config, ListedSource))


def open_destination(where: Where, *, config: Config | None = None) -> CrashDestination:
    """As `open_storage`, of what crashes can be saved to: a `CrashStorageBase` at best."""
    return cast(CrashDestination, _open(where, config, CrashDestination))


def open_store(uri: str | StorageURI) -> Store:
    """As `open_storage`, of the one store at a URI, whatever can be done with it."""
    parsed = StorageURI.parse(uri) if isinstance(uri, str) else uri
    store: Store = _load_class(STORAGE_GROUP, parsed.scheme).from_uri(parsed)
    return store


def _open(where: Where, config: Config | None, role: type) -> Store:
    """Return the store, or several as one with all the roles that each of them has."""
    stores = [open_store(uri) for uri in _uris(where, config)]
    for store in stores:
        if not isinstance(store, role):
            raise InvalidURI(f"{store.uri}: {_ROLES[role][1]}")
    if len(stores) == 1:
        return stores[0]
    from crashmover.external import poly

    common = (
        name
        for each, (name, _) in _ROLES.items()
        if issubclass(each, role) and all(isinstance(store, each) for store in stores)
    )
    made: Store = getattr(poly, next(common))(stores)
    return made


def _uris(where: Where, config: Config | None) -> list[StorageURI]:
    if isinstance(where, os.PathLike):  # a directory, whatever it is called
        where = str(StorageURI("fs", path=os.path.abspath(where)))
    named = [where] if isinstance(where, str) else where
    # Before any name is looked up and shown: a URI with a blank in its password is several
    # in the environment, and the middle of it may look like a name.
    typed = {text: StorageURI.parse(text) for text in named if not is_name(text)}
    uris: list[StorageURI] = []
    for text in named:
        if text in typed:
            uris.append(typed[text])
        else:
            config = config or Config.load()
            uris += _parsed(f"storage.{text}", config.stores(text))
    if not uris:
        raise InvalidURI("no store is named")
    return uris


def open_queue(where: str, *, config: Config | None = None) -> "CrashQueueBase":
    """Return the queue at a URI, or of a name from the configuration file.

    Nothing is contacted yet.

    :raises InvalidURI: malformed, of an unknown scheme, or with an unknown option
    :raises InvalidConfig: a name that the configuration file does not have
    :raises MissingExtra: the driver for it is not installed, or its package is broken
    """
    if is_name(where):
        [uri] = _parsed(f"queue.{where}", [(config or Config.load()).queue_uri(where)])
    else:
        uri = StorageURI.parse(where)
    queue: CrashQueueBase = _load_class(QUEUE_GROUP, uri.scheme).from_uri(uri)
    return queue


def _parsed(key: str, uris: list[str]) -> list[StorageURI]:
    """Return the URIs behind a key of the configuration file.

    :raises InvalidURI: one cannot be parsed; the message names the key
    """
    try:
        return list(map(StorageURI.parse, uris))
    except InvalidURI as error:
        raise InvalidURI(f"{key}: {error}") from None


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
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        extras = f"[{','.join(entry.extras)}]" if entry.extras else ""
        raise MissingExtra(
            f"{entry.name}: no module named {error.name!r};"
            f" try: pip install '{_package_of(entry)}{extras}'"
        ) from error
    except (ImportError, AttributeError) as error:  # it was written for another version, perhaps
        reason = f"{_package_of(entry)} is broken: {describe(error)}"
        raise MissingExtra(f"{entry.name}: {reason}") from error


def _package_of(entry: EntryPoint) -> str:
    """Return the name of the package, for which all of its metadata is parsed."""
    return entry.dist.name if entry.dist else entry.module
