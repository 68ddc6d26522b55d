# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""SizeTable: what listings have said of some crashes, and whether that is all of them."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice, permutations

from crashmover.crash import Kind
from crashmover.external.bucket.bodies import crc32c_text
from crashmover.external.bucket.client import Listed

_ORDERS = 24  # of names in a list of dumps: all of four names
_CRC32C = 8  # characters of a checksum that is no MD5
_NO_LIST = -1


class SizeTable:
    """Adds up the objects of some crashes.  It has about 200 bytes for each of them.

    :param crashes: their ids, each with the bytes of its raw crash if these are known
    :param kind: `RAW_CRASH`, where a crash has to have a raw crash and a list of dumps, or
        `PROCESSED_CRASH`, where only that counts
    """

    def __init__(self, crashes: Sequence[tuple[str, int | None]], kind: Kind) -> None:
        count = len(crashes)
        self.rows = {crash_id: row for row, (crash_id, _) in enumerate(crashes)}
        """By id the crash's row, in the order of the crashes."""
        self._kind = kind
        self._bits: dict[str, int] = {}  # of the names of dumps
        self._bytes = array("q", (size or 0 for _, size in crashes))
        self._is_there = bytearray(size is not None for _, size in crashes)
        self._dumps = [0] * count  # by bits, as most crashes have the same names
        self._lists = array("q", [_NO_LIST]) * count  # the bytes of each list of dumps
        self._checksums = array("q", [0]) * count  # hashes of theirs; 0: the server tells none
        self._sample = ""

    def add_dumps(self, name: str, page: Iterable[Listed]) -> None:
        """Take note of the dumps of this name, from a listing with ids in place of keys."""
        bit = self._bits.setdefault(name, 1 << len(self._bits))
        for crash_id, size, _ in page:
            if (row := self.rows.get(crash_id)) is not None:
                self._dumps[row] |= bit
                self._bytes[row] += size

    def add_lists(self, page: Iterable[Listed]) -> None:
        """Take note of lists of dumps."""
        for crash_id, size, checksum in page:
            if (row := self.rows.get(crash_id)) is not None:
                self._lists[row] = size
                self._checksums[row] = hash(checksum)
                self._sample = checksum or self._sample

    def add_processed(self, page: Iterable[Listed]) -> None:
        """Take note of processed crashes."""
        for crash_id, size, _ in page:
            if (row := self.rows.get(crash_id)) is not None:
                self._bytes[row] += size
                if self._kind is Kind.PROCESSED_CRASH:
                    self._is_there[row] = True

    def size(self, row: int, *, proved: bool = False) -> int | None:
        """Return how many bytes a crash has; None if the listings do not show that.

        Its list of dumps was not read.  But the list has the length that a list of just the dumps
        that are there has.

        :param proved: whether the checksum of the list has to say the same, where there is one.
            Where a server encrypts objects, it may be that of other bytes.
        """
        if not self._is_there[row]:
            return None
        if self._kind is Kind.RAW_CRASH:
            names = self._named(row)
            if self._lists[row] != len(_formatted(names)):
                return None
            known = self._checksums[row]
            if proved and known and known not in _checksums(names, self._sample):
                return None
        return self._bytes[row]

    def _named(self, row: int) -> tuple[str, ...]:
        there = self._dumps[row]
        return tuple(name for name, bit in self._bits.items() if there & bit)


@lru_cache(maxsize=1024)
def _formatted(names: tuple[str, ...]) -> bytes:
    """Return a list of dumps as Python's ``json.dumps`` writes it, here, in Antenna and Socorro."""
    return json.dumps(names).encode()


@lru_cache(maxsize=1024)
def _checksums(names: tuple[str, ...], like: str) -> frozenset[int]:
    """Return the hashes of the checksums that a list of these names may have, in any order.

    :param like: a checksum of the kind that the server tells
    """
    bodies = map(_formatted, islice(permutations(sorted(names)), _ORDERS))
    return frozenset(hash(_checksum(body, like)) for body in bodies)


def _checksum(data: bytes, like: str) -> str:
    if len(like) == _CRC32C:
        import google_crc32c

        return crc32c_text(google_crc32c.value(data))
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
