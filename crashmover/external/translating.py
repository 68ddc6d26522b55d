# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Translating: raise the store's error for the driver's."""

from collections.abc import Callable
from typing import Any


class translating:
    """A context in which errors are replaced: ``with translating(OSError, explain): ...``.

    No generator, as every file of a crash has one.

    :param kinds: the errors to be replaced
    :param explain: returns the error to raise; may return the same one
    """

    __slots__ = ("_explain", "_kinds")

    def __init__(
        self,
        kinds: type[Exception] | tuple[type[Exception], ...],
        explain: Callable[[Any], Exception],
    ) -> None:
        self._kinds = kinds
        self._explain = explain

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, self._kinds) and (other := self._explain(error)) is not error:
            raise other from error
