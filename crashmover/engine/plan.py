# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which options and stores go together, by the roles of the stores: decided before anything is
touched."""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeGuard, cast

from crashmover.crash import ALL_KINDS, COLLECTED, Kind
from crashmover.engine.distinct import SAME
from crashmover.errors import NotTwoStores
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.roles import (
    CrashDestination,
    CrashSource,
    ListedSource,
    ReadableDestination,
    Store,
)
from crashmover.redaction import Redactor


class Existing(StrEnum):
    """What to do about a crash that a destination has."""

    SKIP = "skip"
    COMPARE = "compare"
    OVERWRITE = "overwrite"


@dataclass(frozen=True)
class CopyOptions:
    """What is asked for of a copy: see `Mover`."""

    kinds: Set[Kind] = ALL_KINDS
    existing: Existing = Existing.SKIP
    verify: bool = False
    remove_source: bool = False
    redactor: Redactor | None = None
    dry_run: bool = False


def check_copy(source: CrashSource, destination: CrashDestination, options: CopyOptions) -> None:
    """Raise `ValueError` where a copy would lose data, or a store has not the role that it needs.
    Contacts no store.

    :raises NotTwoStores: source and destination are the same
    """
    sources = {store.identity() for store in source.stores}
    destinations = {store.identity() for store in destination.stores}
    if sources == destinations or (options.remove_source and sources & destinations):
        raise NotTwoStores(SAME)
    if not options.kinds:
        raise ValueError("no kinds of parts to copy")
    if options.remove_source:
        _check_removal(source, options)
    for store in destination.stores:
        if not isinstance(store, ReadableDestination):
            _check_without_reading(store, options)


def _check_removal(source: CrashSource, options: CopyOptions) -> None:
    if options.kinds != ALL_KINDS:
        raise ValueError("a source can be removed only when all kinds of parts are copied")
    if options.redactor:
        raise ValueError("a source cannot be removed when the copy is redacted")
    if len(source.stores) > 1:
        raise ValueError("a source can be removed only when it is one store")
    for store in source.stores:
        if not isinstance(store, CrashStorageBase):
            raise _lacks(store, "no crash can be removed from it", "leave out --remove-source")


def _check_without_reading(store: Store, options: CopyOptions) -> None:
    reason = "crashes can only be saved to it, and not be looked for"
    if options.existing is not Existing.OVERWRITE:
        raise _lacks(store, reason, "use --existing overwrite")
    if options.verify:
        raise _lacks(store, reason, "leave out --verify")
    if options.remove_source:
        raise _lacks(store, reason, "leave out --remove-source")
    if Kind.RAW_CRASH in options.kinds and COLLECTED - options.kinds:
        raise _lacks(store, reason, "copy raw crashes together with their dumps")


def require_listed(source: CrashSource) -> ListedSource:
    """Return the source, which can be listed.

    :raises ValueError: it cannot
    """
    for store in (*source.stores, source):
        if not isinstance(store, ListedSource):
            raise _lacks(store, "its crashes cannot be listed", "name crash ids, or a queue")
    return cast(ListedSource, source)


def is_listed(store: Store) -> TypeGuard[ListedSource]:
    """Return True if a listing of the store tells which crashes it has."""
    return isinstance(store, ListedSource)


def _lacks(store: Store, reason: str, way_out: str) -> ValueError:
    return ValueError(f"{store.uri}: {reason}; {way_out}")
