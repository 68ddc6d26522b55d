# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashData: the middleware service that hands out the data of one crash."""

from typing import Any

from crashmover import crashid
from crashmover.external.crashstorage_base import CrashStorageBase

DATATYPES = ("raw", "meta", "processed", "unredacted")


class CrashData:
    """Hands out what a store has of a crash.

    :param storage: the store, which stays open
    """

    def __init__(self, storage: CrashStorageBase) -> None:
        self._storage = storage

    def get(
        self, crash_id: str, datatype: str, name: str | None = None
    ) -> dict[str, Any] | tuple[bytes, str]:
        """Return one piece of a crash.

        :param datatype: ``raw``: a dump, as its bytes and its content type; ``meta``: the
            raw crash; ``processed``: the processed crash, redacted; ``unredacted``: the same
            with all that is protected
        :param name: of the dump, the main one when not given; for ``raw`` only
        :raises InvalidCrashID: it is not a crash id
        :raises ValueError: there is no such datatype
        :raises CrashIDNotFound: no such crash, or not that piece of it
        """
        crashid.validate(crash_id)
        if datatype == "raw":
            return self._storage.get_raw_dump(crash_id, name), "application/octet-stream"
        if datatype == "meta":
            return self._storage.get_raw_crash(crash_id)
        if datatype == "processed":
            return self._storage.get_processed(crash_id)
        if datatype == "unredacted":
            return self._storage.get_unredacted_processed(crash_id)
        raise ValueError(f"datatype is one of {', '.join(DATATYPES)}, not {datatype!r}")
