# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a queue carries: messages, as they arrive, and deliveries, which are crash ids."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from crashmover import crashid
from crashmover.errors import InvalidCrashID

T = TypeVar("T")

BATCH = 1000
"""How many messages a request carries at most: Pub/Sub's own limit."""

_RULESET = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)


class QueueName(StrEnum):
    """The three queues, in the order in which they are served."""

    PRIORITY = "priority"
    STANDARD = "standard"
    REPROCESSING = "reprocessing"


@dataclass(frozen=True, slots=True)
class Message:
    """What a queue handed out, not looked at yet.

    :param handle: what the backend acks it by
    :param attempt: how often it was handed out, this time included; 0 where that is unknown
    :param about: what else the queue knows of it, fit for JSON; kept if it must be put aside
    """

    queue: QueueName
    body: bytes
    handle: Hashable
    attempt: int = 0
    about: Callable[[], Mapping[str, object]] = dict


@dataclass(frozen=True, slots=True)
class Delivery:
    """A crash id that is ours until its lease ends: to be acked or nacked.

    :param ruleset: which rules the processor shall run, where the message says so
    """

    queue: QueueName
    crash_id: str
    ruleset: str | None
    handle: Hashable
    attempt: int = 0

    @property
    def body(self) -> str:
        """As it is published: ``ID`` or ``ID:RULESET``."""
        return f"{self.crash_id}:{self.ruleset}" if self.ruleset else self.crash_id


def parse_body(text: str) -> tuple[str, str | None]:
    """Return crash id and ruleset of ``ID`` or ``ID:RULESET``.

    :raises InvalidCrashID: it is neither, to the letter
    """
    crash_id, colon, ruleset = text.partition(":")
    if colon and not _RULESET.fullmatch(ruleset):
        raise InvalidCrashID(text, "what follows its colon is not the name of a ruleset")
    return crashid.validate(crash_id), ruleset or None


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield these, `BATCH` at most at a time."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
