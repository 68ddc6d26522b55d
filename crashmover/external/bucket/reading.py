# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Reader: the objects of a crash as parts, read only as far as all of them are of one save."""

import datetime as dt
from collections.abc import Callable, Iterable, Set
from functools import partial
from time import monotonic
from typing import NamedTuple

from crashmover.crash import Kind, Part, marker_of
from crashmover.documents import LargeDocument
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket.client import SHA256, StoredObject, replaced
from crashmover.external.bucket.dumps import Dumps
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.layouts import LONGEST_DUMP_NAMES, parse_dump_names
from crashmover.external.bucket.rounds import Round
from crashmover.external.bucket.stamps import RAW_CRASH_SHA256, sha256_of_dumps

_UNLISTED = ("dump_names", "missing")  # in the version of a raw crash, as the list may come later

_LONG = dt.timedelta(seconds=10)  # the clocks of a server's machines differ by less than that
_LONG_AGO = dt.datetime.fromtimestamp(0, dt.UTC)

_Answer = Callable[[], StoredObject | None]


class Reader:
    """Makes parts of the objects of crashes.

    :param finder: of the bucket
    """

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.client = finder.client
        self._layout = finder.layout
        self._zero: dt.datetime | None = None  # as `_zero_of` has it; None: not known yet

    def parts(self, crash_id: str, kinds: Set[Kind], raw: StoredObject | None = None) -> list[Part]:
        """Return the crash's parts of these kinds.

        :param raw: the raw crash, if it was found already
        :raises CrashIDNotFound: as `CrashStorageBase.load_crash`
        """
        if marker_of(kinds) is not Kind.RAW_CRASH:
            return [self._processed(crash_id)]
        if raw:
            found = self._find_beside(_Found(raw), crash_id, kinds)
        else:
            found = self._find(crash_id, kinds)
        names: list[str] | None = []
        parts: list[Part] = []
        if Kind.DUMP in kinds:
            names = self._names_in(found.listed, crash_id, found.raw)
            there = self._unlisted(crash_id, found.raw) if names is None else names
            parts += self._dumps(there, crash_id, found.raw).parts()
        if Kind.RAW_CRASH in kinds:
            parts.insert(0, self._part(Kind.RAW_CRASH, found.raw, is_listed=names is not None))
        if found.processed:
            parts.append(self._part(Kind.PROCESSED_CRASH, found.processed))
        return parts

    def _processed(self, crash_id: str) -> Part:
        found = self.client.get_small(self._layout.processed_crash_key(crash_id))
        if found is None:
            raise CrashIDNotFound(crash_id, uri=self.client.uri, reason="no processed_crash")
        return self._part(Kind.PROCESSED_CRASH, found)

    def _find(self, crash_id: str, kinds: Set[Kind]) -> "_Found":
        """Return the raw crash, and what of these kinds there was after that was there.

        A save puts the raw crash last.  Where requests go together, the other answers may be from
        before that.  It does not matter if the raw crash was there long before the requests, by the
        server's clock, which is asked for along with the first of them.
        """
        began = monotonic()
        with self.client.rounds() as begin:
            wants_body = Kind.RAW_CRASH in kinds
            ask = begin(partial(self.finder.raw_crash, crash_id, body=wants_body))
            listed, processed = self._begin(begin, crash_id, kinds)
            ask_time = begin(self.client.clock) if self._zero is None else None
            raw, went_together = ask(), begin.has_sent
            if raw is None:
                raise CrashIDNotFound(crash_id, uri=self.client.uri)
            found = _Found(raw, listed(), processed())
            if went_together and ask_time:
                self._zero = _zero_of(ask_time())
        if not went_together or self._was_there_long_before(began, raw):
            return found
        return self._find_beside(found, crash_id, kinds & found.doubted)

    def _was_there_long_before(self, began: float, raw: StoredObject) -> bool:
        if raw.time is None or self._zero is None:
            return False
        return raw.time < self._zero + dt.timedelta(seconds=began) - _LONG

    def _find_beside(self, found: "_Found", crash_id: str, kinds: Set[Kind]) -> "_Found":
        """Return the same with what there is of these kinds now, after the raw crash was found."""
        with self.client.rounds() as begin:
            listed, processed = self._begin(begin, crash_id, kinds)
            return _Found(
                found.raw,
                listed() if Kind.DUMP in kinds else found.listed,
                processed() if Kind.PROCESSED_CRASH in kinds else found.processed,
            )

    def _begin(self, begin: Round, crash_id: str, kinds: Set[Kind]) -> list[_Answer]:
        """Begin to ask for the list of dumps, and for the processed crash, as far as parts of these
        kinds are wanted."""
        keys = {
            Kind.DUMP: self._layout.dump_names_key(crash_id),
            Kind.PROCESSED_CRASH: self._layout.processed_crash_key(crash_id),
        }
        return [
            begin(partial(self.client.get_small, key)) if kind in kinds else _nothing
            for kind, key in keys.items()
        ]

    def is_whole_other(self, crash_id: str, sha256: str) -> bool:
        """Return True if all of a crash is there that has another raw crash than the one of this
        SHA-256, and says so."""
        raw = self.finder.raw_crash(crash_id)
        if raw is None or raw.metadata.get(SHA256, sha256) == sha256:
            return False
        try:
            stored = self.client.get_small(self._layout.dump_names_key(crash_id))
            listed = self._names_in(stored, crash_id, raw)
            names = self._unlisted(crash_id, raw) if listed is None else listed
            self._dumps(names, crash_id, raw).check()
        except (CorruptCrash, StorageUnavailable):  # it was saved with others, or is replaced
            return False
        return True

    def _dumps(self, names: Iterable[str], crash_id: str, raw: StoredObject) -> Dumps:
        return Dumps(self.client, self._layout, self, names, crash_id, raw)

    def _part(self, kind: Kind, stored: StoredObject, *, is_listed: bool = True) -> Part:
        locate = partial(self.client.location, stored.key)
        opener = partial(self.finder.open_as_found, stored)
        version = stored.state if is_listed else (*stored.state, _UNLISTED)
        return Part(kind, "", opener, stored.size, locate=locate, version=version)

    def _names_in(
        self, stored: StoredObject | None, crash_id: str, raw: StoredObject
    ) -> list[str] | None:
        """Return the names in the list of dumps; None where there is no list."""
        if stored is None:
            return None
        self.check_belongs(stored, raw, "dump_names", crash_id)
        if stored.size > LONGEST_DUMP_NAMES:
            raise self.corrupt("dump_names is too long", crash_id)
        with self.finder.open_as_found(stored) as file:
            try:
                return parse_dump_names(file.read())
            except CorruptCrash as error:
                raise self.corrupt(error.reason, crash_id) from error

    def _unlisted(self, crash_id: str, raw: StoredObject) -> list[str]:
        """Return the names of the dumps beside a raw crash that had no list of them.

        :raises StorageUnavailable: the crash is being saved, replaced or removed
        """
        try:
            names = self.finder.unlisted_dumps(raw)
        except LargeDocument as error:
            reason = f"there is no dump_names, and {error.reason}"
            raise self.corrupt(reason, crash_id) from error
        if self.finder.list_of_dumps(crash_id):
            raise replaced(self.client, raw.key)
        self.raise_if_replaced(raw)
        return names

    def check_belongs(
        self, stored: StoredObject, raw: StoredObject, what: str, crash_id: str
    ) -> None:
        """Make sure that an object was saved with this raw crash, as far as they say.

        What other programs have put there says nothing: then it is enough that the raw crash
        is still there, for a save that replaces a crash removes that first.
        """
        of_stored, of_raw = stored.metadata.get(RAW_CRASH_SHA256), sha256_of_dumps(raw.metadata)
        if of_stored != of_raw:
            self.raise_if_replaced(raw)
            if of_stored and of_raw:
                raise self.corrupt(f"{what} was saved with another raw crash", crash_id)

    def raise_if_replaced(self, raw: StoredObject) -> None:
        """Raise `StorageUnavailable` unless the raw crash is as it was found."""
        now = self.client.head(raw.key)
        if now is None or now.state != raw.state:
            raise replaced(self.client, raw.key)

    def corrupt(self, reason: str, crash_id: str) -> CorruptCrash:
        """Return what to raise where objects do not belong together."""
        return CorruptCrash(reason, crash_id=crash_id, uri=self.client.uri)


