# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Putter: puts the objects of a crash, as far as the server honours that on a condition."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import Lock

from crashmover.crash import Crash, Part
from crashmover.errors import CrashExists, StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket import stamps
from crashmover.external.bucket.client import SHA256, ObjectExists
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.layouts import format_dump_names
from crashmover.external.bucket.listing import MissingCache
from crashmover.external.bucket.stamps import Metadata, SaveAttempt, is_of

JSON = "application/json"
_BINARY = "application/octet-stream"

_TRIES = 12
_PAUSE = 0.05  # seconds at least, before the first is repeated
_LONGEST_PAUSE = 5.0

_BUSY = "other processes save the same crash at this moment"
UNFINISHED = "another save of it goes on, or was stopped half-way: "
OVERWRITE = f"{UNFINISHED}--existing overwrite replaces that"


class Putter:
    """Puts objects.  The list of dumps, put where there is none, reserves the crash.

    :param finder: of the bucket
    :param missing: what listings have just found not to be there: a server that honours no
        conditions is not asked for it once more
    """

    def __init__(self, finder: Finder, missing: MissingCache) -> None:
        self._finder = finder
        self._client = finder.client
        self._layout = finder.layout
        self._missing = missing
        self._learning = Lock()
        self._learned: bool | None = None

    # The objects

    def put_new_dumps(
        self, crash: Crash, sha256: str | None, *, added: bool = False
    ) -> dict[str, str | None]:
        """Put dumps that are not there; return, by their keys, their SHA-256 if it is known.

        :raises StorageUnavailable: another is there
        """
        create, metadata = bool(self.conditions), stamps.of_save(sha256, added=added)

        def put(dump: Part) -> str | None:
            try:
                return self.put_dump(dump, crash.crash_id, metadata, create=create)
            except ObjectExists:
                there = self._finder.dump(crash.crash_id, dump.name)
                is_ours = there and is_of(there, sha256)
                if not there or not is_ours or not self._finder.has(dump, crash.crash_id):
                    raise self.busy(crash.crash_id, OVERWRITE) from None
                return there.metadata.get(SHA256)

        return self._put_each(crash, put)

    def put_dumps(self, crash: Crash, metadata: Metadata) -> dict[str, str | None]:
        """Put dumps in the place of what is there; return as `put_new_dumps`."""
        return self._put_each(crash, lambda dump: self.put_dump(dump, crash.crash_id, metadata))

    def _put_each(self, crash: Crash, put: Callable[[Part], str | None]) -> dict[str, str | None]:
        """Put each dump.  The processed crash does not go along: readers would find it, though a
        dump could not be read and the save has failed."""
        keys = (self._layout.dump_key(crash.crash_id, dump.name) for dump in crash.dumps)
        put_all = self._client.rounds.together(*(partial(put, dump) for dump in crash.dumps))
        return dict(zip(keys, put_all, strict=True))

    def put_dump(
        self, dump: Part, crash_id: str, metadata: Metadata, *, create: bool = False
    ) -> str | None:
        """Put a dump; return its SHA-256 if it is known.

        :raises ObjectExists: it was to be created and one is there
        """
        key = self._layout.dump_key(crash_id, dump.name)
        return self._client.put(key, dump, content_type=_BINARY, metadata=metadata, create=create)

    def put_list(
        self, names: Iterable[str], crash_id: str, metadata: Metadata, *, create: bool = False
    ) -> None:
        """Put the list of dumps; raises as `put_dump`."""
        key, data = self._layout.dump_names_key(crash_id), format_dump_names(list(names))
        self._client.put(key, data, content_type=JSON, metadata=metadata, create=create)

    def put_processed(self, crash: Crash) -> None:
        """Put the processed crash, if there is one."""
        if part := crash.processed_crash:
            key = self._layout.processed_crash_key(crash.crash_id)
            self._client.put(key, part, content_type=JSON, metadata={})

    def put_raw_crash(self, attempt: SaveAttempt, *, create: bool) -> bool:
        """Put it; return False if it was to be created and one is there."""
        key, metadata = self._layout.raw_crash_keys(attempt.crash_id)[0], attempt.of_raw_crash()
        try:
            self._client.put(
                key, attempt.body(), content_type=JSON, metadata=metadata, create=create
            )
        except ObjectExists:
            return False
        return True

    # The reservation: which process puts the list of dumps where there is none

    @property
    def conditions(self) -> bool | None:
        """Whether the server honours conditions; None if that is not known yet."""
        if self._learned is None:
            self._learned = self._client.honours_conditions()
        return self._learned

    def is_reserved(self, crash_id: str) -> bool:
        """Return True if a process has reserved the crash, where `reserve` may not notice."""
        if self.conditions or self._missing.take(crash_id):
            return False
        return self._finder.list_of_dumps(crash_id) is not None

    def reserve(self, attempt: SaveAttempt) -> bool:
        """Put the list of dumps where there is none; return True if there was none, as far as the
        server notices."""
        of_list = (attempt.names, attempt.crash_id, attempt.of_list())
        if self.conditions is None:
            with self._learning:  # the first thread finds out what the server honours
                if self.conditions is None:
                    is_new = self.try_to_list(*of_list)
                    self.learn(*of_list)
                    return is_new
        return self.try_to_list(*of_list)

    def is_still_reserved(self, attempt: SaveAttempt) -> bool:
        """Return True if no other process has reserved the crash since.  Of two that reserve it at
        the same moment, which only conditions prevent, the first notices by this."""
        return bool(self.conditions) or self._is_listed(attempt)

    def _is_listed(self, attempt: SaveAttempt) -> bool:
        """Return True if the list of dumps is of this save: every save puts the list first."""
        listed = self._finder.list_of_dumps(attempt.crash_id)
        return listed is not None and attempt.has_put_list(listed)

    def is_whole(self, attempt: SaveAttempt) -> bool:
        """Return True if everything that was put is still there, and of this save."""
        crash_id = attempt.crash_id
        with self._client.rounds() as begin:
            ask_raw = begin(partial(self._finder.raw_crash, crash_id))
            look = partial(self._finder.dump, crash_id)
            dumps = [begin(partial(look, part.name)) for part in attempt.crash.dumps]
            is_listed = begin(partial(self._is_listed, attempt))
            there = ask_raw()
            return (
                there is not None
                and there.metadata.get(SHA256, attempt.sha256) == attempt.sha256
                and all((dump := ask()) and attempt.has_put_dump(dump) for ask in dumps)
                and is_listed()
            )

    def learn(self, names: set[str], crash_id: str, metadata: Metadata) -> None:
        """Find out whether the server honours conditions, by putting a list of dumps that is there
        once more: if it does, it refuses."""
        if self.conditions is None and self.try_to_list(names, crash_id, metadata):
            self._learned = False

    def try_to_list(self, names: set[str], crash_id: str, metadata: Metadata) -> bool:
        """Put a list of dumps if there is none, as far as the server knows what that means."""
        try:
            create = self.conditions is not False
            self.put_list(names, crash_id, metadata, create=create)
        except ObjectExists:
            self._learned = True
            return False
        except (StorageDenied, StorageUnavailable):
            raise
        except StorageError:  # 501 Not Implemented, or another answer to an unknown condition
            if self.conditions is not None:
                raise
            self._learned = False
            return self.try_to_list(names, crash_id, metadata)
        return True

    # Other processes

    def turns(self, crash_id: str) -> Iterator[int]:
        """Yield turns, and between them wait for other processes to finish, which may wait for
        this one: by chance, as long as a turn takes to twice that, then to four times that, and so
        on.

        :raises StorageUnavailable: these were enough
        """
        longest = 0.0
        for turn in range(_TRIES):
            time.sleep(random.uniform(0, longest))
            began = time.monotonic()
            yield turn
            longest = min(2 * max(longest, _PAUSE, time.monotonic() - began), _LONGEST_PAUSE)
        raise self.busy(crash_id)

    def busy(self, crash_id: str, reason: str = _BUSY) -> StorageUnavailable:
        return StorageUnavailable(reason, crash_id=crash_id, uri=self._client.uri)

    def exists(self, crash_id: str) -> CrashExists:
        return CrashExists(crash_id, uri=self._client.uri)
