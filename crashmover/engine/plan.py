# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which options and stores go together: decided before anything is touched."""

from collections.abc import Set

from crashmover.crash import ALL_KINDS, Kind
from crashmover.engine.distinct import SAME
from crashmover.errors import NotTwoStores
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.redactor import Redactor


def refuse_loss(
    source: CrashStorageBase,
    destination: CrashStorageBase,
    kinds: Set[Kind],
    remove_source: bool,
    redactor: Redactor | None,
) -> None:
    """Raise `ValueError` where the job as such would lose data, as far as that is known without
    contacting a store."""
    sources = {store.identity() for store in source.stores}
    destinations = {store.identity() for store in destination.stores}
    if sources == destinations or (remove_source and sources & destinations):
        raise NotTwoStores(SAME)
    if not kinds:
        raise ValueError("no kinds of parts to copy")
    if not remove_source:
        return
    if frozenset(kinds) != ALL_KINDS:
        raise ValueError("a source can be removed only when all kinds of parts are copied")
    if redactor:
        raise ValueError("a source cannot be removed when the copy is redacted")
    if len(source.stores) > 1:
        raise ValueError("a source can be removed only when it is one store")
