# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Functions that a signal should not break off: an exception in the middle of one would leave a
file of which the program does not know.

Python raises what a handler of signals raises between any two steps, also between the creation of
a file and the assignment of its descriptor.  No ``try`` can close that gap.  So the command's
handler looks whether it has interrupted such a function, and tries again a moment later.  Calls
cost nothing more.
"""

from collections.abc import Callable
from types import CodeType, FrameType
from typing import TypeVar

_F = TypeVar("_F", bound=Callable[..., object])

_codes: set[CodeType] = set()


def unbroken(function: _F) -> _F:
    """Mark a function that does little and does not wait for long."""
    _codes.add(function.__code__)
    return function


def is_in_unbroken(frame: FrameType | None) -> bool:
    """Whether the code of this frame was called, at some remove, by such a function."""
    while frame and frame.f_code not in _codes:
        frame = frame.f_back
    return frame is not None
