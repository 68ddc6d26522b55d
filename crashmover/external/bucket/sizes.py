# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Sizes: how many bytes each of many crashes has, without a request for each of them."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice

from crashmover.crash import Kind
from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.bucket.client import BucketClient
from crashmover.external.bucket.layouts import BucketLayout
from crashmover.external.bucket.sizetable import SizeTable
from crashmover.external.bucket.undated import Undated
from crashmover.external.loading import Size, batches
from crashmover.pool import Pool

logger = logging.getLogger(__name__)

_WINDOW = 100_000  # crashes that are looked for in listings together, in 20 MB of memory
_AT_ONCE = 16  # requests
_LOADED = 64  # crashes among which those that have to be are loaded at the same time
_REQUESTS = {Kind.RAW_CRASH: 4, Kind.PROCESSED_CRASH: 1}
"""How many requests it takes at least to load a crash."""
_UNFOUNDED = 64  # doubts of lists of dumps, after which the server's checksums count no more


class Sizes:
    """Finds out the sizes of crashes.

    It lists what is beside the raw crashes, or loads crashes where that takes fewer requests.  It
    also loads each crash of which the listings do not show exactly a raw crash where it is written,
    a list of dumps, and these dumps.

    :param layout: of the bucket
    :param kind: `RAW_CRASH`, where all parts of a crash count, or `PROCESSED_CRASH`
    :param load: returns the size of a crash by loading it; None if it is not there
    """

    def __init__(
        self,
        client: BucketClient,
        layout: BucketLayout,
        kind: Kind,
        load: Callable[[str], Size | None],
    ) -> None:
        self.raw_crashes: dict[str, int] = {}
        """By id the bytes of raw crashes, from the listing that yields the ids."""
        self._client = client
        self._layout = layout
        self._kind = kind
        self._load = load
        self._unfounded = 0

    def of(self, crash_ids: Iterator[str]) -> Iterator[tuple[str, Size]]:
        """Yield each crash with its size; pass over one that is removed meanwhile.

        :param crash_ids: each once
        """
        pool = Pool(_AT_ONCE, "sizes")
        undated = Undated(self._client, self._layout, self._kind, pool)
        try:
            raw_crashes = ((each, self.raw_crashes.pop(each, None)) for each in crash_ids)
            for window in batches(raw_crashes, _WINDOW):
                table = SizeTable(window, self._kind)
                window.clear()  # the table has the ids
                is_filled = self._fill(table, undated)
                yield from self._of_window(table, is_filled, pool)
                del table  # before there is another one
        finally:
            undated.stop()
            pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, table: SizeTable, undated: Undated) -> bool:
        """List what there is of these crashes; return False where they have to be loaded.

        :raises StorageUnavailable: the server does not answer as it should
        """
        try:
            return undated.fill(table, _REQUESTS[self._kind] * len(table.rows))
        except StorageError as error:  # a policy may allow less than all; a key may be odd
            if isinstance(error, StorageUnavailable):
                raise
            logger.info("crashes are loaded one by one: %s", error)
            return False

    def _of_window(
        self, table: SizeTable, is_filled: bool, pool: Pool
    ) -> Iterator[tuple[str, Size]]:
        rows = iter(table.rows.items())
        while batch := list(islice(rows, _LOADED)):
            proved = self._unfounded < _UNFOUNDED
            known = [table.size(row, proved=proved) if is_filled else None for _, row in batch]
            asked = [each for (each, _), size in zip(batch, known, strict=True) if size is None]
            loaded = pool.map(self._load, asked)
            for (crash_id, row), listed in zip(batch, known, strict=True):
                size = next(loaded) if listed is None else listed
                if is_filled and listed is None and size == table.size(row):
                    self._unfounded += size is not None
                if size is not None:
                    yield crash_id, size