class _Found(NamedTuple):
    """The objects of a crash, but for its dumps.

    :param listed: the list of the dumps
    :param processed: the processed crash
    """

    raw: StoredObject
    listed: StoredObject | None = None
    processed: StoredObject | None = None

    @property
    def doubted(self) -> Set[Kind]:
        """The kinds of parts of which there may be others since the raw crash is there.

        A list of dumps of which neither says which save it is of is another program's.  What comes
        later may be of another save as well, and would not say so either.
        """
        doubted = {Kind.DUMP, Kind.PROCESSED_CRASH}
        if self.listed and not (sha256_of_dumps(self.raw.metadata) or _stamp(self.listed)):
            doubted.discard(Kind.DUMP)
        if self.processed:
            doubted.discard(Kind.PROCESSED_CRASH)
        return doubted


def _zero_of(server_time: dt.datetime | None) -> dt.datetime:
    """Return the server's time, at the earliest, when the monotonic clock here was at zero.  The
    other clock here may be set while a run goes on.

    :param server_time: by an answer of this moment; None: the server does not say it
    """
    return server_time - dt.timedelta(seconds=monotonic()) if server_time else _LONG_AGO


def _stamp(stored: StoredObject) -> str | None:
    return stored.metadata.get(RAW_CRASH_SHA256)


def _nothing() -> None:
    """The answer that no request is needed for."""
