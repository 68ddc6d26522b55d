# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The dumps of a raw crash that has no list of dumps.

Other programs leave such crashes: Mozilla Socorro puts the raw crash, then the list, then the dumps
(``socorro/external/boto/crashstorage.py``).  Its reader finds a dump by its key, listed or not.
"""

from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from crashmover.crash import MAIN_DUMP, Kind, Part
from crashmover.documents import LargeDocument
from crashmover.errors import CorruptCrash
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.obstore_client import RAW_CRASH_SHA256, Objects, StoredObject
from crashmover.soundness import read_dump_checksums

Look = Callable[[str, str], StoredObject | None]


def open_as_found(objects: Objects, stored: StoredObject, crash_id: str) -> BinaryIO:
    """Open an object as it was found.

    :raises StorageUnavailable: it was replaced or removed since
    """
    if stored.body is not None:
        return stored.open_body()
    found = objects.open(stored.key, crash_id)
    if found is None:
        raise objects.replaced(crash_id)
    if found[0].e_tag != stored.e_tag:
        found[1].close()
        raise objects.replaced(crash_id)
    return found[1]


def unlisted_dumps(objects: Objects, raw: StoredObject, crash_id: str) -> list[str]:
    """Return the names of the dumps that are beside a raw crash without a list: the main dump and
    those that the raw crash has checksums of, as far as they are there.

    A dump that says that it was saved with another raw crash is left out.

    :raises LargeDocument: the raw crash is too large to be read as JSON
    """
    names = dict.fromkeys([MAIN_DUMP, *_named(objects, raw, crash_id)])
    return [name for name in names if _is_beside(objects.look, raw, crash_id, name)]


def _named(objects: Objects, raw: StoredObject, crash_id: str) -> list[str]:
    open_raw = partial(open_as_found, objects, raw, crash_id)
    try:
        return list(read_dump_checksums(Part(Kind.RAW_CRASH, "", open_raw, raw.size)))
    except LargeDocument:  # the dumps that it names must not be left behind
        raise
    except CorruptCrash:  # it names no dumps
        return []


def _is_beside(look: Look, raw: StoredObject, crash_id: str, name: str) -> bool:
    dump = look(keys.dump_key(crash_id, name), crash_id)
    if dump is None:
        return False
    theirs = dump.metadata.get(RAW_CRASH_SHA256)
    return theirs is None or theirs == raw.sha256_of_dumps
