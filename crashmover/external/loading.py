# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes that are loaded together, and how many bytes each of them has."""

from collections.abc import Iterable, Iterator, Sequence, Set
from functools import partial
from typing import Protocol, TypeVar

from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.errors import CrashIDNotFound, StorageError, StorageUnavailable
from crashmover.external.tuning import Tuning

Size = int | StorageError
"""How many bytes a crash has, or why that could not be found out."""

T = TypeVar("T")

_AT_ONCE = 500  # crashes that are loaded to be measured: for some stores that is one request


class Loads(Protocol):
    """What is asked of a source here."""

    uri: str
    tuning: Tuning

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash: ...

    def load_crashes(
        self, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
    ) -> Iterator[Crash | Exception]: ...


def each_loaded(
    source: Loads, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
) -> Iterator[Crash | Exception]:
    """As `CrashSource.load_crashes`.  If the store breaks that promise, and yields too few crashes
    or another one, `StorageUnavailable` stands for each that is missing: it is loaded by itself."""
    found = source.load_crashes(crash_ids, kinds)
    for crash_id in crash_ids:
        try:
            crash = next(found, None)
        except Exception as error:  # and nothing comes after it
            crash = error
        if not isinstance(crash, Exception) and (crash is None or crash.crash_id != crash_id):
            reason = "it was not loaded together with others"
            crash = StorageUnavailable(reason, crash_id=crash_id, uri=source.uri)
        yield crash


def given(found: Crash | Exception) -> Crash:
    """Return a crash as `load_crashes` yields it, or raise what it yields in its place."""
    if isinstance(found, Exception):
        raise found
    return found


def batches(listed: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield so many of what is listed at a time.  If the listing fails, yield those that came
    before, and then raise what it raised."""
    batch: list[T] = []
    try:
        for each in listed:
            batch.append(each)
            if len(batch) == count:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def sizes_of(
    source: Loads, crash_ids: Iterable[str], kinds: Set[Kind]
) -> Iterator[tuple[str, Size]]:
    """Yield each crash with the bytes of its parts of these kinds, as `size_of` finds them out.
    Pass over a crash that is no longer there."""
    for batch in batches(crash_ids, _AT_ONCE):
        found = each_loaded(source, batch, kinds)
        for crash_id, crash in zip(batch, found, strict=True):
            size = size_of(source, crash_id, kinds, crash)
            if size is not None:
                yield crash_id, size


def size_of(
    source: Loads, crash_id: str, kinds: Set[Kind], found: Crash | Exception | None = None
) -> Size | None:
    """Load a crash, as often as its store's policy of retries says, and return how many bytes its
    parts of these kinds have.  Return None if the crash is not there.

    :param found: what `load_crashes` has yielded for it, which counts as the first try
    """

    def measure(found: Crash | Exception | None = None) -> int:
        crash = source.load_crash(crash_id, kinds) if found is None else given(found)
        return sum(part.find_size() for part in crash.parts)

    try:
        return source.tuning.retry.call(measure, first=partial(measure, found))
    except CrashIDNotFound:
        return None
    except StorageError as error:
        return error
