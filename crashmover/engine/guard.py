# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Guard: one store, its retries, and whether it is down as a whole."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from crashmover.errors import StorageDenied, StorageError, describe
from crashmover.external.roles import Store
from crashmover.retry import RetryPolicy, is_retryable

T = TypeVar("T")
S = TypeVar("S", bound=Store)


class Guard(Generic[S]):
    """Calls a store, and stops calling it once the store is down as a whole.

    Safe for use from many threads: `down` is set by single assignments.

    :param store: the store
    :param retry: what to try again; None: as the store's own `Tuning` says
    :param write: whether the store is down, too, where it can be read and not be written to
    """

    def __init__(self, store: S, retry: RetryPolicy | None = None, *, write: bool = False) -> None:
        self.store = store
        self.down: StorageError | None = None
        """Why the store is not used any more; None: it is used."""
        self.retry = retry or store.tuning.retry
        self._write = write

    def call(self, function: Callable[[], T], *, first: Callable[[], T] | None = None) -> T:
        """Return what `function` returns, tried again as `RetryPolicy.call` does.

        :raises StorageError: the store is down, and nothing was called
        :raises Exception: what the last attempt raised; the store may be down since
        """
        if self.down:
            raise self.down
        try:
            return self.retry.call(function, first=first)
        except Exception as error:
            self.check_after(error)
            raise

    def check_after(self, *errors: Exception | None) -> None:
        """Find out whether errors are about single crashes or about the whole store."""
        found = [error for error in errors if error]
        if any(is_retryable(error) or isinstance(error, StorageDenied) for error in found):
            self.check()

    def check(self) -> None:
        """Take note if the store is down.  One request, or none where that is known."""
        if not self.down:
            try:
                self.store.verify_access(write=self._write)
            except StorageError as error:
                self.down = error
            except Exception as error:  # what no store should raise must not end the whole run
                self.down = StorageError(describe(error), uri=self.store.uri)


def outage(source: Guard[Any], destinations: Sequence[Guard[Any]]) -> StorageError | None:
    """Return why a copy cannot go on: its source is down, or every destination is."""
    downs = [destination.down for destination in destinations]
    return source.down or (downs[0] if all(downs) else None)
