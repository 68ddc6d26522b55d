# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Tuning: how a store likes to be used, if the user says nothing else."""

from dataclasses import dataclass

from crashmover.retry import RetryPolicy

_RETRY = RetryPolicy()


@dataclass(frozen=True)
class Tuning:
    """How a store likes to be used.

    :param workers: how many workers should load from it at once
    :param savers: how many workers should save to it at once; None: as many as `workers`
    :param batch: how many crashes it likes to be given at once, and to be asked for where crashes
        are only read
    :param prefetch: how many crashes a copy should ask it for at once.  More than one helps only
        where `CrashSource.load_crashes` loads many sooner than one after the other
    :param least_batch: how small a batch may become where more workers than `workers` share what
        is in hand; None: as large as `batch`
    :param processes: whether workers should be processes, because the interpreter's lock would be
        the limit.  Such a store holds no thread, and in a forked process uses nothing of what it
        held before
    :param retry: what is tried again, how often and for how long
    :param most_workers: how many workers there may be at once, while each further one raises the
        rate, if every store of a run allows that; None: no more than the stores ask for by
        `workers` and `savers`
    :raises ValueError: a number is less than 1
    """

    workers: int = 4
    savers: int | None = None
    batch: int = 1
    prefetch: int = 1
    least_batch: int | None = None
    processes: bool = False
    retry: RetryPolicy = _RETRY
    most_workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "savers", "most_workers", "batch", "prefetch", "least_batch"):
            count = getattr(self, name)
            if count is not None and count < 1:  # a copy would end before its first crash
                raise ValueError(f"Tuning: {name} is {count}, and at least 1 is needed")

    def batch_for(self, workers: int) -> int:
        """Return how many crashes a batch should have where so many workers work at once."""
        if self.least_batch is None:
            return self.batch
        return min(self.batch, max(self.least_batch, self.workers * self.batch // workers))
