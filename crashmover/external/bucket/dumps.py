# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Dumps: the dumps of one crash, looked at and opened one by one, and asked for together."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from threading import Lock
from typing import BinaryIO, Protocol, TypeVar

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash, StorageError
from crashmover.external.bucket.client import BucketClient, StoredObject, replaced
from crashmover.external.bucket.layouts import BucketLayout
from crashmover.external.bucket.stamps import is_marked

T = TypeVar("T")


class Judge(Protocol):
    """Says whether objects were saved together."""

    def check_belongs(
        self, stored: StoredObject, raw: StoredObject, what: str, crash_id: str
    ) -> None:
        """Raise `StorageError` unless an object was saved with this raw crash."""

    def raise_if_replaced(self, raw: StoredObject) -> None:
        """Raise `StorageUnavailable` unless the raw crash is as it was found."""

    def corrupt(self, reason: str, crash_id: str) -> CorruptCrash:
        """Return what to raise where objects do not belong together."""


class Dumps:
    """The dumps of one crash.

    Where requests go together, the first dump that is opened brings the others along, as far as
    they are small; and the first that is looked at, what is known of the others.  That is done once
    for each: what is opened again is asked for again.

    :param client: of the bucket
    :param layout: of the bucket
    :param judge: says whether a dump belongs to the raw crash
    :param raw: the raw crash that the names were found with
    """

    def __init__(
        self,
        client: BucketClient,
        layout: BucketLayout,
        judge: Judge,
        names: Iterable[str],
        crash_id: str,
        raw: StoredObject,
    ) -> None:
        self.client = client
        self.judge = judge
        self.crash_id = crash_id
        self.raw = raw
        self._all = [Dump(self, name, layout.dump_key(crash_id, name)) for name in names]
        self._are_looked_at = self._are_opened = False
        self._lock = Lock()

    def parts(self) -> list[Part]:
        """Return each as a part."""
        return [dump.part() for dump in self._all]

    def check(self) -> None:
        """Look at each.

        :raises StorageError: one is missing, or does not belong to the raw crash
        """
        for dump in self._all:
            dump.size()

    def look_at(self, dump: "Dump") -> StoredObject | None:
        """Return what is known of a dump; None if there is none."""
        with self._lock:  # the other dumps wait for the first
            if self.client.rounds.is_far and not self._are_looked_at:
                self._are_looked_at = True
                return self._ask(dump, self.client.head, self.client.head)
        return dump.ahead or self.client.head(dump.key)

    def open(self, dump: "Dump") -> tuple[StoredObject, BinaryIO] | None:
        """Open a dump; return None if there is none."""
        with self._lock:
            if self.client.rounds.is_far and not self._are_opened:
                self._are_opened = self._are_looked_at = True
                return self._ask(dump, self.client.get, self.client.get_small)
            ahead, dump.ahead = dump.ahead, None
        if ahead and ahead.body is not None:
            return ahead, ahead.open_body()
        return self.client.get(dump.key)

    def _ask(
        self,
        dump: "Dump",
        ask: Callable[[str], T],
        ask_for_other: Callable[[str], StoredObject | None],
    ) -> T:
        """Ask for a dump, and for the others too if requests go together."""
        with self.client.rounds() as begin:
            answer = begin(partial(ask, dump.key))
            others = [each for each in self._all if each is not dump]
            answers = [begin(partial(ask_for_other, other.key)) for other in others]
            found = answer()
            for other, answer_for_other in zip(others, answers, strict=True):
                with suppress(StorageError):  # it comes again when that dump is asked for
                    other.ahead = answer_for_other()
        return found


class Dump:
    """A dump, of which nothing is known before it is looked at, and which has to stay what it was
    then: otherwise two destinations could get different dumps."""

    def __init__(self, among: Dumps, name: str, key: str) -> None:
        self.key = key
        self.ahead: StoredObject | None = None
        """What was found of it along with another, once."""
        self._among = among
        self._name = name
        self._size = 0
        self._version: object = None  # until it is looked at

    def part(self) -> Part:
        """Return it as a part."""
        locate = partial(self._among.client.location, self.key)
        ask_size, ask_version = self.size, self.version
        return Part(
            Kind.DUMP,
            self._name,
            self.open,
            ask_size=ask_size,
            locate=locate,
            ask_version=ask_version,
        )

    def open(self) -> BinaryIO:
        """Open it."""
        found = self._among.open(self)
        if found is None:
            raise self._missing()
        with ExitStack() as unless_all_is_well:
            unless_all_is_well.callback(found[1].close)
            self._check(found[0])
            unless_all_is_well.pop_all()
        return found[1]

    def size(self) -> int:
        """Return how many bytes it has, or had when it was looked at first."""
        if self._version is None:
            self._look()
        return self._size

    def version(self) -> object:
        """Return the version that was there when it was looked at first."""
        if self._version is None:
            self._look()
        return self._version

    def _look(self) -> None:
        found = self._among.look_at(self)
        if found is None:
            raise self._missing()
        self._check(found)

    def _missing(self) -> CorruptCrash:
        self._among.judge.raise_if_replaced(self._among.raw)
        return self._corrupt("is listed and not there")

    def _check(self, dump: StoredObject) -> None:
        judge, raw = self._among.judge, self._among.raw
        judge.check_belongs(dump, raw, f"dump {self._name}", self._among.crash_id)
        if not is_marked(dump, raw):
            judge.raise_if_replaced(raw)
            raise self._corrupt("was saved with other dumps")
        if self._version not in (None, dump.state):
            raise replaced(self._among.client, self.key)
        self._size, self._version = dump.size, dump.state

    def _corrupt(self, fault: str) -> CorruptCrash:
        return self._among.judge.corrupt(f"dump {self._name} {fault}", self._among.crash_id)
