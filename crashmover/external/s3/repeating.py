# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Repeater: calls of obstore that fail in passing, made again as the one policy says.

obstore could repeat its requests by itself.  But then no caller would learn that the server asks
for fewer of them.
"""

from collections.abc import Callable
from typing import TypeVar

from crashmover.errors import StorageUnavailable
from crashmover.external.bucket.client import subject
from crashmover.external.s3.calling import DRIVER_ERRORS, call_client
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.s3errors import asks_for_fewer, is_passing

T = TypeVar("T")


class Repeater:
    """Calls obstore, several times if need be.

    :param context: whose client is called
    """

    def __init__(self, context: S3ConnectionContext) -> None:
        self._context = context

    def __call__(
        self, function: Callable[[], T], key: str = "", *, once_at_most: bool = False
    ) -> T:
        """Return what `function` returns.

        :param function: calls obstore once
        :param key: which its errors are about
        :param once_at_most: whether the server must not carry it out twice: then a request whose
            answer was lost is not sent again
        :raises StorageUnavailable: it has failed in passing, each time
        :raises Exception: as `function`, where it has failed in any other way
        """

        def attempt() -> T:
            try:
                return call_client(function)
            except DRIVER_ERRORS as error:
                if not is_passing(error, once_at_most=once_at_most):
                    raise
                if asks_for_fewer(error):
                    self._context.note_slowdown()
                explained = self._context.explain(error, subject(key))
                if not isinstance(explained, StorageUnavailable):
                    raise
                raise explained from error

        try:
            return self._context.retry.call(attempt)
        except StorageUnavailable as error:
            error.was_retried = True
            raise
