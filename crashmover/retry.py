# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The one retry policy: what is tried again, how often, how long."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from crashmover.errors import CrashMoverError, PolyCrashStorageError

logger = logging.getLogger(__name__)

T = TypeVar("T")


def is_retryable(error: BaseException) -> bool:
    """Return True if trying again may help: by the type of the error, and by nothing else."""
    return isinstance(error, CrashMoverError) and error.is_retryable


def tries_again(error: BaseException) -> bool:
    """Return True if it is retryable, and no client below has tried again already."""
    if isinstance(error, PolyCrashStorageError):
        return any(tries_again(child) for child in error.exceptions)
    return is_retryable(error) and not getattr(error, "was_retried", False)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with jitter, bounded in attempts and in time.

    :param attempts: at most, the first included
    :param timeout: seconds after which no further attempt is begun
    :param wait: seconds before the second attempt, doubled before each further one
    :param wait_max: seconds between two attempts at most
    """

    attempts: int = 5
    timeout: float = 45.0
    wait: float = 0.2
    wait_max: float = 5.0

    def call(self, function: Callable[[], T], *, first: Callable[[], T] | None = None) -> T:
        """Return what `function` returns; raise what it raised last.

        :param first: is called in place of `function` at the first attempt, such as where many
            crashes were loaded together, and now each of them goes on by itself
        """
        start = monotonic()
        try:
            return (first or function)()
        except Exception as error:
            if not tries_again(error):
                raise
            return self._again(function, error, monotonic() - start)

    def _again(self, function: Callable[[], T], first: Exception, elapsed: float) -> T:
        # Imported here: nearly every run never fails, and starts 40 ms sooner.
        import tenacity

        failures = [first]

        def replay() -> T:
            if failures:
                raise failures.pop()
            return function()

        def log(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            logger.info("trying again in %.1f s: %s", state.upcoming_sleep, error)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(tries_again),
            stop=tenacity.stop_after_attempt(self.attempts)
            | tenacity.stop_after_delay(self.timeout - elapsed),
            wait=tenacity.wait_exponential(self.wait, max=self.wait_max)
            + tenacity.wait_random(0, min(self.wait, self.wait_max)),
            before_sleep=log,
            reraise=True,
        )(replay)
